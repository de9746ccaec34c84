//! `DecryptExec`: sealed rows in, readings out. The only place of this crate that opens an envelope.
//!
//! A row is opened when its patient is in the query's scope *and* has a key now; both are asked for every
//! batch, so an erasure that completes while a query runs ends that patient's rows at the next batch. The
//! clear columns of a row are hints: subject, device and counters must equal the envelope's protected
//! header, or the row is reported as damaged.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, BinaryArray, Float64Builder, Int64Array, RecordBatch, RecordBatchOptions,
    StringArray, StringBuilder, TimestampMicrosecondArray, TimestampMicrosecondBuilder,
};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{
    ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning,
    PlanProperties, SendableRecordBatchStream,
};
use futures::{StreamExt, TryStreamExt, stream};
use vitalseal_crypto::{
    AtRest, Backend, ContentType, MessageId, PatientKeys, SubjectPseudonym, default_backend,
};
use vitalseal_storage::schema as sealed;
use vitalseal_vitals::{Reading, senml, waveform};

use crate::error::QueryError;
use crate::run::QueryRun;
use crate::table::{Prune, vitals_schema};

/// Readings after which a batch is handed on. One more message may still be added to it.
const READINGS_PER_BATCH: usize = 8_192;

/// Opens the sealed rows of its input. Claims no order, no statistics, and lets no filter pass below it:
/// `ts` above and the instants below are different columns.
pub(crate) struct DecryptExec {
    input: Arc<dyn ExecutionPlan>,
    opener: Arc<Opener>,
    properties: Arc<PlanProperties>,
}

impl DecryptExec {
    /// `input` yields `sealed_rows()`.
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>, opener: Arc<Opener>) -> Self {
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&opener.schema)),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Incremental,
            input.boundedness(),
        ));
        Self {
            input,
            opener,
            properties,
        }
    }
}

impl ExecutionPlan for DecryptExec {
    fn name(&self) -> &'static str {
        "DecryptExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(Self::new(input, Arc::clone(&self.opener)))),
            _ => Err(DataFusionError::Internal(
                "DecryptExec has one input".to_owned(),
            )),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(
            children,
            ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute),
        )
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let opener = Arc::clone(&self.opener);
        let opened = self
            .input
            .execute(partition, context)?
            .and_then(move |rows| Opener::begin(Arc::clone(&opener), rows))
            .map_ok(|batch| stream::iter(batch).boxed())
            .try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            Arc::clone(&self.opener.schema),
            opened,
        )))
    }
}

impl DisplayAs for DecryptExec {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DecryptExec")
    }
}

impl fmt::Debug for DecryptExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecryptExec")
            .field("input", &self.input)
            .finish_non_exhaustive()
    }
}

/// What one scan may open and which columns it wants.
pub(crate) struct Opener {
    run: Arc<QueryRun>,
    patients: BTreeSet<SubjectPseudonym>,
    prune: Prune,
    schema: SchemaRef,
    columns: Vec<usize>,
    backend: &'static dyn Backend,
}

impl Opener {
    /// `patients` is the part of the scope that the filters leave; `schema` is `vitals` after `projection`.
    pub(crate) fn new(
        run: Arc<QueryRun>,
        patients: BTreeSet<SubjectPseudonym>,
        prune: Prune,
        schema: SchemaRef,
        projection: Option<Vec<usize>>,
    ) -> Self {
        let columns = projection.unwrap_or_else(|| (0..vitals_schema().fields().len()).collect());
        Self {
            run,
            patients,
            prune,
            schema,
            columns,
            backend: default_backend(),
        }
    }

    /// Fetches the keys for the patients of `rows` and returns an iterator that opens them.
    async fn begin(self: Arc<Self>, rows: RecordBatch) -> Result<OpeningBatch> {
        let rows = SealedRows::of(&rows)?;
        let mut keys: HashMap<SubjectPseudonym, Arc<PatientKeys>> = HashMap::new();
        let mut asked: BTreeSet<&str> = BTreeSet::new();
        let mut wanted: Vec<&SubjectPseudonym> = Vec::new();
        for row in 0..rows.len() {
            let subject = rows.subject.value(row);
            if asked.insert(subject)
                && let Ok(parsed) = subject.parse::<SubjectPseudonym>()
                && let Some(known) = self.patients.get(&parsed)
            {
                wanted.push(known);
            }
        }
        if !wanted.is_empty() {
            let held = self.run.deps.store.keys.keys_of(wanted.into_iter()).await;
            keys = held.map_err(|cause| QueryError::Storage {
                what: "patient keys",
                cause: Box::new(cause),
            })?;
        }
        let keys = keys
            .into_iter()
            .map(|(p, keys)| (p.as_str().to_owned(), (p, keys)))
            .collect();
        Ok(OpeningBatch {
            opener: self,
            rows,
            keys,
            next: 0,
        })
    }

