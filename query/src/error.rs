//! What can go wrong with a query, and how much of it a client is told.

use std::fmt;

use datafusion::error::DataFusionError;
use jiff::Timestamp;
use vitalseal_crypto::SubjectPseudonym;
use vitalseal_crypto::ids::MessageId;
use vitalseal_storage::ports::{AuditError, PolicyError, QueryOutcome};

/// A query that could not be answered.
///
/// The texts name tables, ids and reasons, never a stored value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The statement is of a kind that nobody may run here.
    #[error("refused: {0}")]
    Refused(String),
    /// The text is not SQL that this server understands.
    #[error("reading the statement")]
    Parse(#[source] Box<DataFusionError>),
    /// Planning or running failed inside the engine.
    #[error("running the query")]
    Engine(#[source] Box<DataFusionError>),
    /// The policy could not decide, so nothing was read.
    #[error("asking the access policy")]
    Policy(#[source] PolicyError),
    /// The access could not be recorded, so it did not take place.
    #[error("recording the access")]
    Audit(#[source] AuditError),
    /// Reading stored state failed.
    #[error("reading the {what}")]
    Storage {
        /// Which part of the store.
        what: &'static str,
        /// The cause, as the store reports it.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A stored message does not open, or is not what its row says it is.
    #[error("stored message {0} is damaged or not authentic")]
    Damaged(MessageId),
    /// A chunk of readings does not open, or is not what its row says it is.
    #[error("{}", damaged_chunk(patient, *start, *seconds))]
    DamagedChunk {
        /// Whose readings they are: one of those whom the asker may see.
        patient: SubjectPseudonym,
        /// Start of the chunk's bucket.
        start: Timestamp,
        /// Width of the bucket, s.
        seconds: i32,
    },
    /// A stored file cannot be read, or a page of it does not open.
    #[error(
        "reading stored files: one of them is damaged or out of reach; have `vitalseal store check` run, and leave it \
         out by another patient or range of ts"
    )]
    DamagedFile(#[source] Box<DataFusionError>),
    /// A stored row cannot even be attributed to a message.
    #[error("a stored row is malformed: {0}")]
    Malformed(&'static str),
    /// The deadline of the whole query passed.
    #[error("the query ran longer than the {0} s that this server allows")]
    Deadline(u64),
    /// The client asked for the query to stop, or the server is stopping.
    #[error("the query was cancelled")]
    Cancelled,
    /// The random number generator of the system failed.
    #[error("drawing a query id")]
    Random,
}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> Self {
        Self::Engine(Box::new(error))
    }
}

impl From<QueryError> for DataFusionError {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Engine(inner) => *inner,
            other => Self::External(Box::new(other)),
        }
    }
}

impl QueryError {
    /// How a query ended that ended with this error.
    pub(crate) fn outcome(&self) -> QueryOutcome {
        let inner = match self {
            Self::Engine(cause) => match &**cause {
                DataFusionError::External(inner) => inner.downcast_ref(),
                _ => None,
            },
            ours => Some(ours),
        };
        match inner {
            Some(Self::Cancelled | Self::Deadline(_)) => QueryOutcome::Cancelled,
            _ => QueryOutcome::Failed,
        }
    }

    /// What may be said to the client, and its SQLSTATE.
    #[must_use]
    pub fn client_message(&self) -> (&'static str, String) {
        match self {
            Self::Refused(_) => ("42501", self.to_string()),
            Self::Parse(cause) => ("42601", client_message(cause).1),
            Self::Engine(cause) => client_message(cause),
            Self::DamagedChunk {
                patient,
                start,
                seconds,
            } => ("XX001", damaged_chunk(&patient.as_str(), *start, *seconds)),
            Self::Damaged(_) | Self::DamagedFile(_) | Self::Malformed(_) => {
                ("XX001", self.to_string())
            }
            Self::Deadline(_) | Self::Cancelled => ("57014", self.to_string()),
            Self::Policy(_) => ("XX000", "the access policy could not decide".to_owned()),
            Self::Audit(_) => ("XX000", "the access could not be recorded".to_owned()),
            Self::Storage { what, .. } => ("XX000", format!("the {what} could not be read")),
            Self::Random => ("XX000", self.to_string()),
        }
    }
}

/// The client may see the whole pseudonym; a log shows it shortened.
fn damaged_chunk(patient: &dyn fmt::Display, start: Timestamp, seconds: i32) -> String {
    format!(
        "the stored readings of patient {patient} from {start} on, for {seconds} s, are damaged or not authentic; \
         leave them out by another range of ts, and have `vitalseal store check` run"
    )
}

/// The SQLSTATE and text that a client gets for an engine error.
///
/// Planning errors speak about the client's own SQL and are passed on. Errors of a running query
/// may quote the value that caused them ("cannot cast string '…'"), so those are replaced by their kind.
#[must_use]
pub fn client_message(error: &DataFusionError) -> (&'static str, String) {
    use datafusion::arrow::error::ArrowError;
    match error {
        DataFusionError::External(inner) => inner.downcast_ref::<QueryError>().map_or_else(
            || ("XX000", "the query failed".to_owned()),
            QueryError::client_message,
        ),
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => {
            client_message(inner)
        }
        DataFusionError::Shared(inner) => client_message(inner),
        DataFusionError::Collection(all) => all
            .first()
            .map_or_else(|| ("XX000", "the query failed".to_owned()), client_message),
        DataFusionError::SQL(cause, _) => ("42601", cause.to_string()),
        DataFusionError::Plan(text) => ("42000", text.clone()),
        DataFusionError::SchemaError(cause, _) => ("42703", cause.to_string()),
        DataFusionError::NotImplemented(text) => ("0A000", text.clone()),
        DataFusionError::ResourcesExhausted(_) => (
            "53200",
            "the query needs more memory than this server allows".to_owned(),
        ),
        DataFusionError::ArrowError(cause, _) => match **cause {
            ArrowError::DivideByZero => ("22012", "division by zero".to_owned()),
            ArrowError::ArithmeticOverflow(_) => ("22003", "a number is out of range".to_owned()),
            ArrowError::CastError(_) | ArrowError::ParseError(_) => (
                "22P02",
                "a value could not be converted to the requested type".to_owned(),
            ),
            ArrowError::ExternalError(ref inner) => inner
                .downcast_ref::<DataFusionError>()
                .map_or_else(|| ("XX000", "the query failed".to_owned()), client_message),
            _ => ("XX000", "the query failed while it was running".to_owned()),
        },
        _ => ("XX000", "the query failed while it was running".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::error::ArrowError;

    use super::*;

    #[test]
    fn a_value_quoted_by_the_engine_does_not_reach_the_client() {
        let cast = DataFusionError::ArrowError(
            Box::new(ArrowError::CastError(
                "Cannot cast string 'Ada Lovelace' to Float64".into(),
            )),
            None,
        );
        let wrapped = DataFusionError::Context("evaluating".into(), Box::new(cast));
        let (code, text) = client_message(&wrapped);
        assert_eq!(code, "22P02");
        assert!(!text.contains("Ada"), "{text}");
        let (_, text) = client_message(&DataFusionError::Execution("bad value Ada".into()));
        assert!(!text.contains("Ada"), "{text}");
    }

    #[test]
    fn our_own_errors_survive_the_engine() {
        let through: DataFusionError = QueryError::Deadline(30).into();
        let (code, text) = client_message(&DataFusionError::Shared(std::sync::Arc::new(through)));
        assert_eq!(code, "57014");
        assert!(text.contains("30 s"));
    }
}
