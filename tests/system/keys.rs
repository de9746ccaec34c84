//! The keys of a running server: new ones for old ones, and no copy of them in a core or in swap.

use std::fs;

use crate::common::{Site, files_below};

#[test]
fn keys_rotate_and_nobody_is_erased() {
    let mut site = Site::serving();
    let ada = site.patient();
    let turned = site.json(&["keys", "rotate"]);
    assert_eq!(turned["root_epoch_destroyed"], 0);
    assert_eq!(turned["root_epoch"], 1);
    let rotated = site.json(&["keys", "rotate", "--patient", &ada]);
    assert_ne!(rotated["retired"], rotated["current"]);
    let status = site.json(&["keys", "status"]);
    let figures = [
        "root_epoch",
        "roots_retiring",
        "keks",
        "keks_retired",
        "erasures",
    ];
    assert_eq!(
        figures.map(|figure| status[figure].as_u64().unwrap()),
        [1, 0, 2, 1, 0],
        "{status}"
    );
    assert_eq!(status["envelope_keys"].as_array().unwrap().len(), 1);
    let roots = files_below(&site.data.with_extension("root"));
    let roots: Vec<_> = roots
        .iter()
        .filter_map(|file| file.file_name()?.to_str())
        .filter(|name| name.starts_with("root-"))
        .collect();
    assert_eq!(roots, ["root-1.key"], "the old root is gone");

    assert_eq!(site.terminate(), 0);
    site.serve();
    let known = site.json(&["patient", "show", &ada]);
    assert_eq!(known["state"], "active");
    let events: Vec<_> = site
        .json(&["audit", "tail", "-n", "50"])
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["event"].as_str().unwrap().to_owned())
        .collect();
    for event in ["root_rotated", "kek_rotated"] {
        assert!(events.iter().any(|e| e == event), "{events:?}");
    }
    let stranger = "p00000000000000000000000000000000";
    let said = site.refused(&["keys", "rotate", "--patient", stranger]);
    assert!(said.contains("no patient"), "{said}");
}

#[test]
fn a_server_leaves_no_core_and_stays_out_of_swap_where_it_may() {
    let site = Site::serving();
    let of_server =
        |file: &str| fs::read_to_string(format!("/proc/{}/{file}", site.pid())).unwrap();
    let limits = of_server("limits");
    let core = limits.lines().find(|l| l.starts_with("Max core file size"));
    let core: Vec<_> = core.unwrap().split_whitespace().skip(4).take(2).collect();
    assert_eq!(core, ["0", "0"], "{limits}");

    let status = of_server("status");
    let line = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.unwrap().trim().to_owned()
    };
    let privileged = u64::from_str_radix(&line("CapEff:"), 16).unwrap() >> 14 & 1 == 1;
    let unlimited = limits
        .lines()
        .any(|l| l.starts_with("Max locked memory") && l.contains("unlimited"));
    let locked = line("VmLck:") != "0 kB";
    assert_eq!(locked, privileged || unlimited, "{status}");
    let warned = site.log_text().contains("memory is not locked");
    assert_eq!(warned, !locked, "{}", site.log_text());
    let told = site.json(&["keys", "status"]);
    assert_eq!(told["memory_locked"], locked);
    assert_eq!(told["memory_dumpable"], false, "nor does a debugger get in");
}
