//! Rows of chunks: what is said of a chunk, its evidence, and its readings against each other.

use arrow::record_batch::RecordBatch;
use vitalseal_crypto::{
    AtRest, BlobKey, DeviceId, MessageId, blob_kid, default_backend, open_blob,
};
use zeroize::Zeroizing;

use super::rows::Against;
use super::{Cost, Looked, Place};
use crate::catalog::{EVIDENCE_LOST, TableKind};
use crate::chunk::{
    ChunkRow, DeviceSummary, Devices, MessageMeta, Messages, Readings, Waveforms, evidence_of,
};
use crate::compact::{BUCKETS, context, open_evidence};
use crate::database::at;
use crate::schema;

/// What is known of one of a chunk's blobs.
enum Blob<T> {
    Open(T),
    Damaged,
    /// There is no key here to try it with.
    Locked,
}

/// Looks at the rows of a batch of a chunks file, each in its place.
pub(super) fn look(batch: &RecordBatch, places: Vec<Place>, against: &Against) -> Vec<Looked> {
    let rows = places.into_iter().enumerate();
    rows.map(|(row, place)| {
        let mut looked = Looked::at(place);
        match ChunkRow::read(batch, row) {
            Ok(chunk) => Chunk {
                row: &chunk,
                against,
            }
            .look(&mut looked),
            Err(error) => looked.lost(format!("it is no chunk: {error}")),
        }
        looked
    })
    .collect()
}

struct Chunk<'a> {
    row: &'a ChunkRow,
    against: &'a Against,
}

impl Chunk<'_> {
    fn look(&self, looked: &mut Looked) {
        looked.readings = self.row.readings;
        if !self.is_in_its_bucket() {
            looked.doubt("it lies in no bucket, or in another than it says");
        }
        if !self.adds_up() {
            looked.doubt("its devices add up to something else than its columns say");
        }
        let Some(table) = self.against.table else {
            return looked.lost("a chunk stands in a file of version 3");
        };
        let evidence = self.evidence(table, looked);
        let found = self.readings(table, looked);
        match (&evidence, &found) {
            (Blob::Damaged, Blob::Damaged) => {
                looked.lost("neither its readings nor its evidence open");
            }
            (Blob::Damaged, _) if self.is_unproven() => looked.unproven = true,
            (Blob::Damaged, _) => looked.costs(EVIDENCE_LOST, Cost::Evidence),
            (
                Blob::Open(Envelopes {
                    messages: Some(_), ..
                }),
                Blob::Damaged,
            ) => looked.costs(
                "its readings do not open; its evidence holds their messages",
                Cost::Nothing,
            ),
            (_, Blob::Damaged) => looked.doubt("its readings do not open"),
            _ => {}
        }
        looked.messages = match (evidence, found) {
            (Blob::Open(evidence), Blob::Open(found)) => {
                self.compare(&found, looked);
                if found.evidence.is_some_and(|of| of != evidence.digest) {
                    looked.doubt("its readings were made of other evidence than lies beside them");
                }
                if evidence
                    .messages
                    .as_ref()
                    .is_some_and(|of| *of != found.messages)
                {
                    looked.doubt("its readings came in other messages than its evidence holds");
                }
                evidence.messages.unwrap_or(found.messages)
            }
            (_, Blob::Open(found)) => {
                self.compare(&found, looked);
                found.messages
            }
            (Blob::Open(evidence), _) => evidence.messages.unwrap_or_default(),
            _ => Vec::new(),
        };
    }

    /// Whether its evidence is on record as lost.
    fn is_unproven(&self) -> bool {
        let row = self.row;
        let span = (row.first_at_us, row.last_at_us);
        self.against.unproven.has(&row.subject, span, &row.evidence)
    }

    fn is_in_its_bucket(&self) -> bool {
        let ChunkRow {
            bucket_start_us,
            bucket_seconds,
            first_at_us,
            ..
        } = *self.row;
        let width = i64::from(bucket_seconds) * 1_000_000;
        BUCKETS.contains(&bucket_seconds)
            && bucket_start_us.rem_euclid(width) == 0
            && first_at_us.div_euclid(width) == bucket_start_us.div_euclid(width)
    }

    fn adds_up(&self) -> bool {
        let row = self.row;
        let devices: Vec<_> = row.devices.iter().map(|(_, summary)| summary).collect();
        let least = |of: fn(&DeviceSummary) -> i64| devices.iter().map(|it| of(it)).min();
        let most = |of: fn(&DeviceSummary) -> i64| devices.iter().map(|it| of(it)).max();
        let sum = |of: fn(&DeviceSummary) -> u64| {
            devices
                .iter()
                .fold(0_u64, |sum, it| sum.saturating_add(of(it)))
        };
        sum(|it| it.messages) == u64::from(row.messages)
            && sum(|it| it.readings) == row.readings
            && least(|it| it.first_at_us) == Some(row.first_at_us)
            && most(|it| it.last_at_us) == Some(row.last_at_us)
            && least(|it| it.received_first_us) == Some(row.received_first_us)
            && most(|it| it.received_last_us) == Some(row.received_last_us)
    }

    /// What the evidence holds; it needs no patient's key.
    fn evidence(&self, table: TableKind, looked: &mut Looked) -> Blob<Envelopes> {
        let keys = &self.against.store_keys;
        let Ok(kid) = blob_kid(&self.row.evidence) else {
            return Blob::Damaged;
        };
        if keys.find(&kid).is_none() {
            looked.doubt("its evidence is sealed under a store key that is not here");
            return Blob::Locked;
        }
        let Some(evidence) = open_evidence(self.row, table, keys, default_backend()) else {
            return Blob::Damaged;
        };
        let mut messages = Vec::with_capacity(evidence.count());
        let mut devices = Devices::default();
        for (noted, envelope) in evidence.messages() {
            match AtRest::decode(envelope) {
                Ok(envelope) => {
                    let id = envelope.header().message_id();
                    let message = MessageMeta {
                        device: id.device.clone(),
                        boot: id.boot,
                        sequence: id.sequence,
                        received_at_us: noted.received_at_us,
                    };
                    let measured = (noted.first_at_us, noted.last_at_us);
                    devices.add(&message, noted.readings.into(), measured.0, measured.1);
                    self.envelope(&envelope, &id, noted.received_at_us, table, looked);
                    messages.push(id);
                }
                Err(rejection) => {
                    looked.doubt(format!("an envelope of its evidence is none: {rejection}"));
                }
            }
        }
        if devices != self.row.devices {
            looked.doubt("its evidence holds other messages than its columns count");
        }
        Blob::Open(Envelopes {
            messages: (messages.len() == evidence.count()).then_some(messages),
            digest: evidence.digest(),
        })
    }

    fn envelope(
        &self,
        envelope: &AtRest,
        id: &MessageId,
        received_at_us: i64,
        table: TableKind,
        looked: &mut Looked,
    ) {
        let header = envelope.header();
        let named = || format!("{} {}/{}", id.device, id.boot, id.sequence);
        if header.subject != self.row.subject || TableKind::from(header.content_type) != table {
            looked.doubt(format!("{}: of another patient or table", named()));
        }
        let Ok(received_at) = at(received_at_us) else {
            return looked.doubt(format!("{}: it came at no time", named()));
        };
        match self.against.signatures.verify(envelope, received_at) {
            Ok(()) => looked.signatures += 1,
            Err(fault) => looked.doubt(format!("{}: {fault}", named())),
        }
    }

    /// What the readings add up to, if there is a key to open them with.
    fn readings(&self, table: TableKind, looked: &mut Looked) -> Blob<Found> {
        let Ok(kid) = blob_kid(&self.row.sealed) else {
            return Blob::Damaged;
        };
        let Some(keys) = self.against.keys.get(&self.row.subject) else {
            looked.unopened = 1;
            return Blob::Locked;
        };
        let Some(kek) = keys.find(&kid) else {
            // Keys that are older than the file, as a registry from a backup has them, do not damage it.
            looked.doubt("its readings are sealed under a key of its patient that is not here");
            return Blob::Locked;
        };
        let context = context(table, self.row, schema::SEALED);
        let key = BlobKey::Patient(kek);
        let plain = open_blob(&self.row.sealed, key, &context, default_backend()).ok();
        match plain.and_then(|plain| Found::parse(plain, table)) {
            Some(found) => {
                looked.opened = 1;
                Blob::Open(found)
            }
            None => Blob::Damaged,
        }
    }

    fn compare(&self, found: &Found, looked: &mut Looked) {
        if found.readings != self.row.readings || found.codes != self.row.codes {
            looked.doubt("its readings are others than its columns count");
        }
        if found.span != Some((self.row.first_at_us, self.row.last_at_us)) {
            looked.doubt("its readings lie at other times than its columns say");
        }
    }
}

