//! A registry that goes back loses nothing: the inbox has a journal of what changed in the set of files.
//!
//! ```text
//! commit:  registry ──▶ journal ──▶ inbox rows deleted, ended files removed
//! settle:  is the last change of the journal in the registry? If not, it went back, and gets the journal's changes
//! ```
//!
//! A PostgreSQL server that fails over to a replica which lags, or that is restored to a point in time, has changes less
//! than it had: the files that came with them are `planned` again, or unknown, and their rows are in the inbox no more. So
//! every change is made in the registry and then noted in the journal, which is on this machine's disk, and **nothing is
//! removed before the last change of both is the same one.** [`Catalog::settle`] sees to that before every commit and
//! every removal, when a store opens, and when a reader finds the registry behind what was agreed on.
//!
//! | The registry | How that came | What is done |
//! |---|---|---|
//! | ends with the journal's last change | – | nothing |
//! | has it, and another after it | a crash, or a lost answer, between the two notes | that one is noted, as the registry has it |
//! | has more, or there is no journal yet | the inbox is an older one | the last one is noted, but not what it was: across it nothing is made again |
//! | has it not, but an earlier one | it went back | the later ones are made again, under their numbers and ids, if every file that is live after the last of them is there, byte for byte |
//! | has none of them, or others too | it went back further than the journal, or went on without this inbox | refused |
//!
//! Refused means: nothing is removed and nothing is read, and [`StoreError::RegistryBehind`] says why. The change that was
//! made and not noted when a registry went back is lost in both, and nothing with it: its rows are in the inbox, or the
//! files that it was to replace are live again, and its own files are planned or unknown.
//!
//! Keys, patients and erasures are not mended here but by key snapshots; users, grants and devices are as the registry has
//! them.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};

use jiff::Timestamp;
use sqlx::Row as _;
use tokio::sync::OwnedMutexGuard;
use vitalseal_crypto::default_backend;

use super::change::{Change, apply};
use super::noted::Made;
use super::{Catalog, SnapshotId};
use crate::database::{Connection, count, number};
use crate::error::WentBack;
use crate::inbox::NotedChange;
use crate::store::StoreError;

/// The last change of a registry or a journal; number 0 and no id before the first.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Newest {
    pub(super) id: SnapshotId,
    pub(super) change: String,
}

impl Newest {
    /// Of the registry, as this transaction sees it.
    pub(super) async fn of(conn: &mut Connection) -> Result<Self, sqlx::Error> {
        let newest = "SELECT id, change FROM snapshots ORDER BY id DESC LIMIT 1";
        match sqlx::query(newest).fetch_optional(conn).await? {
            Some(row) => Ok(Self {
                id: SnapshotId(count(row.try_get("id")?)?),
                change: row.try_get("change")?,
            }),
            None => Ok(Self::default()),
        }
    }

    /// Of the journal.
    fn noted((id, change): (i64, String)) -> Result<Self, sqlx::Error> {
        let id = SnapshotId(count(id)?);
        Ok(Self { id, change })
    }

    /// Whether a registry that ends with this has all that was agreed on, as this transaction sees it.
    pub(super) async fn follows(
        &self,
        agreed: &Self,
        conn: &mut Connection,
    ) -> Result<bool, sqlx::Error> {
        Ok(self == agreed || self.id > agreed.id && has(agreed, conn).await?)
    }

    /// Whether it comes right after this one.
    fn is_next(&self, noted: &Self) -> bool {
        self.id.0.checked_sub(1) == Some(noted.id.0)
    }

    /// A registry that went back again while it was read.
    pub(super) fn gone(&self) -> StoreError {
        self.behind(self, WentBack::Meanwhile)
    }

    fn behind(&self, noted: &Self, cause: WentBack) -> StoreError {
        StoreError::RegistryBehind {
            found: self.id,
            noted: noted.id,
            cause,
        }
    }
}

/// A registry that went back, and got again what the journal has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mended {
    /// The last change that it had.
    pub found: SnapshotId,
    /// The last one that it has now.
    pub noted: SnapshotId,
}

/// Registry and journal end with the same change. While it lives nothing is committed but by its holder.
pub(crate) struct Settled {
    newest: Newest,
    _alone: OwnedMutexGuard<()>,
}

impl Settled {
    pub(super) fn newest(&self) -> &Newest {
        &self.newest
    }

    /// That the registry, as this transaction sees it, did not go back meanwhile.
    pub(crate) async fn check(&self, conn: &mut Connection) -> Result<(), StoreError> {
        match Newest::of(conn).await? {
            newest if newest == self.newest => Ok(()),
            newest => Err(newest.behind(&self.newest, WentBack::Meanwhile)),
        }
    }
}

impl Catalog {
    /// Sees that registry and journal end with the same change; whichever is behind gets what the other has.
    ///
    /// # Errors
    /// [`StoreError::RegistryBehind`] when that cannot be; others when one of them cannot be read or written.
    pub(crate) async fn settle(&self) -> Result<Settled, StoreError> {
        let alone = Arc::clone(&self.settling).lock_owned().await;
        let noted = self.inbox.newest_change().await?;
        let noted = noted.map(Newest::noted).transpose()?;
        // In the writers' turn: a commit whose answer got lost is over.
        let mut tx = self.db.begin().await?;
        let newest = Newest::of(tx.connection()).await?;
        let is_there = match &noted {
            Some(noted) if *noted != newest => has(noted, tx.connection()).await?,
            _ => true,
        };
        let is_next = noted.as_ref().is_some_and(|noted| newest.is_next(noted));
        let missing = if is_there && is_next {
            Made::last(&newest, tx.connection()).await?.note()?
        } else {
            NotedChange {
                id: number(newest.id.0)?,
                change: newest.change.clone(),
                body: None,
            }
        };
        drop(tx);
        let newest = match noted {
            Some(noted) if noted == newest => newest,
            Some(noted) if !is_there => {
                self.make_again(&newest, &noted).await?;
                noted
            }
            _ => {
                self.inbox.note_changes(vec![missing]).await?;
                newest
            }
        };
        self.agree(newest.clone());
        Ok(Settled {
            newest,
            _alone: alone,
        })
    }

