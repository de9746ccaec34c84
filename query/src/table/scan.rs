//! From filters to sealed rows: whose, out of which files, and which rows of these.
//!
//! ```text
//!  policy ─▶ patients ─▶ slices, one a partition ─▶ DataSourceExec of rows and of chunks, hot rows ─▶ Sealed
//!  filters ─▶ Test ──────▶ files, row groups and pages by patient, time and signal
//! ```
//!
//! What a plan names is never seen outside: whoever opens rows ([`DecryptExec`](crate::decrypt::DecryptExec)) is a leaf,
//! so no rule of the engine can push a filter on `ts` down to a column that only sounds alike.
//!
//! Row security does not rest on any predicate here: [`Sealed::visible`] knows only the patients of the scope that have a
//! key at this moment, and it is asked for every row.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::DataSourceExec;
use datafusion::datasource::physical_plan::parquet::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::context::ExecutionProps;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, bitwise_and};
use datafusion::object_store::path::Path;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::prelude::{col, lit};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use parquet::arrow::async_reader::AsyncFileReader;
use vitalseal_crypto::{PatientKeys, SubjectPseudonym};
use vitalseal_storage::catalog::{DataFile, FileKind, TableKind, Unproven};
use vitalseal_storage::files::SealedFiles;
use vitalseal_storage::{Cut, schema};
use vitalseal_vitals::signals;

use crate::error::QueryError;
use crate::run::QueryRun;
use crate::runtime::parquet_url;
use crate::table::slices::{Slice, slices};
use crate::wanted::{Known, Parsed, Test};

/// Sealed rows read at once: at 256 KiB an envelope this is 16 MiB at the very most, where the engine's
/// default of 8,192 rows would be 2 GiB.
const SEALED_ROWS_PER_BATCH: usize = 64;

/// Up to this many patients a scan names each; past it the bounds of the range prune well enough.
const MAX_NAMED_PATIENTS: usize = 256;

/// What of a chunk a scan is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blob {
    /// What was measured. The envelopes that it came in are not read.
    Readings,
    /// The envelopes, and the readings, which name them.
    Evidence,
}

/// One scan of a table: what is wanted of it, at one cut, and how the work is split.
#[derive(Clone)]
pub(crate) struct Scan {
    pub(crate) run: Arc<QueryRun>,
    /// Rows of version 3, and hot ones, may be of another table: their envelopes' headers say of which.
    table: TableKind,
    blob: Blob,
    test: Arc<Test>,
    dynamic: Vec<Arc<dyn PhysicalExpr>>,
    columns: SchemaRef,
    cut: Arc<Cut>,
    readers: Arc<Readers>,
    slices: Arc<[Slice]>,
}

/// A few sealed rows, with the keys of those patients of theirs that this query may see.
pub(crate) struct Sealed {
    /// What each row is.
    pub(crate) kind: FileKind,
    /// In the columns of [`schema::sealed_rows`], or of [`schema::chunks`], evidence if it is wanted.
    pub(crate) rows: RecordBatch,
    /// What the filters want; it may have grown stricter since the scan began.
    pub(crate) wanted: Arc<Test>,
    /// Grows by what is opened of the rows; it ends with them.
    pub(crate) memory: MemoryReservation,
    /// What is wanted may change while they are opened.
    scan: Scan,
    visible: HashMap<String, (SubjectPseudonym, Arc<PatientKeys>)>,
}

