//! A whole store on a token: made there, served, erased from, started again; `SoftHSM2` plays the token.
//!
//! Counts as a failure: a root or signing key in a file or in the registry, an old root that is still on the token
//! after an erasure, the PIN anywhere but in its file, or objects that a failed `init` leaves behind.

use std::path::Path;
use std::process::{Command, Output};

use jiff::Timestamp;
use serde_json::Value;
use vitalseal_storage::{
    KeySlot, Pkcs11RootProvider, Pkcs11Signer, RootProvider as _, SigningPurpose, Token,
    TokenSettings,
};
use vitalseal_vitals::{Reading, signal};

use crate::common::device::Device;
use crate::common::{Site, VITALSEAL, files_below};
use crate::token::{self, LABEL, PIN, SoftToken, module};

const PROVIDER: &str = "pkcs11 (token ward, SoftHSM project SoftHSM v2)";

#[test]
fn a_store_on_a_token_serves_forgets_and_starts_again() {
    token::alone(
        "pkcs11::a_store_on_a_token_serves_forgets_and_starts_again",
        |soft| {
            let mut site = Site::init_with(&strings(&on_token(soft)));
            let roots = Pkcs11RootProvider::new(configured(&site));
            let count = |slots: &[KeySlot]| {
                slots
                    .iter()
                    .filter(|slot| matches!(slot, KeySlot::Root(_)))
                    .count()
            };
            assert_eq!(
                (roots.slots().unwrap().len(), count(&roots.slots().unwrap())),
                (2, 1)
            );
            for purpose in [SigningPurpose::IssuingCa, SigningPurpose::AuditLog] {
                Pkcs11Signer::open(configured(&site), purpose).unwrap();
            }
            let beside: Vec<_> = files_below(&site.data.with_extension("root"))
                .iter()
                .map(|file| file.file_name().unwrap().to_owned())
                .collect();
            assert_eq!(beside, ["ca-root.key"], "no root key is a file");

            site.serve();
            assert_eq!(site.json(&["keys", "status"])["root_provider"], PROVIDER);
            let (gone, stays) = (site.patient(), site.patient());
            for (name, patient) in [("monitor-a", &gone), ("monitor-b", &stays)] {
                publish(&site, name, patient);
            }
            let token = site.clinician("nora", &[&gone, &stays]);
            let asked = "SELECT count(*) FROM vitals";
            assert_eq!(site.psql("nora", &token, asked).unwrap(), ["2"]);
            site.json(&["flush"]);

            let before = roots.slots().unwrap();
            let certificate = site.dir.path().join("certificate.json");
            let out = certificate.to_str().unwrap();
            let erased = site.json(&["erase", &gone, "--reason", "asked for", "--out", out]);
            assert!(erased.to_string().contains(PROVIDER), "{erased}");
            let after = roots.slots().unwrap();
            assert_eq!((count(&before), count(&after)), (1, 1));
            assert_ne!(before[0], after[0], "the old root is still on the token");
            let vkey = site.data.join("audit.vkey");
            site.json(&["erase", "verify", out, "--key", vkey.to_str().unwrap()]);

            assert_eq!(site.terminate(), 0);
            site.serve();
            assert_eq!(site.psql("nora", &token, asked).unwrap(), ["1"]);
            publish(&site, "monitor-c", &stays);
            assert_eq!(site.psql("nora", &token, asked).unwrap(), ["2"]);
            assert_eq!(site.json(&["audit", "verify"])["ok"], true);
            assert_eq!(site.terminate(), 0);

            let holds = |bytes: &[u8]| bytes.windows(PIN.len()).any(|part| part == PIN.as_bytes());
            assert!(!holds(site.log_text().as_bytes()), "the PIN is in the log");
            for file in files_below(&site.data) {
                assert!(
                    !holds(&std::fs::read(&file).unwrap()),
                    "the PIN is in {}",
                    file.display()
                );
            }
        },
    );
}

#[test]
fn a_backup_is_restored_with_the_token_that_a_configuration_of_ones_own_names() {
    token::alone(
        "pkcs11::a_backup_is_restored_with_the_token_that_a_configuration_of_ones_own_names",
        |soft| {
            let mut site = Site::init_with(&strings(&on_token(soft)));
            site.serve();
            let patient = site.patient();
            publish(&site, "monitor-a", &patient);
            let path = |name: &str| site.dir.path().join(name);
            site.json(&["backup", "--out", path("backup").to_str().unwrap()]);
            std::fs::copy(site.data.join("vitalseal.toml"), path("own.toml")).unwrap();
            let restore = |keys: &[&str]| {
                let mut restore = Command::new(VITALSEAL);
                restore.args(["restore", "--json", "--from", "backup", "--data", "new"]);
                restore.args(keys).current_dir(site.dir.path());
                restore.output().unwrap()
            };
            let files = restore(&["--root-keys", "data.root", "--snapshots", "data.keys"]);
            let said = String::from_utf8(files.stderr).unwrap();
            assert!(said.contains("root key of epoch 0 is not in"), "{said}");

            let restored = restore(&["--config", "own.toml"]);
            let said = String::from_utf8_lossy(&restored.stderr);
            assert!(restored.status.success(), "{said}");
            let report: Value = serde_json::from_slice(&restored.stdout).unwrap();
            assert_eq!(report["root_provider"], PROVIDER, "{report}");
            assert_eq!(report["messages_opened"], 1, "{report}");
            let file = |store: &str| std::fs::read(path(store).join("vitalseal.toml")).unwrap();
            assert!(
                file("data") == file("new"),
                "the same token: as it was, comments too"
            );
        },
    );
}

