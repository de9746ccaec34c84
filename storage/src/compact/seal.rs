//! One patient's rows of one bucket become one chunk.
//!
//! What came as messages is opened and decoded once, and sealed again by column; what came as chunks is opened, joined
//! and sealed again; a chunk that has the bucket to itself goes over byte for byte. The envelopes go along bit for bit,
//! in the order of the messages. What does not open, or lies beside other evidence than it was made of, is passed through
//! as it is, and counted. A new chunk is opened again, and held against what went in, before it is handed out.
//!
//! Keys are handed in and go with the group. Nothing here writes, and no value leaves but sealed.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;

use vitalseal_crypto::{
    AtRest, Backend, BlobContext, BlobKey, Kid, PatientKeys, SubjectPseudonym, blob_kid, open_blob,
    seal_blob,
};
use vitalseal_vitals::{Reading, Signal, Waveform, senml, waveform};

use super::bucket::Bucket;
use super::content::Content;
use super::merge::Row;
use crate::catalog::TableKind;
use crate::chunk::{
    ChunkError, ChunkRow, Devices, Evidence, EvidenceBuilder, MessageMeta, Noted, Readings,
    ReadingsBuilder, SCHEMA_VERSION, Waveforms, WaveformsBuilder,
};
use crate::inbox::rows::SealedRow;
use crate::keys::{KeyError, StoreKeys};
use crate::schema;
use crate::store::StoreError;
use crate::upkeep::table_of;

/// The rows of one patient in one bucket, in their order, and the table of the files that they came from.
pub(super) struct Group {
    pub(super) table: TableKind,
    pub(super) subject: SubjectPseudonym,
    pub(super) bucket: Bucket,
    pub(super) rows: Vec<Row>,
}

/// What became of a group.
#[derive(Default)]
pub(super) struct Outcome {
    /// Chunks by table.
    pub(super) chunks: Vec<(TableKind, ChunkRow)>,
    /// Messages that stay rows.
    pub(super) left: Vec<(TableKind, SealedRow)>,
    /// How many messages did not open or decode, those in chunks among them.
    pub(super) refused: u64,
}

/// Opens and seals with the keys of one patient.
pub(super) struct Sealer {
    pub(super) store_keys: Arc<StoreKeys>,
    pub(super) patient: Arc<PatientKeys>,
    pub(super) backend: &'static dyn Backend,
}

impl Sealer {
    pub(super) fn seal(&self, group: Group) -> Outcome {
        let mut outcome = Outcome::default();
        if let [Row::Chunk(only)] = group.rows.as_slice()
            && self.is_current(only)
        {
            for row in group.rows {
                outcome.pass(group.table, row);
            }
            return outcome;
        }
        let (mut vitals, mut waveforms) = (Part::of_vitals(), Part::of_waveforms());
        let mut refused = BTreeSet::new();
        for (n, row) in group.rows.iter().enumerate() {
            let taken = self.open(row, group.table).is_some_and(|opened| {
                let part = match opened.table() {
                    TableKind::Vitals => &mut vitals,
                    TableKind::Waveforms => &mut waveforms,
                };
                part.take(opened).is_ok()
            });
            if !taken {
                refused.insert(n);
            }
        }
        let parts = [vitals, waveforms].into_iter();
        let parts = parts.filter(|part| part.messages > 0);
        let made = parts.map(|part| self.close(part, &group.subject, group.bucket));
        match made.collect::<Result<Vec<_>, _>>() {
            Ok(chunks) => outcome.chunks = chunks,
            Err(error) => {
                let error: &StoreError = &error;
                tracing::error!(
                    error = error as &dyn Error,
                    "sealing a chunk: its rows stay as they are"
                );
                refused = (0..group.rows.len()).collect();
            }
        }
        for (n, row) in group.rows.into_iter().enumerate() {
            if refused.contains(&n) {
                outcome.refuse(group.table, row);
            }
        }
        // What was passed through may begin later than its bucket.
        outcome
            .chunks
            .sort_by_key(|(_, chunk)| chunk.bucket_start_us);
        outcome
    }

