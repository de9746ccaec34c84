//! Erasing in a real store, and certificates in the hands of somebody who would like them to say something else.

use proptest::prelude::*;
use vitalseal_crypto::SubjectPseudonym;
use vitalseal_storage::ports::{Actor, AuditEvent};

use super::*;
use crate::testing::World;

const ACTOR: Actor = Actor::Local { uid: 1000 };

fn deps(world: &World) -> ErasureDeps {
    ErasureDeps {
        store: world.store.clone(),
        audit: world.audit.clone(),
    }
}

/// A store with two patients, messages in the inbox and in a file.
async fn world() -> (World, SubjectPseudonym, SubjectPseudonym) {
    let mut world = World::new().await;
    let (ada, grace) = (
        world.patient("Ada Lovelace").await,
        world.patient("Grace Hopper").await,
    );
    let device = world.device("monitor-1").await;
    for _ in 0..3 {
        world.admit(&device, &ada, 10, world.now).await;
        world.admit(&device, &grace, 10, world.now).await;
    }
    world.store.flush(world.now).await.unwrap();
    world.admit(&device, &ada, 10, world.now).await;
    (world, ada, grace)
}

#[tokio::test]
async fn an_erasure_is_carried_out_logged_and_certified() {
    let (world, ada, grace) = world().await;
    let certificate = erase(
        &deps(&world),
        &ada,
        " Art. 17 request 42 ",
        ACTOR,
        world.now,
    )
    .await
    .unwrap();
    let checks = &certificate.statement.checks;
    assert_eq!((checks.envelopes_tried, checks.opened_before), (4, Some(4)));
    assert_eq!(
        (checks.wrapped_under_destroyed_key, checks.opened_after),
        (4, 0)
    );
    assert!(checks.kek_absent && world.store.keys.patient_keys(&ada).await.unwrap().is_none());
    assert!(
        world
            .store
            .keys
            .patient_keys(&grace)
            .await
            .unwrap()
            .is_some(),
        "nobody else is touched"
    );

    let statement = &certificate.statement;
    assert_eq!(statement.reason, "Art. 17 request 42");
    assert_eq!(
        statement.keys.root_epoch_destroyed.next(),
        statement.keys.root_epoch
    );
    assert!(statement.residuals.iter().any(|residual| matches!(
        residual,
        Residual::CapturedTraffic { ends_at, .. } if *ends_at == world.hours(24)
    )));

    let json = certificate.to_json().unwrap();
    let vkey = world.audit.key().as_str();
    assert_eq!(verify(&json, vkey).unwrap(), certificate);
    assert!(certificate.is_about(&ada) && !certificate.is_about(&grace));
    for text in [&json, &certificate.to_text()] {
        for personal in [ada.as_str(), "Lovelace", "MRN-4711", "61.5"] {
            assert!(
                !text.contains(personal),
                "{personal} stands in the certificate"
            );
        }
    }
    let reordered: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(
        verify(&reordered.to_string(), vkey).is_ok(),
        "white space and order mean nothing"
    );

    let entries = world.audit.entries(0, u64::MAX).await.unwrap();
    assert!(
        matches!(&entries[0].event, AuditEvent::ErasureStarted { patient, .. } if *patient == ada)
    );
    assert!(
        matches!(&entries[1].event, AuditEvent::ErasureCompleted { patient, erasure, .. }
        if *patient == ada && *erasure == statement.erasure)
    );
    assert!(statement.log.is_about(&entries[1]).unwrap());
}

#[tokio::test]
async fn the_unknown_and_the_erased_are_refused_in_clear_words() {
    let (world, ada, _) = world().await;
    let deps = deps(&world);
    let nobody: SubjectPseudonym = format!("p{}", "0".repeat(32)).parse().unwrap();
    let unknown = erase(&deps, &nobody, "request", ACTOR, world.now)
        .await
        .unwrap_err();
    assert!(matches!(unknown, EraseError::UnknownPatient(_)));
    for reason in ["", "  ", "two\nlines", &"x".repeat(501)] {
        let refused = erase(&deps, &ada, reason, ACTOR, world.now)
            .await
            .unwrap_err();
        assert!(matches!(refused, EraseError::Reason));
    }
    let first = erase(&deps, &ada, "request", ACTOR, world.now)
        .await
        .unwrap();
    let size = world.audit.entries(0, u64::MAX).await.unwrap().len();
    let again = erase(&deps, &ada, "request", ACTOR, world.hours(1))
        .await
        .unwrap_err();
    match again {
        EraseError::AlreadyErased {
            erased_at,
            erasure,
            seq,
            ..
        } => {
            assert_eq!((erased_at, seq), (world.now, first.statement.log.seq));
            assert_eq!(erasure, first.statement.erasure);
        }
        other => panic!("{other}"),
    }
    assert_eq!(
        world.audit.entries(0, u64::MAX).await.unwrap().len(),
        size,
        "nothing is recorded"
    );
}

