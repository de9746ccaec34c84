//! The layout, the properties, and the hostile input.

use proptest::prelude::*;

use super::*;
use crate::signal::PULSE_WAVEFORM;

fn pulse(samples: Vec<i32>) -> Waveform {
    let start = Timestamp::from_second(1_767_312_000).unwrap();
    let period = Period::new(1_000_000, 117).unwrap();
    Waveform::new(
        signal(PULSE_WAVEFORM).unwrap(),
        start,
        period,
        1.0,
        0.0,
        samples,
    )
    .unwrap()
}

fn extreme_integer() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => 0..1000_i64,
        1 => any::<i64>(),
        1 => prop::sample::select(vec![
            -1, i64::from(i32::MAX), i64::from(i32::MIN), i64::from(u32::MAX), 1 << 32, i64::MAX, i64::MIN,
            253_402_207_200_999_999,
        ]),
    ]
}

fn extreme_float() -> impl Strategy<Value = f64> {
    prop_oneof![
        2 => -10.0..10.0_f64,
        1 => proptest::num::f64::ANY,
        1 => prop::sample::select(vec![0.0, -0.0, f64::MAX, f64::MIN, f64::MIN_POSITIVE, f64::INFINITY]),
    ]
}

/// The layout, byte by byte.
#[test]
fn the_layout_stays_as_drawn() {
    let payload = encode(&pulse(vec![515, 514, 516]));
    assert_eq!(
        hex::encode(&payload),
        "a7000101663135303435320 21b0006475c63f7a00003821a000f4240187504010500068319020320 02"
            .replace(' ', "")
    );
    let readings = decode(&payload).unwrap();
    let values: Vec<_> = readings.iter().map(|reading| reading.value).collect();
    assert_eq!(values, [515.0, 514.0, 516.0]);
    // 1/117 s = 8547.0085… µs
    assert_eq!(readings[1].at.to_string(), "2026-01-02T00:00:00.008547Z");
    assert_eq!(readings[2].at.to_string(), "2026-01-02T00:00:00.017094Z");
}

proptest! {
    #[test]
    fn decode_undoes_encode(
        samples in proptest::collection::vec(any::<i32>(), 1..300),
        start_us in 0..4_102_444_800_000_000_i64,
        micros in 1..u32::MAX, count in 1..u32::MAX,
        factor in -1e6..1e6_f64, origin in -1e6..1e6_f64,
    ) {
        let start = Timestamp::from_microsecond(start_us).unwrap();
        let period = Period::new(micros, count).unwrap();
        let signal = signal(PULSE_WAVEFORM).unwrap();
        let waveform = Waveform::new(signal, start, period, factor, origin, samples).unwrap();
        let payload = encode(&waveform);
        let readings = decode(&payload).unwrap();
        prop_assert_eq!(readings.len(), waveform.len());
        prop_assert_eq!(readings, waveform.readings());
        prop_assert_eq!(read(&payload), Ok(waveform));
    }

    /// The clock of the samples: exact to half a microsecond at every period, and never backwards.
    #[test]
    fn every_sample_has_its_instant(
        start_us in 0..4_102_444_800_000_000_i64, count in 1..400_usize,
        micros in prop_oneof![1..100_u32, any::<u32>()], samples in prop_oneof![1..100_u32, any::<u32>()],
    ) {
        let period = Period::new(micros.max(1), samples.max(1)).unwrap();
        let start = Timestamp::from_microsecond(start_us).unwrap();
        let signal = signal(PULSE_WAVEFORM).unwrap();
        let waveform = Waveform::new(signal, start, period, 1.0, 0.0, vec![0; count]).unwrap();
        let readings = decode(&encode(&waveform)).unwrap();
        for (index, reading) in readings.iter().enumerate() {
            let passed = i128::from(reading.at.as_microsecond() - start_us);
            let (micros, samples) = (i128::from(period.micros.get()), i128::from(period.samples.get()));
            let off = passed * samples - index as i128 * micros;
            prop_assert!(2 * off.abs() <= samples, "sample {index}");
        }
        prop_assert!(readings.is_sorted_by_key(|reading| reading.at));
    }

    /// Whatever numbers stand in the seven fields: refused, or as many finite readings as samples, in order.
    #[test]
    fn extreme_fields_are_refused_or_finite(
        start in extreme_integer(), micros in extreme_integer(), count in extreme_integer(),
        factor in extreme_float(), origin in extreme_float(),
        samples in proptest::collection::vec(extreme_integer(), 0..8),
    ) {
        let mut writer = Writer::default();
        writer.map(7);
        writer.integer(0);
        writer.integer(VERSION);
        writer.integer(1);
        writer.text(PULSE_WAVEFORM);
        writer.integer(2);
        writer.integer(start);
        writer.integer(3);
        writer.array(2);
        writer.integer(micros);
        writer.integer(count);
        writer.integer(4);
        writer.number(factor);
        writer.integer(5);
        writer.number(origin);
        writer.integer(6);
        writer.array(samples.len());
        for sample in &samples {
            writer.integer(*sample);
        }
        if let Ok(readings) = decode(&writer.into_bytes()) {
            prop_assert_eq!(readings.len(), samples.len());
            prop_assert!(readings.iter().all(|reading| reading.value.is_finite()));
            prop_assert!(readings.is_sorted_by_key(|reading| reading.at));
            prop_assert!(start >= 0 && micros > 0 && count > 0);
        }
    }

    #[test]
    fn damage_never_panics(at: prop::sample::Index, to: u8, samples in proptest::collection::vec(any::<i32>(), 1..50)) {
        let mut payload = encode(&pulse(samples));
        let at = at.index(payload.len());
        prop_assert!(decode(&payload[..at]).is_err());
        payload[at] = to;
        let _ = decode(&payload);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
    }
}