impl Scan {
    /// Asks the policy, takes the cut and chooses files; `None` when nothing in them can be wanted. `columns` is the
    /// table's schema, which the filters are about.
    ///
    /// # Errors
    /// [`QueryError::Policy`], [`QueryError::Storage`], or a scan outside of a query session.
    pub(crate) async fn of(
        session: &dyn Session,
        table: TableKind,
        blob: Blob,
        filters: &[Expr],
        columns: SchemaRef,
    ) -> Result<Option<Self>> {
        let run = QueryRun::of(session)?;
        // The policy decides before storage is looked at.
        let scope = run.scope().await?;
        let parsed = filters.iter().map(|f| Parsed::of(f, &columns).test);
        let test = Test::all(parsed);
        let patients = scope.patients().iter().filter(|p| {
            test.allows(&Known {
                patient: Some(p.as_str()),
                ..Known::NOTHING
            })
        });
        let patients: BTreeSet<SubjectPseudonym> = patients.cloned().collect();
        if patients.is_empty() {
            return Ok(None);
        }
        let cut = run.cut(&session.runtime_env().memory_pool).await?;
        if !cut.losses.is_empty() {
            // It looks for keys: nothing before the start is on record.
            run.recorded().await?;
            let (asked, store) = (scope.patients(), &run.deps.store);
            run.missing.note(&cut, asked, &test, blob, store).await?;
        }
        let times = |file: &DataFile| {
            (
                file.first_at.as_microsecond(),
                file.last_at.as_microsecond(),
            )
        };
        let mut files: Vec<&DataFile> = cut
            .files
            .iter()
            .filter(|file| file.may_hold(table))
            .filter(|file| {
                test.allows(&Known {
                    times: times(file),
                    ..Known::NOTHING
                })
            })
            .collect();
        // Whoever wants only a few rows mostly wants the latest.
        files.sort_by_key(|file| std::cmp::Reverse(file.last_at));
        let partitions = session.config().target_partitions();
        let slices = slices(&patients, &files, partitions);
        let readers = Readers {
            files: run.deps.store.files.clone(),
            known: files
                .iter()
                .map(|file| (file.path.clone(), (*file).clone()))
                .collect(),
        };
        Ok(Some(Self {
            run,
            table,
            blob,
            test: Arc::new(test),
            dynamic: Vec::new(),
            columns,
            cut,
            readers: Arc::new(readers),
            slices: slices.into(),
        }))
    }

    /// Chunks whose evidence is on record as lost.
    pub(crate) fn unproven(&self) -> Unproven {
        Unproven::of(&self.cut.losses)
    }

    /// How many partitions there are.
    pub(crate) fn partitions(&self) -> usize {
        self.slices.len()
    }

    /// The same, also narrowed by `filters` over `columns` of the table, whose bounds move while the query runs. They
    /// spare work and are never needed for correctness.
    pub(crate) fn narrowed(&self, filters: Vec<Arc<dyn PhysicalExpr>>, columns: SchemaRef) -> Self {
        Self {
            dynamic: filters,
            columns,
            ..self.clone()
        }
    }

    /// What is wanted at this moment.
    pub(crate) fn wanted(&self) -> Arc<Test> {
        if self.dynamic.is_empty() {
            return Arc::clone(&self.test);
        }
        let narrowing = self.dynamic.iter();
        let narrowing = narrowing.map(|f| Parsed::of_physical(f, &self.columns).test);
        Arc::new(Test::all(
            [self.test.as_ref().clone()].into_iter().chain(narrowing),
        ))
    }

