//! Messages as devices seal them, and every one of them found again, wherever it is: hot, as a row, in a chunk.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _};
use vitalseal_crypto::{
    Agreement, AtRest, BlobKey, CertificateAuthority, ContentType, DeviceSigner, KeyEpoch,
    NoSenderKeys, Received, RecipientCertificate, SealRequest, blob_kid, default_backend,
    new_device_key_and_csr, open_blob, seal,
};
use vitalseal_vitals::signal::PULSE_WAVEFORM;
use vitalseal_vitals::{Period, Reading, Waveform, senml, signal, waveform};

use super::*;
use crate::catalog::{DataFile, FileKind, TableKind};
use crate::chunk::{ChunkRow, Readings, Waveforms};
use crate::compact::{context, open_evidence};
use crate::inbox::rows::SealedRow;
use crate::schema;
use crate::store::Cut;

/// A device that is enrolled, and what opens its messages.
pub(super) struct Monitor {
    device: DeviceId,
    signer: DeviceSigner,
    certificate: vitalseal_crypto::DeviceCertificate,
    recipient: RecipientCertificate,
}

impl Monitor {
    pub(super) async fn enrol(store: &Store, n: u32) -> Self {
        let backend = default_backend();
        let made = CertificateAuthority::create(at(0)).unwrap();
        let authority = CertificateAuthority::open(
            &made.issuing_key_pem,
            &made.issuing_cert_pem,
            &made.root_cert_pem,
        )
        .unwrap();
        let epoch = KeyEpoch(n.into());
        let recipient = authority
            .issue_recipient(epoch, at(0), at(86_400), backend)
            .unwrap();
        let keys = &store.keys;
        keys.put_recipient(&recipient, epoch, at(0), at(86_400))
            .await
            .unwrap();
        let device = device(n);
        let (key_pem, csr) = new_device_key_and_csr(&device).unwrap();
        let issued = authority.issue_device(&csr, &device, at(0)).unwrap();
        store
            .registry
            .enroll_device(&issued.certificate, at(1))
            .await
            .unwrap();
        Self {
            signer: DeviceSigner::from_pkcs8_pem(&key_pem, &issued.pem).unwrap(),
            certificate: issued.certificate,
            recipient: RecipientCertificate::from_pem(&recipient.certificate().to_pem()).unwrap(),
            device,
        }
    }

    /// A message of heart rates, one a second from `first_s` on; `received_s` later is when it came.
    pub(super) async fn vitals(
        &self,
        store: &Store,
        subject: &SubjectPseudonym,
        sequence: u64,
        (first_s, received_s): (i64, i64),
        count: i64,
    ) -> Admission {
        let readings: Vec<Reading> = (0..count)
            .map(|n| Reading {
                signal: signal("8867-4").unwrap(),
                value: f64::from(u32::try_from(60 + (first_s + n).rem_euclid(40)).unwrap()),
                at: at(first_s + n),
            })
            .collect();
        let payload = senml::encode(&readings);
        let last_s = first_s + count - 1;
        let content = (ContentType::SenmlCbor, payload.as_slice());
        let spans = (first_s, last_s, received_s);
        self.admission(store, subject, sequence, content, spans, count)
            .await
    }

    /// A second of a pulse wave at 100 Hz.
    pub(super) async fn wave(
        &self,
        store: &Store,
        subject: &SubjectPseudonym,
        sequence: u64,
        (first_s, received_s): (i64, i64),
    ) -> Admission {
        let period = Period::new(1_000_000, 100).unwrap();
        let samples = (0..100)
            .map(|n| (n * 37 + i32::try_from(sequence).unwrap()) % 500)
            .collect();
        let signal = signal(PULSE_WAVEFORM).unwrap();
        let wave = Waveform::new(signal, at(first_s), period, 0.5, 0.0, samples).unwrap();
        let payload = waveform::encode(&wave);
        let content = (ContentType::Waveform, payload.as_slice());
        self.admission(
            store,
            subject,
            sequence,
            content,
            (first_s, first_s, received_s),
            100,
        )
        .await
    }

    async fn admission(
        &self,
        store: &Store,
        subject: &SubjectPseudonym,
        sequence: u64,
        (content_type, payload): (ContentType, &[u8]),
        (first_s, last_s, received_s): (i64, i64, i64),
        readings: i64,
    ) -> Admission {
        let backend = default_backend();
        let request = SealRequest {
            content_type,
            device: &self.device,
            subject,
            issued_at: at(received_s),
            boot: 1,
            sequence,
            previous: None,
        };
        let sealed = seal(
            &request,
            payload,
            &self.recipient,
            Agreement::Ephemeral,
            &self.signer,
            backend,
        )
        .unwrap();
        let ring = store.keys.recipient_ring().await.unwrap();
        let keys = store.keys.patient_keys(subject).await.unwrap().unwrap();
        let received = Received::decode(&sealed.bytes).unwrap();
        let verified = received.verify(&self.certificate, backend).unwrap();
        let opened = verified.open(&ring, &NoSenderKeys, backend).unwrap();
        let at_rest = opened.rewrap(keys.current(), backend).unwrap();
        Admission {
            message: at_rest.header().message_id(),
            signed_hash: at_rest.signed_hash(backend),
            previous: None,
            introduced: None,
            subject: subject.clone(),
            issued_at: at(received_s),
            required: Required::default(),
            received_at: at(received_s),
            first_at: at(first_s),
            last_at: at(last_s),
            readings: u32::try_from(readings).unwrap(),
            envelope: at_rest.into_bytes(),
        }
    }
}

