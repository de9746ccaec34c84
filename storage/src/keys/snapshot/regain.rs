//! A snapshot of the registry's own root: the registry gets back what it lost since, and loses nothing that it has.
//!
//! A registry that went back (its server failed over to a replica that lags, or was restored to a point in time) may know
//! every erasure and yet lack patients that were added since, keys that were changed, devices that were shut out. Under
//! one root the tree only grows: keys come and are retired, none goes. So here neither has to be the newer one, and the
//! two may even have gone apart: what the snapshot has and the registry has not is added. It brings nobody back: an
//! erasure ends with a root of its own, so a snapshot of the registry's root is from after each that the registry knows.
//!
//! | The page in the registry | Its file in the snapshot | Then |
//! |---|---|---|
//! | of the snapshot's generation | – | nothing, it is not even read |
//! | another generation | whole | what is missing is added |
//! | a later generation | damaged at every place | nothing: the next snapshot is written from the registry |
//! | an earlier generation, or not there | damaged at every place | refused: the next snapshot would take its place, and nobody have those keys |
//!
//! Users, grants, tokens, active devices and assignments are in no snapshot and come back from nowhere.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use jiff::Timestamp;
use sqlx::Row as _;
use vitalseal_crypto::KeyEpoch;

use super::format::{Opened, Page};
use super::join::{JoinRefused, note_joined, shut_out, write};
use super::own::Own;
use super::rows::{self, Cell, Row, WrongCell};
use super::{KEKS, KEY_PAGES, RECIPIENTS, SECRETS, SnapshotError, Table};
use crate::database::{Connection, Database, damaged};
use crate::keys::KeyCustody;
use crate::keys::tree::generation_step;

/// A secret of the registry stays as it is.
const MISSING_SECRETS: Table = Table {
    write: "INSERT INTO secrets (name, sealed) VALUES ($1, $2) ON CONFLICT DO NOTHING",
    ..SECRETS
};

/// An envelope key that ended stays ended.
const MISSING_RECIPIENTS: Table = Table {
    write: "INSERT INTO recipients (epoch, kid, certificate, not_before_us, not_after_us, wrapped, blob) \
            VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
    ..RECIPIENTS
};

/// Pages of patients, each under the bytes that wrap its key: its number and its generation. Two that went apart may
/// have given one number to two pages.
type Pages = HashMap<Vec<u8>, (i64, i64)>;

/// What was added.
#[derive(Default)]
struct Regained {
    changes: u64,
    patients: u64,
}

