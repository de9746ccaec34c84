//! What was lost to damage, and recorded in the very transaction that set it aside: no loss is silent.

use jiff::Timestamp;
use serde::Serialize;
use sqlx::Row as _;
use vitalseal_crypto::SubjectPseudonym;

use super::Catalog;
use crate::database::{Connection, at, at_opt, count, number, parsed, us};

/// A row of a data file, or a whole file, that was damaged and could not be kept. What could not be read is `None`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Loss {
    /// The data file; its bytes are in [`StorePaths::damaged`](crate::StorePaths::damaged), if there were any.
    pub file: String,
    /// The row, from 0; `None`: the file.
    pub row: Option<u64>,
    /// Patient.
    pub patient: Option<SubjectPseudonym>,
    /// Earliest instant measured; for what could not be read, of the file.
    pub first_at: Option<Timestamp>,
    /// Latest instant measured, likewise.
    pub last_at: Option<Timestamp>,
    /// Messages inside.
    pub messages: Option<u64>,
    /// What was wrong.
    pub fault: String,
    /// When it was set aside.
    pub found_at: Timestamp,
}

impl Loss {
    /// Whether a reading of this span may have been lost.
    #[must_use]
    pub fn overlaps(&self, first_at: Timestamp, last_at: Timestamp) -> bool {
        self.first_at.is_none_or(|first| first <= last_at)
            && self.last_at.is_none_or(|last| last >= first_at)
    }
}

/// Records losses, in the transaction of the change that causes them.
pub(crate) async fn note(losses: &[Loss], conn: &mut Connection) -> Result<(), sqlx::Error> {
    let last: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(id), 0) FROM losses")
        .fetch_one(&mut *conn)
        .await?;
    for (id, loss) in (last + 1..).zip(losses) {
        sqlx::query(
            "INSERT INTO losses (id, found_at_us, file, row_number, subject, first_at_us, last_at_us, messages, fault) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(id)
        .bind(us(loss.found_at))
        .bind(&loss.file)
        .bind(loss.row.map(number).transpose()?)
        .bind(loss.patient.as_ref().map(SubjectPseudonym::as_str))
        .bind(loss.first_at.map(us))
        .bind(loss.last_at.map(us))
        .bind(loss.messages.map(number).transpose()?)
        .bind(&loss.fault)
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

impl Catalog {
    /// Everything that was lost to damage, in the order in which it was found.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn losses(&self) -> Result<Vec<Loss>, sqlx::Error> {
        let rows = sqlx::query("SELECT * FROM losses ORDER BY id")
            .fetch_all(self.db.pool())
            .await?;
        let mut losses = Vec::with_capacity(rows.len());
        for row in rows {
            let patient: Option<&str> = row.try_get("subject")?;
            let counted = |name| -> Result<Option<u64>, sqlx::Error> {
                row.try_get::<Option<i64>, _>(name)?.map(count).transpose()
            };
            losses.push(Loss {
                file: row.try_get("file")?,
                row: counted("row_number")?,
                patient: patient.map(parsed).transpose()?,
                first_at: at_opt(row.try_get("first_at_us")?)?,
                last_at: at_opt(row.try_get("last_at_us")?)?,
                messages: counted("messages")?,
                fault: row.try_get("fault")?,
                found_at: at(row.try_get("found_at_us")?)?,
            });
        }
        Ok(losses)
    }
}
