//! `[registry]`: the registry on a PostgreSQL server instead of in a file. Chosen at `vitalseal init` or `restore`.

use std::path::PathBuf;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use vitalseal_storage::{PostgresPlace, RegistryPlace};

use super::commented::commented_out;
use crate::files;

/// `[registry]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// `postgres://USER@HOST[:PORT]/DATABASE[?…]`, without a password.
    pub url: String,
    /// File (0600) that holds the user's password, for a server that wants one.
    pub password_file: Option<PathBuf>,
}

impl Registry {
    /// Where it is, with the password.
    ///
    /// # Errors
    /// The address is none, or leads to another machine without proof of which; the password cannot be read, or others
    /// may read it.
    pub(super) fn place(&self) -> anyhow::Result<RegistryPlace> {
        let password = self.password_file.as_deref().map(files::read_secret);
        let password = password
            .transpose()
            .context("reading registry.password_file")?;
        let place = PostgresPlace::new(&self.url, password.as_ref().map(|text| text.as_str()));
        Ok(RegistryPlace::Postgres(
            place.context("reading registry.url")?,
        ))
    }

    /// The settings as they stand in the file, one a line.
    pub(super) fn lines(&self) -> String {
        let text = |value: String| toml::Value::String(value);
        let mut lines = format!("[registry]\nurl = {}\n", text(self.url.clone()));
        if let Some(file) = &self.password_file {
            let file = text(file.display().to_string());
            lines.push_str(&format!("password_file = {file}\n"));
        }
        lines
    }
}

/// The table as a part of the file, with what there is to say of it.
pub(super) fn commented(registry: Option<&Registry>) -> String {
    let lines = match registry {
        Some(registry) => registry.lines(),
        None => commented_out(&example().lines()),
    };
    format!(
        "# The registry (patients, devices, wrapped keys, the catalog of files) in a schema of a PostgreSQL server instead of\n\
         # registry.sqlite. Chosen at `vitalseal init`, or for a backup at `vitalseal restore --config`: it does not move by a\n\
         # change. Another machine is reached with sslmode=verify-full only, which is the default then; sslrootcert=FILE\n\
         # names its authority, options[search_path]=SCHEMA a schema. No pooler in between, and one server of vitalseal.\n{lines}"
    )
}

/// A server as it may be.
pub(super) fn example() -> Registry {
    Registry {
        url: "postgres://vitalseal@db.example.org/vitalseal".to_owned(),
        password_file: Some(PathBuf::from("/etc/vitalseal/registry.password")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_lines_say_exactly_the_settings_and_a_password_others_may_read_is_refused() {
        #[derive(Deserialize)]
        struct File {
            registry: Registry,
        }
        let read = |text: &str| toml::from_str::<File>(text).unwrap().registry;
        assert_eq!(read(&example().lines()), example());
        let shown = commented(None);
        let taken = shown.lines().skip_while(|line| *line != "# [registry]");
        let taken: Vec<_> = taken.map(|line| line.trim_start_matches("# ")).collect();
        assert_eq!(read(&taken.join("\n")), example());

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        fs::write(&file, "correct horse\n").unwrap();
        let registry = Registry {
            password_file: Some(file.clone()),
            ..example()
        };
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        registry.place().unwrap_err();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let shown = format!("{:?}", registry.place().unwrap());
        assert_eq!(
            shown,
            "Postgres(postgres://vitalseal@db.example.org/vitalseal)"
        );
        let inside = Registry {
            url: "postgres://vitalseal:correct@db.example.org/vitalseal".to_owned(),
            password_file: None,
        };
        let refused = format!("{:#}", inside.place().unwrap_err());
        assert!(
            refused.contains("password_file") && !refused.contains("correct"),
            "{refused}"
        );
    }
}
