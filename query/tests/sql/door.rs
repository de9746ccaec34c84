//! The PostgreSQL door, spoken to by `psql` and by a driver, over TLS.

use std::process::Output;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::config::SslMode;
use tokio_postgres::{NoTls, SimpleQueryMessage};
use vitalseal_crypto::AtRest;
use vitalseal_storage::ports::{AuditEvent, QueryOutcome};
use vitalseal_vitals::signal::PULSE_WAVEFORM;
use vitalseal_vitals::{Period, Waveform, signal};

use crate::refusals::REFUSED;
use crate::served::Door;
use crate::ward::{START_US, Ward};

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn told(error: &tokio_postgres::Error) -> (String, String) {
    let said = error.as_db_error().expect("the server said why");
    (said.code().code().to_owned(), said.message().to_owned())
}

#[tokio::test]
async fn psql_reads_describes_and_is_refused_what_it_may_not() {
    let ward = Ward::open().await;
    let bed = ward.admit("icu-1", "Ada Lovelace", "ada").await;
    ward.measure(&bed, 0, &[61.0, 62.5]).await;
    let door = Door::open(&ward).await;
    let Some(output) = door
        .psql(
            "ada",
            "token-of-ada",
            &[
                "SET client_encoding = 'UTF8'",
                "BEGIN",
                "SELECT value, ts FROM vitals ORDER BY ts",
                "COMMIT",
                "SHOW server_version",
            ],
        )
        .await
    else {
        return;
    };
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("61|2026-03-01 00:00:00.000000+00"), "{said}");
    assert!(
        said.contains("62.5|2026-03-01 00:00:01.000000+00"),
        "{said}"
    );

    for describe in ["\\dt", "\\d", "\\d vitals", "\\dn", "\\l"] {
        let output = door.psql("ada", "token-of-ada", &[describe]).await.unwrap();
        let said = text(&output);
        assert!(output.status.success(), "{describe}: {said}");
        if describe.starts_with("\\d ") {
            assert!(
                said.contains("received_at") && said.contains("double precision"),
                "{said}"
            );
        } else if describe.starts_with("\\d") && describe.len() <= 3 && describe != "\\dn" {
            assert!(
                said.contains("vitals") && said.contains("patients"),
                "{describe}: {said}"
            );
        }
    }
    for sql in [
        "DROP TABLE vitals",
        "COPY vitals TO STDOUT",
        "EXPLAIN SELECT * FROM vitals",
        "SET datafusion.runtime.memory_limit = '1G'",
    ] {
        let output = door.psql("ada", "token-of-ada", &[sql]).await.unwrap();
        assert!(!output.status.success(), "{sql}: {}", text(&output));
        assert!(
            text(&output).contains("refused"),
            "{sql}: {}",
            text(&output)
        );
    }
    ward.audit.forget();
    let output = door.psql("ada", "wrong", &["SELECT 1"]).await.unwrap();
    assert!(
        text(&output).contains("authentication failed"),
        "{}",
        text(&output)
    );
    assert!(
        matches!(ward.audit.events().as_slice(), [AuditEvent::LoginFailed { user }] if user.as_str() == "ada"),
        "{:?}",
        ward.audit.events()
    );
}

