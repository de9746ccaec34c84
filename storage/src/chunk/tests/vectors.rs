//! One small chunk of each kind, byte by byte: a format that changes without its version shows here.
//!
//! Evidence is only read, not written: another version of the compressor may compress otherwise.

use jiff::Timestamp;
use vitalseal_vitals::{Period, Reading, Waveform, signal};
use zeroize::Zeroizing;

use super::super::{
    ChunkError, Devices, Evidence, EvidenceBuilder, MessageMeta, Noted, ReadingsBuilder, Waveforms,
    WaveformsBuilder, evidence_of,
};
use super::{Sent, build, decoded, expected, parse};

pub(super) fn sent() -> Vec<Sent> {
    let at = |s: i64| Timestamp::from_second(1_767_312_000 + s).unwrap();
    let reading = |code, value, s| Reading {
        signal: signal(code).unwrap(),
        value,
        at: at(s),
    };
    let meta = |sequence, s| MessageMeta {
        device: "mon-1".parse().unwrap(),
        boot: 7,
        sequence,
        received_at_us: at(s).as_microsecond(),
    };
    let pulse = |s, value| reading("8867-4", value, s);
    vec![
        (
            meta(100, 4),
            vec![
                pulse(0, 62.0),
                pulse(1, 63.0),
                pulse(2, 61.0),
                reading("8310-5", 36.7, 2),
            ],
        ),
        (
            meta(101, 9),
            vec![pulse(5, 62.0), reading("8310-5", 0.1 + 0.2, 8)],
        ),
    ]
}

fn waveform() -> Waveform {
    let start = Timestamp::from_second(1_767_312_000).unwrap();
    let period = Period::new(1_000_000, 117).unwrap();
    let samples = vec![515, 514, 516, 530, 511];
    Waveform::new(
        signal("150452").unwrap(),
        start,
        period,
        0.5,
        -512.0,
        samples,
    )
    .unwrap()
}

fn noted() -> Noted {
    Noted {
        received_at_us: 1_767_312_004_000_000,
        first_at_us: 1_767_312_000_000_000,
        last_at_us: 1_767_312_002_000_000,
        readings: 4,
    }
}

const READINGS: &str = "
    02 EVIDENCE                 # version, what it was made of
    02 01 05 6d6f6e2d31         # two messages of one device: mon-1
    03 000000                   # their devices: frame, 0 bits, 0
    03 00000e                   # boots: 7
    05 0001c801 02              # sequences: frame, 1 bit, 100; 0 and 1
    10 0100 80a4a5c38cd7a306    # received: line, 0 bits, 1767312004000000
       808080b48913             # and 5,000,000 µs a message
    02                          # two series
    00 00 04 00                 # heart rate, device 0, four readings, none flagged
    8080bdbf8cd7a306 c096b102   # from 1767312000000000, for 5,000,000 µs
    007a 007e 007c 00f003       # 61, 63, 62, 248
    05 06 0a                    # lengths
    03 00 02 01                 # body temperature, two readings, one flagged
    8092f401 809bee02           # from 2 s later, for 6 s
    ff343333333333d33f 01de05   # 0.30000000000000004, 36.7
    ff343333333333d33f 004a     # 0.30000000000000004, 37
    15 05 09                    # lengths
    00 00027a 49                # values: whole; frame, 2 bits, 61; 1 2 0 1
    02 000300 880a              # times: s; frame, 3 bits, 0; 0 1 2 5
    02 04 000100 02 000202 02   # two runs, of messages 0 and 1, of 1 + 2 and 1 + 0 readings
    ff 0200 cb99b3e6cc99936f    # values: bits; delta, 0 bits
       808080808080c0b18101
    02 000300 30                # times: 0 6
    02 04 000100 02 000002      # one reading of each message
    00000000000000000000000000000000 # slack
    00000000000000000000000000  # padding
";
const WAVEFORMS: &str = "
    02 EVIDENCE                 # version, what it was made of
    01 01 05 6d6f6e2d31         # a message of one device: mon-1
    03 000000 03 00000e         # device, boot
    04 0000c801                 # sequence
    0a 0000 80a4a5c38cd7a306    # received
    01                          # one stretch
    03 00000e 03 000000         # pulse waveform, message 0
    0a 0000 8080bdbf8cd7a306    # from 1767312000000000
    05 000080897a 04 0000ea01   # 1,000,000 µs in 117 samples
    03 00000a 03 000010         # five samples, in eight bytes
    04 01 00000a                # factor 0.5
    05 00 0000ff07              # origin -512
    0005fe07 64940900           # samples: frame, 5 bits, 511; 4 3 5 19 0
    00000000000000000000000000000000 # slack
    0000000000                  # padding
