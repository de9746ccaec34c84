//! Settings that change while the server runs, and those that are wrong.

use std::fs;
use std::io::Read as _;
use std::net::TcpStream;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::common::{Site, wait_until};

fn edit(site: &Site, change: impl FnOnce(String) -> String) {
    let file = site.data.join("vitalseal.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(file, change(text)).unwrap();
}

/// The names in the certificate that a door shows.
fn names(site: &Site, door: &str) -> String {
    let address = site.address(door).to_string();
    let start: &[&str] = if door == "sql" {
        &["-starttls", "postgres"]
    } else {
        &[]
    };
    let shown = Command::new("openssl")
        .args(["s_client", "-connect", &address])
        .args(start)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let pem = String::from_utf8_lossy(&shown.stdout).into_owned();
    let begin = pem.find("-----BEGIN CERTIFICATE-----").expect(&pem);
    let file = site.dir.path().join("shown.pem");
    fs::write(&file, &pem[begin..]).unwrap();
    let read = Command::new("openssl")
        .args(["x509", "-noout", "-ext", "subjectAltName", "-in"])
        .arg(file)
        .output()
        .unwrap();
    String::from_utf8(read.stdout).unwrap()
}

#[test]
fn a_reload_applies_what_it_can_and_names_the_rest() {
    let site = Site::serving();
    assert!(!names(&site, "mqtt").contains("vitals.example.org"));
    edit(&site, |text| {
        text.replace("names = [", "names = [\"vitals.example.org\", ")
            .replace(
                "connections_per_address = 2000",
                "connections_per_address = 1",
            )
            .replace("on_clone = \"suspend\"", "on_clone = \"alert\"")
            .replace("deadline_s = 60", "deadline_s = 61")
    });
    let reloaded = site.json(&["server", "reload"]);
    let expected = json!({
        "applied": ["mqtt.limits.connections_per_address", "mqtt.on_clone", "names"],
        "needs_restart": ["sql.deadline_s"],
    });
    let sorted = |list: &serde_json::Value| {
        let mut names: Vec<String> = serde_json::from_value(list.clone()).unwrap();
        names.sort();
        names
    };
    for list in ["applied", "needs_restart"] {
        assert_eq!(sorted(&reloaded[list]), sorted(&expected[list]));
    }
    for door in ["mqtt", "sql"] {
        assert!(names(&site, door).contains("vitals.example.org"), "{door}");
    }
    // One connection from here, and no second.
    let _first = TcpStream::connect(site.address("mqtt")).unwrap();
    let mut second = TcpStream::connect(site.address("mqtt")).unwrap();
    assert!(matches!(second.read(&mut [0]), Ok(0) | Err(_)));
    let tail = site.json(&["audit", "tail", "-n", "1"]);
    assert_eq!(tail[0]["event"], "configuration_reloaded");
    assert_eq!(tail[0]["actor"]["kind"], "local");

    let again = site.json(&["server", "reload"]);
    assert_eq!(again["applied"], json!([]));
    assert_eq!(again["needs_restart"], json!(["sql.deadline_s"]));
}

#[test]
fn a_reload_of_what_is_wrong_changes_nothing_and_says_so() {
    let site = Site::serving();
    let right = fs::read_to_string(site.data.join("vitalseal.toml")).unwrap();
    let before = names(&site, "mqtt");
    let limited = right.replace("packets_per_s = 200", "packets_per_s = 9");
    let renamed = |name: &str| limited.replace("names = [", &format!("names = [\"{name}\", "));
    let cases = [
        (limited.replace("bytes_per_s", "bites_per_s"), "bites_per_s"),
        (
            limited.replace("packets_per_s = 9", "packets_per_s = 0"),
            "packets_per_s",
        ),
        (
            limited[..limited.find("[sql]").unwrap()].to_owned(),
            "is the file whole?",
        ),
        (renamed("n\u{f6}t a name"), "certificate"),
    ];
    for (text, word) in &cases {
        edit(&site, |_| text.clone());
        let said = site.refused(&["server", "reload"]);
        assert!(
            said.contains("nothing was changed") && said.contains(word),
            "{said}"
        );
        let tail = site.json(&["audit", "tail", "-n", "1"]);
        assert_eq!(tail[0]["event"], "configuration_refused");
    }
    assert_eq!(names(&site, "mqtt"), before);

    // The same by signal, where there is nobody to tell but the log.
    let refused = |site: &Site| site.log_text().matches("was not reloaded").count();
    assert_eq!(refused(&site), cases.len());
    hang_up(&site);
    wait_until(
        || refused(&site) == cases.len() + 1,
        "the file was not refused",
    );
    edit(&site, |_| limited);
    hang_up(&site);
    let applied = || {
        let tail = site.json(&["audit", "tail", "-n", "1"]);
        tail[0]["event"] == "configuration_reloaded"
            && tail[0]["applied"] == json!(["mqtt.limits.packets_per_s"])
            && tail[0]["actor"]["kind"] == "system"
    };
    wait_until(applied, "the settings were not applied");
    fs::remove_file(site.data.join("vitalseal.toml")).unwrap();
    let said = site.refused(&["server", "reload"]);
    assert!(said.contains("vitalseal.toml"), "{said}");
    site.json(&["keys", "status"]);
}

fn hang_up(site: &Site) {
    let pid = site.pid().to_string();
    let sent = Command::new("kill").args(["-HUP", &pid]).status();
    assert!(sent.unwrap().success());
}
