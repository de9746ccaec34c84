//! Payloads of the envelope vectors: written by another encoder, they decode to the readings that it put in,
//! and encoding those readings again gives the same bytes, or fewer where a float was a whole number.

use jiff::Timestamp;
use serde_json::Value;
use vitalseal_vitals::{check_hard, senml};

#[test]
fn payloads_decode_to_their_readings_and_encode_to_the_same_bytes_or_fewer() {
    let vectors: Value = serde_json::from_str(include_str!("vectors/payloads.json")).unwrap();
    let vectors = vectors["valid"].as_array().unwrap();
    assert_eq!(vectors.len(), 4);
    for vector in vectors {
        let payload = hex::decode(vector["payload"].as_str().unwrap()).unwrap();
        let expected = vector["readings"].as_array().unwrap();
        let readings = senml::decode(&payload).unwrap();
        assert_eq!(readings.len(), expected.len());
        for (reading, expected) in readings.iter().zip(expected) {
            assert_eq!(reading.signal.code, expected["code"].as_str().unwrap());
            assert_eq!(reading.signal.unit, expected["unit"].as_str().unwrap());
            assert_eq!(reading.value, expected["value"].as_f64().unwrap());
            let second = expected["time"].as_i64().unwrap();
            assert_eq!(reading.at, Timestamp::from_second(second).unwrap());
        }
        check_hard(&readings).unwrap();
        let encoded = senml::encode(&readings);
        assert_eq!(senml::decode(&encoded).unwrap(), readings);
        // The other encoder writes a whole temperature as a float (f95080), this one as an integer (1824).
        let whole_floats = payload.len() - encoded.len();
        let temperatures = readings
            .iter()
            .filter(|reading| reading.signal.code == "8310-5");
        let whole = temperatures
            .filter(|reading| reading.value.fract() == 0.0)
            .count();
        assert_eq!(whole_floats, whole);
        assert!(whole > 0 || encoded == payload);
    }
}
