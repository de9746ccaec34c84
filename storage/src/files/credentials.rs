//! The key that requests to a bucket are signed with. It is read when a store opens and shown nowhere.

use std::env;
use std::fmt;
use std::path::Path;

use zeroize::Zeroizing;

use super::FilesError;
use crate::durable;

/// Names of the variables, and in lower case of the lines of a file: those of the AWS tools.
const ID: &str = "AWS_ACCESS_KEY_ID";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
const TOKEN: &str = "AWS_SESSION_TOKEN";

/// An access key.
pub(super) struct S3Credentials {
    pub(super) id: String,
    pub(super) secret: Zeroizing<String>,
    pub(super) token: Option<Zeroizing<String>>,
}

impl S3Credentials {
    /// From a file, or from the environment where there is none.
    pub(super) fn read(file: Option<&Path>) -> Result<Self, FilesError> {
        match file {
            Some(file) => Self::of_file(file),
            None => Self::assemble(|name| env::var(name).ok())
                .ok_or_else(|| FilesError::Settings(format!("{ID} and {SECRET} are not both set in the environment, and no file is named with storage.s3.credentials"))),
        }
    }

    /// Lines `aws_access_key_id = …`, `aws_secret_access_key = …` and, if there is one, `aws_session_token = …`. Headings
    /// such as `[default]`, empty lines and those that begin with `#` count for nothing.
    fn of_file(file: &Path) -> Result<Self, FilesError> {
        let shown = file.display();
        if let Some(mode) = durable::open_to_others(file)? {
            return Err(FilesError::Settings(format!(
                "{shown} holds credentials and others may read it (mode {mode:o}): chmod 600"
            )));
        }
        let bytes = Zeroizing::new(durable::read(file)?);
        let text = std::str::from_utf8(&bytes).unwrap_or_default();
        let find = |name: &str| {
            let lines = text.lines().filter_map(|line| line.split_once('='));
            let mut named = lines.filter(|(key, _)| key.trim().eq_ignore_ascii_case(name));
            named.next().map(|(_, value)| value.trim().to_owned())
        };
        Self::assemble(find).ok_or_else(|| {
            FilesError::Settings(format!(
                "{shown} has no lines `aws_access_key_id = …` and `aws_secret_access_key = …`"
            ))
        })
    }

    fn assemble(find: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let find = |name| find(name).filter(|value| !value.is_empty());
        Some(Self {
            id: find(ID)?,
            secret: Zeroizing::new(find(SECRET)?),
            token: find(TOKEN).map(Zeroizing::new),
        })
    }
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Credentials").finish_non_exhaustive()
    }
}
