//! Deterministic CBOR, read strictly and written plainly (RFC 8949 §4.2.1).
//!
//! The profile is a closed grammar, so there is no tree of values here: a [`Reader`] walks the received bytes and
//! hands out slices of them. Everything that has two encodings is refused (indefinite lengths, integers longer than
//! needed, unsorted or repeated map keys, bytes left over), so that two parsers can never disagree about what was
//! signed. Depth needs no limit of its own: only the grammar recurses, and it does so six levels at most.

use std::cmp::Ordering;
use std::ops::Range;

use crate::envelope::Rejection;

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;

/// `null`.
const NULL: u8 = 0xf6;

type Result<T> = std::result::Result<T, Rejection>;

/// A cursor over one encoded item.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes were read so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// That nothing is left.
    pub(super) fn end(&self) -> Result<()> {
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(Rejection::shape("trailing bytes"))
        }
    }

    /// Whether the next item is text.
    pub(super) fn text_follows(&self) -> bool {
        self.bytes
            .get(self.at)
            .is_some_and(|initial| initial >> 5 == TEXT)
    }

    pub(super) fn tag(&mut self, expected: u64, otherwise: &'static str) -> Result<()> {
        self.exactly(TAG, expected, otherwise)
    }

    pub(super) fn array(&mut self, length: u64) -> Result<()> {
        self.array_or(length, "an array has another length or stands elsewhere")
    }

    /// An array whose length means something that a refusal should say.
    pub(super) fn array_or(&mut self, length: u64, otherwise: &'static str) -> Result<()> {
        self.exactly(ARRAY, length, otherwise)
    }

    /// An integer of either sign.
    pub(super) fn int(&mut self) -> Result<i64> {
        let (major, argument) = self.head()?;
        let magnitude = i64::try_from(argument).map_err(|_| Rejection::shape("integer range"))?;
        match major {
            UNSIGNED => Ok(magnitude),
            NEGATIVE => Ok(-1 - magnitude),
            _ => Err(Rejection::shape("an integer was expected")),
        }
    }

    pub(super) fn uint(&mut self) -> Result<u64> {
        match self.head()? {
            (UNSIGNED, value) => Ok(value),
            _ => Err(Rejection::shape("an unsigned integer was expected")),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8]> {
        let range = self.bytes_range()?;
        Ok(&self.bytes[range])
    }

    /// The place of a byte string's content, for what must be found again later.
    pub(super) fn bytes_range(&mut self) -> Result<Range<usize>> {
        match self.head()? {
            (BYTES, length) => self.take(length),
            _ => Err(Rejection::shape("a byte string was expected")),
        }
    }

    pub(super) fn fixed<const N: usize>(&mut self) -> Result<&'a [u8; N]> {
        self.bytes()?
            .try_into()
            .map_err(|_| Rejection::shape("a byte string has another length"))
    }

    pub(super) fn text(&mut self) -> Result<&'a str> {
        let (TEXT, length) = self.head()? else {
            return Err(Rejection::shape("text was expected"));
        };
        let range = self.take(length)?;
        std::str::from_utf8(&self.bytes[range]).map_err(|_| Rejection::shape("text is not UTF-8"))
    }

    /// Opens a map. Its keys are then asked for one by one.
    pub(super) fn map(&mut self) -> Result<MapKeys> {
        match self.head()? {
            (MAP, length) => Ok(MapKeys {
                left: length,
                previous: 0..0,
            }),
            _ => Err(Rejection::shape("a map was expected")),
        }
    }

    fn exactly(&mut self, major: u8, argument: u64, otherwise: &'static str) -> Result<()> {
        if self.head()? == (major, argument) {
            Ok(())
        } else {
            Err(Rejection::shape(otherwise))
        }
    }

    /// Major type and argument of the next item, in its shortest form.
    fn head(&mut self) -> Result<(u8, u64)> {
        let [initial] = self.array_of::<1>()?;
        let (major, low) = (initial >> 5, initial & 0x1f);
        let (argument, shortest_from) = match low {
            0..=23 => (u64::from(low), 0),
            24 => (u64::from(self.array_of::<1>()?[0]), 24),
            25 => (u64::from(u16::from_be_bytes(self.array_of()?)), 0x100),
            26 => (u64::from(u32::from_be_bytes(self.array_of()?)), 0x1_0000),
            27 => (u64::from_be_bytes(self.array_of()?), 0x1_0000_0000),
            31 => return Err(Rejection::shape("an indefinite length")),
            _ => return Err(Rejection::shape("a reserved encoding")),
        };
        if argument < shortest_from {
            return Err(Rejection::shape("a number is not in its shortest form"));
        }
        Ok((major, argument))
    }

    fn take(&mut self, length: u64) -> Result<Range<usize>> {
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| self.at.checked_add(length))
            .filter(|end| *end <= self.bytes.len())
            .ok_or(Rejection::shape("truncated"))?;
        let range = self.at..end;
        self.at = end;
        Ok(range)
    }

    fn array_of<const N: usize>(&mut self) -> Result<[u8; N]> {
        let chunk = self.bytes[self.at..]
            .first_chunk::<N>()
            .copied()
            .ok_or(Rejection::shape("truncated"))?;
        self.at += N;
        Ok(chunk)
    }
}

