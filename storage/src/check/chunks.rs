//! Rows of chunks: what is said of a chunk, its evidence, and its readings against each other.

use std::collections::{BTreeMap, HashSet};

use arrow::record_batch::RecordBatch;
use vitalseal_crypto::{
    AtRest, BlobKey, DeviceId, MessageId, SubjectPseudonym, blob_kid, default_backend, open_blob,
};
use zeroize::Zeroizing;

use super::rows::Against;
use super::{Cost, Looked, Place};
use crate::catalog::{Loss, TableKind};
use crate::chunk::{ChunkRow, DeviceSummary, Messages, Readings, Waveforms};
use crate::compact::{BUCKETS, context, open_evidence};
use crate::database::{at, us};
use crate::schema;

/// Of a chunk whose evidence a repair left out.
pub(super) const EVIDENCE_LOST: &str = "its evidence does not open; its readings are there";

/// Chunks whose evidence is on record as lost, by patient and span.
pub(super) struct Unproven(HashSet<(SubjectPseudonym, i64, i64)>);

impl Unproven {
    pub(super) fn of(losses: &[Loss]) -> Self {
        let lost = losses.iter().filter(|loss| loss.fault == EVIDENCE_LOST);
        let chunk = |loss: &Loss| {
            let span = (us(loss.first_at?), us(loss.last_at?));
            Some((loss.patient.clone()?, span.0, span.1))
        };
        Self(lost.filter_map(chunk).collect())
    }

    /// Whether this is one, without the evidence that it lost.
    fn is(&self, chunk: &ChunkRow) -> bool {
        let known = || (chunk.subject.clone(), chunk.first_at_us, chunk.last_at_us);
        chunk.evidence.is_empty() && self.0.contains(&known())
    }
}

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
            (Blob::Damaged, _) if self.against.unproven.is(self.row) => looked.unproven = 1,
            (Blob::Damaged, _) => looked.costs(EVIDENCE_LOST, Cost::Evidence),
            (Blob::Open(Some(_)), Blob::Damaged) => looked.costs(
                "its readings do not open; its evidence holds their messages",
                Cost::Nothing,
            ),
            (_, Blob::Damaged) => looked.doubt("its readings do not open"),
            _ => {}
        }
        let evidence = match evidence {
            Blob::Open(messages) => messages,
            _ => None,
        };
        looked.messages = match (evidence, found) {
            (evidence, Blob::Open(found)) => {
                self.compare(&found, evidence.as_deref(), looked);
                evidence.unwrap_or(found.messages)
            }
            (evidence, _) => evidence.unwrap_or_default(),
        };
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

    /// The messages that the evidence holds, if each is one; it needs no patient's key.
    fn evidence(&self, table: TableKind, looked: &mut Looked) -> Blob<Option<Vec<MessageId>>> {
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
        let mut by_device: BTreeMap<DeviceId, u64> = BTreeMap::new();
        let mut readings = 0_u64;
        for (noted, envelope) in evidence.messages() {
            readings = readings.saturating_add(noted.readings.into());
            match AtRest::decode(envelope) {
                Ok(envelope) => {
                    let id = envelope.header().message_id();
                    *by_device.entry(id.device.clone()).or_default() += 1;
                    self.envelope(&envelope, &id, noted.received_at_us, table, looked);
                    messages.push(id);
                }
                Err(rejection) => {
                    looked.doubt(format!("an envelope of its evidence is none: {rejection}"));
                }
            }
        }
        let counted = self
            .row
            .devices
            .iter()
            .map(|(device, of)| (device, of.messages));
        if !by_device
            .iter()
            .map(|(device, count)| (device, *count))
            .eq(counted)
        {
            looked.doubt("its evidence holds other messages than its columns count");
        }
        Blob::Open((messages.len() == evidence.count()).then_some(messages))
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

    fn compare(&self, found: &Found, evidence: Option<&[MessageId]>, looked: &mut Looked) {
        if found.readings != self.row.readings || found.codes != self.row.codes {
            looked.doubt("its readings are others than its columns count");
        }
        if found.span != Some((self.row.first_at_us, self.row.last_at_us)) {
            looked.doubt("its readings lie at other times than its columns say");
        }
        if evidence.is_some_and(|evidence| found.messages != evidence) {
            looked.doubt("its readings came in other messages than its evidence holds");
        }
    }
}

/// What a chunk's readings, or samples, add up to.
struct Found {
    readings: u64,
    codes: u64,
    span: Option<(i64, i64)>,
    messages: Vec<MessageId>,
}

impl Found {
    fn parse(plain: Zeroizing<Vec<u8>>, table: TableKind) -> Option<Self> {
        let mut found = Self {
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
