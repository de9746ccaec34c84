//! A device that is not our code: `openssl` makes its key, Python's `cwt` or `pycose` its envelopes, `paho-mqtt`
//! carries them, and `psql` must return exactly what it sent.
//!
//! The other way round, both libraries must read what the store then holds, our own devices' messages too, knowing
//! nothing but the patient's key and the devices' certificates.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use datafusion::arrow::array::AsArray as _;
use futures::TryStreamExt as _;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use vitalseal_crypto::{DeviceCertificate, danger};
use vitalseal_storage::{FileRootProvider, Store, StorePaths, schema};
use vitalseal_vitals::{Reading, signal};

use crate::common::Site;
use crate::common::device::Device;
use crate::python;

const FOREIGN: &str = "foreign-01";
const OWN: &str = "own-01";

/// How the foreign device seals and sends: COSE library, key agreement, version of MQTT.
const RUNS: [[&str; 3]; 6] = [
    ["cwt", "es", "4"],
    ["cwt", "ss", "5"],
    ["cwt", "named", "4"],
    ["pycose", "es", "5"],
    ["pycose", "ss", "4"],
    ["pycose", "named", "5"],
];

#[test]
fn foreign_devices_are_read_back_exactly_by_psql_and_foreign_libraries_read_what_is_stored() {
    let mut site = Site::serving();
    let patient = site.patient();
    let token = site.clinician("nora", &[&patient]);

    let foreign = Foreign::enroll(&site, &patient);
    let mut sent = Vec::new();
    for (run, how) in RUNS.into_iter().enumerate() {
        let readings = readings(run);
        foreign.publish(&site, run, how, &readings);
        sent.extend(readings);
    }
    let sql = format!(
        "SELECT code, unit, value, extract(epoch FROM ts)::BIGINT FROM vitals \
         WHERE device = '{FOREIGN}' ORDER BY ts, code"
    );
    let expected = rows(&sent);
    assert_eq!(
        site.psql("nora", &token, &sql).unwrap(),
        expected,
        "from the inbox"
    );

    let directory = site.device(OWN, &patient);
    let own_readings = readings(RUNS.len());
    let mut own = Device::load(&directory, &patient, &site);
    own.push(&own_readings.iter().map(reading).collect::<Vec<_>>());
    own.drain();
    drop(own);

    site.json(&["flush"]);
    assert_eq!(
        site.psql("nora", &token, &sql).unwrap(),
        expected,
        "from Parquet"
    );
    assert_eq!(site.json(&["quarantine", "list"]), json!([]));

    assert_eq!(site.terminate(), 0);
    sent.extend(own_readings);
    let certificates = [
        (FOREIGN, foreign.path("cert.pem")),
        (OWN, directory.join("cert.pem")),
    ];
    let (keks, envelopes) = keks_and_envelopes(&site, &patient);
    let mut stored = json!({
        "certificates": certificates.iter().map(certificate).collect::<Map<_, _>>(),
        "patient_keks": keks,
        "stored": envelopes.iter().map(hex::encode).collect::<Vec<_>>(),
        "readings": sent,
    });
    succeeded(&read_stored(&site, &stored));

    let keks = stored["patient_keks"].as_object_mut().unwrap();
    keks.values_mut()
        .for_each(|kek| *kek = json!("07".repeat(32)));
    let without_key = read_stored(&site, &stored);
    assert_eq!(without_key.status.code(), Some(1), "{without_key:?}");
}

fn read_stored(site: &Site, stored: &Value) -> Output {
    let file = site.dir.path().join("stored.json");
    std::fs::write(&file, stored.to_string()).unwrap();
    python::run("read_stored.py", &[text(&file)])
}

/// The device of Python libraries, in a directory of its own.
struct Foreign {
    directory: PathBuf,
    patient: String,
}

