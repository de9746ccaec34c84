//! A backup: the ciphertext of one instant, and no key.
//!
//! ```text
//! BACKUP/              0700, laid out as a data directory; every file 0600
//!   registry.sqlite    without key pages, KEKs, secrets, covered envelope keys and tokens
//!   inbox.sqlite  audit.sqlite  audit.vkey  ca-*.pem  vitalseal.toml  erasures/  parquet/
//!   backup.json        what belongs to it: format, store, instant, and every file with size and digest
//!   backup.mac         written last: HKDF-SHA-256(secret of the store, "vitalseal/backup/1" || 0x00 || SHA-256(backup.json))
//! ```
//!
//! Keys travel apart, in the key snapshots: each configured place gets one *after* the registry was copied, so that
//! it knows the key of every patient whom the backup knows. Without a snapshot a backup opens for nobody; with one
//! from after an erasure it opens for everybody but the erased.
//!
//! | Order | Why |
//! |---|---|
//! | flushes, erasures and rotations wait while the databases are copied | no row is on its way between inbox and file, no patient half erased |
//! | inbox first, then registry | whoever has a row in the one is a patient of the other |
//! | both end with the same change of the set of files | a registry that goes back in between would not know what the other does |
//! | audit log last | nothing is in the copy that the log does not tell of |
//! | key snapshot after the registry | it may know more patients, never fewer |
//! | data files last | once in the catalog they never change |
//!
//! Everything is made in `BACKUP.partial`, which takes its name when the last byte is on disk. What never stands in a
//! backup: a plaintext value, a name, a key in any form, a token.

mod manifest;

use std::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::task::JoinError;
use vitalseal_crypto::default_backend;

use self::manifest::describe;
pub use self::manifest::{BackupFile, BackupManifest};
pub(crate) use self::manifest::{FORMAT, SECRET, digest, mac, mac_path, manifest_path};
use crate::catalog::Settled;
use crate::database::copy::{self, Table, all};
use crate::database::{self, Database, Place, sqlite};
use crate::durable::{self, FileError, failed};
use crate::keys::KeyError;
use crate::opening;
use crate::paths::StorePaths;
use crate::store::{Store, StoreError};

/// The registry without what leads to a key or stands in for a password. A table that is not named stays behind, so
/// whoever adds one decides; the wraps of a backed-up store never touch the medium of the backup. Each after those that
/// it refers to.
pub(crate) const COPIED: [Table; 19] = [
    all("store"),
    all("patients"),
    all("erasure_ledger"),
    Table {
        name: "recipients",
        columns: "epoch, kid, certificate, not_before_us, not_after_us",
    },
    all("device_certificates"),
    all("devices"),
    all("assignments"),
    all("revocation_list"),
    all("users"),
    all("grants"),
    all("user_wards"),
    all("subscribers"),
    all("subscriber_wards"),
    all("incidents"),
    all("snapshots"),
    all("data_files"),
    all("watermarks"),
    all("tombstones"),
    all("losses"),
];

/// A backup that was taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backup {
    /// What `backup.json` says.
    pub manifest: BackupManifest,
    /// SHA-256 of `backup.json`, in hexadecimal: names the backup in the audit log.
    pub id: String,
}

impl Backup {
    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.manifest.files.iter().map(|file| file.size).sum()
    }
}

