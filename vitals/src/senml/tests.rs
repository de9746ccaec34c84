//! Vectors live in `tests/payload_vectors.rs` and `tests/rfc8428.rs`; here are the properties and the hostile input.

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
        prop_oneof![1_i64 << 28..1 << 33, 1_i64 << 28..253_402_200_000],
        0..1_000_000_i64,
    )
        .prop_map(|(index, value, second, micro)| Reading {
            signal: &signals()[index],
            value,
            at: Timestamp::from_microsecond(second * 1_000_000 + micro).unwrap(),
        });
    proptest::collection::vec(reading, 1..40)
}

/// A record before it is written: which base fields it replaces, and its own fields.
#[derive(Clone, Debug)]
struct Written {
    base_name: Option<usize>,
    base_unit: bool,
    base_second: Option<i64>,
    base_value: Option<i32>,
    base_sum: bool,
    signal: &'static Signal,
    second: i64,
    value: i32,
}

fn a_record() -> impl Strategy<Value = Written> {
    let base = (
        prop::option::of(0..4_usize),
        any::<bool>(),
        prop::option::of(1_i64 << 29..1 << 33),
        prop::option::of(any::<i32>()),
        any::<bool>(),
    );
    let own = (0..signals().len(), -1000..1000_i64, any::<i32>());
    (base, own).prop_map(
        |((base_name, base_unit, base_second, base_value, base_sum), (index, second, value))| {
            Written {
                base_name,
                base_unit,
                base_second,
                base_value,
                base_sum,
                signal: &signals()[index],
                second,
                value,
            }
        },
    )
}

/// The records with base fields as they say, and with every field spelt out. Values are eighths, so that
/// adding base values up is exact.
fn both_forms(records: &[Written]) -> (Vec<u8>, Vec<u8>) {
    let eighths = |value: i32| f64::from(value) / 8.0;
    let (mut pack, mut resolved) = (Writer::default(), Writer::default());
    pack.array(records.len());
    resolved.array(records.len());
    let (mut name, mut unit, mut second, mut value) = (String::new(), None, 1_i64 << 30, 0.0);
    for (position, record) in records.iter().enumerate() {
        let code = record.signal.code;
        let mut fields: Vec<(i64, Field)> = Vec::new();
        // A base name holds for later records too: cleared when it is not the beginning of this one's code.
        let base_name = record.base_name.map(|length| code[..length].to_owned());
        let base_name = base_name.or((!code.starts_with(&name)).then(String::new));
        if let Some(base_name) = base_name {
            fields.push((-2, Field::Text(base_name.clone())));
            name = base_name;
        }
        if let Some(base_second) = record.base_second.or((position == 0).then_some(second)) {
            fields.push((-3, Field::Number(base_second as f64)));
            second = base_second;
        }
        if record.base_unit {
            fields.push((-4, Field::Text(record.signal.unit.to_owned())));
            unit = Some(record.signal.unit);
        }
        if let Some(base_value) = record.base_value {
            fields.push((-5, Field::Number(eighths(base_value))));
            value = eighths(base_value);
        }
        if record.base_sum {
            fields.push((-6, Field::Number(1.0)));
        }
        if code != name {
            fields.push((0, Field::Text(code[name.len()..].to_owned())));
        }
        if unit != Some(record.signal.unit) {
            fields.push((1, Field::Text(record.signal.unit.to_owned())));
        }
        fields.push((2, Field::Number(eighths(record.value))));
        fields.push((6, Field::Number(record.second as f64)));
        write(&mut pack, &fields);
        let spelt_out = [
            (0, Field::Text(code.to_owned())),
            (1, Field::Text(record.signal.unit.to_owned())),
            (2, Field::Number(value + eighths(record.value))),
            (6, Field::Number((second + record.second) as f64)),
        ];
        write(&mut resolved, &spelt_out);
    }
    (pack.into_bytes(), resolved.into_bytes())
}

enum Field {
    Text(String),
    Number(f64),
}

fn write(writer: &mut Writer, fields: &[(i64, Field)]) {
    writer.map(fields.len());
    for (label, field) in fields {
        writer.integer(*label);
        match field {
            Field::Text(text) => writer.text(text),
            Field::Number(number) => writer.number(*number),
        }
    }
}