#[tokio::test]
async fn both_protocol_paths_refuse_the_same() {
    let ward = Ward::open().await;
    let bed = ward.admit("icu-1", "Ada Lovelace", "ada").await;
    ward.measure(&bed, 0, &[61.0]).await;
    let door = Door::open(&ward).await;
    let client = door.connect("ada", "token-of-ada").await.unwrap();
    for sql in REFUSED {
        let simple = client.simple_query(sql).await.expect_err(sql);
        let extended = client.prepare(sql).await.expect_err(sql);
        for error in [simple, extended] {
            let (_, message) = told(&error);
            assert!(!message.contains(bed.patient.as_str()), "{sql}: {message}");
        }
    }
    // A statement in the shadow of another one is judged too, before either runs.
    ward.audit.forget();
    client
        .simple_query("SELECT * FROM vitals; DROP TABLE vitals")
        .await
        .unwrap_err();
    assert!(
        matches!(
            ward.audit.events().as_slice(),
            [AuditEvent::QueryRefused { .. }]
        ),
        "{:?}",
        ward.audit.events()
    );
    let rows = client
        .simple_query("SELECT count(*) FROM vitals")
        .await
        .unwrap();
    let count = rows.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    assert_eq!(count.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_driver_binds_parameters_and_gets_typed_rows() {
    let ward = Ward::open().await;
    let mine = ward.admit("icu-1", "Ada", "ada").await;
    let theirs = ward.admit("icu-2", "Bob", "bob").await;
    ward.measure(&mine, 0, &[61.0, 62.5]).await;
    ward.measure(&theirs, 0, &[99.0]).await;
    ward.flush().await;
    let door = Door::open(&ward).await;
    let client = door.connect("ada", "token-of-ada").await.unwrap();
    let sql = "SELECT value, device FROM vitals WHERE patient = $1 AND value > $2 ORDER BY value";
    let rows = client
        .query(sql, &[&mine.patient.as_str(), &61.5_f64])
        .await
        .unwrap();
    let got: Vec<(f64, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(got, [(62.5, "icu-1".to_owned())]);
    let rows = client
        .query(sql, &[&theirs.patient.as_str(), &0.0_f64])
        .await
        .unwrap();
    assert!(rows.is_empty());
    // Parameters are values, and values are not written down.
    let events = format!("{:?}", ward.audit.events());
    assert!(events.contains("patient = $1"), "{events}");
    assert!(!events.contains("61.5"), "{events}");

    // Bob's own session next to Ada's sees Bob's patient and nothing of hers.
    let bob = door.connect("bob", "token-of-bob").await.unwrap();
    let row = bob
        .query_one("SELECT count(*), max(value) FROM vitals", &[])
        .await
        .unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, f64>(1)), (1, 99.0));

    // The token ends and so does the session, though its connection is open.
    ward.tokens.revoked.store(true, Ordering::Relaxed);
    let error = client
        .query(sql, &[&mine.patient.as_str(), &0.0_f64])
        .await
        .unwrap_err();
    assert_eq!(told(&error).0, "28P01");
}

#[tokio::test]
async fn samples_are_arrays_and_envelopes_bytes_in_either_format() {
    let ward = Ward::open().await;
    let bed = ward.admit("icu-1", "Ada", "ada.md").await;
    let start = Timestamp::from_microsecond(START_US).unwrap();
    let period = Period::new(1_000_000, 250).unwrap();
    let samples = vec![0, 1, -3, 1_000_000_000];
    let signal = signal(PULSE_WAVEFORM).unwrap();
    let wave = Waveform::new(signal, start, period, 1.5e6, 0.25, samples).unwrap();
    ward.record(&bed, &wave).await;
    let expected: Vec<f64> = wave.readings().iter().map(|r| r.value).collect();
    let door = Door::open(&ward).await;
    let driver = door.connect("ada.md", "token-of-ada.md").await.unwrap();
    let sql =
        "SELECT w.samples, p.envelope FROM waveforms w JOIN provenance p USING (device, sequence)";
    let row = driver.query_one(sql, &[]).await.unwrap();
    assert_eq!(row.get::<_, Vec<f64>>(0), expected);
    let envelope: Vec<u8> = row.get(1);
    assert_eq!(
        AtRest::decode(&envelope).unwrap().header().device,
        bed.device
    );
    let Some(shown) = door.psql("ada.md", "token-of-ada.md", &[sql]).await else {
        return;
    };
    // The last one is not as PostgreSQL writes it (1.5e+15), and reads back as the same number.
    let line = format!(
        "{{0.25,1500000.25,-4499999.75,1500000000000000.2}}|\\x{}",
        hex::encode(&envelope)
    );
    assert_eq!(text(&shown).trim(), line);
}

#[tokio::test]
async fn without_tls_there_is_an_error_and_no_session() {
    let ward = Ward::open().await;
    let door = Door::open(&ward).await;
    let config = format!(
        "host=127.0.0.1 port={} user=ada password=token-of-ada dbname=vitalseal sslmode=disable",
        door.addr.port()
    );
    let error = tokio_postgres::connect(&config, NoTls)
        .await
        .err()
        .expect("no session");
    let (code, message) = told(&error);
    assert_eq!(code, "28000");
    assert!(message.contains("TLS"), "{message}");

    // Bytes put between the TLS request and the handshake are not a query afterwards.
    let mut tcp = TcpStream::connect(door.addr).await.unwrap();
    let mut stuffed = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f].to_vec();
    stuffed.extend_from_slice(b"Q\0\0\0\x0dSELECT 1\0");
    tcp.write_all(&stuffed).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(15), tcp.read_to_end(&mut answer)).await;
    read.expect("the server closed the connection").ok();
    assert_eq!(answer.first(), Some(&b'S'));
    assert!(
        !answer.contains(&b'T') && !answer.contains(&b'Z'),
        "{answer:?}"
    );
}

