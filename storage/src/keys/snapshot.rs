//! Key snapshots: the key tree by itself, at every configured place, so that data of any age and the newest tree make
//! a store again.
//!
//! A copy of the data directory from before an erasure needs a root that the erasure destroyed. What it lacks is small:
//! the wraps of today's tree, which lead to today's root and to nobody who was erased. A snapshot is that, the ledger of
//! erasures, and the devices that are suspended or revoked. [`write`] brings it to every place and reads it back before an old root
//! dies; [`join`] puts it in the place of an older tree, and the ledger with it, before anything opens. A registry of the
//! same root gets from it what it lacks ([`regain`]).
//!
//! What never stands in a snapshot: a key that is not wrapped, an identity, a pseudonym outside of what is sealed. It is
//! worth nothing without the root, and one of a destroyed root is worth nothing to anybody: the newest two are kept.
//!
//! Only pages that changed since the last snapshot of a place are written there; of one patient's erasure among a
//! million that is one in a thousand.

mod format;
mod join;
mod joined;
mod own;
mod place;
mod regain;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use sqlx::Connection as _;
use vitalseal_crypto::{KeyEpoch, RootKey};

pub(super) use self::format::Check;
use self::format::{Body, Header, Opened, PageFile};
pub use self::join::JoinRefused;
pub(crate) use self::join::{join, places, secret};
pub use self::joined::Joined;
pub(crate) use self::joined::is_joined;
use self::own::Own;
use self::place::Place;
pub use self::place::SnapshotId;
use self::rows::Null;
use super::age::Marks;
use super::tree::current_root;
use super::{Inner, KeyError, KeyStore, RootError, RootProvider};
use crate::database::damaged;
use crate::durable::FileError;

/// A table, or the part of it that a snapshot takes along.
struct Table {
    name: &'static str,
    read: &'static str,
    write: &'static str,
    /// Cells whose NULLs are not those of numbers.
    nulls: &'static [(usize, Null)],
}

const PAGES: &str = "key_pages";

const ROOTS: Table = Table {
    name: "root_epochs",
    read: "SELECT epoch, provider, blob, started_at_us, destroyed_at_us FROM root_epochs ORDER BY epoch",
    write: "INSERT INTO root_epochs (epoch, provider, blob, started_at_us, destroyed_at_us, state) \
            VALUES ($1, $2, $3, $4, $5, 'destroyed') ON CONFLICT (epoch) DO UPDATE SET \
            provider = excluded.provider, blob = excluded.blob, started_at_us = excluded.started_at_us, \
            destroyed_at_us = COALESCE(excluded.destroyed_at_us, root_epochs.destroyed_at_us)",
    nulls: &[],
};

const KEY_PAGES: Table = Table {
    name: PAGES,
    read: "SELECT page, purpose, keks, generation, root_epoch, wrapped, created_at_us FROM key_pages ORDER BY page",
    write: "INSERT INTO key_pages (page, purpose, keks, generation, root_epoch, wrapped, created_at_us) \
            VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (page) DO UPDATE SET \
            purpose = excluded.purpose, keks = excluded.keks, generation = excluded.generation, \
            root_epoch = excluded.root_epoch, wrapped = excluded.wrapped, created_at_us = excluded.created_at_us",
    nulls: &[],
};

/// In a file for each page.
const KEKS: Table = Table {
    name: "keks",
    read: "SELECT kid, subject, wrapped, created_at_us, retired_at_us FROM keks WHERE page = $1 ORDER BY kid",
    write: "INSERT INTO keks (kid, subject, wrapped, created_at_us, retired_at_us, page) \
            VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (kid) DO UPDATE SET \
            subject = excluded.subject, wrapped = excluded.wrapped, created_at_us = excluded.created_at_us, \
            retired_at_us = excluded.retired_at_us, page = excluded.page",
    nulls: &[],
};

const SECRETS: Table = Table {
    name: "secrets",
    read: "SELECT name, sealed FROM secrets ORDER BY name",
    write: "INSERT INTO secrets (name, sealed) VALUES ($1, $2)",
    nulls: &[],
};

