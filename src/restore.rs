//! A store made of a backup: whole and proved readable, or not at all.
//!
//! Everything happens in `DIR.restoring`, which takes its name when the last check held. What must hold stands in
//! `vitalseal_storage`; here are the configuration, the audit record and the report.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::Timestamp;
use serde::Serialize;
use vitalseal_storage::ports::{Actor, AuditEvent, AuditRecord, AuditSink as _};
use vitalseal_storage::{Restored, Store, StorePaths, unpack};

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
    /// Where the root keys are, if not where the backup's configuration says.
    pub(crate) root_keys: Option<PathBuf>,
    /// Where key snapshots are, if not where the backup's configuration says.
    pub(crate) snapshots: Vec<PathBuf>,
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
    let (from, to) = (restore.from.clone(), building.to_path_buf());
    tokio::task::spawn_blocking(move || unpack(&from, &to)).await??;
    let config = configure(restore, building)?;
    let paths = StorePaths::new(building, Some(&config.root_keys));
    let (store, restored) =
        Store::restore(&restore.from, &paths, custody::open(&config), now).await?;
    let report = report(&config, &store, &paths, restored, now).await;
    store.close().await;
    report
}

/// The configuration of the backup, with the places that were given. Its comments go only if one was.
fn configure(restore: &Restore, building: &Path) -> anyhow::Result<Config> {
    let path = StorePaths::new(building, None).config();
    let mut config = Config::load(&path)?;
    if let Some(root_keys) = &restore.root_keys {
        config.root_keys = std::path::absolute(root_keys).context("resolving --root-keys")?;
    }
    if !restore.snapshots.is_empty() {
        let places = restore.snapshots.iter().map(std::path::absolute);
        config.keys.snapshots = places
            .collect::<Result<_, _>>()
            .context("resolving --snapshots")?;
    }
    if restore.root_keys.is_some() || !restore.snapshots.is_empty() {
        let text = toml::to_string_pretty(&config).context("encoding the configuration")?;
        files::keep_document(&path, text.as_bytes())?;
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
    let root_epoch = store.keys.status().await?.root_epoch;
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
        not_restored: NOT_RESTORED,
    })
}
    store.keys.join_recorded().await?;
