//! What is known to be lost of what a query asks for: told beside its answer, so that no gap is silent.
//!
//! Told is how many messages were lost, and of which span, of patients whom the query may see and who have a key. Of a
//! loss whose patient nobody knows it is told that there is one, on a day that the query asks for: how much it was, and
//! when on that day, may be another patient's. A loss does not say of which table it is, nor of which signal, so that it
//! is told to whoever may miss it. Never here: another patient, the name of a file.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use vitalseal_crypto::SubjectPseudonym;
use vitalseal_storage::{Cut, Loss, Store};

use crate::error::QueryError;
use crate::table::Blob;
use crate::wanted::{Known, Test};

/// Losses that concern a query, as indexes into those of its cut.
#[derive(Debug, Default)]
pub(crate) struct Missing(Mutex<Concerned>);

#[derive(Debug, Default)]
struct Concerned {
    messages: BTreeSet<usize>,
    evidence: BTreeSet<usize>,
    of_whom: bool,
}

impl Missing {
    /// Notes the losses that a scan would have shown: of `patients`, or perhaps of theirs, as far as `test` wants them.
    ///
    /// # Errors
    /// [`QueryError::Storage`] when keys cannot be looked up.
    pub(crate) async fn note(
        &self,
        cut: &Cut,
        patients: &BTreeSet<SubjectPseudonym>,
        test: &Test,
        blob: Blob,
        store: &Store,
    ) -> Result<(), QueryError> {
        let losses = cut.losses.iter().enumerate();
        let concerning: Vec<(usize, &Loss)> = losses
            .filter(|(_, loss)| blob == Blob::Evidence || !loss.is_of_evidence())
            .filter(|(_, loss)| loss.patient.as_ref().is_none_or(|of| patients.contains(of)))
            .filter(|(_, loss)| test.allows(&known(loss)))
            .collect();
        if concerning.is_empty() {
            return Ok(());
        }
        // An erased patient has no readings, and none that are missing.
        let named = concerning
            .iter()
            .filter_map(|(_, loss)| loss.patient.as_ref());
        let named: BTreeSet<_> = named.collect();
        let held = store.keys.keys_of(named.into_iter()).await;
        let held = held.map_err(|cause| QueryError::Storage {
            what: "patient keys",
            cause: Box::new(cause),
        })?;
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, loss) in concerning {
            match &loss.patient {
                None => found.of_whom = true,
                Some(patient) if !held.contains_key(patient) => {}
                Some(_) if loss.is_of_evidence() => {
                    found.evidence.insert(at);
                }
                Some(_) => {
                    found.messages.insert(at);
                }
            }
        }
        Ok(())
    }

    /// What to tell of it, a sentence each; `losses` are those of the cut.
    pub(crate) fn notices(&self, losses: &[Loss]) -> Vec<String> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |indexes: &BTreeSet<usize>| -> Vec<&Loss> {
            indexes.iter().filter_map(|at| losses.get(*at)).collect()
        };
        let (messages, evidence) = (of(&found.messages), of(&found.evidence));
        let mut notices = Vec::new();
        if !messages.is_empty() {
            let lost = amount(&messages);
            notices.push(format!(
                "messages lost to damage, which may be missing from this answer: {lost}"
            ));
        }
        if !evidence.is_empty() {
            let lost = amount(&evidence);
            notices.push(format!(
                "messages of which only the readings are left, since damage took their envelopes: {lost}"
            ));
        }
        if found.of_whom {
            let text = "messages were lost to damage of which it is not known whose they were: some may be missing from \
                        this answer";
            notices.push(text.to_owned());
        }
        notices
    }
}

/// What a filter is asked about a loss. Somebody who moves the bounds of a filter learns the span that decides: of a loss
/// that may be another patient's, these are whole days.
fn known(loss: &Loss) -> Known<'_> {
    const DAY_US: i64 = 24 * 3600 * 1_000_000;
    let (first, last) = loss.span_us();
    let day = |us: i64| us.div_euclid(DAY_US).saturating_mul(DAY_US);
    Known {
        patient: loss.patient.as_ref().map(SubjectPseudonym::as_str),
        times: match loss.patient {
            Some(_) => (first, last),
            None => (day(first), day(last).saturating_add(DAY_US - 1)),
        },
        ..Known::NOTHING
    }
}

/// How many messages, and when they were measured.
fn amount(losses: &[&Loss]) -> String {
    let counted: u64 = losses.iter().filter_map(|loss| loss.messages).sum();
    let all_counted = losses.iter().all(|loss| loss.messages.is_some());
    let count = match (counted, all_counted) {
        (counted, true) => counted.to_string(),
        (0, false) => "it is not known how many".to_owned(),
        (counted, false) => format!("at least {counted}"),
    };
    let first = losses.iter().filter_map(|loss| loss.first_at).min();
    let last = losses.iter().filter_map(|loss| loss.last_at).max();
    match first.zip(last) {
        Some((first, last)) => format!("{count}, measured from {first} to {last}"),
        None => count,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn loss(messages: Option<u64>, span: Option<(i64, i64)>) -> Loss {
        let at = |second| Timestamp::from_second(second).unwrap();
        Loss {
            file: "c-secret.parquet".to_owned(),
            row: None,
            patient: None,
            first_at: span.map(|(first, _)| at(first)),
            last_at: span.map(|(_, last)| at(last)),
            messages,
            fault: "secret".to_owned(),
            found_at: at(9),
        }
    }

    #[test]
    fn what_is_not_known_of_a_loss_is_not_made_up() {
        let said = |losses: &[Loss]| amount(&losses.iter().collect::<Vec<_>>());
        let (known, unknown) = (loss(Some(2), Some((3, 5))), loss(None, Some((1, 4))));
        let span = |first, last| {
            format!("measured from 1970-01-01T00:00:0{first}Z to 1970-01-01T00:00:0{last}Z")
        };
        for (losses, expected) in [
            (vec![known.clone()], format!("2, {}", span(3, 5))),
            (vec![known.clone(); 2], format!("4, {}", span(3, 5))),
            (
                vec![known, unknown.clone()],
                format!("at least 2, {}", span(1, 5)),
            ),
            (
                vec![unknown],
                format!("it is not known how many, {}", span(1, 4)),
            ),
            (vec![loss(Some(1), None)], "1".to_owned()),
        ] {
            assert_eq!(said(&losses), expected);
        }
    }
}
