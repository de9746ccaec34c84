//! A store made of a backup: whole and proved readable, or not at all.
//!
//! Everything happens in `DIR.restoring`, which takes its name when the last check held. What must hold stands in
//! `vitalseal_storage`; here are where the keys are, the configuration, the audit record and the report.
//!
//! Where the keys are is never taken from the backup. Until they have shown who wrote it, it may be anybody's: a token
//! module that it names would be loaded, and root keys and key snapshots that it names would prove it genuine.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::Timestamp;
use serde::Serialize;
use vitalseal_compliance::audit::AuditLog;
use vitalseal_storage::ports::{Actor, AuditEvent, AuditRecord, AuditSink as _};
use vitalseal_storage::{Restored, Store, StorePaths};

use crate::config::Config;
use crate::{custody, files};

/// What no restore brings back, for the operator.
const NOT_RESTORED: [&str; 4] = [
    "messages, patients, users, grants and audit records from after taken_at",
    "patients added after the newest key snapshot: nobody has their keys",
    "revocations of devices from after the newest key snapshot: revoke them again",
    "tokens: users log in again",
];

/// What is to be restored.
#[derive(Debug)]
pub(crate) struct Restore {
    /// The backup.
    pub(crate) from: PathBuf,
    /// The data directory to make.
    pub(crate) data: PathBuf,
    /// Where the root keys are, if not where `config` says.
    pub(crate) root_keys: Option<PathBuf>,
    /// Where key snapshots are, if not where `config` says.
    pub(crate) snapshots: Vec<PathBuf>,
    /// A configuration that whoever restores answers for.
    pub(crate) config: Option<PathBuf>,
}

/// What was restored, for the operator.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    store: PathBuf,
    taken_at: Timestamp,
    patients_readable: u64,
    patients_erased: u64,
    /// Erasures that the backup did not know of.
    erasures_replayed: u64,
    messages: u64,
    newest_message_at: Option<Timestamp>,
    /// One of each patient in each file was opened.
    messages_opened: u64,
    root_epoch: u64,
    /// Who kept the root, and where the key tree came from.
    root_provider: String,
    root_keys: PathBuf,
    key_snapshot: Option<PathBuf>,
    not_restored: [&'static str; 4],
}

/// Restores a backup.
///
/// # Errors
/// It cannot be both true to every erasure and readable for everyone else, or a step failed. Then there is no data
/// directory, and the text says which patient, file, snapshot or root it was.
pub(crate) async fn restore(restore: Restore, now: Timestamp) -> anyhow::Result<Report> {
    let data = std::path::absolute(&restore.data).context("resolving the data directory")?;
    anyhow::ensure!(
        fs::symlink_metadata(&data).is_err(),
        "{} exists already; a restore makes a new directory",
        data.display()
    );
    let mut building = data.clone().into_os_string();
    building.push(".restoring");
    let building = PathBuf::from(building);
    anyhow::ensure!(
        fs::symlink_metadata(&building).is_err(),
        "{} is left from an interrupted restore; remove it and try again",
        building.display()
    );
    files::create_private_dir(&building)?;
    let restored = match build(&restore, &building, now).await {
        Ok(report) => fs::rename(&building, &data)
            .with_context(|| format!("moving the restored store to {}", data.display()))
            .map(|()| report),
        Err(error) => Err(error),
    };
    match restored {
        Ok(mut report) => {
            files::sync_parent(&data)?;
            report.store = data;
            Ok(report)
        }
        Err(error) => {
            // Only what this call made.
            let _ = fs::remove_dir_all(&building);
            Err(error.context(format!(
                "nothing was restored; {} was not made",
                data.display()
            )))
        }
    }
}

async fn build(restore: &Restore, building: &Path, now: Timestamp) -> anyhow::Result<Report> {
    let told = told(restore)?;
    let paths = told.paths(building)?;
    let (store, restored) =
        Store::restore(&restore.from, &paths, custody::open(&told), now).await?;
    let report = match configure(&told, &paths) {
        Ok(config) => report(&config, &store, &paths, restored, now).await,
        Err(error) => Err(error),
    };
    match report {
        Ok(_) => store.close().await,
        // The directory is for the caller; what is on a server is not.
        Err(_) => store.abandon().await,
    }
    report
}

/// Where keys, registry and data files are to be, as whoever restores says; no other setting of this configuration is used.
fn told(restore: &Restore) -> anyhow::Result<Config> {
    let own = restore.config.as_deref();
    let own = own
        .map(|file| own_config(file, &restore.from))
        .transpose()?;
    let (root_keys, mut keys, registry, bucket) = own.map_or_else(Default::default, |own| {
        (Some(own.root_keys), own.keys, own.registry, own.storage.s3)
    });
    if !restore.snapshots.is_empty() {
        keys.snapshots.clone_from(&restore.snapshots);
    }
    let root_keys = restore.root_keys.clone().or(root_keys);
    let Some(root_keys) = root_keys.filter(|_| !keys.snapshots.is_empty()) else {
        anyhow::bail!(
            "where the keys are was not said: name the directory of the root keys with --root-keys and each place for \
             key snapshots with --snapshots, or with --config a vitalseal.toml of your own, which may name a token; the \
             backup says {}, and anybody may have written that: check it before you repeat it",
            said_by(&restore.from)
        );
    };
    let absolute = |path: &PathBuf| {
        std::path::absolute(path).with_context(|| format!("resolving {}", path.display()))
    };
    let places = keys.snapshots.iter().map(absolute);
    keys.snapshots = places.collect::<Result<_, _>>()?;
    let mut told = Config::new(absolute(&root_keys)?, PathBuf::new(), Vec::new());
    told.keys = keys;
    told.registry = registry;
    told.storage.s3 = bucket;
    Ok(told)
}

