//! A backup or a copy from before an erasure, and what may be made of it: the erased stay gone, everyone else is
//! readable, and what cannot hold both serves nothing.
//!
//! Failure: a reading, a name or a key of an erased patient; a patient who was not erased and has lost a reading; a
//! data directory after a refusal; a refusal that does not say what is wrong.

mod keys;
mod load;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use vitalseal_storage::{FileRootProvider, Store, StorePaths};
use vitalseal_vitals::{Reading, signal};

use crate::common::device::Device;
use crate::common::{Site, VITALSEAL, files_below};

/// A temperature that nothing else prints by accident.
const PLANTED: f64 = 37.214_863;
const FIRST: &str = "2026-03-04T05:06:00Z";

/// Two patients with readings in a file and in the inbox, and someone who may see both.
struct Ward {
    site: Site,
    ada: String,
    grace: String,
    clinician: Value,
}

impl Ward {
    fn new() -> Self {
        let site = Site::serving();
        let add = |name: &str| {
            let added = site.json(&["patient", "add", "--name", name]);
            added["patient"].as_str().unwrap().to_owned()
        };
        let (ada, grace) = (add("Ada Lovelace"), add("Grace Hopper"));
        let clinician = site.json(&["user", "add", "nora", "--role", "clinician"]);
        let mut devices = Vec::new();
        for (device, patient) in [("watch-ada", &ada), ("watch-grace", &grace)] {
            site.json(&["user", "grant", "nora", "--patient", patient]);
            devices.push((site.device(device, patient), patient));
        }
        for range in [0..3, 3..5] {
            for (directory, patient) in &devices {
                let mut device = Device::load(directory, patient, &site);
                device.push(&range.clone().map(reading).collect::<Vec<_>>());
                device.drain();
            }
            if range.start == 0 {
                site.json(&["flush"]);
            }
        }
        Self {
            site,
            ada,
            grace,
            clinician,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.site.dir.path().join(name)
    }

    fn backup(&self, name: &str) -> PathBuf {
        let out = self.path(name);
        self.site.json(&["backup", "--out", out.to_str().unwrap()]);
        out
    }

    fn erase_ada(&self) {
        let reason = "Art. 17(1)(b)";
        self.site.json(&["erase", &self.ada, "--reason", reason]);
    }

    /// `cp -a`, as an administrator would.
    fn copy(&self, name: &str) -> PathBuf {
        let copy = self.path(name);
        copy_as_is(&self.site.data, &copy);
        copy
    }

    /// What must hold of a store made of anything from before the erasure; the log of its server.
    fn assert_ada_gone_and_grace_readable(&self, store: PathBuf) -> String {
        let mut site = Site::on(store);
        site.serve();
        let states = site.json(&["patient", "list"]);
        let state = |patient: &str| {
            let row = states.as_array().unwrap().iter();
            row.clone().find(|row| row["patient"] == patient).unwrap()["state"].clone()
        };
        assert_eq!(
            (state(&self.ada), state(&self.grace)),
            ("erased".into(), "active".into())
        );
        assert_eq!(
            site.json(&["patient", "show", &self.ada])["name"],
            Value::Null
        );
        assert_eq!(
            site.json(&["patient", "show", &self.grace])["name"],
            "Grace Hopper"
        );

        let token = site.token(&self.clinician);
        let psql = |sql: &str| site.psql("nora", &token, sql).unwrap();
        assert_eq!(
            psql("SELECT DISTINCT patient FROM vitals"),
            [self.grace.as_str()]
        );
        let expected: Vec<String> = (0..5).map(|n| reading(n).value.to_string()).collect();
        assert_eq!(psql("SELECT value FROM vitals ORDER BY ts"), expected);

        let tail = site.json(&["audit", "tail", "-n", "200"]);
        let restored: Vec<&Value> = tail
            .as_array()
            .unwrap()
            .iter()
            .filter(|entry| entry["event"] == "store_restored")
            .collect();
        assert_eq!(restored.len(), 1, "{tail}");
        assert_eq!(restored[0]["erasures_replayed"], 1, "{restored:?}");
        assert_eq!(site.json(&["audit", "verify"])["ok"], true);
        assert_eq!(site.terminate(), 0);
        self.assert_no_key_of_ada(&site.data);
        site.log_text()
    }

    /// Below every door: with the root of today the key tree has nothing that opens an envelope of hers.
    fn assert_no_key_of_ada(&self, data: &Path) {
        let paths = StorePaths::new(data, Some(&self.path("data.root")));
        let roots = Arc::new(FileRootProvider::new(paths.root_keys()));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let store = Store::open(&paths, roots, Timestamp::now()).await.unwrap();
            let keys = |patient: &str| {
                let (store, patient) = (store.clone(), patient.parse().unwrap());
                async move { store.keys.patient_keys(&patient).await.unwrap() }
            };
            assert!(keys(&self.ada).await.is_none());
            assert!(keys(&self.grace).await.is_some());
            store.close().await;
        });
    }
}