    fn open<'a>(&self, row: &'a Row, table: TableKind) -> Option<Opened<'a>> {
        match row {
            Row::Message(row) => Some(Opened::Message(row, self.open_message(row)?)),
            Row::Chunk(row) => {
                let (plain, evidence) = self.open_chunk(row, table)?;
                Some(Opened::Chunk(row, plain, evidence))
            }
        }
    }

    /// Whether a chunk is sealed under the keys that it would be sealed under today.
    fn is_current(&self, chunk: &ChunkRow) -> bool {
        let is = |blob: &[u8], kid: &Kid| blob_kid(blob).is_ok_and(|found| found == *kid);
        is(&chunk.sealed, self.patient.current().kid())
            && is(&chunk.evidence, self.store_keys.current().kid())
    }

    /// `None` for what does not open, or is not what its row says.
    fn open_message(&self, row: &SealedRow) -> Option<Payload> {
        let envelope = AtRest::decode(&row.envelope).ok()?;
        let header = envelope.header();
        let meta = MessageMeta {
            device: header.device.clone(),
            boot: header.boot,
            sequence: header.sequence,
            received_at_us: row.received_at_us,
        };
        let as_said = header.subject.as_str() == row.subject
            && header.device.as_str() == row.device
            && i64::try_from(header.boot) == Ok(row.boot)
            && i64::try_from(header.sequence) == Ok(row.sequence);
        let kek = self.patient.find(envelope.kek_kid()).filter(|_| as_said)?;
        let plain = envelope.open(kek, self.backend).ok()?;
        let payload = match TableKind::from(header.content_type) {
            TableKind::Vitals => Payload::Vitals(meta, senml::decode(&plain).ok()?),
            TableKind::Waveforms => Payload::Waveform(meta, waveform::read(&plain).ok()?),
        };
        (i32::try_from(payload.readings()) == Ok(row.readings)).then_some(payload)
    }

    /// `None` for what does not open, or is not what its row says.
    fn open_chunk(&self, row: &ChunkRow, table: TableKind) -> Option<(Plain, Evidence)> {
        let open = |column, blob: &[u8], key| {
            let context = context(table, row, column);
            open_blob(blob, key, &context, self.backend).ok()
        };
        let kek = self.patient.find(&blob_kid(&row.sealed).ok()?)?;
        let plain = open(schema::SEALED, &row.sealed, BlobKey::Patient(kek))?;
        let plain = match table {
            TableKind::Vitals => Plain::Vitals(Readings::parse(plain).ok()?),
            TableKind::Waveforms => Plain::Waveforms(Waveforms::parse(plain).ok()?),
        };
        let evidence = open_evidence(row, table, &self.store_keys, self.backend)?;
        let messages = usize::try_from(row.messages).ok()?;
        let as_said = plain.is_of(&evidence)
            && plain.messages() == messages
            && evidence.count() == messages
            && plain.readings() == usize::try_from(row.readings).ok()?;
        as_said.then_some((plain, evidence))
    }

    /// Seals what was taken as one chunk.
    fn close(
        &self,
        part: Part,
        subject: &SubjectPseudonym,
        bucket: Bucket,
    ) -> Result<(TableKind, ChunkRow), StoreError> {
        let digest = part.evidence.digest();
        let (table, plain) = match part.builder {
            Builder::Vitals(mut builder) => {
                builder.prove(digest);
                (TableKind::Vitals, builder.finish()?)
            }
            Builder::Waveforms(mut builder) => {
                builder.prove(digest);
                (TableKind::Waveforms, builder.finish()?)
            }
        };
        let evidence = part.evidence.finish()?;
        let mut chunk = ChunkRow {
            subject: subject.clone(),
            bucket_start_us: bucket.start_us,
            bucket_seconds: bucket.seconds,
            first_at_us: part.measured.0,
            last_at_us: part.measured.1,
            received_first_us: part.received.0,
            received_last_us: part.received.1,
            messages: part.messages,
            readings: part.readings,
            codes: part.codes,
            devices: part.devices,
            sealed: Vec::new(),
            evidence: Vec::new(),
        };
        let seal = |column, plain: &[u8], key| {
            let context = context(table, &chunk, column);
            seal_blob(plain, key, &context, self.backend).map_err(KeyError::from)
        };
        let kek = BlobKey::Patient(self.patient.current());
        let sealed = seal(schema::SEALED, &plain, kek)?;
        let key = BlobKey::Store(self.store_keys.current());
        let evidence = seal(schema::EVIDENCE, &evidence, key)?;
        (chunk.sealed, chunk.evidence) = (sealed, evidence);
        let opened = self.open_chunk(&chunk, table);
        let same = |(plain, _): &(Plain, _)| {
            plain.evidence() == Some(digest) && Content::of(plain, 0) == Ok(part.content)
        };
        if opened.as_ref().is_some_and(same) {
            Ok((table, chunk))
        } else {
            Err(StoreError::NotTheSame)
        }
    }
}

