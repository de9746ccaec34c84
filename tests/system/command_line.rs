//! What an operator sees: init, serve, stop, help, and the errors between.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use vitalseal_storage::QuarantineReason;

use crate::common::{Site, VITALSEAL, files_below};

#[test]
fn init_refuses_an_existing_store_and_changes_nothing() {
    let site = Site::init();
    let before = files_below(&site.data);
    let said = site.refused(&["init"]);
    assert!(said.contains("already holds a store"), "{said}");
    assert_eq!(files_below(&site.data), before);
}

#[test]
fn init_refuses_root_keys_inside_the_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let root = data.join("root");
    let output = Command::new(VITALSEAL)
        .args(["init", "--data"])
        .arg(&data)
        .arg("--root-keys")
        .arg(&root)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("must be outside the data directory"),
        "{said}"
    );
    assert!(!data.exists());
}

#[test]
fn only_the_owner_may_read_the_store_and_its_keys() {
    let site = Site::init();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let root = site.data.with_extension("root");
    assert_eq!(mode(&site.data), 0o700);
    assert_eq!(mode(&root), 0o700);
    for file in files_below(&root) {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    for name in ["registry.sqlite", "inbox.sqlite", "audit.sqlite"] {
        assert_eq!(mode(&site.data.join(name)), 0o600, "{name}");
    }
}

#[test]
fn a_store_without_its_root_keys_does_not_open_and_says_what_is_missing() {
    let site = Site::init();
    let root = site.data.with_extension("root");
    std::fs::rename(&root, site.dir.path().join("elsewhere")).unwrap();
    let said = site.refused(&["serve"]);
    assert!(said.contains("root"), "{said}");
    assert!(said.contains(root.to_str().unwrap()), "{said}");
}

#[test]
fn a_second_server_on_one_store_is_refused() {
    let site = Site::serving();
    let said = site.refused(&[
        "serve",
        "--mqtt",
        "127.0.0.1:0",
        "--websocket",
        "127.0.0.1:0",
        "--sql",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
    ]);
    assert!(
        said.contains("lock") || said.contains("another process"),
        "{said}"
    );
    site.json(&["keys", "status"]);
}

#[test]
fn a_port_in_use_stops_the_start_and_names_the_option() {
    let site = Site::init();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for door in ["--mqtt", "--websocket", "--sql", "--http"] {
        let mut args = vec!["serve"];
        for option in ["--mqtt", "--websocket", "--sql", "--http"] {
            args.extend([
                option,
                if option == door {
                    &taken
                } else {
                    "127.0.0.1:0"
                },
            ]);
        }
        let said = site.refused(&args);
        assert!(
            said.contains(&taken) && said.contains(door),
            "{door}: {said}"
        );
    }
}

#[test]
fn commands_without_a_server_say_so() {
    let site = Site::init();
    let said = site.refused(&["patient", "list"]);
    assert!(said.contains("vitalseal serve"), "{said}");
}

#[test]
fn sigterm_stops_in_order_and_the_store_opens_again() {
    let mut site = Site::serving();
    let patient = site.patient();
    assert_eq!(site.terminate(), 0);
    assert!(!site.data.join("admin.sock").exists());
    site.serve();
    let patients = site.json(&["patient", "list"]);
    assert_eq!(patients[0]["patient"], patient.as_str());
    let verified = site.json(&["audit", "verify"]);
    assert_eq!(verified["ok"], true, "{verified}");
    let tail = site.json(&["audit", "tail", "-n", "50"]).to_string();
    for event in [
        "store_initialized",
        "patient_added",
        "server_stopped",
        "server_started",
    ] {
        assert!(tail.contains(event), "{event} is not in {tail}");
    }
}

#[test]
fn an_identity_is_shown_to_the_administrator_only_and_the_look_up_is_audited() {
    let site = Site::serving();
    let added = site.json(&[
        "patient",
        "add",
        "--name",
        "Grace Hopper",
        "--mrn",
        "H-1906",
    ]);
    let patient = added["patient"].as_str().unwrap();
    let listed = site.json(&["patient", "list"]).to_string();
    assert!(!listed.contains("Hopper"), "{listed}");
    let shown = site.json(&["patient", "show", patient]);
    assert_eq!(
        (&shown["name"], &shown["mrn"]),
        (&"Grace Hopper".into(), &"H-1906".into())
    );
    let tail = site.json(&["audit", "tail", "-n", "5"]).to_string();
    assert!(
        tail.contains("identity_resolved") && !tail.contains("Hopper"),
        "{tail}"
    );
}

#[test]
fn a_wrong_password_and_a_wrong_code_get_the_same_answer() {
    let site = Site::serving();
    let made = site.json(&["user", "add", "nora", "--role", "clinician"]);
    let right = site.dir.path().join("right");
    std::fs::write(&right, made["password"].as_str().unwrap()).unwrap();
    let wrong = site.dir.path().join("wrong");
    std::fs::write(&wrong, "not the password").unwrap();
    let code = crate::common::totp_now(made["totp_secret"].as_str().unwrap());
    let bad_code = if code == "000000" { "111111" } else { "000000" };
    let attempt = |user: &str, file: &std::path::Path, code: &str| {
        site.refused(&[
            "token",
            "issue",
            "--user",
            user,
            "--password-file",
            file.to_str().unwrap(),
            "--totp",
            code,
        ])
    };
    let first = attempt("nora", &wrong, &code);
    assert_eq!(attempt("nora", &right, bad_code), first);
    assert_eq!(attempt("nobody", &right, &code), first);
}

#[test]
fn a_failed_enrolment_does_not_burn_the_device_id() {
    let site = Site::serving();
    let taken = site.dir.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    let enroll = |directory: &std::path::Path| {
        site.run(&[
            "device",
            "enroll",
            "monitor-1",
            "--new-key",
            directory.to_str().unwrap(),
        ])
    };
    assert!(!enroll(&taken).status.success());
    let csr = site.dir.path().join("monitor-1.csr");
    let id = "monitor-1".parse().unwrap();
    std::fs::write(
        &csr,
        vitalseal_crypto::new_device_key_and_csr(&id).unwrap().1,
    )
    .unwrap();
    let csr = csr.to_str().unwrap();
    let said = site.refused(&[
        "device",
        "enroll",
        "monitor-1",
        "--csr",
        csr,
        "--out",
        taken.to_str().unwrap(),
    ]);
    assert!(said.contains(taken.to_str().unwrap()), "{said}");
    assert_eq!(site.json(&["device", "list"]), serde_json::json!([]));

    let good = site.dir.path().join("good");
    assert!(enroll(&good).status.success());
    // Refused by the server, since the id is taken now: nothing is left lying about.
    let (again, cert) = (site.dir.path().join("again"), site.dir.path().join("cert"));
    assert!(!enroll(&again).status.success());
    let args = ["device", "enroll", "monitor-1", "--csr", csr, "--out"];
    site.refused(&[&args[..], &[cert.to_str().unwrap()]].concat());
    assert!(!again.exists() && !cert.exists());
}

#[test]
fn enrolment_without_options_names_every_way() {
    let site = Site::init();
    let keys = ["--csr FILE --out CERT", "--new-key DIR"];
    let wards = ["--ward WARD", "--all-wards"];
    for (args, ways) in [
        (&["device", "enroll", "monitor-1"][..], &keys[..]),
        (&["display", "enroll", "ward-1"], &[keys, wards].concat()),
        (&["display", "enroll", "ward-1", "--new-key", "k"], &wards),
        (&["display", "enroll", "ward-1", "--ward", "icu"], &keys),
    ] {
        let said = site.refused(args);
        for option in ways {
            assert!(said.contains(option), "{args:?}: {said}");
        }
    }
}

#[test]
fn a_filter_that_is_misspelt_is_answered_with_all_that_there_are() {
    let site = Site::init();
    let said = site.refused(&["quarantine", "list", "--reason", "stail"]);
    for reason in QuarantineReason::ALL.map(QuarantineReason::as_str) {
        assert!(said.contains(reason), "{reason}: {said}");
    }
    let said = site.refused(&["quarantine", "list", "--state", "kept"]);
    assert!(said.contains("held, released, dropped"), "{said}");
}

#[test]
fn verifying_an_erasure_without_a_key_names_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("erasure.json");
    std::fs::write(&file, "{}").unwrap();
    let output = Command::new(VITALSEAL)
        .args(["erase", "verify"])
        .arg(&file)
        .env_remove("VITALSEAL_DATA")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        said.contains("--key FILE") && said.contains("--data DIR"),
        "{said}"
    );
}

