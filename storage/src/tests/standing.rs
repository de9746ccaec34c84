//! Devices that are suspended, reinstated, revoked: what leads where, what the revocation list says of it, and that no
//! restore lets in who was kept out.

use vitalseal_crypto::{RevocationReason, RevokedCertificate};

use super::opening::certificate;
use super::snapshot::{ONE, beside, copy_by_hand, create, open};
use super::*;
use crate::registry::{DeviceState, Registry, RegistryError};

async fn enrolled(registry: &Registry, n: u32) -> DeviceId {
    let device = device(n);
    let certificate = certificate(&device);
    registry.enroll_device(&certificate, at(1)).await.unwrap();
    device
}

async fn state(store: &Store, device: &DeviceId) -> DeviceState {
    let record = store.registry.device(device).await.unwrap();
    record.unwrap().state
}

#[tokio::test]
async fn a_device_s_record_is_never_staler_than_the_last_write() {
    let site = Site::new();
    let store = site.create().await;
    let (a, b) = (patient(&store).await, patient(&store).await);
    let id = device(1);
    let registry = &store.registry;
    let mut changes = registry.subscribe_devices();
    assert!(registry.device(&id).await.unwrap().is_none());
    assert!(matches!(
        registry.assign_device(&id, &a, at(1)).await,
        Err(RegistryError::UnknownDevice(_))
    ));
    let first = certificate(&id);
    registry.enroll_device(&first, at(2)).await.unwrap();
    assert!(
        registry
            .device(&id)
            .await
            .unwrap()
            .unwrap()
            .patient()
            .is_none()
    );
    for (subject, time) in [(&a, 2), (&b, 3), (&a, 4)] {
        registry
            .assign_device(&id, subject, at(time))
            .await
            .unwrap();
        let record = registry.device(&id).await.unwrap().unwrap();
        assert_eq!(
            record.assigned().map(|now| (&now.subject, now.from)),
            Some((subject, at(time)))
        );
    }
    // A renewed certificate; the earlier one stays known, so that what it signed stays verifiable.
    let second = certificate(&id);
    registry.enroll_device(&second, at(5)).await.unwrap();
    let record = registry.device(&id).await.unwrap().unwrap();
    assert_eq!(record.certificate.thumbprint(), second.thumbprint());
    assert_eq!(record.patient(), Some(&a));
    registry.revoke_device(&id, "stolen", at(6)).await.unwrap();
    let record = registry.device(&id).await.unwrap().unwrap();
    assert_eq!(
        (record.state, record.patient()),
        (DeviceState::Revoked, None)
    );
    assert!(matches!(
        registry.enroll_device(&second, at(7)).await,
        Err(RegistryError::DeviceRevoked(_))
    ));
    assert!(matches!(
        registry.assign_device(&id, &a, at(7)).await,
        Err(RegistryError::DeviceRevoked(_))
    ));
    for thumbprint in [first.thumbprint(), second.thumbprint()] {
        let known = registry
            .device_certificate(thumbprint)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(known.thumbprint(), thumbprint);
    }
    let row = registry.devices().await.unwrap().remove(0);
    assert_eq!(
        (row.state_since, row.state_reason.as_deref()),
        (at(6), Some("stolen"))
    );
    let mut told = 0;
    while changes.try_recv().is_ok() {
        told += 1;
    }
    assert_eq!(told, 6);
}

#[tokio::test]
async fn a_suspended_device_comes_back_and_a_revoked_one_never_does() {
    let site = Site::new();
    let store = site.create().await;
    let registry = &store.registry;
    let patient = patient(&store).await;
    let device = enrolled(registry, 1).await;
    registry
        .assign_device(&device, &patient, at(2))
        .await
        .unwrap();
    let mut changes = registry.subscribe_devices();

    let too_early = registry.reinstate_device(&device, "found", at(3)).await;
    assert!(matches!(too_early, Err(RegistryError::DeviceActive(_))));
    assert!(
        registry
            .suspend_device(&device, "lost", at(4))
            .await
            .unwrap()
    );
    assert!(
        !registry
            .suspend_device(&device, "again", at(5))
            .await
            .unwrap()
    );
    assert_eq!(changes.try_recv().unwrap(), device);
    assert!(changes.try_recv().is_err(), "told once");
    let record = registry.device(&device).await.unwrap().unwrap();
    assert_eq!(record.state, DeviceState::Suspended);
    // What it sends meanwhile is kept aside, and may be released to whom it was measured for.
    assert_eq!(record.patient(), Some(&patient));
    let row = registry.devices().await.unwrap().remove(0);
    assert_eq!(
        (row.state_since, row.state_reason.as_deref()),
        (at(4), Some("lost"))
    );
    let assigned = registry.assign_device(&device, &patient, at(6)).await;
    assert!(matches!(assigned, Err(RegistryError::DeviceSuspended(_))));
    // A new certificate is no way back.
    let renewed = certificate(&device);
    registry.enroll_device(&renewed, at(6)).await.unwrap();
    assert_eq!(state(&store, &device).await, DeviceState::Suspended);

    registry
        .reinstate_device(&device, "found", at(7))
        .await
        .unwrap();
    assert_eq!(state(&store, &device).await, DeviceState::Active);
    assert!(
        registry
            .suspend_device(&device, "lost", at(8))
            .await
            .unwrap()
    );
    registry
        .revoke_device(&device, "stolen", at(9))
        .await
        .unwrap();
    registry
        .revoke_device(&device, "twice", at(10))
        .await
        .unwrap();
    for attempt in [
        registry.reinstate_device(&device, "found", at(11)).await,
        registry
            .suspend_device(&device, "lost", at(11))
            .await
            .map(drop),
    ] {
        assert!(matches!(attempt, Err(RegistryError::DeviceRevoked(_))));
    }
    let row = registry.devices().await.unwrap().remove(0);
    assert_eq!(
        (row.state, row.state_since, row.state_reason.as_deref()),
        (DeviceState::Revoked, at(9), Some("stolen"))
    );
    assert_eq!(row.patient, None);

    let nobody = registry
        .suspend_device(&super::device(9), "lost", at(12))
        .await;
    assert!(matches!(nobody, Err(RegistryError::UnknownDevice(_))));
}

