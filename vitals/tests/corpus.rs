//! The seeds of the payload codecs' fuzz targets, replayed as they are and damaged.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "tests argue with unwrap; the shared files are public in the fuzz crate"
)]

#[path = "../../fuzz/src/payload.rs"]
mod payload;
#[path = "../../fuzz/src/seeds.rs"]
mod seeds;

use proptest::prelude::*;
use serde_json::Value;
use vitalseal_vitals::{Period, Reading, Waveform, senml, signal, signals, waveform};

#[test]
fn every_seed_is_taken_or_refused_as_its_name_says() {
    seeds::replay("senml_decode", payload::senml_decode);
    seeds::replay("waveform_decode", payload::waveform_decode);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_readings_break_nothing(bytes in seeds::damaged("senml_decode")) {
        payload::senml_decode(&bytes);
    }

    #[test]
    fn damaged_waveforms_break_nothing(bytes in seeds::damaged("waveform_decode")) {
        payload::waveform_decode(&bytes);
    }
}

/// `cargo test -p vitalseal-vitals --test corpus -- --ignored`
#[test]
#[ignore = "writes fuzz/corpus anew"]
fn write_seeds() {
    let second = |second| jiff::Timestamp::from_second(second).unwrap();
    let hex = |text: &str| hex::decode(text.replace(' ', "")).unwrap();

    let file: Value = serde_json::from_str(include_str!("vectors/payloads.json")).unwrap();
    for (index, vector) in file["valid"].as_array().unwrap().iter().take(3).enumerate() {
        let payload = hex(vector["payload"].as_str().unwrap());
        seeds::write("senml_decode", &format!("ok-vector-{index}"), &payload);
    }
    let file: Value = serde_json::from_str(include_str!("vectors/rfc8428.json")).unwrap();
    let printed = file["packs"]
        .as_array()
        .unwrap()
        .iter()
        .find_map(|pack| pack["cbor"].as_str());
    seeds::write(
        "senml_decode",
        "no-rfc8428-section-6",
        &hex(printed.unwrap()),
    );
    let every_signal: Vec<_> = (0..)
        .zip(signals())
        .map(|(quarter, signal)| Reading {
            signal,
            value: (signal.flag.0 + signal.flag.1) / 2.0,
            at: second(1_767_312_000) + jiff::SignedDuration::from_millis(250 * quarter),
        })
        .collect();
    seeds::write(
        "senml_decode",
        "ok-every-signal",
        &senml::encode(&every_signal),
    );
    // 62 /min at 2026-01-02, written in every way that another encoder may choose.
    let (code, unit, value, time) = ("0066383836372d34", "01642f6d696e", "02183e", "221a69570a80");
    for (name, payload) in [
        (
            "ok-decimal-fraction",
            format!("81a4{code}{unit}02c4822019026c{time}"),
        ),
        (
            "ok-doubles",
            format!("81a4{code}{unit}02fb404f00000000000022fb41da55c2a0000000"),
        ),
        (
            "ok-indefinite",
            format!("9fbf{code}{unit}{value}{time}ffff"),
        ),
        (
            "ok-sums",
            format!("81a6{code}{unit}{value}{time}0501253903e7"),
        ),
        (
            "ok-extension",
            format!("81a5{code}{unit}{value}{time}6378787882f6a10102"),
        ),
        ("ok-base-alone", format!("82a1{time}a3{code}{unit}{value}")),
        (
            "ok-base-name-and-value",
            format!("81a6216238380064 36372d34{unit}0202{time}24183c"),
        ),
        ("ok-version", format!("81a5{code}{unit}{value}{time}200a")),
        (
            "ok-panel",
            format!(
                "82a5216838353335342d392f{time}23666d6d5b48675d0066383438302d36021878a20066383436322d340218 50"
            ),
        ),
        (
            "ok-both-saturations",
            format!("82a4006735393430382d350161250218 61{time}a30066323730382d36016125021861"),
        ),
        (
            "ok-far-apart",
            format!(
                "82a4{code}{unit}{value}{time}a5{code}{unit}{value}06fb3eb0c6f7a0b5ed8d221b0000002000000000"
            ),
        ),
        ("no-only-a-sum", format!("81a4{code}{unit}05183e{time}")),
        (
            "no-must-understand",
            format!("81a5{code}{unit}{value}{time}62785f01"),
        ),
        ("no-text-value", format!("81a4{code}{unit}036161{time}")),
        (
            "no-label-twice",
            format!("81a5{code}{unit}{value}{value}{time}"),
        ),
        ("no-relative-time", format!("81a3{code}{unit}{value}")),
        ("no-nan", format!("81a4{code}{unit}02f97e00{time}")),
        (
            "no-huge-exponent",
            format!("81a4{code}{unit}02c4821b7fffffffffffffff01{time}"),
        ),
        (
            "no-endless-nesting",
            format!("81a5{code}{unit}{value}{time}6178{}", "81".repeat(300)),
        ),
        ("no-huge-count", "9bffffffffffffffff".to_owned()),
        (
            "no-trailing-byte",
            format!("81a4{code}{unit}{value}{time}00"),
        ),
        (
            "no-panel-value",
            format!("81a4006738353335342d39{unit}{value}{time}"),
        ),
    ] {
        seeds::write("senml_decode", name, &hex(&payload));
    }

    let pulse = signal(signal::PULSE_WAVEFORM).unwrap();
    let build = |period: (u32, u32), factor, origin, samples: Vec<i32>| {
        let period = Period::new(period.0, period.1).unwrap();
        let waveform = Waveform::new(
            pulse,
            second(1_767_312_000),
            period,
            factor,
            origin,
            samples,
        );
        waveform::encode(&waveform.unwrap())
    };
    let rounds = |index: i32| (index * 37 % 1024) * (index % 7 - 3);
    for (name, payload) in [
        (
            "ok-three",
            build((1_000_000, 117), 1.0, 0.0, vec![515, 514, 516]),
        ),
        (
            "ok-second",
            build(
                (1_000_000, 125),
                0.5,
                -512.0,
                (0..125).map(rounds).collect(),
            ),
        ),
        (
            "ok-thousand",
            build((8000, 1), 0.1, 32_768.0, (0..1000).map(rounds).collect()),
        ),
        (
            "ok-extremes",
            build((u32::MAX, 1), 1e-300, 1e300, vec![i32::MIN, i32::MAX, 0]),
        ),
    ] {
        seeds::write("waveform_decode", name, &payload);
    }
    let three = hex::encode(build((1_000_000, 117), 1.0, 0.0, vec![515, 514, 516]));
    for (name, was, is) in [
        ("no-version", "a70001", "a70002"),
        ("no-indefinite", "a70001", "bf0001"),
        ("no-unknown-signal", "66313530343532", "66313530343533"),
        ("no-period", "1a000f4240", "1a00000000"),
        ("no-factor", "04010500", "04f97e000500"),
        ("no-infinite-value", "04010500", "04fb7fefffffffffffff0500"),
        (
            "no-far-future",
            "021b0006475c63f7a000",
            "021b7fffffffffffffff",
        ),
        ("no-samples", "0683190203", "0680190203"),
        ("no-huge-count", "0683190203", "069bffffffffffffffff190203"),
        ("no-overflow", "0683190203", "06831a7fffffff"),
    ] {
        let payload = three.replacen(was, is, 1);
        assert_ne!(payload, three, "{name}");
        seeds::write("waveform_decode", name, &hex(&payload));
    }
}
