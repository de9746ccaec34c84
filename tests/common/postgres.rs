//! A schema of one test on the PostgreSQL server that `test.sh` starts.

#![allow(
    dead_code,
    reason = "each test binary uses its own part of the fixture"
)]

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Address of the server, such as `postgres://postgres@%2Ftmp%2Fserver/postgres`; unset: there is none.
const SERVER: &str = "VITALSEAL_TEST_POSTGRES";

/// A schema that nobody else uses, dropped with everything in it.
pub(crate) struct Schema {
    server: String,
    name: String,
}

impl Schema {
    /// A new one, empty; `None` when no server was given.
    pub(crate) fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let server = std::env::var(SERVER).ok()?;
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{next}", std::process::id());
        let schema = Self { server, name };
        schema.run(&format!("CREATE SCHEMA {}", schema.name));
        Some(schema)
    }

    /// The address of the schema, as a configuration has it.
    pub(crate) fn address(&self) -> String {
        let joined = if self.server.contains('?') { '&' } else { '?' };
        format!("{}{joined}options[search_path]={}", self.server, self.name)
    }

    /// Runs a statement as whoever administrates the server.
    pub(crate) fn run(&self, statement: &str) {
        let status = Command::new("psql")
            .args([
                &self.server,
                "-qX",
                "-v",
                "ON_ERROR_STOP=1",
                "-c",
                statement,
            ])
            .env(
                "PGOPTIONS",
                "-c client_min_messages=warning -c lock_timeout=10s",
            )
            .stdin(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{statement}");
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        // A test that failed says why; a schema that stays is gone with its server.
        if !std::thread::panicking() {
            self.run(&format!("DROP SCHEMA {} CASCADE", self.name));
        }
    }
}
