//! Vectors live in `tests/payload_vectors.rs`; here are the properties and the hostile input.

use proptest::prelude::*;

use super::*;
use crate::signals;

fn decoded(hex_bytes: &str) -> Result<Vec<Reading>, DecodeError> {
    decode(&hex::decode(hex_bytes).unwrap())
}

/// A payload of one heart rate whose record has the given extra fields (as hex) and field count.
fn record(fields: usize, extra: &str) -> String {
    format!("81a{:x}0066383836372d34{extra}", fields + 1)
}

const UNIT: &str = "01642f6d696e";
const VALUE: &str = "02183e";
const BASE_TIME: &str = "221a69570a80";

fn readings() -> impl Strategy<Value = Vec<Reading>> {
    let reading = (
        0..signals().len(),
        proptest::num::f64::NORMAL,
        1_i64 << 28..1 << 33,
        0..1_000_000_i64,
    )
        .prop_map(|(index, value, second, micro)| Reading {
            signal: &signals()[index],
            value,
            at: Timestamp::from_microsecond(second * 1_000_000 + micro).unwrap(),
        });
    proptest::collection::vec(reading, 1..40)
}

proptest! {
    #[test]
    fn decode_undoes_encode(readings in readings()) {
        let payload = encode(&readings);
        prop_assert_eq!(decode(&payload).unwrap(), readings);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn a_damaged_payload_never_panics_and_a_cut_one_is_refused(
        readings in readings(), at: prop::sample::Index, to: u8,
    ) {
        let mut payload = encode(&readings);
        let at = at.index(payload.len());
        prop_assert!(decode(&payload[..at]).is_err());
        payload[at] = to;
        let _ = decode(&payload);
    }
}

#[test]
fn base_fields_hold_until_replaced() {
    // [{bn "88", bt, bu "/min", bv 60, n "67-4", v 2}, {n "67-4", v 3, t 0.5}, {bn "", n "8310-5", u "[degF]", bv 0, v 98.6, bt+10}]
    let payload = format!(
        "83a62162383822{}23642f6d696e24183c006436372d340202a3006436372d34020306f93800a6216000663833\
         31302d3501665b646567465d240002fb4058a66666666666{}",
        "1a69570a80", "221a69570a8a"
    );
    let readings = decoded(&payload).unwrap();
    let found: Vec<_> = readings
        .iter()
        .map(|r| (r.signal.code, (r.value * 10.0).round(), r.at.to_string()))
        .collect();
    assert_eq!(
        found,
        [
            ("8867-4", 620.0, "2026-01-02T00:00:00Z".to_owned()),
            ("8867-4", 630.0, "2026-01-02T00:00:00.5Z".to_owned()),
            ("8310-5", 370.0, "2026-01-02T00:00:10Z".to_owned()),
        ]
    );
}

#[test]
fn what_other_encoders_write_is_taken() {
    let plain = decoded(&record(3, &format!("{UNIT}{VALUE}{BASE_TIME}"))).unwrap();
    for (fields, extra) in [
        (3, format!("{UNIT}02c4822019026c{BASE_TIME}")), // 62.0 as a decimal fraction
        (3, format!("{UNIT}02fb404f000000000000{BASE_TIME}")), // as a double
        (3, format!("{UNIT}{VALUE}22fb41da55c2a0000000")), // time as a double
        (3, format!("{UNIT}{VALUE}061a69570a80")),       // t instead of bt
        (
            3,
            format!("236c7b62656174737d2f6d696e{VALUE}{BASE_TIME}").replace("6c7b", "6b7b"),
        ),
        (4, format!("{UNIT}{VALUE}{BASE_TIME}200a")), // bver 10
        (4, format!("{UNIT}{VALUE}{BASE_TIME}0718ff")), // update time
        (4, format!("{UNIT}{VALUE}{BASE_TIME}6378787882f6a10102")), // unknown extension
    ] {
        assert_eq!(
            decoded(&record(fields, &extra)),
            Ok(plain.clone()),
            "{extra}"
        );
    }
    let one = record(3, &format!("{UNIT}{VALUE}{BASE_TIME}"));
    let indefinite = format!("9fbf{}ffff", &one[4..]);
    assert_eq!(decoded(&indefinite), Ok(plain));
}

#[test]
fn hostile_or_unsupported_payloads_are_refused_for_their_reason() {
    let unit = DecodeError::Unit {
        code: "8867-4",
        unit: "/min",
    };
    let number = DecodeError::Number { record: 0 };
    let relative = DecodeError::RelativeTime { record: 0 };
    let all = format!("{UNIT}{VALUE}{BASE_TIME}");
    for (payload, reason) in [
        (record(2, &format!("{VALUE}{BASE_TIME}")), unit),
        (record(3, &format!("016343656c{VALUE}{BASE_TIME}")), unit),
        (record(3, &format!("{UNIT}02f97e00{BASE_TIME}")), number),
        (record(3, &format!("{UNIT}02f97c00{BASE_TIME}")), number),
        (
            record(3, &format!("{UNIT}02c4821903e801{BASE_TIME}")),
            number,
        ),
        (record(3, &format!("{UNIT}{VALUE}22f97e00")), number),
        (
            record(3, &format!("{UNIT}{VALUE}221b7fffffffffffffff")),
            number,
        ),
        (record(2, &format!("{UNIT}{VALUE}")), relative),
        (record(3, &format!("{UNIT}{VALUE}0620")), relative),
        (record(3, &format!("{UNIT}{VALUE}221a0fffffff")), relative),
        (
            "81a1006461626364".to_owned(),
            DecodeError::UnknownSignal { record: 0 },
        ),
        ("81a0".to_owned(), DecodeError::UnknownSignal { record: 0 }),
        ("80".to_owned(), DecodeError::Count),
        ("9fff".to_owned(), DecodeError::Count),
        ("992711".to_owned(), DecodeError::Count),
        ("9bffffffffffffffff".to_owned(), DecodeError::Count),
    ] {
        assert_eq!(decoded(&payload), Err(reason), "{payload}");
    }
    for payload in [
        record(4, &format!("{all}0501")),     // sum
        record(4, &format!("{all}2501")),     // base sum
        record(4, &format!("{all}036161")),   // text value
        record(4, &format!("{all}04f5")),     // truth value
        record(4, &format!("{all}084100")),   // data value
        record(4, &format!("{all}200b")),     // version 11
        record(4, &format!("{all}62785f01")), // must be understood
    ] {
        assert!(
            matches!(decoded(&payload), Err(DecodeError::Unsupported(_))),
            "{payload}"
        );
    }
    for payload in [
        record(4, &format!("{all}02183e")), // a label twice
        record(4, &format!("{all}0901")),   // not a label of SenML
        record(4, &format!("{all}191000 01").replace(' ', "")),
        record(2, &format!("{UNIT}{BASE_TIME}")), // no value
        "a0".to_owned(),
        "8100".to_owned(),
    ] {
        assert!(
            matches!(decoded(&payload), Err(DecodeError::Shape(_))),
            "{payload}"
        );
    }
    for payload in [
        String::new(),
        "9c".to_owned(),
        record(3, &format!("{all}00")),
    ] {
        assert!(
            matches!(decoded(&payload), Err(DecodeError::Malformed(_))),
            "{payload}"
        );
    }
}

#[test]
fn as_many_readings_as_allowed_and_not_one_more() {
    let reading = decoded(&record(3, &format!("{UNIT}{VALUE}{BASE_TIME}"))).unwrap()[0];
    let mut readings = vec![reading; MAX_READINGS];
    assert_eq!(decode(&encode(&readings)).unwrap().len(), MAX_READINGS);
    readings.push(reading);
    let payload = encode(&readings);
    assert_eq!(decode(&payload), Err(DecodeError::Count));
    // The same without an announced count.
    let endless = [&[0x9f], &payload[3..], &[0xff]].concat();
    assert_eq!(decode(&endless), Err(DecodeError::Count));
}
