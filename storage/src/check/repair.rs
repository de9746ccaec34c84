//! Damage set aside: the rest of its file is written anew, and what is lost is on record.
//!
//! | # | Step | What a crash right after it leaves |
//! |---|---|---|
//! | 1 | the damaged file copied to `damaged/`, durably | a copy that nobody reads |
//! | 2 | the rows that can be read written to a new file, planned before | a planned file, which the next start removes |
//! | 3 | one transaction: new file live, old one ended, losses recorded | – |
//!
//! A message that was lost stays known to the inbox: sent again, it is a duplicate, and refused. Its bytes are in a
//! backup, if anywhere.

use std::collections::BTreeMap;

use futures::TryStreamExt as _;
use jiff::Timestamp;
use serde::Serialize;

use super::pages::{Pages, Unreadable};
use super::{CheckReport, Cost, Damage};
use crate::catalog::{ChangeKind, DataFile, Loss};
use crate::durable;
use crate::store::{Store, StoreError};

/// What was set aside.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub struct RepairReport {
    /// Damaged files.
    pub files: Vec<String>,
    /// Files with what could be read of them.
    pub replaced_by: Vec<String>,
    /// What could not.
    pub losses: Vec<Loss>,
}

impl Store {
    /// Sets aside what a check found damaged. What only contradicts something stays as it is.
    ///
    /// # Errors
    /// [`StoreError::TooDamaged`] when not all damage is listed; when a file cannot be read or written. Files before that
    /// one are repaired.
    pub async fn repair(
        &self,
        found: &CheckReport,
        now: Timestamp,
    ) -> Result<RepairReport, StoreError> {
        if found.damage_not_listed > 0 {
            return Err(StoreError::TooDamaged);
        }
        let _alone = self.upkeep_alone().await;
        let mut by_file: BTreeMap<&str, Vec<&Damage>> = BTreeMap::new();
        for damage in &found.damage {
            if let Some(file) = damage
                .place
                .file
                .as_deref()
                .filter(|_| damage.cost != Cost::Doubt)
            {
                by_file.entry(file).or_default().push(damage);
            }
        }
        let mut report = RepairReport::default();
        // A file that was replaced since is not there any more, and what replaced it was compared with it.
        for file in self.catalog.files().await?.iter() {
            if let Some(damage) = by_file.get(file.path.as_ref()) {
                self.set_aside(file, damage, now, &mut report).await?;
            }
        }
        Ok(report)
    }

    async fn set_aside(
        &self,
        file: &DataFile,
        damage: &[&Damage],
        now: Timestamp,
        report: &mut RepairReport,
    ) -> Result<(), StoreError> {
        let name = file.path.as_ref();
        if self.files.size(name).await?.is_some() {
            let (directory, bytes) = (self.paths().damaged(), self.files.bytes(name).await?);
            let kept = directory.join(name);
            tokio::task::spawn_blocking(move || {
                durable::create_dir(&directory)?;
                // One that is there may be half of an attempt that was interrupted.
                durable::remove(&kept)?;
                durable::write_new(&kept, &bytes)
            })
            .await??;
        }
        let lost = || damage.iter().filter(|damage| damage.cost == Cost::Lost);
        let losses: Vec<Loss> = lost()
            .map(|damage| damage.place.loss(&damage.fault, now))
            .collect();
        let is_whole = lost().any(|damage| damage.place.row.is_none());
        let written = if is_whole {
            let nothing = futures::stream::empty();
            self.rewrite(file, nothing, ChangeKind::Repair, losses.clone(), now)
                .await?
        } else {
            let rows = lost().filter_map(|damage| damage.place.row);
            let without: Unreadable = rows.map(|row| (row, Vec::new())).collect();
            let files = self.files.clone();
            let pages = Pages::of(&files, file).await?;
            let (kept, _) = pages.rows(&without)?;
            let kept = kept.map_err(StoreError::from);
            self.rewrite(file, kept, ChangeKind::Repair, losses.clone(), now)
                .await?
        };
        report.files.push(name.to_owned());
        report.losses.extend(losses);
        report
            .replaced_by
            .extend(written.iter().map(|file| file.path.to_string()));
        Ok(())
    }
}
