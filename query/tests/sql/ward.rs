//! A ward: a real store with real envelopes, and a policy, an authenticator, a clock and an audit sink
//! whose every answer the tests can see and change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;
use vitalseal_crypto::{
    Agreement, AtRest, CertificateAuthority, ContentType, DeviceCertificate, DeviceId,
    DeviceSigner, KeyEpoch, MessageId, NoSenderKeys, Received, RecipientCertificate,
    RecipientKeyRing, SealRequest, SubjectPseudonym, default_backend, new_device_key_and_csr, seal,
};
use vitalseal_query::{QueryDeps, QueryError, QueryLimits, QueryService, QuerySession};
use vitalseal_storage::inbox::{Admission, Judgement, Required};
use vitalseal_storage::ports::{
    AccessPolicy, AuditError, AuditEvent, AuditRecord, AuditSink, Authenticated,
    AuthenticationError, Authenticator, Authorized, Clock, Identity, PolicyError, Purpose, Role,
};
use vitalseal_storage::{CompactionSettings, Store, Unwatched};
use vitalseal_storage::{FileRootProvider, StorePaths};
use vitalseal_vitals::{Reading, Waveform, senml, signal, waveform};

/// 2026-03-01T00:00:00Z.
pub(crate) const START_US: i64 = 1_772_323_200_000_000;

/// An hour after [`START_US`], moved by hand.
#[derive(Debug)]
pub(crate) struct HandClock(AtomicI64);

impl HandClock {
    pub(crate) fn forward(&self, by: SignedDuration) {
        let us = i64::try_from(by.as_micros()).unwrap();
        self.0.fetch_add(us, Ordering::Relaxed);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_microsecond(self.0.load(Ordering::Relaxed)).unwrap()
    }
}

/// Grants by user.
#[derive(Debug, Default)]
pub(crate) struct Grants(Mutex<BTreeMap<String, BTreeSet<SubjectPseudonym>>>);

#[async_trait]
impl AccessPolicy for Grants {
    async fn patients_readable_by(
        &self,
        who: &Identity,
        _purpose: Purpose,
        _now: Timestamp,
    ) -> Result<Authorized, PolicyError> {
        let grants = self.0.lock().unwrap();
        Ok(Authorized::new(
            grants.get(who.user.as_str()).cloned().unwrap_or_default(),
        ))
    }
}

/// Takes `token-of-<user>` until it is told not to.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    pub(crate) revoked: AtomicBool,
}

#[async_trait]
impl Authenticator for Tokens {
    async fn authenticate(
        &self,
        user: &str,
        token: &str,
        _now: Timestamp,
    ) -> Result<Authenticated, AuthenticationError> {
        if self.revoked.load(Ordering::Relaxed) || token != format!("token-of-{user}") {
            return Err(AuthenticationError::Refused);
        }
        Ok(Authenticated {
            who: identity(user),
            until: Timestamp::MAX,
        })
    }
}

/// Remembers every record.
#[derive(Debug, Default)]
pub(crate) struct Notebook {
    records: Mutex<Vec<AuditRecord>>,
    pub(crate) full: AtomicBool,
    /// Whoever holds it keeps records waiting.
    pub(crate) gate: tokio::sync::Mutex<()>,
}

#[async_trait]
impl AuditSink for Notebook {
    async fn record(&self, record: AuditRecord) -> Result<(), AuditError> {
        let _passed = self.gate.lock().await;
        if self.full.load(Ordering::Relaxed) {
            return Err(AuditError::new("the disk is full"));
        }
        self.records.lock().unwrap().push(record);
        Ok(())
    }
}

impl Notebook {
    pub(crate) fn events(&self) -> Vec<AuditEvent> {
        self.records
            .lock()
            .unwrap()
            .iter()
            .map(|record| record.event.clone())
            .collect()
    }

    pub(crate) fn forget(&self) {
        self.records.lock().unwrap().clear();
    }
}

pub(crate) fn identity(user: &str) -> Identity {
    Identity {
        user: user.parse().unwrap(),
        role: Role::Clinician,
    }
}

/// A device at a bed.
pub(crate) struct Bedside {
    pub(crate) device: DeviceId,
    pub(crate) patient: SubjectPseudonym,
    signer: DeviceSigner,
    sequence: AtomicU64,
}

impl Bedside {
    /// Its certificate.
    pub(crate) fn certificate(&self) -> &DeviceCertificate {
        self.signer.certificate()
    }
}

