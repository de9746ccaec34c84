//! The registry's database, made empty or opened as it was left: the right place, nobody else in it, the tables of this
//! version.
//!
//! Tables of an earlier version become those of this one: forward only, each step in a transaction of its own. A step is
//! never changed once it was released; `tests/migrations.rs` opens a store of each version. What a step cannot do in SQL,
//! whoever needs it does when it finds nothing there, as [`crate::keys::store_keys::ensure`].

use crate::backup;
use crate::database::copy::{self, Table};
use crate::database::{self, Database, Place, sqlite};
use crate::paths::StorePaths;
use crate::store::StoreError;
use sqlx::Connection as _;

/// Version of the registry's tables that this program reads and writes.
pub(crate) const VERSION: i64 = 4;

/// The version from which the first step leads on.
const EARLIEST: i64 = 3;

/// By the version that they lead to.
const STEPS: [(i64, &str); 1] = [(4, include_str!("registry/migrate_4.sql"))];

/// The tables of [`VERSION`].
pub(crate) const SCHEMA: &str = include_str!("registry/schema.sql");

/// Makes a place for a new registry and claims it; [`database::lay_out`] makes the tables.
///
/// # Errors
/// [`StoreError::RegistryTaken`] when there are tables already, [`StoreError::RegistryInUse`]; others when the place
/// cannot be made or reached.
pub(crate) async fn create(paths: &StorePaths) -> Result<Database, StoreError> {
    let place = paths.registry_place();
    if let Place::Sqlite(file) = &place {
        sqlite::create_file(file)?;
    }
    let db = connect(&place).await?;
    if !db.is_empty().await? {
        return Err(StoreError::RegistryTaken(place.to_string()));
    }
    Ok(db)
}

/// Whether the directory holds a store: the registry, or the part that is a file in any case.
pub(crate) fn is_there(paths: &StorePaths) -> bool {
    match paths.registry_place() {
        Place::Sqlite(file) | Place::Copy(file) => file.is_file(),
        Place::Postgres(_) => paths.inbox().is_file(),
    }
}

/// Opens and claims the registry, and brings its tables to [`VERSION`].
///
/// # Errors
/// [`StoreError::Incomplete`], [`StoreError::Version`], [`StoreError::RegistryInUse`]; others
/// when it cannot be reached or read.
pub(crate) async fn open(paths: &StorePaths) -> Result<Database, StoreError> {
    let place = paths.registry_place();
    let db = connect(&place).await?;
    let version = db.schema_version().await;
    match version.map_err(|cause| unusable(&place, cause))? {
        0 => Err(StoreError::Incomplete(paths.data().to_path_buf())),
        VERSION => Ok(db),
        found @ EARLIEST..VERSION => {
            migrate(&db, found).await?;
            Ok(db)
        }
        found => Err(StoreError::Version {
            place: place.to_string(),
            found,
            expected: VERSION,
        }),
    }
}

async fn connect(place: &Place) -> Result<Database, StoreError> {
    let connected = Database::connect(place.clone()).await;
    let db = connected.map_err(|cause| unusable(place, cause))?;
    match db.claim().await.map_err(|cause| unusable(place, cause))? {
        true => Ok(db),
        false => Err(StoreError::RegistryInUse(place.to_string())),
    }
}

fn unusable(place: &Place, cause: sqlx::Error) -> StoreError {
    match place {
        Place::Sqlite(file) | Place::Copy(file) => StoreError::Unusable {
            file: file.clone(),
            cause: cause.into(),
        },
        Place::Postgres(server) => StoreError::Unreachable {
            registry: server.to_string(),
            cause,
        },
    }
}

/// Takes the steps that lead on from version `found`.
async fn migrate(db: &Database, found: i64) -> Result<(), sqlx::Error> {
    for (version, statements) in STEPS.into_iter().filter(|(to, _)| *to > found) {
        let mut tx = db.begin().await?;
        database::lay_out(statements, version, tx.connection()).await?;
        tx.commit().await?;
        tracing::info!(version, "the registry's tables are those of a new version");
    }
    Ok(())
}

/// What leads to a key or stands in for a password, and is in no backup. Each after those that it refers to.
const SECRETS: [Table; 8] = [
    copy::all("root_epochs"),
    copy::all("key_pages"),
    copy::all("keks"),
    copy::all("secrets"),
    copy::all("recipients"),
    copy::all("snapshot_places"),
    copy::all("joins"),
    copy::all("tokens"),
];

/// Copies a whole registry, as it is at one instant, into a place that is empty: keys too, so never into a backup.
///
/// # Errors
/// When the one cannot be read or the other not be written; then nothing was copied.
pub(crate) async fn copy(from: &Place, to: &Place) -> Result<(), sqlx::Error> {
    let mut from = database::connect(from).await?;
    let mut to = database::connect(to).await?;
    let (mut cut, mut tx) = (from.begin().await?, to.begin().await?);
    database::lay_out(SCHEMA, VERSION, &mut tx).await?;
    copy::copy(&backup::COPIED, &mut cut, &mut tx).await?;
    copy::copy(&SECRETS, &mut cut, &mut tx).await?;
    tx.commit().await?;
    cut.rollback().await?;
    to.close().await?;
    from.close().await
}
