//! The little CBOR (RFC 8949) that payloads need: a reader that trusts nothing and a deterministic writer.
//!
//! The reader borrows, never recurses without a bound, and never allocates by a length it was told. It accepts
//! any well-formed head (shortest or not) and, for arrays and maps, indefinite lengths: small encoders in
//! devices write both. The writer follows RFC 8949 §4.2.1: shortest heads, definite lengths, shortest float.

use half::f16;

use crate::DecodeError;

/// Nesting that is skipped over in values nobody asked for. SenML itself nests two deep.
const MAX_DEPTH: u8 = 8;

/// Integers beyond this are not exact as `f64`, so a float is written instead.
const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

const TRUNCATED: DecodeError = DecodeError::Malformed("it ends inside an item");

/// A number as it was written: an integer stays exact.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    Integer(i128),
    Float(f64),
}

impl Number {
    pub(crate) fn to_f64(self) -> f64 {
        match self {
            Self::Integer(integer) => integer as f64,
            Self::Float(float) => float,
        }
    }
}

/// The key of a map entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Label<'a> {
    Integer(i128),
    Text(&'a str),
}

/// What is left of an array or map that is being read; `None` while only a break ends it.
#[derive(Debug)]
pub(crate) struct Items(Option<u64>);

impl Items {
    /// Whether another item follows. Consumes the break of an indefinite length.
    pub(crate) fn next(&mut self, reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
        match &mut self.0 {
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None if reader.peek()? == BREAK => {
                reader.at += 1;
                self.0 = Some(0);
                Ok(false)
            }
            None => Ok(true),
        }
    }

    /// The count that was announced, if one was.
    pub(crate) fn announced(&self) -> Option<u64> {
        self.0
    }
}

const BREAK: u8 = 0xff;

mod major {
    pub(super) const UNSIGNED: u8 = 0;
    pub(super) const NEGATIVE: u8 = 1;
    pub(super) const BYTES: u8 = 2;
    pub(super) const TEXT: u8 = 3;
    pub(super) const ARRAY: u8 = 4;
    pub(super) const MAP: u8 = 5;
    pub(super) const TAG: u8 = 6;
    pub(super) const SIMPLE: u8 = 7;
}

/// The initial byte of an item with its argument.
struct Head {
    major: u8,
    info: u8,
    argument: u64,
}

impl Head {
    fn is_indefinite(&self) -> bool {
        self.info == 31
    }
}

