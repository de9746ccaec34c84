//! A site with a broker of its own: Mosquitto takes what devices publish, and the server consumes from it. The server is
//! killed at random; the broker is stopped and started again, or killed too.
//!
//! Failure: a reading that Mosquitto had saved and that is missing, a reading stored twice, a message in the quarantine;
//! with devices that have an outbox, while Mosquitto is stopped in order: any reading that is missing. Not a failure: a
//! reading of a device without an outbox that Mosquitto acknowledged and lost with its own death before it saved, for it
//! acknowledges from memory; or that it acknowledged while nobody had subscribed, for this version forgets shared
//! subscriptions when it restarts. What is proven is that nothing is lost or doubled between what it saved and the store.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use jiff::Timestamp;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use vitalseal::mqtt_client::Session;
use vitalseal_device::{AgreementMode, Message};
use vitalseal_vitals::{Reading, signal};

use crate::common::{Monitor, Random, Site, comes, wait_until};
use crate::mosquitto::Mosquitto;

/// What happens when follows from it.
const SEED: u64 = 0x7617_a15e_a1ed_0004;
const ROUNDS: u32 = 12;

/// Instant of each device's first reading, in seconds.
const START: i64 = 1_767_225_600;

const SESSION: AgreementMode = AgreementMode::Ss {
    messages_per_session: 50,
};

/// Devices may publish on their own topic and read the certificate, the server the other way round.
const ACCESS: &str = "pattern write v1/d/%u/vitals\npattern read v1/recipient\n\
                      user vitalseal-ingest\ntopic read v1/d/+/vitals\ntopic write v1/recipient\n";

/// A site with Mosquitto in front: mutual TLS with certificates of the site's authority, and no edge of our own.
struct Clustered {
    broker: Mosquitto, // its files are the site's
    site: Site,
}

impl Clustered {
    /// `subscription` says how the server subscribes.
    fn start(subscription: &str) -> Self {
        let mut site = Site::init();
        let dir = site.dir.path().join("mosquitto");
        fs::create_dir(&dir).unwrap();
        let ca = site.data.join("ca-root.pem").display().to_string();
        for name in ["localhost", "vitalseal-ingest"] {
            issue(&site, &dir, name);
        }
        fs::write(dir.join("access"), ACCESS).unwrap();
        let authorities = dir.join("authorities.pem");
        let bundle = ["ca-issuing.pem", "ca-root.pem"]
            .map(|name| fs::read_to_string(site.data.join(name)).unwrap());
        fs::write(&authorities, bundle.concat()).unwrap();
        let at = |name: &str| dir.join(name).display().to_string();
        let broker = Mosquitto::start(
            &dir,
            &format!(
                "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\nuse_identity_as_username true\n\
                 allow_anonymous false\nacl_file {}",
                authorities.display(),
                at("localhost.pem"),
                at("localhost.key"),
                at("access")
            ),
        );
        let mut settings = fs::read_to_string(site.data.join("vitalseal.toml")).unwrap();
        settings += &format!(
            "\n[mqtt.cluster]\nhost = \"localhost\"\nport = {}\nca = {ca:?}\ncert = {:?}\nkey = {:?}\nonly = true\n{subscription}",
            broker.port(),
            at("vitalseal-ingest.pem"),
            at("vitalseal-ingest.key"),
        );
        fs::write(site.data.join("vitalseal.toml"), settings).unwrap();
        site.serve();
        Self { broker, site }
    }

    /// Seals nothing before the server's key is known, as any device.
    fn device(&self, name: &str, mode: AgreementMode) -> Device {
        let patient = self.site.patient();
        let directory = self.site.device(name, &patient);
        Device {
            name: name.to_owned(),
            monitor: Monitor::at(&self.site, &directory, &patient, mode),
            patient,
            sealed: 0,
        }
    }

    /// A clinician who may see the patients of these devices; their token.
    fn clinician(&self, devices: &[Device]) -> String {
        let patients: Vec<_> = devices.iter().map(|device| &*device.patient).collect();
        self.site.clinician("nora", &patients)
    }

