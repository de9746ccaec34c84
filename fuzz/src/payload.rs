//! Payloads, as a hostile but enrolled device could seal them.

use vitalseal_vitals::{MAX_READINGS, Reading, blood_pressure, check_hard, senml, waveform};

/// What decodes is one to [`MAX_READINGS`] finite readings, and encoding them loses nothing.
pub fn senml_decode(bytes: &[u8]) -> bool {
    let Ok(readings) = senml::decode(bytes) else {
        return false;
    };
    are_sound(&readings);
    let encoded = senml::encode(&readings);
    let again = senml::decode(&encoded).expect("what the encoder writes, the decoder reads");
    assert!(again == readings, "encoding changed a reading");
    assert!(
        senml::encode(&again) == encoded,
        "one set of readings has two encodings"
    );
    true
}

/// What reads is a waveform that writes itself, and its readings are in the order of time.
pub fn waveform_decode(bytes: &[u8]) -> bool {
    let Ok(waveform) = waveform::read(bytes) else {
        return false;
    };
    let encoded = waveform::encode(&waveform);
    assert!(
        waveform::read(&encoded).as_ref() == Ok(&waveform),
        "encoding changed the waveform"
    );
    assert!(
        encoded.len() <= bytes.len(),
        "the writer is longer than another one"
    );
    let readings = waveform.readings();
    assert!(readings.len() == waveform.len(), "a sample got lost");
    assert!(readings.is_sorted_by_key(|reading| reading.at));
    are_sound(&readings);
    true
}

fn are_sound(readings: &[Reading]) {
    assert!((1..=MAX_READINGS).contains(&readings.len()));
    for reading in readings {
        assert!(reading.value.is_finite(), "a value is not finite");
        let _ = reading.quality();
    }
    let ordered = check_hard(readings).is_ok();
    for panel in blood_pressure(readings) {
        assert!(!ordered || panel.systolic > panel.diastolic);
    }
}