#[tokio::test]
async fn a_state_that_nobody_wrote_keeps_out_for_ever() {
    let site = Site::new();
    let store = site.create().await;
    let device = enrolled(&store.registry, 1).await;
    store.close().await;
    let db = site.database().await;
    let mut conn = db.pool().acquire().await.unwrap();
    let unchecked = match &site.schema {
        Some(_) => "ALTER TABLE devices DROP CONSTRAINT devices_state_check",
        None => "PRAGMA ignore_check_constraints = 1",
    };
    for statement in [unchecked, "UPDATE devices SET state = 'Active'"] {
        sqlx::query(statement).execute(&mut *conn).await.unwrap();
    }
    drop(conn);
    db.close().await;
    let store = site.open().await.unwrap();
    assert_eq!(state(&store, &device).await, DeviceState::Revoked);
}

#[tokio::test]
async fn every_certificate_of_every_device_that_is_kept_out_is_to_be_listed() {
    let site = Site::new();
    let store = site.create().await;
    let registry = &store.registry;
    let (held, gone) = (enrolled(registry, 1).await, enrolled(registry, 2).await);
    enrolled(registry, 3).await;
    let renewed = certificate(&gone);
    registry.enroll_device(&renewed, at(2)).await.unwrap();
    assert_eq!(registry.revoked_certificates(at(3)).await.unwrap(), []);

    registry.suspend_device(&held, "lost", at(4)).await.unwrap();
    registry
        .revoke_device(&gone, "stolen", at(5))
        .await
        .unwrap();
    let listed = registry.revoked_certificates(at(6)).await.unwrap();
    let said = |entry: &RevokedCertificate| (entry.at, entry.reason);
    assert_eq!(
        listed.iter().map(said).collect::<Vec<_>>(),
        [
            (at(4), RevocationReason::OnHold),
            (at(5), RevocationReason::Revoked),
            (at(5), RevocationReason::Revoked),
        ]
    );
    assert!(
        listed
            .iter()
            .any(|entry| *entry.serial == *renewed.serial())
    );

    registry
        .reinstate_device(&held, "found", at(7))
        .await
        .unwrap();
    assert_eq!(registry.revoked_certificates(at(8)).await.unwrap().len(), 2);
    // RFC 5280 §3.3: not before one list was made after its end.
    let end = renewed.not_after();
    let days = |days: i64| jiff::SignedDuration::from_hours(24 * days);
    let after = |days_after| registry.revoked_certificates(end + days(days_after));
    assert_eq!(after(7).await.unwrap().len(), 2);
    assert_eq!(after(15).await.unwrap(), []);
}

#[tokio::test]
async fn no_older_copy_lets_in_who_was_suspended_since() {
    let site = Site::new();
    let store = create(&site, ONE).await;
    let registry = &store.registry;
    let (lost, found) = (enrolled(registry, 1).await, enrolled(registry, 2).await);
    let erased = patient(&store).await;
    registry
        .suspend_device(&found, "lost", at(2))
        .await
        .unwrap();
    let copy = copy_by_hand(&site);

    registry.suspend_device(&lost, "lost", at(3)).await.unwrap();
    registry
        .reinstate_device(&found, "found", at(3))
        .await
        .unwrap();
    let unheard = enrolled(registry, 3).await;
    registry
        .suspend_device(&unheard, "lost", at(3))
        .await
        .unwrap();
    store.keys.erase(&erased, "e1", at(4)).await.unwrap();

    beside(&copy, &site);
    let joined = open(&copy, ONE).await.unwrap();
    // That one of them was found again is not in a snapshot: an operator says so once more.
    for device in [&lost, &found, &unheard] {
        assert_eq!(state(&joined, device).await, DeviceState::Suspended);
        let again = joined.registry.reinstate_device(device, "found", at(5));
        again.await.unwrap();
    }
    let report = joined.keys.joined().await.unwrap().unwrap();
    assert_eq!(report.devices_revoked, 2);
}
