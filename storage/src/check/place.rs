//! Where something stands in the store, as far as its columns tell: said of what is damaged, and of what was lost.

use arrow::array::AsArray as _;
use arrow::datatypes::{ArrowPrimitiveType, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use jiff::Timestamp;
use serde::Serialize;
use vitalseal_crypto::{MessageId, SubjectPseudonym};

use crate::catalog::{DataFile, Loss};
use crate::schema;

/// A place in the store; what does not apply, or could not be read, is `None`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Place {
    /// Data file; `None`: the inbox.
    pub file: Option<String>,
    /// Row of the file, from 0, or number of the inbox row; `None`: the file itself.
    pub row: Option<u64>,
    /// Patient.
    pub patient: Option<SubjectPseudonym>,
    /// Start of the chunk's bucket.
    pub bucket_start: Option<Timestamp>,
    /// Device, boot and sequence.
    #[serde(serialize_with = "as_text")]
    pub message: Option<MessageId>,
    /// Earliest instant measured.
    pub first_at: Option<Timestamp>,
    /// Latest instant measured.
    pub last_at: Option<Timestamp>,
    /// Messages inside.
    pub messages: Option<u64>,
}

impl Place {
    /// A file as a whole.
    pub(super) fn whole(file: &DataFile) -> Self {
        Self {
            file: Some(file.path.to_string()),
            first_at: Some(file.first_at),
            last_at: Some(file.last_at),
            messages: Some(file.messages),
            ..Self::default()
        }
    }

    /// A row of a file of which nothing else could be read.
    pub(super) fn row(file: &DataFile, row: u64) -> Self {
        Self {
            row: Some(row),
            messages: None,
            ..Self::whole(file)
        }
    }

    /// The rows of a batch of a file; `numbers` are theirs in it.
    pub(super) fn rows(file: &DataFile, batch: &RecordBatch, numbers: &[u64]) -> Vec<Self> {
        let columns = Columns { batch };
        let place = |(at, number): (usize, &u64)| Self {
            file: Some(file.path.to_string()),
            row: Some(*number),
            patient: columns.text(schema::SUBJECT, at),
            bucket_start: columns.instant(schema::BUCKET_START, at),
            message: columns.message(at),
            first_at: columns.instant(schema::FIRST_AT, at),
            last_at: columns.instant(schema::LAST_AT, at),
            messages: match columns.number::<Int32Type>(schema::MESSAGES, at) {
                Some(messages) => messages.try_into().ok(),
                None => columns.message(at).map(|_| 1),
            },
        };
        numbers.iter().enumerate().map(place).collect()
    }

    /// The loss of it.
    pub(super) fn loss(&self, fault: &str, found_at: Timestamp) -> Loss {
        Loss {
            file: self.file.clone().unwrap_or_default(),
            row: self.row,
            patient: self.patient.clone(),
            first_at: self.first_at,
            last_at: self.last_at,
            messages: self.messages,
            fault: fault.to_owned(),
            found_at,
        }
    }
}

/// Columns of either kind of file; none has to be there, or to hold what it should.
struct Columns<'a> {
    batch: &'a RecordBatch,
}

impl Columns<'_> {
    fn text<T: std::str::FromStr>(&self, name: &str, at: usize) -> Option<T> {
        let column = self.batch.column_by_name(name)?.as_string_opt::<i32>()?;
        column.value(at).parse().ok()
    }

    fn number<T: ArrowPrimitiveType>(&self, name: &str, at: usize) -> Option<T::Native> {
        let column = self.batch.column_by_name(name)?.as_primitive_opt::<T>()?;
        Some(column.value(at))
    }

    fn instant(&self, name: &str, at: usize) -> Option<Timestamp> {
        let us = self.number::<TimestampMicrosecondType>(name, at)?;
        Timestamp::from_microsecond(us).ok()
    }

    fn message(&self, at: usize) -> Option<MessageId> {
        let count = |name| u64::try_from(self.number::<Int64Type>(name, at)?).ok();
        Some(MessageId {
            device: self.text(schema::DEVICE, at)?,
            boot: count(schema::BOOT)?,
            sequence: count(schema::SEQUENCE)?,
        })
    }
}

fn as_text<S: serde::Serializer>(
    message: &Option<MessageId>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match message {
        Some(id) => {
            let MessageId {
                device,
                boot,
                sequence,
            } = id;
            serializer.collect_str(&format_args!("{device} {boot}/{sequence}"))
        }
        None => serializer.serialize_none(),
    }
}
