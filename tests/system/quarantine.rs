//! The review of refused messages, as an operator does it: listed, shown, released, dropped, and on record.

use jiff::Timestamp;
use serde_json::{Value, json};
use vitalseal_vitals::{Reading, signal};

use crate::common::Site;
use crate::common::device::{Device, tamper};

/// One heart rate, measured at that instant.
fn measured(at: &str) -> Vec<Reading> {
    let signal = signal("8867-4").unwrap();
    let at: Timestamp = at.parse().unwrap();
    vec![Reading {
        signal,
        value: 61.0,
        at,
    }]
}

fn list(site: &Site, filter: &[&str]) -> Vec<Value> {
    let args = [&["quarantine", "list"], filter].concat();
    site.json(&args).as_array().unwrap().clone()
}

fn show(site: &Site, id: &str) -> Value {
    site.json(&["quarantine", "show", id])
}

fn refused_by_reason(site: &Site, reason: &str) -> u64 {
    site.metric(&format!("quarantined_total{{reason=\"{reason}\"}}"))
}

fn settling<'a>(verb: &'a str, id: &'a str) -> [&'a str; 5] {
    [
        "quarantine",
        verb,
        id,
        "--reason",
        "the ward forgot to enter it",
    ]
}

/// Events of the audit log that begin so, oldest first.
fn audited(site: &Site, prefix: &str) -> Vec<Value> {
    let tail = site.json(&["audit", "tail", "--limit", "200"]);
    let events = tail.as_array().unwrap().iter();
    let named = |event: &&Value| event["event"].as_str().unwrap().starts_with(prefix);
    events.filter(named).cloned().collect()
}

#[test]
fn a_message_from_before_its_assignment_is_released_once_and_a_forged_one_never() {
    let mut site = Site::serving();
    let patient = site.patient();
    // Tests assign since the beginning of 2026; this was measured before.
    let directory = site.device("monitor-7", &patient);
    let mut device = Device::load(&directory, &patient, &site);
    device.push(&measured("2025-12-24T08:00:00Z"));
    device.push(&measured("2026-02-01T08:00:00Z"));
    device.drain();
    for _ in 0..2 {
        let forged = tamper(&device.seal(&measured("2026-02-01T08:00:01Z")));
        device.publish_raw(forged);
    }
    drop(device);

    let rows = list(&site, &[]);
    let reasons: Vec<_> = rows
        .iter()
        .map(|row| row["reason"].as_str().unwrap())
        .collect();
    assert_eq!(reasons, ["signature", "signature", "not_assigned"]);
    assert_eq!(list(&site, &["--device", "monitor-8"]), Vec::<Value>::new());
    let held = list(&site, &["--reason", "not_assigned", "--state", "held"]);
    let id = held[0]["id"].to_string();
    let [forged, another] = [0, 1].map(|row: usize| rows[row]["id"].to_string());
    assert_eq!(held.len(), 1);
    assert_eq!(refused_by_reason(&site, "not_assigned"), 1);
    assert_eq!(refused_by_reason(&site, "stale"), 0);
    assert_eq!(site.metric("quarantine_held"), 3);

    let shown = show(&site, &id);
    assert_eq!(
        [
            &shown["can_be_released"],
            &shown["boot"],
            &shown["sequence"],
            &shown["times"]
        ],
        [&json!(true), &json!(0), &json!(0), &json!(1)]
    );
    assert_eq!(shown["patient"], patient.as_str());
    assert!(
        shown["detail"].as_str().unwrap().contains("before"),
        "{shown}"
    );
    let shown = show(&site, &forged);
    assert_eq!(shown["can_be_released"], false);
    assert!(
        shown["obstacle"].as_str().unwrap().contains("overruled"),
        "{shown}"
    );

    let refused = site.refused(&settling("release", &forged));
    assert!(refused.contains("cannot be released"), "{refused}");
    let released = site.json(&settling("release", &id));
    assert_eq!(
        [&released["state"], &released["readings"]],
        [&json!("released"), &json!(1)]
    );
    // Twice is once, and a stored message is not given up.
    assert_eq!(site.json(&settling("release", &id))["state"], "released");

    let refused = site.refused(&settling("drop", &id));
    assert!(refused.contains("was released"), "{refused}");
    assert_eq!(
        site.json(&["device", "chain", "monitor-7"])[0]["messages"],
        2
    );

    let both = [
        "quarantine",
        "drop",
        &forged,
        &another,
        "--reason",
        "forged",
    ];
    assert!(site.run(&both).status.success());
    // Dropped is dropped, for the first reason.
    assert_eq!(site.json(&settling("drop", &forged))["state"], "dropped");
    assert_eq!(site.metric("quarantine_held"), 0);
    assert_eq!(site.metric("quarantine_bytes"), 0);
    let unknown = site.refused(&["quarantine", "show", "99"]);
    assert!(unknown.contains("quarantine list"), "{unknown}");

    // What was decided outlives the server.
    site.terminate();
    site.serve();
    let shown = show(&site, &forged);
    assert_eq!(
        [
            &shown["state"],
            &shown["body_kept"],
            &shown["settled_reason"]
        ],
        [&json!("dropped"), &json!(false), &json!("forged")]
    );
    assert!(shown["settled_by"].as_str().unwrap().starts_with("uid "));
    let events = audited(&site, "quarantine_");
    let names: Vec<_> = events
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "quarantine_release_ordered",
            "quarantine_released",
            "quarantine_dropped",
            "quarantine_dropped"
        ]
    );
    assert_eq!(events[0]["overruled"], "not_assigned");
    assert_eq!(events[0]["reason"], "the ward forgot to enter it");
}

