//! Faults at the border between a server and its files, from its next start on.

use crate::common::{Site, files_below};
use crate::interposer;

/// At this call that changes something below the data directory, `mode` comes over the server; `interpose.c` says what.
pub fn strike(site: &mut Site, mode: &str, call: u64) {
    let ground = site.dir.path();
    site.environment = vec![
        ("LD_PRELOAD", interposer::compile(ground).into()),
        ("VS_FAULT_DIR", site.data.clone().into()),
        ("VS_FAULT_MODE", mode.into()),
        ("VS_FAULT_AT", call.to_string().into()),
        ("VS_FAULT_HIT", ground.join("hit").into()),
    ];
}

/// No faults any more.
pub fn spare(site: &mut Site) {
    site.environment.clear();
}

/// A power cut takes what SQLite keeps in shared memory.
pub fn forget_shared_memory(site: &Site) {
    for path in files_below(&site.data) {
        if path.to_string_lossy().ends_with("-shm") {
            std::fs::remove_file(path).unwrap();
        }
    }
}
