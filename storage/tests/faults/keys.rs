//! The keys: whatever a process was doing to them, the next one finds the patient or the erasure, and never a broken
//! tree.

use std::path::Path;

use vitalseal_crypto::{KeyEpoch, Kid, SubjectPseudonym, default_backend};
use vitalseal_storage::{KeySlot, PatientState, RootProvider as _, Store};

use crate::errors::chain;
use crate::messages::authority;
use crate::site::{Site, at, runtime};
use crate::trial::{Ground, Struck, Trial};

/// What the child does, and what the parent then looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operation {
    Erase,
    RotateRoot,
    RotateKek,
    AddPatient,
    EndEpoch,
    Snapshot,
    /// Opening a copy of the data directory from before an erasure.
    Join,
}

const OPERATIONS: [Operation; 7] = [
    Operation::Erase,
    Operation::RotateRoot,
    Operation::RotateKek,
    Operation::AddPatient,
    Operation::EndEpoch,
    Operation::Snapshot,
    Operation::Join,
];

/// How, and at every how many calls. A process that is killed leaves what a power cut could have left as well, so every
/// call is for the latter.
const MODES: [(&str, usize); 4] = [("kill", 4), ("powercut", 1), ("eio", 3), ("full", 3)];

#[test]
fn a_fault_at_any_write_leaves_the_patient_or_the_erasure() {
    if let Ok(operation) = std::env::var("VS_CHILD") {
        return child(&operation);
    }
    let ground = Ground::new();
    let prepared = Site::below(&ground.path().join("prepared"));
    let ward = runtime().block_on(prepare(&prepared));
    let old_copy = runtime().block_on(old_copy(&prepared, &ward, ground.path()));
    for operation in OPERATIONS {
        for (mode, stride) in MODES {
            let trial = Trial {
                ground: &ground,
                test: "keys::a_fault_at_any_write_leaves_the_patient_or_the_erasure",
                operation: format!("{operation:?}"),
                given: ward.ada.as_str(),
                mode,
                prepared: match operation {
                    Operation::Join => &old_copy,
                    _ => &prepared,
                },
                stride,
                judge: Box::new(|struck| runtime().block_on(judge(struck, &ward, operation))),
            };
            trial.at_every_call();
        }
    }
    ground.assert_struck(3);
}

/// The child: opens the store, does one thing, and ends; what that gave is for the parent to find out.
fn child(operation: &str) {
    let site = Site::of_child();
    let ada: SubjectPseudonym = std::env::var("VS_GIVEN").unwrap().parse().unwrap();
    let operation = OPERATIONS
        .into_iter()
        .find(|known| format!("{known:?}") == operation)
        .unwrap();
    runtime().block_on(async {
        let Ok(store) = site.open().await else { return };
        let (keys, registry) = (&store.keys, &store.registry);
        let said = match operation {
            Operation::Erase => said(keys.erase(&ada, "e1", at(50)).await),
            Operation::RotateRoot => said(keys.rotate_root(at(50)).await),
            Operation::RotateKek => said(registry.rotate_kek(&ada, at(50)).await),
            Operation::AddPatient => said(registry.add_patient(Some("Third"), None, at(50)).await),
            Operation::EndEpoch => said(keys.destroy_recipients_ended_before(at(2_000_000)).await),
            Operation::Snapshot => said(keys.snapshot(at(50)).await),
            Operation::Join => Ok(()),
        };
        println!("{said:?}");
        store.close().await;
    });
}

fn said<T>(result: Result<T, impl std::error::Error>) -> Result<(), String> {
    result.map(drop).map_err(|error| chain(&error))
}

