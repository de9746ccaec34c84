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
        if self.virtual_host && !matches!(endpoint.host(), Some(Host::Domain(_))) {
            return refuse(
                "virtual_host needs an endpoint with a name: nothing is below an address",
            );
        }
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

    /// Where requests go, if not to AWS. `object_store` takes it as it is with `virtual_host`, and else puts the bucket behind
    /// it.
    pub(super) fn server(&self) -> Option<String> {
        let endpoint = self.endpoint.as_deref()?.trim_end_matches('/');
        let below = || {
            let mut url = Url::parse(endpoint).ok()?;
            let host = format!("{}.{}", self.bucket, url.host_str()?);
            url.set_host(Some(&host)).ok()?;
            Some(url.as_str().trim_end_matches('/').to_owned())
        };
        let below = self.virtual_host.then(below).flatten();
        Some(below.unwrap_or_else(|| endpoint.to_owned()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_a_part_of_the_path_or_of_the_name_of_its_server() {
        let place = |endpoint: Option<&str>, virtual_host| S3Place {
            endpoint: endpoint.map(str::to_owned),
            region: "eu-central-1".to_owned(),
            bucket: "ward".to_owned(),
            prefix: String::new(),
            virtual_host,
            credentials: None,
            timeout_s: 1,
            retries: 0,
        };
        let server = |endpoint, virtual_host| place(endpoint, virtual_host).server();
        assert_eq!(server(None, true), None);
        for (endpoint, below) in [
            ("https://s3.example.org", "https://ward.s3.example.org"),
            (
                "https://s3.example.org:9000/",
                "https://ward.s3.example.org:9000",
            ),
            ("http://localhost:9000", "http://ward.localhost:9000"),
        ] {
            let bare = endpoint.trim_end_matches('/');
            assert_eq!(server(Some(endpoint), false).as_deref(), Some(bare));
            assert_eq!(server(Some(endpoint), true).as_deref(), Some(below));
            place(Some(endpoint), true).check().unwrap();
        }
        for address in ["http://127.0.0.1:9000", "https://[2001:db8::1]"] {
            let refused = place(Some(address), true).check().unwrap_err();
            assert!(refused.to_string().contains("virtual_host"), "{refused}");
        }
    }
}
