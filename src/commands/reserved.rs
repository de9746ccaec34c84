//! Places for an answer, made before the question: what the server does cannot be taken back, so that
//! there is room for the answer is found out first. An unused place is removed again.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::files;

/// A new, empty file that is removed unless it is filled.
#[derive(Debug)]
pub(super) struct ReservedFile {
    path: PathBuf,
    file: File,
    filled: bool,
}

impl ReservedFile {
    /// Makes the file; everyone may read it.
    ///
    /// # Errors
    /// It exists already, or cannot be made.
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(path)
            .with_context(|| format!("creating {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            filled: false,
        })
    }

    /// Writes its contents, durably.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn fill(mut self, contents: &[u8]) -> anyhow::Result<()> {
        self.filled = true;
        self.file
            .write_all(contents)
            .and_then(|()| self.file.sync_all())
            .with_context(|| format!("writing {}", self.path.display()))?;
        files::sync_parent(&self.path)
    }
}

impl Drop for ReservedFile {
    fn drop(&mut self) {
        if !self.filled {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A new directory that only its owner may enter, removed with what is in it unless it is kept.
#[derive(Debug)]
pub(super) struct ReservedDirectory {
    path: Option<PathBuf>,
}

impl ReservedDirectory {
    /// Makes the directory.
    ///
    /// # Errors
    /// It exists already, or cannot be made.
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        files::create_private_dir(path)?;
        Ok(Self {
            path: Some(path.to_owned()),
        })
    }

    /// It is needed from now on.
    pub(super) fn keep(mut self) {
        self.path = None;
    }
}

impl Drop for ReservedDirectory {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_dir_all(path);
        }
    }
}