/// What a chunk's evidence holds.
struct Envelopes {
    /// `None` if one of the envelopes is none.
    messages: Option<Vec<MessageId>>,
    digest: [u8; 32],
}

/// What a chunk's readings, or samples, add up to.
struct Found {
    /// The digest of the evidence that they were made of, if they say it.
    evidence: Option<[u8; 32]>,
    readings: u64,
    codes: u64,
    span: Option<(i64, i64)>,
    messages: Vec<MessageId>,
}

impl Found {
    fn parse(plain: Zeroizing<Vec<u8>>, table: TableKind) -> Option<Self> {
        let mut found = Self {
            evidence: evidence_of(&plain).ok()?,
            readings: 0,
            codes: 0,
            span: None,
            messages: Vec::new(),
        };
        match table {
            TableKind::Vitals => {
                let readings = Readings::parse(plain).ok()?;
                for series in readings.series() {
                    let stats = &series.stats;
                    found.add(
                        stats.count,
                        series.signal.number,
                        (stats.first_us, stats.last_us),
                    );
                }
                found.name(&readings.messages().ok()?, readings.devices())?;
            }
            TableKind::Waveforms => {
                let waveforms = Waveforms::parse(plain).ok()?;
                for row in waveforms.rows() {
                    found.add(row.count, row.signal.number, (row.start_us, row.last_us()));
                }
                found.name(&waveforms.messages().ok()?, waveforms.devices())?;
            }
        }
        Some(found)
    }

    fn add(&mut self, count: usize, signal: u16, (first, last): (i64, i64)) {
        self.readings = self
            .readings
            .saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        self.codes |= 1_u64.checked_shl(signal.into()).unwrap_or(0);
        let (from, to) = self.span.unwrap_or((first, last));
        self.span = Some((from.min(first), to.max(last)));
    }

    fn name(&mut self, messages: &Messages, devices: &[DeviceId]) -> Option<()> {
        for index in 0..messages.boot.len() {
            let message = messages.meta(index, devices)?;
            self.messages.push(MessageId {
                device: message.device,
                boot: message.boot,
                sequence: message.sequence,
            });
        }
        Some(())
    }
}
