//! What is done on the whole of a store: by the server unasked, by the server for an operator, or by a command on the
//! directory while no server runs. Each act is on record, and none begins that the disk has no room for.

mod status;

use anyhow::Context as _;
use serde::Serialize;
use vitalseal_compliance::audit::AuditLog;
use vitalseal_storage::ports::{Actor, AuditEvent, AuditRecord, AuditSink as _, Clock};
use vitalseal_storage::{
    CheckOptions, CheckReport, CompactionReport, CompactionSettings, Cost, Damage, MAX_FILE_BYTES,
    ObjectsPlace, Progress, RepairReport, RetentionReport, SetAside, Store, StorePaths,
    VacuumReport,
};

pub(crate) use self::status::StatusView;
use crate::admin::protocol::Repair;
use crate::config::Config;
use crate::custody;
use crate::opened::Opened;
use crate::server::System;

/// A store, and on whose word something is done with it.
pub(crate) struct Housekeeping<'a> {
    store: &'a Store,
    audit: &'a AuditLog,
    config: &'a Config,
    paths: &'a StorePaths,
    clock: &'a dyn Clock,
    actor: Actor,
}

/// What was merged, in all jobs that were due.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Compacted {
    pub(crate) files_in: u64,
    pub(crate) files_out: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) messages: u64,
    pub(crate) readings: u64,
    pub(crate) chunks: u64,
    /// Messages that do not open and stay sealed rows.
    pub(crate) sealed: u64,
    /// Messages of erased patients, which are left out.
    pub(crate) dropped: u64,
}

impl Compacted {
    fn add(&mut self, report: &CompactionReport) {
        self.files_in += report.files_in;
        self.files_out += report.files_out;
        self.bytes_in += report.bytes_in;
        self.bytes_out += report.bytes_out;
        self.messages += report.messages;
        self.readings += report.readings;
        self.chunks += report.chunks;
        self.sealed += report.sealed;
        self.dropped += report.dropped;
    }
}

/// What was dropped, and what of it is gone already.
#[derive(Debug, Serialize)]
pub(crate) struct Vacuumed {
    /// Erased patients of whom no file that counts holds anything any more.
    pub(crate) erasures: usize,
    pub(crate) files_in: u64,
    pub(crate) files_out: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// Messages that were left out.
    pub(crate) messages: u64,
    pub(crate) removed: Removed,
    /// Damaged files that repairs kept: until somebody removes them, it is said of nobody that nothing is left.
    pub(crate) set_aside: SetAside,
}

/// What is gone for good.
#[derive(Debug, Serialize)]
pub(crate) struct Removed {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// Files that queries may still read; they go when their grace is over.
    pub(crate) waiting: u64,
    /// Erased patients of whom nothing is left.
    pub(crate) dropped: usize,
    /// The bucket keeps versions of what was removed: whoever may read those still has it.
    pub(crate) bucket_keeps_versions: bool,
}

/// What was found, and what was done about it.
#[derive(Debug, Serialize)]
pub(crate) struct Checked {
    pub(crate) sound: bool,
    #[serde(flatten)]
    pub(crate) report: CheckReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) repaired: Option<Repaired>,
}

/// What a repair did.
#[derive(Debug, Serialize)]
pub(crate) struct Repaired {
    /// Whether nothing is left that a person has to look at.
    complete: bool,
    #[serde(flatten)]
    report: RepairReport,
}

impl<'a> Housekeeping<'a> {
    /// On a running server.
    pub(crate) fn of(system: &'a System, actor: Actor) -> Self {
        Self {
            store: &system.store,
            audit: &system.audit,
            config: &system.config,
            paths: &system.paths,
            clock: &*system.clock,
            actor,
        }
    }

    /// On a store that no server has open.
    pub(crate) fn on(opened: &'a Opened, clock: &'a dyn Clock, actor: Actor) -> Self {
        Self {
            store: &opened.store,
            audit: &opened.audit,
            config: &opened.config,
            paths: &opened.paths,
            clock,
            actor,
        }
    }

    /// What is stored.
    ///
    /// # Errors
    /// Inbox or registry cannot be read.
    pub(crate) async fn status(&self) -> anyhow::Result<StatusView> {
        StatusView::of(self.store, self.config).await
    }

    /// One merge, if one is due.
    ///
    /// # Errors
    /// There is no room for it, or it failed; then everything is as it was.
    pub(crate) async fn compact_once(
        &self,
        settings: &CompactionSettings,
        progress: &dyn Progress,
    ) -> anyhow::Result<Option<CompactionReport>> {
        let now = self.clock.now();
        let Some(due) = self.store.compaction_due(now, settings).await? else {
            return Ok(None);
        };
        self.room_for(due.bytes, "compacting")?;
        let report = self
            .store
            .compact(now, settings, progress)
            .await
            .context("compacting")?;
        if report.files_in == 0 {
            return Ok(None);
        }
        self.audited(AuditEvent::FilesCompacted {
            files_in: report.files_in,
            files_out: report.files_out,
            messages: report.messages,
            readings: report.readings,
        })
        .await?;
        Ok(Some(report))
    }

