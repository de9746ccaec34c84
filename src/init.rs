//! A new store, whole or not at all: everything is made in a directory beside the final one, which
//! takes its name only when the last byte is on disk.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::Timestamp;
use rustls::pki_types::ServerName;
use vitalseal_compliance::access::{self, NewCredentials};
use vitalseal_crypto::default_backend;
use vitalseal_storage::ports::{Actor, AuditEvent, AuditRecord, AuditSink as _, Role, UserName};
use vitalseal_storage::{Store, StorePaths};

use crate::config::{Config, Pkcs11, Registry, S3};
use crate::custody;
use crate::files;
use crate::recipient;

/// What a new store is made from.
#[derive(Debug, Clone)]
pub struct NewStore {
    /// The data directory; must not exist, or be empty.
    pub data: PathBuf,
    /// Where root keys go; `DIR.root` if not said.
    pub root_keys: Option<PathBuf>,
    /// Names and addresses of this server beside `localhost`.
    pub names: Vec<String>,
    /// The first administrator.
    pub administrator: UserName,
    /// The token that keeps the root keys; with none they are files.
    pub token: Option<NewToken>,
    /// The bucket for Parquet files; with none they are in the data directory.
    pub bucket: Option<S3>,
    /// The server for the registry; with none it is in the data directory.
    pub registry: Option<Registry>,
}

/// A token for a new store.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The maker's PKCS#11 module.
    pub module: PathBuf,
    /// Label of the token.
    pub token: String,
    /// File (0600) that holds the user PIN.
    pub pin_file: PathBuf,
    /// Whether the issuing authority's and the audit log's keys are made there too.
    pub signing: bool,
}

/// What `init` shows, once.
#[derive(Debug)]
pub struct Created {
    /// The data directory.
    pub data: PathBuf,
    /// The root keys' directory; with a token, the root CA's key only.
    pub root_keys: PathBuf,
    /// Who keeps the root keys.
    pub root_provider: String,
    /// The first administrator's credentials.
    pub administrator: NewCredentials,
}

/// Makes a store.
///
/// # Errors
/// The directory holds something already, or a step failed; then nothing is left behind.
pub async fn create(new: NewStore, now: Timestamp) -> anyhow::Result<Created> {
    let data = std::path::absolute(&new.data).context("resolving the data directory")?;
    let finished = StorePaths::new(&data, new.root_keys.as_deref());
    let root_keys = std::path::absolute(finished.root_keys())
        .context("resolving the directory of the root keys")?;
    anyhow::ensure!(
        !root_keys.starts_with(&data),
        "the root keys ({}) must be outside the data directory ({}): a backup that holds both can undo \
         every erasure",
        root_keys.display(),
        data.display()
    );
    for name in &new.names {
        ServerName::try_from(name.as_str())
            .with_context(|| format!("--name {name:?} is neither a DNS name nor an IP address"))?;
    }
    refuse_existing(&data, "a store, or other files; choose a new directory")?;
    refuse_existing(
        &root_keys,
        "root keys of another store; choose another --root-keys",
    )?;

    let snapshots = finished.default_snapshots();
    refuse_existing(
        &snapshots,
        "key snapshots of another store; choose another --data",
    )?;

    let building = sibling(&data)?;
    files::create_private_dir(&building)?;
    let mut config = Config::new(root_keys.clone(), snapshots, new.names.clone());
    config.keys.pkcs11 = new.token.as_ref().map(on_token).transpose()?;
    config.storage.s3.clone_from(&new.bucket);
    config.registry.clone_from(&new.registry);
    let made = build(&new, &building, &config, now).await;
    let (administrator, root_provider) = match made {
        Ok(made) => made,
        Err(error) => {
            custody::discard(&config);
            // Only what this call made: these directories were absent or empty a moment ago.
            let _ = fs::remove_dir_all(&building);
            let _ = fs::remove_dir_all(&root_keys);
            for place in &config.keys.snapshots {
                let _ = fs::remove_dir_all(place);
            }
            return Err(error);
        }
    };
    if data.exists() {
        fs::remove_dir(&data).with_context(|| format!("replacing the empty {}", data.display()))?;
    }
    fs::rename(&building, &data)
        .with_context(|| format!("moving the finished store to {}", data.display()))?;
    files::sync_parent(&data)?;
    Ok(Created {
        data,
        root_keys,
        root_provider,
        administrator,
    })
}

/// The token's objects get a label of their own, drawn here: several stores may share it.
fn on_token(new: &NewToken) -> anyhow::Result<Pkcs11> {
    let mut drawn = [0; 4];
    default_backend()
        .fill_random(&mut drawn)
        .context("drawing a label for the token's objects")?;
    Ok(Pkcs11 {
        module: std::path::absolute(&new.module).context("resolving --pkcs11-module")?,
        token: new.token.clone(),
        pin_file: std::path::absolute(&new.pin_file).context("resolving --pkcs11-pin-file")?,
        label: format!("{:08x}", u32::from_be_bytes(drawn)),
        issuing_ca: new.signing,
        audit_log: new.signing,
    })
}

async fn build(
    new: &NewStore,
    building: &Path,
    config: &Config,
    now: Timestamp,
) -> anyhow::Result<(NewCredentials, String)> {
    let paths = config.paths(building)?;
    let store = Store::create(&paths, custody::open(config), now)
        .await
        .context("creating the store")?;
    let furnished = furnish(new, config, &paths, &store, now).await;
    match furnished {
        Ok(_) => store.close().await,
        // Directories are for the caller; what is on a server is not.
        Err(_) => store.abandon().await,
    }
    furnished
}

/// Authority, audit log, first envelope key, first administrator, configuration.
async fn furnish(
    new: &NewStore,
    config: &Config,
    paths: &StorePaths,
    store: &Store,
    now: Timestamp,
) -> anyhow::Result<(NewCredentials, String)> {
    let authority = custody::create_authority(config, store, paths, now).await?;
    let audit = custody::create_audit(config, store, paths).await?;

    let local = Actor::Local {
        uid: files::own_uid(),
    };
    let event = AuditEvent::StoreInitialized {};
    audit
        .record(AuditRecord {
            at: now,
            actor: local.clone(),
            event,
        })
        .await?;
    recipient::start_epoch(store, &authority, &audit, &config.recipient, now).await?;

    let (registry, name) = (&store.registry, new.administrator.clone());
    let administrator = access::add_user(registry, &audit, local, name, Role::Admin, now).await?;
    files::write_public(&paths.config(), config.commented().as_bytes())?;
    let root_provider = store.keys.status().await?.root_provider;
    audit.close().await;
    Ok((administrator, root_provider))
}

fn refuse_existing(directory: &Path, what: &str) -> anyhow::Result<()> {
    match fs::read_dir(directory) {
        Ok(mut entries) => {
            anyhow::ensure!(
                entries.next().is_none(),
                "{} already holds {what}",
                directory.display()
            );
            Ok(())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("looking into {}", directory.display())),
    }
}

/// `DIR.init`, on the same file system as `DIR`, so that the final rename is atomic.
fn sibling(data: &Path) -> anyhow::Result<PathBuf> {
    let name = data
        .file_name()
        .context("the data directory needs a name")?;
    let mut building = name.to_owned();
    building.push(".init");
    let building = data.with_file_name(building);
    anyhow::ensure!(
        !building.exists(),
        "{} is left from an interrupted init; remove it and try again",
        building.display()
    );
    Ok(building)
}
