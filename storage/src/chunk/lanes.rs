//! Full blocks, packed so that vector units unpack them: value by value across the lanes, not within one (Afroozeh,
//! Boncz: *The `FastLanes` Compression Layout*, VLDB 2023). `width × 128` bytes, as little-endian words of 32 bits.

use fastlanes::BitPacking;

use super::pack::BLOCK;

/// The widest value that is packed here.
pub(super) const WIDEST: u32 = 32;

/// One function a width: the layout is unrolled for each.
macro_rules! widths {
    ($($width:literal)*) => {
        /// Appends a block of values of at most `width` bits.
        pub(super) fn pack(width: u32, values: &[u64; BLOCK], out: &mut Vec<u8>) {
            let values = values.map(|value| u32::try_from(value).unwrap_or_default());
            match width {
                $($width => pack_as::<$width, { 32 * $width }>(&values, out),)*
                _ => {}
            }
        }

        /// Unpacks a block of [`pack`]. Of other widths than 1 to [`WIDEST`] nothing is unpacked.
        pub(super) fn unpack(width: u32, packed: &[u8], values: &mut [u32; BLOCK]) {
            match width {
                $($width => unpack_as::<$width, { 32 * $width }>(packed, values),)*
                _ => {}
            }
        }
    };
}

widths! { 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 }

fn pack_as<const WIDTH: usize, const WORDS: usize>(values: &[u32; BLOCK], out: &mut Vec<u8>) {
    let mut words = [0; WORDS];
    BitPacking::pack::<WIDTH, WORDS>(values, &mut words);
    out.extend(words.iter().flat_map(|word: &u32| word.to_le_bytes()));
}

fn unpack_as<const WIDTH: usize, const WORDS: usize>(packed: &[u8], values: &mut [u32; BLOCK]) {
    let mut words = [0; WORDS];
    let (bytes, _) = packed.as_chunks();
    for (word, bytes) in words.iter_mut().zip(bytes) {
        *word = u32::from_le_bytes(*bytes);
    }
    BitPacking::unpack::<WIDTH, WORDS>(&words, values);
}
