//! A backup of a server that is busy.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use vitalseal_device::AgreementMode;
use vitalseal_vitals::Reading;

use super::{FIRST, reading, restored};
use crate::common::{Monitor, Site};

/// Acknowledged before the backup began: in it. Stored at all: once.
#[test]
fn a_backup_under_load_holds_everything_acknowledged_before_it_began_once() {
    let mut site = Site::serving();
    let patient = site.patient();
    let directory = site.device("busy", &patient);
    let clinician = site.json(&["user", "add", "nora", "--role", "clinician"]);
    site.json(&["user", "grant", "nora", "--patient", &patient]);
    let mode = AgreementMode::Ss {
        messages_per_session: 1_000,
    };
    let monitor = Monitor::at(&site, &directory, &patient, mode);
    let publisher = monitor.publisher(site.address("mqtt").port());
    let Monitor {
        mut sealer, outbox, ..
    } = monitor;
    let stats = publisher.stats();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let publishing = runtime.spawn({
        let stop = stop.clone();
        async move { publisher.run(stop).await.unwrap() }
    });
    let start: Timestamp = FIRST.parse().unwrap();
    let producing = AtomicBool::new(true);
    let mut backups = Vec::new();
    std::thread::scope(|threads| {
        // One reading a message, the n-th at start + n seconds: acknowledged in that order.
        threads.spawn(|| {
            for n in 0_i64.. {
                while outbox.len() > 200 && producing.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                if !producing.load(Ordering::SeqCst) {
                    return;
                }
                let at = start + SignedDuration::from_secs(n);
                let message = sealer
                    .seal(&[Reading { at, ..reading(0) }], Timestamp::now())
                    .unwrap();
                outbox.push(&message).unwrap();
            }
        });
        threads.spawn(|| {
            while producing.load(Ordering::SeqCst) {
                site.json(&["flush"]);
            }
        });
        for n in 0..4 {
            let before = stats.acked();
            while stats.acked() < before + 50 {
                std::thread::sleep(Duration::from_millis(5));
            }
            let (acked, out) = (stats.acked(), site.dir.path().join(format!("backup-{n}")));
            site.json(&["backup", "--out", out.to_str().unwrap()]);
            backups.push((acked, out));
        }
        producing.store(false, Ordering::SeqCst);
    });
    stop.cancel();
    runtime.block_on(publishing).unwrap();
    assert_eq!(site.terminate(), 0);

    let (acked, backup) = backups.last().unwrap();
    for (_, earlier) in &backups {
        let report = restored(earlier, &earlier.with_extension("checked"));
        assert_eq!(report["patients_readable"], 1, "{report}");
    }
    let elsewhere = site.dir.path().join("elsewhere");
    let report = restored(backup, &elsewhere);
    let mut copy = Site::on(elsewhere);
    copy.serve();
    let token = copy.token(&clinician);
    let sql = format!(
        "SELECT count(*) FILTER (WHERE ts < '{}'), count(*), count(DISTINCT ts) FROM vitals",
        start + SignedDuration::from_secs(i64::try_from(*acked).unwrap())
    );
    let rows = copy.psql("nora", &token, &sql).unwrap();
    let messages = report["messages"].as_u64().unwrap();
    assert_eq!(rows, [format!("{acked}|{messages}|{messages}")]);
    println!("{messages} messages restored, {acked} of them acknowledged before the backup began");
}