    /// Opens and decodes one sealed row.
    fn open(&self, row: &SealedRow<'_>, keys: &PatientKeys) -> Result<Vec<Reading>, QueryError> {
        let damaged = || {
            row.message_id().map_or(
                QueryError::Malformed("device or counters"),
                QueryError::Damaged,
            )
        };
        let envelope = AtRest::decode(row.envelope).map_err(|_| damaged())?;
        let header = envelope.header();
        let same = header.subject.as_str() == row.subject
            && header.device.as_str() == row.device
            && i64::try_from(header.boot) == Ok(row.boot)
            && i64::try_from(header.sequence) == Ok(row.sequence);
        if !same {
            return Err(damaged());
        }
        let kek = keys.find(envelope.kek_kid()).ok_or_else(damaged)?;
        let payload = envelope.open(kek, self.backend).map_err(|_| damaged())?;
        let decoded = match header.content_type {
            ContentType::SenmlCbor => senml::decode(&payload),
            ContentType::Waveform => waveform::decode(&payload),
        };
        decoded.map_err(|_| damaged())
    }
}

/// The typed columns of a batch of sealed rows.
struct SealedRows {
    subject: StringArray,
    device: StringArray,
    boot: Int64Array,
    sequence: Int64Array,
    received_at: TimestampMicrosecondArray,
    first_at: TimestampMicrosecondArray,
    last_at: TimestampMicrosecondArray,
    envelope: BinaryArray,
}

/// One of them.
struct SealedRow<'a> {
    subject: &'a str,
    device: &'a str,
    boot: i64,
    sequence: i64,
    received_at_us: i64,
    envelope: &'a [u8],
}

impl SealedRows {
    fn of(rows: &RecordBatch) -> Result<Self, QueryError> {
        fn column<T: Array + Clone + 'static>(
            rows: &RecordBatch,
            name: &'static str,
        ) -> Result<T, QueryError> {
            rows.column_by_name(name)
                .and_then(|column| column.as_any().downcast_ref::<T>())
                .filter(|column| column.null_count() == 0)
                .cloned()
                .ok_or(QueryError::Malformed(name))
        }
        Ok(Self {
            subject: column(rows, sealed::SUBJECT)?,
            device: column(rows, sealed::DEVICE)?,
            boot: column(rows, sealed::BOOT)?,
            sequence: column(rows, sealed::SEQUENCE)?,
            received_at: column(rows, sealed::RECEIVED_AT)?,
            first_at: column(rows, sealed::FIRST_AT)?,
            last_at: column(rows, sealed::LAST_AT)?,
            envelope: column(rows, sealed::ENVELOPE)?,
        })
    }

    fn len(&self) -> usize {
        self.subject.len()
    }

    fn row(&self, at: usize) -> SealedRow<'_> {
        SealedRow {
            subject: self.subject.value(at),
            device: self.device.value(at),
            boot: self.boot.value(at),
            sequence: self.sequence.value(at),
            received_at_us: self.received_at.value(at),
            envelope: self.envelope.value(at),
        }
    }
}

impl SealedRow<'_> {
    fn message_id(&self) -> Option<MessageId> {
        Some(MessageId {
            device: self.device.parse().ok()?,
            boot: u64::try_from(self.boot).ok()?,
            sequence: u64::try_from(self.sequence).ok()?,
        })
    }
}

/// Opens a batch of sealed rows piece by piece, so that 64 long waveforms do not become one huge batch.
struct OpeningBatch {
    opener: Arc<Opener>,
    rows: SealedRows,
    /// By the text in the `subject` column.
    keys: HashMap<String, (SubjectPseudonym, Arc<PatientKeys>)>,
    next: usize,
}

