//! What was lost to damage, and recorded in the very transaction that set it aside: no loss is silent.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::Row as _;
use vitalseal_crypto::SubjectPseudonym;

use super::Catalog;
use crate::database::{self, Connection, at, at_opt, count, number, parsed, us};

/// The fault of a chunk whose evidence a repair left out, and whose readings it kept.
pub(crate) const EVIDENCE_LOST: &str = "its evidence does not open; its readings are there";

/// A row of a data file, or a whole file, that was damaged and could not be kept. What could not be read is `None`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
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
    pub(super) fn read(row: &database::Row) -> Result<Self, sqlx::Error> {
        let patient: Option<&str> = row.try_get("subject")?;
        let counted = |name| -> Result<Option<u64>, sqlx::Error> {
            row.try_get::<Option<i64>, _>(name)?.map(count).transpose()
        };
        Ok(Self {
            file: row.try_get("file")?,
            row: counted("row_number")?,
            patient: patient.map(parsed).transpose()?,
            first_at: at_opt(row.try_get("first_at_us")?)?,
            last_at: at_opt(row.try_get("last_at_us")?)?,
            messages: counted("messages")?,
            fault: row.try_get("fault")?,
            found_at: at(row.try_get("found_at_us")?)?,
        })
    }

    /// Whether the readings are there, and only what proves where they came from is lost.
    #[must_use]
    pub fn is_of_evidence(&self) -> bool {
        self.fault == EVIDENCE_LOST
    }

    /// Earliest and latest instant measured, µs since the Unix epoch; what is not known reaches to the end of time.
    #[must_use]
    pub fn span_us(&self) -> (i64, i64) {
        (
            self.first_at.map_or(i64::MIN, us),
            self.last_at.map_or(i64::MAX, us),
        )
    }
}

/// Chunks whose evidence is on record as lost, by patient and span.
#[derive(Clone, Debug, Default)]
pub struct Unproven(HashSet<(SubjectPseudonym, (i64, i64))>);

impl Unproven {
    /// Of these losses.
    #[must_use]
    pub fn of(losses: &[Loss]) -> Self {
        let lost = losses.iter().filter(|loss| loss.is_of_evidence());
        let chunk = |loss: &Loss| Some((loss.patient.clone()?, loss.span_us()));
        Self(lost.filter_map(chunk).collect())
    }

    /// Whether this chunk is one: without evidence that nobody recorded as lost, it is damaged.
    #[must_use]
    pub fn has(&self, patient: &SubjectPseudonym, span_us: (i64, i64), evidence: &[u8]) -> bool {
        evidence.is_empty() && self.0.contains(&(patient.clone(), span_us))
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

/// All losses, of which `known` are the first, as they are numbered in order. If the last of them is another one by now,
/// the registry went back and on again, and all are read anew.
pub(super) async fn up_to_now(
    known: Option<&Arc<[Loss]>>,
    conn: &mut Connection,
) -> Result<Arc<[Loss]>, sqlx::Error> {
    let known = known.cloned().unwrap_or_default();
    let last = after(known.len().saturating_sub(1), conn).await?;
    match (known.last(), last.split_first()) {
        (None, _) => Ok(last.into()),
        (Some(known_last), Some((last, new))) if last == known_last && new.is_empty() => Ok(known),
        (Some(known_last), Some((last, new))) if last == known_last => {
            Ok(known.iter().chain(new).cloned().collect())
        }
        _ => Ok(after(0, conn).await?.into()),
    }
}

/// All but the first ones.
async fn after(first: usize, conn: &mut Connection) -> Result<Vec<Loss>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM losses WHERE id > $1 ORDER BY id")
        .bind(number(first as u64)?)
        .fetch_all(conn)
        .await?;
    rows.iter().map(Loss::read).collect()
}

impl Catalog {
    /// Everything that was lost to damage, in the order in which it was found.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn losses(&self) -> Result<Vec<Loss>, sqlx::Error> {
        after(0, &mut *self.db.pool().acquire().await?).await
    }
}

#[cfg(test)]
mod tests {
    use sqlx::Connection as _;

    use super::*;

    fn loss(file: &str) -> Loss {
        Loss {
            file: file.to_owned(),
            row: None,
            patient: None,
            first_at: None,
            last_at: None,
            messages: Some(1),
            fault: String::new(),
            found_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[tokio::test]
    async fn losses_that_a_registry_took_back_are_not_told_and_those_instead_of_them_are() {
        sqlx::any::install_default_drivers();
        let mut conn = Connection::connect("sqlite::memory:").await.unwrap();
        let table = "CREATE TABLE losses (id BIGINT, found_at_us BIGINT, file TEXT, row_number BIGINT, subject TEXT, \
                     first_at_us BIGINT, last_at_us BIGINT, messages BIGINT, fault TEXT)";
        sqlx::query(table).execute(&mut conn).await.unwrap();
        let all = ["a", "b", "c", "d"].map(loss);
        let none = up_to_now(None, &mut conn).await.unwrap();
        note(&all[..2], &mut conn).await.unwrap();
        let two = up_to_now(Some(&none), &mut conn).await.unwrap();
        assert_eq!(*two, all[..2]);
        let same = up_to_now(Some(&two), &mut conn).await.unwrap();
        assert!(Arc::ptr_eq(&same, &two), "nothing is copied");
        note(&all[2..3], &mut conn).await.unwrap();
        let three = up_to_now(Some(&two), &mut conn).await.unwrap();
        assert_eq!(*three, all[..3]);
        sqlx::query("DELETE FROM losses WHERE id > 1")
            .execute(&mut conn)
            .await
            .unwrap();
        let one = up_to_now(Some(&three), &mut conn).await.unwrap();
        assert_eq!(*one, all[..1]);
        note(&all[3..], &mut conn).await.unwrap();
        let other = up_to_now(Some(&two), &mut conn).await.unwrap();
        assert_eq!(*other, [all[0].clone(), all[3].clone()]);
    }
}
