//! The journal: what changed in the set of files, kept beside the messages that went into it. The inbox keeps it and does
//! not read it; what it is for stands in [`crate::catalog`]'s `settle`.

use sqlx::SqliteConnection;

use super::writer::Command;
use super::{Inbox, InboxError};

/// Changes that are kept: a week of a flush a minute, some MiB.
const KEPT: i64 = 10_000;

/// A change of the set of files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NotedChange {
    /// The snapshot that it made.
    pub(crate) id: i64,
    /// Its random id.
    pub(crate) change: String,
    /// What it was, for the catalog; `None` if that was not noted when it was made.
    pub(crate) body: Option<String>,
}

impl Inbox {
    /// Notes changes, each once; durable when this returns.
    pub(crate) async fn note_changes(&self, changes: Vec<NotedChange>) -> Result<(), InboxError> {
        self.ask(|answer| Command::NoteChanges(changes, answer))
            .await?
    }

    /// The last change that was noted: the snapshot that it made, and its id.
    pub(crate) async fn newest_change(&self) -> Result<Option<(i64, String)>, InboxError> {
        let newest = sqlx::query_as("SELECT id, change FROM changes ORDER BY id DESC LIMIT 1");
        Ok(newest.fetch_optional(self.database().pool()).await?)
    }

    /// What was noted from this snapshot on, in order.
    pub(crate) async fn changes_from(&self, id: i64) -> Result<Vec<NotedChange>, InboxError> {
        let noted =
            sqlx::query_as("SELECT id, change, body FROM changes WHERE id >= $1 ORDER BY id");
        let noted: Vec<(i64, String, Option<String>)> =
            noted.bind(id).fetch_all(self.database().pool()).await?;
        let noted = noted.into_iter();
        Ok(noted
            .map(|(id, change, body)| NotedChange { id, change, body })
            .collect())
    }
}

pub(super) async fn note(
    changes: &[NotedChange],
    conn: &mut SqliteConnection,
) -> Result<(), sqlx::Error> {
    for NotedChange { id, change, body } in changes {
        sqlx::query(
            "INSERT INTO changes (id, change, body) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        )
        .bind(id)
        .bind(change)
        .bind(body)
        .execute(&mut *conn)
        .await?;
        sqlx::query("DELETE FROM changes WHERE id <= $1")
            .bind(id - KEPT)
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sqlx::Connection as _;

    use super::*;

    #[tokio::test]
    async fn as_many_changes_are_kept_as_is_said_and_no_more() {
        let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let tables = sqlx::raw_sql(include_str!("schema.sql"));
        tables.execute(&mut conn).await.unwrap();
        let change = |id: i64| NotedChange {
            id,
            change: id.to_string(),
            body: None,
        };
        let last = KEPT + 1;
        for ids in [vec![0, 1, 2], vec![KEPT - 1, last], vec![last]] {
            let changes: Vec<NotedChange> = ids.into_iter().map(change).collect();
            note(&changes, &mut conn).await.unwrap();
        }
        let kept = sqlx::query_scalar("SELECT id FROM changes ORDER BY id");
        let kept: Vec<i64> = kept.fetch_all(&mut conn).await.unwrap();
        assert_eq!(kept, [2, KEPT - 1, last]);
    }
}
