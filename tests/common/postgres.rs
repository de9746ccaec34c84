//! A schema of one test on the PostgreSQL server that `test.sh` starts, named by `VITALSEAL_TEST_POSTGRES`: an address such
//! as `postgres://postgres@%2Ftmp%2Fserver/postgres`. Without it every test has its registry in a file.
//!
//! No `psql` here: a process that is being started holds every file lock of ours for a moment.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

use sqlx::AssertSqlSafe;

use crate::database::{self, Place, PostgresPlace};

/// A schema that nobody else uses, dropped with everything in it.
pub(super) struct Schema {
    server: String,
    name: String,
}

impl Schema {
    /// A new one, empty; `None` when no server was given.
    pub(super) fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let server = std::env::var("VITALSEAL_TEST_POSTGRES").ok()?;
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{next}", std::process::id());
        let schema = Self { server, name };
        schema.run("CREATE SCHEMA").join().unwrap();
        Some(schema)
    }

    /// The server's Unix socket.
    pub(super) fn socket(&self) -> PathBuf {
        let url = url::Url::parse(&self.server).unwrap();
        let dir = url.host_str().unwrap().replace("%2F", "/");
        PathBuf::from(dir).join(".s.PGSQL.5432")
    }

    /// The same schema, by a socket in another directory.
    pub(super) fn place_behind(&self, dir: &Path) -> PostgresPlace {
        let mut url = url::Url::parse(&self.server).unwrap();
        let host = dir.to_str().unwrap().replace('/', "%2F");
        url.set_host(Some(&host)).unwrap();
        self.place_on(url.as_str())
    }

    pub(super) fn place(&self) -> PostgresPlace {
        self.place_on(&self.server)
    }

    fn place_on(&self, server: &str) -> PostgresPlace {
        let joined = if server.contains('?') { '&' } else { '?' };
        let address = format!("{server}{joined}options[search_path]={}", self.name);
        PostgresPlace::new(&address, None).unwrap()
    }

    fn run(&self, what: &str) -> JoinHandle<()> {
        let statement = format!("{what} {}", self.name);
        let server = Place::Postgres(PostgresPlace::new(&self.server, None).unwrap());
        // Tests have a runtime already, and it is not theirs to wait in.
        thread::spawn(move || {
            let run = async {
                let mut conn = database::connect(&server).await.unwrap();
                let statement = sqlx::raw_sql(AssertSqlSafe(statement));
                statement.execute(&mut conn).await.unwrap();
            };
            tokio::runtime::Runtime::new().unwrap().block_on(run);
        })
    }
}

impl Drop for Schema {
    /// Not waited for: a connection that the test left behind may hold a table until its runtime is gone.
    fn drop(&mut self) {
        // CASCADE comes with the name.
        self.name.push_str(" CASCADE");
        let _ = self.run("DROP SCHEMA");
    }
}