/// A message by its device and sequence.
pub(super) type Name = (String, i64);

/// Where every message of some patients is: `hot`, or the file's kind and level, with its envelope.
pub(super) type Found = BTreeMap<Name, (String, Vec<u8>)>;

/// Every message of a cut, each once; and that its chunks hold the values that its envelopes do.
pub(super) async fn everything(store: &Store, cut: &Cut, subjects: &[&SubjectPseudonym]) -> Found {
    let mut found = Found::new();
    let mut note = |name: Name, place: String, envelope: Vec<u8>| {
        let before = found.insert(name.clone(), (place, envelope));
        assert!(before.is_none(), "{name:?} is there twice");
    };
    for row in 0..cut.hot.num_rows() {
        let row = SealedRow::of_batch(&cut.hot, row).unwrap();
        note((row.device, row.sequence), "hot".to_owned(), row.envelope);
    }
    for file in cut.files.iter() {
        let place = format!("{} {}", file.kind.as_str(), file.level);
        let mut rows = Vec::new();
        let mut last = None;
        for batch in batches(store, file).await {
            for row in 0..batch.num_rows() {
                match file.kind {
                    FileKind::Rows => rows.push(SealedRow::of_batch(&batch, row).unwrap()),
                    FileKind::Chunks => {
                        let chunk = ChunkRow::read(&batch, row).unwrap();
                        let key = (chunk.subject.clone(), chunk.bucket_start_us);
                        assert!(
                            last.is_none_or(|last| last <= key),
                            "{} is not sorted",
                            file.path
                        );
                        last = Some(key);
                        rows.extend(messages_of(store, &chunk, file.table).await);
                    }
                }
            }
        }
        assert_eq!(rows.len() as u64, file.messages, "{}", file.path);
        for row in rows {
            if subjects
                .iter()
                .any(|subject| subject.as_str() == row.subject)
            {
                note((row.device, row.sequence), place.clone(), row.envelope);
            }
        }
    }
    found
}

pub(super) async fn batches(store: &Store, file: &DataFile) -> Vec<arrow::array::RecordBatch> {
    let schema = file.kind.schema();
    let columns: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    let batches = store.files.batches(file, &columns, 16).boxed();
    batches.try_collect().await.unwrap()
}

/// The messages of a chunk, after its columns were held against its envelopes, as far as there are keys.
async fn messages_of(store: &Store, chunk: &ChunkRow, table: TableKind) -> Vec<SealedRow> {
    let backend = default_backend();
    let store_keys = store.keys.store_keys().await.unwrap();
    let evidence = open_evidence(chunk, table, &store_keys, backend).expect("evidence opens");
    let mut rows = Vec::new();
    let mut sent: Vec<(i64, u64, u32)> = Vec::new();
    let keys = store.keys.patient_keys(&chunk.subject).await.unwrap();
    for (index, (noted, envelope)) in (0..).zip(evidence.messages()) {
        let at_rest = AtRest::decode(envelope).unwrap();
        let header = at_rest.header();
        if let Some(keys) = &keys {
            let kek = keys.find(at_rest.kek_kid()).unwrap();
            let payload = at_rest.open(kek, backend).unwrap();
            let readings = match table {
                TableKind::Vitals => senml::decode(&payload).unwrap(),
                TableKind::Waveforms => waveform::decode(&payload).unwrap(),
            };
            sent.extend(
                readings
                    .iter()
                    .map(|r| (r.at.as_microsecond(), r.value.to_bits(), index)),
            );
        }
        rows.push(SealedRow {
            id: 0,
            subject: header.subject.as_str().to_owned(),
            device: header.device.as_str().to_owned(),
            boot: i64::try_from(header.boot).unwrap(),
            sequence: i64::try_from(header.sequence).unwrap(),
            received_at_us: noted.received_at_us,
            first_at_us: noted.first_at_us,
            last_at_us: noted.last_at_us,
            readings: i32::try_from(noted.readings).unwrap(),
            envelope: envelope.to_vec(),
        });
    }
    if let Some(keys) = keys {
        let kek = keys.find(&blob_kid(&chunk.sealed).unwrap()).unwrap();
        let context = context(table, chunk, schema::SEALED);
        let plain = open_blob(&chunk.sealed, BlobKey::Patient(kek), &context, backend).unwrap();
        let mut held = Vec::new();
        let (mut times, mut values, mut from) = (Vec::new(), Vec::new(), Vec::new());
        match table {
            TableKind::Vitals => {
                let readings = Readings::parse(plain).unwrap();
                for series in readings.series() {
                    readings.times(series, &mut times).unwrap();
                    readings.values(series, &mut values).unwrap();
                    readings.message_indexes(series, &mut from).unwrap();
                }
            }
            TableKind::Waveforms => {
                let waves = Waveforms::parse(plain).unwrap();
                for row in waves.rows() {
                    waves.values(row, &mut values).unwrap();
                    times.extend((0..row.count).map(|n| row.start_us + row.period.offset_us(n)));
                    from.extend((0..row.count).map(|_| row.message));
                }
            }
        }
        for ((at_us, value), from) in times.into_iter().zip(values).zip(from) {
            held.push((at_us, f64::to_bits(value), from));
        }
        sent.sort_unstable();
        held.sort_unstable();
        assert_eq!(held.len() as u64, chunk.readings);
        assert!(
            held == sent,
            "the columns of a chunk differ from its envelopes"
        );
    }
    rows
}