    /// Notes a change that was made in the registry.
    pub(super) async fn note(
        &self,
        settled: Settled,
        snapshot: SnapshotId,
        change: &Change,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        // One that was repeated is noted already.
        if snapshot > settled.newest.id {
            let noted = Made::new(snapshot, now, change.clone()).note()?;
            let newest = Newest::noted((noted.id, noted.change.clone()))?;
            self.inbox.note_changes(vec![noted]).await?;
            self.agree(newest);
        }
        Ok(())
    }

    /// What registry and journal last agreed on, as far as this process knows: no reader may get less.
    pub(super) fn agreed(&self) -> Newest {
        let agreed = self.agreed.lock();
        agreed.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn agree(&self, newest: Newest) {
        let mut agreed = self.agreed.lock().unwrap_or_else(PoisonError::into_inner);
        *agreed = newest;
    }

    /// Gives the registry, which ends with `newest`, what the journal has up to `noted`.
    async fn make_again(&self, newest: &Newest, noted: &Newest) -> Result<(), StoreError> {
        let behind = |cause| newest.behind(noted, cause);
        let from = number(newest.id.0)?;
        let mut changes = self.inbox.changes_from(from).await?.into_iter();
        let known = changes.next().map(|known| (known.id, known.change));
        match known.map(Newest::noted).transpose()? {
            Some(known) if known == *newest => {}
            Some(known) if known.id > newest.id => return Err(behind(WentBack::TooFar)),
            _ => return Err(behind(WentBack::Elsewhere)),
        }
        let mut made = Vec::new();
        for (change, expected) in changes.zip(newest.id.0 + 1..) {
            match Made::read(change)? {
                Some(change) if change.snapshot.0 == expected => made.push(change),
                _ => return Err(behind(WentBack::TooFar)),
            }
        }
        self.read_footers(&mut made).await.map_err(behind)?;
        let mut tx = self.db.begin().await?;
        let conn = tx.connection();
        if Newest::of(&mut *conn).await? != *newest {
            return Err(behind(WentBack::Meanwhile));
        }
        for made in &made {
            for file in &made.change.add {
                file.plan_again(&mut *conn).await?;
            }
            let applied = apply(made.snapshot, &made.change, made.at, &mut *conn).await;
            applied.map_err(|cause| match cause {
                StoreError::NotPlanned(_) | StoreError::NotLive(_) => behind(WentBack::Elsewhere),
                cause => cause,
            })?;
        }
        tx.commit().await?;
        self.remember(newest, noted);
        tracing::warn!(
            found = newest.id.0,
            noted = noted.id.0,
            "the registry went back, and got the changes of data files again that it had lost; users, grants and devices \
             are as it has them now: look at what changed since"
        );
        Ok(())
    }

    fn remember(&self, newest: &Newest, noted: &Newest) {
        let mut mended = self.mended.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = mended.map_or(newest.id, |earlier| earlier.found.min(newest.id));
        *mended = Some(Mended {
            found: earlier,
            noted: noted.id,
        });
    }

    /// What was made again since the store was opened. Users, grants, devices and keys that went with it are as the
    /// registry has them now, and what is in memory of them may be of no registry: record it, then call
    /// [`Catalog::mending_recorded`].
    #[must_use]
    pub fn mended(&self) -> Option<Mended> {
        *self.mended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The audit log has what [`Catalog::mended`] says.
    pub fn mending_recorded(&self) {
        *self.mended.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The last bytes of each file that is live after the last of these changes, if the file is there as it was written.
    async fn read_footers(&self, made: &mut [Made]) -> Result<(), WentBack> {
        let ended = made.iter().flat_map(|made| &made.change.end);
        let ended: HashSet<_> = ended.cloned().collect();
        for made in made {
            for (file, length) in made.change.add.iter_mut().zip(&made.footers) {
                if ended.contains(&file.path) {
                    continue;
                }
                let name = file.path.to_string();
                let bytes = self.data.bytes(&name).await;
                let bytes = bytes.map_err(|cause| WentBack::Unreadable {
                    file: name.clone(),
                    cause,
                })?;
                let footer = bytes
                    .len()
                    .checked_sub(*length)
                    .and_then(|at| bytes.get(at..));
                let is_it = file.sha256 == Some(default_backend().sha256(&[&bytes]));
                let footer = footer.filter(|_| is_it).ok_or(WentBack::Changed(name))?;
                file.footer = footer.into();
            }
        }
        Ok(())
    }
}

/// Whether the registry has this change. All begin with the same state.
async fn has(noted: &Newest, conn: &mut Connection) -> Result<bool, sqlx::Error> {
    if *noted == Newest::default() {
        return Ok(true);
    }
    let found: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM snapshots WHERE id = $1 AND change = $2")
            .bind(number(noted.id.0)?)
            .bind(&noted.change)
            .fetch_one(conn)
            .await?;
    Ok(found > 0)
}