proptest! {
    #[test]
    fn decode_undoes_encode(readings in readings()) {
        let payload = encode(&readings);
        prop_assert_eq!(decode(&payload).unwrap(), readings);
    }

    /// RFC 8428 §4.6: base fields are only a shorter way to write the same records.
    #[test]
    fn a_pack_and_its_resolved_form_are_the_same_readings(records in proptest::collection::vec(a_record(), 1..20)) {
        let (pack, resolved) = both_forms(&records);
        let readings = decode(&pack).unwrap();
        prop_assert_eq!(readings.len(), records.len());
        prop_assert_eq!(decode(&resolved).unwrap(), readings);
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
        (5, format!("{UNIT}{VALUE}{BASE_TIME}0501253903e7")), // sum and base sum
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
        (record(4, &format!("{all}05f97e00")), number),
        (record(4, &format!("{all}25f97c00")), number),
        (
            record(5, &format!("{all}05fb7fefffffffffffff25fb7fefffffffffffff")),
            number,
        ),
        (
            record(3, &format!("{UNIT}05183e{BASE_TIME}")),
            DecodeError::OnlySum { record: 0 },
        ),
        // A base value does not stand in for a value, only a sum does without one (§4.2).
        (
            record(4, &format!("{UNIT}24183e05183e{BASE_TIME}")),
            DecodeError::OnlySum { record: 0 },
        ),
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
        "81a10067383533353 42d39".replace(' ', ""), // a panel has no value
        record(4, &format!("{all}036161")),         // text value
        record(4, &format!("{all}04f5")),           // truth value
        record(4, &format!("{all}084100")),         // data value
        record(4, &format!("{all}200b")),           // version 11
        record(4, &format!("{all}2000")),           // version 0
        record(4, &format!("{all}62785f01")),       // must be understood
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
        record(3, &format!("{UNIT}24183e{BASE_TIME}")), // only a base value
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
fn a_panel_is_its_components_with_or_without_its_name_in_front() {
    let pack = |base_name: &str, systolic: &str, diastolic: &str| {
        let mut writer = Writer::default();
        writer.array(2);
        writer.map(5);
        writer.integer(-2);
        writer.text(base_name);
        writer.integer(-3);
        writer.integer(1_767_312_000);
        writer.integer(-4);
        writer.text("mm[Hg]");
        for (name, value) in [(systolic, 120.0), (diastolic, 80.0)] {
            writer.integer(0);
            writer.text(name);
            writer.integer(2);
            writer.number(value);
            if name == systolic {
                writer.map(2);
            }
        }
        decode(&writer.into_bytes())
    };
    let bare = pack("", "8480-6", "8462-4").unwrap();
    assert_eq!(bare.len(), 2);
    assert_eq!(pack("85354-9/", "8480-6", "8462-4").as_ref(), Ok(&bare));
    assert_eq!(
        pack("", "85354-9/8480-6", "85354-9/8462-4").as_ref(),
        Ok(&bare)
    );
    let [panel] = crate::blood_pressure(&bare)[..] else {
        panic!("one panel");
    };
    assert_eq!(
        (panel.systolic, panel.diastolic, panel.mean),
        (120.0, 80.0, None)
    );
    let foreign = pack("85354-9/", "8480-6", "8867-4");
    assert_eq!(foreign, Err(DecodeError::UnknownSignal { record: 1 }));
}

#[test]
fn one_value_under_both_of_its_codes_is_one_reading() {
    let reading = |code: &str, value, second| Reading {
        signal: signal(code).unwrap(),
        value,
        at: Timestamp::from_second(second).unwrap(),
    };
    let (first, also) = ("59408-5", "2708-6");
    let sent = [
        reading(also, 97.0, 1_767_312_000),
        reading(first, 97.0, 1_767_312_000),
        reading(also, 96.0, 1_767_312_000),
        reading(also, 97.0, 1_767_312_001),
    ];
    assert_eq!(
        decode(&encode(&sent)).unwrap(),
        sent[1..],
        "other values and instants stay"
    );
    assert_eq!(
        decode(&encode(&sent[..1])).unwrap(),
        sent[..1],
        "alone it is a reading"
    );
}

#[test]
fn a_record_of_base_fields_alone_is_no_reading() {
    let all = format!("{UNIT}{VALUE}{BASE_TIME}");
    let one = decoded(&record(3, &all)).unwrap();
    let own = &record(2, &format!("{UNIT}{VALUE}"))[2..];
    assert_eq!(decoded(&format!("82a1{BASE_TIME}{own}")), Ok(one));
    assert_eq!(
        decoded(&format!("81a1{BASE_TIME}")),
        Err(DecodeError::Count)
    );
    let nameless = decoded(&format!("82a1{BASE_TIME}a102183e"));
    assert_eq!(nameless, Err(DecodeError::UnknownSignal { record: 1 }));
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