/// Opens the store as the next start does, and holds it against what may be there.
async fn judge(struck: &Struck, ward: &Ward, operation: Operation) {
    let Struck {
        site,
        unharmed,
        context,
        ..
    } = struck;
    let (unharmed, context) = (*unharmed, context.as_str());
    let store = site
        .open()
        .await
        .unwrap_or_else(|e| panic!("{context}: {}", chain(&e)));
    // Everybody else is as before.
    let grace = store.keys.patient_keys(&ward.grace).await.unwrap().unwrap();
    let opened = grace.current().open(b"test", &ward.of_grace).unwrap();
    assert_eq!(*opened, b"grace", "{context}");
    let row = store.registry.patient(&ward.grace).await.unwrap().unwrap();
    assert_eq!(
        row.identity.unwrap().name.as_deref(),
        Some("Grace"),
        "{context}"
    );
    let secret = store.keys.secret("audit").await.unwrap().unwrap();
    assert_eq!(*secret, b"signing key", "{context}");

    // The patient, whole, or the erasure, whole.
    let row = store.registry.patient(&ward.ada).await.unwrap().unwrap();
    let ledger = store.keys.erasure_ledger().await.unwrap();
    match store.keys.patient_keys(&ward.ada).await.unwrap() {
        Some(keys) => {
            assert!(
                ledger.is_empty() && row.state == PatientState::Active,
                "{context}"
            );
            let kek = keys.find(&ward.kid).expect(context);
            assert_eq!(
                *kek.open(b"test", &ward.of_ada).unwrap(),
                b"ada",
                "{context}"
            );
            assert_eq!(
                row.identity.unwrap().name.as_deref(),
                Some("Ada"),
                "{context}"
            );
            let gone = operation == Operation::Join || unharmed && operation == Operation::Erase;
            assert!(!gone, "{context}");
        }
        None => {
            let may_be = matches!(operation, Operation::Erase | Operation::Join);
            assert!(may_be, "{context}");
            assert_eq!(
                (row.state, row.identity),
                (PatientState::Erased, None),
                "{context}"
            );
            assert_eq!(ledger.len(), 1, "{context}");
            assert!(
                ledger[0].completed_at.is_some(),
                "{context}: open finishes it"
            );
        }
    }
    let status = store.keys.status().await.unwrap();
    assert_eq!(
        (status.roots_retiring, status.erasures_unfinished),
        (0, 0),
        "{context}"
    );

    // What nothing struck was done.
    if unharmed && operation != Operation::Join {
        let turned = matches!(operation, Operation::RotateRoot | Operation::Erase);
        let retired = operation == Operation::RotateKek;
        let patients = 2 + usize::from(operation == Operation::AddPatient);
        assert_eq!(
            (status.root_epoch.0, status.keks_retired),
            (turned.into(), retired.into()),
            "{context}"
        );
        let known = store.registry.patients().await.unwrap();
        assert_eq!(known.len(), patients, "{context}");
    }

    // Of the roots there is the one in use, and at most one that was drawn and never used.
    let slots = site.roots().slots().unwrap();
    let roots: Vec<_> = slots
        .iter()
        .filter(|s| matches!(s, KeySlot::Root(_)))
        .collect();
    assert!(
        roots.contains(&&KeySlot::Root(status.root_epoch)),
        "{context}: {slots:?}"
    );
    let unused = roots
        .iter()
        .filter(|slot| slot.epoch() > status.root_epoch)
        .count();
    assert_eq!(roots.len(), 1 + unused, "{context}: {slots:?}");
    assert!(unused <= 1, "{context}: {slots:?}");
    for place in store.keys.snapshots().await.unwrap() {
        let newest = place.newest.expect(context);
        let written = newest.is_some() || !unharmed || operation != Operation::Snapshot;
        assert!(written, "{context}");
    }
    if operation == Operation::EndEpoch {
        // Ended or not, the store knows which, and can end it now.
        store
            .keys
            .destroy_recipients_ended_before(at(2_000_000))
            .await
            .unwrap();
        let left = store.keys.recipients().await.unwrap();
        assert!(left.iter().all(|key| !key.held), "{context}");
        let covers = site.roots().slots().unwrap();
        assert!(
            covers.iter().all(|s| matches!(s, KeySlot::Root(_))),
            "{context}: {covers:?}"
        );
    }

    // And the store still works: the same order again ends as if nothing had been.
    store.keys.erase(&ward.ada, "e1", at(60)).await.unwrap();
    assert!(
        store.keys.patient_keys(&ward.ada).await.unwrap().is_none(),
        "{context}"
    );
    store.close().await;
}

/// What the prepared store holds.
struct Ward {
    ada: SubjectPseudonym,
    grace: SubjectPseudonym,
    kid: Kid,
    of_ada: Vec<u8>,
    of_grace: Vec<u8>,
}

async fn prepare(site: &Site) -> Ward {
    let store = Store::create(&site.paths(), site.custody(), at(0))
        .await
        .unwrap();
    let ada = store
        .registry
        .add_patient(Some("Ada"), None, at(1))
        .await
        .unwrap();
    let grace = store
        .registry
        .add_patient(Some("Grace"), None, at(1))
        .await
        .unwrap();
    store
        .keys
        .put_secret("audit", b"signing key")
        .await
        .unwrap();
    let authority = authority();
    let key = authority
        .issue_recipient(KeyEpoch(0), at(0), at(86_400), default_backend())
        .unwrap();
    store
        .keys
        .put_recipient(&key, KeyEpoch(0), at(0), at(86_400))
        .await
        .unwrap();
    let keys = store.keys.patient_keys(&ada).await.unwrap().unwrap();
    let of_grace = store.keys.patient_keys(&grace).await.unwrap().unwrap();
    let ward = Ward {
        of_ada: keys.current().seal(b"test", b"ada").unwrap(),
        of_grace: of_grace.current().seal(b"test", b"grace").unwrap(),
        kid: keys.current().kid().clone(),
        ada,
        grace,
    };
    store.close().await;
    ward
}

/// The data of before an erasure beside the roots and key snapshots of after it.
async fn old_copy(prepared: &Site, ward: &Ward, ground: &Path) -> Site {
    let site = prepared.copy(&ground.join("old-copy"));
    let store = site.open().await.unwrap();
    store.keys.erase(&ward.ada, "e1", at(20)).await.unwrap();
    store.close().await;
    site.set_back(prepared)
}