/// Reads one CBOR item after another from a borrowed slice.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Refuses bytes that follow the last item.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(DecodeError::Malformed("bytes follow the last item"))
        }
    }

    pub(crate) fn array(&mut self, expected: &'static str) -> Result<Items, DecodeError> {
        self.items(major::ARRAY, expected)
    }

    pub(crate) fn map(&mut self, expected: &'static str) -> Result<Items, DecodeError> {
        self.items(major::MAP, expected)
    }

    /// A text string of definite length (RFC 8428 §6 asks for that too).
    pub(crate) fn text(&mut self, expected: &'static str) -> Result<&'a str, DecodeError> {
        let head = self.head()?;
        if head.major != major::TEXT || head.is_indefinite() {
            return Err(DecodeError::Shape(expected));
        }
        let bytes = self.take(head.argument)?;
        std::str::from_utf8(bytes).map_err(|_| DecodeError::Malformed("a text is not UTF-8"))
    }

    pub(crate) fn label(&mut self) -> Result<Label<'a>, DecodeError> {
        const EXPECTED: &str = "a label is an integer or a text";
        if self.peek()? >> 5 == major::TEXT {
            return self.text(EXPECTED).map(Label::Text);
        }
        self.integer(EXPECTED).map(Label::Integer)
    }

    pub(crate) fn integer(&mut self, expected: &'static str) -> Result<i128, DecodeError> {
        match self.number(expected)? {
            Number::Integer(integer) => Ok(integer),
            Number::Float(_) => Err(DecodeError::Shape(expected)),
        }
    }

    /// An integer, a float of any width, or a decimal fraction (tag 4, RFC 8949 §3.4.4).
    pub(crate) fn number(&mut self, expected: &'static str) -> Result<Number, DecodeError> {
        let head = self.head()?;
        match (head.major, head.info) {
            (major::UNSIGNED, 0..=27) => Ok(Number::Integer(i128::from(head.argument))),
            (major::NEGATIVE, 0..=27) => Ok(Number::Integer(-1 - i128::from(head.argument))),
            (major::SIMPLE, 25..=27) => Ok(Number::Float(float(&head))),
            (major::TAG, 0..=27) if head.argument == 4 => self.decimal_fraction(),
            _ => Err(DecodeError::Shape(expected)),
        }
    }

    /// `[exponent, mantissa]`, both integers: mantissa × 10^exponent, rounded once.
    fn decimal_fraction(&mut self) -> Result<Number, DecodeError> {
        const EXPECTED: &str = "a decimal fraction is an exponent and a mantissa, both integers";
        let mut parts = [0_i128; 2];
        let mut items = self.array(EXPECTED)?;
        for part in &mut parts {
            if !items.next(self)? {
                return Err(DecodeError::Shape(EXPECTED));
            }
            let head = self.head()?;
            *part = match (head.major, head.info) {
                (major::UNSIGNED, 0..=27) => i128::from(head.argument),
                (major::NEGATIVE, 0..=27) => -1 - i128::from(head.argument),
                _ => return Err(DecodeError::Shape(EXPECTED)),
            };
        }
        if items.next(self)? {
            return Err(DecodeError::Shape(EXPECTED));
        }
        let [exponent, mantissa] = parts;
        // The standard library's parser rounds correctly and takes any exponent.
        format!("{mantissa}e{exponent}")
            .parse()
            .map(Number::Float)
            .map_err(|_| DecodeError::Shape(EXPECTED))
    }

    /// Passes over one item of any kind.
    pub(crate) fn skip(&mut self) -> Result<(), DecodeError> {
        self.skip_at(0)
    }

    fn skip_at(&mut self, depth: u8) -> Result<(), DecodeError> {
        if depth > MAX_DEPTH {
            return Err(DecodeError::Unsupported("an item is nested too deep"));
        }
        let head = self.head()?;
        match head.major {
            major::BYTES | major::TEXT if head.is_indefinite() => Err(DecodeError::Unsupported(
                "a string has an indefinite length",
            )),
            major::BYTES | major::TEXT => self.take(head.argument).map(drop),
            major::ARRAY | major::MAP => {
                let mut items = Items((!head.is_indefinite()).then_some(head.argument));
                while items.next(self)? {
                    self.skip_at(depth + 1)?;
                    if head.major == major::MAP {
                        self.skip_at(depth + 1)?;
                    }
                }
                Ok(())
            }
            major::TAG => self.skip_at(depth + 1),
            _ if head.is_indefinite() => Err(DecodeError::Malformed("a break has nothing to end")),
            _ => Ok(()),
        }
    }

    fn items(&mut self, major: u8, expected: &'static str) -> Result<Items, DecodeError> {
        let head = self.head()?;
        if head.major != major {
            return Err(DecodeError::Shape(expected));
        }
        Ok(Items((!head.is_indefinite()).then_some(head.argument)))
    }

    fn head(&mut self) -> Result<Head, DecodeError> {
        let [first] = self.take_array()?;
        let (major, info) = (first >> 5, first & 0x1f);
        let argument = match info {
            0..=23 => u64::from(info),
            24 => u64::from(u8::from_be_bytes(self.take_array()?)),
            25 => u64::from(u16::from_be_bytes(self.take_array()?)),
            26 => u64::from(u32::from_be_bytes(self.take_array()?)),
            27 => u64::from_be_bytes(self.take_array()?),
            31 if !matches!(major, major::UNSIGNED | major::NEGATIVE | major::TAG) => 0,
            _ => return Err(DecodeError::Malformed("an initial byte is reserved")),
        };
        Ok(Head {
            major,
            info,
            argument,
        })
    }

    fn peek(&self) -> Result<u8, DecodeError> {
        self.bytes.get(self.at).copied().ok_or(TRUNCATED)
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let array = rest.first_chunk().copied().ok_or(TRUNCATED)?;
        self.at += N;
        Ok(array)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], DecodeError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = usize::try_from(length).map_err(|_| TRUNCATED)?;
        let taken = rest.get(..length).ok_or(TRUNCATED)?;
        self.at += length;
        Ok(taken)
    }
}

/// The float whose bits are the argument of a head with additional information 25, 26 or 27.
fn float(head: &Head) -> f64 {
    let [.., a, b, c, d] = head.argument.to_be_bytes();
    match head.info {
        25 => f16::from_be_bytes([c, d]).to_f64(),
        26 => f64::from(f32::from_be_bytes([a, b, c, d])),
        _ => f64::from_bits(head.argument),
    }
}

