//! `vitalseal init --s3-…`: data files in a bucket.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::config::S3;

/// Where data files go, if not on the local disk.
#[derive(Debug, Clone, Default, Args)]
pub struct BucketArgs {
    /// Keep Parquet files in this bucket of an S3 server.
    #[arg(long, value_name = "NAME")]
    pub s3_bucket: Option<String>,
    /// The S3 server, if it is not AWS: an https:// address, or http:// on this machine.
    #[arg(long, value_name = "URL", requires = "s3_bucket")]
    pub s3_endpoint: Option<String>,
    /// Region of the bucket [default: us-east-1].
    #[arg(long, value_name = "NAME", requires = "s3_bucket")]
    pub s3_region: Option<String>,
    /// What stands before the names of this store's files in the bucket.
    #[arg(long, value_name = "PREFIX", requires = "s3_bucket")]
    pub s3_prefix: Option<String>,
    /// Address the bucket as a part of the server's name.
    #[arg(long, requires = "s3_bucket")]
    pub s3_virtual_host: bool,
    /// File, readable by its owner only, that holds the access key [default: the environment].
    #[arg(long, value_name = "FILE", requires = "s3_bucket")]
    pub s3_credentials_file: Option<PathBuf>,
}

impl BucketArgs {
    /// The settings, if a bucket is named.
    ///
    /// # Errors
    /// The path of the credentials cannot be resolved.
    pub(crate) fn settings(self) -> anyhow::Result<Option<S3>> {
        let Some(bucket) = self.s3_bucket else {
            return Ok(None);
        };
        let credentials = self.s3_credentials_file.map(std::path::absolute);
        let defaults = S3::new(bucket);
        Ok(Some(S3 {
            endpoint: self.s3_endpoint,
            region: self.s3_region.unwrap_or(defaults.region),
            prefix: self.s3_prefix.unwrap_or(defaults.prefix),
            virtual_host: self.s3_virtual_host,
            credentials_file: credentials
                .transpose()
                .context("resolving --s3-credentials-file")?,
            ..defaults
        }))
    }
}
