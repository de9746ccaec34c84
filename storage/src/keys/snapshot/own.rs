//! What the registry knows of its own snapshots: by it those of another copy of the store are told apart, and a place
//! that is away from one that is new.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use vitalseal_crypto::KeyEpoch;

use super::place::Place;
use crate::database::{Connection, Database, count};

#[derive(Clone)]
pub(super) struct Own {
    pub(super) store_id: String,
    /// Every root that the store ever had.
    pub(super) roots: BTreeSet<KeyEpoch>,
    /// Places that took a snapshot, as they were configured then.
    taken: BTreeSet<String>,
}

impl Own {
    pub(super) async fn read(conn: &mut Connection) -> Result<Self, sqlx::Error> {
        let store_id = sqlx::query_scalar("SELECT store_id FROM store")
            .fetch_one(&mut *conn)
            .await?;
        let roots: Vec<i64> = sqlx::query_scalar("SELECT epoch FROM root_epochs")
            .fetch_all(&mut *conn)
            .await?;
        let roots = roots.into_iter().map(|epoch| Ok(KeyEpoch(count(epoch)?)));
        let taken: Vec<String> = sqlx::query_scalar("SELECT place FROM snapshot_places")
            .fetch_all(conn)
            .await?;
        Ok(Self {
            store_id,
            roots: roots.collect::<Result<_, sqlx::Error>>()?,
            taken: taken.into_iter().collect(),
        })
    }

    /// Of a store whose registry is not at hand.
    pub(super) fn unread(store_id: &str) -> Self {
        Self {
            store_id: store_id.to_owned(),
            roots: BTreeSet::new(),
            taken: BTreeSet::new(),
        }
    }

    pub(super) fn place(&self, place: &Path) -> Place {
        let taken = self.taken.contains(&name(place));
        Place::new(place, &self.store_id, taken)
    }

    /// Notes that these places took a snapshot.
    pub(super) async fn note(&self, places: &[&PathBuf], db: &Database) -> Result<(), sqlx::Error> {
        let names = places.iter().map(|place| name(place));
        let new: Vec<_> = names.filter(|place| !self.taken.contains(place)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let mut tx = db.begin().await?;
        for place in new {
            sqlx::query("INSERT INTO snapshot_places (place) VALUES ($1) ON CONFLICT DO NOTHING")
                .bind(place)
                .execute(tx.connection())
                .await?;
        }
        tx.commit().await
    }
}

fn name(place: &Path) -> String {
    place.display().to_string()
}
