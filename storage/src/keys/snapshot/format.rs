//! The bytes of a snapshot.
//!
//! ```text
//! manifest   "VSKEYS" 01 0a │ u32 BE n │ header, n bytes of JSON │ sealed body │ SHA-256 of all before, 32 bytes
//!            body = RootKey::seal(context = all before the body, JSON)
//!
//! page file  "VSPAGE" 01 0a │ sealed rows
//!            rows = PageKey::seal(context = "VSPAGE" 01 0a │ store id │ page i64 BE │ generation i64 BE, JSON)
//! ```
//!
//! The header names no patient; everything that does is sealed. The digest at the end tells damage from a key that does
//! not fit: nothing rests on it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use vitalseal_crypto::{KeyEpoch, Kid, PageKey, RootKey, SubjectPseudonym};
use zeroize::Zeroizing;

use super::place::{self, Place, SnapshotId};
use super::rows::{Cell, Row, WrongCell};
use super::{SECRETS, SnapshotError};
use crate::durable;
use crate::keys::secrets::secret_context;
use crate::keys::{KeySlot, RootProvider};

const MANIFEST: &[u8; 8] = b"VSKEYS\x01\n";
const PAGE: &[u8; 8] = b"VSPAGE\x01\n";
const DIGEST: usize = 32;

/// What anyone may read of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) store_id: String,
    pub(super) root_epoch: u64,
    pub(super) serial: u64,
    pub(super) taken_at: Timestamp,
    /// Who held the root.
    pub(super) provider: String,
    /// What that provider needs to load it, in hexadecimal; worth nothing without the provider's own key.
    pub(super) root_blob: String,
}

/// The sealed part: rows as [`super::TABLES`] reads them, and the file of each patient page.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Body {
    pub(super) tables: BTreeMap<String, Vec<Row>>,
    pub(super) files: BTreeMap<i64, PageFile>,
}

/// The file of a page at one generation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageFile {
    pub(super) generation: i64,
    pub(super) size: u64,
    pub(super) sha256: String,
}

impl PageFile {
    pub(super) fn of(generation: i64, bytes: &[u8]) -> Self {
        Self {
            generation,
            size: bytes.len() as u64,
            sha256: hex::encode(place::digest(bytes)),
        }
    }
}

/// How page files that a place has already are looked at before a new snapshot names them.
#[derive(Clone, Copy, Debug)]
pub(in crate::keys) enum Check {
    /// Their length alone. An erasure cannot read a hundred megabytes of a million patients on a slow disk before it
    /// ends; what was written within a day was read since.
    Lengths,
    /// Every byte.
    Digests,
}

/// A row of `key_pages`, as far as a snapshot looks into it.
pub(super) struct Page<'a> {
    pub(super) page: i64,
    pub(super) generation: i64,
    pub(super) wrapped: &'a [u8],
    /// Whether it holds KEKs, which then have a file of their own.
    pub(super) of_patients: bool,
    /// Whether it seals the secrets.
    pub(super) of_service: bool,
}

impl Body {
    pub(super) fn rows(&self, table: &str) -> &[Row] {
        self.tables.get(table).map_or(&[], Vec::as_slice)
    }

    pub(super) fn pages(&self) -> impl Iterator<Item = Result<Page<'_>, WrongCell>> {
        self.rows(super::PAGES).iter().map(|row| match &row[..] {
            [page, purpose, _, generation, _, wrapped, ..] => Ok(Page {
                page: page.int()?,
                generation: generation.int()?,
                wrapped: wrapped.blob()?,
                of_patients: purpose.text()? == "patients",
                of_service: purpose.text()? == "service",
            }),
            _ => Err(WrongCell),
        })
    }
}

impl Header {
    pub(super) fn id(&self) -> SnapshotId {
        SnapshotId {
            root_epoch: KeyEpoch(self.root_epoch),
            serial: self.serial,
        }
    }

    /// The bytes of a manifest.
    pub(super) fn seal(&self, body: &Body, root: &RootKey) -> Result<Vec<u8>, SnapshotError> {
        let header = serde_json::to_vec(self)?;
        let length = u32::try_from(header.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes();
        let mut bytes = [MANIFEST.as_slice(), &length, &header].concat();
        let sealed = root.seal(&bytes, &serde_json::to_vec(body)?)?;
        bytes.extend_from_slice(&sealed);
        let digest = place::digest(&bytes);
        bytes.extend_from_slice(&digest);
        Ok(bytes)
    }
}

/// Seals the KEKs of a page into the bytes of its file.
pub(super) fn seal_page(
    store_id: &str,
    page: &Page<'_>,
    rows: &[Row],
    root: &RootKey,
) -> Result<Vec<u8>, SnapshotError> {
    let key = root.unwrap_page(page.wrapped)?;
    let context = page_context(store_id, page.page, page.generation);
    let sealed = key.seal(&context, &serde_json::to_vec(rows)?)?;
    Ok([PAGE.as_slice(), &sealed].concat())
}

fn page_context(store_id: &str, page: i64, generation: i64) -> Vec<u8> {
    let (page, generation) = (page.to_be_bytes(), generation.to_be_bytes());
    [PAGE.as_slice(), store_id.as_bytes(), &page, &generation].concat()
}

/// A manifest that was read: whole, and not yet believed.
struct Read {
    header: Header,
    context: Vec<u8>,
    sealed: Vec<u8>,
}

fn parse(bytes: &[u8]) -> Option<Read> {
    let (whole, digest) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST)?)?;
    if digest != place::digest(whole) {
        return None;
    }
    let (length, rest) = whole.strip_prefix(MANIFEST)?.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (header, sealed) = rest.split_at_checked(length)?;
    Some(Read {
        header: serde_json::from_slice(header).ok()?,
        context: whole[..whole.len() - sealed.len()].to_vec(),
        sealed: sealed.to_vec(),
    })
}

