//! A device and its outbox: away for more than a day, killed in mid-send, before a server that was restored from
//! yesterday's backup; and what the server has to tell it meanwhile.
//!
//! Failure: a reading that was in the outbox and is not in the store, one that is there twice, a message out of its order,
//! a gap that stays. Not a failure: a message that was sent twice, or one that was sealed and never reached the outbox.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use vitalseal::mqtt_client::Session;
use vitalseal_device::{AgreementMode, Source};
use vitalseal_vitals::{Reading, signal};

use crate::backup::restored;
use crate::common::{Monitor, Random, Site, wait_until};

/// The moments at which the device's process dies follow from it.
const SEED: u64 = 0x7617_a15e_a1ed_0004;
const KILLS: u32 = 8;
const DEVICE: &str = "monitor-1";
const PATIENCE: Duration = Duration::from_secs(60);

const MODE: AgreementMode = AgreementMode::Es;

impl Monitor {
    /// Seals one reading into the outbox; its envelope.
    fn measure(&mut self, measured_at: Timestamp, now: Timestamp) -> Vec<u8> {
        let reading = Reading {
            signal: signal("8867-4").unwrap(),
            value: 72.0,
            at: measured_at,
        };
        let message = self.sealer.seal(&[reading], now).unwrap();
        self.outbox.push(&message).unwrap();
        message.bytes
    }

    /// Sends what waits to a site; how many messages that it had acknowledged were among them.
    fn drain(&self, site: &Site) -> u64 {
        let publisher = self.publisher(site.address("mqtt").port());
        let drained = publisher.run_until_drained(PATIENCE);
        Runtime::new().unwrap().block_on(drained).unwrap();
        publisher.stats().reoffered()
    }

    /// Publishes one envelope past the outbox, in a session that leaves nothing behind.
    fn publish_raw(&self, site: &Site, envelope: Vec<u8>) {
        Runtime::new().unwrap().block_on(async {
            let connected = Session::connect(site.address("mqtt"), DEVICE, self.tls());
            let mut session = connected.await.unwrap();
            let topic = format!("v1/d/{DEVICE}/vitals");
            session.publish(&topic, envelope).await.unwrap();
            session.close().await;
        });
    }
}

/// Instants that a SQL statement gives back as they were.
fn second(n: i64) -> Timestamp {
    let start: Timestamp = "2026-03-04T05:06:00Z".parse().unwrap();
    start + SignedDuration::from_secs(n)
}

/// Readings and different instants in the store, before the last flush and after it.
fn stored(site: &Site, user: &str, token: &str) -> [String; 2] {
    [(), ()].map(|()| {
        let sql = "SELECT count(*), count(DISTINCT ts) FROM vitals";
        let rows = site.psql(user, token, sql).unwrap();
        site.json(&["flush"]);
        rows.concat()
    })
}

/// What is missing of the device's messages, boot by boot, and no fork anywhere.
fn gaps(site: &Site) -> Vec<(u64, Value)> {
    let chain = site.json(&["device", "chain", DEVICE]);
    let boots = chain.as_array().unwrap().iter();
    let gaps = boots.map(|boot| {
        assert_eq!(boot["forks"], json!(0), "{chain}");
        (boot["boot"].as_u64().unwrap(), boot["gaps"].clone())
    });
    gaps.collect()
}

#[test]
fn a_device_that_was_away_for_more_than_a_day_brings_everything_in_order() {
    let site = Site::serving();
    let patient = site.patient();
    let directory = site.device(DEVICE, &patient);
    let token = site.clinician("nora", &[&patient]);
    let away_since = Timestamp::now() - SignedDuration::from_hours(30);
    let minute = |n: i64| away_since + SignedDuration::from_mins(n);
    // Three boots of ten hours, each a message every two minutes, sealed by the clock of the time.
    for boot in 0..3 {
        let mut monitor = Monitor::at(&site, &directory, &patient, MODE);
        for n in (boot * 600..(boot + 1) * 600).step_by(2) {
            monitor.measure(minute(n), minute(n));
        }
    }
    assert_eq!(gaps(&site), []);
    let monitor = Monitor::at(&site, &directory, &patient, MODE);
    assert_eq!(monitor.outbox.len(), 900);
    monitor.drain(&site);
    let none = json!([]);
    assert_eq!(gaps(&site), [0, 1, 2].map(|boot| (boot, none.clone())));
    assert_eq!(stored(&site, "nora", &token), ["900|900", "900|900"]);
    assert_eq!(site.json(&["quarantine", "list"]), none);
    assert_eq!(
        site.metric("chain_gaps_total"),
        0,
        "each came after the one before it"
    );
}

