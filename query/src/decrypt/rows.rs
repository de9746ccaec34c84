//! The typed columns of sealed rows, and what is true of a row whatever is sealed in it.
//!
//! The clear columns of a row are hints. A message's subject, device and counters must equal its envelope's protected
//! header; what must of a [chunk](Chunks) stands there. Nothing is said of a row whose patient is not
//! [visible](Sealed::visible).

use datafusion::arrow::array::{
    Array, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use vitalseal_crypto::{AtRest, MessageId, PatientKeys, SubjectPseudonym};
use vitalseal_storage::catalog::FileKind;
use vitalseal_storage::schema;

use super::chunks::Chunks;
use crate::error::QueryError;
use crate::table::Sealed;
use crate::wanted::Known;

/// Rows of messages.
pub(super) struct Messages {
    subject: StringArray,
    device: StringArray,
    boot: Int64Array,
    sequence: Int64Array,
    received_at: TimestampMicrosecondArray,
    first_at: TimestampMicrosecondArray,
    last_at: TimestampMicrosecondArray,
    readings: Int32Array,
    envelope: BinaryArray,
}

/// A message that may be seen and can be wanted, still sealed.
pub(super) struct Message<'a> {
    pub(super) patient: &'a SubjectPseudonym,
    pub(super) keys: &'a PatientKeys,
    pub(super) id: MessageId,
    pub(super) received_at_us: i64,
    pub(super) span_us: (i64, i64),
    pub(super) readings: i64,
    pub(super) envelope: AtRest,
}

/// Sealed rows by the kind of file that they come from.
pub(super) enum Rows {
    Messages(Messages),
    Chunks(Chunks),
}

impl Rows {
    /// # Errors
    /// [`QueryError::Malformed`] when a column is missing or of another type.
    pub(super) fn of(sealed: &Sealed) -> Result<Self, QueryError> {
        match sealed.kind {
            FileKind::Rows => Messages::of(&sealed.rows).map(Self::Messages),
            FileKind::Chunks => Chunks::of(&sealed.rows).map(Self::Chunks),
        }
    }
}

impl Messages {
    /// # Errors
    /// [`QueryError::Malformed`] when a column is missing or of another type.
    fn of(rows: &RecordBatch) -> Result<Self, QueryError> {
        Ok(Self {
            subject: column(rows, schema::SUBJECT)?,
            device: column(rows, schema::DEVICE)?,
            boot: column(rows, schema::BOOT)?,
            sequence: column(rows, schema::SEQUENCE)?,
            received_at: column(rows, schema::RECEIVED_AT)?,
            first_at: column(rows, schema::FIRST_AT)?,
            last_at: column(rows, schema::LAST_AT)?,
            readings: column(rows, schema::READINGS)?,
            envelope: column(rows, schema::ENVELOPE)?,
        })
    }

    /// One row; `None` when nothing of it may be seen or is wanted.
    ///
    /// # Errors
    /// [`QueryError::Malformed`], or [`QueryError::Damaged`] when the envelope says something else than the row.
    pub(super) fn message<'a>(
        &self,
        at: usize,
        sealed: &'a Sealed,
    ) -> Result<Option<Message<'a>>, QueryError> {
        // Not in the scope, or erased: nothing is known about this row.
        let Some((patient, keys)) = sealed.visible(self.subject.value(at)) else {
            return Ok(None);
        };
        let span_us = (self.first_at.value(at), self.last_at.value(at));
        let wanted = sealed.wanted.allows(&Known {
            patient: Some(patient.as_str()),
            device: Some(self.device.value(at)),
            times: span_us,
            ..Known::NOTHING
        });
        if !wanted {
            return Ok(None);
        }
        let id = || {
            Some(MessageId {
                device: self.device.value(at).parse().ok()?,
                boot: u64::try_from(self.boot.value(at)).ok()?,
                sequence: u64::try_from(self.sequence.value(at)).ok()?,
            })
        };
        let id = id().ok_or(QueryError::Malformed("device or counters"))?;
        let damaged = || QueryError::Damaged(id.clone());
        let envelope = AtRest::decode(self.envelope.value(at)).map_err(|_| damaged())?;
        let header = envelope.header();
        if header.subject != *patient || header.message_id() != id {
            return Err(damaged());
        }
        Ok(Some(Message {
            patient,
            keys,
            id,
            received_at_us: self.received_at.value(at),
            span_us,
            readings: self.readings.value(at).into(),
            envelope,
        }))
    }
}

/// A column that has a value in every row.
pub(super) fn column<T: Array + Clone + 'static>(
    rows: &RecordBatch,
    name: &'static str,
) -> Result<T, QueryError> {
    rows.column_by_name(name)
        .and_then(|column| column.as_any().downcast_ref::<T>())
        .filter(|column| column.null_count() == 0)
        .cloned()
        .ok_or(QueryError::Malformed(name))
}