    /// Device and instant of every reading that is stored, as often as it is.
    fn stored(&self, nora: &str) -> Vec<(String, u64)> {
        let sql = "SELECT device, CAST(date_part('epoch', ts) AS BIGINT) FROM vitals";
        let rows = self.site.psql("nora", nora, sql).unwrap();
        let parse = |row: &String| {
            let (device, instant) = row.split_once('|').unwrap();
            let instant: i64 = instant.parse().unwrap();
            (device.to_owned(), (instant - START) as u64)
        };
        rows.iter().map(parse).collect()
    }

    /// Waits until what is stored is at least this; returns all of it.
    fn wait_for(&self, nora: &str, expected: &BTreeSet<(String, u64)>) -> Vec<(String, u64)> {
        let mut stored = Vec::new();
        let all = || {
            stored = self.stored(nora);
            expected.iter().all(|reading| stored.contains(reading))
        };
        if !comes(all) {
            let missing = expected.iter().filter(|reading| !stored.contains(reading));
            panic!("lost: {:?}", missing.take(10).collect::<Vec<_>>());
        }
        stored
    }

    /// Waits until so many consumers are connected.
    fn wait_for_consumers(&self, consumers: u64) {
        let connected = || self.site.metric("cluster_connected") == consumers;
        wait_until(
            connected,
            "other consumers are connected than there should be",
        );
    }
}

struct Device {
    name: String,
    patient: String,
    monitor: Monitor,
    sealed: u64,
}

impl Device {
    /// One reading a message, each with an instant of its own.
    fn seal(&mut self) -> Sealed {
        let instant = self.sealed;
        self.sealed += 1;
        let reading = Reading {
            signal: signal("8867-4").unwrap(),
            value: 70.0,
            at: Timestamp::from_second(START + instant as i64).unwrap(),
        };
        let message = self
            .monitor
            .sealer
            .seal(&[reading], Timestamp::now())
            .unwrap();
        Sealed {
            reading: (self.name.clone(), instant),
            message,
        }
    }
}

/// A message, and the device and instant of the one reading in it.
struct Sealed {
    reading: (String, u64),
    message: Message,
}

/// Publishes without an outbox, and waits for each acknowledgement.
fn publish<'a>(
    runtime: &Runtime,
    broker: &Mosquitto,
    device: &Device,
    messages: impl IntoIterator<Item = &'a Sealed>,
) {
    let address = ([127, 0, 0, 1], broker.port()).into();
    let topic = format!("v1/d/{}/vitals", device.name);
    runtime.block_on(async {
        let tls = device.monitor.tls();
        let mut session = Session::connect(address, &device.name, tls).await.unwrap();
        for sealed in messages {
            let bytes = sealed.message.bytes.clone();
            session.publish(&topic, bytes).await.unwrap();
        }
        session.close().await;
    });
}

