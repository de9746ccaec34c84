//! What `vitalseal store status` shows: counts, bytes and times; no patient, no reading.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use vitalseal_storage::catalog::DataFile;
use vitalseal_storage::{SetAside, Store};

use crate::config::Config;

/// A store, as it is now.
#[derive(Debug, Serialize)]
pub(crate) struct StatusView {
    /// Number of the present set of files.
    snapshot: u64,
    /// Where data files are.
    place: String,
    registry: String,
    messages: u64,
    readings: u64,
    bytes: u64,
    files: Vec<FilesView>,
    inbox: InboxView,
    /// Files that others replaced, and that go when no query can read them any more.
    waiting: WaitingView,
    /// Damaged files that repairs kept.
    set_aside: SetAside,
    erasures: ErasuresView,
    retention: Value,
    losses: Vec<vitalseal_storage::Loss>,
    free_bytes: u64,
    reserve_bytes: u64,
    is_full: bool,
}

/// Files of one table, kind and level.
#[derive(Debug, Serialize)]
struct FilesView {
    table: &'static str,
    kind: &'static str,
    level: u8,
    files: u64,
    bytes: u64,
    rows: u64,
    messages: u64,
    readings: u64,
    first_at: Timestamp,
    last_at: Timestamp,
}

#[derive(Debug, Serialize)]
struct InboxView {
    messages: u64,
    bytes: u64,
    /// When the oldest of them came.
    oldest: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct WaitingView {
    files: u64,
    bytes: u64,
    since: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct ErasuresView {
    erased: u64,
    /// Of whom ciphertext, which opens for nobody, is still in a file.
    not_dropped: u64,
    newest_dropped_at: Option<Timestamp>,
}

impl StatusView {
    pub(super) async fn of(store: &Store, config: &Config) -> anyhow::Result<Self> {
        let (messages, bytes) = store.inbox.pending().await?;
        let inbox = InboxView {
            messages,
            bytes,
            oldest: store.inbox.oldest().await?,
        };
        let snapshot = store.catalog.current().await?;
        let ended = store.catalog.ended().await?;
        let stones = store.catalog.tombstones().await?;
        let of_files = |of: fn(&DataFile) -> u64| snapshot.files.iter().map(of).sum::<u64>();
        Ok(Self {
            snapshot: snapshot.id.0,
            place: store.files.place().to_owned(),
            registry: store.paths().registry_name(),
            messages: of_files(|file| file.messages),
            readings: of_files(|file| file.readings),
            bytes: of_files(|file| file.size),
            files: by_kind(&snapshot.files),
            inbox,
            waiting: WaitingView {
                files: u64::try_from(ended.len())?,
                bytes: ended.iter().map(|file| file.size).sum(),
                since: ended.iter().map(|file| file.ended_at).min(),
            },
            set_aside: store.set_aside_files()?,
            erasures: ErasuresView {
                erased: u64::try_from(stones.len())?,
                not_dropped: u64::try_from(
                    stones
                        .iter()
                        .filter(|stone| stone.dropped_at.is_none())
                        .count(),
                )?,
                newest_dropped_at: stones.iter().filter_map(|stone| stone.dropped_at).max(),
            },
            retention: json!(config.retention),
            losses: store.catalog.losses().await?,
            free_bytes: store.space.free_bytes()?,
            reserve_bytes: u64::from(config.storage.reserve_mib) << 20,
            is_full: store.space.is_full(),
        })
    }
}

fn by_kind(files: &[DataFile]) -> Vec<FilesView> {
    let mut sums: BTreeMap<_, FilesView> = BTreeMap::new();
    for file in files {
        let sum = sums
            .entry((file.table, file.kind, file.level))
            .or_insert_with(|| FilesView {
                table: file.table.as_str(),
                kind: file.kind.as_str(),
                level: file.level,
                files: 0,
                bytes: 0,
                rows: 0,
                messages: 0,
                readings: 0,
                first_at: file.first_at,
                last_at: file.last_at,
            });
        sum.files += 1;
        sum.bytes += file.size;
        sum.rows += file.rows;
        sum.messages += file.messages;
        sum.readings += file.readings;
        sum.first_at = sum.first_at.min(file.first_at);
        sum.last_at = sum.last_at.max(file.last_at);
    }
    sums.into_values().collect()
}
