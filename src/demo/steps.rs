//! The steps, in order. Each returns what it saw, or why it did not hold.

mod attacks;
mod forgetting;
mod keeping;
mod path;

use std::future::Future;
use std::pin::Pin;

use super::site::Site;

type Running<'a> = Pin<Box<dyn Future<Output = anyhow::Result<String>> + 'a>>;

/// One step.
pub(super) struct Step {
    /// Its name in `--json`.
    pub(super) name: &'static str,
    /// What is going on while it runs.
    pub(super) what: &'static str,
    /// The step itself.
    pub(super) run: fn(&mut Site) -> Running<'_>,
}

/// All of them.
pub(super) const ALL: &[Step] = &[
    Step {
        name: "start",
        what: "creating a store, starting the server",
        run: |s| Box::pin(path::start(s)),
    },
    Step {
        name: "enrol",
        what: "enrolling devices and a clinician",
        run: |s| Box::pin(path::enrol(s)),
    },
    Step {
        name: "play",
        what: "playing recordings over mutual TLS",
        run: |s| Box::pin(path::play(s)),
    },
    Step {
        name: "query",
        what: "asking SQL",
        run: |s| Box::pin(path::query(s)),
    },
    Step {
        name: "tampered",
        what: "flipping one bit",
        run: |s| Box::pin(attacks::tampered(s)),
    },
    Step {
        name: "stranger",
        what: "trying a stranger's certificate",
        run: |s| Box::pin(attacks::stranger(s)),
    },
    Step {
        name: "replay",
        what: "sending one message twice",
        run: |s| Box::pin(attacks::replay(s)),
    },
    Step {
        name: "ciphertext",
        what: "searching the files for a known reading",
        run: |s| Box::pin(attacks::ciphertext(s)),
    },
    Step {
        name: "compact",
        what: "turning sealed rows into sealed chunks",
        run: |s| Box::pin(keeping::compact(s)),
    },
    Step {
        name: "check",
        what: "verifying every file and signature",
        run: |s| Box::pin(keeping::check(s)),
    },
    Step {
        name: "erase",
        what: "erasing a patient",
        run: |s| Box::pin(forgetting::erase(s)),
    },
    Step {
        name: "backup",
        what: "opening the copy made before the erasure",
        run: |s| Box::pin(forgetting::backup(s)),
    },
    Step {
        name: "vacuum",
        what: "dropping the erased patient's ciphertext",
        run: |s| Box::pin(keeping::vacuum(s)),
    },
    Step {
        name: "report",
        what: "drafting a breach report",
        run: |s| Box::pin(forgetting::report(s)),
    },
];
