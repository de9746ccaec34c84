//! What goes into a chunk comes out of it, and whatever else is given to it is refused without harm.

mod columns;
mod corpus;
mod hostile;
mod vectors;

use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::prelude::*;
use vitalseal_vitals::{Period, Quality, Reading, Waveform, signals};
use zeroize::Zeroizing;

use super::*;

/// A message and its readings.
type Sent = (MessageMeta, Vec<Reading>);

/// Of each series, by signal number and device: every reading's instant, bits and message, in the order of time.
type Rows = BTreeMap<(u16, String), Vec<(i64, u64, MessageMeta)>>;

fn build(sent: &[Sent]) -> Zeroizing<Vec<u8>> {
    let mut builder = ReadingsBuilder::new();
    for (index, (meta, readings)) in (0..).zip(sent) {
        assert_eq!(builder.message(meta.clone()), index);
        builder.push(index, readings);
    }
    builder.finish().unwrap()
}

/// What a chunk of these should hold, found the slow way.
fn expected(sent: &[Sent]) -> Rows {
    let mut rows = Rows::new();
    for (meta, readings) in sent {
        for reading in readings {
            let series = (reading.signal.number, meta.device.to_string());
            let row = (
                reading.at.as_microsecond(),
                reading.value.to_bits(),
                meta.clone(),
            );
            rows.entry(series).or_default().push(row);
        }
    }
    rows.values_mut()
        .for_each(|rows| rows.sort_by_key(|row| row.0));
    rows
}

fn decoded(readings: &Readings) -> Rows {
    let messages = readings.messages().unwrap();
    let mut rows = Rows::new();
    for series in readings.series() {
        // Columns are appended: what is there stays.
        let (mut at, mut value, mut message) = (vec![7], vec![7.5], vec![7]);
        readings.times(series, &mut at).unwrap();
        readings.values(series, &mut value).unwrap();
        readings.message_indexes(series, &mut message).unwrap();
        assert_eq!((at[0], value[0], message[0]), (7, 7.5, 7));
        assert_eq!(
            [at.len(), value.len(), message.len()],
            [series.stats.count + 1; 3]
        );
        let name = (
            series.signal.number,
            readings.devices()[series.device as usize].to_string(),
        );
        let rows = rows.entry(name).or_default();
        for index in 1..at.len() {
            let meta = messages
                .meta(message[index] as usize, readings.devices())
                .unwrap();
            rows.push((at[index], value[index].to_bits(), meta));
        }
    }
    rows
}

fn parse(bytes: &[u8]) -> Readings {
    Readings::parse(Zeroizing::new(bytes.to_vec())).unwrap()
}

fn instant() -> impl Strategy<Value = i64> {
    prop_oneof![
        // A few seconds on the clock of a device, in each of its resolutions.
        (0..50_i64).prop_map(|s| 1_767_312_000_000_000 + s * 1_000_000),
        (0..50_000_i64).prop_map(|ms| 1_767_312_000_000_000 + ms * 1_000),
        1_767_312_000_000_000..1_767_312_050_000_000_i64,
        Timestamp::MIN.as_microsecond() + 1..Timestamp::MAX.as_microsecond(),
    ]
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (0..3000_i32).prop_map(|tenths| f64::from(tenths) / 10.0),
        2 => (-2000..2000_i32).prop_map(f64::from),
        1 => any::<f64>().prop_filter("a codec gives no other", |value| value.is_finite()),
        1 => prop::sample::select(vec![
            0.0, -0.0, f64::MIN_POSITIVE, 5e-324, -5e-324, f64::MAX, f64::MIN, 0.1 + 0.2, 1e15, 1e16, 2251799813685248.0,
        ]),
    ]
}

fn reading() -> impl Strategy<Value = Reading> {
    (
        prop::sample::select(signals().iter().collect::<Vec<_>>()),
        value(),
        instant(),
    )
        .prop_map(|(signal, value, at)| Reading {
            signal,
            value,
            at: Timestamp::from_microsecond(at).unwrap(),
        })
}