/// A certificate of the site's root authority: `{name}.pem` and `{name}.key`.
fn issue(site: &Site, dir: &Path, name: &str) {
    let openssl = |args: &[&str]| {
        let run = Command::new("openssl")
            .args(args)
            .current_dir(dir)
            .output()
            .unwrap();
        assert!(
            run.status.success(),
            "{}",
            String::from_utf8_lossy(&run.stderr)
        );
    };
    let (key, csr, pem) = (format!("{name}.key"), "csr.pem", format!("{name}.pem"));
    let subject = format!("/CN={name}");
    let curve = "ec_paramgen_curve:P-256";
    openssl(&[
        "req", "-new", "-newkey", "ec", "-pkeyopt", curve, "-nodes", "-keyout", &key, "-out", csr,
        "-subj", &subject,
    ]);
    let extensions = format!("basicConstraints=critical,CA:FALSE\nsubjectAltName=DNS:{name}\n");
    fs::write(dir.join("extensions"), extensions).unwrap();
    let ca = site.data.join("ca-root.pem");
    let ca_key = site.data.with_extension("root").join("ca-root.key");
    openssl(&[
        "x509",
        "-req",
        "-in",
        csr,
        "-days",
        "2",
        "-extfile",
        "extensions",
        "-CA",
        ca.to_str().unwrap(),
        "-CAkey",
        ca_key.to_str().unwrap(),
        "-CAcreateserial",
        "-CAserial",
        "serial",
        "-out",
        &pem,
    ]);
    fs::set_permissions(dir.join(&key), fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn devices_with_an_outbox_lose_nothing_while_the_server_is_killed_and_the_broker_restarted() {
    let mut clustered = Clustered::start("shared = false\nconsumers = 1\n");
    let mut devices = [
        clustered.device("cluster-0", AgreementMode::Es),
        clustered.device("cluster-1", SESSION),
        clustered.device("cluster-2", SESSION),
    ];
    let nora = clustered.clinician(&devices);
    let runtime = Runtime::new().unwrap();
    let stop = CancellationToken::new();
    let publishing: Vec<_> = devices
        .iter()
        .map(|device| device.monitor.publisher(clustered.broker.port()))
        .map(|publisher| {
            let stop = stop.clone();
            runtime.spawn(async move {
                publisher.run(stop).await.unwrap();
                publisher
            })
        })
        .collect();
    clustered.wait_for_consumers(1);
    let mut random = Random(SEED);
    let mut expected = BTreeSet::new();
    for _ in 0..ROUNDS {
        for device in &mut devices {
            for _ in 0..40 {
                let sealed = device.seal();
                device.monitor.outbox.push(&sealed.message).unwrap();
                expected.insert(sealed.reading);
            }
        }
        random.pause(300);
        match random.below(3) {
            0 => {
                clustered.broker.terminate();
                random.pause(100);
                clustered.broker.restart();
            }
            _ => {
                clustered.site.kill();
                random.pause(100);
                clustered.site.serve();
            }
        }
    }
    stop.cancel();
    for task in publishing {
        let publisher = runtime.block_on(task).unwrap();
        let drained = publisher.run_until_drained(Duration::from_secs(60));
        runtime.block_on(drained).unwrap();
    }
    let stored = clustered.wait_for(&nora, &expected);
    assert_eq!(stored.len(), expected.len(), "stored twice");
    let quarantined = clustered.site.json(&["quarantine", "list"]);
    assert_eq!(quarantined, serde_json::json!([]));
}

#[test]
fn what_the_broker_saved_is_stored_once_whoever_is_killed() {
    let mut clustered = Clustered::start("");
    let mut device = clustered.device("cluster-3", AgreementMode::Es);
    let nora = clustered.clinician(std::slice::from_ref(&device));
    let runtime = Runtime::new().unwrap();
    let mut random = Random(SEED);
    let mut published = Vec::new();
    let mut owed = BTreeSet::new();
    for _ in 0..ROUNDS {
        // Until then it keeps what comes for nobody.
        clustered.wait_for_consumers(2);
        let batch: Vec<_> = (0..5 + random.below(30)).map(|_| device.seal()).collect();
        publish(&runtime, &clustered.broker, &device, &batch);
        published.extend(batch);
        if random.below(2) == 0 {
            clustered.broker.save();
            owed = published
                .iter()
                .map(|sealed| sealed.reading.clone())
                .collect();
        }
        random.pause(60);
        let dies = random.below(3);
        if dies != 0 {
            clustered.broker.kill();
        }
        if dies != 1 {
            clustered.site.kill();
            clustered.site.serve();
        }
        if dies == 1 {
            clustered.wait_for_consumers(0); // the loss is noticed
        }
        if dies != 0 {
            clustered.broker.restart();
        }
    }
    assert!(owed.len() > 50, "{} messages are no load", owed.len());
    let stored = clustered.wait_for(&nora, &owed);
    let distinct: BTreeSet<_> = stored.iter().cloned().collect();
    assert_eq!(stored.len(), distinct.len(), "stored twice");
    println!(
        "{} published, {} owed, {} stored, seed {SEED:#x}",
        published.len(),
        owed.len(),
        stored.len()
    );

    // A device that keeps what it sent makes good what the broker lost.
    clustered.wait_for_consumers(2);
    publish(&runtime, &clustered.broker, &device, &published);
    let all = published
        .iter()
        .map(|sealed| sealed.reading.clone())
        .collect();
    let stored = clustered.wait_for(&nora, &all);
    assert_eq!(stored.len(), all.len(), "stored twice");
    let quarantined = clustered.site.json(&["quarantine", "list"]);
    assert_eq!(quarantined, serde_json::json!([]));
}