impl Iterator for OpeningBatch {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut columns = Columns::new(&self.opener.columns);
        while self.next < self.rows.len() && columns.rows < READINGS_PER_BATCH {
            let at = self.next;
            self.next += 1;
            let row = self.rows.row(at);
            // Not in the scope, or erased: nothing is known about this row.
            let Some((patient, keys)) = self.keys.get(row.subject) else {
                continue;
            };
            let prune = &self.opener.prune;
            if !prune.overlaps(self.rows.first_at.value(at), self.rows.last_at.value(at)) {
                continue;
            }
            let readings = match self.opener.open(&row, keys) {
                Ok(readings) => readings,
                Err(error) => {
                    self.next = self.rows.len();
                    return Some(Err(error.into()));
                }
            };
            let span = readings
                .iter()
                .map(|r| r.at)
                .min()
                .zip(readings.iter().map(|r| r.at).max());
            self.opener.run.opened(patient, readings.len() as u64, span);
            for reading in &readings {
                if prune.wants(reading.signal.code, reading.at.as_microsecond()) {
                    columns.push(&row, reading);
                }
            }
        }
        if columns.rows == 0 {
            return None;
        }
        Some(columns.finish(Arc::clone(&self.opener.schema)))
    }
}

/// The wanted columns of `vitals` while they fill.
struct Columns {
    columns: Vec<Column>,
    rows: usize,
}

enum Column {
    Text(fn(&SealedRow<'_>, &Reading) -> TextOf, StringBuilder),
    Value(Float64Builder),
    Instant(
        fn(&SealedRow<'_>, &Reading) -> i64,
        TimestampMicrosecondBuilder,
    ),
}

/// Which text of a row and reading a column shows.
enum TextOf {
    Patient,
    Device,
    Static(&'static str),
}

impl Columns {
    fn new(wanted: &[usize]) -> Self {
        let schema = vitals_schema();
        let column = |index: &usize| match schema.field(*index).name().as_str() {
            "patient" => Column::Text(|_, _| TextOf::Patient, StringBuilder::new()),
            "device" => Column::Text(|_, _| TextOf::Device, StringBuilder::new()),
            "code" => Column::Text(|_, r| TextOf::Static(r.signal.code), StringBuilder::new()),
            "display" => Column::Text(
                |_, r| TextOf::Static(r.signal.display),
                StringBuilder::new(),
            ),
            "unit" => Column::Text(|_, r| TextOf::Static(r.signal.unit), StringBuilder::new()),
            "quality" => Column::Text(
                |_, r| TextOf::Static(r.quality().as_str()),
                StringBuilder::new(),
            ),
            "ts" => Column::Instant(
                |_, reading| reading.at.as_microsecond(),
                TimestampMicrosecondBuilder::new(),
            ),
            "received_at" => Column::Instant(
                |row, _| row.received_at_us,
                TimestampMicrosecondBuilder::new(),
            ),
            _ => Column::Value(Float64Builder::new()),
        };
        Self {
            columns: wanted.iter().map(column).collect(),
            rows: 0,
        }
    }

    fn push(&mut self, row: &SealedRow<'_>, reading: &Reading) {
        for column in &mut self.columns {
            match column {
                Column::Text(of, to) => to.append_value(match of(row, reading) {
                    TextOf::Patient => row.subject,
                    TextOf::Device => row.device,
                    TextOf::Static(text) => text,
                }),
                Column::Value(to) => to.append_value(reading.value),
                Column::Instant(of, to) => to.append_value(of(row, reading)),
            }
        }
        self.rows += 1;
    }

    fn finish(self, schema: SchemaRef) -> Result<RecordBatch> {
        let arrays: Vec<ArrayRef> = self
            .columns
            .into_iter()
            .map(|column| -> ArrayRef {
                match column {
                    Column::Text(_, mut built) => Arc::new(built.finish()),
                    Column::Value(mut built) => Arc::new(built.finish()),
                    Column::Instant(_, mut built) => Arc::new(built.finish().with_timezone("UTC")),
                }
            })
            .collect();
        // COUNT(*) wants no column, but the number of rows.
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        Ok(RecordBatch::try_new_with_options(schema, arrays, &options)?)
    }
}