#[test]
fn the_checkpoint_that_is_printed_verifies_the_log_later() {
    let site = Site::serving();
    let output = site.run(&["audit", "verify"]);
    let said = String::from_utf8(output.stdout).unwrap();
    let (table, note) = said
        .split_once("Keep this checkpoint somewhere else:\n")
        .unwrap_or_else(|| panic!("no checkpoint in:\n{said}"));
    assert!(table.contains("ok"), "{table}");
    assert_eq!(site.json(&["audit", "verify"])["checkpoint"], note);
    let kept = site.dir.path().join("checkpoint");
    std::fs::write(&kept, format!("{note}\n\n")).unwrap();
    site.patient();
    let verified = site.json(&["audit", "verify", "--checkpoint", kept.to_str().unwrap()]);
    assert_eq!(verified["ok"], true, "{verified}");
    assert_eq!(verified["outside_ok"], true, "{verified}");
}

#[test]
fn a_log_that_is_no_terminal_holds_no_colours() {
    let site = Site::serving();
    site.patient();
    let log = site.log_text();
    assert!(log.contains("INFO") || log.contains("DEBUG"), "{log}");
    assert!(!log.contains('\u{1b}'), "{log}");
    // Every door is named as it is reached.
    for door in ["mqtt", "websocket", "sql", "http"] {
        let address = format!("{door}={}", site.address(door));
        assert!(log.contains(&address), "{address} is not in {log}");
    }
}

