//! The inbox's tables: made, or brought to the version of this program. Forward only, each step in a transaction of its
//! own, and never changed once it was released.

use std::path::Path;

use sqlx::{ConnectOptions as _, Connection as _};

use super::Inbox;
use crate::database::sqlite::{self, SqliteFile};
use crate::store::StoreError;

/// Version of the tables that this program reads and writes.
const VERSION: i64 = 4;

/// The version from which the first step leads on.
const EARLIEST: i64 = 3;

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

    /// Connects to it, and sees that its tables are those of this version, or makes them so. For [`Inbox::open`].
    ///
    /// # Errors
    /// [`StoreError::Version`]; [`StoreError::Unusable`] when it is no inbox.
    pub(crate) async fn connect(path: &Path) -> Result<SqliteFile, StoreError> {
        let connecting = async {
            let db = SqliteFile::connect(path).await?;
            let version = sqlx::query_scalar("PRAGMA user_version");
            let found: i64 = version.fetch_one(db.pool()).await?;
            Ok((db, found))
        };
        let connected = connecting.await;
        let (db, found) = connected.map_err(|cause: sqlx::Error| StoreError::Unusable {
            file: path.to_path_buf(),
            cause: cause.into(),
        })?;
        if !(EARLIEST..=VERSION).contains(&found) {
            return Err(StoreError::Version {
                place: path.display().to_string(),
                found,
                expected: VERSION,
            });
        }
        for (version, statements) in STEPS.into_iter().filter(|(to, _)| *to > found) {
            let mut tx = db.pool().begin_with("BEGIN IMMEDIATE").await?;
            sqlx::raw_sql(statements).execute(&mut *tx).await?;
            tx.commit().await?;
            tracing::info!(version, "the inbox's tables are those of a new version");
        }
        Ok(db)
    }
}