fn reading(n: i32) -> Reading {
    Reading {
        signal: signal("8310-5").unwrap(),
        value: PLANTED + f64::from(n) / 8.0,
        at: FIRST.parse::<Timestamp>().unwrap() + SignedDuration::from_mins(n.into()),
    }
}

fn copy_as_is(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.unwrap().success());
}

/// With the keys where `init` put them, beside the backup.
fn restore(from: &Path, to: &Path) -> Output {
    let beside = |name: &str| from.with_file_name(name).into_os_string();
    let keys = ["--root-keys".into(), beside("data.root")];
    let places = ["--snapshots".into(), beside("data.keys")];
    restore_with(from, to, &[keys, places].concat())
}

fn restore_with(from: &Path, to: &Path, keys: &[OsString]) -> Output {
    Command::new(VITALSEAL)
        .args(["restore", "--json", "--from"])
        .arg(from)
        .arg("--data")
        .arg(to)
        .args(keys)
        .output()
        .unwrap()
}

pub(crate) fn restored(from: &Path, to: &Path) -> Value {
    let output = restore(from, to);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a restore that must fail says; it leaves nothing behind.
fn refused(from: &Path, to: &Path) -> String {
    refusal(restore(from, to), to)
}

fn refusal(output: Output, to: &Path) -> String {
    assert!(!output.status.success());
    let left = to.parent().unwrap().read_dir().unwrap();
    let name = to.file_name().unwrap().to_str().unwrap();
    let left: Vec<_> = left
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|entry| entry.starts_with(name))
        .collect();
    assert_eq!(left, [""; 0]);
    String::from_utf8(output.stderr).unwrap()
}

