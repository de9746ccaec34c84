//! Erasure: one transaction, read back, and only then the end of the old root.
//!
//! | # | Step | What a crash right after it leaves | What [`finish`] does on open |
//! |---|---|---|---|
//! | 1 | the provider draws root *e+1* | an unused root: it wraps nothing | nothing; the next erasure draws a later one and destroys this one in 6 |
//! | 2 | one transaction: KEK row deleted; its page under a new page key; secrets under a new service page key; every page under root *e+1*; ledger row; tombstone; identity `NULL`; grants gone; root *e* `retiring` | erased and durable, but root *e* still opens old copies | 3 to 7 |
//! | 3 | the patient's inbox rows and quarantined bodies deleted | as 2 | 3 to 7 again: each is idempotent |
//! | 4 | write-ahead log moved into the file; everything read back over a new connection with a root loaded anew | as 2 | 3 to 7 |
//! | 5 | a key snapshot to every configured place, read back there | as 2; copies from before 2, beside the snapshot, are joined with it and lose the patient | 3 to 7; one more snapshot |
//! | 6 | the provider destroys root *e*, and every other below *e+1*, and cannot load them any more | nothing older than 2 opens, except joined with a snapshot; the registry still says `retiring` | 3 to 7: destroying what is gone is no error |
//! | 7 | root *e* `destroyed`, ledger row completed | – | nothing |
//!
//! If 2 does not commit, nothing happened but 1. If 4 finds anything that does not open, or a place does not take the
//! snapshot of 5, root *e* stays, and the error says so: destroying it then could lose every patient.
//!
//! What the old root takes along: every earlier copy of the registry, write-ahead log, freed page
//! or backup holds wraps that lead to root *e* or to one before it. The service page key turns too:
//! whoever once held it learns nothing of what is sealed from here on.
//!
//! Whether 2 was committed is not known when a server's answer to it is lost. The tree in memory is then read again, at
//! once or before the next turn.
//!
//! Before 1 the root is loaded anew and the places are looked at. If another copy of the store turned the tree meanwhile,
//! nothing is done: a tree without that copy's erasures, under a later root, would pass for the newest.
//!
//! A root with a *higher* epoch than the registry's is never destroyed here: the registry may be an
//! old copy, opened beside the root of the living store.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use sqlx::Row as _;
use vitalseal_crypto::{KeyEpoch, Kid, PageKey, SubjectPseudonym};

use super::secrets::secret_context;
use super::snapshot::Check;
use super::tree::{PagePurpose, Tree, current_root, generation_step, insert_root};
use super::{Inner, KeyErasure, KeyError, KeySlot, NewRoot, RootRotation, ledger, snapshot};
use crate::crash::CrashPoint;
use crate::database::{Connection, count, damaged, number, parsed, us};

/// Erases a patient's key for ever. Runs as a task of its own: a caller that goes away must not
/// leave it half done.
pub(super) async fn erase(
    inner: Arc<Inner>,
    subject: SubjectPseudonym,
    erasure_id: String,
    now: Timestamp,
) -> Result<KeyErasure, KeyError> {
    let _alone = inner.turning.lock().await;
    catch_up(&inner).await?;
    snapshot::refuse_if_overtaken(&inner).await?;
    finish(&inner, now).await?;
    if let Some(done) = ledger::find(&erasure_id, &inner.db)
        .await?
        .filter(|done| done.subject == subject)
    {
        // Ordered again by a caller that never heard the answer.
        return Ok(done);
    }
    refuse_unless_active(&inner, &subject).await?;
    let root = new_root(&inner).await?;
    inner.crash.reached(CrashPoint::RootCreated)?;
    let erasure = turn(&inner, root, Some((&subject, &erasure_id)), now).await?;
    inner.crash.reached(CrashPoint::TreeCommitted)?;
    finish(&inner, now).await?;
    erasure.erased.ok_or(KeyError::UnknownPatient(subject))
}

