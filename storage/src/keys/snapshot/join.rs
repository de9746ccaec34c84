//! Joining: today's key tree, and today's ledger of erasures, into a registry of any age.
//!
//! | Found | Then |
//! |---|---|
//! | no snapshot of a later root than the registry's | the registry knows every erasure that any snapshot knows, since each ends with a root of its own; what else it lacks it gets ([`super::regain`]) |
//! | one of a later root, or a registry without keys (from a backup) | the newest is joined, whether the older root still exists or not: a store is never opened with fewer erasures than a snapshot knows |
//! | the newest is damaged, forged or its root is not there, at every place that has it | refused: an older one might bring somebody back |
//!
//! One transaction, in this order: the ledger (every erased patient becomes a tombstone), the tree (roots, pages, KEKs,
//! secrets, envelope keys), devices that were shut out. Then the check: every active patient has a current KEK, every
//! KEK of theirs that the registry knew is among the snapshot's, and nobody erased has one. If it fails nothing
//! happened. Tokens go: whoever was logged in at the time of the copy logs in again.
//!
//! What the replayed erasures left in the inbox is deleted before the store serves, by [`super::super::erasure::finish`],
//! which also destroys roots from before the snapshot that some provider still has.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::task::JoinError;
use vitalseal_crypto::{KeyEpoch, SubjectPseudonym};
use zeroize::Zeroizing;

use super::format::{Body, Opened, Page};
use super::joined::{self, Joined};
use super::own::Own;
use super::regain::regain;
use super::rows::{self, Cell, Row, WrongCell};
use super::{
    CERTIFICATES, KEKS, KEY_PAGES, LEDGER, RECIPIENTS, ROOTS, SECRETS, SHUT_OUT, SUBSCRIBERS_OUT,
    SnapshotError, Table,
};
use crate::database::{Connection, Database, count, damaged, number, parsed, us};
use crate::keys::erasure::entomb;
use crate::keys::{KeyCustody, KeySlot};

