//! Whom a device measured when: one patient at a time, and a past that no later word rewrites.

use super::opening::certificate;
use super::*;
use crate::registry::RegistryError;

/// From, until and patient of each assignment, in seconds after some instant.
async fn history(store: &Store, device: &DeviceId) -> Vec<(i64, Option<i64>, SubjectPseudonym)> {
    let record = store.registry.device(device).await.unwrap().unwrap();
    let seconds = |instant: Timestamp| instant.as_second() - at(0).as_second();
    let assignments = record.assignments.iter();
    assignments
        .map(|of| (seconds(of.from), of.until.map(seconds), of.subject.clone()))
        .collect()
}

#[tokio::test]
async fn an_assignment_begins_in_the_past_but_never_inside_another() {
    let site = Site::new();
    let store = site.create().await;
    let (a, b, c) = (
        patient(&store).await,
        patient(&store).await,
        patient(&store).await,
    );
    let id = device(1);
    let registry = &store.registry;
    registry
        .enroll_device(&certificate(&id), at(500))
        .await
        .unwrap();
    let assign = async |subject, since| registry.assign_device(&id, subject, at(since)).await;
    let free_from = async |subject, since| match assign(subject, since).await {
        Err(RegistryError::AssignedOtherwise { free_from, .. }) => free_from,
        other => panic!("{since}: {other:?}"),
    };

    // Before its enrolment too: what it recorded is signed by the key that is enrolled.
    assign(&a, 100).await.unwrap();
    assign(&b, 300).await.unwrap();
    let (to_a, to_b) = ((100, Some(300), a.clone()), (300, None, b.clone()));
    assert_eq!(history(&store, &id).await, [to_a.clone(), to_b.clone()]);
    // Not at or before the beginning of what lasts, and not into what ended: the past stays as it was.
    for since in [300, 299, 100, 50] {
        let free = free_from(&c, since).await;
        assert!(free > at(300) && free < at(301), "{since}");
    }
    assert_eq!(history(&store, &id).await, [to_a.clone(), to_b]);

    // The same patient again: nothing ends.
    assign(&b, 400).await.unwrap();
    assert_eq!(history(&store, &id).await[1], (300, None, b.clone()));
    assign(&c, 600).await.unwrap();
    registry.revoke_device(&id, "lost", at(700)).await.unwrap();
    assert_eq!(
        history(&store, &id).await,
        [to_a, (300, Some(600), b), (600, Some(700), c)]
    );
}

#[tokio::test]
async fn an_assignment_that_was_entered_late_is_made_longer() {
    let site = Site::new();
    let store = site.create().await;
    let (a, b) = (patient(&store).await, patient(&store).await);
    let id = device(1);
    let registry = &store.registry;
    registry
        .enroll_device(&certificate(&id), at(1))
        .await
        .unwrap();
    for (subject, since) in [(&a, 10), (&b, 20)] {
        registry
            .assign_device(&id, subject, at(since))
            .await
            .unwrap();
    }
    registry.assign_device(&id, &b, at(20)).await.unwrap();
    let refused = registry.assign_device(&id, &b, at(19)).await;
    assert!(matches!(
        refused,
        Err(RegistryError::AssignedOtherwise { free_from, .. }) if free_from == at(20)
    ));
    let id = device(2);
    registry
        .enroll_device(&certificate(&id), at(1))
        .await
        .unwrap();
    registry.assign_device(&id, &a, at(50)).await.unwrap();
    registry.assign_device(&id, &a, at(10)).await.unwrap();
    assert_eq!(history(&store, &id).await, [(10, None, a)]);
}