    /// Every merge that is due; with `force`, as if all hours and days were over.
    ///
    /// # Errors
    /// As [`Self::compact_once`]; merges before that one are done.
    pub(crate) async fn compact(
        &self,
        force: bool,
        progress: &dyn Progress,
    ) -> anyhow::Result<Compacted> {
        let settings = CompactionSettings {
            force,
            ..self.config.housekeeping.compaction()
        };
        let mut compacted = Compacted::default();
        while let Some(report) = self.compact_once(&settings, progress).await? {
            compacted.add(&report);
            if !report.more {
                break;
            }
        }
        Ok(compacted)
    }

    /// Whether ciphertext of an erased patient may still be in a file that counts, and the erasure is over, so that no
    /// more of it comes.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub(crate) async fn is_vacuum_due(&self) -> anyhow::Result<bool> {
        Ok(!self.store.catalog.uncleared().await?.is_empty())
    }

    /// Drops ciphertext of erased patients, and removes what nobody reads any more.
    ///
    /// # Errors
    /// There is no room for the files that replace others, or a step failed; what was dropped until then stays so.
    pub(crate) async fn vacuum(&self, progress: &dyn Progress) -> anyhow::Result<Vacuumed> {
        let largest = self.store.catalog.files().await?;
        let largest = largest.iter().map(|file| file.size).max().unwrap_or(0);
        self.room_for(largest, "vacuuming")?;
        let vacuumed = self.store.vacuum(self.clock.now(), progress);
        let rewritten = vacuumed.await.context("vacuuming")?;
        let removed = self.collect_garbage().await?;
        let VacuumReport {
            erasures,
            files_in,
            files_out,
            bytes_in,
            bytes_out,
            messages,
        } = rewritten;
        Ok(Vacuumed {
            erasures: erasures.len(),
            files_in,
            files_out,
            bytes_in,
            bytes_out,
            messages,
            removed,
            set_aside: self.store.set_aside_files()?,
        })
    }

    /// Removes what nobody reads any more.
    ///
    /// # Errors
    /// Some of it cannot be removed now; it is tried again.
    pub(crate) async fn collect_garbage(&self) -> anyhow::Result<Removed> {
        let grace = self.config.housekeeping.grace();
        let (now, by) = (self.clock.now(), self.actor.clone());
        let collected = self.store.collect_garbage(now, grace, by, self.audit);
        let collected = collected
            .await
            .context("removing files that were replaced")?;
        Ok(Removed {
            files: collected.files,
            bytes: collected.bytes,
            waiting: collected.waiting,
            dropped: collected.dropped.len(),
            bucket_keeps_versions: self.store.files.keeps_versions(),
        })
    }

    /// Deletes what outlived its retention; by default nothing does.
    ///
    /// # Errors
    /// A step failed; what was deleted until then stays so.
    pub(crate) async fn enforce_retention(&self) -> anyhow::Result<RetentionReport> {
        let keeping = self.config.retention.keeping();
        let (now, by) = (self.clock.now(), self.actor.clone());
        let enforced = self.store.enforce_retention(now, &keeping, by, self.audit);
        enforced
            .await
            .context("deleting what outlived its retention")
    }

    /// Verifies everything, and sets aside what is damaged if that is asked for.
    ///
    /// # Errors
    /// Something cannot be read for another reason than damage, or a repair failed.
    pub(crate) async fn check(
        &self,
        keys: bool,
        repair: Option<&Repair>,
        progress: &dyn Progress,
    ) -> anyhow::Result<Checked> {
        let authorities = custody::trusted(self.paths)?;
        let options = CheckOptions { keys, authorities };
        let report = self.store.check(&options, progress).await?;
        let mut repaired = None;
        let is_doubt = |damage: &Damage| damage.cost == Cost::Doubt;
        if let Some(Repair { give_up }) = repair
            && !report.damage.iter().all(is_doubt)
        {
            let most = u64::try_from(MAX_FILE_BYTES)?;
            self.room_for(most.saturating_mul(2), "repairing")?;
            let done = self.store.repair(&report, give_up, self.clock.now());
            let done = done.await.context("repairing")?;
            if !done.files.is_empty() {
                self.audited(AuditEvent::DamageSetAside {
                    files: done.files.clone(),
                    losses: u64::try_from(done.losses.len())?,
                })
                .await?;
            }
            repaired = Some(Repaired {
                complete: done.missing.is_empty() && !report.damage.iter().any(is_doubt),
                report: done,
            });
        }
        Ok(Checked {
            sound: report.is_sound(),
            report,
            repaired,
        })
    }

    /// Whether so many bytes may be written without eating the reserve of the intake.
    fn room_for(&self, bytes: u64, what: &'static str) -> anyhow::Result<()> {
        // What is built for a bucket is built in memory.
        if matches!(self.paths.objects(), ObjectsPlace::S3(_)) {
            return Ok(());
        }
        let reserve = u64::from(self.config.storage.reserve_mib) << 20;
        self.store.space.room_for(bytes, reserve).context(what)
    }

    async fn audited(&self, event: AuditEvent) -> anyhow::Result<()> {
        let record = AuditRecord {
            at: self.clock.now(),
            actor: self.actor.clone(),
            event,
        };
        self.audit
            .record(record)
            .await
            .context("writing the audit log")
    }
}