";
const EVIDENCE: &str = "
    01 01 1d                    # version, one envelope, 29 bytes
    26 28b52ffd201de90000       # in a Zstandard frame of 38, which keeps them as they are
    80a4a5c38cd7a306            # received
    ffa3e803 8092f401 04        # 4 s earlier, for 2 s; four readings
    0b 616e20656e76656c6f7065   # eleven bytes: an envelope
    0000                        # padding
";
const DEVICES: &str = "
    01 01 05 6d6f6e2d31         # version, one device: mon-1
    02 06 0764 0765             # two messages of six readings, from 7/100 to 7/101
    8080bdbf8cd7a306 80a4e803   # from 1767312000000000, for 8 s
    80a4a5c38cd7a306 c096b102   # received from 1767312004000000, for 5 s
";

/// SHA-256 of what [`EVIDENCE`] decompresses to.
const DIGEST: &str = "60904b6f4e5e09aaa2c3b3b8acfaf5104ddc07a1a6eba89abe73588055470d9b";

/// The bytes of a vector, whose lines are explained behind `#`.
fn bytes(annotated: &str) -> Vec<u8> {
    let annotated = annotated.replace("EVIDENCE", DIGEST);
    let hex = annotated.lines().filter_map(|line| line.split('#').next());
    hex::decode(hex.flat_map(str::split_whitespace).collect::<String>()).unwrap()
}

fn digest() -> [u8; 32] {
    hex::decode(DIGEST).unwrap().try_into().unwrap()
}

#[test]
fn the_layout_of_readings_is_as_it_was() {
    let mut builder = ReadingsBuilder::new();
    builder.merge(&parse(&build(&sent()))).unwrap();
    builder.prove(digest());
    let built = builder.finish().unwrap();
    assert_eq!(hex::encode(&*built), hex::encode(bytes(READINGS)));
    let readings = parse(&bytes(READINGS));
    assert_eq!(decoded(&readings), expected(&sent()));
    assert_eq!(readings.evidence(), Some(digest()));
}

#[test]
fn the_layout_of_waveforms_is_as_it_was() {
    let mut builder = WaveformsBuilder::new();
    builder.message(sent().remove(0).0);
    builder.push(0, waveform());
    builder.prove(digest());
    assert_eq!(
        hex::encode(&*builder.finish().unwrap()),
        hex::encode(bytes(WAVEFORMS))
    );
    let waveforms = Waveforms::parse(Zeroizing::new(bytes(WAVEFORMS))).unwrap();
    let mut samples = Vec::new();
    waveforms
        .samples(&waveforms.rows()[0], &mut samples)
        .unwrap();
    assert_eq!(samples, waveform().samples());
    assert_eq!(waveforms.evidence(), Some(digest()));
}

/// Before there was a version 02, a chunk began with its messages.
#[test]
fn what_version_1_left_is_read_and_names_no_evidence() {
    let old = |vector: &str| [&[1], &bytes(vector)[33..]].concat();
    let readings = parse(&old(READINGS));
    assert_eq!(decoded(&readings), expected(&sent()));
    let waveforms = Waveforms::parse(Zeroizing::new(old(WAVEFORMS))).unwrap();
    assert_eq!(waveforms.rows().len(), 1);
    assert_eq!((readings.evidence(), waveforms.evidence()), (None, None));
    for (plain, named) in [(bytes(READINGS), Some(digest())), (old(READINGS), None)] {
        assert_eq!(evidence_of(&plain), Ok(named));
    }
    for (nothing, error) in [
        (&[][..], ChunkError::Damaged("it ends too early")),
        (&[2, 0], ChunkError::Damaged("it ends too early")),
        (&[3], ChunkError::Version),
    ] {
        assert_eq!(evidence_of(nothing), Err(error));
    }
}

#[test]
fn the_layout_of_evidence_is_as_it_was() {
    let mut builder = EvidenceBuilder::new();
    builder.push(&noted(), b"an envelope");
    let written = Evidence::parse(&builder.finish().unwrap()).unwrap();
    let evidence = Evidence::parse(&bytes(EVIDENCE)).unwrap();
    assert!(evidence.messages().eq(written.messages()));
    assert!(
        evidence
            .messages()
            .eq([(&noted(), b"an envelope".as_slice())])
    );
    assert_eq!(hex::encode(evidence.digest()), DIGEST);
    // However it is compressed.
    assert_eq!(written.digest(), evidence.digest());
}

#[test]
fn the_layout_of_devices_is_as_it_was() {
    let mut devices = Devices::default();
    for (message, readings) in sent() {
        let at = |reading: &Reading| reading.at.as_microsecond();
        let (first, last) = (at(&readings[0]), at(readings.last().unwrap()));
        devices.add(&message, readings.len() as u64, first, last);
    }
    assert_eq!(hex::encode(devices.to_bytes()), hex::encode(bytes(DEVICES)));
    assert_eq!(Devices::parse(&bytes(DEVICES)).unwrap(), devices);
}
