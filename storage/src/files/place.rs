//! Where data files go, as it is configured. No credential stands here: only where they are.

use std::path::PathBuf;

use url::{Host, Url};

use super::FilesError;

/// Where data files go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ObjectsPlace {
    /// A directory on the local disk.
    Local(PathBuf),
    /// A bucket.
    S3(S3Place),
}

/// A bucket of an S3 server that knows conditional PUT (`If-None-Match: *`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct S3Place {
    /// The server; `None` for AWS, by its region. `http` only to this machine.
    pub endpoint: Option<String>,
    /// Region: part of every request's signature, so it must be the server's.
    pub region: String,
    /// Bucket.
    pub bucket: String,
    /// Before every name, without a slash at its end; may be empty.
    pub prefix: String,
    /// Address the bucket as `BUCKET.host` instead of `host/BUCKET`.
    pub virtual_host: bool,
    /// A file with the credentials (0600); `None`: from the environment.
    pub credentials: Option<PathBuf>,
    /// Seconds that one request may take, its bytes included.
    pub timeout_s: u32,
    /// How often a request is repeated that the server failed or did not answer.
    pub retries: u32,
}

impl S3Place {
    /// Whether these settings can be used at all.
    ///
    /// # Errors
    /// [`FilesError::Settings`] with what to change.
    pub fn check(&self) -> Result<(), FilesError> {
        let refuse = |why: &str| Err(FilesError::Settings(why.to_owned()));
        if self.bucket.is_empty() || self.region.is_empty() {
            return refuse("bucket and region must not be empty");
        }
        if self.prefix.starts_with('/') || self.prefix.ends_with('/') {
            return refuse("the prefix must neither begin nor end with a slash");
        }
        if self.timeout_s == 0 {
            return refuse("timeout_s must be 1 or more");
        }
        let Some(endpoint) = &self.endpoint else {
            return Ok(());
        };
        let Ok(endpoint) = Url::parse(endpoint) else {
            return refuse("the endpoint must be an https:// address");
        };
        // What is on the way is sealed, but credentials sign it, and who reads what would be told.
        let loopback = match endpoint.host() {
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        };
        match endpoint.scheme() {
            "https" => {}
            "http" if loopback => {}
            "http" => return refuse("the endpoint must be https:// unless it is on this machine"),
            _ => return refuse("the endpoint must be an https:// address"),
        }
        if !endpoint.username().is_empty() || endpoint.password().is_some() {
            return refuse("credentials do not belong into the endpoint");
        }
        Ok(())
    }

    /// Where, for people: no credential is in it.
    #[must_use]
    pub fn describe(&self) -> String {
        let path = match self.prefix.as_str() {
            "" => self.bucket.clone(),
            prefix => format!("{}/{prefix}", self.bucket),
        };
        match &self.endpoint {
            Some(endpoint) => format!("s3://{path} at {endpoint}"),
            None => format!("s3://{path} in {}", self.region),
        }
    }
}