/// A registry was not joined with a key snapshot. Nothing was changed, and nothing is served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinRefused {
    /// Whether a place holds a newer snapshot cannot be told.
    #[error(
        "looking for key snapshots; make the place available, or take it out of [keys] snapshots"
    )]
    Place(#[source] SnapshotError),
    /// The newest snapshot cannot be used.
    #[error(
        "the newest key snapshot of this store is {snapshot}, it cannot be used, and no other place has it whole: an \
         older one, or none, might bring an erased patient back; put a whole copy of it there or name the right root \
         keys; remove it only if you know that it is not this store's"
    )]
    Newest {
        /// Its manifest.
        snapshot: PathBuf,
        /// Why it cannot be used.
        #[source]
        cause: SnapshotError,
    },
    /// The registry lacks keys that a snapshot has, and the snapshot cannot be used.
    #[error(
        "the registry went back: it lacks keys of patients that {snapshot} has, this cannot be used, and no other place \
         has them; put a whole copy of it there; remove it only if those keys, and all that is under them, are to be lost"
    )]
    Behind {
        /// Its manifest.
        snapshot: PathBuf,
        /// Why it cannot be used.
        #[source]
        cause: Box<SnapshotError>,
    },
    /// A registry from a backup, and nothing to join it with.
    #[error(
        "the registry holds no keys, as one from a backup, and there is no key snapshot of this store in {0}; name a \
         place that has one under [keys] snapshots, or to `vitalseal restore`"
    )]
    NoKeys(String),
    /// Snapshot and registry cannot both be kept.
    #[error(
        "joined with {snapshot}, {}: this directory was used beside the store that wrote the snapshot, and the two \
         went apart; open that store's data directory, or a copy of it",
        apart(lost, revived)
    )]
    Unreadable {
        /// The manifest.
        snapshot: PathBuf,
        /// Active patients with data in the registry who would have lost a key.
        lost: Vec<SubjectPseudonym>,
        /// Erased patients who would have a key again.
        revived: Vec<SubjectPseudonym>,
    },
    /// The registry could not be read or written.
    #[error("using the registry")]
    Sql(#[from] sqlx::Error),
    /// A task ended before its time.
    #[error("the task of joining ended early")]
    Task(#[from] JoinError),
}

fn apart(lost: &[SubjectPseudonym], revived: &[SubjectPseudonym]) -> String {
    let named = |subjects: &[SubjectPseudonym], what| {
        let first: Vec<_> = subjects.iter().take(3).map(ToString::to_string).collect();
        let more = if subjects.len() > 3 { ", …" } else { "" };
        format!("{} {what} ({}{more})", subjects.len(), first.join(", "))
    };
    let mut parts = Vec::new();
    if !lost.is_empty() {
        parts.push(named(lost, "active patients would be without a key"));
    }
    if !revived.is_empty() {
        parts.push(named(revived, "erased patients would have one again"));
    }
    parts.join(" and ")
}

/// The places, for people.
pub(crate) fn places(custody: &KeyCustody) -> String {
    let places: Vec<_> = custody
        .snapshots
        .iter()
        .map(|p| p.display().to_string())
        .collect();
    if places.is_empty() {
        "no place (none is configured)".to_owned()
    } else {
        places.join(", ")
    }
}

/// Brings the registry to the newest snapshot of its store, if that is newer; see the module.
pub(crate) async fn join(
    db: &Database,
    custody: &KeyCustody,
    now: Timestamp,
) -> Result<(), JoinRefused> {
    let mut conn = db.pool().acquire().await?;
    let own = Own::read(&mut conn).await?;
    let current: Option<i64> =
        sqlx::query_scalar("SELECT epoch FROM root_epochs WHERE state = 'current'")
            .fetch_optional(&mut *conn)
            .await?;
    let current = current.map(count).transpose()?.map(KeyEpoch);
    drop(conn);
    let (looking, known) = (custody.clone(), own.clone());
    let search = move || newest(&looking, &known, current);
    let Some(snapshot) = tokio::task::spawn_blocking(search).await?? else {
        return match current {
            Some(root) => regain(db, custody, own, root, now).await,
            None => Err(JoinRefused::NoKeys(places(custody))),
        };
    };
    let roots = Arc::clone(&custody.roots);
    let slots = tokio::task::spawn_blocking(move || roots.slots())
        .await?
        .map_err(|cause| JoinRefused::Place(cause.into()))?;
    let mut tx = db.begin().await?;
    apply(&snapshot, &slots, tx.connection(), now).await?;
    Ok(tx.commit().await?)
}

/// A secret of a store, out of its newest snapshot: for whoever needs it before a registry is opened. `None`: it has none
/// of that name.
pub(crate) fn secret(
    custody: &KeyCustody,
    store_id: &str,
    name: &str,
) -> Result<Option<Zeroizing<Vec<u8>>>, JoinRefused> {
    let snapshot = newest(custody, &Own::unread(store_id), None)?;
    let snapshot = snapshot.ok_or_else(|| JoinRefused::NoKeys(places(custody)))?;
    snapshot.secret(name).map_err(|cause| JoinRefused::Newest {
        snapshot: snapshot.place.manifest(snapshot.header.id()),
        cause,
    })
}

/// The newest snapshot, if it is of a later root than the registry's, proved whole and authentic down to every KEK.
fn newest(
    custody: &KeyCustody,
    own: &Own,
    current: Option<KeyEpoch>,
) -> Result<Option<Opened>, JoinRefused> {
    let mut found = Vec::new();
    for place in &custody.snapshots {
        let place = own.place(place);
        let id = place.newest().map_err(JoinRefused::Place)?;
        found.extend(id.map(|id| (id, place)));
    }
    let Some(id) = found.iter().map(|(id, _)| *id).max() else {
        return Ok(None);
    };
    if current.is_some_and(|current| id.root_epoch <= current) {
        return Ok(None);
    }
    let mut trouble = None;
    for (_, place) in found.iter().filter(|(found, _)| *found == id) {
        let opened = Opened::open(place, &own.store_id, id, custody.roots.as_ref());
        match opened.and_then(|opened| opened.prove().map(|()| opened)) {
            Ok(opened) => return Ok(Some(opened)),
            Err(cause) => {
                let snapshot = place.manifest(id);
                trouble.get_or_insert(JoinRefused::Newest { snapshot, cause });
            }
        }
    }
    trouble.map_or(Ok(None), Err)
}

async fn apply(
    snapshot: &Opened,
    slots: &[KeySlot],
    conn: &mut Connection,
    now: Timestamp,
) -> Result<(), JoinRefused> {
    let body = &snapshot.body;
    let id = snapshot.header.id();
    let erasures_replayed = replay(body.rows(LEDGER.name), conn).await?;

    // What is still blank after the snapshot's rows were written is not in it.
    for statement in [
        "UPDATE keks SET wrapped = CAST('' AS BLOB), retired_at_us = 0",
        "UPDATE root_epochs SET state = 'destroyed'",
        "DELETE FROM secrets",
        "DELETE FROM recipients",
        "DELETE FROM tokens",
    ] {
        rows::write(statement, &[], conn).await?;
    }
    for table in [ROOTS, KEY_PAGES, SECRETS, RECIPIENTS] {
        write(&table, body.rows(table.name), conn).await?;
    }
    settle_roots(id.root_epoch, slots, conn, now).await?;
    let mut patients_added = 0;
    for page in body.pages() {
        let page = page.map_err(damaged)?;
        if page.of_patients {
            patients_added += put_keks(snapshot, &page, conn).await?;
        }
    }
    let devices_revoked = shut_out(body, conn).await?;
    let manifest = snapshot.place.manifest(id);
    refuse_unreadable(&manifest, conn).await?;
    let epoch = [Cell::Int(number(id.root_epoch.0)?)];
    rows::write("DELETE FROM key_pages WHERE root_epoch <> $1", &epoch, conn).await?;
    note_joined(
        snapshot,
        erasures_replayed,
        patients_added,
        devices_revoked,
        conn,
    )
    .await
}

/// Notes, for the audit log, what a snapshot brought.
pub(super) async fn note_joined(
    snapshot: &Opened,
    erasures_replayed: u64,
    patients_added: u64,
    devices_revoked: u64,
    conn: &mut Connection,
) -> Result<(), JoinRefused> {
    let patients = sqlx::query_scalar("SELECT COUNT(*) FROM patients WHERE state = 'active'")
        .fetch_one(&mut *conn)
        .await?;
    let id = snapshot.header.id();
    let joined = Joined {
        snapshot: snapshot.place.manifest(id),
        id,
        taken_at: snapshot.header.taken_at,
        erasures_replayed,
        patients_added,
        devices_revoked,
        patients: count(patients)?,
    };
    Ok(joined::note(&joined, conn).await?)
}

/// Devices, displays and services that are shut out there are shut out here; says how many devices were not.
pub(super) async fn shut_out(body: &Body, conn: &mut Connection) -> Result<u64, sqlx::Error> {
    write(&CERTIFICATES, body.rows(CERTIFICATES.name), conn).await?;
    let devices = write(&SHUT_OUT, body.rows(SHUT_OUT.name), conn).await?;
    write(&SUBSCRIBERS_OUT, body.rows(SUBSCRIBERS_OUT.name), conn).await?;
    rows::write(
        "UPDATE assignments SET until_us = (SELECT state_since_us FROM devices d \
         WHERE d.device = assignments.device) WHERE until_us IS NULL AND device IN \
         (SELECT device FROM devices WHERE state = 'revoked')",
        &[],
        conn,
    )
    .await?;
    Ok(devices)
}

/// Every erasure of the ledger happens here too, unless it did; says how many had not.
async fn replay(ledger: &[Row], conn: &mut Connection) -> Result<u64, sqlx::Error> {
    let mut replayed = 0;
    for row in ledger {
        let [_, subject, erased_at, ..] = &row[..] else {
            return Err(damaged(WrongCell));
        };
        rows::write(
            "INSERT INTO patients (subject, state, created_at_us) VALUES ($1, 'active', $2) ON CONFLICT DO NOTHING",
            &[subject.clone(), erased_at.clone()],
            conn,
        )
        .await?;
        let erased_at = erased_at.int().map_err(damaged)?;
        let subject = parsed(subject.text().map_err(damaged)?)?;
        entomb(&subject, erased_at, conn).await?;
        replayed += rows::write(LEDGER.write, row, conn).await?;
    }
    Ok(replayed)
}

pub(super) async fn write(
    table: &Table,
    content: &[Row],
    conn: &mut Connection,
) -> Result<u64, sqlx::Error> {
    let mut changed = 0;
    for row in content {
        changed += rows::write_typed(table.write, row, table.nulls, conn).await?;
    }
    Ok(changed)
}

/// The snapshot's root is the current one. An earlier one that its provider still has was to be destroyed, so it will be.
async fn settle_roots(
    current: KeyEpoch,
    slots: &[KeySlot],
    conn: &mut Connection,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    rows::write(
        "UPDATE root_epochs SET destroyed_at_us = COALESCE(destroyed_at_us, $1)",
        &[Cell::Int(us(now))],
        conn,
    )
    .await?;
    for slot in slots {
        let held = matches!(slot, KeySlot::Root(epoch) if *epoch < current);
        if held {
            let epoch = [Cell::Int(number(slot.epoch().0)?)];
            let retire = "UPDATE root_epochs SET state = 'retiring', destroyed_at_us = NULL WHERE epoch = $1";
            rows::write(retire, &epoch, conn).await?;
        }
    }
    let epoch = [Cell::Int(number(current.0)?)];
    let take = "UPDATE root_epochs SET state = 'current', destroyed_at_us = NULL WHERE epoch = $1";
    rows::write(take, &epoch, conn).await.map(drop)
}

/// Writes the KEKs of a page; says how many patients the registry had never heard of.
async fn put_keks(
    snapshot: &Opened,
    page: &Page<'_>,
    conn: &mut Connection,
) -> Result<u64, JoinRefused> {
    let mut added = 0;
    let manifest = || snapshot.place.manifest(snapshot.header.id());
    let rows = snapshot.keks(page).map_err(|cause| JoinRefused::Newest {
        snapshot: manifest(),
        cause,
    })?;
    for mut row in rows {
        let [_, subject, _, created_at, _] = &row[..] else {
            return Err(damaged(WrongCell).into());
        };
        added += rows::write(
            "INSERT INTO patients (subject, state, created_at_us) VALUES ($1, 'active', $2) ON CONFLICT DO NOTHING",
            &[subject.clone(), created_at.clone()],
            conn,
        )
        .await?;
        row.push(Cell::Int(page.page));
        rows::write(KEKS.write, &row, conn).await?;
    }
    Ok(added)
}

/// The check at the end; see the module.
async fn refuse_unreadable(manifest: &Path, conn: &mut Connection) -> Result<(), JoinRefused> {
    let blank = "DELETE FROM keks WHERE wrapped = CAST('' AS BLOB) AND \
                 subject IN (SELECT subject FROM patients WHERE state = 'erased')";
    rows::write(blank, &[], conn).await?;
    let lost = "SELECT subject FROM keks WHERE wrapped = CAST('' AS BLOB) UNION \
                SELECT subject FROM patients WHERE state = 'active' AND subject NOT IN \
                (SELECT subject FROM keks WHERE retired_at_us IS NULL) ORDER BY subject";
    let revived = "SELECT DISTINCT subject FROM keks WHERE \
                   subject IN (SELECT subject FROM patients WHERE state = 'erased') ORDER BY subject";
    let lost = subjects(lost, conn).await?;
    let revived = subjects(revived, conn).await?;
    if lost.is_empty() && revived.is_empty() {
        return Ok(());
    }
    let snapshot = manifest.to_path_buf();
    Err(JoinRefused::Unreadable {
        snapshot,
        lost,
        revived,
    })
}

async fn subjects(
    statement: &'static str,
    conn: &mut Connection,
) -> Result<Vec<SubjectPseudonym>, sqlx::Error> {
    let subjects: Vec<String> = sqlx::query_scalar(statement).fetch_all(conn).await?;
    subjects.iter().map(|subject| parsed(subject)).collect()
}
