//! Rows of messages, in a rows file or of the inbox: columns against the envelope, the envelope against its signature and
//! against what opens.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use vitalseal_crypto::{
    AtRest, ContentType, Kek, MessageId, PatientKeys, SubjectPseudonym, default_backend,
};
use vitalseal_vitals::{Reading, senml, waveform};

use super::signatures::Signatures;
use super::{Looked, Place};
use crate::catalog::{TableKind, Unproven};
use crate::database::at;
use crate::inbox::rows::SealedRow;
use crate::keys::StoreKeys;

/// What every row is held against.
pub(super) struct Against {
    /// Keys of the patients whose rows are looked at; empty without keys.
    pub(super) keys: HashMap<SubjectPseudonym, Arc<PatientKeys>>,
    pub(super) store_keys: Arc<StoreKeys>,
    pub(super) signatures: Arc<Signatures>,
    pub(super) unproven: Arc<Unproven>,
    /// Table of the file; `None`: rows of both.
    pub(super) table: Option<TableKind>,
}

/// Looks at the rows of a batch of a rows file, each in its place.
pub(super) fn look(
    batch: &RecordBatch,
    places: Vec<Place>,
    against: &Against,
) -> Result<Vec<Looked>, ArrowError> {
    let rows = places.into_iter().enumerate();
    rows.map(|(row, place)| Ok(look_at(&SealedRow::of_batch(batch, row)?, place, against)))
        .collect()
}

/// Looks at one row in its place.
pub(super) fn look_at(row: &SealedRow, place: Place, against: &Against) -> Looked {
    let mut looked = Looked::at(place);
    match u64::try_from(row.readings) {
        Ok(readings) if readings > 0 => looked.readings = readings,
        _ => looked.doubt("it counts no readings"),
    }
    if row.first_at_us > row.last_at_us {
        looked.doubt("it ends before it begins");
    }
    let envelope = match AtRest::decode(&row.envelope) {
        Ok(envelope) => envelope,
        Err(rejection) => {
            looked.lost(format!("the envelope is none: {rejection}"));
            return looked;
        }
    };
    let header = envelope.header();
    let id = header.message_id();
    let table = TableKind::from(header.content_type);
    if against.table.is_some_and(|expected| expected != table) {
        looked.doubt(format!("a message of {} stands here", table.as_str()));
    }
    match at(row.received_at_us).map(|came| against.signatures.verify(&envelope, came)) {
        Ok(Ok(())) => looked.signatures = 1,
        Ok(Err(fault)) => looked.doubt(fault.to_string()),
        Err(_) => looked.doubt("it came at no time"),
    }
    if !names(row, &id) || header.subject.as_str() != row.subject {
        let fault = "the envelope is another message's than its columns say";
        match looked.signatures {
            // Its device vouches for it, so it is the columns that are wrong.
            1 => looked.doubt(fault),
            _ => looked.lost(fault),
        }
    }
    match against.keys.get(&header.subject) {
        Some(keys) => open(row, &envelope, keys, &mut looked),
        None => looked.unopened = 1,
    }
    looked.messages.push(id);
    looked
}

fn names(row: &SealedRow, id: &MessageId) -> bool {
    id.device.as_str() == row.device
        && i64::try_from(id.boot) == Ok(row.boot)
        && i64::try_from(id.sequence) == Ok(row.sequence)
}

fn open(row: &SealedRow, envelope: &AtRest, keys: &PatientKeys, looked: &mut Looked) {
    let Some(kek) = keys.find(envelope.kek_kid()) else {
        // Keys that are older than the file, as a registry from a backup has them, do not damage it.
        return looked.doubt("the envelope is sealed under a key of its patient that is not here");
    };
    let readings = match readings(envelope, kek) {
        Ok(readings) => readings,
        Err(fault) => return looked.lost(fault),
    };
    looked.opened = 1;
    let instants = || readings.iter().map(|reading| reading.at.as_microsecond());
    if i32::try_from(readings.len()) != Ok(row.readings) {
        looked.doubt("the envelope holds another number of readings than its column says");
    }
    let span = (instants().min(), instants().max());
    if span != (Some(row.first_at_us), Some(row.last_at_us)) {
        looked.doubt("the envelope's readings lie at other times than its columns say");
    }
}

/// What an envelope holds, or why it does not open.
fn readings(envelope: &AtRest, kek: &Kek) -> Result<Vec<Reading>, String> {
    let payload = envelope
        .open(kek, default_backend())
        .map_err(|rejection| format!("the envelope does not open: {rejection}"))?;
    let decoded = match envelope.header().content_type {
        ContentType::SenmlCbor => senml::decode(&payload),
        ContentType::Waveform => waveform::decode(&payload),
    };
    decoded.map_err(|_| "the envelope's content is no payload".to_owned())
}