/// Moves everything under a new root and destroys the old one, without erasing anybody.
pub(super) async fn rotate(inner: Arc<Inner>, now: Timestamp) -> Result<RootRotation, KeyError> {
    let _alone = inner.turning.lock().await;
    catch_up(&inner).await?;
    snapshot::refuse_if_overtaken(&inner).await?;
    finish(&inner, now).await?;
    let root = new_root(&inner).await?;
    let turned = turn(&inner, root, None, now).await?;
    finish(&inner, now).await?;
    Ok(turned.rotation)
}

struct Turned {
    rotation: RootRotation,
    erased: Option<KeyErasure>,
}

async fn refuse_unless_active(inner: &Inner, subject: &SubjectPseudonym) -> Result<(), KeyError> {
    let state: Option<String> = sqlx::query_scalar("SELECT state FROM patients WHERE subject = $1")
        .bind(subject.as_str())
        .fetch_optional(inner.db.pool())
        .await?;
    match state.as_deref() {
        Some("active") => Ok(()),
        Some(_) => Err(KeyError::AlreadyErased(subject.clone())),
        None => Err(KeyError::UnknownPatient(subject.clone())),
    }
}

/// Step 1. The epoch is above every one known to the registry or the provider: one is never used
/// twice.
async fn new_root(inner: &Inner) -> Result<NewRoot, KeyError> {
    let known: i64 = sqlx::query_scalar("SELECT MAX(epoch) FROM root_epochs")
        .fetch_one(inner.db.pool())
        .await?;
    let known = KeyEpoch(u64::try_from(known).map_err(damaged)?);
    let backend = inner.backend;
    inner
        .with_roots(move |roots| {
            let slots = roots.slots()?;
            let held = slots.iter().filter_map(|slot| match slot {
                KeySlot::Root(epoch) => Some(*epoch),
                KeySlot::Recipient(_) => None,
            });
            roots.create(KeySlot::Root(held.fold(known, Ord::max).next()), backend)
        })
        .await
}

/// Step 2. From here on the old root serves old copies only.
async fn turn(
    inner: &Inner,
    new: NewRoot,
    erase: Option<(&SubjectPseudonym, &str)>,
    now: Timestamp,
) -> Result<Turned, KeyError> {
    let mut tree = inner.tree.write().await;
    let mut tx = inner.db.begin().await?;
    let conn = tx.connection();
    let old_epoch = tree.root.epoch();
    sqlx::query("UPDATE root_epochs SET state = 'retiring' WHERE state = 'current'")
        .execute(&mut *conn)
        .await?;
    insert_root(&new, inner.roots.name(), conn, now).await?;
    let root = new.key;

    let taken = match erase {
        Some((subject, _)) => Some(take_keks(subject, conn, now).await?),
        None => None,
    };
    let mut keks_rewrapped = 0;
    let mut pages_rewrapped = 0;
    let mut new_service = None;
    let pages = sqlx::query("SELECT page, purpose, wrapped FROM key_pages ORDER BY page")
        .fetch_all(&mut *conn)
        .await?;
    for row in pages {
        let page: i64 = row.try_get("page")?;
        let key = tree.root.unwrap_page(row.try_get("wrapped")?)?;
        let service = row.try_get::<&str, _>("purpose")? == PagePurpose::Service.as_str();
        let wrapped = if service {
            let fresh = PageKey::generate(inner.backend)?;
            reseal_secrets(&key, &fresh, conn).await?;
            let wrapped = root.wrap_page(&fresh)?;
            new_service = Some(fresh);
            wrapped
        } else if taken.as_ref().is_some_and(|(on, _)| *on == page) {
            let fresh = PageKey::generate(inner.backend)?;
            keks_rewrapped = rewrap_keks(page, &key, &fresh, conn).await?;
            root.wrap_page(&fresh)?
        } else {
            root.wrap_page(&key)?
        };
        // KEKs that were not wrapped anew are as they were: their page's snapshot stays good.
        let changed = match &taken {
            Some((on, _)) if *on == page => generation_step()?,
            _ => 0,
        };
        sqlx::query(
            "UPDATE key_pages SET root_epoch = $1, wrapped = $2, generation = generation + $4 WHERE page = $3",
        )
            .bind(number(root.epoch().0)?)
            .bind(wrapped.as_slice())
            .bind(page)
            .bind(changed)
            .execute(&mut *conn)
            .await?;
        pages_rewrapped += 1;
    }
    let rotation = RootRotation {
        root_epoch_destroyed: old_epoch,
        root_epoch: root.epoch(),
        pages_rewrapped,
    };
    let erased = match (erase, taken) {
        (Some((subject, erasure_id)), Some((page, kek_kids))) => {
            let erasure = KeyErasure {
                erasure_id: erasure_id.to_owned(),
                subject: subject.clone(),
                erased_at: now,
                root_epoch_destroyed: old_epoch,
                root_epoch: root.epoch(),
                page,
                keks_rewrapped,
                pages_rewrapped,
                kek_kids,
                root_provider: inner.roots.name().to_owned(),
            };
            ledger::note(&erasure, conn).await?;
            Some(erasure)
        }
        _ => None,
    };
    let service = new_service.ok_or(KeyError::ReadBack("there is no service page"))?;
    if let Err(cause) = tx.commit().await {
        drop(tree);
        if let Err(error) = catch_up(inner).await {
            tracing::error!(%error, "whether an erasure or a rotation was stored is not known yet");
        }
        return Err(cause.into());
    }

    let quarantine = Arc::clone(&tree.quarantine);
    *tree = Tree::new(root, service, quarantine);
    if let Some((subject, _)) = erase {
        inner.patients.purge(subject);
    }
    Ok(Turned { rotation, erased })
}

