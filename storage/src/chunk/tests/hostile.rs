//! Bytes that nobody wrote: an error or some readings, never a panic, and no memory that the bytes do not justify.
//!
//! Every blob is authenticated before it is parsed, so this is about our own mistakes and those of whoever holds a key.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use zeroize::Zeroizing;

use super::super::pack::SLACK;
use super::super::{
    ChunkError, Devices, Evidence, EvidenceBuilder, Noted, Readings, Waveforms, WaveformsBuilder,
};
use super::{Sent, build, sent, stretch};

/// Decodes whatever is there.
fn all_of(bytes: &[u8]) -> Result<usize, ChunkError> {
    let readings = Readings::parse(Zeroizing::new(bytes.to_vec()))?;
    let (mut at, mut value, mut from) = (Vec::new(), Vec::new(), Vec::new());
    let messages = readings.messages();
    let mut failed = messages.is_err();
    for series in readings.series() {
        failed |= readings.times(series, &mut at).is_err();
        failed |= readings.values(series, &mut value).is_err();
        failed |= readings.message_indexes(series, &mut from).is_err();
        // 1,024 values are three bytes at least.
        let most = 1024 * bytes.len() * readings.series().len();
        assert!(at.capacity().max(value.capacity()).max(from.capacity()) <= most);
        assert!(
            from.iter()
                .all(|index| (*index as usize) < readings.message_count())
        );
    }
    if failed {
        Err(ChunkError::Damaged("a column"))
    } else {
        Ok(at.len())
    }
}

fn all_waveforms_of(bytes: &[u8]) -> Result<usize, ChunkError> {
    let waveforms = Waveforms::parse(Zeroizing::new(bytes.to_vec()))?;
    waveforms.messages()?;
    let mut samples = Vec::new();
    for row in waveforms.rows() {
        assert!(row.last_us() >= row.start_us);
        waveforms.samples(row, &mut samples)?;
        assert!((row.message as usize) < waveforms.message_count());
    }
    WaveformsBuilder::new().merge(&waveforms)?;
    Ok(samples.len())
}

pub(super) fn some_messages() -> Vec<Sent> {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let some =
        |sent: &Vec<Sent>| (40..60).contains(&sent.iter().map(|sent| sent.1.len()).sum::<usize>());
    let mut all = std::iter::repeat_with(|| sent().new_tree(&mut runner).unwrap().current());
    all.find(some).unwrap()
}

pub(super) fn some_waveforms() -> Vec<u8> {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut builder = WaveformsBuilder::new();
    for n in 0..3 {
        let index = builder.message(super::meta(n));
        builder.push(index, stretch().new_tree(&mut runner).unwrap().current());
    }
    builder.finish().unwrap().to_vec()
}

fn some_evidence() -> Vec<u8> {
    let mut builder = EvidenceBuilder::new();
    let noted = Noted {
        received_at_us: 3,
        first_at_us: 1,
        last_at_us: 2,
        readings: 60,
    };
    (0..9_u8).for_each(|n| builder.push(&noted, &[n; 99]));
    builder.finish().unwrap()
}

fn all_evidence_of(bytes: &[u8]) -> Result<usize, ChunkError> {
    Ok(Evidence::parse(bytes)?.iter().map(<[u8]>::len).sum())
}

#[test]
fn no_truncation_and_no_flipped_bit_does_harm() {
    let mut devices = Devices::default();
    devices.add(&super::meta(1), 60, 1, 2);
    type Decode = fn(&[u8]) -> Result<usize, ChunkError>;
    let sound: [(Vec<u8>, usize, Decode); 4] = [
        (build(&some_messages()).to_vec(), SLACK, all_of),
        (some_waveforms(), SLACK, all_waveforms_of),
        (some_evidence(), 0, all_evidence_of),
        (devices.to_bytes(), 0, |bytes| {
            Ok(Devices::parse(bytes)?.iter().count())
        }),
    ];
    for (bytes, zeros, decode) in sound {
        assert!(decode(&bytes).unwrap() > 0);
        let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        for length in 0..=written {
            let decoded = decode(&bytes[..length]);
            assert!(decoded.is_err(), "{length} bytes of {}", bytes.len());
        }
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let decoded = decode(&changed);
            assert!(bit >= 8 || decoded == Err(ChunkError::Version));
            let is_padding = bit / 8 >= bytes.len() - zeros;
            assert!(!is_padding || decoded.is_err(), "padding says something");
        }
    }
}

/// A count that no column backs is refused before anything is reserved for it.
#[test]
fn a_count_is_believed_only_where_there_are_bytes_for_it() {
    let messages = [
        1, 1, 1, b'm', 3, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0,
    ];
    let entry = |count: &[u8]| {
        let column = [0, 0, 0, 0];
        let stats = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let lengths = [4, 4, 8];
        let runs = [1, 3, 0, 0, 0, 0, 0, 2];
        [
            &[1],
            &messages[..],
            &[1, 0, 0],
            count,
            &stats,
            &lengths,
            &column,
            &column,
            &runs,
            &[0; 16],
        ]
        .concat()
    };
    assert_eq!(all_of(&entry(&[1])).unwrap(), 1);
    assert!(
        all_of(&entry(&[0x80, 0x80, 0x80, 8])).is_err(),
        "2^24 readings in four bytes"
    );
    assert!(
        all_of(&entry(&[0x81, 0x80, 0x80, 8])).is_err(),
        "more than a chunk holds"
    );
    assert!(
        all_of(&entry(&[
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1
        ]))
        .is_err()
    );
}

/// What decompresses to more, or less, than it says is not taken for what it says.
#[test]
fn evidence_is_as_long_as_it_says() {
    let compressed = zstd::bulk::compress(&[b'x'; 1 << 20], 3).unwrap();
    let length = u8::try_from(compressed.len()).unwrap();
    for says in [[0xff, 0xff, 0x3f], [0x81, 0x80, 0x40], [0x80, 0x80, 0]] {
        let bytes = [&[1, 0], &says[..], &[length], &compressed].concat();
        assert!(Evidence::parse(&bytes).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn damaged_chunks_break_nothing(
        sent in sent(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = build(&sent).to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = all_of(&bytes);
        let _ = all_waveforms_of(&bytes);
    }

    #[test]
    fn noise_is_no_chunk(mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        bytes.insert(0, 1);
        let _ = all_of(&bytes);
        let _ = all_waveforms_of(&bytes);
        let _ = all_evidence_of(&bytes);
        let _ = Devices::parse(&bytes);
    }
}