/// Writes CBOR, deterministically.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn array(&mut self, length: usize) {
        self.head(major::ARRAY, length as u64);
    }

    pub(crate) fn map(&mut self, length: usize) {
        self.head(major::MAP, length as u64);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.head(major::TEXT, text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn integer(&mut self, integer: i64) {
        match u64::try_from(integer) {
            Ok(unsigned) => self.head(major::UNSIGNED, unsigned),
            Err(_) => self.head(major::NEGATIVE, (!integer).cast_unsigned()),
        }
    }

    /// An integer where the number is one, otherwise the shortest float that is exactly this number.
    pub(crate) fn number(&mut self, number: f64) {
        if number.fract() == 0.0 && number.abs() <= MAX_EXACT_INTEGER {
            #[expect(clippy::cast_possible_truncation, reason = "integral and within ±2^53")]
            return self.integer(number as i64);
        }
        let half = f16::from_f64(number);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "compared with the original below"
        )]
        let single = number as f32;
        if half.to_f64() == number || number.is_nan() {
            self.0.push(major::SIMPLE << 5 | 25);
            self.0.extend_from_slice(&half.to_be_bytes());
        } else if f64::from(single) == number {
            self.0.push(major::SIMPLE << 5 | 26);
            self.0.extend_from_slice(&single.to_be_bytes());
        } else {
            self.0.push(major::SIMPLE << 5 | 27);
            self.0.extend_from_slice(&number.to_be_bytes());
        }
    }

    fn head(&mut self, major: u8, argument: u64) {
        let bytes = argument.to_be_bytes();
        let (info, used) = match argument {
            0..=23 => (bytes[7], 0),
            24..=0xff => (24, 1),
            0x100..=0xffff => (25, 2),
            0x1_0000..=0xffff_ffff => (26, 4),
            _ => (27, 8),
        };
        self.0.push(major << 5 | info);
        self.0.extend_from_slice(&bytes[8 - used..]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(number: f64) -> String {
        let mut writer = Writer::default();
        writer.number(number);
        hex::encode(writer.into_bytes())
    }

    fn read(bytes: &str) -> Result<Number, DecodeError> {
        let bytes = hex::decode(bytes).unwrap();
        let mut reader = Reader::new(&bytes);
        let number = reader.number("a number")?;
        reader.finish()?;
        Ok(number)
    }

    /// RFC 8949, Appendix A; integral floats are written as integers here.
    #[test]
    fn the_examples_of_the_standard() {
        for (number, bytes) in [
            (23.0, "17"),
            (24.0, "1818"),
            (1_000_000.0, "1a000f4240"),
            (1_000_000_000_000.0, "1b000000e8d4a51000"),
            (-1.0, "20"),
            (-1000.0, "3903e7"),
            (1.5, "f93e00"),
            (5.960_464_477_539_063e-8, "f90001"),
            (0.000_061_035_156_25, "f90400"),
            (1.1, "fb3ff199999999999a"),
            (3.402_823_466_385_288_6e38, "fa7f7fffff"),
            (1e300, "fb7e37e43c8800759c"),
            (-4.1, "fbc010666666666666"),
            (f64::INFINITY, "f97c00"),
        ] {
            assert_eq!(written(number), bytes);
            assert_eq!(read(bytes).unwrap().to_f64(), number);
        }
        // Longer than needed, a decimal fraction (§3.4.4), the largest magnitudes.
        assert_eq!(read("1b0000000000000017"), Ok(Number::Integer(23)));
        assert_eq!(read("c48221196ab3"), Ok(Number::Float(273.15)));
        assert_eq!(
            read("1bffffffffffffffff"),
            Ok(Number::Integer(i128::from(u64::MAX)))
        );
        assert_eq!(
            read("3bffffffffffffffff"),
            Ok(Number::Integer(-1 - i128::from(u64::MAX)))
        );
        for refused in [
            "",
            "18",
            "f4",
            "c0",
            "c48221",
            "c483010101",
            "1c",
            "ff",
            "f8ff",
            "1700",
        ] {
            assert!(read(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn skipping_ends_where_the_item_ends_and_is_bounded() {
        for item in [
            "17", "43010203", "63616263", "8101", "9f01ff", "a10102", "bf0102ff", "c101", "f6",
        ] {
            let bytes = hex::decode(item).unwrap();
            let mut reader = Reader::new(&bytes);
            reader.skip().unwrap();
            reader.finish().unwrap();
            let mut cut = Reader::new(&bytes[..bytes.len() - 1]);
            assert!(cut.skip().is_err(), "{item} cut short");
        }
        assert!(
            Reader::new(&[0x81; 100_000]).skip().is_err(),
            "nested without end"
        );
        assert!(
            Reader::new(&[0xc1; 100_000]).skip().is_err(),
            "tagged without end"
        );
        assert!(
            Reader::new(&hex::decode("9bffffffffffffffff").unwrap())
                .skip()
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn numbers_survive(number in proptest::num::f64::ANY.prop_filter("NaN", |n| !n.is_nan())) {
            let bytes = hex::decode(written(number)).unwrap();
            prop_assert_eq!(Reader::new(&bytes).number("a number").unwrap().to_f64(), number);
        }

        #[test]
        fn integers_survive(integer: i64) {
            let mut writer = Writer::default();
            writer.integer(integer);
            let bytes = writer.into_bytes();
            prop_assert_eq!(Reader::new(&bytes).integer("").unwrap(), i128::from(integer));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Reader::new(&bytes).skip();
            let _ = Reader::new(&bytes).number("");
            let _ = Reader::new(&bytes).label();
        }
    }
}
