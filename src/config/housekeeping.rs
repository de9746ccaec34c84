//! `[housekeeping]` and `[retention]`: what the server does with stored files unasked, and for how long it keeps them.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use vitalseal_storage::{CompactionSettings, Retention as Keeping};

/// `[housekeeping]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Housekeeping {
    /// How often it is looked for what is due, in seconds.
    pub interval_s: u64,
    /// Whether sealed rows become sealed chunks unasked.
    pub compact: bool,
    /// So many flushed files of a table are merged.
    pub merge_files: usize,
    /// Fewer are merged once the oldest is this old, in seconds.
    pub merge_wait_s: u32,
    /// Whether the ciphertext of erased patients is dropped unasked.
    pub vacuum: bool,
    /// How long a file that others replaced stays for queries that still read it, in seconds; longer than any query.
    pub grace_s: u32,
}

impl Default for Housekeeping {
    fn default() -> Self {
        Self {
            interval_s: 60,
            compact: true,
            merge_files: 15,
            merge_wait_s: 15 * 60,
            vacuum: true,
            grace_s: 30 * 60,
        }
    }
}

impl Housekeeping {
    /// # Errors
    /// A grace that a query outlives, or no interval.
    pub(super) fn check(&self, longest_query_s: u64) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.interval_s > 0,
            "housekeeping.interval_s must be at least 1"
        );
        anyhow::ensure!(
            self.merge_files > 0,
            "housekeeping.merge_files must be at least 1"
        );
        anyhow::ensure!(
            u64::from(self.grace_s) > longest_query_s,
            "housekeeping.grace_s must be more than sql.deadline_s, which is {longest_query_s}: a query that runs reads \
             files that were replaced since it began"
        );
        Ok(())
    }

    /// How often it is looked for what is due.
    #[must_use]
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.interval_s)
    }

    /// How long a file that was replaced stays.
    #[must_use]
    pub fn grace(&self) -> SignedDuration {
        SignedDuration::from_secs(i64::from(self.grace_s))
    }

    /// When compaction is due.
    #[must_use]
    pub fn compaction(&self) -> CompactionSettings {
        CompactionSettings {
            flushed_files: self.merge_files,
            wait: SignedDuration::from_secs(i64::from(self.merge_wait_s)),
            ..CompactionSettings::default()
        }
    }

    /// The table as it stands in the file.
    pub(super) fn commented(&self) -> String {
        let Self {
            interval_s,
            compact,
            merge_files,
            merge_wait_s,
            vacuum,
            grace_s,
        } = self;
        format!(
            r"[housekeeping]
# How often it is looked for what is due: sealed rows that become sealed chunks, ciphertext of erased patients that is
# dropped, files that nobody reads any more. With neither, `vitalseal store compact` and `vitalseal store vacuum` do it.
interval_s = {interval_s}
compact = {compact}
# So many flushed files of a table are merged, or fewer once the oldest is this old.
merge_files = {merge_files}
merge_wait_s = {merge_wait_s}
vacuum = {vacuum}
# A file that others replaced stays this long for queries that still read it: longer than sql.deadline_s.
grace_s = {grace_s}
"
        )
    }
}

/// `[retention]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Single values are kept for so many days after they came; `None`: for ever.
    pub vitals_days: Option<u32>,
    /// Waveforms, likewise.
    pub waveforms_days: Option<u32>,
    /// Refused messages, likewise.
    pub quarantine_days: Option<u32>,
}

impl Retention {
    /// # Errors
    /// A period of no day at all.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        for (name, days) in self.named() {
            anyhow::ensure!(days != Some(0), "retention.{name} must be at least 1");
        }
        Ok(())
    }

    /// The same for the store.
    #[must_use]
    pub fn keeping(&self) -> Keeping {
        let period =
            |days: Option<u32>| days.map(|days| SignedDuration::from_hours(24 * i64::from(days)));
        Keeping {
            vitals: period(self.vitals_days),
            waveforms: period(self.waveforms_days),
            quarantine: period(self.quarantine_days),
            held: BTreeSet::new(),
        }
    }

    fn named(&self) -> [(&'static str, Option<u32>); 3] {
        [
            ("vitals_days", self.vitals_days),
            ("waveforms_days", self.waveforms_days),
            ("quarantine_days", self.quarantine_days),
        ]
    }

    /// The table as it stands in the file.
    pub(super) fn commented(&self) -> String {
        let lines = self.named().map(|(name, days)| match days {
            Some(days) => format!("{name} = {days}\n"),
            None => format!("# {name} = 3650\n"),
        });
        format!(
            "[retention]\n\
             # What came so many days ago is deleted, by class. What is not set is kept for ever: patients' records have \
             legal\n# minimum periods, and no store knows them.\n{}",
            lines.concat()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_store() {
        let settings = Housekeeping::default().compaction();
        assert_eq!(settings, CompactionSettings::default());
    }

    #[test]
    fn no_file_goes_while_a_query_may_read_it() {
        let settings = |grace_s| Housekeeping {
            grace_s,
            ..Housekeeping::default()
        };
        assert!(settings(61).check(60).is_ok());
        let refused = settings(60).check(60).unwrap_err().to_string();
        assert!(refused.contains("housekeeping.grace_s"), "{refused}");
    }

    #[test]
    fn nothing_is_deleted_for_its_age_unless_somebody_says_so() {
        let unset: Retention =
            toml::from_str(&Retention::default().commented().replace("[retention]", "")).unwrap();
        assert_eq!(unset, Retention::default());
        let keeping = unset.keeping();
        assert_eq!(
            (keeping.vitals, keeping.waveforms, keeping.quarantine),
            (None, None, None)
        );
        let said = Retention {
            waveforms_days: Some(30),
            ..unset
        };
        let read: Retention = toml::from_str(&said.commented().replace("[retention]", "")).unwrap();
        assert_eq!(read, said);
        assert!(
            Retention {
                vitals_days: Some(0),
                ..said
            }
            .check()
            .is_err()
        );
    }
}
