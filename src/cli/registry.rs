//! `vitalseal init --registry …`: the registry on a server.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::config::Registry;

/// Where the registry goes, if not into the data directory.
#[derive(Debug, Clone, Default, Args)]
pub struct RegistryArgs {
    /// Keep the registry in an empty schema of a PostgreSQL database (`postgres://USER@HOST/DATABASE`).
    #[arg(long, value_name = "URL")]
    pub registry: Option<String>,
    /// File, readable by its owner only, that holds that user's password.
    #[arg(long, value_name = "FILE", requires = "registry")]
    pub registry_password_file: Option<PathBuf>,
}

impl RegistryArgs {
    /// The settings, if a server is named.
    ///
    /// # Errors
    /// The path of the password cannot be resolved.
    pub(crate) fn settings(self) -> anyhow::Result<Option<Registry>> {
        let Some(url) = self.registry else {
            return Ok(None);
        };
        let file = self.registry_password_file.map(std::path::absolute);
        let password_file = file
            .transpose()
            .context("resolving --registry-password-file")?;
        Ok(Some(Registry { url, password_file }))
    }
}
