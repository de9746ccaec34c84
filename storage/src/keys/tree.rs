//! The key tree as it is opened in memory: root of the present epoch, service page, quarantine
//! page, patient pages.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use sqlx::Row as _;
use vitalseal_crypto::{
    Backend, Kek, KeyEpoch, Kid, PageKey, PatientKeys, RootKey, SubjectPseudonym, default_backend,
};

use super::{KeyError, KeySlot, NewRoot, RootProvider};
use crate::database::{self, Connection, damaged, number, us};

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
        root: NewRoot,
        provider: &str,
        backend: &dyn Backend,
        conn: &mut Connection,
        now: Timestamp,
    ) -> Result<Self, KeyError> {
        insert_root(&root, provider, conn, now).await?;
        let root = root.key;
        let service = PageKey::generate(backend)?;
        let quarantine = PageKey::generate(backend)?;
        insert_page(PagePurpose::Service, &service, &root, conn, now).await?;
        insert_page(PagePurpose::Quarantine, &quarantine, &root, conn, now).await?;
        Ok(Self::new(root, service, Arc::new(quarantine)))
    }

    /// Opens the tree that is stored.
    pub(crate) async fn open(
        roots: &dyn RootProvider,
        conn: &mut Connection,
    ) -> Result<Self, KeyError> {
        let (epoch, blob) = current_root(conn).await?;
        let root = roots.load(KeySlot::Root(epoch), &blob)?;
        Self::under(root, conn).await
    }

    /// Opens the tree that is stored under this root.
    pub(crate) async fn under(root: RootKey, conn: &mut Connection) -> Result<Self, KeyError> {
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

    /// Opens a patient's KEKs from rows of `SELECT page, kid, kek, retired_at_us, page_wrap`.
    pub(crate) fn patient_keys(
        &self,
        rows: &[database::Row],
    ) -> Result<Option<PatientKeys>, KeyError> {
        let (mut current, mut retired) = (None, Vec::new());
        for row in rows {
            let kid = Kid::from_bytes(row.try_get("kid")?).map_err(damaged)?;
            let page = self.page(row.try_get("page")?, row.try_get("page_wrap")?)?;
            let kek = page.unwrap_kek(kid, row.try_get("kek")?)?;
            match row.try_get::<Option<i64>, _>("retired_at_us")? {
                None => current = Some(kek),
                Some(_) => retired.push(kek),
            }
        }
        Ok(current.map(|current| PatientKeys::new(current, retired)))
    }

    /// Puts the first KEK of a new patient on a page with room, or on a new page. The newest pages are tried first: behind
    /// them are only the gaps that erasures left.
    pub(crate) async fn add_kek(
        &self,
        subject: &SubjectPseudonym,
        kek: &Kek,
        backend: &dyn Backend,
        conn: &mut Connection,
        now: Timestamp,
    ) -> Result<(), KeyError> {
        let room = sqlx::query(
            "SELECT page, wrapped FROM key_pages WHERE purpose = 'patients' AND keks < $1 ORDER BY page DESC LIMIT 1",
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
        insert_kek(subject, kek, page, &key, conn, now).await
    }

    /// Retires a patient's KEK and puts a new one beside it. On the same page, even a full one: an erasure must find all
    /// of a patient's keys in one place.
    pub(crate) async fn replace_kek(
        &self,
        subject: &SubjectPseudonym,
        kek: &Kek,
        conn: &mut Connection,
        now: Timestamp,
    ) -> Result<(), KeyError> {
        let row = sqlx::query(
            "SELECT p.page, p.wrapped FROM keks k JOIN key_pages p ON p.page = k.page \
             WHERE k.subject = $1 AND k.retired_at_us IS NULL",
        )
        .bind(subject.as_str())
        .fetch_optional(&mut *conn)
        .await?
        .ok_or_else(|| KeyError::UnknownPatient(subject.clone()))?;
        let page = row.try_get("page")?;
        let key = self.page(page, row.try_get("wrapped")?)?;
        sqlx::query(
            "UPDATE keks SET retired_at_us = $1 WHERE subject = $2 AND retired_at_us IS NULL",
        )
        .bind(us(now))
        .bind(subject.as_str())
        .execute(&mut *conn)
        .await?;
        insert_kek(subject, kek, page, &key, conn, now).await
    }
}

async fn insert_kek(
    subject: &SubjectPseudonym,
    kek: &Kek,
    page: i64,
    key: &PageKey,
    conn: &mut Connection,
    now: Timestamp,
) -> Result<(), KeyError> {
    sqlx::query(
        "INSERT INTO keks (kid, subject, page, wrapped, created_at_us) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(kek.kid().as_bytes())
    .bind(subject.as_str())
    .bind(page)
    .bind(key.wrap_kek(kek)?.as_slice())
    .bind(us(now))
    .execute(&mut *conn)
    .await?;
    sqlx::query(
        "UPDATE key_pages SET keks = keks + 1, generation = generation + $2 WHERE page = $1",
    )
    .bind(page)
    .bind(generation_step()?)
    .execute(conn)
    .await?;
    Ok(())
}

/// By how much a page's generation grows with a change. Random: two copies of a store that went apart must not give
/// different KEKs one generation, or the key snapshot of the one would pass for the other's.
pub(super) fn generation_step() -> Result<i64, KeyError> {
    let mut random = [0; 4];
    let drawn = default_backend().fill_random(&mut random);
    drawn.map_err(vitalseal_crypto::keys::KeyError::from)?;
    Ok(1 + i64::from(u32::from_be_bytes(random)))
}

/// The root that everything is wrapped under: its epoch, and what its provider needs to load it.
pub(crate) async fn current_root(
    conn: &mut Connection,
) -> Result<(KeyEpoch, Vec<u8>), sqlx::Error> {
    let (epoch, blob): (i64, Vec<u8>) =
        sqlx::query_as("SELECT epoch, blob FROM root_epochs WHERE state = 'current'")
            .fetch_one(conn)
            .await?;
    Ok((KeyEpoch(u64::try_from(epoch).map_err(damaged)?), blob))
}

/// Notes a root as the current one.
pub(crate) async fn insert_root(
    root: &NewRoot,
    provider: &str,
    conn: &mut Connection,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO root_epochs (epoch, state, provider, blob, started_at_us) \
         VALUES ($1, 'current', $2, $3, $4)",
    )
    .bind(number(root.key.epoch().0)?)
    .bind(provider)
    .bind(&root.blob)
    .bind(us(now))
    .execute(conn)
    .await
    .map(drop)
}

async fn insert_page(
    purpose: PagePurpose,
    key: &PageKey,
    root: &RootKey,
    conn: &mut Connection,
    now: Timestamp,
) -> Result<i64, KeyError> {
    let page: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(page), 0) + 1 FROM key_pages")
        .fetch_one(&mut *conn)
        .await?;
    sqlx::query(
        "INSERT INTO key_pages (page, purpose, keks, generation, root_epoch, wrapped, created_at_us) \
         VALUES ($1, $2, 0, 1, $3, $4, $5)",
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
    conn: &mut Connection,
) -> Result<PageKey, KeyError> {
    let wrapped: Vec<u8> = sqlx::query_scalar("SELECT wrapped FROM key_pages WHERE purpose = $1")
        .bind(purpose.as_str())
        .fetch_one(conn)
        .await?;
    Ok(root.unwrap_page(&wrapped)?)
}