fn sent() -> impl Strategy<Value = Vec<Sent>> {
    let meta = (0..3_u8, any::<u64>(), any::<u64>(), any::<i64>()).prop_map(
        |(device, boot, sequence, received_at_us)| MessageMeta {
            device: format!("monitor-{device}").parse().unwrap(),
            boot,
            sequence,
            received_at_us,
        },
    );
    prop::collection::vec((meta, prop::collection::vec(reading(), 0..40)), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_reading_comes_back_bit_for_bit_with_its_message(sent in sent()) {
        let bytes = build(&sent);
        let readings = parse(&bytes);
        prop_assert_eq!(readings.message_count(), sent.len());
        prop_assert_eq!(decoded(&readings), expected(&sent));
        prop_assert_eq!(padded_length(bytes.len()), bytes.len());
        let order = |series: &Series| (series.signal.number, series.device);
        prop_assert!(readings.series().is_sorted_by_key(order));
    }

    #[test]
    fn merged_chunks_are_the_chunk_of_all_their_messages(sent in sent(), at in any::<prop::sample::Index>()) {
        let (one, two) = sent.split_at(at.index(sent.len() + 1));
        let mut merged = ReadingsBuilder::new();
        merged.merge(&parse(&build(one))).unwrap();
        merged.merge(&parse(&build(two))).unwrap();
        prop_assert_eq!(merged.finish().unwrap(), build(&sent));
    }

    #[test]
    fn what_is_said_of_a_series_is_what_counting_finds(sent in sent()) {
        let readings = parse(&build(&sent));
        for series in readings.series() {
            let device = &readings.devices()[series.device as usize];
            let of = sent.iter().filter(|(meta, _)| meta.device == *device);
            let of = of.flat_map(|(_, readings)| readings);
            let mut of: Vec<&Reading> = of.filter(|reading| reading.signal == series.signal).collect();
            of.sort_by_key(|reading| reading.at);
            let stats = series.stats;
            prop_assert_eq!(stats.count, of.len());
            let flagged = of.iter().filter(|reading| reading.quality() == Quality::Flagged);
            prop_assert_eq!(stats.flagged, flagged.count());
            let at = |reading: Option<&&Reading>| reading.unwrap().at.as_microsecond();
            prop_assert_eq!((stats.first_us, stats.last_us), (at(of.first()), at(of.last())));
            let mut values: Vec<f64> = of.iter().map(|reading| reading.value).collect();
            let mut sum = -0.0;
            values.iter().for_each(|value| sum += value);
            let bits = |values: [f64; 2]| values.map(f64::to_bits);
            prop_assert_eq!(bits([stats.last_value, stats.sum]), bits([*values.last().unwrap(), sum]));
            values.sort_by(f64::total_cmp);
            prop_assert_eq!(bits([stats.min, stats.max]), bits([values[0], *values.last().unwrap()]));
        }
    }

    #[test]
    fn every_waveform_comes_back_sample_for_sample(stretches in prop::collection::vec(stretch(), 0..8)) {
        let mut builder = WaveformsBuilder::new();
        for (index, waveform) in (0..).zip(&stretches) {
            builder.message(meta(u64::from(index)));
            builder.push(index, waveform.clone());
        }
        let bytes = builder.finish().unwrap();
        let waveforms = Waveforms::parse(bytes.clone()).unwrap();
        prop_assert_eq!(waveforms.rows().len(), stretches.len());
        for row in waveforms.rows() {
            let sent = &stretches[row.message as usize];
            let (mut samples, mut values) = (vec![], vec![]);
            waveforms.samples(row, &mut samples).unwrap();
            waveforms.values(row, &mut values).unwrap();
            prop_assert_eq!(samples.as_slice(), sent.samples());
            let readings = sent.readings();
            prop_assert!(values.iter().map(|value| value.to_bits()).eq(readings.iter().map(|r| r.value.to_bits())));
            prop_assert_eq!(row.start_us, sent.start().as_microsecond());
            prop_assert_eq!(row.last_us(), readings.last().unwrap().at.as_microsecond());
        }
        let mut merged = WaveformsBuilder::new();
        merged.merge(&waveforms).unwrap();
        let messages = waveforms.message_count();
        merged.merge(&waveforms).unwrap();
        let twice = Waveforms::parse(merged.finish().unwrap()).unwrap();
        prop_assert_eq!(twice.message_count(), 2 * messages);
        prop_assert_eq!(twice.rows().len(), 2 * stretches.len());
    }
}

fn meta(sequence: u64) -> MessageMeta {
    MessageMeta {
        device: "monitor-001".parse().unwrap(),
        boot: 7,
        sequence,
        received_at_us: 1_767_312_000_000_000,
    }
}

fn stretch() -> impl Strategy<Value = Waveform> {
    let samples = prop_oneof![
        prop::collection::vec(-2000..2000_i32, 1..300),
        prop::collection::vec(any::<i32>(), 1..40),
    ];
    (samples, 1..10_000_u32, 0..1_000_000_i64, any::<bool>()).prop_map(
        |(samples, samples_a_second, at_us, is_raw)| {
            let start = Timestamp::from_microsecond(1_767_312_000_000_000 + at_us).unwrap();
            let period = Period::new(1_000_000, samples_a_second).unwrap();
            let (factor, origin) = if is_raw {
                (1.0, 0.0)
            } else {
                (0.1 + 0.2, -512.25)
            };
            Waveform::new(&signals()[7], start, period, factor, origin, samples).unwrap()
        },
    )
}

/// An hour of a monitor: its five signals lie on one column of times and one of messages.
#[test]
fn signals_of_one_instant_share_their_times() {
    let at = |second| Timestamp::from_second(1_767_312_000 + second).unwrap();
    let step = |second, signals: &'static [vitalseal_vitals::Signal]| {
        signals.iter().map(move |signal| Reading {
            signal,
            value: 60.0,
            at: at(second),
        })
    };
    let all = &signals()[..5];
    let minute = |minute: i64| {
        (minute * 60..minute * 60 + 60)
            .flat_map(|second| step(second, all))
            .collect()
    };
    let sent: Vec<Sent> = (0..60)
        .map(|n| (meta(n), minute(n.cast_signed())))
        .collect();
    let bytes = build(&sent);
    let readings = parse(&bytes);
    let [first, rest @ ..] = readings.series() else {
        panic!("five series")
    };
    assert!(rest.len() == 4 && rest.iter().all(|series| series.has_times_of(first)));
    assert_eq!(decoded(&readings), expected(&sent));
    assert!(
        bytes.len() < 512,
        "{} bytes for 18,000 readings of nothing new",
        bytes.len()
    );

    let mut sent = sent;
    sent[30].1.remove(0);
    let readings = parse(&build(&sent));
    let [first, rest @ ..] = readings.series() else {
        panic!("five series")
    };
    assert!(
        rest.iter()
            .all(|series| !series.has_times_of(first) && series.has_times_of(&rest[0]))
    );
    assert_eq!(decoded(&readings), expected(&sent));
}

