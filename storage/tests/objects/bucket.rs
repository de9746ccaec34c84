//! An S3 server on a port of its own: moto, a Python package.

#![allow(
    dead_code,
    reason = "each test binary uses its own part of the fixture"
)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use vitalseal_storage::{ObjectsPlace, S3Place};

use crate::python;

pub(crate) const BUCKET: &str = "ward";

/// Ends with the test.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Started, and with a bucket.
    pub(crate) async fn start() -> Self {
        let mut child = python::command("s3_server.py", &[])
            .stderr(Stdio::piped())
            .spawn()
            .expect("run ./test.sh once");
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut lines = lines.map(Result::unwrap);
        let address = lines
            .find_map(|line| line.split_once("http://")?.1.trim().parse().ok())
            .expect("the server says where it listens");
        // What it logs of each request must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let server = Self { child, address };
        let made = server.request("PUT", &format!("/{BUCKET}")).await;
        assert!(made.starts_with("HTTP/1.1 200"), "{made}");
        server
    }

    /// One request of somebody else than the store, and its answer.
    pub(crate) async fn request(&self, method: &str, path: &str) -> String {
        self.send(method, path, b"").await
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nConnection: close\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=another/20260101/us-east-1/s3/aws4_request\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// How many objects there are, whoever made them, but for what says whose the place is.
    pub(crate) async fn objects(&self) -> usize {
        let listed = self.request("GET", &format!("/{BUCKET}?list-type=2")).await;
        listed.matches("<Key>").count() - listed.matches("owner</Key>").count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The bucket behind this address, with credentials in `dir`.
pub(crate) fn place(address: SocketAddr, dir: &Path) -> S3Place {
    let credentials = dir.join("s3.credentials");
    fs::write(
        &credentials,
        "[default]\naws_access_key_id = vitalseal\naws_secret_access_key = not-a-secret-of-anybody\n",
    )
    .unwrap();
    fs::set_permissions(&credentials, fs::Permissions::from_mode(0o600)).unwrap();
    S3Place {
        endpoint: Some(format!("http://{address}")),
        region: "eu-central-1".to_owned(),
        bucket: BUCKET.to_owned(),
        prefix: "north/store".to_owned(),
        virtual_host: false,
        credentials: Some(credentials),
        timeout_s: 3,
        retries: 3,
    }
}

pub(crate) fn s3(address: SocketAddr, dir: &Path) -> ObjectsPlace {
    ObjectsPlace::S3(place(address, dir))
}