#[test]
fn a_token_that_cannot_be_used_stops_the_start_and_says_what_to_do() {
    token::alone(
        "pkcs11::a_token_that_cannot_be_used_stops_the_start_and_says_what_to_do",
        |soft| {
            let site = Site::init_with(&strings(&on_token(soft)));
            let start = || site.refused(&["serve"]);
            soft.write_pin(PIN, 0o644);
            let said = start();
            assert!(said.contains("chmod") && said.contains("644"), "{said}");
            soft.write_pin("87654321", 0o600);
            let said = start();
            assert!(
                said.contains("CKR_PIN_INCORRECT") && !said.contains("87654321"),
                "{said}"
            );
            soft.write_pin(PIN, 0o600);
            std::fs::rename(soft.objects(), site.dir.path().join("drawer")).unwrap();
            std::fs::create_dir(soft.objects()).unwrap();
            let said = start();
            assert!(
                said.contains("plugged in") && said.contains(LABEL),
                "{said}"
            );
        },
    );
}

#[test]
fn an_init_that_fails_leaves_nothing_on_the_token() {
    token::alone(
        "pkcs11::an_init_that_fails_leaves_nothing_on_the_token",
        |soft| {
            let objects = || {
                files_below(&soft.objects())
                    .iter()
                    .filter(|file| file.extension().is_some_and(|it| it == "object"))
                    .count()
            };
            // The token's own bookkeeping.
            let before = objects();
            let dir = tempfile::tempdir().unwrap();
            let data = dir.path().join("data");
            // The first keys are on the token when the directory for the root CA's key turns out not to be possible.
            let mut args = on_token(soft);
            args.extend(["--root-keys".to_owned(), "/proc/vitalseal".to_owned()]);
            let failed = init(&data, &args);
            let said = String::from_utf8_lossy(&failed.stderr).into_owned();
            assert!(
                !failed.status.success() && said.contains("/proc/vitalseal"),
                "{said}"
            );
            assert_eq!(objects(), before);
            assert!(!data.exists());

            let made = init(&data, &on_token(soft));
            assert!(made.status.success());
            assert!(objects() > before, "objects are counted");
            // Half an answer is no answer.
            let half = init(&dir.path().join("other"), &on_token(soft)[..4]);
            let said = String::from_utf8_lossy(&half.stderr).into_owned();
            assert!(said.contains("--pkcs11-pin-file"), "{said}");
        },
    );
}

fn on_token(soft: &SoftToken) -> Vec<String> {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (module, pin) = (text(&module()), text(&soft.pin_file()));
    [
        "--pkcs11-module",
        &module,
        "--pkcs11-token",
        LABEL,
        "--pkcs11-pin-file",
        &pin,
        "--pkcs11-signing",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn strings(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

fn init(data: &Path, further: &[String]) -> Output {
    Command::new(VITALSEAL)
        .args(["init", "--data"])
        .arg(data)
        .args(further)
        .env_remove("VITALSEAL_DATA")
        .output()
        .unwrap()
}

/// The token as the store's configuration names it.
fn configured(site: &Site) -> std::sync::Arc<Token> {
    let text = std::fs::read_to_string(site.data.join("vitalseal.toml")).unwrap();
    let file: Value = serde_json::to_value(toml::from_str::<toml::Table>(&text).unwrap()).unwrap();
    let field = |name: &str| file["keys"]["pkcs11"][name].as_str().unwrap().to_owned();
    Token::new(TokenSettings {
        module: field("module").into(),
        token: field("token"),
        pin_file: field("pin_file").into(),
        label: field("label"),
    })
}

/// One reading, acknowledged.
fn publish(site: &Site, name: &str, patient: &str) {
    let directory = site.device(name, patient);
    let mut device = Device::load(&directory, patient, site);
    device.push(&[Reading {
        signal: signal("8867-4").unwrap(),
        value: 62.0,
        at: Timestamp::now(),
    }]);
    device.drain();
}
