//! One operation, struck at one call after the other in one way.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tempfile::TempDir;

use crate::interposer;
use crate::site::Site;

/// Where the runs take place, and how many struck.
pub(crate) struct Ground {
    dir: TempDir,
    library: PathBuf,
    struck: Mutex<BTreeMap<String, usize>>,
}

impl Ground {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        Self {
            library: interposer::compile(dir.path()),
            dir,
            struck: Mutex::default(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// An operation that the library did not see would pass without a word.
    pub(crate) fn assert_struck(&self, least: usize) {
        let struck = self.struck.lock().unwrap();
        println!(
            "faults: {struck:#?}, {} in all",
            struck.values().sum::<usize>()
        );
        for (trial, times) in &*struck {
            assert!(*times >= least, "{trial}: {times}");
        }
    }
}

pub(crate) struct Trial<'a> {
    pub(crate) ground: &'a Ground,
    /// The test that is run again as the child.
    pub(crate) test: &'static str,
    /// What the child is to do.
    pub(crate) operation: String,
    /// What else it is told.
    pub(crate) given: &'a str,
    /// As `interpose.c` names it; with a `+`, two processes one after the other on the same store, the first struck.
    pub(crate) mode: &'a str,
    pub(crate) prepared: &'a Site,
    /// Every call, or only every so many: `VITALSEAL_FAULTS=all` tries every one.
    pub(crate) stride: usize,
    pub(crate) judge: Box<dyn Fn(&Struck) + Sync + 'a>,
}

/// What a run left.
pub(crate) struct Struck {
    pub(crate) site: Site,
    /// What the child was promised, line by line.
    pub(crate) promised: Vec<String>,
    /// The operation ended before the fault.
    pub(crate) unharmed: bool,
    pub(crate) context: String,
}

impl Trial<'_> {
    /// Two at a time, from the first call on, until one ends unharmed.
    pub(crate) fn at_every_call(&self) {
        let everything = std::env::var("VITALSEAL_FAULTS").is_ok_and(|v| v == "all");
        let stride = match &self.prepared.address {
            _ if everything => 1,
            None => self.stride,
            // A schema is copied for each run.
            Some(_) => self.stride.max(2),
        };
        let (next, beyond) = (AtomicUsize::new(0), AtomicUsize::new(usize::MAX));
        let struck = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        let call = 1 + next.fetch_add(stride, Ordering::SeqCst);
                        if call >= beyond.load(Ordering::SeqCst) {
                            return;
                        }
                        if self.at(call) {
                            struck.fetch_add(1, Ordering::SeqCst);
                        } else {
                            beyond.fetch_min(call, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        let name = format!("{} {}", self.operation, self.mode);
        let mut all = self.ground.struck.lock().unwrap();
        *all.entry(name).or_default() += struck.into_inner();
    }

    /// How many calls the operation makes.
    pub(crate) fn calls(&self) -> usize {
        (1..).find(|call| !self.at(*call)).unwrap_or(0) - 1
    }

    /// The store that the first process left, struck at this call.
    pub(crate) fn left_at(&self, call: usize) -> Site {
        let dir = self.ground.path().join(format!("left-{call}"));
        let site = self.prepared.copy(&dir);
        self.child(
            &site,
            self.mode,
            call,
            &dir.join("hit"),
            &dir.join("promised"),
        );
        site
    }

    /// Whether the operation came as far as this call.
    fn at(&self, call: usize) -> bool {
        let name = format!("{}-{}-{call}", self.operation, self.mode);
        let dir = self.ground.path().join(name);
        let site = self.prepared.copy(&dir);
        let mut unharmed = true;
        for (nth, mode) in self.mode.split('+').enumerate() {
            let hit = dir.join(format!("hit-{nth}"));
            self.child(&site, mode, call, &hit, &dir.join("promised"));
            unharmed &= nth > 0 || !hit.exists();
        }
        let promised = fs::read_to_string(dir.join("promised")).unwrap_or_default();
        let struck = Struck {
            site,
            promised: promised.lines().map(str::to_owned).collect(),
            unharmed,
            context: format!("{}, {} at call {call}", self.operation, self.mode),
        };
        (self.judge)(&struck);
        fs::remove_dir_all(&dir).unwrap();
        !unharmed
    }

    fn child(&self, site: &Site, mode: &str, call: usize, hit: &Path, promised: &Path) {
        let mut child = Command::new(std::env::current_exe().unwrap());
        if let Some(address) = &site.address {
            child.env("VS_REGISTRY", address);
        }
        let child = child
            .args(["--exact", "--nocapture", self.test])
            .env("LD_PRELOAD", &self.ground.library)
            .env("VS_CHILD", &self.operation)
            .env("VS_GIVEN", self.given)
            .env("VS_PROMISED", promised)
            .env("VS_FAULT_DIR", &site.dir)
            .env("VS_FAULT_AT", call.to_string())
            .env("VS_FAULT_MODE", mode)
            .env("VS_FAULT_HIT", hit)
            .output()
            .unwrap();
        let killed = child.status.code() == Some(99);
        let expected = hit.exists() && matches!(mode, "kill" | "powercut" | "torn");
        let said = String::from_utf8_lossy(&child.stdout);
        let context = format!("{} {mode} {call}: {said}", self.operation);
        assert_eq!(killed, expected, "{context}");
        assert!(killed || child.status.success(), "{context}");
        if matches!(mode, "powercut" | "torn" | "fsync" | "blackout") {
            site.forget_shared_memory();
        }
    }
}
