//! An audit log whose signing key is not in this process, such as one on a hardware token.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test argues with panics"
)]

use std::error::Error;
use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use jiff::Timestamp;
use tempfile::TempDir;
use vitalseal_compliance::audit::{AuditLog, AuditLogError};
use vitalseal_crypto::RemoteSigner;
use vitalseal_storage::ports::{Actor, AuditEvent, AuditRecord};

const ORIGIN: &str = "test.example/vitalseal/audit";

/// A signing key that is not in this process: it can be missing, and it can be another than it says.
#[derive(Debug)]
struct Remote {
    public: Vec<u8>,
    seed: Mutex<Option<[u8; 32]>>,
}

impl Remote {
    fn new() -> Arc<Self> {
        let public = pair([7; 32]).public_key().as_ref().to_vec();
        let seed = Mutex::new(Some([7; 32]));
        Arc::new(Self { public, seed })
    }

    fn becomes(&self, seed: Option<[u8; 32]>) {
        *self.seed.lock().unwrap() = seed;
    }
}

fn pair(seed: [u8; 32]) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&seed).unwrap()
}

impl RemoteSigner for Remote {
    fn public(&self) -> &[u8] {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], Box<dyn Error + Send + Sync>> {
        let seed = self
            .seed
            .lock()
            .unwrap()
            .ok_or("the token is in a drawer")?;
        Ok(pair(seed).sign(message).as_ref().try_into()?)
    }
}

#[tokio::test]
async fn a_remote_key_signs_the_log_and_what_it_did_not_sign_is_not_in_it() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("audit.sqlite");
    let remote = Remote::new();
    let log = AuditLog::create_remote(&path, ORIGIN, Arc::clone(&remote) as _)
        .await
        .unwrap();
    let vkey = log.key().as_str().to_owned();
    assert_eq!(log.append(record(0)).await.unwrap(), 0);
    // Unplugged, or replaced by another: the record is refused, and the log goes on from where it was.
    for key in [None, Some([8; 32])] {
        remote.becomes(key);
        let refused = log.append(record(1)).await;
        assert!(
            matches!(refused, Err(AuditLogError::Write(_))),
            "{refused:?}"
        );
        remote.becomes(Some([7; 32]));
    }
    assert_eq!(log.append(record(1)).await.unwrap(), 1);
    log.close().await;

    let log = AuditLog::open_remote(&path, Arc::clone(&remote) as _, &vkey)
        .await
        .unwrap();
    assert_eq!(log.append(record(2)).await.unwrap(), 2);
    log.close().await;
    let found = AuditLog::verify_file(&path, &vkey, None).await.unwrap();
    assert!(found.is_sound() && found.size == 3, "{found:?}");

    let elsewhere = dir.path().join("elsewhere.sqlite");
    let foreign = AuditLog::create(&elsewhere, ORIGIN).await.unwrap();
    let opened = AuditLog::open_remote(&elsewhere, remote, &foreign.vkey).await;
    assert!(matches!(opened, Err(AuditLogError::Key(_))));
}

fn record(n: i64) -> AuditRecord {
    AuditRecord {
        at: Timestamp::from_second(1_760_000_000 + n).unwrap(),
        actor: Actor::System,
        event: AuditEvent::ServerStopped {},
    }
}
