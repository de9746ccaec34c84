//! What the catalog knows of one file.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use jiff::Timestamp;
use object_store::path::Path;
use sqlx::Row as _;
use vitalseal_crypto::{ContentType, SubjectPseudonym};

use super::SnapshotId;
use crate::database::{self, Connection, at, count, damaged, number, parsed, us};
use crate::paths::is_data_file;
use crate::schema;

/// The highest level of compaction.
pub const MAX_LEVEL: u8 = 3;

/// Which of the two tables a message belongs to: its envelope's content type says so.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TableKind {
    /// Single values.
    Vitals,
    /// Arrays of samples.
    Waveforms,
}

impl TableKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Vitals, Self::Waveforms];

    /// As it is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vitals => "vitals",
            Self::Waveforms => "waveforms",
        }
    }
}

impl From<ContentType> for TableKind {
    fn from(content: ContentType) -> Self {
        match content {
            ContentType::SenmlCbor => Self::Vitals,
            ContentType::Waveform => Self::Waveforms,
        }
    }
}

/// What a row of a file is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FileKind {
    /// A message, in the columns of [`crate::schema::sealed_rows`].
    Rows,
    /// A sealed chunk, in the columns of [`crate::schema::chunks`].
    Chunks,
}

impl FileKind {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Rows, Self::Chunks];

    /// The columns of its rows.
    #[must_use]
    pub fn schema(self) -> SchemaRef {
        match self {
            Self::Rows => schema::sealed_rows(),
            Self::Chunks => schema::chunks(),
        }
    }

    /// As it is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Chunks => "chunks",
        }
    }
}

/// A file of the store. It never changes; the catalog says from when to when it counts.
#[derive(Clone, PartialEq, Eq)]
pub struct DataFile {
    /// Name in the store's object store.
    pub path: Path,
    /// Table.
    pub table: TableKind,
    /// What its rows are.
    pub kind: FileKind,
    /// 0 as flushed; 1 to [`MAX_LEVEL`] compacted, in ever longer buckets.
    pub level: u8,
    /// Under Parquet Modular Encryption. A file of version 3 is not, and holds rows of both tables.
    pub encrypted: bool,
    /// Bytes.
    pub size: u64,
    /// Digest of those bytes; version 3 noted none.
    pub sha256: Option<[u8; 32]>,
    /// A copy of the file's last bytes, from the sums of its pages on; empty for a file of version 3.
    pub footer: Arc<[u8]>,
    /// Rows.
    pub rows: u64,
    /// Messages inside them.
    pub messages: u64,
    /// Readings inside these.
    pub readings: u64,
    /// The first and the last pseudonym, both inclusive; version 3 noted none.
    pub subjects: Option<(SubjectPseudonym, SubjectPseudonym)>,
    /// Earliest instant measured.
    pub first_at: Timestamp,
    /// Latest instant measured.
    pub last_at: Timestamp,
    /// Earliest arrival.
    pub received_first_at: Timestamp,
    /// Latest arrival.
    pub received_last_at: Timestamp,
    /// When it was planned.
    pub written_at: Timestamp,
    /// The snapshot that it came with; the commit says which.
    pub begin: SnapshotId,
}

impl DataFile {
    /// Whether a message of this table may be in it.
    #[must_use]
    pub fn may_hold(&self, table: TableKind) -> bool {
        self.table == table || !self.encrypted
    }

    /// Whether a row of this patient may be in it.
    #[must_use]
    pub fn may_hold_of(&self, subject: &SubjectPseudonym) -> bool {
        self.subjects
            .as_ref()
            .is_none_or(|(first, last)| first <= subject && subject <= last)
    }