#[tokio::test]
async fn another_database_and_another_user_are_refused() {
    let ward = Ward::open().await;
    let door = Door::open(&ward).await;
    for (user, token) in [
        ("ada", ""),
        ("ada", "token-of-bob"),
        ("postgres", ""),
        ("A'; --", "x"),
    ] {
        let error = door.connect(user, token).await.expect_err("refused");
        if let Some(said) = error.as_db_error() {
            assert_eq!(said.message(), "authentication failed");
        }
    }
    let tcp = TcpStream::connect(door.addr).await.unwrap();
    let tls = door
        .client_tls()
        .connect(ServerName::try_from("localhost").unwrap(), tcp)
        .await
        .unwrap();
    let mut config = tokio_postgres::Config::new();
    config
        .user("ada")
        .password("token-of-ada")
        .dbname("postgres")
        .ssl_mode(SslMode::Disable);
    let error = config.connect_raw(tls, NoTls).await.err().expect("refused");
    assert_eq!(told(&error).0, "3D000");
}

#[tokio::test]
async fn a_query_ends_when_its_client_leaves_and_when_it_is_cancelled() {
    const ENDLESS: &str =
        "SELECT sum(v.value * s.value) FROM vitals v, generate_series(1, 100000000000) s";
    let ward = Ward::open().await;
    let bed = ward.admit("icu-1", "Ada", "ada").await;
    ward.measure(&bed, 0, &[61.0]).await;
    let door = Door::open(&ward).await;

    let (client, socket) = door.connect_with_task("ada", "token-of-ada").await.unwrap();
    let running = tokio::spawn(async move { client.simple_query(ENDLESS).await.map(|_| ()) });
    started(&ward).await;
    socket.abort();
    assert!(running.await.unwrap().is_err());
    finished(&ward).await;

    ward.audit.forget();
    let client = door.connect("ada", "token-of-ada").await.unwrap();
    let cancel = client.cancel_token();
    let running = tokio::spawn(async move { client.simple_query(ENDLESS).await.map(|_| ()) });
    started(&ward).await;
    let tcp = TcpStream::connect(door.addr).await.unwrap();
    cancel.cancel_query_raw(tcp, NoTls).await.unwrap();
    let error = running.await.unwrap().unwrap_err();
    assert_eq!(told(&error).0, "57014");
    finished(&ward).await;

    ward.audit.forget();
    let client = door.connect("ada", "token-of-ada").await.unwrap();
    let running = tokio::spawn(async move { client.simple_query(ENDLESS).await.map(|_| ()) });
    started(&ward).await;
    door.shutdown.cancel();
    assert!(running.await.unwrap().is_err());
    tokio::time::timeout(Duration::from_secs(10), door.served)
        .await
        .expect("stopped")
        .unwrap();
    finished(&ward).await;
}

async fn started(ward: &Ward) {
    wait(ward, |event| {
        matches!(event, AuditEvent::QueryStarted { .. })
    })
    .await;
    // Past planning and into the plan.
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn finished(ward: &Ward) {
    let cancelled = |event: &AuditEvent| {
        matches!(
            event,
            AuditEvent::QueryFinished {
                outcome: QueryOutcome::Cancelled,
                ..
            }
        )
    };
    wait(ward, cancelled).await;
}

async fn wait(ward: &Ward, wanted: impl Fn(&AuditEvent) -> bool) {
    for _ in 0..1_000 {
        if ward.audit.events().iter().any(&wanted) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not recorded: {:?}", ward.audit.events());
}
