//! Which files are merged next.
//!
//! ```text
//! level   file             merged when                                              buckets up to
//!     0   rows, as flushed  there are enough of them, or the oldest waited enough   –
//!     1   chunks            the hour in which its last message came has ended       15 min
//!     2   chunks            the day likewise                                        1 h
//!     3   chunks            –                                                       24 h
//! ```
//!
//! Hours and days are those of arrival, by the server's clock, in UTC: a device whose clock is wrong holds nothing up.
//! Small files of the target level from the same hour or day are merged along, so what comes late ends in one file with
//! what came in time. Pure: no I/O, no clock.

use std::collections::{BTreeMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use object_store::path::Path;

use super::bucket::{DAY, HOUR};
use crate::catalog::{DataFile, MAX_LEVEL, TableKind};

/// A file of the target level that is larger stays as it is.
const SMALL_BYTES: u64 = 16 * 1024 * 1024;

/// What files that are merged at once keep in memory, in bytes, about: each a row group, or, if it is of version 3, all.
const MEMORY_BYTES: u64 = 512 * 1024 * 1024;

/// A row group with what is around it, in bytes.
const GROUP_BYTES: u64 = 20 * 1024 * 1024;

/// When files are merged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CompactionSettings {
    /// So many flushed files of a table are merged.
    pub flushed_files: usize,
    /// Fewer are merged once the oldest is this old.
    pub wait: SignedDuration,
    /// An hour or a day counts as ended this long after its end: a flush may be under way.
    pub settle: SignedDuration,
    /// Everything is merged, as if every hour and day had ended.
    pub force: bool,
}

impl Default for CompactionSettings {
    fn default() -> Self {
        Self {
            flushed_files: 15,
            wait: SignedDuration::from_mins(15),
            settle: SignedDuration::from_mins(5),
            force: false,
        }
    }
}

/// What [`crate::Store::compact`] would do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Due {
    /// Table.
    pub table: TableKind,
    /// Level of the files that are made.
    pub level: u8,
    /// Files that are merged.
    pub files: u64,
    /// Their bytes. About as many are written before any of them goes.
    pub bytes: u64,
}

/// Files that are merged into files of `level`.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) table: TableKind,
    pub(super) level: u8,
    pub(super) files: Vec<DataFile>,
}

impl Job {
    pub(super) fn due(&self) -> Due {
        Due {
            table: self.table,
            level: self.level,
            files: self.files.iter().map(|_| 1).sum(),
            bytes: self.files.iter().map(|file| file.size).sum(),
        }
    }
}

/// The next job: the lowest level first, then the oldest files. `shunned` files could not be used.
pub(super) fn next(
    files: &[DataFile],
    shunned: &HashSet<Path>,
    settings: &CompactionSettings,
    now: Timestamp,
) -> Option<Job> {
    (1..=MAX_LEVEL).find_map(|level| {
        TableKind::ALL.into_iter().find_map(|table| {
            let of_level = |level: u8| {
                let sound = |file: &&DataFile| !shunned.contains(&file.path);
                let mut found: Vec<&DataFile> = files
                    .iter()
                    .filter(|file| file.table == table && file.level == level)
                    .filter(sound)
                    .collect();
                found.sort_by_key(|file| file.received_last_at);
                found
            };
            let below = of_level(level - 1);
            let mut chosen = match level {
                1 => flushed(below, settings, now),
                _ => ended(below, &of_level(level), level, settings, now),
            };
            let mut memory = 0;
            chosen.retain(|file| {
                let keeps = if file.encrypted {
                    GROUP_BYTES
                } else {
                    u64::MAX
                };
                let first = memory == 0;
                memory += file.size.min(keeps).max(1);
                first || memory <= MEMORY_BYTES
            });
            let files: Vec<DataFile> = chosen.into_iter().cloned().collect();
            (!files.is_empty()).then_some(Job {
                table,
                level,
                files,
            })
        })
    })
}

fn flushed<'a>(
    files: Vec<&'a DataFile>,
    settings: &CompactionSettings,
    now: Timestamp,
) -> Vec<&'a DataFile> {
    let waited = |file: &&DataFile| now.duration_since(file.written_at) >= settings.wait;
    let due = settings.force || files.len() >= settings.flushed_files || files.iter().any(waited);
    // Of one day: retention ends whole files.
    let day = files.first().map(|file| window(file, DAY));
    let of_day = |file: &&DataFile| due && Some(window(file, DAY)) == day;
    files.into_iter().filter(of_day).collect()
}

/// The hour or day in which the last message of a file came, counted from the Unix epoch.
fn window(file: &DataFile, seconds: u32) -> i64 {
    let last = file.received_last_at.as_second();
    last.div_euclid(seconds.into())
}

