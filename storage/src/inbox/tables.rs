//! The inbox's tables: made, or brought to the version of this program. Forward only, each step in a transaction of its
//! own, and never changed once it was released.

use std::path::Path;

use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};

use super::Inbox;
use crate::database::sqlite;
use crate::store::StoreError;

/// Version of the tables that this program reads and writes.
const VERSION: i64 = 4;

/// By the version that they lead to.
const STEPS: [(i64, &str); 1] = [(4, include_str!("migrate_4.sql"))];

impl Inbox {
    /// Makes an empty inbox.
    pub(crate) async fn create(path: &Path) -> Result<(), StoreError> {
        sqlite::create_file(path)?;
        let mut conn = sqlite::options(path).connect().await?;
        sqlx::raw_sql(include_str!("schema.sql"))
            .execute(&mut conn)
            .await?;
        conn.close().await?;
        Ok(())
    }

    /// Sees that the tables are those of this version, or makes them so. Before [`Inbox::open`].
    ///
    /// # Errors
    /// [`StoreError::Version`]; others when it is no inbox.
    pub(crate) async fn migrate(path: &Path) -> Result<(), StoreError> {
        let unusable = |cause: sqlx::Error| StoreError::Unusable {
            file: path.to_path_buf(),
            cause: cause.into(),
        };
        let connected = sqlite::connect_synced(&sqlite::options(path)).await;
        let mut conn = connected.map_err(unusable)?;
        let found = sqlx::query_scalar("PRAGMA user_version");
        let found: i64 = found.fetch_one(&mut conn).await.map_err(unusable)?;
        if found != VERSION && !STEPS.iter().any(|(to, _)| *to == found + 1) {
            return Err(StoreError::Version {
                place: path.display().to_string(),
                found,
                expected: VERSION,
            });
        }
        for (to, statements) in STEPS.into_iter().filter(|(to, _)| *to > found) {
            step(statements, &mut conn).await?;
            tracing::info!(
                version = to,
                "the inbox's tables are those of a new version"
            );
        }
        Ok(conn.close().await?)
    }
}

async fn step(statements: &'static str, conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let mut tx = conn.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::raw_sql(statements).execute(&mut *tx).await?;
    tx.commit().await
}