#[test]
fn an_assignment_is_entered_late_but_never_ahead_of_time_or_into_another() {
    let site = Site::serving();
    let (first, second) = (site.patient(), site.patient());
    let directory = site.device("monitor-7", &first);
    let assign = |since| {
        let device = ["device", "assign", "monitor-7"];
        [&device[..], &["--patient", &second, "--since", since]].concat()
    };
    let refused = site.refused(&assign("2999-01-01T00:00:00Z"));
    assert!(refused.contains("future"), "{refused}");
    let refused = site.refused(&assign("2025-12-31T00:00:00Z"));
    assert!(refused.contains("2026-01-01T00:00:00.000001Z"), "{refused}");
    let mut device = Device::load(&directory, &second, &site);
    device.push(&measured("2026-02-01T08:00:00Z"));
    device.drain();
    assert_eq!(list(&site, &["--reason", "not_assigned"]).len(), 1);
    let id = list(&site, &[])[0]["id"].to_string();
    // Never assigned is nothing to overrule, but something to enter.
    let shown = show(&site, &id);
    assert!(
        shown["obstacle"].as_str().unwrap().contains("--since"),
        "{shown}"
    );
    site.json(&assign("2026-01-31T00:00:00Z"));
    assert_eq!(
        site.json(&["device", "assignments", "monitor-7"]),
        json!([
            {"patient": first, "since": "2026-01-01T00:00:00Z", "until": "2026-01-31T00:00:00Z"},
            {"patient": second, "since": "2026-01-31T00:00:00Z", "until": null},
        ])
    );
    assert_eq!(show(&site, &id)["can_be_released"], true);
    let released = site.json(&["quarantine", "release", &id, "--reason", "entered late"]);
    assert_eq!(released["readings"], 1);
    let since = &audited(&site, "device_assigned").pop().unwrap()["since"];
    assert_eq!(since, "2026-01-31T00:00:00Z");
}

#[test]
fn a_message_that_is_dropped_while_it_is_released_is_one_or_the_other() {
    const MESSAGES: usize = 8;
    let site = Site::serving();
    let patient = site.patient();
    let directory = site.device("monitor-7", &patient);
    let mut device = Device::load(&directory, &patient, &site);
    for _ in 0..MESSAGES {
        device.push(&measured("2025-12-24T08:00:00Z"));
    }
    device.drain();
    let rows = list(&site, &["--state", "held"]);
    assert_eq!(rows.len(), MESSAGES);
    let (mut released, mut dropped) = (0, 0);
    for row in rows {
        let id = row["id"].to_string();
        let [one, other] = std::thread::scope(|scope| {
            let both = ["release", "drop"].map(|verb| {
                let (site, id) = (&site, &id);
                scope.spawn(move || site.run(&settling(verb, id)).status.success())
            });
            both.map(|decision| decision.join().unwrap())
        });
        let state = show(&site, &id)["state"].clone();
        assert!(one != other, "{state}");
        assert_eq!(state, if one { "released" } else { "dropped" });
        released += u64::from(one);
        dropped += usize::from(other);
    }
    // What is on record is what is stored, and nothing else was decided.
    let chain = site.json(&["device", "chain", "monitor-7"]);
    let stored = chain[0]["messages"].as_u64().unwrap_or(0);
    assert_eq!(stored, released);
    assert_eq!(audited(&site, "quarantine_dropped").len(), dropped);
}