pub(crate) struct Ward {
    _dir: TempDir,
    pub(crate) store: Store,
    pub(crate) ca: CertificateAuthority,
    recipient: RecipientCertificate,
    ring: RecipientKeyRing,
    pub(crate) clock: Arc<HandClock>,
    pub(crate) grants: Arc<Grants>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) audit: Arc<Notebook>,
    pub(crate) service: Arc<QueryService>,
}

impl Ward {
    pub(crate) async fn open() -> Self {
        Self::with_limits(QueryLimits {
            memory_bytes: 64 << 20,
            deadline: Duration::from_secs(60),
            connections: 8,
        })
        .await
    }

    pub(crate) async fn with_limits(limits: QueryLimits) -> Self {
        let backend = default_backend();
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(HandClock(AtomicI64::new(START_US + 3_600_000_000)));
        let now = clock.now();
        let paths = StorePaths::new(&dir.path().join("data"), None);
        let roots = Arc::new(FileRootProvider::new(paths.root_keys()));
        let store = Store::create(&paths, roots, now).await.unwrap();
        let made = CertificateAuthority::create(now).unwrap();
        let ca = CertificateAuthority::open(
            &made.issuing_key_pem,
            &made.issuing_cert_pem,
            &made.root_cert_pem,
        )
        .unwrap();
        let later = now + SignedDuration::from_hours(24);
        let recipient = ca
            .issue_recipient(KeyEpoch(1), now, later, backend)
            .unwrap();
        let certificate = recipient.certificate().clone();
        let ring = RecipientKeyRing::new(vec![recipient]);
        let grants = Arc::new(Grants::default());
        let tokens = Arc::new(Tokens::default());
        let audit = Arc::new(Notebook::default());
        let deps = QueryDeps {
            store: store.clone(),
            policy: Arc::<Grants>::clone(&grants),
            authenticator: Arc::<Tokens>::clone(&tokens),
            audit: Arc::<Notebook>::clone(&audit),
            clock: Arc::<HandClock>::clone(&clock),
        };
        let service = QueryService::new(deps, limits);
        Self {
            _dir: dir,
            store,
            ca,
            recipient: certificate,
            ring,
            clock,
            grants,
            tokens,
            audit,
            service,
        }
    }

    /// A patient in a bed with a device, visible to `user`.
    pub(crate) async fn admit(&self, device: &str, name: &str, user: &str) -> Bedside {
        let now = self.clock.now();
        let patient = self
            .store
            .registry
            .add_patient(Some(name), Some("MRN-1"), now)
            .await
            .unwrap();
        let device: DeviceId = device.parse().unwrap();
        let (key, csr) = new_device_key_and_csr(&device).unwrap();
        let issued = self.ca.issue_device(&csr, &device, now).unwrap();
        self.store
            .registry
            .enroll_device(&issued.certificate, now)
            .await
            .unwrap();
        self.store
            .registry
            .assign_device(&device, &patient, now)
            .await
            .unwrap();
        let signer = DeviceSigner::from_pkcs8_pem(&key, &issued.pem).unwrap();
        let mut grants = self.grants.0.lock().unwrap();
        grants
            .entry(user.to_owned())
            .or_default()
            .insert(patient.clone());
        Bedside {
            device,
            patient,
            signer,
            sequence: AtomicU64::new(0),
        }
    }

    pub(crate) fn revoke_grants(&self, user: &str) {
        self.grants.0.lock().unwrap().remove(user);
    }

    /// Seals heart rates as the device would, opens and re-wraps them as ingest would, and stores them.
    /// The first reading is `at_s` seconds after [`START_US`], then one a second.
    pub(crate) async fn measure(&self, bed: &Bedside, at_s: i64, values: &[f64]) -> MessageId {
        let heart_rate = signal("8867-4").expect("heart rate is in the table");
        let readings: Vec<Reading> = (at_s..)
            .zip(values)
            .map(|(second, value)| Reading {
                signal: heart_rate,
                value: *value,
                at: Timestamp::from_microsecond(START_US + second * 1_000_000).unwrap(),
            })
            .collect();
        let (envelope, signed_hash) = self.sealed(bed, &senml::encode(&readings)).await;
        let message = envelope.header().message_id();
        self.put(
            envelope.header().subject.clone(),
            &message,
            signed_hash,
            &readings,
            envelope.into_bytes(),
        )
        .await;
        message
    }