impl Outcome {
    /// What goes over as it is.
    pub(super) fn pass(&mut self, table: TableKind, row: Row) {
        match row {
            Row::Message(row) => self.left.push((table_of(&row.envelope, table), row)),
            Row::Chunk(chunk) => self.chunks.push((table, chunk)),
        }
    }

    /// What should have been opened, and goes over as it is.
    pub(super) fn refuse(&mut self, table: TableKind, row: Row) {
        self.refused += row.messages();
        self.pass(table, row);
    }
}

/// Where a blob of a chunk stands: bound into it.
pub(crate) fn context<'a>(
    table: TableKind,
    chunk: &'a ChunkRow,
    column: &'a str,
) -> BlobContext<'a> {
    BlobContext {
        table: table.as_str(),
        subject: &chunk.subject,
        bucket_start_us: chunk.bucket_start_us,
        bucket_seconds: chunk.bucket_seconds,
        schema_version: SCHEMA_VERSION,
        column,
    }
}

/// The envelopes of a chunk; no patient's key is needed. `None` for what does not open.
pub(crate) fn open_evidence(
    chunk: &ChunkRow,
    table: TableKind,
    keys: &StoreKeys,
    backend: &dyn Backend,
) -> Option<Evidence> {
    let key = BlobKey::Store(keys.find(&blob_kid(&chunk.evidence).ok()?)?);
    let context = context(table, chunk, schema::EVIDENCE);
    let plain = open_blob(&chunk.evidence, key, &context, backend).ok()?;
    Evidence::parse(&plain).ok()
}

enum Payload {
    Vitals(MessageMeta, Vec<Reading>),
    Waveform(MessageMeta, Waveform),
}

impl Payload {
    fn meta(&self) -> &MessageMeta {
        match self {
            Self::Vitals(meta, _) | Self::Waveform(meta, _) => meta,
        }
    }

    fn readings(&self) -> usize {
        match self {
            Self::Vitals(_, readings) => readings.len(),
            Self::Waveform(_, waveform) => waveform.len(),
        }
    }
}

pub(super) enum Plain {
    Vitals(Readings),
    Waveforms(Waveforms),
}

impl Plain {
    pub(super) fn messages(&self) -> usize {
        match self {
            Self::Vitals(readings) => readings.message_count(),
            Self::Waveforms(waveforms) => waveforms.message_count(),
        }
    }

    pub(super) fn readings(&self) -> usize {
        match self {
            Self::Vitals(readings) => readings.series().iter().map(|s| s.stats.count).sum(),
            Self::Waveforms(waveforms) => waveforms.rows().iter().map(|row| row.count).sum(),
        }
    }

    fn evidence(&self) -> Option<[u8; 32]> {
        match self {
            Self::Vitals(readings) => readings.evidence(),
            Self::Waveforms(waveforms) => waveforms.evidence(),
        }
    }

    /// Whether it was made of this evidence, as far as it says of which.
    fn is_of(&self, evidence: &Evidence) -> bool {
        self.evidence().is_none_or(|of| of == evidence.digest())
    }
}

enum Opened<'a> {
    Message(&'a SealedRow, Payload),
    Chunk(&'a ChunkRow, Plain, Evidence),
}

enum Builder {
    Vitals(ReadingsBuilder),
    Waveforms(WaveformsBuilder),
}

/// A chunk in the making.
struct Part {
    builder: Builder,
    evidence: EvidenceBuilder,
    content: Content,
    devices: Devices,
    measured: (i64, i64),
    received: (i64, i64),
    messages: u32,
    readings: u64,
    codes: u64,
}

impl Opened<'_> {
    fn table(&self) -> TableKind {
        match self {
            Self::Message(_, Payload::Vitals(..)) | Self::Chunk(_, Plain::Vitals(_), _) => {
                TableKind::Vitals
            }
            Self::Message(_, Payload::Waveform(..)) | Self::Chunk(_, Plain::Waveforms(_), _) => {
                TableKind::Waveforms
            }
        }
    }
}

