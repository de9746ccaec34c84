//! Damage set aside: the rest of its file is written anew, and what is lost is on record.
//!
//! | # | Step | What a crash right after it leaves |
//! |---|---|---|
//! | 1 | the damaged file copied to `damaged/`, durably | a copy that nobody reads |
//! | 2 | the rows that can be read written to a new file, planned before | a planned file, which the next start removes |
//! | 3 | one transaction: new files live, old one ended, losses recorded | – |
//!
//! | Of a chunk does not open | What becomes of it |
//! |---|---|
//! | the readings | its messages go back to be rows, out of the evidence, and the next compaction seals them again |
//! | the evidence | it stays a chunk with its readings, without proof of where they came from: a loss |
//! | both | a loss |
//!
//! A message that was lost stays known to the inbox: sent again, it is a duplicate, and refused. Its bytes are in a
//! backup, if anywhere. A file that is not there is no damage: it stays, unless it is named to be given up.
//!
//! While a copy lies in `damaged/`, it is noted of no erased patient that nothing is left of them.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use futures::TryStreamExt as _;
use jiff::Timestamp;
use serde::Serialize;
use vitalseal_crypto::{AtRest, default_backend};

use super::pages::{Pages, Rows, Unreadable};
use super::{CheckReport, Cost, Damage};
use crate::catalog::{Change, ChangeKind, DataFile, FileKind, Loss};
use crate::chunk::{ChunkError, ChunkRow};
use crate::compact::open_evidence;
use crate::crash::CrashPoint;
use crate::durable::{self, FileError};
use crate::inbox::rows::{self, SealedRow};
use crate::schema;
use crate::store::{Store, StoreError};

/// Rows that are laid out at a time.
const ROWS: usize = 64;

/// Bytes of envelopes that become one file.
const FILE_BYTES: usize = 64 * 1024 * 1024;

/// What was set aside.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub struct RepairReport {
    /// Damaged files.
    pub files: Vec<String>,
    /// Files with what could be read of them.
    pub replaced_by: Vec<String>,
    /// Messages of chunks that are rows again.
    pub put_back: u64,
    /// Files that are not there, and that nobody gave up: they stay as they are.
    pub missing: Vec<String>,
    /// What could not be kept.
    pub losses: Vec<Loss>,
}

