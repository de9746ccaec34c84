//! A repair that is abandoned at any of its steps: nothing more is lost, nothing is there twice, and the next one ends it.

use super::*;
use crate::crash::CrashPoint;

const STEPS: [CrashPoint; 6] = [
    CrashPoint::SetAside,
    CrashPoint::UpkeepPlanned,
    CrashPoint::FileHalfWritten,
    CrashPoint::UpkeepWritten,
    CrashPoint::UpkeepProved,
    CrashPoint::UpkeepCommitted,
];

/// As a machine finds it after a power cut.
async fn started_again(ward: &Ward) -> Ward {
    let site = ward.site.power_cut();
    Ward {
        store: site.open().await.unwrap(),
        site,
        patients: ward.patients.clone(),
    }
}

/// Repairs what a check finds, and what is held then: messages, readings, what opens, signatures, losses.
async fn held_after_repair(ward: &Ward) -> [u64; 5] {
    repaired(ward, &ward.check().await).await;
    let report = ward.check().await;
    assert_eq!(report.damage, []);
    let losses = ward.store.catalog.losses().await.unwrap().len() as u64;
    let CheckReport {
        messages,
        readings,
        opened,
        signatures,
        ..
    } = report;
    [messages, readings, opened, signatures, losses]
}

#[tokio::test]
async fn a_crash_at_any_step_of_a_repair_loses_and_doubles_nothing_more() {
    // Of a chunk its readings, their proof, or both, which loses it.
    for columns in [
        &[schema::SEALED][..],
        &[schema::EVIDENCE],
        &[schema::SEALED, schema::EVIDENCE],
    ] {
        let damaged = Ward::new(true).await;
        let file = damaged.files().await[0].clone();
        let whole = damaged.check().await.messages;
        for column in columns {
            flip(&damaged, &file, column).await;
        }
        let expected = held_after_repair(&started_again(&damaged).await).await;
        let lost = if columns.len() == 2 { MESSAGES } else { 0 };
        assert_eq!(expected[0], whole - lost);
        for step in STEPS {
            let ward = started_again(&damaged).await;
            let found = ward.check().await;
            assert!(!found.is_sound());
            ward.store.crash().arm(step);
            let abandoned = ward.store.repair(&found, &BTreeSet::new(), at(3_000)).await;
            // Messages that become rows again are proved file by file, as they are written.
            let passed_by = columns == [schema::SEALED] && step == CrashPoint::UpkeepProved;
            assert_eq!(abandoned.is_ok(), passed_by, "{columns:?} {step:?}");
            let copy = started_again(&ward).await;
            ward.store.crash().arm(CrashPoint::RootCreated);
            let aside = copy.site.paths().damaged().join(file.path.as_ref());
            if step == CrashPoint::SetAside {
                fs::write(aside, "the half of a copy").unwrap();
            }
            for ward in [ward, copy] {
                let now = ward.check().await.damage;
                let committed = passed_by || step == CrashPoint::UpkeepCommitted;
                let left = if committed {
                    Vec::new()
                } else {
                    found.damage.clone()
                };
                assert_eq!(now, left, "{columns:?} {step:?}");
                let held = held_after_repair(&ward).await;
                assert_eq!(held, expected, "{columns:?} {step:?}");
                let aside = ward.site.paths().damaged().join(file.path.as_ref());
                let of_damaged = fs::read(damaged.path(&file)).unwrap();
                assert_eq!(fs::read(aside).unwrap(), of_damaged, "{columns:?} {step:?}");
                let (none, log) = (SignedDuration::ZERO, Log::default());
                let collected = ward
                    .store
                    .collect_garbage(at(4_000), none, Actor::System, &log);
                collected.await.unwrap();
                let live = ward.files().await.len();
                assert_eq!(
                    ward.site.parquet_files().len(),
                    live,
                    "{columns:?} {step:?}"
                );
            }
        }
    }
}
