//! One data file: its bytes, its footer, its pages, its rows.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::AsArray as _;
use arrow::record_batch::RecordBatch;
use futures::TryStreamExt as _;
use tokio::task::spawn_blocking;
use vitalseal_crypto::{SubjectPseudonym, default_backend};

use super::pages::{Pages, Rows, Unreadable, is_locked, is_passing};
use super::rows::{self, Against};
use super::seen::Seen;
use super::{Check, Cost, Damage, Looked, Place, chunks};
use crate::catalog::{DataFile, FileKind, TableKind};
use crate::schema;
use crate::store::StoreError;

impl Check<'_> {
    /// Looks at a file that was live when the check began.
    pub(super) async fn file(&mut self, file: &DataFile) -> Result<(), StoreError> {
        let name = file.path.as_ref();
        let files = &self.store.files;
        let Some(size) = files.size(name).await? else {
            let now = self.store.catalog.files().await?;
            if now.iter().any(|live| live.path == file.path) {
                self.whole(file, "it is not there", Cost::Missing);
            }
            return Ok(());
        };
        self.report.files += 1;
        self.report.bytes += size;
        let is_whole = self.bytes(file).await?;
        if size != file.size {
            let fault = format!("it has {size} bytes, the catalog says {}", file.size);
            self.whole(
                file,
                fault,
                if is_whole { Cost::Doubt } else { Cost::Nothing },
            );
        }
        self.rows(file, is_whole).await
    }

    /// Looks at a file's bytes; whether they are known to be those that were written.
    async fn bytes(&mut self, file: &DataFile) -> Result<bool, StoreError> {
        if file.sha256.is_none() {
            return Ok(false);
        }
        let bytes = self.store.files.bytes(file.path.as_ref()).await?;
        let footer = Arc::clone(&file.footer);
        let hashed = spawn_blocking(move || {
            let digest = default_backend().sha256(&[&bytes]);
            (digest, bytes.ends_with(&footer))
        });
        let (digest, is_footer) = hashed.await?;
        let is_whole = file.sha256 == Some(digest);
        if !is_whole {
            let fault = "its bytes have another hash than the catalog says";
            self.whole(file, fault, Cost::Nothing);
        }
        if !is_footer {
            let fault = match is_whole {
                true => "it is whole, but the catalog's copy of its footer is damaged",
                false => "it ends otherwise than the catalog's copy of its footer",
            };
            self.whole(file, fault, Cost::Nothing);
        }
        Ok(is_whole)
    }

    /// Looks at every row that can be read.
    async fn rows(&mut self, file: &DataFile, is_whole: bool) -> Result<(), StoreError> {
        // Nothing is lost of a file that is as it was written: if it is not read, the catalog says something wrong of it.
        let lost = if is_whole { Cost::Doubt } else { Cost::Lost };
        let files = self.store.files.clone();
        let pages = match Pages::of(&files, file).await {
            Ok(pages) => pages,
            Err(error) if is_locked(&error) => {
                let fault = "it is sealed under a store key that is not here";
                self.whole(file, fault, Cost::Doubt);
                return Ok(());
            }
            Err(error) if is_passing(&error) => return Err(error.into()),
            Err(error) => {
                self.whole(file, format!("its footer cannot be read: {error}"), lost);
                return Ok(());
            }
        };
        let (mut seen, mut found, mut unreadable) =
            (Seen::default(), Vec::new(), Unreadable::new());
        let rows = pages.rows(&unreadable)?;
        if !self.look(file, rows, Some(&mut seen), &mut found).await? {
            // What was found up to the damage is found again.
            (seen, found) = Default::default();
            unreadable = pages.unreadable().await?;
            let rows = pages.rows(&unreadable)?;
            let mut is_read = self.look(file, rows, Some(&mut seen), &mut found).await?;
            seen.unreadable = u64::try_from(unreadable.len())?;
            // Of a chunk that lost one of its two blobs, the other one may do.
            for blob in [schema::SEALED, schema::EVIDENCE] {
                let only = unreadable.extract_if(.., |_, columns| columns == &[blob]);
                let rows = pages.rows_less(blob, only.map(|(row, _)| row).collect())?;
                is_read &= self.look(file, rows, None, &mut found).await?;
            }
            if !is_read {
                self.whole(file, "its rows cannot be read", lost);
            }
        }
        for place in pages.places(&unreadable).await? {
            let columns = place.row.and_then(|row| unreadable.get(&row));
            let columns = columns
                .map(|columns| columns.join(", "))
                .unwrap_or_default();
            let mut looked = Looked::at(place);
            looked.costs(format!("a page cannot be read: {columns}"), lost);
            self.take(looked);
        }
        found.into_iter().for_each(|looked| self.take(looked));
        match file.kind {
            FileKind::Rows => self.report.rows += seen.rows,
            FileKind::Chunks => self.report.chunks += seen.rows,
        }
        for fault in seen.against(file)? {
            self.whole(file, fault, Cost::Doubt);
        }
        Ok(())
    }

    /// Looks at rows; whether they could be read. What is `seen` are all that are whole.
    async fn look(
        &self,
        file: &DataFile,
        mut rows: Rows,
        mut seen: Option<&mut Seen>,
        found: &mut Vec<Looked>,
    ) -> Result<bool, StoreError> {
        let mut numbers = rows.numbers.into_iter();
        loop {
            let batch = match rows.batches.try_next().await {
                Ok(Some(batch)) => batch,
                Ok(None) => return Ok(true),
                Err(error) if is_passing(&error) => return Err(error.into()),
                Err(_) => return Ok(false),
            };
            if let Some(seen) = &mut seen {
                seen.add(&batch, file.kind)?;
            }
            let numbers: Vec<u64> = numbers.by_ref().take(batch.num_rows()).collect();
            let places = Place::rows(file, &batch, &numbers);
            let against = self
                .against(&batch, file.encrypted.then_some(file.table))
                .await?;
            let kind = file.kind;
            let looked = spawn_blocking(move || match kind {
                FileKind::Rows => rows::look(&batch, places, &against),
                FileKind::Chunks => Ok(chunks::look(&batch, places, &against)),
            });
            found.extend(looked.await??);
        }
    }

    /// What a batch is held against, the keys of its patients among it.
    async fn against(
        &self,
        batch: &RecordBatch,
        table: Option<TableKind>,
    ) -> Result<Against, StoreError> {
        let subjects = batch.column_by_name(schema::SUBJECT);
        let subjects = subjects.and_then(|column| column.as_string_opt::<i32>());
        let texts = subjects.into_iter().flatten().flatten();
        let patients: BTreeSet<SubjectPseudonym> =
            texts.filter_map(|text| text.parse().ok()).collect();
        self.with_keys(&patients, table).await
    }

    /// The same for these patients.
    pub(super) async fn with_keys(
        &self,
        patients: &BTreeSet<SubjectPseudonym>,
        table: Option<TableKind>,
    ) -> Result<Against, StoreError> {
        let wanted = patients.iter().filter(|_| self.options.keys);
        Ok(Against {
            keys: self.store.keys.keys_of(wanted).await?,
            store_keys: Arc::clone(&self.store_keys),
            signatures: Arc::clone(&self.signatures),
            unproven: Arc::clone(&self.unproven),
            table,
        })
    }

    fn whole(&mut self, file: &DataFile, fault: impl Into<String>, cost: Cost) {
        let (place, fault) = (Place::whole(file), fault.into());
        self.report.damaged(Damage { place, fault, cost });
    }
}
