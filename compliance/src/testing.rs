//! A real store with patients, devices and sealed messages, for tests of what stands above it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;
use vitalseal_crypto::envelope::{Agreement, ContentType, Received, SealRequest, seal};
use vitalseal_crypto::{
    CertificateAuthority, DeviceId, DeviceSigner, KeyEpoch, MessageId, NoSenderKeys,
    SubjectPseudonym, default_backend, new_device_key_and_csr,
};
use vitalseal_storage::{Admission, FileRootProvider, Judgement, Required, Store, StorePaths};

use crate::audit::AuditLog;

/// The content of every message: must never be found where it does not belong.
pub(crate) const PAYLOAD: &[u8] = b"planted reading 61.5";

pub(crate) struct World {
    /// Keeps the directory until the test ends.
    dir: TempDir,
    pub(crate) store: Store,
    pub(crate) audit: AuditLog,
    pub(crate) now: Timestamp,
    authority: CertificateAuthority,
    devices: HashMap<DeviceId, DeviceSigner>,
    sequence: u64,
}

impl World {
    pub(crate) async fn new() -> Self {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let dir = TempDir::new().unwrap();
        let paths = paths(&dir);
        let roots = Arc::new(FileRootProvider::new(paths.root_keys()));
        let store = Store::create(&paths, roots, now).await.unwrap();
        let audit = AuditLog::create(&paths.audit(), "test.example/audit")
            .await
            .unwrap()
            .log;
        let new = CertificateAuthority::create(now).unwrap();
        let authority = CertificateAuthority::open(
            &new.issuing_key_pem,
            &new.issuing_cert_pem,
            &new.root_cert_pem,
        )
        .unwrap();
        let ends = now + SignedDuration::from_hours(24);
        let key = authority
            .issue_recipient(KeyEpoch(0), now, ends, default_backend())
            .unwrap();
        store
            .keys
            .put_recipient(&key, KeyEpoch(0), now, ends)
            .await
            .unwrap();
        Self {
            dir,
            store,
            audit,
            now,
            authority,
            devices: HashMap::new(),
            sequence: 0,
        }
    }

    pub(crate) fn hours(&self, hours: i64) -> Timestamp {
        self.now + SignedDuration::from_hours(hours)
    }

    pub(crate) async fn patient(&self, name: &str) -> SubjectPseudonym {
        self.store
            .registry
            .add_patient(Some(name), Some("MRN-4711"), self.now)
            .await
            .unwrap()
    }

    pub(crate) async fn device(&mut self, id: &str) -> DeviceId {
        let id: DeviceId = id.parse().unwrap();
        let (key, csr) = new_device_key_and_csr(&id).unwrap();
        let issued = self.authority.issue_device(&csr, &id, self.now).unwrap();
        self.store
            .registry
            .enroll_device(&issued.certificate, self.now)
            .await
            .unwrap();
        let signer = DeviceSigner::from_pkcs8_pem(&key, &issued.pem).unwrap();
        self.devices.insert(id.clone(), signer);
        id
    }

    /// The files of the store.
    pub(crate) fn paths(&self) -> StorePaths {
        paths(&self.dir)
    }

    /// Overwrites a patient's sealed identity, as a fault of the disk does.
    pub(crate) async fn damage_identity(&self, subject: &SubjectPseudonym) {
        use sqlx::Connection as _;
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(self.paths().registry());
        let mut conn = sqlx::SqliteConnection::connect_with(&options)
            .await
            .unwrap();
        let done = sqlx::query("UPDATE patients SET identity = x'00' WHERE subject = $1")
            .bind(subject.as_str())
            .execute(&mut conn)
            .await
            .unwrap();
        assert_eq!(done.rows_affected(), 1);
        assert!(self.store.registry.patients().await.is_err());
    }

    /// A message of `readings` readings, sealed by the device, opened and wrapped for the patient as the pipeline does it.
    pub(crate) async fn admit(
        &mut self,
        device: &DeviceId,
        subject: &SubjectPseudonym,
        readings: u32,
        received_at: Timestamp,
    ) {
        self.admit_under(subject, device, subject, readings, received_at)
            .await;
    }

    /// The same under the key of somebody else, `owner`.
    pub(crate) async fn admit_under(
        &mut self,
        owner: &SubjectPseudonym,
        device: &DeviceId,
        subject: &SubjectPseudonym,
        readings: u32,
        received_at: Timestamp,
    ) {
        let backend = default_backend();
        let signer = &self.devices[device];
        self.sequence += 1;
        let request = SealRequest {
            content_type: ContentType::SenmlCbor,
            device,
            subject,
            issued_at: received_at,
            boot: 1,
            sequence: self.sequence,
            previous: None,
        };
        let recipient = self
            .store
            .keys
            .current_recipient(self.now)
            .await
            .unwrap()
            .unwrap();
        let sealed = seal(
            &request,
            PAYLOAD,
            &recipient,
            Agreement::Ephemeral,
            signer,
            backend,
        )
        .unwrap();
        let ring = self.store.keys.recipient_ring().await.unwrap();
        let opened = Received::decode(&sealed.bytes)
            .unwrap()
            .verify(signer.certificate(), backend)
            .unwrap()
            .open(&ring, &NoSenderKeys, backend)
            .unwrap();
        let keys = self.store.keys.patient_keys(owner).await.unwrap().unwrap();
        let admission = Admission {
            message: MessageId {
                device: device.clone(),
                boot: 1,
                sequence: self.sequence,
            },
            signed_hash: sealed.signed_hash,
            previous: None,
            introduced: None,
            subject: subject.clone(),
            issued_at: received_at,
            required: Required::default(),
            received_at,
            first_at: received_at - SignedDuration::from_mins(2),
            last_at: received_at - SignedDuration::from_mins(1),
            readings,
            envelope: opened.rewrap(keys.current(), backend).unwrap().into_bytes(),
        };
        assert_eq!(
            self.store.inbox.admit(admission).await.unwrap(),
            Judgement::Stored
        );
    }
}

fn paths(dir: &TempDir) -> StorePaths {
    let data: PathBuf = dir.path().join("data");
    StorePaths::new(&data, None)
}
