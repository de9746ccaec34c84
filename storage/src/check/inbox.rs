//! Rows of the inbox: what was acknowledged and is in no file yet.

use std::collections::BTreeSet;

use tokio::task::spawn_blocking;
use vitalseal_crypto::{MessageId, SubjectPseudonym};

use super::rows::look_at;
use super::{Check, Looked, Place};
use crate::database::at;
use crate::inbox::rows::{self, SealedRow};
use crate::store::StoreError;

/// Rows that are looked at in one go.
const BATCH: i64 = 256;

impl Check<'_> {
    /// Looks at every row, by its number.
    pub(super) async fn inbox(&self) -> Result<Vec<(i64, Looked)>, StoreError> {
        let pool = self.store.inbox.database().pool();
        let (mut found, mut after) = (Vec::new(), 0);
        loop {
            let rows = rows::after(after, BATCH, pool).await?;
            let Some(last) = rows.last() else {
                return Ok(found);
            };
            after = last.id;
            let patients: BTreeSet<SubjectPseudonym> = rows
                .iter()
                .filter_map(|row| row.subject.parse().ok())
                .collect();
            let against = self.with_keys(&patients, None).await?;
            let looked = spawn_blocking(move || {
                let looked = rows
                    .iter()
                    .map(|row| (row.id, look_at(row, place(row), &against)));
                looked.collect::<Vec<_>>()
            });
            found.extend(looked.await?);
        }
    }

    /// Counts rows that were in no file when the files were listed.
    pub(super) fn count_hot(&mut self, hot: Vec<(i64, Looked)>, high: i64) {
        for (_, looked) in hot.into_iter().filter(|(id, _)| *id > high) {
            self.report.inbox += 1;
            self.take(looked);
        }
    }
}

fn place(row: &SealedRow) -> Place {
    let message = || {
        Some(MessageId {
            device: row.device.parse().ok()?,
            boot: row.boot.try_into().ok()?,
            sequence: row.sequence.try_into().ok()?,
        })
    };
    Place {
        row: row.id.try_into().ok(),
        patient: row.subject.parse().ok(),
        message: message(),
        first_at: at(row.first_at_us).ok(),
        last_at: at(row.last_at_us).ok(),
        messages: Some(1),
        ..Place::default()
    }
}