    /// The same for a waveform.
    pub(crate) async fn record(&self, bed: &Bedside, wave: &Waveform) -> MessageId {
        let payload = waveform::encode(wave);
        let (envelope, signed_hash) = self.sealed_as(ContentType::Waveform, bed, &payload).await;
        let message = envelope.header().message_id();
        let subject = envelope.header().subject.clone();
        let bytes = envelope.into_bytes();
        self.put(subject, &message, signed_hash, &wave.readings(), bytes)
            .await;
        message
    }

    /// An at-rest envelope of `bed` around any payload of readings.
    pub(crate) async fn sealed(&self, bed: &Bedside, payload: &[u8]) -> (AtRest, [u8; 32]) {
        self.sealed_as(ContentType::SenmlCbor, bed, payload).await
    }

    /// The same of any kind.
    pub(crate) async fn sealed_as(
        &self,
        content_type: ContentType,
        bed: &Bedside,
        payload: &[u8],
    ) -> (AtRest, [u8; 32]) {
        let backend = default_backend();
        let request = SealRequest {
            content_type,
            device: &bed.device,
            subject: &bed.patient,
            issued_at: self.clock.now(),
            boot: 1,
            sequence: bed.sequence.fetch_add(1, Ordering::Relaxed),
            previous: None,
        };
        let recipient = &self.recipient;
        let sealed = seal(
            &request,
            payload,
            recipient,
            Agreement::Ephemeral,
            &bed.signer,
            backend,
        )
        .unwrap();
        let verified = Received::decode(&sealed.bytes)
            .unwrap()
            .verify(bed.signer.certificate(), backend)
            .unwrap();
        let opened = verified.open(&self.ring, &NoSenderKeys, backend).unwrap();
        let keys = self
            .store
            .keys
            .patient_keys(&bed.patient)
            .await
            .unwrap()
            .expect("not erased");
        (
            opened.rewrap(keys.current(), backend).unwrap(),
            sealed.signed_hash,
        )
    }

    pub(crate) async fn put(
        &self,
        subject: SubjectPseudonym,
        message: &MessageId,
        signed_hash: [u8; 32],
        readings: &[Reading],
        envelope: Vec<u8>,
    ) {
        let instant = |at: Option<&Reading>| at.map_or(self.clock.now(), |reading| reading.at);
        let admission = Admission {
            message: message.clone(),
            signed_hash,
            previous: None,
            introduced: None,
            subject,
            issued_at: self.clock.now(),
            required: Required::default(),
            received_at: self.clock.now(),
            first_at: instant(readings.first()),
            last_at: instant(readings.last()),
            readings: u32::try_from(readings.len()).unwrap(),
            envelope,
        };
        assert!(matches!(
            self.store.inbox.admit(admission).await.unwrap(),
            Judgement::Stored
        ));
    }

    pub(crate) async fn flush(&self) {
        self.store.flush(self.clock.now()).await.unwrap();
    }

    /// Merges all that is flushed.
    pub(crate) async fn compact(&self) {
        let settings = CompactionSettings {
            force: true,
            ..CompactionSettings::default()
        };
        let now = self.clock.now();
        while self
            .store
            .compact(now, &settings, &Unwatched)
            .await
            .unwrap()
            .files_in
            > 0
        {}
    }

    /// Destroys a patient's key.
    pub(crate) async fn erase(&self, bed: &Bedside) {
        let keys = &self.store.keys;
        keys.erase(&bed.patient, "e-1", self.clock.now())
            .await
            .unwrap();
    }

    pub(crate) async fn session(&self, user: &str) -> QuerySession {
        self.service
            .session(identity(user), Purpose::Treatment)
            .await
            .unwrap()
    }

    /// Rows as text, columns separated by `|`, or the error.
    pub(crate) async fn ask(&self, user: &str, sql: &str) -> Result<Vec<String>, QueryError> {
        let batches: Vec<RecordBatch> = self
            .session(user)
            .await
            .sql(sql)
            .await?
            .try_collect()
            .await?;
        Ok(batches.iter().flat_map(lines).collect())
    }

    /// The one number that a query answers with.
    pub(crate) async fn number(&self, user: &str, sql: &str) -> i64 {
        let rows = self.ask(user, sql).await.unwrap();
        assert_eq!(rows.len(), 1, "{sql}: {rows:?}");
        rows[0].parse().unwrap()
    }
}

fn lines(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default();
    let columns: Vec<_> = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap())
        .collect();
    (0..batch.num_rows())
        .map(|row| {
            let cells: Vec<_> = columns
                .iter()
                .map(|cell| cell.value(row).to_string())
                .collect();
            cells.join("|")
        })
        .collect()
}