/// The keys of a map that is being read: integers, strictly ascending in their encoded form.
///
/// Ascending order makes a repeated label impossible, so no set of seen labels is kept.
pub(super) struct MapKeys {
    left: u64,
    previous: Range<usize>,
}

impl MapKeys {
    /// The next key, or `None` after the last. Its value must be read before the next call.
    pub(super) fn next(&mut self, reader: &mut Reader<'_>) -> Result<Option<i64>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let start = reader.at;
        let key = reader.int()?;
        let encoded = start..reader.at;
        if !self.previous.is_empty() {
            match reader.bytes[encoded.clone()].cmp(&reader.bytes[self.previous.clone()]) {
                Ordering::Greater => {}
                Ordering::Equal => return Err(Rejection::shape("a label is repeated")),
                Ordering::Less => return Err(Rejection::shape("labels are out of order")),
            }
        }
        self.previous = encoded;
        Ok(Some(key))
    }
}

/// Writes deterministic CBOR. Map keys are written in the order of the calls; the profile's are ascending.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// Continues after bytes that are already encoded.
    pub(super) fn after(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn tag(&mut self, tag: u64) -> &mut Self {
        self.head(TAG, tag)
    }

    pub(super) fn array(&mut self, length: u64) -> &mut Self {
        self.head(ARRAY, length)
    }

    pub(super) fn map(&mut self, length: u64) -> &mut Self {
        self.head(MAP, length)
    }

    pub(super) fn int(&mut self, value: i64) -> &mut Self {
        let magnitude = if value < 0 { !value } else { value };
        self.head(
            if value < 0 { NEGATIVE } else { UNSIGNED },
            magnitude.unsigned_abs(),
        )
    }

    pub(super) fn uint(&mut self, value: u64) -> &mut Self {
        self.head(UNSIGNED, value)
    }

    pub(super) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.bytes_head(value.len());
        self.0.extend_from_slice(value);
        self
    }

    /// The head of a byte string whose content follows elsewhere.
    pub(super) fn bytes_head(&mut self, length: usize) -> &mut Self {
        self.head(BYTES, length as u64)
    }

    pub(super) fn text(&mut self, value: &str) -> &mut Self {
        self.head(TEXT, value.len() as u64);
        self.0.extend_from_slice(value.as_bytes());
        self
    }

    pub(super) fn null(&mut self) -> &mut Self {
        self.0.push(NULL);
        self
    }

    fn head(&mut self, major: u8, argument: u64) -> &mut Self {
        let initial = major << 5;
        let be = argument.to_be_bytes();
        match argument {
            0..=23 => self.0.push(initial | be[7]),
            24..=0xff => self.0.extend_from_slice(&[initial | 24, be[7]]),
            0x100..=0xffff => self.0.extend_from_slice(&[initial | 25, be[6], be[7]]),
            0x1_0000..=0xffff_ffff => {
                self.0.push(initial | 26);
                self.0.extend_from_slice(&be[4..]);
            }
            _ => {
                self.0.push(initial | 27);
                self.0.extend_from_slice(&be);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_shortest_form_is_read() {
        for value in [
            0,
            23,
            24,
            0xff,
            0x100,
            0xffff,
            0x1_0000,
            0xffff_ffff,
            0x1_0000_0000,
            i64::MAX,
        ] {
            for value in [value, !value] {
                let mut writer = Writer::default();
                writer.int(value);
                let bytes = writer.into_bytes();
                let mut reader = Reader::new(&bytes);
                assert_eq!(reader.int(), Ok(value));
                assert_eq!(reader.end(), Ok(()));
            }
        }
        for long in [
            "1817",
            "190018",
            "1a0000ffff",
            "1b00000000ffffffff",
            "3817",
            "1c",
            "1f",
            "5f",
        ] {
            let bytes = hex::decode(long).unwrap();
            assert!(Reader::new(&bytes).head().is_err(), "{long}");
        }
    }

    #[test]
    fn labels_ascend_in_their_encoded_form() {
        let read = |bytes: &str| {
            let bytes = hex::decode(bytes).unwrap();
            let mut reader = Reader::new(&bytes);
            let mut keys = reader.map()?;
            let mut found = Vec::new();
            while let Some(key) = keys.next(&mut reader)? {
                found.push(key);
                reader.uint()?;
            }
            reader.end()?;
            Ok::<_, Rejection>(found)
        };
        assert_eq!(read("a0"), Ok(vec![]));
        assert_eq!(
            read("a401000a0020003a0001000000"),
            Ok(vec![1, 10, -1, -65537])
        );
        assert!(read("a201000100").is_err(), "repeated");
        assert!(read("a204000100").is_err(), "descending");
        assert!(read("a220000100").is_err(), "by value, not by encoding");
        assert!(read("a20100").is_err(), "truncated");
        assert!(read("a1010000").is_err(), "trailing");
    }

    #[test]
    fn a_length_beyond_the_message_is_refused_without_allocating() {
        for claim in ["5bffffffffffffffff", "7a7fffffff", "58ff00"] {
            let bytes = hex::decode(claim).unwrap();
            assert!(Reader::new(&bytes).bytes().is_err());
            assert!(Reader::new(&bytes).text().is_err());
        }
        assert!(
            Reader::new(&hex::decode("bbffffffffffffffff").unwrap())
                .map()
                .is_ok()
        );
    }
}
