//! A schema of one test on the PostgreSQL server that `test.sh` starts, named by `VITALSEAL_TEST_POSTGRES`: the address of its
//! Unix socket, such as `postgres://postgres@%2Ftmp%2Fserver:5433/postgres`. Without it a test has its registry in a file.
//!
//! Statements go to the socket as the protocol's simple queries (PostgreSQL 15, 55.7): `psql` is a process, and one that is
//! being started holds every file lock of ours for a moment.

#![allow(
    dead_code,
    reason = "each test binary uses its own part of the fixture"
)]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// A schema that nobody else uses, dropped with everything in it.
#[derive(Debug)]
pub(crate) struct Schema {
    server: Server,
    name: String,
}

impl Schema {
    /// A new one, empty; `None` when no server was given.
    pub(crate) fn new() -> Option<Self> {
        let schema = Self::named(std::env::var("VITALSEAL_TEST_POSTGRES").ok()?);
        schema.ask(&format!("CREATE SCHEMA {}", schema.name));
        Some(schema)
    }

    /// For tests that need a server, which are ignored where there is none.
    pub(crate) fn required() -> Self {
        Self::new().expect("test.sh starts a server and names it in VITALSEAL_TEST_POSTGRES")
    }

    /// Another one with the same tables and rows.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::named(self.server.0.clone());
        let dump = Command::new("pg_dump")
            .args(["--no-owner", "--schema", &self.name, &self.server.0])
            .output()
            .unwrap();
        assert!(dump.status.success(), "{dump:?}");
        let dump = String::from_utf8(dump.stdout).unwrap();
        let mut psql = Command::new("psql")
            .args(["-Xq", "-v", "ON_ERROR_STOP=1", &self.server.0])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let dump = dump.replace(&self.name, &copy.name);
        psql.stdin
            .take()
            .unwrap()
            .write_all(dump.as_bytes())
            .unwrap();
        assert!(psql.wait().unwrap().success());
        copy
    }

    fn named(server: String) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{next}", std::process::id());
        Self {
            server: Server(server),
            name,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// As a configuration names it.
    pub(crate) fn address(&self) -> String {
        self.address_on(&self.server.0)
    }

    /// The same schema, by a socket in another directory.
    pub(crate) fn address_behind(&self, dir: &Path) -> String {
        let there = encoded(&self.server.dir());
        self.address_on(&self.server.0.replacen(&there, &encoded(dir), 1))
    }

    /// The same schema over TCP, by this name of the machine; `test.sh` has the server insist on TLS there.
    pub(crate) fn address_at(&self, host: &str) -> String {
        let there = encoded(&self.server.dir());
        self.address_on(&self.server.0.replacen(&there, host, 1))
    }

    fn address_on(&self, server: &str) -> String {
        format!("{server}?options[search_path]={}", self.name)
    }

    /// The server's Unix socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.server.socket()
    }

    /// Where the server's files are, its certificates too.
    pub(crate) fn server_dir(&self) -> PathBuf {
        self.server.dir()
    }

    /// The first column of what a statement gives.
    pub(crate) fn ask(&self, statement: &str) -> Vec<String> {
        self.server.ask(statement)
    }
}

impl Drop for Schema {
    /// Not waited for: a connection that the test left behind may hold a table until its runtime is gone.
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        thread::spawn(move || server.ask(&format!("DROP SCHEMA {name} CASCADE")));
    }
}

/// `postgres://USER@DIRECTORY[:PORT]/DATABASE`.
#[derive(Clone, Debug)]
struct Server(String);

impl Server {
    /// User, directory, port, database.
    fn parts(&self) -> [&str; 4] {
        let bare = self.0.strip_prefix("postgres://").unwrap();
        let (user, rest) = bare.split_once('@').unwrap();
        let (host, database) = rest.split_once('/').unwrap();
        let (dir, port) = host.split_once(':').unwrap_or((host, "5432"));
        [user, dir, port, database]
    }

    fn dir(&self) -> PathBuf {
        self.parts()[1].replace("%2F", "/").into()
    }

    fn socket(&self) -> PathBuf {
        self.dir().join(format!(".s.PGSQL.{}", self.parts()[2]))
    }

    fn ask(&self, statement: &str) -> Vec<String> {
        let [user, _, _, database] = self.parts();
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        let start = format!("\0\u{3}\0\0user\0{user}\0database\0{database}\0\0");
        let mut values = Vec::new();
        for (kind, body) in [("", start), ("Q", format!("{statement}\0"))] {
            let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
            stream
                .write_all(&[kind.as_bytes(), &length, body.as_bytes()].concat())
                .unwrap();
            loop {
                let mut head = [0; 5];
                stream.read_exact(&mut head).unwrap();
                let mut body = vec![0; number(&head[1..]) - 4];
                stream.read_exact(&mut body).unwrap();
                match head[0] {
                    b'D' => {
                        let end = 6 + number(&body[2..6]);
                        values.push(String::from_utf8(body[6..end].to_vec()).unwrap());
                    }
                    b'E' => panic!("{statement}: {}", String::from_utf8_lossy(&body)),
                    b'Z' => break,
                    _ => {}
                }
            }
        }
        values
    }
}

fn number(bytes: &[u8]) -> usize {
    u32::from_be_bytes(bytes.try_into().unwrap())
        .try_into()
        .unwrap()
}

fn encoded(dir: &Path) -> String {
    dir.to_str().unwrap().replace('/', "%2F")
}
