//! A row is in the inbox or in a file, never in neither, never counted twice.

use arrow::array::AsArray as _;
use arrow::datatypes::Int64Type;
use futures::TryStreamExt as _;

use super::sealed::Monitor;
use super::*;
use crate::catalog::TableKind;
use crate::crash::CrashPoint;
use crate::inbox::Judgement;

/// Sequences that a reader sees: hot ones, and those in files.
pub(super) async fn visible(store: &Store, subject: &SubjectPseudonym) -> Vec<i64> {
    let cut = store.cut(&authorized(&[subject])).await.unwrap();
    let column = |batch: &arrow::record_batch::RecordBatch| {
        batch
            .column_by_name("sequence")
            .unwrap()
            .as_primitive::<Int64Type>()
            .values()
            .to_vec()
    };
    let mut seen = column(&cut.hot);
    for file in cut.files.iter() {
        let bytes = store.files.bytes(file.path.as_ref()).await.unwrap();
        assert_eq!(u64::try_from(bytes.len()).unwrap(), file.size);
        let schema = crate::schema::sealed_rows();
        let columns: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        let batches: Vec<_> = store
            .files
            .batches(file, &columns, 7)
            .try_collect()
            .await
            .unwrap();
        for batch in batches {
            assert_eq!(batch.schema().fields(), schema.fields());
            seen.extend(column(&batch));
        }
    }
    seen.sort_unstable();
    seen
}

#[tokio::test]
async fn a_flush_moves_every_row_once_and_names_nobody() {
    let site = Site::new();
    let store = site.create().await;
    let (a, b) = (patient(&store).await, patient(&store).await);
    assert_eq!(store.flush(at(5)).await.unwrap().files, []);
    for n in 0..40 {
        store
            .inbox
            .admit(admission(if n % 2 == 0 { &a } else { &b }, n))
            .await
            .unwrap();
    }
    let report = store.flush(at(100)).await.unwrap();
    let [file] = report.files.as_slice() else {
        panic!("one table has rows, so one file: {report:?}");
    };
    assert_eq!(
        (file.messages, file.readings, report.more),
        (40, 120, false)
    );
    let name = &file.name;
    assert_eq!(site.parquet_files(), [name.as_str()]);
    assert!(!name.contains(a.as_str()) && !name.contains(b.as_str()));
    // Row numbers go on after the inbox was emptied: what comes next is above the watermark.
    store.inbox.admit(admission(&a, 40)).await.unwrap();
    let even: Vec<i64> = (0..=40).step_by(2).collect();
    let all: Vec<i64> = (0..=40).collect();
    let hot = store.cut(&authorized(&[&a])).await.unwrap().hot;
    assert_eq!(hot.num_rows(), 1);
    let mut seen = visible(&store, &a).await;
    assert_eq!(
        seen, all,
        "files hold both patients; selecting is the reader's part"
    );
    seen.retain(|n| n % 2 == 0);
    assert_eq!(seen, even);
    let file = store.catalog.files().await.unwrap()[0].clone();
    assert_eq!((file.first_at, file.last_at), (at(-60), at(39)));
    assert_eq!(
        (file.received_first_at, file.received_last_at),
        (at(1), at(40))
    );
}

#[tokio::test]
async fn a_crash_at_any_step_loses_nothing_and_doubles_nothing() {
    for point in [
        CrashPoint::FlushPlanned,
        CrashPoint::FileHalfWritten,
        CrashPoint::FileRenamed,
        CrashPoint::FlushCatalogued,
    ] {
        let site = Site::new();
        let store = site.create().await;
        let subject = patient(&store).await;
        for n in 0..30 {
            store.inbox.admit(admission(&subject, n)).await.unwrap();
        }
        let all: Vec<i64> = (0..30).collect();
        store.crash().arm(point);
        assert!(store.flush(at(60)).await.is_err());
        // The running store shows each row once, whatever step it stopped at.
        assert_eq!(visible(&store, &subject).await, all, "{point:?}");
        let after_catalog = point == CrashPoint::FlushCatalogued;
        let copy = site.power_cut();
        if matches!(point, CrashPoint::FileHalfWritten | CrashPoint::FileRenamed) {
            assert_eq!(copy.parquet_files().len(), 1, "{point:?} leaves an orphan");
        }

        let opened = copy.open().await.unwrap();
        assert_eq!(visible(&opened, &subject).await, all, "{point:?}");
        let expected = if after_catalog { (0, 1) } else { (30, 0) };
        let pending = opened.inbox.pending().await.unwrap().0;
        assert_eq!((pending, copy.parquet_files().len()), expected, "{point:?}");
        assert_eq!(
            opened.inbox.admit(admission(&subject, 3)).await.unwrap(),
            Judgement::Duplicate
        );
        opened.flush(at(90)).await.unwrap();
        assert_eq!(visible(&opened, &subject).await, all, "{point:?}");
        assert_eq!(
            (
                opened.inbox.pending().await.unwrap().0,
                copy.parquet_files().len()
            ),
            (0, 1)
        );
    }
}