/// Copies of damaged files, in [`StorePaths::damaged`](crate::StorePaths::damaged).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct SetAside {
    /// How many.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Store {
    /// What repairs set aside and nobody removed yet.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn set_aside_files(&self) -> Result<SetAside, FileError> {
        let directory = self.paths().damaged();
        let mut found = SetAside::default();
        for name in durable::names(&directory)? {
            let path = directory.join(name);
            found.files += 1;
            found.bytes += std::fs::metadata(&path)
                .map_err(durable::failed("reading", &path))?
                .len();
        }
        Ok(found)
    }

    /// Sets aside what a check found damaged, and gives up the files of these names if they are not there. What only
    /// contradicts something stays as it is.
    ///
    /// # Errors
    /// [`StoreError::TooDamaged`] when not all damage is listed; when a file cannot be read or written. Files before that
    /// one are repaired.
    pub async fn repair(
        &self,
        found: &CheckReport,
        give_up: &BTreeSet<String>,
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
            let name = file.path.as_ref();
            let Some(damage) = by_file.get(name) else {
                continue;
            };
            if !damage.iter().any(|damage| damage.cost == Cost::Missing) {
                self.set_aside(file, damage, now, &mut report).await?;
            } else if give_up.contains(name) && self.files.size(name).await?.is_none() {
                self.replace(file, Kept::default(), damage, now, &mut report)
                    .await?;
            } else {
                report.missing.push(name.to_owned());
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
        // Were it not there any more, nothing would be given up for that.
        let (directory, bytes) = (self.paths().damaged(), self.files.bytes(name).await?);
        let copy = directory.join(name);
        tokio::task::spawn_blocking(move || {
            durable::create_dir(&directory)?;
            // One that is there may be half of an attempt that was interrupted.
            durable::remove(&copy)?;
            durable::write_new(&copy, &bytes)
        })
        .await??;
        self.crash().reached(CrashPoint::SetAside)?;
        let is_whole = |damage: &&&Damage| damage.cost == Cost::Lost && damage.place.row.is_none();
        let kept = if damage.iter().any(|damage| is_whole(&damage)) {
            Kept::default()
        } else {
            self.kept(file, damage).await?
        };
        self.replace(file, kept, damage, now, report).await
    }

    /// What can be kept of a file.
    async fn kept(&self, file: &DataFile, damage: &[&Damage]) -> Result<Kept, StoreError> {
        let rows_of = |cost: Cost| {
            let of = damage.iter().filter(move |damage| damage.cost == cost);
            of.filter_map(|damage| damage.place.row)
                .collect::<BTreeSet<_>>()
        };
        let lost = rows_of(Cost::Lost);
        let left = |cost| rows_of(cost).difference(&lost).copied().collect::<Vec<_>>();
        let (back, unproven) = (left(Cost::Nothing), left(Cost::Evidence));
        let apart = lost.iter().chain(&back).chain(&unproven);
        let apart: Unreadable = apart.map(|row| (*row, Vec::new())).collect();
        let files = self.files.clone();
        let pages = Pages::of(&files, file).await?;
        let mut kept = Kept::default();
        if !unproven.is_empty() {
            kept.take(pages.rows_less(schema::EVIDENCE, unproven)?)
                .await?;
        }
        kept.take(pages.rows(&apart)?).await?;
        if back.is_empty() {
            return Ok(kept);
        }
        let mut evidence = pages.rows_less(schema::SEALED, back)?.batches;
        while let Some(batch) = evidence.try_next().await? {
            for row in 0..batch.num_rows() {
                let chunk = ChunkRow::read(&batch, row)?;
                kept.back.extend(self.messages_of(&chunk, file).await?);
            }
        }
        let order = |row: &SealedRow| (row.subject.clone(), row.first_at_us);
        kept.back.sort_by_cached_key(order);
        Ok(kept)
    }

    /// The messages of a chunk, as rows.
    async fn messages_of(
        &self,
        chunk: &ChunkRow,
        file: &DataFile,
    ) -> Result<Vec<SealedRow>, StoreError> {
        let keys = self.keys.store_keys().await?;
        let evidence = open_evidence(chunk, file.table, &keys, default_backend());
        let evidence = evidence.ok_or(ChunkError::Damaged("its evidence does not open"))?;
        let mut messages = Vec::with_capacity(evidence.count());
        for (noted, envelope) in evidence.messages() {
            let decoded = AtRest::decode(envelope);
            let decoded = decoded.map_err(|_| ChunkError::Damaged("an envelope is none"))?;
            let header = decoded.header();
            messages.push(SealedRow {
                id: 0,
                subject: header.subject.as_str().to_owned(),
                device: header.device.as_str().to_owned(),
                boot: header.boot.try_into()?,
                sequence: header.sequence.try_into()?,
                received_at_us: noted.received_at_us,
                first_at_us: noted.first_at_us,
                last_at_us: noted.last_at_us,
                readings: noted.readings.try_into()?,
                envelope: envelope.to_vec(),
            });
        }
        Ok(messages)
    }

    /// Ends a file for what is kept of it, with its losses on record.
    async fn replace(
        &self,
        file: &DataFile,
        kept: Kept,
        damage: &[&Damage],
        now: Timestamp,
        report: &mut RepairReport,
    ) -> Result<(), StoreError> {
        let lost = damage.iter().filter(|damage| damage.cost != Cost::Nothing);
        let losses = lost.map(|damage| damage.place.loss(&damage.fault, now));
        let losses: Vec<Loss> = losses.collect();
        report.put_back += u64::try_from(kept.back.len())?;
        let back = kept.put_back()?;
        let rest = kept.in_order()?;
        let written = if back.is_empty() {
            let rest = futures::stream::iter(rest.into_iter().map(Ok));
            self.rewrite(file, rest, ChangeKind::Repair, losses.clone(), now)
                .await?
        } else {
            let mut written = Vec::new();
            written.extend(
                self.write((file.table, file.kind, file.level), rest, now)
                    .await?,
            );
            for back in back {
                // As if it had just been flushed.
                let shape = (file.table, FileKind::Rows, 0);
                written.extend(self.write(shape, back, now).await?);
            }
            let end = vec![file.path.clone()];
            let change = Change {
                losses: losses.clone(),
                ..Change::new(ChangeKind::Repair, &written, end, default_backend())?
            };
            let add = change.add.clone();
            self.commit(change, written, now).await?;
            add
        };
        report.files.push(file.path.to_string());
        report.losses.extend(losses);
        report
            .replaced_by
            .extend(written.iter().map(|file| file.path.to_string()));
        Ok(())
    }
}

/// What can be kept of a damaged file.
#[derive(Default)]
struct Kept {
    batches: Vec<RecordBatch>,
    /// Of each row its number in the damaged file, its batch, and its place there.
    rows: Vec<(u64, (usize, usize))>,
    /// Messages of chunks whose readings do not open.
    back: Vec<SealedRow>,
}

impl Kept {
    async fn take(&mut self, mut rows: Rows) -> Result<(), StoreError> {
        let mut numbers = rows.numbers.into_iter();
        while let Some(batch) = rows.batches.try_next().await? {
            let at = self.batches.len();
            let places = (0..batch.num_rows()).map(|row| (at, row));
            let of_batch = places.zip(numbers.by_ref());
            self.rows
                .extend(of_batch.map(|(place, number)| (number, place)));
            self.batches.push(batch);
        }
        Ok(())
    }

    /// The rows as they stood.
    fn in_order(mut self) -> Result<Vec<RecordBatch>, StoreError> {
        self.rows.sort_unstable();
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let places: Vec<_> = self.rows.into_iter().map(|(_, place)| place).collect();
        let laid_out = places.chunks(ROWS);
        let laid_out = laid_out.map(|places| interleave_record_batch(&batches, places));
        Ok(laid_out.collect::<Result<_, _>>()?)
    }

    /// The messages that are rows again, a file each.
    fn put_back(&self) -> Result<Vec<Vec<RecordBatch>>, StoreError> {
        let (mut files, mut bytes) = (Vec::new(), 0);
        for messages in self.back.chunks(ROWS) {
            if bytes == 0 || bytes >= FILE_BYTES {
                files.push(Vec::new());
                bytes = 0;
            }
            bytes += messages.iter().map(|row| row.envelope.len()).sum::<usize>();
            if let Some(file) = files.last_mut() {
                file.push(rows::record_batch(messages)?);
            }
        }
        Ok(files)
    }
}