/// The files of the oldest hour or day that has ended.
fn ended<'a>(
    below: Vec<&'a DataFile>,
    there: &[&'a DataFile],
    level: u8,
    settings: &CompactionSettings,
    now: Timestamp,
) -> Vec<&'a DataFile> {
    let seconds = if level == 2 { HOUR } else { DAY };
    let mut windows: BTreeMap<i64, Vec<&DataFile>> = BTreeMap::new();
    for file in below {
        windows.entry(window(file, seconds)).or_default().push(file);
    }
    let settled = now.as_second().saturating_sub(settings.settle.as_secs());
    let over =
        |window: i64| settings.force || settled >= (window + 1).saturating_mul(seconds.into());
    let Some((of, mut chosen)) = windows.into_iter().find(|(of, _)| over(*of)) else {
        return Vec::new();
    };
    let along = |file: &&&DataFile| window(file, seconds) == of && file.size < SMALL_BYTES;
    chosen.extend(there.iter().filter(along));
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{FileKind, SnapshotId};

    /// A file whose last message came at this second.
    fn file(name: &str, level: u8, received_s: i64, size: u64) -> DataFile {
        let at = Timestamp::from_second(received_s).unwrap();
        DataFile {
            path: name.into(),
            table: TableKind::Vitals,
            kind: FileKind::Rows,
            level,
            encrypted: true,
            size,
            sha256: None,
            footer: [].into(),
            rows: 1,
            messages: 1,
            readings: 1,
            subjects: None,
            first_at: at,
            last_at: at,
            received_first_at: at,
            received_last_at: at,
            written_at: at,
            begin: SnapshotId::default(),
        }
    }

    fn chosen(files: &[DataFile], now_s: i64) -> Option<(u8, Vec<String>)> {
        let now = Timestamp::from_second(now_s).unwrap();
        let settings = CompactionSettings::default();
        let job = next(files, &HashSet::new(), &settings, now)?;
        let names = job.files.iter().map(|file| file.path.to_string());
        Some((job.level, names.collect()))
    }

    #[test]
    fn flushed_files_wait_until_they_are_many_or_old() {
        let one = [file("a", 0, 1000, 1)];
        assert_eq!(chosen(&one, 1000 + 899), None);
        assert_eq!(chosen(&one, 1000 + 900), Some((1, vec!["a".into()])));
        let many: Vec<_> = (0..15).map(|n| file(&n.to_string(), 0, 1000, 1)).collect();
        assert_eq!(chosen(&many, 1001).map(|(_, names)| names.len()), Some(15));
        assert_eq!(chosen(&many[1..], 1001), None);
        let days = [file("new", 0, 90_000, 1), file("old", 0, 80_000, 1)];
        assert_eq!(chosen(&days, 100_000), Some((1, vec!["old".into()])));
    }

    #[test]
    fn an_hour_is_merged_once_it_has_ended_and_settled_and_the_oldest_goes_first() {
        let files = [
            file("second", 1, 7200 + 10, 1),
            file("first", 1, 3600 + 10, 1),
            file("first too", 1, 3600 + 900, 1),
            file("there", 2, 3600 + 20, 1),
            file("large", 2, 3600 + 20, SMALL_BYTES),
            file("other hour", 2, 10, 1),
        ];
        assert_eq!(chosen(&files, 7200 + 299), None);
        let first = ["first", "first too", "there"].map(str::to_owned).to_vec();
        assert_eq!(chosen(&files, 7200 + 300), Some((2, first)));
    }

    #[test]
    fn a_day_is_merged_once_it_has_ended_and_nothing_beyond() {
        let files = [file("a", 2, 86_399, 1), file("b", 3, 100, 1)];
        assert_eq!(chosen(&files, 86_400 + 299), None);
        let both = ["a", "b"].map(str::to_owned).to_vec();
        assert_eq!(chosen(&files, 86_400 + 300), Some((3, both)));
        assert_eq!(chosen(&files[1..], 200_000_000_000), None);
    }

    #[test]
    fn no_more_files_are_merged_at_once_than_memory_is_meant_for() {
        let (small, large) = (1 << 20, 1 << 30);
        for (size, encrypted, expected) in
            [(small, true, 200), (large, true, 25), (large, false, 1)]
        {
            let files = (0..200).map(|n| DataFile {
                encrypted,
                ..file(&n.to_string(), 0, 1000, size)
            });
            let files: Vec<_> = files.collect();
            let chosen = chosen(&files, 5000).map(|(_, names)| names.len());
            assert_eq!(chosen, Some(expected));
        }
    }
}