/// A backup was not taken; nothing of it is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// There is something already.
    #[error("{0} exists already; a backup needs a new directory")]
    Exists(PathBuf),
    /// A backup was interrupted.
    #[error("{0} is left from an interrupted backup; remove it and try again")]
    Unfinished(PathBuf),
    /// A backup in the store would be part of the next one.
    #[error("{0} is inside the data directory; a backup belongs outside, best on another disk")]
    Inside(PathBuf),
    /// Without a key snapshot it could never be opened.
    #[error(
        "no place for key snapshots is configured ([keys] snapshots): a backup holds no keys, and without a \
         snapshot it would open for nobody"
    )]
    NoPlace,
    /// It was drawn with the store.
    #[error(
        "the store has no secret that would make the backup its own; another version of vitalseal made it"
    )]
    NoSecret,
    /// A place did not take its snapshot.
    #[error("writing a key snapshot for the backup")]
    Snapshot(#[source] KeyError),
    /// A database could not be copied.
    #[error("copying {0}")]
    Database(PathBuf, #[source] sqlx::Error),
    /// The catalog could not be read.
    #[error("listing what is to be copied")]
    Store(#[from] StoreError),
    /// The file system failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The description could not be encoded.
    #[error("describing the backup")]
    Describe(#[from] serde_json::Error),
    /// A task ended before its time.
    #[error("a task of the backup ended early")]
    Task(#[from] JoinError),
}

impl Store {
    /// Takes a backup into the new directory `out`, whole or not at all, and a fresh key snapshot to every configured
    /// place. Messages are taken in meanwhile; flushes wait while the databases are copied.
    ///
    /// # Errors
    /// When `out` exists, no place is configured, a place did not take its snapshot, or the disk refuses. Then there is
    /// no `out`.
    pub async fn backup(
        &self,
        out: &Path,
        program: impl Display + Send,
        now: Timestamp,
    ) -> Result<Backup, BackupError> {
        let partial = Partial::create(out, self.paths().data())?;
        let secret = self.keys.secret(SECRET).await.map_err(StoreError::from)?;
        let secret = secret.ok_or(BackupError::NoSecret)?;
        if !self.keys.has_snapshot_places() {
            return Err(BackupError::NoPlace);
        }
        let copy = StorePaths::new(&partial.path, None);
        let quiet = (self.hold_flushes().await, self.keys.alone().await);
        // Held until they are copied: what ends meanwhile stays.
        let data_files = self.catalog.files().await?;
        let settled = self.catalog.settle().await?;
        copy_database(&self.paths().inbox(), &copy.inbox()).await?;
        let (store_id, erasures) =
            copy_registry(self.registry.database(), &settled, &copy.registry()).await?;
        copy_database(&self.paths().audit(), &copy.audit()).await?;
        drop((settled, quiet));
        let keys = self.keys.snapshot(now).await;
        let keys = keys.map_err(BackupError::Snapshot)?;

        let mut files = plain_files(self.paths())?;
        let names = data_files.iter().map(|file| file.path.as_ref());
        if self.files.is_local() {
            files.extend(names.map(|name| self.paths().parquet().join(name)));
        } else {
            // Whole too: what a bucket holds is removed in time, whatever a list of it says.
            durable::create_dir(&copy.parquet())?;
            for name in names {
                let bytes = self.files.bytes(name).await.map_err(StoreError::from)?;
                durable::write_new(&copy.parquet().join(name), &bytes)?;
            }
        }
        let (from, root) = (self.paths().data().to_path_buf(), partial.path.clone());
        let files = tokio::task::spawn_blocking(move || {
            for file in files {
                let below = file.strip_prefix(&from).map_err(io::Error::other);
                copy_file(&file, &root.join(below.map_err(failed("copying", &file))?))?;
            }
            describe(&root)
        })
        .await??;
        let manifest = BackupManifest {
            format: FORMAT,
            program: program.to_string(),
            store_id,
            taken_at: now,
            root_epoch: keys.root_epoch,
            erasures,
            files,
        };
        let json = serde_json::to_vec_pretty(&manifest)?;
        let id = default_backend().sha256(&[&json]);
        let mac = mac(&secret, &id).map_err(StoreError::from)?;
        durable::write_new(&manifest_path(&partial.path), &json)?;
        durable::write_new(&mac_path(&partial.path), mac.as_bytes())?;
        partial.keep(out)?;
        let id = hex::encode(id);
        Ok(Backup { manifest, id })
    }
}

/// `OUT.partial`, removed again unless it is kept.
struct Partial {
    path: PathBuf,
    kept: bool,
}

impl Partial {
    fn create(out: &Path, data: &Path) -> Result<Self, BackupError> {
        if out.starts_with(data) {
            return Err(BackupError::Inside(out.to_path_buf()));
        }
        if fs::symlink_metadata(out).is_ok() {
            return Err(BackupError::Exists(out.to_path_buf()));
        }
        let mut path = out.as_os_str().to_owned();
        path.push(".partial");
        let path = PathBuf::from(path);
        if fs::symlink_metadata(&path).is_ok() {
            return Err(BackupError::Unfinished(path));
        }
        durable::create_dir(&path)?;
        Ok(Self { path, kept: false })
    }

    fn keep(mut self, out: &Path) -> Result<(), BackupError> {
        durable::rename(&self.path, out)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "removing an unfinished backup");
        }
    }
}

/// One transaction's view of a live database, written anew.
async fn copy_database(from: &Path, to: &Path) -> Result<(), BackupError> {
    if !from.exists() {
        return Ok(());
    }
    sqlite::create_file(to)?;
    let copying = async {
        let mut source = sqlite::options(from).connect().await?;
        sqlx::query("VACUUM INTO $1")
            .bind(to.to_string_lossy())
            .execute(&mut source)
            .await?;
        source.close().await
    };
    copying
        .await
        .map_err(|cause| BackupError::Database(from.to_path_buf(), cause))
}

/// One transaction's view of the registry, if it still ends with what was settled, without keys; says of which store it
/// is and how many erasures it knows.
pub(crate) async fn copy_registry(
    from: &Database,
    settled: &Settled,
    to: &Path,
) -> Result<(String, u64), BackupError> {
    sqlite::create_file(to)?;
    let copying = async {
        let mut copy = database::connect(&Place::Copy(to.to_path_buf())).await?;
        // What the schema itself puts in is in the registry too.
        let mut tx = copy.begin().await?;
        database::lay_out(opening::SCHEMA, opening::VERSION, &mut tx).await?;
        let mut cut = from.pool().begin().await?;
        settled.check(&mut cut).await?;
        copy::copy(&COPIED, &mut cut, &mut tx).await?;
        cut.rollback().await?;
        let (store_id, erasures) =
            sqlx::query_as("SELECT store_id, (SELECT COUNT(*) FROM erasure_ledger) FROM store")
                .fetch_one(&mut *tx)
                .await?;
        tx.commit().await?;
        copy.close().await?;
        Ok((store_id, database::count(erasures)?))
    };
    copying.await.map_err(|cause| match cause {
        StoreError::Sql(cause) => BackupError::Database(to.to_path_buf(), cause),
        cause => cause.into(),
    })
}

/// What is copied as it is, beside databases and data files.
fn plain_files(paths: &StorePaths) -> Result<Vec<PathBuf>, FileError> {
    let mut files = vec![
        paths.audit_vkey(),
        paths.root_certificate(),
        paths.issuing_certificate(),
        paths.config(),
    ];
    files.retain(|file| file.is_file());
    let erasures = paths.erasures();
    files.extend(
        durable::names(&erasures)?
            .iter()
            .map(|name| erasures.join(name)),
    );
    // A certificate that is being written has another name yet.
    files.retain(|file| file.extension().is_none_or(|e| e != "partial"));
    Ok(files)
}

/// Copies a file and makes it durable. Never a link: a copy that shares its blocks with the original is none.
pub(crate) fn copy_file(from: &Path, to: &Path) -> Result<(), FileError> {
    if let Some(parent) = to.parent() {
        durable::create_dir(parent)?;
    }
    let mut target = durable::create_new(to)?;
    let mut copy = || io::copy(&mut File::open(from)?, &mut target);
    copy().map_err(failed("copying", from))?;
    target.sync_all().map_err(failed("syncing", to))
}