/// The file of `--config`, which must not be the backup's.
fn own_config(file: &Path, backup: &Path) -> anyhow::Result<Config> {
    let real = |path: &Path| {
        fs::canonicalize(path).with_context(|| format!("looking for {}", path.display()))
    };
    anyhow::ensure!(
        !real(file)?.starts_with(real(backup)?),
        "{} is a part of the backup, and anybody may have written it: copy it out of there, check where it says that \
         keys are, and name the copy",
        file.display()
    );
    Config::load(file)
}

/// Where the keys were, as the backup says; quoted, so that it can do no more than be read.
fn said_by(backup: &Path) -> String {
    match Config::load(&StorePaths::new(backup, None).config()) {
        Ok(Config {
            root_keys, keys, ..
        }) => format!(
            "root_keys = {root_keys:?}, snapshots = {:?}, token = {:?}",
            keys.snapshots, keys.pkcs11
        ),
        Err(_) => "nothing that can be read".to_owned(),
    }
}

/// The configuration of the backup, which is its store's own as is shown by now, with the places that were told. Its
/// comments go only if these are others.
fn configure(told: &Config, paths: &StorePaths) -> anyhow::Result<Config> {
    let mut config = Config::load(&paths.config())?;
    let places = |of: &Config| {
        let bucket = of.storage.s3.clone();
        (
            of.root_keys.clone(),
            of.keys.clone(),
            of.registry.clone(),
            bucket,
        )
    };
    if places(&config) != places(told) {
        config.root_keys.clone_from(&told.root_keys);
        config.keys.clone_from(&told.keys);
        config.registry.clone_from(&told.registry);
        config.storage.s3.clone_from(&told.storage.s3);
        let text = toml::to_string_pretty(&config).context("encoding the configuration")?;
        files::keep_document(&paths.config(), text.as_bytes())?;
    }
    Ok(config)
}

/// Tells the restored audit log, and the operator.
async fn report(
    config: &Config,
    store: &Store,
    paths: &StorePaths,
    restored: Restored,
    now: Timestamp,
) -> anyhow::Result<Report> {
    let status = store.keys.status().await?;
    let joined = store.keys.joined().await?;
    let root_epoch = status.root_epoch;
    let audit = custody::open_audit(config, store, paths).await?;
    let event = AuditEvent::StoreRestored {
        backup: Some(restored.backup),
        root_epoch,
        patients: restored.patients,
        erasures_replayed: restored.erasures_replayed,
    };
    let uid = files::own_uid();
    let recorded = audit
        .record(AuditRecord {
            at: now,
            actor: Actor::Local { uid },
            event,
        })
        .await;
    audit.close().await;
    recorded?;
    store.keys.join_recorded().await?;
    Ok(Report {
        store: paths.data().to_path_buf(),
        taken_at: restored.taken_at,
        patients_readable: restored.patients,
        patients_erased: restored.erased,
        erasures_replayed: restored.erasures_replayed,
        messages: restored.messages,
        newest_message_at: restored.newest_at,
        messages_opened: restored.opened,
        root_epoch: root_epoch.0,
        root_provider: status.root_provider,
        root_keys: config.root_keys.clone(),
        key_snapshot: joined.map(|joined| joined.snapshot),
        not_restored: NOT_RESTORED,
    })
}

/// A directory that was older than the newest key snapshot, such as a copy made by hand, is another store now. At worst
/// that is recorded twice, never not at all.
///
/// # Errors
/// The key store cannot be read, or the audit log not written; then it is told at the next start.
pub(crate) async fn tell_of_join(
    store: &Store,
    audit: &AuditLog,
    now: Timestamp,
) -> anyhow::Result<()> {
    let Some(joined) = store.keys.joined().await? else {
        return Ok(());
    };
    tracing::warn!(
        snapshot = %joined.snapshot.display(),
        taken_at = %joined.taken_at,
        patients = joined.patients,
        erasures_replayed = joined.erasures_replayed,
        devices_revoked = joined.devices_revoked,
        "this data directory is from before the newest key snapshot and was joined with it: the erased stay gone; \
         what was done since the copy was made is not here"
    );
    let event = AuditEvent::StoreRestored {
        backup: None,
        root_epoch: joined.id.root_epoch,
        patients: joined.patients,
        erasures_replayed: joined.erasures_replayed,
    };
    let record = AuditRecord {
        at: now,
        actor: Actor::System,
        event,
    };
    audit
        .record(record)
        .await
        .context("recording the restore")?;
    Ok(store.keys.join_recorded().await?)
}
