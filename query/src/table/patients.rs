//! `patients`: the patients that the policy lets the asker see, with their identity.
//!
//! | Column | Arrow type | Null when |
//! |---|---|---|
//! | `patient` | `Utf8` | never: the pseudonym |
//! | `name`, `mrn` | `Utf8` | not recorded, or erased with the key that sealed it |
//! | `state` | `Utf8` | never: `active` or `erased` |
//! | `created_at` | `Timestamp(µs, UTC)` | never |

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, StringBuilder, TimestampMicrosecondBuilder};
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::error::Result;
use vitalseal_storage::registry::PatientState;

use super::instant;
use super::registry::{RegistryTable, Schemas};
use crate::error::QueryError;
use crate::run::QueryRun;

/// The table.
pub(super) fn table() -> RegistryTable {
    let columns = vec![
        Field::new("patient", DataType::Utf8, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("mrn", DataType::Utf8, true),
        Field::new("state", DataType::Utf8, false),
        Field::new("created_at", instant(), false),
    ];
    RegistryTable::new(columns, |run, schemas| Box::pin(rows(run, schemas)))
}

async fn rows(run: Arc<QueryRun>, schemas: Schemas) -> Result<RecordBatch> {
    let scope = run.scope().await?;
    let asks_for = |column| schemas.asked.column_with_name(column).is_some();
    let (asks_name, asks_mrn) = (asks_for("name"), asks_for("mrn"));
    let mut patient = StringBuilder::new();
    let mut name = StringBuilder::new();
    let mut mrn = StringBuilder::new();
    let mut state = StringBuilder::new();
    let mut created_at = TimestampMicrosecondBuilder::new();
    for subject in scope.patients() {
        let found = run
            .deps
            .store
            .registry
            .patient(subject)
            .await
            .map_err(|cause| QueryError::Storage {
                what: "patients",
                cause: Box::new(cause),
            })?;
        let Some(row) = found else { continue };
        let known = row.identity.as_ref();
        let hands_out_name = asks_name && known.is_some_and(|known| known.name.is_some());
        let hands_out_mrn = asks_mrn && known.is_some_and(|known| known.mrn.is_some());
        run.shown(subject, hands_out_name || hands_out_mrn);
        patient.append_value(row.subject.as_str());
        name.append_option(known.and_then(|known| known.name.as_deref()));
        mrn.append_option(known.and_then(|known| known.mrn.as_deref()));
        state.append_value(match row.state {
            PatientState::Active => "active",
            PatientState::Erased => "erased",
        });
        created_at.append_value(row.created_at.as_microsecond());
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(patient.finish()),
        Arc::new(name.finish()),
        Arc::new(mrn.finish()),
        Arc::new(state.finish()),
        Arc::new(created_at.finish().with_timezone("UTC")),
    ];
    Ok(RecordBatch::try_new(schemas.all, columns)?)
}
