//! Rows of `provenance`: messages as they are stored.
//!
//! Of what a patient's key seals nothing is decoded: a chunk's readings are opened for the digest of their evidence alone,
//! and wiped. No reading leaves the seal so, and none is counted for the audit log.
//! A chunk whose evidence was lost, and is on record as lost, shows no message; the query's notices say so.
//!
//! Who may not see a patient sees none of his messages here either, and an erased patient has none.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BinaryBuilder, Int64Builder, RecordBatch, StringViewBuilder,
    TimestampMicrosecondBuilder,
};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::Result;
use vitalseal_crypto::{AtRest, Backend, BlobKey, Kid, MessageId, default_backend};
use vitalseal_storage::StoreKeys;
use vitalseal_storage::catalog::{TableKind, Unproven};
use vitalseal_storage::chunk::Evidence;

use super::Opener;
use super::chunks::{Amount, Chunk};
use super::gather::{Batches, Gather};
use super::rows::Rows;
use crate::run::QueryRun;
use crate::table::{Sealed, provenance_schema};
use crate::wanted::Known;

/// Shows stored messages, one row each.
pub(crate) struct Provenance {
    run: Arc<QueryRun>,
    table: TableKind,
    keys: Arc<StoreKeys>,
    unproven: Unproven,
    schema: SchemaRef,
    columns: Arc<[usize]>,
}

impl Provenance {
    /// Messages of `table`; `columns` are wanted, in this order. `keys` open the evidence of chunks, but of `unproven` ones.
    ///
    /// # Errors
    /// When there is no such column.
    pub(crate) fn new(
        run: Arc<QueryRun>,
        table: TableKind,
        keys: Arc<StoreKeys>,
        unproven: Unproven,
        columns: Vec<usize>,
    ) -> Result<Self> {
        Ok(Self {
            run,
            table,
            keys,
            unproven,
            schema: Arc::new(provenance_schema().project(&columns)?),
            columns: columns.into(),
        })
    }
}

impl Opener for Provenance {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn open(
        self: Arc<Self>,
        sealed: Sealed,
    ) -> Box<dyn Iterator<Item = Result<RecordBatch>> + Send> {
        match Rows::of(&sealed) {
            Ok(rows) => Box::new(Batches {
                gather: Gathering {
                    stored: Stored::new(self.table, Arc::clone(&self.columns)),
                    opener: self,
                    rows,
                },
                sealed,
                next: 0,
            }),
            Err(error) => Box::new(std::iter::once(Err(error.into()))),
        }
    }
}

impl fmt::Debug for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provenance")
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

struct Gathering {
    opener: Arc<Provenance>,
    rows: Rows,
    stored: Stored,
}

impl Gather for Gathering {
    fn add(&mut self, at: usize, sealed: &Sealed) -> Result<()> {
        let Provenance { run, table, .. } = &*self.opener;
        run.going_on()?;
        match &self.rows {
            Rows::Messages(rows) => {
                let Some(message) = rows.message(at, sealed)? else {
                    return Ok(());
                };
                if TableKind::from(message.envelope.header().content_type) == *table {
                    run.shown(message.patient, false);
                    self.stored.push(&Row {
                        envelope: &message.envelope,
                        received_at_us: message.received_at_us,
                        span_us: message.span_us,
                        readings: message.readings,
                    });
                }
            }
            Rows::Chunks(rows) => {
                if let Some(chunk) = rows.chunk(at, sealed) {
                    run.shown(chunk.patient, false);
                    self.opener.chunk(&chunk, sealed, &mut self.stored)?;
                }
            }
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.stored.bytes
    }

    fn batch(&mut self) -> Result<RecordBatch> {
        self.stored.batch()
    }
}

impl Provenance {
    /// The messages of one chunk.
    fn chunk(&self, chunk: &Chunk<'_>, sealed: &Sealed, out: &mut Stored) -> Result<()> {
        let span_us = chunk.said.span_us;
        if self.unproven.has(chunk.patient, span_us, chunk.evidence) {
            return Ok(());
        }
        sealed.memory.try_grow(chunk.sealed.len())?;
        let key = |kid: &Kid| self.keys.find(kid).map(BlobKey::Store);
        let evidence = chunk.open_evidence(self.table, key)?;
        chunk.compare(&amount(&evidence, chunk.said.codes))?;
        for (noted, envelope) in evidence.messages() {
            sealed.memory.try_grow(2 * envelope.len())?;
            let envelope = AtRest::decode(envelope).map_err(|_| chunk.damaged())?;
            let header = envelope.header();
            if header.subject != *chunk.patient {
                return Err(chunk.damaged().into());
            }
            let wanted = sealed.wanted.allows(&Known {
                patient: Some(chunk.patient.as_str()),
                device: Some(header.device.as_str()),
                times: (noted.first_at_us, noted.last_at_us),
                ..Known::NOTHING
            });
            if wanted {
                out.push(&Row {
                    envelope: &envelope,
                    received_at_us: noted.received_at_us,
                    span_us: (noted.first_at_us, noted.last_at_us),
                    readings: noted.readings.into(),
                });
            }
        }
        Ok(())
    }
}

/// What evidence amounts to. Signals are known to whoever opens the readings only.
fn amount(evidence: &Evidence, codes: i64) -> Amount {
    let nothing = Amount {
        codes,
        ..Amount::of(evidence.count(), std::iter::empty())
    };
    evidence.messages().fold(nothing, |sum, (noted, _)| Amount {
        readings: sum.readings.saturating_add(noted.readings.into()),
        span_us: (
            sum.span_us.0.min(noted.first_at_us),
            sum.span_us.1.max(noted.last_at_us),
        ),
        ..sum
    })
}

/// A stored message, and what stands beside it.
struct Row<'a> {
    envelope: &'a AtRest,
    received_at_us: i64,
    span_us: (i64, i64),
    readings: i64,
}

