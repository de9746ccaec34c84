//! Devices under load, to be held against what the store has at the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vitalseal_device::{AgreementMode, Publisher, PublisherStats};
use vitalseal_vitals::{Reading, signal};

use crate::common::{Monitor, Site};

const DEVICES: usize = 3;

/// Devices of the SDK that produce and publish from `begin` to `end`, whatever becomes of the server.
pub struct Load {
    runtime: Runtime,
    producing: Arc<AtomicBool>,
    stop: CancellationToken,
    stats: Vec<Arc<PublisherStats>>,
    publishing: Vec<JoinHandle<Publisher>>,
    producers: Vec<std::thread::JoinHandle<()>>,
    produced: BTreeMap<String, Arc<AtomicU64>>,
    patients: Vec<String>,
}

impl Load {
    pub fn begin(site: &Site, name: &str) -> Self {
        let mut load = Self {
            runtime: Runtime::new().unwrap(),
            producing: Arc::new(AtomicBool::new(true)),
            stop: CancellationToken::new(),
            stats: Vec::new(),
            publishing: Vec::new(),
            producers: Vec::new(),
            produced: BTreeMap::new(),
            patients: (0..DEVICES).map(|_| site.patient()).collect(),
        };
        for (index, patient) in load.patients.iter().enumerate() {
            let name = format!("{name}-{index}");
            let directory = site.device(&name, patient);
            let mode = AgreementMode::Ss {
                messages_per_session: 1_000,
            };
            let monitor = Monitor::at(site, &directory, patient, mode);
            let publisher = monitor.publisher(site.address("mqtt").port());
            let produced = Arc::new(AtomicU64::new(0));
            load.producers.push(std::thread::spawn({
                let (producing, produced) = (Arc::clone(&load.producing), Arc::clone(&produced));
                move || produce(monitor, &producing, &produced)
            }));
            load.produced.insert(name, produced);
            load.stats.push(publisher.stats());
            let stop = load.stop.clone();
            load.publishing.push(load.runtime.spawn(async move {
                publisher.run(stop).await.unwrap();
                publisher
            }));
        }
        load
    }

    pub fn acked(&self) -> u64 {
        self.stats.iter().map(|stats| stats.acked()).sum()
    }

    /// Lets everything arrive, and holds it against what was produced; how many readings that were.
    pub fn end(self, site: &Site) -> u64 {
        self.producing.store(false, Ordering::SeqCst);
        for producer in self.producers {
            producer.join().unwrap();
        }
        self.stop.cancel();
        for task in self.publishing {
            let publisher = self.runtime.block_on(task).unwrap();
            let drained = publisher.run_until_drained(Duration::from_secs(60));
            self.runtime.block_on(drained).unwrap();
        }

        let granted: Vec<&str> = self.patients.iter().map(String::as_str).collect();
        let token = site.clinician("nora", &granted);
        // Every instant of a device is its own, so a doubled reading makes the two counts differ.
        let sql = "SELECT device, count(*), count(DISTINCT ts) FROM vitals GROUP BY device ORDER BY device";
        let count = |count: &Arc<AtomicU64>| count.load(Ordering::SeqCst);
        let expected: Vec<String> = self
            .produced
            .iter()
            .map(|(name, produced)| format!("{name}|{0}|{0}", count(produced)))
            .collect();
        for when in ["before", "after"] {
            let stored = site.psql("nora", &token, sql).unwrap();
            assert_eq!(stored, expected, "{when} the last flush");
            site.json(&["flush"]);
        }
        let verified = site.json(&["audit", "verify"]);
        assert_eq!(verified["ok"], true, "{verified}");
        assert_eq!(site.json(&["quarantine", "list"]), serde_json::json!([]));
        self.produced.values().map(count).sum()
    }
}

/// One reading a message, each with an instant of its own, as fast as the outbox takes them.
fn produce(monitor: Monitor, producing: &AtomicBool, produced: &AtomicU64) {
    let Monitor {
        mut sealer, outbox, ..
    } = monitor;
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
