//! `kill -9` of the server at twenty random moments under load: what was acknowledged is there, once.
//!
//! Failure: a reading acknowledged and missing, a reading stored twice, a server that does not start
//! again, a store that does not verify. Not a failure: a message that was sent, not acknowledged, and
//! stored all the same (the device sends it again and the server knows it).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use vitalseal_device::{
    AgreementMode, DeviceIdentity, Endpoint, Outbox, Publisher, PublisherSettings, Sealer,
};
use vitalseal_vitals::{Reading, signal};

use crate::common::Site;

/// The moments of death follow from it.
const SEED: u64 = 0x7617_a15e_a1ed_0001;
const KILLS: u32 = 20;
const DEVICES: usize = 3;

#[test]
fn twenty_kills_lose_nothing_acknowledged_and_store_nothing_twice() {
    let mut site = Site::serving();
    let mqtt = site.address("mqtt");
    let recipient = site.json(&["recipient", "show"])["pem"]
        .as_str()
        .unwrap()
        .to_owned();
    let patients: Vec<String> = (0..DEVICES).map(|_| site.patient()).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let producing = Arc::new(AtomicBool::new(true));
    let mut devices = Vec::new();
    for (index, patient) in patients.iter().enumerate() {
        let name = format!("crash-{index}");
        let directory = site.device(&name, patient);
        let identity = Arc::new(DeviceIdentity::load(&directory).unwrap());
        let certificate = identity
            .trust_recipient(&recipient, Timestamp::now())
            .unwrap();
        let outbox = Outbox::open(directory.join("outbox")).unwrap();
        let mode = AgreementMode::Ss {
            messages_per_session: 1_000,
        };
        let subject = patient.parse().unwrap();
        let sealer = Sealer::new(
            Arc::clone(&identity),
            subject,
            certificate,
            mode,
            outbox.boot(),
        );
        let mut settings = PublisherSettings::new(Timestamp::now);
        settings.first_pause = Duration::from_millis(20);
        settings.longest_pause = Duration::from_millis(200);
        let endpoint = Endpoint {
            host: "localhost".to_owned(),
            port: mqtt.port(),
        };
        let publisher = Publisher::new(identity, outbox.clone(), endpoint, settings).unwrap();
        let produced = Arc::new(AtomicU64::new(0));
        let producer = std::thread::spawn({
            let (producing, produced) = (Arc::clone(&producing), Arc::clone(&produced));
            move || produce(sealer, &outbox, &producing, &produced)
        });
        devices.push((name, publisher, produced, producer));
    }
    let stats: Vec<_> = devices
        .iter()
        .map(|(_, publisher, ..)| publisher.stats())
        .collect();
    let mut publishing = Vec::new();
    let mut produced = BTreeMap::new();
    let mut producers = Vec::new();
    let stop = tokio_util::sync::CancellationToken::new();
    for (name, publisher, count, producer) in devices {
        let stop = stop.clone();
        publishing.push(runtime.spawn(async move {
            publisher.run(stop).await.unwrap();
            publisher
        }));
        produced.insert(name, count);
        producers.push(producer);
    }

    let mut random = SEED;
    let mut acked_before = 0;
    for kill in 0..KILLS {
        // xorshift64: 30 to 330 ms of load, so that deaths fall between and inside every write.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // Load, not merely time: some message of this life must be acknowledged before its end.
        let acked = || stats.iter().map(|stats| stats.acked()).sum::<u64>();
        wait_until(
            || acked() > acked_before,
            "no message was acknowledged after a restart",
        );
        std::thread::sleep(Duration::from_millis(30 + random % 300));
        acked_before = acked();
        site.kill();
        if kill % 5 == 4 {
            std::thread::sleep(Duration::from_millis(100));
        }
        site.serve();
        // Flushes under load put deaths into the move to Parquet, too.
        if kill % 3 == 1 {
            site.run(&["flush"]);
        }
    }
    producing.store(false, Ordering::SeqCst);
    for producer in producers {
        producer.join().unwrap();
    }
    stop.cancel();
    for task in publishing {
        let publisher = runtime.block_on(task).unwrap();
        runtime
            .block_on(publisher.run_until_drained(Duration::from_secs(60)))
            .unwrap();
    }

    let granted: Vec<&str> = patients.iter().map(String::as_str).collect();
    let token = site.clinician("nora", &granted);
    // Every instant of a device is its own, so a doubled reading makes the two counts differ.
    let sql =
        "SELECT device, count(*), count(DISTINCT ts) FROM vitals GROUP BY device ORDER BY device";
    let count = |count: &Arc<AtomicU64>| count.load(Ordering::SeqCst);
    let total: u64 = produced.values().map(count).sum();
    let expected: Vec<String> = produced
        .iter()
        .map(|(name, produced)| format!("{name}|{0}|{0}", count(produced)))
        .collect();
    assert_eq!(
        site.psql("nora", &token, sql).unwrap(),
        expected,
        "before the last flush"
    );
    site.json(&["flush"]);
    assert_eq!(
        site.psql("nora", &token, sql).unwrap(),
        expected,
        "after the last flush"
    );
    assert!(
        total > u64::from(KILLS) * 10,
        "{total} readings are no load"
    );
    let verified = site.json(&["audit", "verify"]);
    assert_eq!(verified["ok"], true, "{verified}");
    assert_eq!(site.json(&["quarantine", "list"]), serde_json::json!([]));
    println!("{total} readings, {KILLS} kills, seed {SEED:#x}");
}

/// One reading a message, each with an instant of its own, as fast as the outbox takes them.
fn produce(mut sealer: Sealer, outbox: &Outbox, producing: &AtomicBool, produced: &AtomicU64) {
    let heart_rate = signal("8867-4").unwrap();
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    while producing.load(Ordering::SeqCst) {
        if outbox.len() > 500 {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        let index = produced.load(Ordering::SeqCst);
        let reading = Reading {
            signal: heart_rate,
            value: f64::from(u32::try_from(index % 200).unwrap()),
            at: start + SignedDuration::from_secs(i64::try_from(index).unwrap()),
        };
        let message = sealer.seal(&[reading], Timestamp::now()).unwrap();
        outbox.push(&message).unwrap();
        produced.fetch_add(1, Ordering::SeqCst);
    }
}

fn wait_until(mut holds: impl FnMut() -> bool, otherwise: &str) {
    for _ in 0..3_000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{otherwise}");
}
