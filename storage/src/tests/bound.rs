//! Other evidence beside a chunk's readings, put there by somebody who has the store's key and no patient's: columns and
//! evidence agree, every signature holds, and the readings tell.

use vitalseal_crypto::{AtRest, BlobKey, default_backend, seal_blob};

use super::compact::{compact_all, forced};
use super::sealed::{Monitor, batches};
use super::*;
use crate::catalog::{Change, ChangeKind, FileKind, TableKind};
use crate::check::{CheckOptions, Cost};
use crate::chunk::{ChunkRow, Devices, EvidenceBuilder, MessageMeta};
use crate::compact::{CompactionSettings, context, open_evidence};
use crate::progress::Unwatched;
use crate::schema;

/// Two chunks of one patient and one bucket, each of one message, of the same seconds, in a file of its own.
async fn two_chunks(store: &Store) -> [ChunkRow; 2] {
    let subject = patient(store).await;
    let at_once = CompactionSettings {
        flushed_files: 1,
        ..CompactionSettings::default()
    };
    for device in [1, 2] {
        let monitor = Monitor::enrol(store, device).await;
        let message = monitor.vitals(store, &subject, 0, (0, 61), 60).await;
        store.inbox.admit(message).await.unwrap();
        store.flush(at(100)).await.unwrap();
        let merged = store.compact(at(200), &at_once, &Unwatched).await.unwrap();
        assert_eq!((merged.files_in, merged.chunks), (1, 1));
    }
    let [first, second] = &stored(store).await[..] else {
        panic!("two chunks");
    };
    let place = |chunk: &ChunkRow| (chunk.bucket_start_us, chunk.first_at_us, chunk.last_at_us);
    assert_eq!(place(first), place(second));
    assert_eq!(first.subject, second.subject);
    [first.clone(), second.clone()]
}

/// The chunk of each file, in the order of the files.
async fn stored(store: &Store) -> Vec<ChunkRow> {
    let mut chunks = Vec::new();
    for file in &*store.catalog.files().await.unwrap() {
        assert_eq!(file.kind, FileKind::Chunks);
        for batch in batches(store, file).await {
            let rows = 0..batch.num_rows();
            chunks.extend(rows.map(|row| ChunkRow::read(&batch, row).unwrap()));
        }
    }
    chunks
}

/// Replaces all files by one for each of these chunks.
async fn put(store: &Store, chunks: &[ChunkRow]) {
    let mut written = Vec::new();
    for chunk in chunks {
        let batch = ChunkRow::record_batch(std::slice::from_ref(chunk)).unwrap();
        let shape = (TableKind::Vitals, FileKind::Chunks, 1);
        written.extend(store.write(shape, vec![batch], at(300)).await.unwrap());
    }
    let files = store.catalog.files().await.unwrap();
    let end = files.iter().map(|file| file.path.clone()).collect();
    let change = Change::new(ChangeKind::Compaction, &written, end, default_backend());
    store
        .commit(change.unwrap(), written, at(300))
        .await
        .unwrap();
}

/// The chunk's readings beside the other one's evidence, and what its columns say of that.
fn beside(chunk: &ChunkRow, other: &ChunkRow) -> ChunkRow {
    ChunkRow {
        sealed: chunk.sealed.clone(),
        ..other.clone()
    }
}

/// The same message, said to have come a second later.
async fn dated_later(store: &Store, chunk: &ChunkRow) -> ChunkRow {
    let (backend, keys) = (default_backend(), store.keys.store_keys().await.unwrap());
    let evidence = open_evidence(chunk, TableKind::Vitals, &keys, backend).unwrap();
    let (mut later, mut devices) = (EvidenceBuilder::new(), Devices::default());
    for (noted, envelope) in evidence.messages() {
        let mut noted = *noted;
        noted.received_at_us += 1_000_000;
        later.push(&noted, envelope);
        let envelope = AtRest::decode(envelope).unwrap();
        let header = envelope.header();
        let message = MessageMeta {
            device: header.device.clone(),
            boot: header.boot,
            sequence: header.sequence,
            received_at_us: noted.received_at_us,
        };
        let measured = (noted.first_at_us, noted.last_at_us);
        devices.add(&message, noted.readings.into(), measured.0, measured.1);
    }
    let place = context(TableKind::Vitals, chunk, schema::EVIDENCE);
    let (plain, key) = (later.finish().unwrap(), BlobKey::Store(keys.current()));
    ChunkRow {
        received_first_us: chunk.received_first_us + 1_000_000,
        received_last_us: chunk.received_last_us + 1_000_000,
        devices,
        evidence: seal_blob(&plain, key, &place, backend).unwrap(),
        ..chunk.clone()
    }
}

#[tokio::test]
async fn evidence_that_readings_were_not_made_of_is_found_by_a_check_and_merged_with_nothing() {
    const OTHER: &str = "its readings were made of other evidence than lies beside them";
    const MESSAGES: &str = "its readings came in other messages than its evidence holds";
    let site = Site::new();
    let store = site.create().await;
    let [one, two] = two_chunks(&store).await;
    let swapped = [beside(&one, &two), beside(&two, &one)];
    let dated = [dated_later(&store, &one).await, two.clone()];
    for (chunks, faults, refused) in [
        (
            &swapped,
            &[OTHER, MESSAGES, OTHER, MESSAGES][..],
            &swapped[..],
        ),
        (&dated, &[OTHER], &dated[..1]),
    ] {
        put(&store, chunks).await;
        for keys in [false, true] {
            let options = CheckOptions {
                keys,
                authorities: Vec::new(),
            };
            let report = store.check(&options, &Unwatched).await.unwrap();
            let found: Vec<_> = report.damage.iter().map(|it| it.fault.as_str()).collect();
            assert_eq!(found, if keys { faults } else { &[] });
            assert!(report.damage.iter().all(|it| it.cost == Cost::Doubt));
        }
        let merged = store.compact(at(300), &forced(), &Unwatched).await.unwrap();
        assert_eq!((merged.sealed, merged.messages), (refused.len() as u64, 2));
        let after = stored(&store).await;
        assert_eq!(after.len(), 2);
        let is_kept = |chunk: &ChunkRow| after.contains(chunk);
        assert!(refused.iter().all(is_kept), "what is doubted was changed");
    }

    // As they were, they are merged.
    put(&store, &[one, two]).await;
    compact_all(&store, 300).await;
    assert_eq!(stored(&store).await.len(), 1);
}