#[test]
fn what_no_receiver_takes_is_not_built() {
    let signal = signal(PULSE_WAVEFORM).unwrap();
    let start = Timestamp::from_second(1_767_312_000).unwrap();
    let period = Period::new(1, 1).unwrap();
    let build = |start, factor, samples| Waveform::new(signal, start, period, factor, 0.0, samples);
    assert_eq!(build(start, 1.0, vec![]), Err(WaveformError::Count));
    assert_eq!(
        build(start, 1.0, vec![0; MAX_READINGS + 1]),
        Err(WaveformError::Count)
    );
    assert_eq!(build(start, f64::NAN, vec![0]), Err(WaveformError::Value));
    assert_eq!(build(start, f64::MAX, vec![2]), Err(WaveformError::Value));
    // The last instant of the calendar is in the second of the thousandth sample.
    let late = |count| {
        let start = Timestamp::from_second(Timestamp::MAX.as_second() - 999).unwrap();
        let period = Period::new(1_000_000, 1).unwrap();
        Waveform::new(signal, start, period, 1.0, 0.0, vec![0; count])
    };
    assert!(late(1000).is_ok());
    assert_eq!(late(1001), Err(WaveformError::Time));
    // What is finer than a microsecond would be lost on the wire.
    let fine = start + jiff::SignedDuration::from_nanos(999);
    assert_eq!(build(fine, 1.0, vec![0]), build(start, 1.0, vec![0]));
    assert_eq!(
        build(Timestamp::MIN, 1.0, vec![0]),
        Err(WaveformError::Time)
    );
    assert_eq!(Period::new(0, 1), None);
}

#[test]
fn hostile_payloads_are_refused() {
    let good = hex::encode(encode(&pulse(vec![1, 2])));
    for (was, is) in [
        ("a70001", "a70002"),                 // version
        ("a70001", "bf0001"),                 // indefinite length
        ("66313530343532", "66313530343533"), // unknown signal
        ("1a000f4240", "1a00000000"),         // no time passes
        ("04010500", "04f97e000500"),         // factor NaN
        ("04010500", "05000401"),             // out of order
        ("06820101", "0680"),                 // no samples
        ("06820101", "069f0101ff"),           // samples without a count
        ("06820101", "069927110101"),         // too many
        ("06820101", "06821a7fffffff01"),     // beyond 32 bits
        ("06820101", "0682010100"),           // trailing byte
    ] {
        let payload = good.replacen(was, is, 1);
        assert_ne!(payload, good, "{was} is in the payload");
        assert!(
            decode(&hex::decode(&payload).unwrap()).is_err(),
            "{payload}"
        );
    }
}

#[test]
fn debug_is_silent_about_the_samples() {
    let shown = format!("{:?}", pulse(vec![51_423, 51_424]));
    assert!(
        shown.contains("len: 2") && !shown.contains("5142"),
        "{shown}"
    );
}