/// Not a test of its own: the process that the next one kills. It measures and publishes for as long as it lives, and says
/// what is in its outbox.
#[test]
fn a_process_that_measures_until_it_is_killed() {
    let Some(directory) = std::env::var_os("OUTBOX_DEVICE") else {
        return;
    };
    let variable = |name: &str| std::env::var(name).unwrap();
    let port = variable("OUTBOX_PORT").parse().unwrap();
    let (patient, recipient) = (variable("OUTBOX_PATIENT"), variable("OUTBOX_RECIPIENT"));
    let mut monitor = Monitor::boot(Path::new(&directory), &patient, &recipient, MODE);
    let publisher = monitor.publisher(port);
    let forever = CancellationToken::new();
    let runtime = Runtime::new().unwrap();
    runtime.spawn(async move { publisher.run(forever).await });
    let boot = i64::try_from(monitor.outbox.boot()).unwrap();
    let mut said = std::io::stdout();
    for n in 0.. {
        while monitor.outbox.len() > 100 {
            std::thread::sleep(Duration::from_millis(1));
        }
        monitor.measure(second(100_000 * boot + n), Timestamp::now());
        writeln!(said, "pushed {boot} {n}").unwrap();
        said.flush().unwrap();
    }
}

#[test]
fn a_device_that_is_killed_in_mid_send_loses_nothing_that_was_in_its_outbox() {
    let site = Site::serving();
    let patient = site.patient();
    let directory = site.device(DEVICE, &patient);
    let token = site.clinician("nora", &[&patient]);
    let recipient = site.json(&["recipient", "show"]);
    let (mut random, mut pushed) = (Random(SEED), 0);
    for kill in 0..KILLS {
        let acked = || site.metric("acked_total");
        let acked_before = acked();
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("outbox::a_process_that_measures_until_it_is_killed")
            .env("OUTBOX_DEVICE", &directory)
            .env("OUTBOX_PATIENT", &patient)
            .env("OUTBOX_RECIPIENT", recipient["pem"].as_str().unwrap())
            .env("OUTBOX_PORT", site.address("mqtt").port().to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let said = std::thread::spawn(move || {
            let lines = output.lines().map_while(Result::ok);
            lines.filter(|line| line.contains("pushed ")).count()
        });
        wait_until(|| acked() > acked_before, "nothing was acknowledged");
        random.pause(150);
        process.kill().unwrap();
        process.wait().unwrap();
        pushed += said.join().unwrap();
        assert_eq!(gaps(&site).len(), usize::try_from(kill + 1).unwrap());
    }
    Monitor::at(&site, &directory, &patient, MODE).drain(&site);
    assert!(gaps(&site).iter().all(|(_, gaps)| *gaps == json!([])));
    let counts = stored(&site, "nora", &token);
    let (all, distinct) = counts[0].split_once('|').unwrap();
    assert_eq!((all, &counts[0]), (distinct, &counts[1]));
    // A push that was done and not yet told of when the process died.
    let all: usize = all.parse().unwrap();
    let most = pushed + usize::try_from(KILLS).unwrap();
    assert!((pushed..=most).contains(&all), "{all} of {pushed}");
    assert_eq!(site.json(&["quarantine", "list"]), json!([]));
    println!("{all} readings, {KILLS} deaths of the device, seed {SEED:#x}");
}

#[test]
fn a_server_that_was_restored_from_yesterday_gets_what_it_forgot() {
    let mut site = Site::serving();
    let patient = site.patient();
    let directory = site.device(DEVICE, &patient);
    let clinician = site.json(&["user", "add", "nora", "--role", "clinician"]);
    site.json(&["user", "grant", "nora", "--patient", &patient]);
    let mut monitor = Monitor::at(&site, &directory, &patient, MODE);
    let measure = |monitor: &mut Monitor, numbers: std::ops::Range<i64>| {
        let measured = numbers.map(|n| monitor.measure(second(n), Timestamp::now()));
        measured.last().unwrap()
    };
    measure(&mut monitor, 0..20);
    monitor.drain(&site);
    let backup = site.dir.path().join("backup");
    site.json(&["backup", "--out", backup.to_str().unwrap()]);
    measure(&mut monitor, 20..40);
    monitor.drain(&site);
    assert_eq!((monitor.outbox.len(), monitor.outbox.kept()), (0, 40));
    site.kill();

    let elsewhere = site.dir.path().join("elsewhere");
    restored(&backup, &elsewhere);
    let mut copy = Site::on(elsewhere);
    copy.serve();
    let token = copy.token(&clinician);
    let none = json!([]);
    assert_eq!(gaps(&copy), [(0, none.clone())], "nobody can know yet");
    assert_eq!(stored(&copy, "nora", &token)[0], "20|20");
    // The next message comes past the outbox, and names one that is not here.
    let newest = measure(&mut monitor, 40..41);
    monitor.publish_raw(&copy, newest);
    assert_eq!(gaps(&copy), [(0, json!(["20-39"]))]);
    assert_eq!(stored(&copy, "nora", &token)[0], "21|21");

    assert_eq!(monitor.drain(&copy), 40);
    assert_eq!(gaps(&copy), [(0, none.clone())]);
    assert_eq!(stored(&copy, "nora", &token), ["41|41", "41|41"]);
    assert_eq!(copy.metric("duplicates_total"), 21);
    assert_eq!(copy.json(&["quarantine", "list"]), none);
    // And it is remembered from now on, through a restart too.
    assert_eq!(copy.terminate(), 0);
    copy.serve();
    measure(&mut monitor, 41..42);
    assert_eq!(monitor.drain(&copy), 0);
    assert_eq!(stored(&copy, "nora", &token)[0], "42|42");
}

#[test]
fn what_a_device_is_told_waits_for_it_through_restarts_of_both() {
    let mut site = Site::serving();
    let patient = site.patient();
    let directory = site.device(DEVICE, &patient);
    let file = site.dir.path().join("command");
    let tell = |site: &Site, words: &str| {
        std::fs::write(&file, words).unwrap();
        let file = file.to_str().unwrap();
        site.json(&["device", "send", DEVICE, "--file", file, "--expires", "2d"])
    };
    let words = ["limits 40 to 130", "limits 45 to 120", "restart at noon"];
    let first = tell(&site, words[0]);
    assert_eq!(
        (&first["message"], &first["bytes"]),
        (&json!(1), &json!(16))
    );
    tell(&site, words[1]);
    site.kill();
    site.serve();
    tell(&site, words[2]);
    let waiting = || {
        site.json(&["device", "downlink", DEVICE])
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(waiting(), 3);

    // The first life of the device takes one of three, and dies with the others in hand.
    let hear = |takes: usize| {
        let monitor = Monitor::at(&site, &directory, &patient, MODE);
        let publisher = monitor.publisher(site.address("mqtt").port());
        let (mut messages, stop) = (publisher.messages(), CancellationToken::new());
        let (stopped, mut heard) = (stop.clone(), Vec::new());
        let waits_before = waiting();
        Runtime::new().unwrap().block_on(async {
            let running = tokio::spawn(async move { publisher.run(stopped).await });
            for n in 0..waits_before {
                let message = messages.recv().await.unwrap();
                assert_eq!(message.source, Source::Down);
                heard.push(String::from_utf8(message.payload().to_vec()).unwrap());
                if n < takes {
                    message.take();
                }
            }
            while waiting() > waits_before - takes {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            stop.cancel();
            running.await.unwrap().unwrap();
        });
        heard
    };
    assert_eq!(hear(1), words);
    assert_eq!(hear(2), words[1..]);
    assert_eq!(waiting(), 0);
    let tail = site.json(&["audit", "tail", "-n", "50"]);
    let queued = tail.as_array().unwrap().iter();
    let queued = queued.filter(|entry| entry["event"] == "downlink_queued");
    assert_eq!(queued.count(), 3);
    assert!(!tail.to_string().contains("limits") && !site.log_text().contains("limits 4"));

    tell(&site, "too late");
    site.json(&["device", "revoke", DEVICE, "--reason", "lost"]);
    assert_eq!(waiting(), 0);
    let said = site.refused(&["device", "send", DEVICE, "--file", file.to_str().unwrap()]);
    assert!(said.contains("revoked"), "{said}");
}