    pub(super) fn read(row: &database::Row) -> Result<Self, sqlx::Error> {
        let digest: Option<&[u8]> = row.try_get("sha256")?;
        let footer: Option<&[u8]> = row.try_get("footer")?;
        let first: Option<&str> = row.try_get("subject_first")?;
        let last: Option<&str> = row.try_get("subject_last")?;
        let subjects = match first.zip(last) {
            Some((first, last)) => Some((parsed(first)?, parsed(last)?)),
            None => None,
        };
        let begin = SnapshotId(count(row.try_get("begin_snapshot")?)?);
        // What came with a change is sealed, whatever the registry says of it.
        let encrypted = begin.0 > 0 || row.try_get::<i64, _>("encrypted")? != 0;
        Ok(Self {
            path: Path::from(own(row.try_get("file")?)?),
            table: one_of(row.try_get("tbl")?, &TableKind::ALL, TableKind::as_str)?,
            kind: one_of(row.try_get("kind")?, &FileKind::ALL, FileKind::as_str)?,
            level: u8::try_from(row.try_get::<i64, _>("level")?).map_err(damaged)?,
            encrypted,
            size: count(row.try_get("size")?)?,
            sha256: digest
                .map(<[u8; 32]>::try_from)
                .transpose()
                .map_err(damaged)?,
            footer: footer.unwrap_or_default().into(),
            rows: count(row.try_get("row_count")?)?,
            messages: count(row.try_get("messages")?)?,
            readings: count(row.try_get("readings")?)?,
            subjects,
            first_at: at(row.try_get("first_at_us")?)?,
            last_at: at(row.try_get("last_at_us")?)?,
            received_first_at: at(row.try_get("received_first_at_us")?)?,
            received_last_at: at(row.try_get("received_last_at_us")?)?,
            written_at: at(row.try_get("written_at_us")?)?,
            begin,
        })
    }

    /// Notes that it is planned, if the registry has lost that.
    pub(super) async fn plan_again(&self, conn: &mut Connection) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO data_files (file, state, written_at_us) VALUES ($1, 'planned', $2) \
             ON CONFLICT (file) DO NOTHING",
        )
        .bind(self.path.as_ref())
        .bind(us(self.written_at))
        .execute(conn)
        .await
        .map(drop)
    }

    /// Turns the file's planned row into a live one; says whether there was a planned one.
    pub(super) async fn go_live(
        &self,
        begin: SnapshotId,
        conn: &mut Connection,
    ) -> Result<bool, sqlx::Error> {
        let first = self.subjects.as_ref().map(|(first, _)| first.as_str());
        let last = self.subjects.as_ref().map(|(_, last)| last.as_str());
        let done = sqlx::query(
            "UPDATE data_files SET state = 'live', tbl = $1, kind = $2, level = $3, encrypted = $4, size = $5, \
             sha256 = $6, footer = $7, row_count = $8, messages = $9, readings = $10, subject_first = $11, \
             subject_last = $12, first_at_us = $13, last_at_us = $14, received_first_at_us = $15, \
             received_last_at_us = $16, begin_snapshot = $17 WHERE file = $18 AND state = 'planned'",
        )
        .bind(self.table.as_str())
        .bind(self.kind.as_str())
        .bind(i64::from(self.level))
        .bind(i64::from(self.encrypted))
        .bind(number(self.size)?)
        .bind(self.sha256.as_ref().map(<[u8; 32]>::as_slice))
        .bind(&*self.footer)
        .bind(number(self.rows)?)
        .bind(number(self.messages)?)
        .bind(number(self.readings)?)
        .bind(first)
        .bind(last)
        .bind(us(self.first_at))
        .bind(us(self.last_at))
        .bind(us(self.received_first_at))
        .bind(us(self.received_last_at))
        .bind(number(begin.0)?)
        .bind(self.path.as_ref())
        .execute(conn)
        .await?;
        Ok(done.rows_affected() == 1)
    }
}

impl fmt::Debug for DataFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataFile")
            .field("path", &self.path.as_ref())
            .field("table", &self.table)
            .field("kind", &self.kind)
            .field("level", &self.level)
            .field("rows", &self.rows)
            .field("messages", &self.messages)
            .field("begin", &self.begin)
            .finish_non_exhaustive()
    }
}

/// The registry says of a data file what no version of this program does.
#[derive(Debug, thiserror::Error)]
enum Foreign {
    #[error(
        "{0:?} in the registry is no name of a data file: somebody changed it; restore a backup"
    )]
    Name(String),
    #[error("{0:?} in the registry is no kind of data file: somebody changed it; restore a backup")]
    Kind(String),
}

/// The name of a data file, before it is made a path.
pub(super) fn own(name: String) -> Result<String, sqlx::Error> {
    if is_data_file(&name) {
        Ok(name)
    } else {
        Err(damaged(Foreign::Name(name)))
    }
}

pub(super) fn one_of<T: Copy>(
    found: &str,
    known: &[T],
    name: fn(T) -> &'static str,
) -> Result<T, sqlx::Error> {
    let mut known = known.iter().copied();
    known
        .find(|kind| name(*kind) == found)
        .ok_or_else(|| damaged(Foreign::Kind(found.to_owned())))
}