const RECIPIENTS: Table = Table {
    name: "recipients",
    read: "SELECT epoch, kid, certificate, not_before_us, not_after_us, wrapped, blob FROM recipients ORDER BY epoch",
    write: "INSERT INTO recipients (epoch, kid, certificate, not_before_us, not_after_us, wrapped, blob) \
            VALUES ($1, $2, $3, $4, $5, $6, $7)",
    nulls: &[(5, Null::Blob), (6, Null::Blob)],
};

/// Without `completed_at_us`: whoever replays it still has the patient's inbox rows to delete.
const LEDGER: Table = Table {
    name: "erasure_ledger",
    read: "SELECT erasure_id, subject, erased_at_us, root_epoch_destroyed, root_epoch, page, keks_rewrapped, \
           pages_rewrapped, kek_kids, root_provider FROM erasure_ledger ORDER BY root_epoch",
    write: "INSERT INTO erasure_ledger (erasure_id, subject, erased_at_us, root_epoch_destroyed, root_epoch, page, \
            keks_rewrapped, pages_rewrapped, kek_kids, root_provider) \
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING",
    nulls: &[],
};

/// A device that was shut out must not come back, even where it was never heard of.
const CERTIFICATES: Table = Table {
    name: "device_certificates",
    read: "SELECT c.thumbprint, c.device, c.der, c.enrolled_at_us FROM device_certificates c \
           JOIN devices d ON d.device = c.device WHERE d.state <> 'active' ORDER BY c.device, c.thumbprint",
    write: "INSERT INTO device_certificates (thumbprint, device, der, enrolled_at_us) VALUES ($1, $2, $3, $4) \
            ON CONFLICT DO NOTHING",
    nulls: &[],
};

/// A device that is suspended here and not in the snapshot stays so: whether it was reinstated since is not known. One
/// that was reinstated here after the snapshot's suspension stays active.
const SHUT_OUT: Table = Table {
    name: "devices",
    read: "SELECT device, certificate, enrolled_at_us, state, state_since_us, state_reason FROM devices \
           WHERE state <> 'active' ORDER BY device",
    write: "INSERT INTO devices (device, certificate, enrolled_at_us, state, state_since_us, state_reason) \
            VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (device) DO UPDATE SET state = excluded.state, \
            state_since_us = excluded.state_since_us, state_reason = excluded.state_reason \
            WHERE devices.state <> 'revoked' AND devices.state <> excluded.state \
            AND (excluded.state = 'revoked' OR devices.state_since_us <= excluded.state_since_us)",
    nulls: &[(5, Null::Text)],
};

/// Displays and services are revoked for ever.
const SUBSCRIBERS_OUT: Table = Table {
    name: "subscribers",
    read: "SELECT subscriber, der, enrolled_at_us, revoked_at_us, revoked_reason FROM subscribers \
           WHERE revoked_at_us IS NOT NULL ORDER BY subscriber",
    write: "INSERT INTO subscribers (subscriber, der, enrolled_at_us, revoked_at_us, revoked_reason) \
            VALUES ($1, $2, $3, $4, $5) ON CONFLICT (subscriber) DO UPDATE SET \
            revoked_at_us = excluded.revoked_at_us, revoked_reason = excluded.revoked_reason \
            WHERE subscribers.revoked_at_us IS NULL",
    nulls: &[(4, Null::Text)],
};

/// What the sealed body of a manifest holds.
const TABLES: [Table; 8] = [
    ROOTS,
    KEY_PAGES,
    SECRETS,
    RECIPIENTS,
    LEDGER,
    CERTIFICATES,
    SHUT_OUT,
    SUBSCRIBERS_OUT,
];