#[tokio::test]
async fn an_erasure_that_was_cut_off_before_its_certificate_is_completed_by_asking_again() {
    let (world, ada, _) = world().await;
    // Keys gone, process gone: the completion was never recorded.
    world
        .store
        .keys
        .erase(&ada, "erasure-cut-off", world.now)
        .await
        .unwrap();
    let certificate = erase(&deps(&world), &ada, "request", ACTOR, world.hours(2))
        .await
        .unwrap();
    assert_eq!(certificate.statement.erasure, "erasure-cut-off");
    assert_eq!(certificate.statement.checks.opened_before, None);
    let json = certificate.to_json().unwrap();
    assert!(
        verify(&json, world.audit.key().as_str())
            .unwrap()
            .is_about(&ada)
    );
    let again = erase(&deps(&world), &ada, "request", ACTOR, world.hours(3))
        .await
        .unwrap_err();
    assert!(matches!(again, EraseError::AlreadyErased { .. }));
}

#[tokio::test]
async fn nothing_is_erased_when_the_control_fails() {
    let (mut world, ada, grace) = world().await;
    let device = world.device("monitor-2").await;
    world
        .admit_under(&grace, &device, &ada, 10, world.now)
        .await;
    let refused = erase(&deps(&world), &ada, "request", ACTOR, world.now)
        .await
        .unwrap_err();
    assert!(
        matches!(
            refused,
            EraseError::ControlFailed {
                opened: 4,
                tried: 5
            }
        ),
        "{refused}"
    );
    assert!(world.store.keys.patient_keys(&ada).await.unwrap().is_some());
    assert!(world.store.keys.erasure_ledger().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_signed_certificate_whose_control_failed_is_refused() {
    let (world, ada, _) = world().await;
    let mut certificate = erase(&deps(&world), &ada, "request", ACTOR, world.now)
        .await
        .unwrap();
    certificate.statement.checks.opened_before = Some(3);
    let text = certificate.statement.signed_text().unwrap();
    let note = world.audit.sign(&text).unwrap();
    certificate.signature = note.trim_end().rsplit("\n\n").next().unwrap().to_owned();
    let refused = verify(&certificate.to_json().unwrap(), world.audit.key().as_str());
    assert!(
        matches!(refused, Err(CertificateRefused::Contradiction(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_damaged_identity_stands_in_the_way_of_nobodys_erasure() {
    let (world, ada, grace) = world().await;
    world.damage_identity(&ada).await;
    for patient in [&ada, &grace] {
        erase(&deps(&world), patient, "request", ACTOR, world.now)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_patient_without_messages_can_be_erased_too() {
    let world = World::new().await;
    let ada = world.patient("Ada Lovelace").await;
    let certificate = erase(&deps(&world), &ada, "request", ACTOR, world.now)
        .await
        .unwrap();
    assert_eq!(certificate.statement.checks.envelopes_tried, 0);
    let no_ciphertext =
        |residual: &Residual| !matches!(residual, Residual::SealedCiphertext { .. });
    assert!(certificate.statement.residuals.iter().all(no_ciphertext));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_changed_character_anywhere_is_refused() {
    let (world, ada, _) = world().await;
    let certificate = erase(&deps(&world), &ada, "request 42", ACTOR, world.now)
        .await
        .unwrap();
    let json = certificate.to_json().unwrap();
    let vkey = world.audit.key().as_str().to_owned();
    let other = World::new().await;
    let foreign = other.audit.key().as_str().to_owned();
    assert!(matches!(
        verify(&json, &foreign),
        Err(CertificateRefused::Signature(_))
    ));
    // White space between members carries no meaning; inside texts it does, and a space there is hit as the others are.
    let chars: Vec<char> = json.trim_end().chars().collect();
    let indent = |i: usize| {
        let before = chars[..i].iter().rev().find(|c| **c != ' ');
        chars[i] == '\n' || (chars[i] == ' ' && matches!(before, Some('\n' | ':')))
    };
    let places: Vec<usize> = (0..chars.len()).filter(|&i| !indent(i)).collect();
    let replacements: Vec<char> = "aAzZ09+/=-_.:\"{}[], é".chars().collect();
    let strategy = (0..places.len(), 0..replacements.len());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&strategy, |(place, replacement)| {
            let (place, replacement) = (places[place], replacements[replacement]);
            prop_assume!(chars[place] != replacement);
            let mut changed = chars.clone();
            changed[place] = replacement;
            let changed: String = changed.into_iter().collect();
            prop_assert!(
                verify(&changed, &vkey).is_err(),
                "position {place}: {replacement:?}"
            );
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn a_certificate_assembled_from_two_is_refused() {
    let (world, ada, grace) = world().await;
    let deps = deps(&world);
    let vkey = world.audit.key().as_str();
    let first = erase(&deps, &ada, "request 1", ACTOR, world.now)
        .await
        .unwrap();
    let second = erase(&deps, &grace, "request 2", ACTOR, world.now)
        .await
        .unwrap();
    let mut mixed = first.clone();
    mixed.signature.clone_from(&second.signature);
    assert!(verify(&mixed.to_json().unwrap(), vkey).is_err());
    let mut mixed = first.clone();
    mixed.statement.log = second.statement.log.clone();
    assert!(verify(&mixed.to_json().unwrap(), vkey).is_err());
    let mut extra: serde_json::Value = serde_json::to_value(&first).unwrap();
    extra["statement"]["checks"]["witnessed"] = true.into();
    assert!(matches!(
        verify(&extra.to_string(), vkey),
        Err(CertificateRefused::Json(_))
    ));
    for text in [
        "",
        "{}",
        "null",
        "[]",
        "{\"statement\":{},\"signature\":\"\"}",
    ] {
        assert!(verify(text, vkey).is_err());
    }
}
