//! A full disk under the real server. Failure: a reading that was acknowledged and is lost, a reason that nobody is told,
//! a restart needed for anything.

use std::fs::{self, File};
use std::time::Duration;

use crate::common::{Site, wait_until};
use crate::faults;
use crate::load::Load;

#[test]
fn a_full_disk_is_told_refuses_and_recovers_without_a_restart() {
    let mut site = Site::init();
    faults::strike(&mut site, "switches", 0);
    site.serve();
    let load = Load::begin(&site, "disk");
    let switch = site.dir.path().join("hit.full");
    let full = || metric(&site, "vitalseal_disk_full") == 1;
    for time in 1..=2 {
        let before = load.acked();
        wait_until(|| load.acked() > before + 20, "no load");
        assert_eq!(health(&site), (200, "ok\n".to_owned()));

        File::create(&switch).unwrap();
        wait_until(full, "nobody noticed that the disk is full");
        let (status, said) = health(&site);
        assert!(status == 503 && said.contains("disk is full"), "{said}");
        // Registry and audit log fail as well, again and again, and say so.
        for _ in 0..3 {
            site.refused(&["patient", "add"]);
        }
        // What was on its way still arrives, and nothing else.
        let mut acked = load.acked();
        let is_still = || {
            std::thread::sleep(Duration::from_millis(300));
            let before = std::mem::replace(&mut acked, load.acked());
            before == acked
        };
        wait_until(is_still, "acknowledged on a full disk");

        fs::remove_file(&switch).unwrap();
        wait_until(|| !full(), "room did not come back");
        site.patient();
        site.json(&["flush"]);
        let log = site.log_text();
        for alert in ["disk_full", "disk_free"] {
            let raised = log
                .lines()
                .filter(|line| line.contains("ALERT") && line.contains(alert));
            assert_eq!(raised.count(), time, "{alert}");
        }
    }
    let total = load.end(&site);
    println!("{total} readings");
}

fn health(site: &Site) -> (u16, String) {
    let (head, body) = site.get("/healthz");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, String::from_utf8(body).unwrap())
}

fn metric(site: &Site, name: &str) -> u64 {
    let (_, body) = site.get("/metrics");
    let text = String::from_utf8(body).unwrap();
    let prefix = format!("{name} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&prefix));
    value.unwrap().parse().unwrap()
}
