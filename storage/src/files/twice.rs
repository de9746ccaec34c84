//! What is small stands in a file twice, so that a flipped bit in it costs nothing.
//!
//! A page of ciphertext holds one row, and damage to it costs that row. The other columns have a page for some rows:
//! these pages are repeated, as they are sealed, behind all row groups (see [`super::write`]).
//!
//! A sum is the first 8 bytes of a page's SHA-256, header and data as they are sealed. It says which of the two places is
//! damaged, and proves nothing: the page's tags do. A file without any is read as it is.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use vitalseal_crypto::default_backend;

use super::read::first_module;
use crate::schema;
use crate::store::StoreError;

/// Bytes of a sum.
const SUM: usize = 8;

type Sum = [u8; SUM];

/// What is written behind the row groups.
#[derive(Default)]
pub(super) struct Again {
    pub(super) pages: Vec<u8>,
    pub(super) sums: Vec<u8>,
}

impl Again {
    /// Repeats the small pages of a file that has only its row groups yet.
    pub(super) fn of(groups: &[RowGroupMetaData], file: &[u8]) -> Result<Self, StoreError> {
        let mut again = Self::default();
        for column in groups.iter().flat_map(RowGroupMetaData::columns) {
            if !is_small(column) {
                continue;
            }
            let (start, length) = column.byte_range();
            let range = usize::try_from(start)?..usize::try_from(start + length)?;
            let mut column = file.get(range).unwrap_or_default();
            again.pages.extend_from_slice(column);
            while let Some((page, rest)) = split_page(column) {
                again.sums.extend(sum(page));
                column = rest;
            }
        }
        Ok(again)
    }
}

/// Where the small pages of a file stand a second time.
#[derive(Default)]
pub(super) struct Twice {
    /// In the order of the file.
    pages: Vec<Page>,
}

/// A page that stands twice.
pub(super) struct Page {
    /// Where it is read.
    at: Range<u64>,
    /// Where it begins once more.
    again: u64,
    sum: Sum,
}

impl Twice {
    /// What the last bytes of a file say, from `start` on; nothing of a file that was written without.
    pub(super) fn of(
        metadata: &ParquetMetaData,
        tail: &[u8],
        start: u64,
    ) -> Result<Self, StoreError> {
        let mut pages = Vec::new();
        let groups = metadata.row_groups().iter();
        for (group, indexes) in groups.zip(metadata.offset_index().into_iter().flatten()) {
            for (column, index) in group.columns().iter().zip(indexes) {
                for page in index.page_locations().iter().filter(|_| is_small(column)) {
                    let first = u64::try_from(page.offset)?;
                    pages.push(first..first + u64::try_from(page.compressed_page_size)?);
                }
            }
        }
        let length = pages.iter().map(|page| page.end - page.start).sum::<u64>();
        let sums = first_index(metadata).and_then(|end| end.checked_sub(start));
        let sums = sums.and_then(|length| tail.get(..usize::try_from(length).ok()?));
        let sums = sums.unwrap_or_default().as_chunks::<SUM>().0;
        let Some(mut again) = start
            .checked_sub(length)
            .filter(|_| sums.len() == pages.len())
        else {
            return Ok(Self::default());
        };
        let pages = pages.into_iter().zip(sums).map(|(at, sum)| {
            let page = Page {
                again,
                sum: *sum,
                at,
            };
            again += page.at.end - page.at.start;
            page
        });
        Ok(Self {
            pages: pages.collect(),
        })
    }

    /// Those pages in this range of the file that are not what was written.
    pub(super) fn damaged(&self, range: &Range<u64>, bytes: &[u8]) -> Vec<&Page> {
        let first = self
            .pages
            .partition_point(|page| page.at.start < range.start);
        let pages = self.pages.iter().skip(first);
        let pages = pages.take_while(|page| page.at.end <= range.end);
        let is_sound = |page: &Page| {
            page.place_in(range)
                .is_some_and(|at| page.is(bytes.get(at)))
        };
        pages.filter(|page| !is_sound(page)).collect()
    }

    pub(super) fn memory_size(&self) -> usize {
        self.pages.len() * size_of::<Page>()
    }
}

impl Page {
    /// Where it stands once more.
    pub(super) fn again(&self) -> Range<u64> {
        self.again..self.again + (self.at.end - self.at.start)
    }

    /// Puts it into the bytes of a range, out of its second place, if that is not damaged too.
    pub(super) fn mend(&self, range: &Range<u64>, bytes: &mut Bytes, again: &Bytes) {
        let mut mended = BytesMut::from(&**bytes);
        let place = self.place_in(range).and_then(|at| mended.get_mut(at));
        let Some(place) = place.filter(|place| place.len() == again.len()) else {
            return;
        };
        if self.is(Some(again)) {
            place.copy_from_slice(again);
            *bytes = mended.freeze();
        }
    }

    fn is(&self, bytes: Option<&[u8]>) -> bool {
        bytes.is_some_and(|bytes| sum(bytes) == self.sum)
    }

    fn place_in(&self, range: &Range<u64>) -> Option<Range<usize>> {
        let start = usize::try_from(self.at.start.checked_sub(range.start)?).ok()?;
        let end = usize::try_from(self.at.end.checked_sub(range.start)?).ok()?;
        Some(start..end)
    }
}

/// Whether a column has pages of several rows.
fn is_small(column: &ColumnChunkMetaData) -> bool {
    let path = column.column_path().parts();
    !path
        .iter()
        .any(|name| schema::CIPHERTEXT.contains(&name.as_str()))
}

/// The first page of some, and what follows: two modules, the one its header, the other its data.
fn split_page(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, data) = first_module(bytes)?;
    let (_, rest) = first_module(data)?;
    bytes.split_at_checked(bytes.len() - rest.len())
}

fn sum(page: &[u8]) -> Sum {
    let [a, b, c, d, e, f, g, h, ..] = default_backend().sha256(&[page]);
    [a, b, c, d, e, f, g, h]
}

/// Where the page indexes begin.
fn first_index(metadata: &ParquetMetaData) -> Option<u64> {
    let groups = metadata.row_groups().iter();
    let columns = groups.flat_map(RowGroupMetaData::columns);
    let indexes =
        columns.flat_map(|column| [column.column_index_offset(), column.offset_index_offset()]);
    u64::try_from(indexes.flatten().min()?).ok()
}
