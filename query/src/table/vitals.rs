//! `vitals`: one row a reading.
//!
//! | Column | Arrow type | Meaning |
//! |---|---|---|
//! | `patient` | `Utf8` | pseudonym |
//! | `device` | `Utf8` | device id |
//! | `code`, `display` | `Utf8` | LOINC (or MDC) code and its name |
//! | `value` | `Float64` | measured value |
//! | `unit` | `Utf8` | UCUM unit |
//! | `ts` | `Timestamp(µs, UTC)` | when it was measured |
//! | `received_at` | `Timestamp(µs, UTC)` | when the server made it durable |
//! | `quality` | `Utf8` | `ok` or `flagged` (outside the plausible range) |
//!
//! No column is null, no order is promised.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::prelude::{col, lit};
use vitalseal_crypto::SubjectPseudonym;
use vitalseal_storage::catalog::DataFile;
use vitalseal_storage::schema;

use super::{Prune, instant};
use crate::decrypt::{DecryptExec, Opener};
use crate::run::QueryRun;
use crate::runtime::parquet_url;

/// Sealed rows read at once: at 256 KiB an envelope this is 16 MiB at the very most, where the engine's
/// default of 8,192 rows would be 2 GiB.
const SEALED_ROWS_PER_BATCH: usize = 64;

/// Up to this many patients a scan names each; past it the bounds of the range prune well enough.
const MAX_NAMED_PATIENTS: usize = 256;

/// Columns of `vitals`.
#[must_use]
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let text = |name| Field::new(name, DataType::Utf8, false);
        Arc::new(Schema::new(vec![
            text("patient"),
            text("device"),
            text("code"),
            text("display"),
            Field::new("value", DataType::Float64, false),
            text("unit"),
            Field::new("ts", instant(), false),
            Field::new("received_at", instant(), false),
            text("quality"),
        ]))
    });
    Arc::clone(&SCHEMA)
}

/// The table. Stateless: see the [module above](super).
#[derive(Debug)]
pub(crate) struct Vitals;

#[async_trait]
impl TableProvider for Vitals {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let run = QueryRun::of(session)?;
        // The policy decides before storage is looked at.
        let scope = run.scope().await?;
        let prune = Prune::of(filters);
        let patients: BTreeSet<SubjectPseudonym> = scope
            .patients()
            .iter()
            .filter(|p| {
                prune
                    .patients
                    .as_ref()
                    .is_none_or(|named| named.contains(p.as_str()))
            })
            .cloned()
            .collect();
        let projected = match projection {
            Some(columns) => Arc::new(schema().project(columns)?),
            None => schema(),
        };
        if patients.is_empty() {
            return Ok(Arc::new(EmptyExec::new(projected)));
        }
        let cut = run.cut().await?;
        let mut sealed: Vec<Arc<dyn ExecutionPlan>> = Vec::with_capacity(2);
        let files: Vec<&DataFile> = cut
            .files
            .iter()
            .filter(|f| prune.overlaps(f.first_at.as_microsecond(), f.last_at.as_microsecond()))
            .collect();
        if !files.is_empty() {
            sealed.push(parquet(session, &files, &patients, &prune)?);
        }
        if cut.hot.num_rows() > 0 {
            sealed.push(hot(&cut.hot)?);
        }
        let sealed = match (sealed.pop(), sealed.pop()) {
            (None, _) => return Ok(Arc::new(EmptyExec::new(projected))),
            (Some(only), None) => only,
            (Some(hot), Some(files)) => UnionExec::try_new(vec![files, hot])?,
        };
        let opener = Opener::new(run, patients, prune, projected, projection.cloned());
        Ok(Arc::new(DecryptExec::new(sealed, Arc::new(opener))))
    }
}

/// The sealed rows of `files`, row groups and pages without a wanted patient or time left out.
fn parquet(
    session: &dyn Session,
    files: &[&DataFile],
    patients: &BTreeSet<SubjectPseudonym>,
    prune: &Prune,
) -> Result<Arc<dyn ExecutionPlan>> {
    let url = parquet_url()?;
    let columns = schema::sealed_rows();
    let wanted = session.create_physical_expr(
        sealed_predicate(patients, prune),
        &DFSchema::try_from(Arc::clone(&columns))?,
    )?;
    let runtime = session.runtime_env();
    // Footers hold metadata columns only, so remembering them between queries shows nobody a reading.
    let readers = CachedParquetFileReaderFactory::new(
        runtime.object_store(&url)?,
        runtime.cache_manager.get_file_metadata_cache(),
    );
    let source = ParquetSource::new(columns)
        .with_predicate(wanted)
        .with_pushdown_filters(true)
        .with_parquet_file_reader_factory(Arc::new(readers));
    let partitions = session.config().target_partitions().clamp(1, files.len());
    let mut groups = vec![Vec::new(); partitions];
    for (index, file) in files.iter().enumerate() {
        groups[index % partitions].push(PartitionedFile::new(file.path.as_ref(), file.size));
    }
    let config = FileScanConfigBuilder::new(url, Arc::new(source))
        .with_file_groups(groups.into_iter().map(FileGroup::new).collect())
        .with_batch_size(Some(SEALED_ROWS_PER_BATCH))
        .build();
    Ok(DataSourceExec::from_data_source(config))
}

/// The same bounds in terms of the metadata columns. Row security does not rest on it: `DecryptExec`
/// asks again for every row.
fn sealed_predicate(patients: &BTreeSet<SubjectPseudonym>, prune: &Prune) -> Expr {
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
    if let Some(from) = prune.from_us {
        wanted = wanted.and(col(schema::LAST_AT).gt_eq(instant(from)));
    }
    if let Some(to) = prune.to_us {
        wanted = wanted.and(col(schema::FIRST_AT).lt_eq(instant(to)));
    }
    wanted
}

/// The rows that are not in a file yet, cut into batches of the same small size.
fn hot(rows: &RecordBatch) -> Result<Arc<dyn ExecutionPlan>> {
    let batches = (0..rows.num_rows())
        .step_by(SEALED_ROWS_PER_BATCH)
        .map(|at| rows.slice(at, SEALED_ROWS_PER_BATCH.min(rows.num_rows() - at)))
        .collect();
    let source: Arc<dyn ExecutionPlan> =
        MemorySourceConfig::try_new_exec(&[batches], rows.schema(), None)?;
    Ok(source)
}