/// Brings the tree in memory to that of the registry, after a turn of which it is not known whether it was stored. For
/// whoever has the turn.
pub(super) async fn catch_up(inner: &Inner) -> Result<(), KeyError> {
    let mut conn = inner.db.pool().acquire().await?;
    let (epoch, blob) = current_root(&mut conn).await?;
    if inner.tree.read().await.root.epoch() == epoch {
        return Ok(());
    }
    let root = inner.load_current_root(epoch, blob).await?;
    let mut tree = inner.tree.write().await;
    *tree = Tree::under(root, &mut conn).await?;
    inner.patients.purge_all();
    Ok(())
}

/// The patient's row becomes a tombstone and the KEK rows go; says on which page they were.
async fn take_keks(
    subject: &SubjectPseudonym,
    conn: &mut Connection,
    now: Timestamp,
) -> Result<(i64, Vec<Kid>), KeyError> {
    let rows =
        sqlx::query("DELETE FROM keks WHERE subject = $1 RETURNING page, kid, retired_at_us")
            .bind(subject.as_str())
            .fetch_all(&mut *conn)
            .await?;
    let Some(first) = rows.first() else {
        return Err(KeyError::AlreadyErased(subject.clone()));
    };
    let page: i64 = first.try_get("page")?;
    let mut kids = Vec::with_capacity(rows.len());
    for row in &rows {
        let kid = Kid::from_bytes(row.try_get("kid")?).map_err(damaged)?;
        let retired: Option<i64> = row.try_get("retired_at_us")?;
        kids.push((retired.is_some(), kid));
    }
    kids.sort();
    sqlx::query("UPDATE key_pages SET keks = keks - $1 WHERE page = $2")
        .bind(i64::try_from(rows.len()).map_err(damaged)?)
        .bind(page)
        .execute(&mut *conn)
        .await?;
    entomb(subject, us(now), conn).await?;
    Ok((page, kids.into_iter().map(|(_, kid)| kid).collect()))
}

