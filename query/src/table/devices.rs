//! `devices`: the devices that are assigned to a patient whom the asker may see.
//!
//! | Column | Arrow type | Meaning |
//! |---|---|---|
//! | `device` | `Utf8` | device id |
//! | `state` | `Utf8` | `active` or `revoked` |
//! | `patient` | `Utf8` | pseudonym of the patient it measures now |
//! | `enrolled_at` | `Timestamp(µs, UTC)` | when its certificate was issued |

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, StringBuilder, TimestampMicrosecondBuilder};
use datafusion::arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::error::Result;

use super::instant;
use super::registry::RegistryTable;
use crate::error::QueryError;
use crate::run::QueryRun;

/// The table.
pub(super) fn table() -> RegistryTable {
    let columns = vec![
        Field::new("device", DataType::Utf8, false),
        Field::new("state", DataType::Utf8, false),
        Field::new("patient", DataType::Utf8, false),
        Field::new("enrolled_at", instant(), false),
    ];
    RegistryTable::new(columns, |run, schemas| Box::pin(rows(run, schemas.all)))
}

async fn rows(run: Arc<QueryRun>, schema: SchemaRef) -> Result<RecordBatch> {
    let scope = run.scope().await?;
    let devices = run
        .deps
        .store
        .registry
        .devices()
        .await
        .map_err(|cause| QueryError::Storage {
            what: "devices",
            cause: Box::new(cause),
        })?;
    let mut device = StringBuilder::new();
    let mut state = StringBuilder::new();
    let mut patient = StringBuilder::new();
    let mut enrolled_at = TimestampMicrosecondBuilder::new();
    for row in devices {
        let Some(assigned) = row.patient.filter(|p| scope.patients().contains(p)) else {
            continue;
        };
        run.shown(&assigned, false);
        device.append_value(row.id.as_str());
        state.append_value(row.state.as_str());
        patient.append_value(assigned.as_str());
        enrolled_at.append_value(row.enrolled_at.as_microsecond());
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(device.finish()),
        Arc::new(state.finish()),
        Arc::new(patient.finish()),
        Arc::new(enrolled_at.finish().with_timezone("UTC")),
    ];
    Ok(RecordBatch::try_new(schema, columns)?)
}
