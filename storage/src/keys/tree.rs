//! The key tree as it is opened in memory: root of the present epoch, service page, quarantine
//! page, patient pages.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use sqlx::{Row as _, SqliteConnection};
use vitalseal_crypto::{Backend, Kek, KeyEpoch, Kid, PageKey, RootKey, SubjectPseudonym};

use super::{KeyError, RootProvider};
use crate::sqlite::{damaged, number, us};

/// KEKs on one page: an erasure wraps a page's KEKs and all pages anew, so for a million patients
/// both are about a thousand.
pub(crate) const KEKS_PER_PAGE: i64 = 1000;

/// What a page key is for. A page never serves two purposes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PagePurpose {
    Patients,
    Service,
    Quarantine,
}

impl PagePurpose {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Patients => "patients",
            Self::Service => "service",
            Self::Quarantine => "quarantine",
        }
    }
}

/// Opened keys of one root epoch. Replaced as a whole when the root turns.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) root: RootKey,
    pub(crate) service: PageKey,
    pub(crate) quarantine: Arc<PageKey>,
    /// Patient pages opened so far; a thousand for a million patients, so never dropped.
    pages: Mutex<HashMap<i64, Arc<PageKey>>>,
}

impl Tree {
    /// First keys of a new store, written in the caller's transaction.
    pub(crate) async fn plant(
        root: RootKey,
        provider: &str,
        backend: &dyn Backend,
        conn: &mut SqliteConnection,
        now: Timestamp,
    ) -> Result<Self, KeyError> {
        insert_root(&root, provider, conn, now).await?;
        let service = PageKey::generate(backend)?;
        let quarantine = PageKey::generate(backend)?;
        insert_page(PagePurpose::Service, &service, &root, conn, now).await?;
        insert_page(PagePurpose::Quarantine, &quarantine, &root, conn, now).await?;
        Ok(Self::new(root, service, Arc::new(quarantine)))
    }

    /// Opens the tree that is stored.
    pub(crate) async fn open(
        roots: &dyn RootProvider,
        conn: &mut SqliteConnection,
    ) -> Result<Self, KeyError> {
        let root = roots.load(current_epoch(conn).await?)?;
        let service = only_page(PagePurpose::Service, &root, conn).await?;
        let quarantine = only_page(PagePurpose::Quarantine, &root, conn).await?;
        Ok(Self::new(root, service, Arc::new(quarantine)))
    }

    pub(crate) fn new(root: RootKey, service: PageKey, quarantine: Arc<PageKey>) -> Self {
        Self {
            root,
            service,
            quarantine,
            pages: Mutex::default(),
        }
    }

    /// Opens a patient page.
    pub(crate) fn page(&self, page: i64, wrapped: &[u8]) -> Result<Arc<PageKey>, KeyError> {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = pages.get(&page) {
            return Ok(Arc::clone(key));
        }
        let key = Arc::new(self.root.unwrap_page(wrapped)?);
        pages.insert(page, Arc::clone(&key));
        Ok(key)
    }

    /// Opens a KEK from a row of `SELECT page, kek, kid, page_wrap`.
    pub(crate) fn kek(&self, row: &sqlx::sqlite::SqliteRow) -> Result<Kek, KeyError> {
        let kid = Kid::from_bytes(row.try_get("kid")?).map_err(damaged)?;
        let page = self.page(row.try_get("page")?, row.try_get("page_wrap")?)?;
        Ok(page.unwrap_kek(kid, row.try_get("kek")?)?)
    }

    /// Puts a new KEK on the first page with room, or on a new page.
    pub(crate) async fn add_kek(
        &self,
        subject: &SubjectPseudonym,
        kek: &Kek,
        backend: &dyn Backend,
        conn: &mut SqliteConnection,
        now: Timestamp,
    ) -> Result<(), KeyError> {
        let room = sqlx::query(
            "SELECT page, wrapped FROM key_pages WHERE purpose = 'patients' AND keks < $1 ORDER BY page LIMIT 1",
        )
        .bind(KEKS_PER_PAGE)
        .fetch_optional(&mut *conn)
        .await?;
        let (page, key) = if let Some(row) = room {
            let page = row.try_get("page")?;
            (page, self.page(page, row.try_get("wrapped")?)?)
        } else {
            let key = PageKey::generate(backend)?;
            // Not cached here: the caller's transaction may yet fail.
            let page = insert_page(PagePurpose::Patients, &key, &self.root, conn, now).await?;
            (page, Arc::new(key))
        };
        sqlx::query("INSERT INTO keks (subject, page, kid, wrapped) VALUES ($1, $2, $3, $4)")
            .bind(subject.as_str())
            .bind(page)
            .bind(kek.kid().as_bytes())
            .bind(key.wrap_kek(kek)?.as_slice())
            .execute(&mut *conn)
            .await?;
        sqlx::query("UPDATE key_pages SET keks = keks + 1 WHERE page = $1")
            .bind(page)
            .execute(conn)
            .await?;
        Ok(())
    }
}

/// The root epoch that everything is wrapped under.
pub(crate) async fn current_epoch(conn: &mut SqliteConnection) -> Result<KeyEpoch, sqlx::Error> {
    let epoch: i64 = sqlx::query_scalar("SELECT epoch FROM root_epochs WHERE state = 'current'")
        .fetch_one(conn)
        .await?;
    u64::try_from(epoch).map(KeyEpoch).map_err(damaged)
}

/// Notes a root as the current one.
pub(crate) async fn insert_root(
    root: &RootKey,
    provider: &str,
    conn: &mut SqliteConnection,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO root_epochs (epoch, state, provider, started_at_us) VALUES ($1, 'current', $2, $3)",
    )
    .bind(number(root.epoch().0)?)
    .bind(provider)
    .bind(us(now))
    .execute(conn)
    .await
    .map(drop)
}

async fn insert_page(
    purpose: PagePurpose,
    key: &PageKey,
    root: &RootKey,
    conn: &mut SqliteConnection,
    now: Timestamp,
) -> Result<i64, KeyError> {
    let page: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(page), 0) + 1 FROM key_pages")
        .fetch_one(&mut *conn)
        .await?;
    sqlx::query(
        "INSERT INTO key_pages (page, purpose, keks, root_epoch, wrapped, created_at_us) \
         VALUES ($1, $2, 0, $3, $4, $5)",
    )
    .bind(page)
    .bind(purpose.as_str())
    .bind(number(root.epoch().0)?)
    .bind(root.wrap_page(key)?.as_slice())
    .bind(us(now))
    .execute(conn)
    .await?;
    Ok(page)
}

async fn only_page(
    purpose: PagePurpose,
    root: &RootKey,
    conn: &mut SqliteConnection,
) -> Result<PageKey, KeyError> {
    let wrapped: Vec<u8> = sqlx::query_scalar("SELECT wrapped FROM key_pages WHERE purpose = $1")
        .bind(purpose.as_str())
        .fetch_one(conn)
        .await?;
    Ok(root.unwrap_page(&wrapped)?)
}
