//! `mosquitto_pub` and `mosquitto_sub`: what a hospital's technician has at hand.

use std::path::Path;
use std::process::{Command, Output};

use super::{Ward, text};
use crate::common::wait_until;

/// Either program, with TLS and its identity set up.
fn mosquitto(program: &str, ward: &Ward, directory: &Path, id: &str, version: &str) -> Command {
    let mut command = Command::new(program);
    let [ca, cert, key] = ward.files(directory);
    command
        .args(["-h", "localhost", "-p", &ward.port("mqtt"), "-i", id])
        .args([
            "-V", version, "--cafile", &ca, "--cert", &cert, "--key", &key,
        ]);
    command
}

fn run(command: &mut Command) -> Output {
    command
        .output()
        .expect("test.sh installs mosquitto-clients")
}

#[test]
fn mosquitto_clients_publish_read_what_is_retained_and_are_refused_what_is_not_theirs() {
    let ward = Ward::new();
    for version in ["mqttv311", "mqttv5"] {
        let id = &format!("mosquitto-{version}");
        let directory = ward.device(id);
        let client = |program| mosquitto(program, &ward, &directory, id, version);
        let own = format!("v1/d/{id}/vitals");
        for qos in ["0", "1", "2"] {
            let sent = run(client("mosquitto_pub")
                .args(["-q", qos, "-t", &own, "-f"])
                .arg(directory.join(qos)));
            assert!(sent.status.success(), "{sent:?}");
        }
        ward.check_rows(id);

        let read = run(client("mosquitto_sub").args(["-t", "v1/recipient", "-C", "1", "-W", "20"]));
        let recipient = ward.site.run(&["recipient", "show"]);
        assert_eq!(read.stdout.trim_ascii(), recipient.stdout.trim_ascii());

        let foreign =
            run(client("mosquitto_sub").args(["-t", "v1/d/other/down", "-E", "-W", "20"]));
        let said = String::from_utf8_lossy(&foreign.stderr);
        assert!(
            said.contains("All subscription requests were denied"),
            "{said}"
        );

        let publish = ["-q", "1", "-t", "v1/d/other/vitals", "-m", "x"];
        let refused = run(client("mosquitto_pub").args(publish));
        let said = String::from_utf8_lossy(&refused.stderr);
        match version {
            "mqttv5" => assert!(said.contains("Not authorized"), "{refused:?}"),
            // v3.1.1 has no word for it: it is closed, and comes back to try again.
            _ => assert!(!refused.status.success(), "{refused:?}"),
        }
    }
}

/// A wall display that was switched off hears what it missed, because its session waited for it.
#[test]
fn a_display_that_comes_back_hears_the_alert_that_it_missed() {
    let ward = Ward::new();
    for version in ["mqttv311", "mqttv5"] {
        let name = &format!("wall-{version}");
        let directory = ward.subscriber(name, &["--ward", "icu"]);
        let client = || {
            let id = format!("display:{name}");
            let mut command = mosquitto("mosquitto_sub", &ward, &directory, &id, version);
            command.args(["-c", "-q", "1", "-t", "v1/alerts/icu"]);
            command
        };
        let subscribed = run(client().arg("-E"));
        assert!(subscribed.status.success(), "{subscribed:?}");
        ward.site.json(&["alert", "test", "--ward", "icu"]);
        let heard = run(client().args(["-C", "1", "-W", "20"]));
        let said = String::from_utf8_lossy(&heard.stdout);
        assert!(said.contains(r#""alert":"test""#), "{heard:?}");
    }
}

#[test]
fn a_revoked_display_is_shut_out_while_it_listens() {
    let ward = Ward::new();
    let directory = ward.subscriber("lost", &["--ward", "icu", "--role", "service"]);
    let id = "service:lost";
    let mut listening = mosquitto("mosquitto_sub", &ward, &directory, id, "mqttv5")
        .args(["-t", "v1/alerts/icu"])
        .spawn()
        .unwrap();
    wait_until(|| ward.site.metric("sessions") == 1, "it never listened");
    let list = || ward.site.json(&["display", "list"]).to_string();
    assert!(list().contains("active"));
    let revoke = [
        "display", "revoke", "lost", "--role", "service", "--reason", "stolen",
    ];
    ward.site.json(&revoke);
    assert!(list().contains("revoked"));
    assert_eq!(
        ward.site.json(&["ca", "crl"])["certificates"],
        1,
        "and the list says so"
    );
    // It is told, and refused when it tries again: the program gives up.
    wait_until(
        || listening.try_wait().unwrap().is_some(),
        "it goes on trying",
    );
    let again = run(
        mosquitto("mosquitto_sub", &ward, &directory, id, "mqttv5").args([
            "-E",
            "-t",
            "v1/alerts/icu",
        ]),
    );
    assert!(!again.status.success(), "{again:?}");
    let enrolled = ward.site.refused(&[
        "display",
        "enroll",
        "lost",
        "--role",
        "service",
        "--ward",
        "icu",
        "--new-key",
        text(&ward.site.dir.path().join("again")),
    ]);
    assert!(enrolled.contains("enrolled already"), "{enrolled}");
}

/// A technician's words: a notice to every device, and an alert of the installation to who carries those on.
#[test]
fn what_an_operator_says_reaches_devices_and_services_and_is_recorded() {
    let ward = Ward::new();
    let monitor = ward.device("mon-1");
    let pager = ward.subscriber("pager", &["--role", "service", "--all-wards"]);
    // Each comes to subscribe, goes, and comes back for what was said meanwhile.
    let device = || {
        let mut client = mosquitto("mosquitto_sub", &ward, &monitor, "mon-1", "mqttv5");
        client.args(["-c", "-q", "1", "-t", "v1/notices"]);
        client
    };
    let service = || {
        let mut client = mosquitto("mosquitto_sub", &ward, &pager, "service:pager", "mqttv5");
        client.args(["-c", "-q", "1", "-t", "v1/alerts/+"]);
        client
    };
    for mut subscribing in [device(), service()] {
        let subscribed = run(subscribing.arg("-E"));
        assert!(subscribed.status.success(), "{subscribed:?}");
    }
    let notice = ward.site.dir.path().join("notice");
    std::fs::write(&notice, "firmware 7 is out").unwrap();
    let sent = ward.site.json(&["notice", "send", "--file", text(&notice)]);
    assert_eq!(sent["bytes"], 17);
    ward.site.json(&["alert", "test"]);
    let heard = |mut client: Command| {
        let heard = run(client.args(["-C", "1", "-W", "20"]));
        String::from_utf8(heard.stdout).unwrap()
    };
    assert_eq!(heard(device()), "firmware 7 is out\n");
    let alert = heard(service());
    assert!(alert.contains(r#""alert":"test""#), "{alert}");
    let tail = ward.site.json(&["audit", "tail"]).to_string();
    assert!(
        tail.contains("notice_sent") && tail.contains("alert_tested"),
        "{tail}"
    );

    std::fs::write(&notice, vec![b'n'; 64 * 1024 + 1]).unwrap();
    let said = ward
        .site
        .refused(&["notice", "send", "--file", text(&notice)]);
    assert!(said.contains("1 to 65536 bytes"), "{said}");
    let key = text(&ward.site.dir.path().join("all")).to_owned();
    let enroll = ["display", "enroll", "all", "--all-wards", "--new-key", &key];
    let said = ward.site.refused(&enroll);
    assert!(said.contains("only a service"), "{said}");
}
