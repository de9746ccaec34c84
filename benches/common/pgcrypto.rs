//! PostgreSQL with pgcrypto: every value encrypted in its column, patient, code and time in the clear beside it.
//!
//! A private cluster on a socket in a temporary directory. The settings are the fastest that are honest: AES-256 with
//! `OpenPGP`'s own integrity check, no compression of values of a few bytes, and the session key used as it is, without
//! 65,536 rounds of hashing that a password would need (`s2k-mode=0`). Two parallel workers, a gigabyte of shared
//! buffers, an index by (patient, code, ts) in whose order the rows lie, and the series that there are in a table of
//! their own. Twenty million readings take some minutes to load and 5 GB of disk.

#![allow(dead_code, reason = "each bench uses its own part")]

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls, Row};
use vitalseal_crypto::SubjectPseudonym;
use vitalseal_vitals::Reading;

use crate::workload::Workload;

/// 256 bits in hexadecimal; a bench keeps no secret.
const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

const OPTIONS: &str = "cipher-algo=aes256, compress-algo=0, s2k-mode=0";

pub struct Pgcrypto {
    client: Client,
    server: Child,
    pub readings: u64,
    /// From the first reading that it is given to its indexes and statistics.
    pub load: Duration,
    _dir: TempDir,
}

impl Pgcrypto {
    /// A cluster with the readings of the first `patients` patients; `None` where PostgreSQL is not installed.
    pub async fn load(
        workload: &Workload,
        subjects: &[SubjectPseudonym],
        patients: usize,
    ) -> Option<Self> {
        let (server, client, dir) = start().await?;
        let mut this = Self {
            client,
            server,
            readings: 0,
            load: Duration::ZERO,
            _dir: dir,
        };
        let started = Instant::now();
        // In one transaction: what it makes and fills needs no write-ahead log (`wal_level=minimal`).
        this.batch(
            "CREATE EXTENSION pgcrypto;
             BEGIN;
             CREATE TABLE readings (
                patient text NOT NULL, code text NOT NULL, ts timestamptz NOT NULL, value bytea NOT NULL
             );",
        )
        .await;
        this.fill(workload, subjects, patients).await;
        this.batch(
            "CREATE INDEX ON readings (patient, code, ts);
             CREATE TABLE series AS SELECT DISTINCT patient, code FROM readings;
             COMMIT;",
        )
        .await;
        this.batch("VACUUM ANALYZE").await;
        this.load = started.elapsed();
        Some(this)
    }

    async fn fill(&mut self, workload: &Workload, subjects: &[SubjectPseudonym], patients: usize) {
        let sources = workload.sources();
        let mut order: Vec<usize> = (0..patients).collect();
        order.sort_by_key(|patient| subjects[*patient].as_str());
        let insert = format!(
            "INSERT INTO readings
                SELECT $1, code, ts, pgp_sym_encrypt(value::text, '{KEY}', '{OPTIONS}')
                FROM unnest($2::text[], $3::timestamptz[], $4::float8[]) AS sorted(code, ts, value)"
        );
        let insert = self.client.prepare(&insert).await.unwrap();
        for patient in order {
            let of_patient = sources.iter().filter(|source| source.patient == patient);
            let mut sorted: Vec<Reading> = of_patient
                .flat_map(|source| workload.batches_of(source))
                .flat_map(|batch| batch.payload.into_readings())
                .collect();
            sorted.sort_by_key(|reading| (reading.signal.code, reading.at));
            let codes: Vec<&str> = sorted.iter().map(|reading| reading.signal.code).collect();
            let times = sorted.iter().map(|reading| SystemTime::from(reading.at));
            let times: Vec<SystemTime> = times.collect();
            let values: Vec<f64> = sorted.iter().map(|reading| reading.value).collect();
            let subject = subjects[patient].as_str();
            let inserted = self
                .client
                .execute(&insert, &[&subject, &codes, &times, &values])
                .await;
            self.readings += inserted.unwrap();
        }
    }

    /// Runs a query to its last row. `VALUE` in its text is the decrypted value.
    pub async fn query(&self, sql: &str) -> (Vec<Row>, Duration) {
        let value = format!("pgp_sym_decrypt(value, '{KEY}')::float8");
        let sql = sql.replace("VALUE", &value);
        let started = Instant::now();
        let rows = self.client.query(sql.as_str(), &[]).await.unwrap();
        (rows, started.elapsed())
    }

    /// Bytes of the table and of its index.
    pub async fn bytes(&self) -> (u64, u64) {
        let sizes = "SELECT pg_table_size('readings'), pg_indexes_size('readings')";
        let row = self.client.query_one(sizes, &[]).await.unwrap();
        (row.get::<_, i64>(0) as u64, row.get::<_, i64>(1) as u64)
    }

    async fn batch(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap();
    }
}

impl Drop for Pgcrypto {
    fn drop(&mut self) {
        // SIGQUIT would be kinder to the data, which nobody wants.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

async fn start() -> Option<(Child, Client, TempDir)> {
    let programs = programs()?;
    let dir = tempfile::tempdir().unwrap();
    let owner = owner();
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::chown(dir.path(), Some(uid), Some(gid)).unwrap();
    }
    let run = |program: &str| {
        let mut command = Command::new(programs.join(program));
        if let Some((uid, gid)) = owner {
            command.uid(uid).gid(gid);
        }
        command
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    };
    let data = dir.path().join("data");
    let made = run("initdb")
        .args([
            "--no-sync",
            "--auth=trust",
            "--username=bench",
            "--encoding=UTF8",
        ])
        .arg("--pgdata")
        .arg(&data)
        .status();
    assert!(made.unwrap().success(), "initdb");
    let settings = [
        "listen_addresses=",
        "shared_buffers=1GB",
        "work_mem=256MB",
        "maintenance_work_mem=512MB",
        "max_wal_size=8GB",
        "wal_level=minimal",
        "max_wal_senders=0",
        "synchronous_commit=off",
        "max_parallel_workers_per_gather=2",
    ];
    let mut server = run("postgres");
    server.arg("-D").arg(&data).arg("-k").arg(dir.path());
    for setting in settings {
        server.args(["-c", setting]);
    }
    let server = server.spawn().unwrap();
    let config = format!("host={} user=bench dbname=postgres", dir.path().display());
    let connected = loop {
        match tokio_postgres::connect(&config, NoTls).await {
            Ok(connected) => break connected,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let (client, connection) = connected;
    tokio::spawn(connection);
    Some((server, client, dir))
}

/// Where Debian puts them.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let programs = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    programs
        .filter(|programs| programs.join("initdb").exists())
        .max()
}

/// PostgreSQL does not run as root: then it is `postgres`.
fn owner() -> Option<(u32, u32)> {
    let id = |what: &str, who: &[&str]| -> u32 {
        let output = Command::new("id").arg(what).args(who).output().unwrap();
        String::from_utf8(output.stdout)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    };
    (id("-u", &[]) == 0).then(|| (id("-u", &["postgres"]), id("-g", &["postgres"])))
}
