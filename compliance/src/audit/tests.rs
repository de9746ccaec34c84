//! Hands on the file: what a thief, a careless administrator or a bad disk could do to a log, and that it shows.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use tempfile::TempDir;
use vitalseal_storage::ports::{Actor, AuditEvent, AuditRecord};

use super::*;

#[path = "../../../tests/common/data_model.rs"]
mod document;
#[path = "../../../tests/common/sqlite.rs"]
mod sqlite;

const ORIGIN: &str = "test.example/vitalseal/audit";

struct Bench {
    dir: TempDir,
    log: AuditLog,
    skey: String,
    vkey: String,
}

impl Bench {
    async fn with_records(n: u64) -> Self {
        let dir = TempDir::new().unwrap();
        let created = AuditLog::create(&dir.path().join("audit.sqlite"), ORIGIN)
            .await
            .unwrap();
        let (log, skey, vkey) = (created.log, created.skey.to_string(), created.vkey);
        let bench = Self {
            dir,
            log,
            skey,
            vkey,
        };
        bench.add(0..n).await;
        bench
    }

    async fn add(&self, numbers: std::ops::Range<u64>) {
        for n in numbers {
            self.log.append(record(n)).await.unwrap();
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("audit.sqlite")
    }

    /// Closes the log, lets `hand` at the file with the triggers gone, as somebody with the file would.
    async fn tamper(&self, statements: &[&'static str]) {
        self.log.close().await;
        let mut conn = raw(&self.path()).await;
        for trigger in [
            "DROP TRIGGER record_keeps_rows",
            "DROP TRIGGER record_keeps_text",
            "DROP TRIGGER hash_keeps_rows",
            "DROP TRIGGER hash_keeps_values",
        ] {
            sqlx::query(trigger).execute(&mut conn).await.unwrap();
        }
        for statement in statements {
            sqlx::query(*statement).execute(&mut conn).await.unwrap();
        }
        conn.close().await.unwrap();
    }

    async fn reopen(&self) -> Result<AuditLog, AuditLogError> {
        AuditLog::open(&self.path(), &self.skey, &self.vkey).await
    }

    async fn verify_file(&self, outside: Option<&str>) -> AuditVerification {
        AuditLog::verify_file(&self.path(), &self.vkey, outside)
            .await
            .unwrap()
    }
}

async fn raw(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new()
        .filename(path)
        .connect()
        .await
        .unwrap()
}

fn record(n: u64) -> AuditRecord {
    AuditRecord {
        at: Timestamp::from_second(1_760_000_000 + i64::try_from(n).unwrap()).unwrap(),
        actor: Actor::System,
        event: AuditEvent::ServerStarted {
            version: format!("v{n}"),
        },
    }
}

#[tokio::test]
async fn every_table_of_the_log_is_documented_and_no_other() {
    let bench = Bench::with_records(1).await;
    let tables = sqlite::tables_of(&bench.path()).await;
    assert_eq!(tables, document::tables("Audit log"));
}

#[tokio::test]
async fn what_was_written_is_read_proved_and_verified_after_reopening() {
    let bench = Bench::with_records(37).await;
    let outside = bench.log.checkpoint().await.unwrap();
    bench.log.close().await;
    assert!(matches!(
        bench.log.append(record(0)).await,
        Err(AuditLogError::Closed)
    ));

    let log = bench.reopen().await.unwrap();
    assert_eq!(log.append(record(37)).await.unwrap(), 37);
    let tail = log.tail(2).await.unwrap();
    assert_eq!(
        tail.iter().map(|entry| entry.seq).collect::<Vec<_>>(),
        [36, 37]
    );
    assert_eq!(log.entries(5, 9).await.unwrap().len(), 4);
    assert_eq!(log.entries(30, 9000).await.unwrap().len(), 8);

    for entry in log.entries(0, 38).await.unwrap() {
        let proof = log.prove(entry.seq).await.unwrap();
        assert_eq!(proof.verify(log.key()).unwrap().size, 38);
        assert!(proof.is_about(&entry).unwrap());
        let elsewhere = InclusionProof {
            seq: (entry.seq + 1) % 38,
            ..proof.clone()
        };
        assert!(
            elsewhere.verify(log.key()).is_err(),
            "a proof holds for one place only"
        );
    }
    assert!(matches!(
        log.prove(38).await,
        Err(AuditLogError::NoSuchRecord { seq: 38, size: 38 })
    ));

    let found = log.verify(Some(&outside)).await.unwrap();
    assert!(found.is_sound(), "{:?}", found.faults);
    assert_eq!(
        (found.size, found.checkpoint_ok, found.outside_ok),
        (38, true, Some(true))
    );
    assert_eq!(found.first_bad_seq, None);
}

#[tokio::test]
async fn concurrent_writers_each_get_their_own_number_and_share_commits() {
    let bench = Bench::with_records(0).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..300 {
        let log = bench.log.clone();
        tasks.spawn(async move { (n, log.append(record(n)).await.unwrap()) });
    }
    let mut given: Vec<(u64, u64)> = tasks.join_all().await;
    given.sort_by_key(|&(_, seq)| seq);
    assert!(
        given.iter().map(|&(_, seq)| seq).eq(0..300),
        "no number twice, none left out"
    );
    let entries = bench.log.entries(0, 300).await.unwrap();
    for ((n, seq), entry) in given.into_iter().zip(entries) {
        assert_eq!(
            entry.event,
            record(n).event,
            "number {seq} is the record that got it"
        );
    }
    assert!(bench.log.verify(None).await.unwrap().is_sound());
}

#[tokio::test]
async fn an_altered_record_is_named() {
    let bench = Bench::with_records(20).await;
    bench
        .tamper(&["UPDATE record SET leaf = replace(leaf, 'v7', 'v8') WHERE seq = 7"])
        .await;
    let found = bench.verify_file(None).await;
    assert_eq!(found.first_bad_seq, Some(7));
    assert!(found.faults.contains(&AuditFault::Altered { seq: 7 }));
    assert!(!found.checkpoint_ok);
}

#[tokio::test]
async fn a_record_filed_under_another_time_is_named() {
    let bench = Bench::with_records(20).await;
    bench
        .tamper(&["UPDATE record SET at_us = at_us + 1 WHERE seq = 3"])
        .await;
    let found = bench.verify_file(None).await;
    assert_eq!(found.faults, [AuditFault::TimeColumn { seq: 3 }]);
}

#[tokio::test]
async fn a_removed_record_is_named_and_the_log_not_opened() {
    let bench = Bench::with_records(20).await;
    bench.tamper(&["DELETE FROM record WHERE seq = 11"]).await;
    assert_eq!(bench.verify_file(None).await.first_bad_seq, Some(11));
    assert!(matches!(
        bench.reopen().await,
        Err(AuditLogError::HeadMismatch(_))
    ));
}

#[tokio::test]
async fn a_log_cut_at_its_end_is_not_opened() {
    let bench = Bench::with_records(20).await;
    bench.tamper(&["DELETE FROM record WHERE seq >= 15"]).await;
    assert!(matches!(
        bench.reopen().await,
        Err(AuditLogError::HeadMismatch(_))
    ));
    let found = bench.verify_file(None).await;
    assert!(found.faults.contains(&AuditFault::HeadSize {
        signed: 20,
        stored: 15
    }));
    assert_eq!(found.first_bad_seq, Some(15));
}

#[tokio::test]
async fn an_older_copy_put_back_is_sound_inside_but_not_against_a_checkpoint_kept_elsewhere() {
    let bench = Bench::with_records(20).await;
    bench.log.close().await;
    let copy = bench.dir.path().join("copy.sqlite");
    std::fs::copy(bench.path(), &copy).unwrap();
    let log = bench.reopen().await.unwrap();
    log.append(record(20)).await.unwrap();
    let outside = log.checkpoint().await.unwrap();
    log.close().await;
    std::fs::copy(&copy, bench.path()).unwrap();

    assert!(
        bench.verify_file(None).await.is_sound(),
        "nothing inside the file can tell"
    );
    let found = bench.verify_file(Some(&outside)).await;
    assert_eq!(
        found.faults,
        [AuditFault::Truncated {
            signed: 21,
            stored: 20
        }]
    );
    assert_eq!(
        (found.outside_ok, found.first_bad_seq),
        (Some(false), Some(20))
    );
}

#[tokio::test]
async fn history_rewritten_with_the_stolen_key_differs_from_a_checkpoint_kept_elsewhere() {
    let honest = Bench::with_records(20).await;
    let outside = honest.log.checkpoint().await.unwrap();
    // The thief builds a whole new log under the stolen key: one record differs.
    let forged = Bench::with_records(0).await;
    forged.tamper(&[]).await;
    let identity = identity::AuditIdentity::parse(&honest.skey, &honest.vkey).unwrap();
    let mut conn = raw(&forged.path()).await;
    let note = checkpoint::sign(&identity, 0, tlog_tiles::tlog::EMPTY_HASH).unwrap();
    sqlx::query("UPDATE head SET note = $1")
        .bind(note)
        .execute(&mut conn)
        .await
        .unwrap();
    conn.close().await.unwrap();
    let log = AuditLog::open(&forged.path(), &honest.skey, &honest.vkey)
        .await
        .unwrap();
    for n in 0..25 {
        log.append(record(if n == 13 { 99 } else { n }))
            .await
            .unwrap();
    }

    assert!(
        log.verify(None).await.unwrap().is_sound(),
        "with the key, the inside is consistent"
    );
    let found = log.verify(Some(&outside)).await.unwrap();
    assert_eq!(found.faults, [AuditFault::Rewritten { signed: 20 }]);
}

#[tokio::test]
async fn history_rewritten_without_the_key_fails_the_signed_root() {
    let bench = Bench::with_records(20).await;
    let other = Bench::with_records(0).await;
    for n in 0..20 {
        other
            .log
            .append(record(if n == 4 { 99 } else { n }))
            .await
            .unwrap();
    }
    other.log.close().await;
    bench.log.close().await;
    // Rows and hashes from the other log, the signed head from the honest one.
    let mut conn = raw(&bench.path()).await;
    let head: String = sqlx::query_scalar("SELECT note FROM head")
        .fetch_one(&mut conn)
        .await
        .unwrap();
    conn.close().await.unwrap();
    std::fs::copy(other.path(), bench.path()).unwrap();
    let mut conn = raw(&bench.path()).await;
    sqlx::query("UPDATE head SET note = $1")
        .bind(head)
        .execute(&mut conn)
        .await
        .unwrap();
    conn.close().await.unwrap();
    assert_eq!(bench.verify_file(None).await.faults, [AuditFault::HeadRoot]);
    assert!(matches!(
        bench.reopen().await,
        Err(AuditLogError::HeadMismatch(_))
    ));
}

#[tokio::test]
async fn a_checkpoint_or_key_of_another_log_is_not_taken_for_ours() {
    let ours = Bench::with_records(5).await;
    let theirs = Bench::with_records(5).await;
    let foreign = theirs.log.checkpoint().await.unwrap();
    let found = ours.log.verify(Some(&foreign)).await.unwrap();
    assert_eq!(found.faults, [AuditFault::OutsideForeign]);
    for garbage in ["", "hello", &foreign[1..], "\n\n\n"] {
        let found = ours.log.verify(Some(garbage)).await.unwrap();
        assert_eq!(found.outside_ok, Some(false));
    }
    ours.log.close().await;
    let wrong = AuditLog::open(&ours.path(), &theirs.skey, &theirs.vkey).await;
    assert!(matches!(wrong, Err(AuditLogError::HeadSignature(_))));
    let mixed = AuditLog::open(&ours.path(), &theirs.skey, &ours.vkey).await;
    assert!(matches!(mixed, Err(AuditLogError::Key(_))));
}

#[tokio::test]
async fn a_proof_of_another_log_or_with_one_digit_changed_is_refused() {
    let ours = Bench::with_records(9).await;
    let theirs = Bench::with_records(9).await;
    let proof = ours.log.prove(4).await.unwrap();
    assert!(proof.verify(theirs.log.key()).is_err());
    for i in 0..proof.path.len() {
        let mut bent = proof.clone();
        let flip = if bent.path[i].starts_with('0') {
            "1"
        } else {
            "0"
        };
        bent.path[i].replace_range(0..1, flip);
        assert!(matches!(
            bent.verify(ours.log.key()),
            Err(ProofRefused::Path)
        ));
    }
    let mut long = proof.clone();
    long.path.extend(std::iter::repeat_n("00".repeat(32), 100));
    assert!(long.verify(ours.log.key()).is_err());
}

#[tokio::test]
async fn rows_can_not_be_changed_by_mistake() {
    let bench = Bench::with_records(3).await;
    bench.log.close().await;
    let mut conn = raw(&bench.path()).await;
    for statement in [
        "DELETE FROM record",
        "UPDATE record SET leaf = ''",
        "DELETE FROM hash",
    ] {
        let refused = sqlx::query(statement).execute(&mut conn).await.unwrap_err();
        assert!(refused.to_string().contains("append-only"), "{refused}");
    }
}

#[tokio::test]
async fn a_second_log_is_not_put_over_the_first_and_secrets_stay_out_of_debug() {
    let bench = Bench::with_records(1).await;
    let again = AuditLog::create(&bench.path(), ORIGIN).await;
    assert!(matches!(again, Err(AuditLogError::Exists(_))));
    let nowhere = bench.dir.path().join("none.sqlite");
    let absent = AuditLog::open(&nowhere, &bench.skey, &bench.vkey).await;
    assert!(matches!(absent, Err(AuditLogError::Absent(_))));
    assert!(!nowhere.exists(), "looking for a log makes none");
    for origin in ["", "two words", "a+b", "line\nbreak"] {
        let path = bench.dir.path().join("bad.sqlite");
        assert!(matches!(
            AuditLog::create(&path, origin).await,
            Err(AuditLogError::Origin(_))
        ));
    }
    let secret = bench.skey.rsplit('+').next().unwrap();
    assert!(!format!("{:?}", bench.log).contains(secret));
}
