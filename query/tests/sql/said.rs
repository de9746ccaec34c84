//! What the clear columns of stored rows say, where it is not what is sealed in them.

use jiff::{SignedDuration, Timestamp};
use vitalseal_crypto::ContentType;
use vitalseal_storage::catalog::FileKind;
use vitalseal_storage::ports::{AuditEvent, QueryOutcome};
use vitalseal_vitals::signal::PULSE_WAVEFORM;
use vitalseal_vitals::{Period, Reading, Waveform, senml, signal, waveform};

use crate::ward::{Bedside, START_US, Ward};

/// Files a message under the times of its readings five seconds later, and makes a chunk of it.
async fn misfile(ward: &Ward, bed: &Bedside, kind: ContentType, payload: &[u8], is: &[Reading]) {
    let (envelope, signed_hash) = ward.sealed_as(kind, bed, payload).await;
    let message = envelope.header().message_id();
    let later = |reading: &Reading| Reading {
        at: reading.at + SignedDuration::from_secs(5),
        ..*reading
    };
    let said: Vec<Reading> = is.iter().map(later).collect();
    let (patient, bytes) = (bed.patient.clone(), envelope.into_bytes());
    ward.put(patient, &message, signed_hash, &said, bytes).await;
    ward.flush().await;
    ward.compact().await;
    let files = ward.store.catalog.files().await.unwrap();
    assert!(files.iter().all(|file| file.kind == FileKind::Chunks));
}

#[tokio::test]
async fn a_chunk_whose_clear_columns_say_something_else_is_counted_and_ends_the_query() {
    let ward = Ward::open().await;
    let (one, two) = (
        ward.admit("icu-1", "Ada", "md").await,
        ward.admit("icu-2", "Bob", "md").await,
    );
    let start = Timestamp::from_microsecond(START_US).unwrap();
    let readings: Vec<Reading> = (0..4)
        .map(|second| Reading {
            signal: signal("8867-4").unwrap(),
            value: 60.0,
            at: start + SignedDuration::from_secs(second),
        })
        .collect();
    let payload = senml::encode(&readings);
    misfile(&ward, &one, ContentType::SenmlCbor, &payload, &readings).await;
    let pulse = signal(PULSE_WAVEFORM).unwrap();
    let period = Period::new(1_000_000, 250).unwrap();
    let wave = Waveform::new(pulse, start, period, 0.1, -3.0, (0..500).collect()).unwrap();
    let payload = waveform::encode(&wave);
    misfile(
        &ward,
        &two,
        ContentType::Waveform,
        &payload,
        &wave.readings(),
    )
    .await;

    for (table, inside) in [("vitals", 4), ("waveforms", 500)] {
        ward.audit.forget();
        let sql = format!("SELECT count(*) FROM {table}");
        let error = ward.ask("md", &sql).await.unwrap_err();
        let (code, text) = error.client_message();
        assert_eq!(code, "XX001", "{table}: {text}");
        assert!(text.contains("vitalseal store check"), "{table}: {text}");
        let events = ward.audit.events();
        let Some(AuditEvent::QueryFinished {
            outcome,
            readings,
            first_at,
            ..
        }) = events.last()
        else {
            panic!("{events:?}");
        };
        assert_eq!(*outcome, QueryOutcome::Failed);
        assert_eq!((*readings, *first_at), (inside, Some(start)), "{table}");
    }
    // What is never opened is compared with nothing: whoever alters columns can hide a chunk, until the store is checked.
    let sql = "SELECT count(*) FROM vitals WHERE ts < '2026-03-01T00:00:04Z'";
    assert_eq!(ward.number("md", sql).await, 0);
}
