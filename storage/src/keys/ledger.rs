//! The ledger of erasures: who was forgotten, when, and which keys went.
//!
//! A row is written in the transaction of its erasure and completed when the old root is gone. It never holds more than
//! pseudonyms, ids and counts.

use jiff::Timestamp;
use sqlx::Row as _;
use vitalseal_crypto::{KeyEpoch, Kid, SubjectPseudonym};

use super::{KeyError, KeyStore};
use crate::database::{Connection, Database, at, at_opt, count, damaged, number, parsed, us};

/// What an erasure did to the keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyErasure {
    /// Id that the caller gave.
    pub erasure_id: String,
    /// Patient.
    pub subject: SubjectPseudonym,
    /// When.
    pub erased_at: Timestamp,
    /// Root that is gone.
    pub root_epoch_destroyed: KeyEpoch,
    /// Root that took its place.
    pub root_epoch: KeyEpoch,
    /// Page that the KEK was on.
    pub page: i64,
    /// Other patients' KEKs wrapped anew.
    pub keks_rewrapped: u64,
    /// Pages wrapped anew.
    pub pages_rewrapped: u64,
    /// Ids of the patient's KEKs that are gone: the current one first.
    pub kek_kids: Vec<Kid>,
    /// Who held the root.
    pub root_provider: String,
}

/// One erasure of the ledger.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LedgerRow {
    /// Id.
    pub erasure_id: String,
    /// Patient.
    pub subject: SubjectPseudonym,
    /// When.
    pub erased_at: Timestamp,
    /// Root that took over.
    pub root_epoch: KeyEpoch,
    /// When the old root was found destroyed; `None`: not yet.
    pub completed_at: Option<Timestamp>,
}

impl KeyStore {
    /// What the erasure of this id did; `None` when there was none.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn erasure(&self, erasure_id: &str) -> Result<Option<KeyErasure>, KeyError> {
        find(erasure_id, &self.inner.db).await
    }

    /// Every erasure, oldest first.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn erasure_ledger(&self) -> Result<Vec<LedgerRow>, KeyError> {
        let rows = sqlx::query(
            "SELECT erasure_id, subject, erased_at_us, root_epoch, completed_at_us FROM erasure_ledger \
             ORDER BY root_epoch",
        )
        .fetch_all(self.inner.db.pool())
        .await?;
        let mut ledger = Vec::with_capacity(rows.len());
        for row in rows {
            ledger.push(LedgerRow {
                erasure_id: row.try_get("erasure_id")?,
                subject: parsed(row.try_get("subject")?)?,
                erased_at: at(row.try_get("erased_at_us")?)?,
                root_epoch: KeyEpoch(count(row.try_get("root_epoch")?)?),
                completed_at: at_opt(row.try_get("completed_at_us")?)?,
            });
        }
        Ok(ledger)
    }
}

pub(super) async fn find(erasure_id: &str, db: &Database) -> Result<Option<KeyErasure>, KeyError> {
    let row = sqlx::query("SELECT * FROM erasure_ledger WHERE erasure_id = $1")
        .bind(erasure_id)
        .fetch_optional(db.pool())
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(KeyErasure {
        erasure_id: row.try_get("erasure_id")?,
        subject: parsed(row.try_get("subject")?)?,
        erased_at: at(row.try_get("erased_at_us")?)?,
        root_epoch_destroyed: KeyEpoch(count(row.try_get("root_epoch_destroyed")?)?),
        root_epoch: KeyEpoch(count(row.try_get("root_epoch")?)?),
        page: row.try_get("page")?,
        keks_rewrapped: count(row.try_get("keks_rewrapped")?)?,
        pages_rewrapped: count(row.try_get("pages_rewrapped")?)?,
        kek_kids: read_kids(row.try_get("kek_kids")?)?,
        root_provider: row.try_get("root_provider")?,
    }))
}

/// Writes the row of an erasure that is not completed yet, in its transaction.
pub(super) async fn note(erasure: &KeyErasure, conn: &mut Connection) -> Result<(), KeyError> {
    sqlx::query(
        "INSERT INTO erasure_ledger (erasure_id, subject, erased_at_us, root_epoch_destroyed, root_epoch, \
         page, keks_rewrapped, pages_rewrapped, kek_kids, root_provider) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(&erasure.erasure_id)
    .bind(erasure.subject.as_str())
    .bind(us(erasure.erased_at))
    .bind(number(erasure.root_epoch_destroyed.0)?)
    .bind(number(erasure.root_epoch.0)?)
    .bind(erasure.page)
    .bind(number(erasure.keks_rewrapped)?)
    .bind(number(erasure.pages_rewrapped)?)
    .bind(write_kids(&erasure.kek_kids))
    .bind(&erasure.root_provider)
    .execute(conn)
    .await?;
    Ok(())
}

fn write_kids(kids: &[Kid]) -> String {
    let kids: Vec<_> = kids.iter().map(|kid| hex::encode(kid.as_bytes())).collect();
    kids.join(" ")
}

fn read_kids(text: &str) -> Result<Vec<Kid>, sqlx::Error> {
    text.split_whitespace()
        .map(|kid| Kid::from_bytes(&hex::decode(kid).map_err(damaged)?).map_err(damaged))
        .collect()
}
