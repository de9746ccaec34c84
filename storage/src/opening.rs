//! The registry's database, made empty or opened as it was left: the right place, nobody else in it, the tables of this
//! version.
//!
//! Tables of an earlier version become those of this one: forward only, each step in a transaction of its own. A step is
//! never changed once it was released; `tests/migrations.rs` opens a store of each version. What a step cannot do in SQL,
//! whoever needs it does when it finds nothing there, as [`crate::keys::store_keys::ensure`].

use sqlx::Connection as _;

use crate::backup;
use crate::database::copy::{self, Table};
use crate::database::{self, Database, Place, sqlite};
use crate::durable;
use crate::paths::StorePaths;
use crate::store::StoreError;

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

/// Brings the registry of an unpacked backup, which is a file, to where this store is to have it.
///
/// # Errors
/// As [`open`] and [`create`]; then nothing is at that place, and the file is as it was.
pub(crate) async fn bring_in(paths: &StorePaths) -> Result<(), StoreError> {
    let place = paths.registry_place();
    let file = paths.registry();
    if !matches!(place, Place::Postgres(_)) {
        return Ok(());
    }
    let unpacked = Place::Sqlite(file.clone());
    let db = connect(&unpacked).await?;
    settle(&db, &unpacked, paths).await?;
    db.close().await;
    // Claimed until the copy is there.
    let server = create(paths).await?;
    copy(&unpacked, &place).await?;
    server.close().await;
    Ok(durable::remove(&file)?)
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
    settle(&db, &place, paths).await?;
    Ok(db)
}

/// Sees that the tables are those of [`VERSION`], or makes them so.
async fn settle(db: &Database, place: &Place, paths: &StorePaths) -> Result<(), StoreError> {
    let version = db.schema_version().await;
    match version.map_err(|cause| unusable(place, cause))? {
        0 => Err(StoreError::Incomplete(paths.data().to_path_buf())),
        VERSION => Ok(()),
        found @ EARLIEST..VERSION => Ok(migrate(db, found).await?),
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

/// Removes what [`create`] or [`bring_in`] put on a server, for a store that is not to be.
pub(crate) async fn remove(paths: &StorePaths) {
    let place = paths.registry_place();
    if !matches!(place, Place::Postgres(_)) {
        return;
    }
    let removing = async {
        // Nobody else's, who may have come in between.
        let db = connect(&place).await?;
        let removed = db.remove().await;
        db.close().await;
        Ok::<_, StoreError>(removed?)
    };
    if let Err(error) = removing.await {
        tracing::error!(%error, registry = %place, "removing the tables of a store that was not completed");
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