impl Foreign {
    /// The key is made by openssl and never leaves the device's side.
    fn enroll(site: &Site, patient: &str) -> Self {
        let directory = site.dir.path().join(FOREIGN);
        std::fs::create_dir(&directory).unwrap();
        let foreign = Self {
            directory,
            patient: patient.to_owned(),
        };
        let [key, csr, cert] = ["key.pem", "device.csr", "cert.pem"].map(|name| foreign.path(name));
        succeeded(&python::run(
            "device.py",
            &[
                ["--device", FOREIGN],
                ["--key", text(&key)],
                ["--csr", text(&csr)],
            ]
            .concat(),
        ));
        let (csr, cert) = (text(&csr), text(&cert));
        site.json(&["device", "enroll", FOREIGN, "--csr", csr, "--out", cert]);
        site.assign(FOREIGN, patient);
        std::fs::write(
            foreign.path("recipient.pem"),
            site.run(&["recipient", "show"]).stdout,
        )
        .unwrap();
        foreign
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Publishes readings in one boot, and waits until all messages are acknowledged.
    fn publish(
        &self,
        site: &Site,
        run: usize,
        [library, mode, version]: [&str; 3],
        readings: &[Value],
    ) {
        let file = self.path("readings.json");
        std::fs::write(&file, serde_json::to_vec(readings).unwrap()).unwrap();
        let [key, cert, recipient] =
            ["key.pem", "cert.pem", "recipient.pem"].map(|name| self.path(name));
        let ca = site.ca_file();
        let boot = (10 + run).to_string();
        let mqtt = format!("localhost:{}", site.address("mqtt").port());
        succeeded(&python::run(
            "device.py",
            &[
                ["--device", FOREIGN],
                ["--patient", &self.patient],
                ["--key", text(&key)],
                ["--cert", text(&cert)],
                ["--recipient", text(&recipient)],
                ["--ca", text(&ca)],
                ["--readings", text(&file)],
                ["--library", library],
                ["--mode", mode],
                ["--mqtt-version", version],
                ["--per-message", "25"],
                ["--boot", &boot],
                ["--mqtt", &mqtt],
            ]
            .concat(),
        ));
    }
}

/// The patient's keys by their identifiers, through the door that is there for this test, and every envelope of the files,
/// which are sealed once more as files.
fn keks_and_envelopes(site: &Site, patient: &str) -> (Map<String, Value>, Vec<Vec<u8>>) {
    let paths = StorePaths::new(&site.data, None);
    let roots = Arc::new(FileRootProvider::new(paths.root_keys()));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::open(&paths, roots, Timestamp::now()).await.unwrap();
        let keys = store.keys.patient_keys(&patient.parse().unwrap()).await;
        let keks = keys
            .unwrap()
            .expect("the patient has a key")
            .all()
            .map(|kek| (kek.kid(), danger::test_doors::kek_to_bytes(kek)))
            .map(|(kid, kek)| (kid.to_string(), json!(hex::encode(kek))))
            .collect();
        let mut envelopes = Vec::new();
        for file in store.catalog.files().await.unwrap().iter() {
            let batches = store.files.batches(file, &[schema::ENVELOPE], 1024);
            for batch in batches.try_collect::<Vec<_>>().await.unwrap() {
                let column = batch.column(0).as_binary::<i32>();
                envelopes.extend(column.iter().flatten().map(<[u8]>::to_vec));
            }
        }
        store.close().await;
        (keks, envelopes)
    })
}

fn certificate((device, pem): &(&str, PathBuf)) -> (String, Value) {
    let pem = std::fs::read_to_string(pem).unwrap();
    let certificate = DeviceCertificate::from_pem(&pem).unwrap();
    ((*device).to_owned(), json!(hex::encode(certificate.der())))
}

/// What `psql` shows of readings, in the order of the statement.
fn rows(readings: &[Value]) -> Vec<String> {
    let mut readings: Vec<&Value> = readings.iter().collect();
    readings.sort_by_key(|reading| reading["time"].as_i64());
    readings
        .into_iter()
        .map(|reading| {
            let field = |name: &str| reading[name].as_str().unwrap();
            format!(
                "{}|{}|{}|{}",
                field("code"),
                field("unit"),
                reading["value"],
                reading["time"]
            )
        })
        .collect()
}

/// Values that a decimal text carries exactly, in several signals, one instant each.
fn readings(run: usize) -> Vec<Value> {
    (0..60)
        .map(|index| {
            let time = 1_767_400_000 + run * 1_000 + index;
            match index % 3 {
                0 => json!({"code": "8867-4", "unit": "/min", "value": 60 + index, "time": time}),
                1 => json!({"code": "59408-5", "unit": "%", "value": 97, "time": time}),
                _ => json!({"code": "8310-5", "unit": "Cel", "value": 36.6 + 0.5, "time": time}),
            }
        })
        .collect()
}

fn reading(told: &Value) -> Reading {
    Reading {
        signal: signal(told["code"].as_str().unwrap()).unwrap(),
        value: told["value"].as_f64().unwrap(),
        at: Timestamp::from_second(told["time"].as_i64().unwrap()).unwrap(),
    }
}

fn succeeded(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