/// What of a patient is neither key nor ciphertext: the row stays as a tombstone, without the identity.
pub(super) async fn entomb(
    subject: &SubjectPseudonym,
    erased_at_us: i64,
    conn: &mut Connection,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE patients SET state = 'erased', identity = NULL, erased_at_us = $1 WHERE subject = $2",
    )
    .bind(erased_at_us)
    .bind(subject.as_str())
    .execute(&mut *conn)
    .await?;
    sqlx::query(
        "INSERT INTO tombstones (subject, erased_at_us) VALUES ($1, $2) ON CONFLICT (subject) DO NOTHING",
    )
    .bind(subject.as_str())
    .bind(erased_at_us)
    .execute(&mut *conn)
    .await?;
    sqlx::query("DELETE FROM grants WHERE subject = $1")
        .bind(subject.as_str())
        .execute(conn)
        .await
        .map(drop)
}

async fn rewrap_keks(
    page: i64,
    old: &PageKey,
    new: &PageKey,
    conn: &mut Connection,
) -> Result<u64, KeyError> {
    let rows = sqlx::query("SELECT kid, wrapped FROM keks WHERE page = $1")
        .bind(page)
        .fetch_all(&mut *conn)
        .await?;
    let mut rewrapped = 0;
    for row in rows {
        let kid = Kid::from_bytes(row.try_get("kid")?).map_err(damaged)?;
        let kek = old.unwrap_kek(kid, row.try_get("wrapped")?)?;
        sqlx::query("UPDATE keks SET wrapped = $1 WHERE kid = $2")
            .bind(new.wrap_kek(&kek)?.as_slice())
            .bind(kek.kid().as_bytes())
            .execute(&mut *conn)
            .await?;
        rewrapped += 1;
    }
    Ok(rewrapped)
}

