//! A store and its audit log, opened as the store's configuration says: by the server, or, while none runs, by a command
//! that works on the directory itself.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use vitalseal_compliance::audit::AuditLog;
use vitalseal_storage::ports::Clock;
use vitalseal_storage::{Store, StorePaths};

use crate::config::Config;
use crate::{custody, restore, server};

/// A store that this process has to itself.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Its settings.
    pub(crate) config: Config,
    /// Where its parts are.
    pub(crate) paths: StorePaths,
    /// The store.
    pub(crate) store: Store,
    /// Who did what to it.
    pub(crate) audit: Arc<AuditLog>,
}

impl Opened {
    /// Opens the store in `data`, and finishes what was interrupted in it.
    ///
    /// # Errors
    /// The store is locked, damaged or missing a key.
    pub(crate) async fn open(data: &Path, clock: &dyn Clock) -> anyhow::Result<Self> {
        let data = std::path::absolute(data).context("resolving the data directory")?;
        let config = Config::load(&StorePaths::new(&data, None).config())?;
        let paths = config.paths(&data)?;
        let store = Store::open(&paths, custody::open(&config), clock.now())
            .await
            .with_context(|| format!("opening the store {}", data.display()))?;
        let audit = custody::open_audit(&config, &store, &paths).await?;
        restore::tell_of_join(&store, &audit, clock.now()).await?;
        server::tell_of_mending(&store, &audit, clock.now()).await?;
        Ok(Self {
            config,
            paths,
            store,
            audit,
        })
    }

    /// Closes both.
    pub(crate) async fn close(self) {
        self.audit.close().await;
        self.store.close().await;
    }
}
