//! Where the keys of a backup come from: from places that whoever restores names, and from nowhere else.

use std::ffi::OsString;
use std::process::Command;

use serde_json::Value;
use vitalseal_crypto::default_backend;

use super::{Ward, copy_as_is, refusal, refused, refused_to_serve, restore_with};
use crate::common::{Site, VITALSEAL};

#[test]
fn without_a_key_snapshot_nothing_is_restored_and_nothing_served() {
    let mut ward = Ward::new();
    let (backup, copy) = (ward.backup("backup"), ward.copy("copy"));
    ward.erase_ada();
    assert_eq!(ward.site.terminate(), 0);
    std::fs::rename(ward.path("data.keys"), ward.path("lost")).unwrap();
    let said = refused(&backup, &ward.path("new"));
    assert!(said.contains("is its disk mounted?"), "{said}");
    std::fs::create_dir(ward.path("data.keys")).unwrap();
    let id = ward.path("lost").read_dir().unwrap().next().unwrap();
    let id = id.unwrap().file_name().into_string().unwrap();
    let place = ward.site.dir.path().to_str().unwrap().to_owned();
    let said = |said: String| said.replace(&place, "DIR").replace(&id, "STORE");
    insta::assert_snapshot!(
        "restore_without_snapshot",
        said(refused(&backup, &ward.path("new")))
    );
    insta::assert_snapshot!("serve_without_snapshot", said(refused_to_serve(&copy)));
}

#[test]
fn root_keys_and_snapshots_may_be_elsewhere_and_the_restored_store_knows_where() {
    let mut ward = Ward::new();
    let backup = ward.backup("backup");
    assert_eq!(ward.site.terminate(), 0);
    for (from, to) in [("data.root", "moved.root"), ("data.keys", "moved.keys")] {
        std::fs::rename(ward.path(from), ward.path(to)).unwrap();
    }
    let new = ward.path("new");
    refused(&backup, &new);
    let output = Command::new(VITALSEAL)
        .current_dir(ward.site.dir.path())
        .args(["restore", "--from", "backup", "--data", "new"])
        .args(["--root-keys", "moved.root", "--snapshots", "moved.keys"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("tokens: users log in again"), "{shown}");
    let mut site = Site::on(new);
    site.serve();
    let places = &site.json(&["keys", "status"])["snapshots"];
    let expected = ward.path("moved.keys");
    assert!(
        places.to_string().contains(expected.to_str().unwrap()),
        "{places}"
    );
    assert_eq!(
        site.json(&["patient", "show", &ward.ada])["name"],
        "Ada Lovelace"
    );
}

/// Whoever names the keys decides what passes as genuine, and a token's module is code.
#[test]
fn where_the_keys_are_is_never_taken_from_the_backup() {
    let mut ward = Ward::new();
    let backup = ward.backup("backup");
    assert_eq!(ward.site.terminate(), 0);
    let (new, inside) = (ward.path("new"), backup.join("vitalseal.toml"));
    let own = std::fs::read_to_string(&inside).unwrap();
    let place = ward.site.dir.path().to_str().unwrap().to_owned();
    let with = |keys: &[OsString]| restore_with(&backup, &new, keys);

    insta::assert_snapshot!(
        "restore_not_told_where_keys_are",
        refusal(with(&[]), &new).replace(&place, "DIR")
    );
    // One of the two is not enough, and the backup's own file is no answer.
    for (option, path) in [
        ("--root-keys", ward.path("data.root")),
        ("--snapshots", ward.path("data.keys")),
        ("--config", inside.clone()),
    ] {
        let said = refusal(with(&[option.into(), path.into()]), &new);
        assert!(
            said.contains("anybody may have written"),
            "{option}: {said}"
        );
    }

    // With a configuration of one's own, it goes where that says; everything else is as the store had it.
    let copied_out = ward.path("own.toml");
    std::fs::rename(ward.path("data.keys"), ward.path("moved.keys")).unwrap();
    let moved = own.replace("data.keys", "moved.keys");
    std::fs::write(
        &copied_out,
        moved.replace("memory_mib = 1024", "memory_mib = 1"),
    )
    .unwrap();
    let output = with(&["--config".into(), copied_out.into()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let restored = std::fs::read_to_string(new.join("vitalseal.toml")).unwrap();
    assert!(restored.contains("moved.keys"), "{restored}");
    assert!(restored.contains("memory_mib = 1024"), "{restored}");
    std::fs::remove_dir_all(&new).unwrap();
    std::fs::rename(ward.path("moved.keys"), ward.path("data.keys")).unwrap();

    // A file that would have a module loaded, with its digest put right: nobody looks into it.
    let hostile = format!(
        "{own}\n[keys.pkcs11]\nmodule = \"{place}/evil.so\"\ntoken = \"t\"\npin_file = \"{place}/pin\"\nlabel = \"l\"\n"
    );
    std::fs::write(&inside, &hostile).unwrap();
    let described = backup.join("backup.json");
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&described).unwrap()).unwrap();
    let files = manifest["files"].as_array_mut().unwrap();
    let file = files
        .iter_mut()
        .find(|file| file["path"] == "vitalseal.toml");
    let file = file.unwrap();
    file["size"] = hostile.len().into();
    file["sha256"] = hex::encode(default_backend().sha256(&[hostile.as_bytes()])).into();
    std::fs::write(&described, manifest.to_string()).unwrap();
    let said = refused(&backup, &new);
    assert!(said.contains("somebody changed it"), "{said}");
}

#[test]
fn a_patient_whom_the_snapshot_does_not_know_is_named_and_nothing_is_restored() {
    let mut ward = Ward::new();
    ward.backup("first");
    copy_as_is(&ward.path("data.keys"), &ward.path("old.keys"));
    let late = ward.site.patient();
    let backup = ward.backup("second");
    assert_eq!(ward.site.terminate(), 0);
    // The disk with the snapshots was itself restored from an older day.
    std::fs::remove_dir_all(ward.path("data.keys")).unwrap();
    copy_as_is(&ward.path("old.keys"), &ward.path("data.keys"));
    let said = refused(&backup, &ward.path("new"));
    // A pseudonym is shortened wherever it may be copied to a log or a ticket.
    assert!(said.contains(&late[..8]), "{said}");
    assert!(said.contains("newer than the backup"), "{said}");
}
