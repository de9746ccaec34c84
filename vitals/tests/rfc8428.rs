//! The examples of RFC 8428. As printed they are refused, since none of them measures a patient; with LOINC codes in
//! place of their names they decode to what the RFC says, or are refused for the next reason.
//!
//! The RFC prints them in JSON and one of them in CBOR too, so that the little transcoder below is itself checked.
#![allow(clippy::panic, clippy::unwrap_used, reason = "tests argue with unwrap")]

use serde_json::{Map, Value, json};
use vitalseal_vitals::senml;

#[test]
fn the_examples_of_the_standard_decode_or_are_refused_for_their_reason() {
    let packs = packs();
    assert_eq!(packs.len(), 13);
    for vector in &packs {
        let section = &vector["section"];
        let printed = cbor(&vector["pack"]);
        if let Some(dump) = vector["cbor"].as_str() {
            assert_eq!(hex::encode(&printed), dump.replace(' ', ""), "§{section}");
        }
        assert_eq!(answer(&printed), vector["refused"], "§{section} as printed");

        let pack = about_a_patient(vector);
        let expected = match &vector["readings"] {
            Value::Null => &vector["now"],
            Value::String(other) => {
                let same = packs.iter().find(|pack| pack["section"] == *other.as_str());
                &same.unwrap()["readings"]
            }
            readings => readings,
        };
        assert_eq!(
            normal(answer(&cbor(&pack))),
            normal(expected.clone()),
            "§{section}"
        );
    }
}

fn packs() -> Vec<Value> {
    let file: Value = serde_json::from_str(include_str!("vectors/rfc8428.json")).unwrap();
    file["packs"].as_array().unwrap().clone()
}

/// Code, value and seconds of each reading, or the text of the refusal.
fn answer(payload: &[u8]) -> Value {
    match senml::decode(payload) {
        Err(error) => json!(error.to_string()),
        Ok(readings) => readings
            .iter()
            .map(|reading| {
                let seconds = reading.at.as_microsecond() as f64 / 1e6;
                json!([reading.signal.code, reading.value, seconds])
            })
            .collect(),
    }
}

/// Every number as a float: JSON tells 20 from 20.0.
fn normal(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(normal).collect(),
        Value::Number(number) => json!(number.as_f64()),
        other => other,
    }
}

/// The pack with its names and units replaced.
fn about_a_patient(vector: &Value) -> Value {
    let mut pack = vector["pack"].clone();
    let records = pack.as_array_mut().unwrap();
    for text in records
        .iter_mut()
        .flat_map(|record| record.as_object_mut().unwrap().values_mut())
    {
        if let Some(other) = text.as_str().and_then(|text| vector["as"].get(text)) {
            *text = other.clone();
        }
    }
    if let Some(base_time) = vector.get("bt") {
        records[0]["bt"] = base_time.clone();
    }
    pack
}

/// RFC 8428 §6: labels by Table 4, integers as integers, other numbers as the shortest exact float.
fn cbor(pack: &Value) -> Vec<u8> {
    let records = pack.as_array().unwrap();
    let mut bytes = head(4, records.len() as u64);
    for record in records {
        let fields: &Map<String, Value> = record.as_object().unwrap();
        bytes.extend(head(5, fields.len() as u64));
        for (name, value) in fields {
            let label = match name.as_str() {
                "bver" => -1,
                "bn" => -2,
                "bt" => -3,
                "bu" => -4,
                "n" => 0,
                "u" => 1,
                "v" => 2,
                "vs" => 3,
                "vb" => 4,
                "t" => 6,
                "vd" => 8,
                other => panic!("{other} is not in an example"),
            };
            bytes.extend(integer(label));
            bytes.extend(match value {
                // Base64 is not undone: nothing reads these bytes.
                Value::String(text) if name == "vd" => {
                    [head(2, text.len() as u64), text.as_bytes().to_vec()].concat()
                }
                Value::String(text) => {
                    [head(3, text.len() as u64), text.as_bytes().to_vec()].concat()
                }
                Value::Bool(truth) => vec![0xf4 + u8::from(*truth)],
                Value::Number(number) => number
                    .as_i64()
                    .map_or_else(|| float(number.as_f64().unwrap()), integer),
                other => panic!("{other} is not in an example"),
            });
        }
    }
    bytes
}

fn integer(integer: i64) -> Vec<u8> {
    u64::try_from(integer).map_or_else(
        |_| head(1, integer.unsigned_abs() - 1),
        |unsigned| head(0, unsigned),
    )
}

fn float(float: f64) -> Vec<u8> {
    let half = half::f16::from_f64(float);
    if half.to_f64() == float {
        return [&[0xf9][..], &half.to_be_bytes()].concat();
    }
    [&[0xfb][..], &float.to_be_bytes()].concat()
}

fn head(major: u8, argument: u64) -> Vec<u8> {
    let [.., a, b, c, d] = argument.to_be_bytes();
    match argument {
        0..=23 => vec![major << 5 | d],
        24..=0xff => vec![major << 5 | 24, d],
        _ => vec![major << 5 | 26, a, b, c, d],
    }
}