/// What a server that must not start says.
fn refused_to_serve(data: &Path) -> String {
    let doors = ["--mqtt", "--websocket", "--sql", "--http"];
    let doors = doors.iter().flat_map(|door| [*door, "127.0.0.1:0"]);
    let args: Vec<&str> = std::iter::once("serve").chain(doors).collect();
    Site::on(data.to_owned()).refused(&args)
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

#[test]
fn a_backup_from_before_an_erasure_keeps_the_erased_gone_and_everyone_else_readable() {
    let mut ward = Ward::new();
    let backup = ward.backup("backup");
    ward.erase_ada();
    let tail = ward.site.json(&["audit", "tail"]).to_string();
    assert!(tail.contains("backup_taken"), "{tail}");

    // Nothing in it is in the clear, and no root is.
    let mut planted = vec![PLANTED.to_string().into_bytes(), b"Lovelace".to_vec()];
    planted.push(PLANTED.to_le_bytes().to_vec());
    planted.push(PLANTED.to_be_bytes().to_vec());
    for file in files_below(&ward.path("data.root")) {
        let bytes = std::fs::read(file).unwrap();
        planted.push(bytes[bytes.len() - 32..].to_vec());
    }
    for file in files_below(&backup) {
        let bytes = std::fs::read(&file).unwrap();
        for planted in &planted {
            assert!(!holds(&bytes, planted), "{}", file.display());
        }
    }

    let elsewhere = ward.path("elsewhere");
    let report = restored(&backup, &elsewhere);
    let figures = |name: &str| report[name].clone();
    assert_eq!(
        ["patients_readable", "patients_erased", "erasures_replayed"].map(figures),
        [json!(1), json!(1), json!(1)],
        "{report}"
    );
    let keys = ["data.root", "data.keys"].map(|name| ward.path(name));
    assert_eq!(
        (figures("root_provider"), figures("root_keys")),
        (json!("file"), json!(keys[0]))
    );
    let snapshot = PathBuf::from(report["key_snapshot"].as_str().unwrap());
    assert!(snapshot.starts_with(&keys[1]), "{report}");
    // Of Grace: one in the file, one in the inbox.
    assert_eq!(report["messages_opened"], 2, "{report}");
    assert_eq!(ward.site.terminate(), 0);
    ward.assert_ada_gone_and_grace_readable(elsewhere);
}

#[test]
fn a_directory_copied_by_hand_before_an_erasure_keeps_both_promises() {
    let mut ward = Ward::new();
    let running = ward.copy("copied-running");
    assert_eq!(ward.site.terminate(), 0);
    let stopped = ward.copy("copied-stopped");
    ward.site.serve();
    ward.erase_ada();
    assert_eq!(ward.site.terminate(), 0);
    for copy in [running, stopped] {
        let log = ward.assert_ada_gone_and_grace_readable(copy);
        let joined = log.lines().find(|line| line.contains("was joined with it"));
        assert!(joined.is_some_and(|line| line.contains("WARN")), "{log}");
    }
}

#[test]
fn a_backup_that_was_changed_is_refused_and_says_where() {
    let mut ward = Ward::new();
    let backup = ward.backup("backup");
    assert_eq!(ward.site.terminate(), 0);
    let new = ward.path("new");
    let parquet = files_below(&backup.join("parquet")).remove(0);
    for file in [
        parquet,
        backup.join("inbox.sqlite"),
        backup.join("audit.vkey"),
    ] {
        let whole = std::fs::read(&file).unwrap();
        let mut changed = whole.clone();
        let at = changed.len() / 2;
        changed[at] ^= 1;
        std::fs::write(&file, changed).unwrap();
        let said = refused(&backup, &new);
        assert!(said.contains(file.to_str().unwrap()), "{said}");
        std::fs::write(&file, whole).unwrap();
    }
    // Digests that were put right do not help: the description is bound to the store.
    let described = backup.join("backup.json");
    let whole = std::fs::read_to_string(&described).unwrap();
    let changed = whole.replace("\"erasures\": 0", "\"erasures\": 1");
    assert_ne!(changed, whole);
    std::fs::write(&described, changed).unwrap();
    let said = refused(&backup, &new);
    assert!(said.contains("somebody changed it"), "{said}");
    std::fs::write(&described, whole).unwrap();
    restored(&backup, &new);
}

#[test]
fn a_backup_needs_a_new_directory_a_place_for_keys_and_a_running_server() {
    let mut ward = Ward::new();
    let backup = ward.backup("backup");
    let before = files_below(&backup);
    let refused = |out: &Path| {
        ward.site
            .refused(&["backup", "--out", out.to_str().unwrap()])
    };
    assert!(refused(&backup).contains("exists already"));
    assert_eq!(files_below(&backup), before);
    assert!(refused(&ward.site.data.join("inside")).contains("outside"));
    // A place that cannot be written: no backup without its keys.
    std::fs::rename(ward.path("data.keys"), ward.path("lost")).unwrap();
    std::fs::write(ward.path("data.keys"), "in the way").unwrap();
    let said = refused(&ward.path("keyless"));
    assert!(said.contains("data.keys"), "{said}");
    assert!(!ward.path("keyless").exists() && !ward.path("keyless.partial").exists());
    for (interrupted, of) in [("later.partial", "later"), ("new.restoring", "new")] {
        std::fs::create_dir(ward.path(interrupted)).unwrap();
        let said = match of {
            "new" => String::from_utf8(restore(&backup, &ward.path(of)).stderr).unwrap(),
            _ => refused(&ward.path(of)),
        };
        assert!(
            said.contains("interrupted") && said.contains(interrupted),
            "{said}"
        );
        assert!(!ward.path(of).exists());
    }
    assert_eq!(ward.site.terminate(), 0);
    let said = ward.site.refused(&["backup", "--out", "anywhere"]);
    assert!(said.contains("start it"), "{said}");
}
