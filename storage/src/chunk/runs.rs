//! Which message each reading of a series came in: runs, since a message brings many readings in the order of time.
//!
//! ```text
//! column = runs unsigned | length of the next unsigned | column of message indexes | column of run lengths
//! ```

use std::iter::repeat_n;

use super::bytes::{Reader, put_length};
use super::error::ChunkError;
use super::pack::{self, Column};

/// Writes a column.
pub(super) fn encode(messages: &[u32], out: &mut Vec<u8>) {
    let (mut indexes, mut lengths): (Vec<i64>, Vec<i64>) = (Vec::new(), Vec::new());
    for message in messages.iter().copied().map(i64::from) {
        match lengths.last_mut() {
            Some(length) if indexes.last() == Some(&message) => *length += 1,
            _ => {
                indexes.push(message);
                lengths.push(1);
            }
        }
    }
    put_length(out, indexes.len());
    let mut column = Vec::new();
    pack::encode(&indexes, &mut column);
    put_length(out, column.len());
    out.append(&mut column);
    pack::encode(&lengths, out);
}

/// Appends a column of `count` indexes, each below `messages`. It is the first `length` of `bytes`.
pub(super) fn decode(
    bytes: &[u8],
    length: usize,
    count: usize,
    messages: usize,
    out: &mut Vec<u32>,
) -> Result<(), ChunkError> {
    let mut reader = Reader::new(bytes.get(..length).unwrap_or_default());
    let runs = reader.count(count)?;
    let first = reader.count(length)?;
    let at = length - reader.rest().len();
    reader.take(first)?;
    let column = |at, length| {
        let mut values: Vec<i64> = Vec::new();
        Column::new(bytes.get(at..).unwrap_or_default(), length, runs)?.decode(&mut values)?;
        Ok(values)
    };
    let (indexes, lengths) = (column(at, first)?, column(at + first, reader.rest().len())?);
    out.reserve(count);
    let mut left = count;
    for (index, length) in indexes.into_iter().zip(lengths) {
        let index = u32::try_from(index)
            .ok()
            .filter(|index| (*index as usize) < messages);
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= left);
        let (Some(index), Some(length)) = (index, length) else {
            return Err(WRONG);
        };
        left -= length;
        out.extend(repeat_n(index, length));
    }
    if left == 0 { Ok(()) } else { Err(WRONG) }
}

const WRONG: ChunkError = ChunkError::Damaged("the readings' messages are not those of the chunk");