/// Gives the registry what the snapshots of its own root have and it has not.
///
/// # Errors
/// [`JoinRefused::Behind`]; then nothing was changed.
pub(super) async fn regain(
    db: &Database,
    custody: &KeyCustody,
    own: Own,
    root: KeyEpoch,
    now: Timestamp,
) -> Result<(), JoinRefused> {
    let looking = custody.clone();
    let snapshots = tokio::task::spawn_blocking(move || of_root(&looking, &own, root)).await??;
    let mut tx = db.begin().await?;
    let conn = tx.connection();
    let mut unread = BTreeMap::new();
    let mut is_changed = false;
    for snapshot in &snapshots {
        is_changed |= add(snapshot, &mut unread, conn, now).await?;
    }
    let pages = pages(conn).await?;
    for (wrapped, (generation, snapshot, cause)) in unread {
        let is_behind = pages.get(&wrapped).is_none_or(|(_, at)| *at < generation);
        if is_behind {
            let cause = Box::new(cause);
            return Err(JoinRefused::Behind { snapshot, cause });
        }
    }
    if is_changed {
        // Whoever was logged in may have been locked out since.
        rows::write("DELETE FROM tokens", &[], conn).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// The newest snapshot of each place that is of this root and opens.
fn of_root(custody: &KeyCustody, own: &Own, root: KeyEpoch) -> Result<Vec<Opened>, JoinRefused> {
    let mut found = Vec::new();
    for place in &custody.snapshots {
        let place = own.place(place);
        let ids = place.snapshots().map_err(JoinRefused::Place)?;
        for id in ids.into_iter().rev().filter(|id| id.root_epoch == root) {
            match Opened::open(&place, &own.store_id, id, custody.roots.as_ref()) {
                Ok(opened) => {
                    found.push(opened);
                    break;
                }
                Err(cause) => tracing::error!(
                    snapshot = %place.manifest(id).display(),
                    cause = &cause as &dyn std::error::Error,
                    "this key snapshot cannot be used; what only it has is lost"
                ),
            }
        }
    }
    Ok(found)
}

/// Page files that cannot be used, by the wrap of their page: of which generation, which snapshot's, and why.
type Unread = BTreeMap<Vec<u8>, (i64, PathBuf, SnapshotError)>;

/// Adds what one snapshot has; whether there was anything.
async fn add(
    snapshot: &Opened,
    unread: &mut Unread,
    conn: &mut Connection,
    now: Timestamp,
) -> Result<bool, JoinRefused> {
    let body = &snapshot.body;
    let service: Option<Vec<u8>> =
        sqlx::query_scalar("SELECT wrapped FROM key_pages WHERE purpose = 'service'")
            .fetch_optional(&mut *conn)
            .await?;
    // Every turn of the tree draws that page anew: of another one nothing here would open.
    let mut turns = body.pages().flatten();
    if !turns.any(|page| page.of_service && Some(page.wrapped) == service.as_deref()) {
        return Ok(false);
    }
    let known = pages(conn).await?;
    let mut regained = Regained::default();
    for (page, row) in body.pages().zip(body.rows(KEY_PAGES.name)) {
        let page = page.map_err(damaged)?;
        let at = known.get(page.wrapped);
        if !page.of_patients || at.is_some_and(|(_, at)| *at == page.generation) {
            continue;
        }
        match snapshot.keks(&page) {
            Ok(keks) => {
                let target = match at {
                    Some((number, _)) => *number,
                    None => add_page(row, page.page, conn).await?,
                };
                regained.keks(&page, target, keks, conn, now).await?;
            }
            Err(cause) => {
                let manifest = snapshot.place.manifest(snapshot.header.id());
                unread.insert(page.wrapped.to_vec(), (page.generation, manifest, cause));
            }
        }
    }
    for table in [MISSING_SECRETS, MISSING_RECIPIENTS] {
        regained.changes += write(&table, body.rows(table.name), conn).await?;
    }
    let devices_revoked = shut_out(body, conn).await?;
    if regained.changes + devices_revoked == 0 {
        return Ok(false);
    }
    note_joined(snapshot, 0, regained.patients, devices_revoked, conn).await?;
    Ok(true)
}

async fn pages(conn: &mut Connection) -> Result<Pages, sqlx::Error> {
    let select = "SELECT page, generation, wrapped FROM key_pages WHERE purpose = 'patients'";
    let mut pages = HashMap::new();
    for row in sqlx::query(select).fetch_all(conn).await? {
        let at = (row.try_get("page")?, row.try_get("generation")?);
        pages.insert(row.try_get("wrapped")?, at);
    }
    Ok(pages)
}

/// Adds a page, under its own number if that is free; says which it got.
async fn add_page(row: &Row, number: i64, conn: &mut Connection) -> Result<i64, sqlx::Error> {
    let taken: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM key_pages WHERE page = $1")
        .bind(number)
        .fetch_one(&mut *conn)
        .await?;
    let number = if taken == 0 {
        number
    } else {
        let next = "SELECT MAX(page) + 1 FROM key_pages";
        sqlx::query_scalar(next).fetch_one(&mut *conn).await?
    };
    let mut row = row.clone();
    if let Some(first) = row.first_mut() {
        *first = Cell::Int(number);
    }
    rows::write(KEY_PAGES.write, &row, conn).await?;
    Ok(number)
}

impl Regained {
    /// Adds the KEKs of a page that the registry has not, and the ends of those that it has.
    async fn keks(
        &mut self,
        page: &Page<'_>,
        target: i64,
        mut keks: Vec<Row>,
        conn: &mut Connection,
        now: Timestamp,
    ) -> Result<(), JoinRefused> {
        let known: Vec<(Vec<u8>, Option<i64>)> =
            sqlx::query_as("SELECT kid, retired_at_us FROM keks WHERE page = $1")
                .bind(target)
                .fetch_all(&mut *conn)
                .await?;
        let known: HashMap<_, _> = known.into_iter().collect();
        let before = self.changes;
        // First what was retired: a patient has one current key.
        keks.sort_by_key(|row| row.last() == Some(&Cell::Null));
        for mut row in keks {
            let [kid, subject, _, created, retired] = &row[..] else {
                return Err(damaged(WrongCell).into());
            };
            match known.get(kid.blob().map_err(damaged)?) {
                Some(None) if *retired != Cell::Null => {
                    let retire = "UPDATE keks SET retired_at_us = $1 WHERE kid = $2";
                    self.changes +=
                        rows::write(retire, &[retired.clone(), kid.clone()], conn).await?;
                }
                Some(_) => {}
                None => {
                    let add = "INSERT INTO patients (subject, state, created_at_us) VALUES ($1, 'active', $2) \
                               ON CONFLICT DO NOTHING";
                    let patient = [subject.clone(), created.clone()];
                    self.patients += rows::write(add, &patient, conn).await?;
                    let (is_active, has_key) = standing(subject, conn).await?;
                    if !is_active {
                        continue;
                    }
                    if has_key && *retired == Cell::Null {
                        // Both changed the patient's key: the registry's is the current one.
                        row[4] = Cell::Int(crate::database::us(now));
                    }
                    row.push(Cell::Int(target));
                    self.changes += rows::write(KEKS.write, &row, conn).await?;
                }
            }
        }
        if self.changes == before {
            return Ok(());
        }
        // Of a generation that no snapshot has: it is neither the one nor the other any more.
        let step = generation_step().map_err(damaged)?;
        let generation = page.generation.saturating_add(step);
        let state = "UPDATE key_pages SET keks = (SELECT COUNT(*) FROM keks WHERE page = $1), \
                     generation = CASE WHEN generation > $2 THEN generation + $3 ELSE $2 END WHERE page = $1";
        let of = [Cell::Int(target), Cell::Int(generation), Cell::Int(step)];
        Ok(rows::write(state, &of, conn).await.map(drop)?)
    }
}

/// Whether a patient is active, and has a current key.
async fn standing(subject: &Cell, conn: &mut Connection) -> Result<(bool, bool), sqlx::Error> {
    let row = sqlx::query(
        "SELECT (SELECT COUNT(*) FROM patients WHERE subject = $1 AND state = 'active') AS active, \
         (SELECT COUNT(*) FROM keks WHERE subject = $1 AND retired_at_us IS NULL) AS keyed",
    )
    .bind(subject.text().map_err(damaged)?)
    .fetch_one(conn)
    .await?;
    Ok((
        row.try_get::<i64, _>("active")? > 0,
        row.try_get::<i64, _>("keyed")? > 0,
    ))
}