    /// The sealed rows of one partition.
    ///
    /// # Errors
    /// When there is no such partition, or the engine refuses the plan.
    pub(crate) fn sealed(
        &self,
        partition: usize,
        context: &Arc<TaskContext>,
    ) -> Result<BoxStream<'static, Result<Sealed>>> {
        let slice = self
            .slices
            .get(partition)
            .ok_or_else(|| DataFusionError::Internal("a scan has no such partition".to_owned()))?;
        let mut inputs = Vec::with_capacity(3);
        for kind in [FileKind::Chunks, FileKind::Rows] {
            let files: Vec<&DataFile> = slice.files.iter().filter(|f| f.kind == kind).collect();
            if !files.is_empty() {
                let plan = self.parquet(kind, &files, &slice.patients)?;
                let rows = plan.execute(0, Arc::clone(context))?;
                let sized = move |rows: RecordBatch| (kind, rows.get_array_memory_size(), rows);
                inputs.push(rows.map_ok(sized).boxed());
            }
        }
        if slice.hot && self.cut.hot.num_rows() > 0 {
            let hot = self.cut.hot.clone();
            let batches = (0..hot.num_rows())
                .step_by(SEALED_ROWS_PER_BATCH)
                .map(move |at| hot.slice(at, SEALED_ROWS_PER_BATCH.min(hot.num_rows() - at)));
            let sized = |rows| Ok((FileKind::Rows, sliced_bytes(&rows)?, rows));
            inputs.push(stream::iter(batches.map(sized)).boxed());
        }
        let memory = MemoryConsumer::new("sealed rows").register(context.memory_pool());
        let scan = self.clone();
        let rows = stream::iter(inputs).flatten().map_err(unreadable);
        Ok(rows
            .and_then(move |(kind, bytes, rows)| {
                let (scan, memory) = (scan.clone(), memory.new_empty());
                async move {
                    memory.try_grow(bytes)?;
                    let patients = scan.slices.get(partition).map(|slice| &slice.patients);
                    scan.admit(kind, rows, patients, memory).await
                }
            })
            .try_filter(|sealed| std::future::ready(!sealed.visible.is_empty()))
            .boxed())
    }

    /// Finds out which patients of `rows` may be seen, and have a key now: an erasure that completes while a query runs
    /// ends that patient's rows at the next batch.
    async fn admit(
        &self,
        kind: FileKind,
        rows: RecordBatch,
        patients: Option<&BTreeSet<SubjectPseudonym>>,
        memory: MemoryReservation,
    ) -> Result<Sealed> {
        self.run.going_on()?;
        self.run.recorded().await?;
        let subjects = rows.column_by_name(schema::SUBJECT);
        let subjects = subjects
            .and_then(|column| column.as_any().downcast_ref::<StringArray>())
            .filter(|column| column.null_count() == 0)
            .ok_or(QueryError::Malformed(schema::SUBJECT))?;
        let mut wanted: BTreeSet<&SubjectPseudonym> = BTreeSet::new();
        let mut last = None;
        for subject in subjects.iter().flatten() {
            if last != Some(subject)
                && let Ok(parsed) = subject.parse::<SubjectPseudonym>()
                && let Some(known) = patients.and_then(|patients| patients.get(&parsed))
            {
                wanted.insert(known);
            }
            last = Some(subject);
        }
        let keys = if wanted.is_empty() {
            HashMap::new()
        } else {
            let held = self.run.deps.store.keys.keys_of(wanted.into_iter()).await;
            held.map_err(|cause| QueryError::Storage {
                what: "patient keys",
                cause: Box::new(cause),
            })?
        };
        let visible = keys
            .into_iter()
            .map(|(patient, keys)| (patient.as_str().to_owned(), (patient, keys)))
            .collect();
        Ok(Sealed {
            kind,
            rows,
            wanted: self.wanted(),
            memory,
            scan: self.clone(),
            visible,
        })
    }

    /// Rows of `files`, row groups and pages without a wanted patient, time or signal left out.
    fn parquet(
        &self,
        kind: FileKind,
        files: &[&DataFile],
        patients: &BTreeSet<SubjectPseudonym>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (columns, unwanted) = match (kind, self.blob) {
            (FileKind::Rows, _) => (schema::sealed_rows(), None),
            (FileKind::Chunks, Blob::Readings) => (schema::chunks(), Some(schema::EVIDENCE)),
            (FileKind::Chunks, Blob::Evidence) => (schema::chunks(), None),
        };
        let predicate = create_physical_expr(
            &sealed_predicate(kind, patients, &self.test),
            &DFSchema::try_from(Arc::clone(&columns))?,
            &ExecutionProps::new(),
            &PhysicalPlanningContext::default(),
        )?;
        let kept = |(_, field): &(usize, &FieldRef)| Some(field.name().as_str()) != unwanted;
        let projection = columns.fields().iter().enumerate().filter(kept);
        let projection = projection.map(|(at, _)| at).collect();
        let readers = Arc::clone(&self.readers);
        let source = ParquetSource::new(columns)
            .with_predicate(predicate)
            .with_pushdown_filters(true)
            .with_parquet_file_reader_factory(readers);
        let group = files
            .iter()
            .map(|file| PartitionedFile::new(file.path.as_ref(), file.size));
        let config = FileScanConfigBuilder::new(parquet_url()?, Arc::new(source))
            .with_file_group(FileGroup::new(group.collect()))
            .with_projection_indices(Some(projection))?
            .with_batch_size(Some(SEALED_ROWS_PER_BATCH))
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

impl Sealed {
    /// Takes over what is wanted by now.
    pub(crate) fn renew(&mut self) {
        if !self.scan.dynamic.is_empty() {
            self.wanted = self.scan.wanted();
        }
    }

    /// The patient of this pseudonym and his keys; `None` when this query may know nothing of him.
    pub(crate) fn visible(&self, subject: &str) -> Option<&(SubjectPseudonym, Arc<PatientKeys>)> {
        self.visible.get(subject)
    }
}

/// What the filters and the slice say about the metadata columns.
fn sealed_predicate(kind: FileKind, patients: &BTreeSet<SubjectPseudonym>, test: &Test) -> Expr {
    let subject = || col(schema::SUBJECT);
    let literal = |p: &SubjectPseudonym| lit(p.as_str().to_owned());
    let mut wanted = if patients.len() <= MAX_NAMED_PATIENTS {
        subject().in_list(patients.iter().map(literal).collect(), false)
    } else {
        let bounds = patients.first().zip(patients.last());
        bounds.map_or_else(
            || lit(false),
            |(a, z)| subject().between(literal(a), literal(z)),
        )
    };
    let instant = |us| {
        Expr::Literal(
            ScalarValue::TimestampMicrosecond(Some(us), Some(Arc::from("UTC"))),
            None,
        )
    };
    let (from, to) = test.span();
    if from > i64::MIN {
        wanted = wanted.and(col(schema::LAST_AT).gt_eq(instant(from)));
    }
    if to < i64::MAX {
        wanted = wanted.and(col(schema::FIRST_AT).lt_eq(instant(to)));
    }
    if kind == FileKind::Chunks
        && let Some(codes) = codes(test)
    {
        wanted = wanted.and(bitwise_and(col(schema::CODES), lit(codes)).not_eq(lit(0_i64)));
    }
    wanted
}

/// The signals that can be wanted, as a bitmap of their numbers; `None` when all can.
pub(crate) fn codes(test: &Test) -> Option<i64> {
    let (mut wanted, mut all) = (0_i64, true);
    for signal in signals() {
        let can = test.allows(&Known {
            signal: Some(signal),
            ..Known::NOTHING
        });
        all &= can;
        if can {
            wanted |= 1_i64.checked_shl(u32::from(signal.number)).unwrap_or(-1);
        }
    }
    (!all).then_some(wanted)
}

/// Bytes of a part of a batch, as if it stood alone: its arrays would each answer with the whole.
///
/// # Errors
/// None is known for the types of these columns.
fn sliced_bytes(rows: &RecordBatch) -> Result<usize> {
    let mut bytes = 0;
    for column in rows.columns() {
        bytes += column.to_data().get_slice_memory_size()?;
    }
    Ok(bytes)
}

/// A file that cannot be read, or whose pages do not open.
fn unreadable(error: DataFusionError) -> DataFusionError {
    match error {
        DataFusionError::ResourcesExhausted(_) => error,
        other => QueryError::DamagedFile(Box::new(other)).into(),
    }
}

/// Gives the engine the store's own readers: they hold the key of each file, and the engine never does.
struct Readers {
    files: SealedFiles,
    known: HashMap<Path, DataFile>,
}

impl ParquetFileReaderFactory for Readers {
    fn create_reader(
        &self,
        _partition: usize,
        file: PartitionedFile,
        _metadata_size_hint: Option<usize>,
        _metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let file = self.known.get(&file.object_meta.location);
        let file = file.ok_or_else(|| {
            DataFusionError::Internal("a plan names a file that the scan does not".to_owned())
        })?;
        Ok(Box::new(self.files.reader(file)))
    }
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").finish_non_exhaustive()
    }
}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan")
            .field("table", &self.table)
            .field("partitions", &self.slices.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{BinaryArray, Int64Array};

    use super::*;

    #[test]
    fn the_parts_of_a_batch_are_charged_for_what_they_hold_and_not_each_for_all_of_it() {
        let envelopes = BinaryArray::from_iter_values((1..=256).map(|length| vec![0; length]));
        let numbers = Int64Array::from_iter_values(0..256);
        let columns: [(_, Arc<dyn Array>); 2] =
            [("e", Arc::new(envelopes)), ("n", Arc::new(numbers))];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let part = |at| sliced_bytes(&batch.slice(at, 64)).unwrap();
        // Its bytes, a number and an offset a row, and the offset at the end.
        assert_eq!(part(0), (1..=64).sum::<usize>() + 64 * (8 + 4) + 4);
        assert_eq!(part(192), (193..=256).sum::<usize>() + 64 * (8 + 4) + 4);
        assert!(batch.slice(0, 64).get_array_memory_size() > 256 * 128);
    }
}