#[test]
fn a_malformed_log_level_is_reported_and_not_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(VITALSEAL)
        .args(["serve", "--data"])
        .arg(dir.path())
        .env("VITALSEAL_LOG", "vitalseal=loud")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let first = said.lines().next().unwrap();
    for part in ["VITALSEAL_LOG", "vitalseal=loud", "`info`"] {
        assert!(first.contains(part), "{said}");
    }
}

#[test]
fn simulating_twice_at_once_enrols_different_devices() {
    let site = Site::serving();
    for run in ["one", "two"] {
        let state = site.dir.path().join(run);
        let state = state.to_str().unwrap();
        site.json(&["simulate", "--devices", "1", "--state", state]);
    }
    assert_eq!(site.json(&["device", "list"]).as_array().unwrap().len(), 2);
}

#[test]
fn help_reads_well() {
    for (name, args) in [
        ("help", &["--help"][..]),
        ("help_init", &["init", "--help"]),
        ("help_serve", &["serve", "--help"]),
        ("help_restore", &["restore", "--help"]),
        ("help_device_enroll", &["device", "enroll", "--help"]),
        ("help_erase", &["erase", "--help"]),
        ("help_user_add", &["user", "add", "--help"]),
        ("help_incident_open", &["incident", "open", "--help"]),
        ("help_server", &["server", "--help"]),
        ("help_server_status", &["server", "status", "--help"]),
        ("help_server_reload", &["server", "reload", "--help"]),
        ("help_ca_crl", &["ca", "crl", "--help"]),
        ("help_device", &["device", "--help"]),
        (
            "help_device_assignments",
            &["device", "assignments", "--help"],
        ),
        ("help_device_suspend", &["device", "suspend", "--help"]),
        ("help_device_reinstate", &["device", "reinstate", "--help"]),
        ("help_device_send", &["device", "send", "--help"]),
        ("help_device_downlink", &["device", "downlink", "--help"]),
        ("help_simulate", &["simulate", "--help"]),
        ("help_envelope_verify", &["envelope", "verify", "--help"]),
        (
            "help_provenance_verify",
            &["provenance", "verify", "--help"],
        ),
        ("help_store", &["store", "--help"]),
        ("help_store_check", &["store", "check", "--help"]),
        ("help_display", &["display", "--help"]),
        ("help_display_enroll", &["display", "enroll", "--help"]),
        ("help_display_revoke", &["display", "revoke", "--help"]),
        ("help_notice_send", &["notice", "send", "--help"]),
        ("help_alert_test", &["alert", "test", "--help"]),
        ("help_quarantine", &["quarantine", "--help"]),
        ("help_quarantine_list", &["quarantine", "list", "--help"]),
        ("help_quarantine_show", &["quarantine", "show", "--help"]),
        (
            "help_quarantine_release",
            &["quarantine", "release", "--help"],
        ),
        ("help_quarantine_drop", &["quarantine", "drop", "--help"]),
    ] {
        let output = Command::new(VITALSEAL)
            .args(args)
            .env_remove("VITALSEAL_DATA")
            .env("COLUMNS", "100")
            .output()
            .unwrap();
        insta::assert_snapshot!(name, String::from_utf8(output.stdout).unwrap());
    }
}