/// A key snapshot could not be written, read or believed. No text here holds key material or a pseudonym.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Cut short, altered, or of another version.
    #[error("{0} is not a whole key snapshot file of this version: damaged, cut short or altered")]
    Damaged(PathBuf),
    /// Whole, but not sealed by the store's keys.
    #[error(
        "{0} does not open under the keys that it names: forged, or these root keys are another store's"
    )]
    Forged(PathBuf),
    /// Somebody else writes snapshots of this store.
    #[error("{0} is of a root that this store does not know: another copy of this store wrote it")]
    Foreign(PathBuf),
    /// A disk is not mounted, or there is nothing at the place yet.
    #[error(
        "{0} is no directory here: is its disk mounted? If the place or its disk is new, make that directory (`mkdir`)"
    )]
    Away(PathBuf),
    /// Its root could not be loaded.
    #[error("loading the root key of the snapshot")]
    Root(#[from] RootError),
    /// A key could not be wrapped or sealed.
    #[error("sealing keys for the snapshot")]
    Crypto(#[from] vitalseal_crypto::keys::KeyError),
    /// Rows could not be written as JSON.
    #[error("writing rows of the snapshot")]
    Encode(#[from] serde_json::Error),
    /// The file system failed.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A snapshot that was written, and read back, at every place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotReport {
    /// The root that it is sealed under.
    pub root_epoch: KeyEpoch,
    /// Counts the snapshots under this root.
    pub serial: u64,
    /// When.
    pub taken_at: Timestamp,
    /// The places that have it; empty when none is configured.
    pub places: Vec<PathBuf>,
}

/// A place for snapshots, as it is found.
#[derive(Debug)]
pub struct SnapshotPlace {
    /// The directory.
    pub place: PathBuf,
    /// The newest snapshot there and when it was taken, as it says itself; `None`: there is none.
    pub newest: Result<Option<(SnapshotId, Timestamp)>, SnapshotError>,
}

impl KeyStore {
    /// Whether any place is configured.
    pub(crate) fn has_snapshot_places(&self) -> bool {
        !self.inner.places.is_empty()
    }

    /// Writes a snapshot of the key tree to every configured place, and reads it back. Page files that are there already
    /// are read too, and replaced where a disk lost or changed a byte.
    ///
    /// # Errors
    /// [`KeyError::Snapshot`] when a place does not take it, [`KeyError::Overtaken`] when another copy of the store
    /// turned the tree.
    pub async fn snapshot(&self, now: Timestamp) -> Result<SnapshotReport, KeyError> {
        self.write_snapshot(Check::Digests, now).await
    }

    /// [`KeyStore::snapshot`] of what changed since the last one: page files that are there already are not read again.
    ///
    /// # Errors
    /// As [`KeyStore::snapshot`].
    pub async fn snapshot_changes(&self, now: Timestamp) -> Result<SnapshotReport, KeyError> {
        self.write_snapshot(Check::Lengths, now).await
    }

    async fn write_snapshot(
        &self,
        check: Check,
        now: Timestamp,
    ) -> Result<SnapshotReport, KeyError> {
        let inner = Arc::clone(&self.inner);
        let writing = tokio::spawn(async move {
            let _alone = inner.turning.lock().await;
            write(&inner, check, now).await
        });
        writing.await?
    }

    /// What each configured place holds.
    ///
    /// # Errors
    /// When the registry cannot be read; a place that cannot be is told in its own row.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotPlace>, KeyError> {
        let mut conn = self.inner.db.pool().acquire().await?;
        let own = Own::read(&mut conn).await?;
        let places = self.inner.places.clone();
        let look = move || {
            places
                .into_iter()
                .map(|place| look_at(place, &own))
                .collect()
        };
        Ok(tokio::task::spawn_blocking(look).await?)
    }
}

fn look_at(place: PathBuf, own: &Own) -> SnapshotPlace {
    let store = own.place(&place);
    let newest = store.newest().and_then(|id| {
        let header = id.map(|id| format::header(&store, &own.store_id, id));
        Ok(header
            .transpose()?
            .map(|header| (header.id(), header.taken_at)))
    });
    SnapshotPlace { place, newest }
}

/// Refuses when another copy of this store turned the tree: its root or its snapshots show it. To go on would write a
/// tree and a ledger without its erasures. A place that is away cannot tell; it holds up the end of the old root.
pub(super) async fn refuse_if_overtaken(inner: &Inner) -> Result<(), KeyError> {
    let mut conn = inner.db.pool().acquire().await?;
    let (epoch, blob) = current_root(&mut conn).await?;
    let own = Own::read(&mut conn).await?;
    drop(conn);
    inner.load_current_root(epoch, blob).await?;
    for place in &inner.places {
        let (store, own) = (own.place(place), own.clone());
        let looked = inner.at(place, move |_| store.refuse_foreign(&own.roots));
        match looked.await {
            Ok(()) | Err(KeyError::Snapshot { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Brings one consistent cut of the tree to every place, in full or by what changed, and reads it back. Nothing that an
/// older snapshot needs is touched before that. A place that is away does not keep it from the others: by them another
/// copy of the store sees that the tree turned.
pub(super) async fn write(
    inner: &Inner,
    check: Check,
    now: Timestamp,
) -> Result<SnapshotReport, KeyError> {
    let mut conn = inner.db.fresh_connection().await?;
    // One read transaction: every row below is of one instant.
    let mut cut = conn.begin().await?;
    let (root_epoch, blob) = current_root(&mut cut).await?;
    let mut report = SnapshotReport {
        root_epoch,
        serial: 1,
        taken_at: now,
        places: inner.places.clone(),
    };
    if inner.places.is_empty() {
        return Ok(report);
    }
    let own = Own::read(&mut cut).await?;
    let marks = Marks::of(&mut cut).await?;
    let root_blob = hex::encode(&blob);
    let root = Arc::new(inner.load_current_root(root_epoch, blob).await?);
    let mut tables = BTreeMap::new();
    for table in TABLES {
        let rows = rows::read(table.read, None, &mut cut).await?;
        tables.insert(table.name.to_owned(), rows);
    }
    let files = BTreeMap::new();
    let tree = Body { tables, files };

    let mut away = None;
    let mut drafts = Vec::with_capacity(inner.places.len());
    for place in &inner.places {
        let (store, own) = (own.place(place), own.clone());
        let begin =
            move |roots: &dyn RootProvider| Draft::begin(store, own, root_epoch, check, roots);
        match inner.at(place, begin).await {
            Ok(draft) => drafts.push((place, draft)),
            Err(error @ KeyError::Snapshot { .. }) => away = away.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    for page in tree.pages() {
        let page = page.map_err(damaged)?;
        let mut sealed: Option<Arc<[u8]>> = None;
        for (place, draft) in drafts.iter_mut().filter(|_| page.of_patients) {
            if draft.takes_over(page.page, page.generation) {
                continue;
            }
            let bytes = match &sealed {
                Some(bytes) => Arc::clone(bytes),
                None => {
                    let rows = rows::read(KEKS.read, Some(page.page), &mut cut).await?;
                    let bytes = format::seal_page(&own.store_id, &page, &rows, &root);
                    bytes.map_err(|cause| failed(place, cause))?.into()
                }
            };
            sealed = Some(Arc::clone(&bytes));
            let (store, generation) = (draft.place.clone(), page.generation);
            let file = inner.at(place, move |_| store.put_page(generation, &bytes));
            draft.fresh.insert(page.page, file.await?);
        }
    }
    cut.rollback().await?;
    let serials = drafts.iter().map(|(_, draft)| draft.serial);
    report.serial = serials.fold(report.serial, Ord::max);

    let taking: Vec<_> = drafts.iter().map(|(place, _)| *place).collect();
    for (place, draft) in drafts {
        let header = Header {
            store_id: own.store_id.clone(),
            root_epoch: root_epoch.0,
            serial: report.serial,
            taken_at: now,
            provider: inner.roots.name().to_owned(),
            root_blob: root_blob.clone(),
        };
        let (tree, root) = (tree.clone(), Arc::clone(&root));
        let finish = move |roots: &dyn RootProvider| draft.finish(&header, tree, &root, roots);
        inner.at(place, finish).await?;
    }
    own.note(&taking, &inner.db).await?;
    if let Some(error) = away {
        return Err(error);
    }
    *inner.snapshotted.lock().await = Some(marks);
    Ok(report)
}

fn failed(place: &Path, cause: SnapshotError) -> KeyError {
    let cause = Box::new(cause);
    match *cause {
        SnapshotError::Foreign(_) => KeyError::Overtaken(cause),
        _ => KeyError::Snapshot {
            place: place.to_path_buf(),
            cause,
        },
    }
}

impl Inner {
    /// Works on a place where that may block.
    async fn at<T: Send + 'static>(
        &self,
        place: &Path,
        work: impl FnOnce(&dyn RootProvider) -> Result<T, SnapshotError> + Send + 'static,
    ) -> Result<T, KeyError> {
        self.with_roots(move |roots| Ok(work(roots)))
            .await?
            .map_err(|cause| failed(place, cause))
    }
}

/// A snapshot on its way to one place.
struct Draft {
    place: Place,
    own: Own,
    /// One above what is there under this root.
    serial: u64,
    /// The snapshot that was the newest here, and its page files.
    previous: Option<(SnapshotId, BTreeSet<PageFile>)>,
    /// Of those, the ones that are there in full.
    whole: BTreeMap<i64, PageFile>,
    /// Page files of the new one that were here already.
    kept: BTreeMap<i64, PageFile>,
    /// Page files that were written for it.
    fresh: BTreeMap<i64, PageFile>,
}

impl Draft {
    fn begin(
        place: Place,
        own: Own,
        root_epoch: KeyEpoch,
        check: Check,
        roots: &dyn RootProvider,
    ) -> Result<Self, SnapshotError> {
        place.refuse_foreign(&own.roots)?;
        let newest = place.newest()?;
        let serial = match newest {
            Some(id) if id.root_epoch == root_epoch => id.serial.saturating_add(1),
            _ => 1,
        };
        // One that does not open is no help, and no harm: everything is then written anew.
        let opened = newest.and_then(|id| Opened::open(&place, &own.store_id, id, roots).ok());
        let whole = opened.as_ref().map(|opened| opened.whole(check));
        let files = |body: Body| body.files.into_values().collect();
        Ok(Self {
            place,
            own,
            serial,
            whole: whole.unwrap_or_default(),
            previous: opened.map(|opened| (opened.header.id(), files(opened.body))),
            kept: BTreeMap::new(),
            fresh: BTreeMap::new(),
        })
    }

    /// Whether the page as it stands is in a file here, which the new snapshot then names.
    fn takes_over(&mut self, page: i64, generation: i64) -> bool {
        let file = self
            .whole
            .get(&page)
            .filter(|file| file.generation == generation);
        file.is_some_and(|file| {
            self.kept.insert(page, file.clone());
            true
        })
    }

    fn finish(
        self,
        header: &Header,
        mut body: Body,
        root: &RootKey,
        roots: &dyn RootProvider,
    ) -> Result<(), SnapshotError> {
        let id = header.id();
        body.files = self.kept;
        body.files.extend(self.fresh.clone());
        self.place.put_manifest(id, &header.seal(&body, root)?)?;

        let read = Opened::open(&self.place, &header.store_id, id, roots)?;
        let different = || SnapshotError::Damaged(self.place.manifest(id));
        if read.body != body || read.whole(Check::Lengths) != body.files {
            return Err(different());
        }
        for page in read.body.pages() {
            let page = page.map_err(|_| different())?;
            if self.fresh.contains_key(&page.page) {
                read.keks(&page)?;
            }
        }
        // Looked at on both sides of the writing: of two copies that turn at once, neither goes on.
        self.place.refuse_foreign(&self.own.roots)?;

        let mut pages: BTreeSet<&PageFile> = body.files.values().collect();
        let mut snapshots = vec![id];
        if let Some((previous, files)) = &self.previous {
            snapshots.push(*previous);
            pages.extend(files);
        }
        if let Err(error) = self.place.keep(&snapshots, &pages) {
            // What is left over is sealed under roots that end; the next snapshot tries again.
            tracing::warn!(error = %error, "removing old key snapshots");
        }
        Ok(())
    }
}
