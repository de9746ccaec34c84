//! A change as the inbox's journal keeps it: enough to make it once more.
//!
//! JSON, in the words of the registry's columns; losses are as a report of a repair has them. Of a file's footer only the
//! length stands in it: these are the file's last bytes, and its digest says whether they are what was written.

use jiff::Timestamp;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use vitalseal_crypto::SubjectPseudonym;

use super::file::{one_of, own};
use super::settle::Newest;
use super::{
    Change, ChangeId, ChangeKind, DataFile, FileKind, Loss, SnapshotId, TableKind, change,
};
use crate::database::{Connection, at, count, damaged, number, us};
use crate::inbox::NotedChange;

#[derive(Serialize, Deserialize)]
struct Body {
    kind: String,
    at_us: i64,
    high: Option<i64>,
    begin: Vec<NotedFile>,
    end: Vec<String>,
    /// Journals of the first builds with one have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    losses: Vec<Loss>,
}

#[derive(Serialize, Deserialize)]
struct NotedFile {
    file: String,
    written_at_us: i64,
    tbl: String,
    kind: String,
    level: u8,
    size: u64,
    sha256: String,
    footer_length: usize,
    row_count: u64,
    messages: u64,
    readings: u64,
    subjects: Option<(SubjectPseudonym, SubjectPseudonym)>,
    first_at_us: i64,
    last_at_us: i64,
    received_first_at_us: i64,
    received_last_at_us: i64,
}

/// A change that was made, and may have to be made once more.
pub(super) struct Made {
    pub(super) snapshot: SnapshotId,
    pub(super) at: Timestamp,
    /// The files have no footers when it comes from the journal.
    pub(super) change: Change,
    /// Their lengths, in the order of the files that begin.
    pub(super) footers: Vec<usize>,
}

impl Made {
    pub(super) fn new(snapshot: SnapshotId, at: Timestamp, change: Change) -> Self {
        let footers = change.add.iter().map(|file| file.footer.len()).collect();
        Self {
            snapshot,
            at,
            change,
            footers,
        }
    }

    /// Of the registry, whose last change it is: nothing that it ended was removed yet.
    pub(super) async fn last(newest: &Newest, conn: &mut Connection) -> Result<Self, sqlx::Error> {
        let id = number(newest.id.0)?;
        let (kind, at_us): (String, i64) =
            sqlx::query_as("SELECT kind, at_us FROM snapshots WHERE id = $1")
                .bind(id)
                .fetch_one(&mut *conn)
                .await?;
        let what = one_of(&kind, &ChangeKind::ALL, ChangeKind::as_str)?;
        let begun = sqlx::query("SELECT * FROM data_files WHERE begin_snapshot = $1 ORDER BY file")
            .bind(id)
            .fetch_all(&mut *conn)
            .await?;
        let ended = sqlx::query_scalar("SELECT file FROM data_files WHERE end_snapshot = $1");
        let ended: Vec<String> = ended.bind(id).fetch_all(&mut *conn).await?;
        let ended = ended.into_iter().map(|name| Ok(Path::from(own(name)?)));
        // A file is given up once.
        let lost = "SELECT * FROM losses WHERE file IN (SELECT file FROM data_files WHERE end_snapshot = $1) ORDER BY id";
        let lost = sqlx::query(lost).bind(id).fetch_all(&mut *conn).await?;
        let high = sqlx::query_scalar("SELECT high FROM watermarks WHERE inbox = $1");
        let high = high.bind(change::INBOX).fetch_optional(conn).await?;
        let change = Change {
            id: ChangeId::noted(newest.change.clone()),
            what,
            add: begun.iter().map(DataFile::read).collect::<Result<_, _>>()?,
            end: ended.collect::<Result<_, sqlx::Error>>()?,
            watermark: high.filter(|_| what == ChangeKind::Flush),
            losses: lost.iter().map(Loss::read).collect::<Result<_, _>>()?,
        };
        Ok(Self::new(newest.id, at(at_us)?, change))
    }

    /// For the journal.
    pub(super) fn note(&self) -> Result<NotedChange, sqlx::Error> {
        let Change {
            what,
            add,
            end,
            losses,
            ..
        } = &self.change;
        let begin = add.iter().zip(&self.footers);
        let body = Body {
            kind: what.as_str().to_owned(),
            at_us: us(self.at),
            high: self.change.watermark,
            begin: begin
                .map(|(file, footer)| NotedFile::of(file, *footer))
                .collect(),
            end: end.iter().map(Path::to_string).collect(),
            losses: losses.clone(),
        };
        let body = serde_json::to_string(&body).map_err(|e| sqlx::Error::Encode(Box::new(e)))?;
        Ok(NotedChange {
            id: number(self.snapshot.0)?,
            change: self.change.id.as_str().to_owned(),
            body: Some(body),
        })
    }

    /// Of the journal; `None` if nobody noted what it was.
    pub(super) fn read(noted: NotedChange) -> Result<Option<Self>, sqlx::Error> {
        let Some(body) = noted.body else {
            return Ok(None);
        };
        let body: Body = serde_json::from_str(&body).map_err(damaged)?;
        let (mut add, mut footers) = (Vec::new(), Vec::new());
        for file in body.begin {
            footers.push(file.footer_length);
            add.push(file.read()?);
        }
        let end = body.end.into_iter();
        let end = end.map(|name| Ok::<_, sqlx::Error>(Path::from(own(name)?)));
        let change = Change {
            id: ChangeId::noted(noted.change),
            what: one_of(&body.kind, &ChangeKind::ALL, ChangeKind::as_str)?,
            add,
            end: end.collect::<Result<_, _>>()?,
            watermark: body.high,
            losses: body.losses,
        };
        Ok(Some(Self {
            snapshot: SnapshotId(count(noted.id)?),
            at: at(body.at_us)?,
            change,
            footers,
        }))
    }
}

impl NotedFile {
    fn of(file: &DataFile, footer_length: usize) -> Self {
        Self {
            file: file.path.to_string(),
            written_at_us: us(file.written_at),
            tbl: file.table.as_str().to_owned(),
            kind: file.kind.as_str().to_owned(),
            level: file.level,
            size: file.size,
            sha256: hex::encode(file.sha256.unwrap_or_default()),
            footer_length,
            row_count: file.rows,
            messages: file.messages,
            readings: file.readings,
            subjects: file.subjects.clone(),
            first_at_us: us(file.first_at),
            last_at_us: us(file.last_at),
            received_first_at_us: us(file.received_first_at),
            received_last_at_us: us(file.received_last_at),
        }
    }

    fn read(self) -> Result<DataFile, sqlx::Error> {
        let mut sha256 = [0; 32];
        hex::decode_to_slice(&self.sha256, &mut sha256).map_err(damaged)?;
        Ok(DataFile {
            path: Path::from(own(self.file)?),
            table: one_of(&self.tbl, &TableKind::ALL, TableKind::as_str)?,
            kind: one_of(&self.kind, &FileKind::ALL, FileKind::as_str)?,
            level: self.level,
            encrypted: true,
            size: self.size,
            sha256: Some(sha256),
            footer: [].into(),
            rows: self.row_count,
            messages: self.messages,
            readings: self.readings,
            subjects: self.subjects,
            first_at: at(self.first_at_us)?,
            last_at: at(self.last_at_us)?,
            received_first_at: at(self.received_first_at_us)?,
            received_last_at: at(self.received_last_at_us)?,
            written_at: at(self.written_at_us)?,
            begin: SnapshotId::default(),
        })
    }
}