impl Part {
    fn of_vitals() -> Self {
        Self::of(Builder::Vitals(ReadingsBuilder::new()))
    }

    fn of_waveforms() -> Self {
        Self::of(Builder::Waveforms(WaveformsBuilder::new()))
    }

    fn of(builder: Builder) -> Self {
        Self {
            builder,
            evidence: EvidenceBuilder::new(),
            content: Content::default(),
            devices: Devices::default(),
            measured: (i64::MAX, i64::MIN),
            received: (i64::MAX, i64::MIN),
            messages: 0,
            readings: 0,
            codes: 0,
        }
    }

    /// What fails is not taken at all.
    fn take(&mut self, opened: Opened<'_>) -> Result<(), ChunkError> {
        match opened {
            Opened::Message(row, payload) => self.take_message(row, payload),
            Opened::Chunk(row, plain, evidence) => self.take_chunk(row, &plain, &evidence),
        }
    }

    fn take_message(&mut self, row: &SealedRow, payload: Payload) -> Result<(), ChunkError> {
        let readings = u32::try_from(payload.readings()).map_err(|_| ChunkError::TooMany)?;
        let measured = (row.first_at_us, row.last_at_us);
        let (meta, number) = (payload.meta(), self.messages);
        self.devices
            .add(meta, readings.into(), measured.0, measured.1);
        self.content.message(number, meta);
        match (&mut self.builder, payload) {
            (Builder::Vitals(builder), Payload::Vitals(meta, readings)) => {
                self.content.readings(number, &readings);
                let message = builder.message(meta);
                builder.push(message, &readings);
                let codes = readings.iter().map(|reading| reading.signal);
                self.codes |= codes.fold(0, |codes, signal| codes | bit(signal));
            }
            (Builder::Waveforms(builder), Payload::Waveform(meta, waveform)) => {
                self.content.waveform(number, &waveform);
                self.codes |= bit(waveform.signal());
                let message = builder.message(meta);
                builder.push(message, waveform);
            }
            _ => return Err(ChunkError::Damaged("it belongs to the other table")),
        }
        let received = (row.received_at_us, row.received_at_us);
        self.count(1, readings.into(), measured, received);
        let noted = Noted {
            received_at_us: row.received_at_us,
            first_at_us: row.first_at_us,
            last_at_us: row.last_at_us,
            readings,
        };
        self.evidence.push(&noted, &row.envelope);
        Ok(())
    }

    fn take_chunk(
        &mut self,
        row: &ChunkRow,
        plain: &Plain,
        evidence: &Evidence,
    ) -> Result<(), ChunkError> {
        // Every column is decoded here, so that joining them cannot fail half-way.
        let content = Content::of(plain, self.messages)?;
        match (&mut self.builder, plain) {
            (Builder::Vitals(builder), Plain::Vitals(readings)) => builder.merge(readings)?,
            (Builder::Waveforms(builder), Plain::Waveforms(waveforms)) => {
                builder.merge(waveforms)?
            }
            _ => return Err(ChunkError::Damaged("it belongs to the other table")),
        }
        self.content.add(content);
        self.devices.merge(&row.devices);
        self.codes |= row.codes;
        let measured = (row.first_at_us, row.last_at_us);
        let received = (row.received_first_us, row.received_last_us);
        self.count(row.messages, row.readings, measured, received);
        for (noted, envelope) in evidence.messages() {
            self.evidence.push(noted, envelope);
        }
        Ok(())
    }

    fn count(&mut self, messages: u32, readings: u64, measured: (i64, i64), received: (i64, i64)) {
        let widen = |of: (i64, i64), by: (i64, i64)| (of.0.min(by.0), of.1.max(by.1));
        self.messages = self.messages.saturating_add(messages);
        self.readings += readings;
        self.measured = widen(self.measured, measured);
        self.received = widen(self.received, received);
    }
}

/// A signal's place in the column of codes.
fn bit(signal: &Signal) -> u64 {
    1_u64.checked_shl(u32::from(signal.number)).unwrap_or(0)
}