/// Of a planned file a flush that was interrupted left something, and opening removes it.
#[tokio::test]
async fn a_name_that_leads_elsewhere_is_refused_and_what_is_there_is_left_alone() {
    let site = Site::new();
    site.create().await.close().await;
    let victim = site.dir.path().join("victim");
    fs::write(&victim, "of somebody else").unwrap();
    let db = site.database().await;
    let absolute = victim.to_str().unwrap();
    for name in [
        "../../victim",
        absolute,
        "",
        "r-0123456789abcdef0123456789ABCDEF.parquet",
        "r-0123456789abcdef0123456789abcdef.parquet/../../../victim",
    ] {
        for state in ["planned", "live"] {
            sqlx::query(
                "INSERT INTO data_files (file, state, written_at_us, tbl, kind, level, encrypted, size, \
                 row_count, messages, readings, first_at_us, last_at_us, received_first_at_us, \
                 received_last_at_us, begin_snapshot) \
                 VALUES ($1, $2, 0, 'vitals', 'rows', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)",
            )
            .bind(name)
            .bind(state)
            .execute(db.pool())
            .await
            .unwrap();
            let refused = chain(&site.open().await.unwrap_err());
            assert!(refused.contains("no name of a data file"), "{refused}");
            assert!(victim.exists(), "{name} {state}");
            sqlx::query("DELETE FROM data_files")
                .execute(db.pool())
                .await
                .unwrap();
        }
    }
    db.close().await;
    site.open().await.unwrap();
}

#[tokio::test]
async fn a_file_that_the_catalog_never_planned_is_left_alone() {
    let site = Site::new();
    site.create().await.close().await;
    let stranger = site
        .data()
        .join("parquet")
        .join("r-of-a-newer-registry.parquet");
    fs::write(&stranger, b"PAR1").unwrap();
    let store = site.open().await.unwrap();
    assert!(stranger.exists());
    assert!(store.catalog.files().await.unwrap().is_empty());
}

#[tokio::test]
async fn holdings_count_inbox_and_files_by_arrival_without_opening_anything() {
    let site = Site::new();
    let store = site.create().await;
    let (a, b) = (patient(&store).await, patient(&store).await);
    for n in 0..10 {
        store.inbox.admit(admission(&a, n)).await.unwrap();
    }
    store.flush(at(50)).await.unwrap();
    for n in 10..15 {
        store.inbox.admit(admission(&a, n)).await.unwrap();
        let mut elsewhere = admission(&b, n);
        elsewhere.message.device = device(2);
        store.inbox.admit(elsewhere).await.unwrap();
    }
    let whole = store
        .catalog
        .holdings(None, None, at(0), at(1_000))
        .await
        .unwrap();
    let sums: u64 = whole.iter().map(|h| h.messages).sum();
    assert_eq!((whole.len(), sums), (2, 20));
    // Arrival is sequence + 1: [at(8), at(13)) is sequences 7 to 11, across file and inbox.
    let devices = BTreeSet::from([device(1)]);
    let part = store
        .catalog
        .holdings(None, Some(&devices), at(8), at(13))
        .await
        .unwrap();
    assert_eq!(part.len(), 1);
    assert_eq!(
        (part[0].subject.clone(), part[0].messages, part[0].readings),
        (a.clone(), 5, 15)
    );
    assert_eq!((part[0].first_at, part[0].last_at), (at(7 - 60), at(11)));
    let only_b = BTreeSet::from([b.clone()]);
    assert_eq!(
        store
            .catalog
            .holdings(Some(&only_b), Some(&devices), at(0), at(99))
            .await
            .unwrap(),
        []
    );
    let nobody = BTreeSet::new();
    assert_eq!(
        store
            .catalog
            .holdings(Some(&nobody), None, at(0), at(99))
            .await
            .unwrap(),
        []
    );
    // A flush that stopped after the catalog must not make the same rows count twice.
    store.crash().arm(CrashPoint::FlushCatalogued);
    assert!(store.flush(at(60)).await.is_err());
    assert_eq!(
        store
            .catalog
            .holdings(None, None, at(0), at(1_000))
            .await
            .unwrap(),
        whole
    );
}

#[tokio::test]
async fn a_flush_that_failed_leaves_no_file_for_the_next_one_to_stumble_over() {
    let site = Site::new();
    let store = site.create().await;
    let subject = patient(&store).await;
    store.inbox.admit(admission(&subject, 1)).await.unwrap();
    store.crash().arm(CrashPoint::FileRenamed);
    store.flush(at(5)).await.unwrap_err();
    assert_eq!(site.parquet_files().len(), 1);
    // The store lives on: the same process flushes again, past the point where it failed.
    store.crash().arm(CrashPoint::TreeCommitted);
    assert_eq!(store.flush(at(6)).await.unwrap().files[0].messages, 1);
    assert_eq!(site.parquet_files().len(), 1);
    assert_eq!(visible(&store, &subject).await, [1]);
}

#[tokio::test]
async fn a_flush_writes_a_file_for_each_table() {
    let site = Site::new();
    let store = site.create().await;
    let subject = patient(&store).await;
    let monitor = Monitor::enrol(&store, 1).await;
    let vitals = monitor.vitals(&store, &subject, 1, (0, 61), 60).await;
    let wave = monitor.wave(&store, &subject, 2, (0, 2)).await;
    for message in [vitals, wave] {
        store.inbox.admit(message).await.unwrap();
    }
    let report = store.flush(at(100)).await.unwrap();
    assert_eq!(
        (report.files.len(), report.messages(), report.more),
        (2, 2, false)
    );
    let files = store.catalog.files().await.unwrap();
    let mut tables: Vec<_> = files
        .iter()
        .map(|file| (file.table, file.readings))
        .collect();
    tables.sort();
    assert_eq!(
        tables,
        [(TableKind::Vitals, 60), (TableKind::Waveforms, 100)]
    );
    assert_eq!(visible(&store, &subject).await, [1, 2]);
}