#[test]
fn a_reading_without_a_message_makes_no_chunk() {
    let reading = Reading {
        signal: &signals()[0],
        value: 60.0,
        at: Timestamp::UNIX_EPOCH,
    };
    let mut builder = ReadingsBuilder::new();
    builder.push(0, &[reading]);
    assert_eq!(builder.finish().unwrap_err(), ChunkError::NoSuchMessage);
    let mut builder = WaveformsBuilder::new();
    let period = Period::new(8000, 1).unwrap();
    let waveform = Waveform::new(&signals()[7], reading.at, period, 1.0, 0.0, vec![1]).unwrap();
    builder.push(0, waveform);
    assert_eq!(builder.finish().unwrap_err(), ChunkError::NoSuchMessage);
}

#[test]
fn evidence_comes_back_bit_for_bit_and_what_repeats_is_stored_once() {
    let envelopes: Vec<Vec<u8>> = (0..50_u8)
        .map(|n| {
            [
                b"the same header in every envelope of a device".repeat(4),
                vec![n; usize::from(n)],
            ]
            .concat()
        })
        .collect();
    let noted = |n: u32| Noted {
        received_at_us: 1_767_312_000_000_000 + i64::from(n),
        first_at_us: -1 - i64::from(n),
        last_at_us: i64::MAX,
        readings: u32::MAX - n,
    };
    let mut builder = EvidenceBuilder::new();
    for (n, envelope) in (0..).zip(&envelopes) {
        builder.push(&noted(n), envelope);
    }
    let plain = builder.finish().unwrap();
    assert_eq!(padded_length(plain.len()), plain.len());
    assert!(plain.len() * 10 < envelopes.concat().len());
    let evidence = Evidence::parse(&plain).unwrap();
    assert_eq!(evidence.count(), 50);
    assert!(evidence.iter().eq(envelopes.iter().map(Vec::as_slice)));
    let said: Vec<Noted> = evidence.messages().map(|(noted, _)| *noted).collect();
    assert_eq!(said, (0..50).map(noted).collect::<Vec<_>>());
    let nothing = Evidence::parse(&EvidenceBuilder::new().finish().unwrap()).unwrap();
    assert_eq!(nothing.count(), 0);
}

#[test]
fn what_is_said_of_devices_adds_up() {
    let (mut one, mut two, mut all) = (Devices::default(), Devices::default(), Devices::default());
    for n in 0..100_u64 {
        let received_at_us = 1_767_312_000_000_000 - n.cast_signed() * 1_000;
        let device = format!("monitor-{}", n % 3).parse().unwrap();
        let message = MessageMeta {
            device,
            boot: 9 - n / 40,
            sequence: n % 40,
            received_at_us,
        };
        let at = -(n.cast_signed());
        let half = if n < 50 { &mut one } else { &mut two };
        half.add(&message, n, at - 60, at);
        all.add(&message, n, at - 60, at);
    }
    one.merge(&two);
    assert_eq!(one, all);
    assert_eq!(Devices::parse(&all.to_bytes()).unwrap(), all);
    let of = all.find(&"monitor-1".parse().unwrap()).unwrap();
    assert_eq!(
        (of.messages, of.readings),
        (33, (0..33).map(|n| 3 * n + 1).sum())
    );
    assert_eq!((of.first, of.last), ((7, 2), (9, 37)));
    assert_eq!((of.first_at_us, of.last_at_us), (-157, -1));
    assert_eq!(
        (of.received_first_us, of.received_last_us),
        (1_767_311_999_903_000, 1_767_311_999_999_000)
    );
    assert_eq!(all.iter().count(), 3);
}

#[test]
fn no_part_of_a_chunk_prints_a_value() {
    let reading = Reading {
        signal: &signals()[0],
        value: 61.25,
        at: Timestamp::UNIX_EPOCH,
    };
    let readings = parse(&build(&[(meta(1), vec![reading])]));
    let mut builder = ReadingsBuilder::new();
    builder.merge(&readings).unwrap();
    let series = &readings.series()[0];
    let printed = format!("{builder:?} {readings:?} {series:?} {:?}", series.stats);
    assert!(
        printed.contains("8867-4") && !printed.contains("61"),
        "{printed}"
    );
}