/// A snapshot whose manifest opened under the root that its provider holds.
pub(super) struct Opened {
    pub(super) place: Place,
    pub(super) header: Header,
    pub(super) body: Body,
    root: RootKey,
}

impl Opened {
    /// Reads a manifest, and opens it under a root that the provider loads anew.
    pub(super) fn open(
        place: &Place,
        store_id: &str,
        id: SnapshotId,
        roots: &dyn RootProvider,
    ) -> Result<Self, SnapshotError> {
        let path = place.manifest(id);
        let damaged = || SnapshotError::Damaged(path.clone());
        let read = read_manifest(place, store_id, id)?;
        let blob = hex::decode(&read.header.root_blob).map_err(|_| damaged())?;
        let root = roots.load(KeySlot::Root(id.root_epoch), &blob)?;
        let body = root
            .open(&read.context, &read.sealed)
            .map_err(|_| SnapshotError::Forged(path.clone()))?;
        let opened = Self {
            place: place.clone(),
            header: read.header,
            body: serde_json::from_slice(&body).map_err(|_| damaged())?,
            root,
        };
        for page in opened.body.pages() {
            let page = page.map_err(|_| damaged())?;
            let file = opened.body.files.get(&page.page);
            let of_it = file.is_some_and(|file| file.generation == page.generation);
            if page.of_patients != of_it {
                return Err(damaged());
            }
        }
        Ok(opened)
    }

    /// A secret of the service; `None`: there is none of that name.
    pub(super) fn secret(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, SnapshotError> {
        let named = |row: &&Row| matches!(&row[..], [Cell::Text(found), _] if found == name);
        let Some(row) = self.body.rows(SECRETS.name).iter().find(named) else {
            return Ok(None);
        };
        let open = || {
            let mut pages = self.body.pages().flatten();
            let page = pages.find(|page| page.of_service)?;
            let key = self.root.unwrap_page(page.wrapped).ok()?;
            key.open(&secret_context(name), row.get(1)?.blob().ok()?)
                .ok()
        };
        let manifest = self.place.manifest(self.header.id());
        open().map(Some).ok_or(SnapshotError::Forged(manifest))
    }

    /// The KEKs of a page from its file, every one of them unwrapped once.
    pub(super) fn keks(&self, page: &Page<'_>) -> Result<Vec<Row>, SnapshotError> {
        let manifest = self.place.manifest(self.header.id());
        let file = self.body.files.get(&page.page);
        let file = file.ok_or(SnapshotError::Damaged(manifest))?;
        let path = self.place.page(file);
        let bytes = durable::read(&path)?;
        if PageFile::of(file.generation, &bytes) != *file {
            return Err(SnapshotError::Damaged(path));
        }
        self.open_page(page, file.generation, &bytes)
            .ok_or(SnapshotError::Forged(path))
    }

    fn open_page(&self, page: &Page<'_>, generation: i64, bytes: &[u8]) -> Option<Vec<Row>> {
        let key: PageKey = self.root.unwrap_page(page.wrapped).ok()?;
        let context = page_context(&self.header.store_id, page.page, generation);
        let rows = key.open(&context, bytes.strip_prefix(PAGE)?).ok()?;
        let rows: Vec<Row> = serde_json::from_slice(&rows).ok()?;
        for row in &rows {
            let [kid, subject, wrapped, _, _] = &row[..] else {
                return None;
            };
            let kid = Kid::from_bytes(kid.blob().ok()?).ok()?;
            key.unwrap_kek(kid, wrapped.blob().ok()?).ok()?;
            subject.text().ok()?.parse::<SubjectPseudonym>().ok()?;
        }
        Some(rows)
    }

    /// The page files that are there in full.
    pub(super) fn whole(&self, check: Check) -> BTreeMap<i64, PageFile> {
        let there = |file: &PageFile| {
            let path = self.place.page(file);
            match check {
                Check::Lengths => fs::metadata(path).is_ok_and(|found| found.len() == file.size),
                Check::Digests => {
                    fs::read(path).is_ok_and(|bytes| PageFile::of(file.generation, &bytes) == *file)
                }
            }
        };
        let files = self.body.files.iter().filter(|(_, file)| there(file));
        files.map(|(page, file)| (*page, file.clone())).collect()
    }

    /// Reads every page file and unwraps every KEK.
    pub(super) fn prove(&self) -> Result<(), SnapshotError> {
        for page in self.body.pages() {
            let manifest = || SnapshotError::Damaged(self.place.manifest(self.header.id()));
            let page = page.map_err(|_| manifest())?;
            if page.of_patients {
                self.keks(&page)?;
            }
        }
        Ok(())
    }
}

fn read_manifest(place: &Place, store_id: &str, id: SnapshotId) -> Result<Read, SnapshotError> {
    let path: &Path = &place.manifest(id);
    parse(&durable::read(path)?)
        .filter(|read| read.header.id() == id && read.header.store_id == store_id)
        .ok_or_else(|| SnapshotError::Damaged(path.to_path_buf()))
}

/// What the header of a snapshot says, believed or not.
pub(super) fn header(
    place: &Place,
    store_id: &str,
    id: SnapshotId,
) -> Result<Header, SnapshotError> {
    read_manifest(place, store_id, id).map(|read| read.header)
}