/// The columns of the table while they fill.
struct Stored {
    table: TableKind,
    wanted: Arc<[usize]>,
    backend: &'static dyn Backend,
    bytes: usize,
    patient: StringViewBuilder,
    device: StringViewBuilder,
    boot: Int64Builder,
    sequence: Int64Builder,
    kind: StringViewBuilder,
    /// `issued_at`, `received_at`, `first_at`, `last_at`.
    instants: [TimestampMicrosecondBuilder; 4],
    readings: Int64Builder,
    certificate: StringViewBuilder,
    signed_hash: StringViewBuilder,
    envelope: BinaryBuilder,
}

impl Stored {
    fn new(table: TableKind, wanted: Arc<[usize]>) -> Self {
        Self {
            table,
            wanted,
            backend: default_backend(),
            bytes: 0,
            patient: StringViewBuilder::new(),
            device: StringViewBuilder::new(),
            boot: Int64Builder::new(),
            sequence: Int64Builder::new(),
            kind: StringViewBuilder::new(),
            instants: [(); 4].map(|()| TimestampMicrosecondBuilder::new().with_timezone("UTC")),
            readings: Int64Builder::new(),
            certificate: StringViewBuilder::new(),
            signed_hash: StringViewBuilder::new(),
            envelope: BinaryBuilder::new(),
        }
    }

    fn push(&mut self, row: &Row<'_>) {
        let header = row.envelope.header();
        let MessageId {
            device,
            boot,
            sequence,
        } = header.message_id();
        self.patient.append_value(header.subject.as_str());
        self.device.append_value(device.as_str());
        self.boot.append_value(boot.cast_signed());
        self.sequence.append_value(sequence.cast_signed());
        self.kind.append_value(self.table.as_str());
        let instants = [
            header.issued_at.as_microsecond(),
            row.received_at_us,
            row.span_us.0,
            row.span_us.1,
        ];
        for (column, at_us) in self.instants.iter_mut().zip(instants) {
            column.append_value(at_us);
        }
        self.readings.append_value(row.readings);
        self.certificate
            .append_value(row.envelope.signer().to_string());
        let hash = row.envelope.signed_hash(self.backend);
        self.signed_hash.append_value(hex::encode(hash));
        self.envelope.append_value(row.envelope.as_bytes());
        self.bytes += 256 + row.envelope.as_bytes().len();
    }

    fn batch(&mut self) -> Result<RecordBatch> {
        self.bytes = 0;
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(self.patient.finish()),
            Arc::new(self.device.finish()),
            Arc::new(self.boot.finish()),
            Arc::new(self.sequence.finish()),
            Arc::new(self.kind.finish()),
        ];
        for instants in &mut self.instants {
            columns.push(Arc::new(instants.finish()));
        }
        columns.push(Arc::new(self.readings.finish()));
        columns.push(Arc::new(self.certificate.finish()));
        columns.push(Arc::new(self.signed_hash.finish()));
        columns.push(Arc::new(self.envelope.finish()));
        let batch = RecordBatch::try_new(provenance_schema(), columns)?;
        Ok(batch.project(&self.wanted)?)
    }
}
