//! `[storage.s3]`: data files in a bucket instead of on the local disk. Chosen at `vitalseal init`.

use std::path::PathBuf;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use vitalseal_storage::{ObjectsPlace, S3Place};

use super::commented::commented_out;

/// `[storage.s3]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3 {
    /// The bucket.
    pub bucket: String,
    /// Its region.
    #[serde(default = "region")]
    pub region: String,
    /// The server, if it is not AWS; `http` only on this machine.
    pub endpoint: Option<String>,
    /// What stands before the names of this store's files; each store needs its own.
    #[serde(default)]
    pub prefix: String,
    /// `true` addresses the bucket as a part of the server's name.
    #[serde(default)]
    pub virtual_host: bool,
    /// File (0600) that holds the access key; with none it is in the environment.
    pub credentials_file: Option<PathBuf>,
    /// How long one request may take, in seconds, its bytes included.
    #[serde(default = "timeout_s")]
    pub timeout_s: u32,
    /// How often a request is tried again.
    #[serde(default = "retries")]
    pub retries: u32,
}

fn region() -> String {
    "us-east-1".to_owned()
}

/// 256 MiB, the largest file, at 20 Mbit/s.
fn timeout_s() -> u32 {
    120
}

fn retries() -> u32 {
    5
}

impl S3 {
    /// This bucket on AWS, and the defaults.
    #[must_use]
    pub fn new(bucket: String) -> Self {
        Self {
            bucket,
            region: region(),
            endpoint: None,
            prefix: String::new(),
            virtual_host: false,
            credentials_file: None,
            timeout_s: timeout_s(),
            retries: retries(),
        }
    }

    /// # Errors
    /// A setting that cannot work, or would send credentials in the clear.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        self.place().check().context("checking storage.s3")
    }

    /// Where data files go.
    #[must_use]
    pub fn objects(&self) -> ObjectsPlace {
        ObjectsPlace::S3(self.place())
    }

    fn place(&self) -> S3Place {
        S3Place {
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            bucket: self.bucket.clone(),
            prefix: self.prefix.clone(),
            virtual_host: self.virtual_host,
            credentials: self.credentials_file.clone(),
            timeout_s: self.timeout_s,
            retries: self.retries,
        }
    }

    /// The settings as they stand in the file, one a line.
    pub(super) fn lines(&self) -> String {
        let text = |value: &str| toml::Value::String(value.to_owned());
        let mut lines = format!(
            "[storage.s3]\nbucket = {}\nregion = {}\nprefix = {}\nvirtual_host = {}\ntimeout_s = {}\nretries = {}\n",
            text(&self.bucket),
            text(&self.region),
            text(&self.prefix),
            self.virtual_host,
            self.timeout_s,
            self.retries,
        );
        if let Some(endpoint) = &self.endpoint {
            lines.push_str(&format!("endpoint = {}\n", text(endpoint)));
        }
        if let Some(file) = &self.credentials_file {
            lines.push_str(&format!(
                "credentials_file = {}\n",
                text(&file.display().to_string())
            ));
        }
        lines
    }
}

/// The table as a part of the file, with what there is to say of it.
pub(super) fn commented(s3: Option<&S3>) -> String {
    let lines = match s3 {
        Some(s3) => s3.lines(),
        None => commented_out(&example().lines()),
    };
    format!(
        "# Parquet files in a bucket instead of on this disk. Chosen at `vitalseal init`: files do not move by a change. The\n\
         # server must know conditional PUT (If-None-Match), TLS is required but on this machine, and its certificate must\n\
         # come from an authority that this system trusts (SSL_CERT_FILE names others). Turn versions of objects off in the\n\
         # bucket, or what is dropped stays there. The credentials file has the lines aws_access_key_id = ID and\n\
         # aws_secret_access_key = SECRET; without it, the environment has AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.\n{lines}"
    )
}

/// A bucket as it may be.
pub(super) fn example() -> S3 {
    S3 {
        endpoint: Some("https://s3.example.org".to_owned()),
        prefix: "north".to_owned(),
        credentials_file: Some(PathBuf::from("/etc/vitalseal/s3.credentials")),
        ..S3::new("ward".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_say_exactly_the_settings_and_a_bucket_alone_is_enough() {
        #[derive(Deserialize)]
        struct File {
            storage: Storage,
        }
        #[derive(Deserialize)]
        struct Storage {
            s3: Option<S3>,
        }
        let read = |text: &str| toml::from_str::<File>(text).unwrap().storage.s3;
        assert_eq!(read(&example().lines()), Some(example()));
        let shown = commented(None);
        let taken = shown.lines().skip_while(|line| *line != "# [storage.s3]");
        let taken: Vec<_> = taken.map(|line| line.trim_start_matches("# ")).collect();
        assert_eq!(read(&taken.join("\n")), Some(example()));
        let least = read("[storage.s3]\nbucket = \"ward\"\n").unwrap();
        least.check().unwrap();
        assert_eq!(least.endpoint, None);
        let plain = S3 {
            endpoint: Some("http://s3.example.org".to_owned()),
            ..example()
        };
        plain.check().unwrap_err();
    }
}