async fn reseal_secrets(
    old: &PageKey,
    new: &PageKey,
    conn: &mut Connection,
) -> Result<(), KeyError> {
    for row in sqlx::query("SELECT name, sealed FROM secrets")
        .fetch_all(&mut *conn)
        .await?
    {
        let name: &str = row.try_get("name")?;
        let context = secret_context(name);
        let secret = old.open(&context, row.try_get("sealed")?)?;
        sqlx::query("UPDATE secrets SET sealed = $1 WHERE name = $2")
            .bind(new.seal(&context, &secret)?)
            .bind(name)
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

/// Steps 3 to 7, for whatever is unfinished: called after every turn and whenever a store is
/// opened.
pub(super) async fn finish(inner: &Inner, now: Timestamp) -> Result<(), KeyError> {
    let unfinished: Vec<(String, i64)> =
        sqlx::query_as("SELECT subject, page FROM erasure_ledger WHERE completed_at_us IS NULL")
            .fetch_all(inner.db.pool())
            .await?;
    let retiring: Vec<i64> =
        sqlx::query_scalar("SELECT epoch FROM root_epochs WHERE state = 'retiring' ORDER BY epoch")
            .fetch_all(inner.db.pool())
            .await?;
    if unfinished.is_empty() && retiring.is_empty() {
        return Ok(());
    }
    let mut erased = Vec::new();
    for (subject, page) in unfinished {
        erased.push((parsed::<SubjectPseudonym>(&subject)?, page));
    }
    for (subject, _) in &erased {
        inner.inbox.purge(subject).await?;
    }
    inner.crash.reached(CrashPoint::InboxPurged)?;
    inner.db.checkpoint().await?;
    read_back(inner, &erased).await?;
    inner.crash.reached(CrashPoint::ReadBack)?;
    let root_epoch = snapshot::write(inner, Check::Lengths, now)
        .await?
        .root_epoch;
    inner.crash.reached(CrashPoint::SnapshotWritten)?;
    for slot in roots_below(root_epoch, &retiring, inner).await? {
        inner.destroy(slot).await?;
    }
    inner.crash.reached(CrashPoint::RootDestroyed)?;
    let mut tx = inner.db.begin().await?;
    for epoch in retiring {
        sqlx::query(
            "UPDATE root_epochs SET state = 'destroyed', destroyed_at_us = $1 WHERE epoch = $2",
        )
        .bind(us(now))
        .bind(epoch)
        .execute(tx.connection())
        .await?;
    }
    for (subject, _) in erased {
        sqlx::query("UPDATE erasure_ledger SET completed_at_us = $1 WHERE subject = $2")
            .bind(us(now))
            .bind(subject.as_str())
            .execute(tx.connection())
            .await?;
    }
    tx.commit().await?;
    Ok(())
}

/// The retiring roots, and whatever else the provider holds below the current one: a turn that failed left it unused, and
/// perhaps wraps under it in the write-ahead log.
async fn roots_below(
    current: KeyEpoch,
    retiring: &[i64],
    inner: &Inner,
) -> Result<BTreeSet<KeySlot>, KeyError> {
    let held = inner.with_roots(|roots| roots.slots()).await?;
    let below = |slot: &KeySlot| matches!(slot, KeySlot::Root(epoch) if *epoch < current);
    let mut ended: BTreeSet<KeySlot> = held.into_iter().filter(below).collect();
    for epoch in retiring {
        ended.insert(KeySlot::Root(KeyEpoch(count(*epoch)?)));
    }
    Ok(ended)
}

/// Step 4: what is on disk opens under the new root, and what was erased is not there.
async fn read_back(inner: &Inner, erased: &[(SubjectPseudonym, i64)]) -> Result<(), KeyError> {
    let mut conn = inner.db.fresh_connection().await?;
    let conn = &mut conn;
    let (epoch, blob) = current_root(conn).await?;
    let root = inner.load_current_root(epoch, blob).await?;
    let mut pages = HashMap::new();
    let mut service = None;
    for row in sqlx::query("SELECT page, purpose, wrapped FROM key_pages")
        .fetch_all(&mut *conn)
        .await?
    {
        let key = root
            .unwrap_page(row.try_get("wrapped")?)
            .map_err(|_| KeyError::ReadBack("a page does not unwrap under the new root"))?;
        if row.try_get::<&str, _>("purpose")? == PagePurpose::Service.as_str() {
            service = Some(key);
        } else {
            pages.insert(row.try_get::<i64, _>("page")?, key);
        }
    }
    let service = service.ok_or(KeyError::ReadBack("there is no service page"))?;
    for row in sqlx::query("SELECT name, sealed FROM secrets")
        .fetch_all(&mut *conn)
        .await?
    {
        service
            .open(
                &secret_context(row.try_get("name")?),
                row.try_get("sealed")?,
            )
            .map_err(|_| KeyError::ReadBack("a secret does not open under the new service page"))?;
    }
    let touched: BTreeSet<i64> = erased.iter().map(|(_, page)| *page).collect();
    for page in touched {
        let page_key = pages
            .get(&page)
            .ok_or(KeyError::ReadBack("the erased key's page is not there"))?;
        for row in sqlx::query("SELECT kid, wrapped FROM keks WHERE page = $1")
            .bind(page)
            .fetch_all(&mut *conn)
            .await?
        {
            let kid = Kid::from_bytes(row.try_get("kid")?).map_err(damaged)?;
            page_key
                .unwrap_kek(kid, row.try_get("wrapped")?)
                .map_err(|_| KeyError::ReadBack("another patient's key does not unwrap"))?;
        }
    }
    for (subject, _) in erased {
        let left: i64 = sqlx::query_scalar(
            "SELECT (SELECT COUNT(*) FROM keks WHERE subject = $1) + (SELECT COUNT(*) FROM patients \
             WHERE subject = $1 AND (state <> 'erased' OR identity IS NOT NULL))",
        )
        .bind(subject.as_str())
        .fetch_one(&mut *conn)
        .await?;
        if left != 0 {
            return Err(KeyError::ReadBack("the erased key is still there"));
        }
    }
    Ok(())
}
