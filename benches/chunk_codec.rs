//! One chunk: what a reading costs in bytes and in time, in our columns and in Parquet's, with no key and no query.
//!
//! `cargo bench --bench chunk_codec [-- --quick]`

#![allow(
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a bench has nobody to answer to; it stops where something is wrong"
)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Figures, time};
use datafusion::arrow::array::{Float64Array, Int64Array, RecordBatch, StringArray};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::parquet::basic::{Compression, Encoding};
use datafusion::parquet::file::properties::WriterProperties;
use jiff::{SignedDuration, Timestamp};
use vitalseal_device::simulated::SimulatedPatient;
use vitalseal_storage::chunk::{
    MessageMeta, Readings, ReadingsBuilder, Waveforms, WaveformsBuilder,
};
use vitalseal_vitals::{Period, Reading, Waveform, signal};

const MESSAGE_S: usize = 60;

fn main() {
    let mut figures = Figures::of("chunk_codec");
    for (name, readings) in [
        ("recorded_heart_rate", recorded()),
        ("minute", simulated(60, 0, 1)),
        ("quarter", simulated(900, 0, 1)),
        ("hour", simulated(3_600, 0, 1)),
        ("hour_jitter_ms", simulated(3_600, 20_000, 1_000)),
        ("hour_jitter_us", simulated(3_600, 20_000, 1)),
        ("day", simulated(86_400, 0, 1)),
    ] {
        measure_chunk(name, &readings, &mut figures);
        measure_parquet(name, &readings, &mut figures);
    }
    measure_pulse(&mut figures);
    figures.print_json();
}

fn measure_chunk(set: &str, readings: &[Reading], figures: &mut Figures) {
    let count = readings.len();
    let mut add = |what: &str, value: f64, unit| figures.add(format!("{what}_{set}"), value, unit);
    let bytes = chunk(readings);
    add(
        "chunk_bytes",
        bytes.len() as f64 / count as f64,
        "B/reading",
    );
    let each = |all: Duration| all.as_secs_f64() * 1e9 / count as f64;
    add("chunk_encode", each(time(|| chunk(readings))), "ns/reading");
    let chunk = Readings::parse(bytes).unwrap();
    let mut times = Vec::new();
    let decode = time(|| {
        times.clear();
        chunk
            .series()
            .iter()
            .for_each(|series| chunk.times(series, &mut times).unwrap());
        times.len()
    });
    add("chunk_decode_times", each(decode), "ns/reading");
    let mut values = Vec::new();
    let decode = time(|| {
        values.clear();
        chunk
            .series()
            .iter()
            .for_each(|series| chunk.values(series, &mut values).unwrap());
        values.len()
    });
    add("chunk_decode_values", each(decode), "ns/reading");
    let mut messages = Vec::new();
    let decode = time(|| {
        messages.clear();
        let mut of = |series| chunk.message_indexes(series, &mut messages).unwrap();
        chunk.series().iter().for_each(&mut of);
        messages.len()
    });
    add("chunk_decode_messages", each(decode), "ns/reading");
    assert_eq!([times.len(), values.len(), messages.len()], [count; 3]);
}

/// The same in Parquet, in memory: signal, instant and value, sorted by signal and instant.
fn measure_parquet(set: &str, readings: &[Reading], figures: &mut Figures) {
    let mut sorted: Vec<&Reading> = readings.iter().collect();
    sorted.sort_by_key(|reading| (reading.signal.number, reading.at));
    let codes = sorted.iter().map(|reading| reading.signal.code);
    let times: Vec<i64> = sorted
        .iter()
        .map(|reading| reading.at.as_microsecond())
        .collect();
    let values: Vec<f64> = sorted.iter().map(|reading| reading.value).collect();
    let batch = RecordBatch::try_from_iter([
        ("code", Arc::new(StringArray::from_iter_values(codes)) as _),
        ("ts", Arc::new(Int64Array::from(times)) as _),
        ("value", Arc::new(Float64Array::from(values)) as _),
    ])
    .unwrap();
    let zstd = WriterProperties::builder().set_compression(Compression::ZSTD(Default::default()));
    let deltas = zstd
        .clone()
        .set_column_dictionary_enabled("ts".into(), false)
        .set_column_encoding("ts".into(), Encoding::DELTA_BINARY_PACKED);
    for (name, properties) in [("zstd", zstd.build()), ("zstd_deltas", deltas.build())] {
        let encode = || {
            let mut writer =
                ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties.clone())).unwrap();
            writer.write(&batch).unwrap();
            writer.into_inner().unwrap()
        };
        let bytes = bytes::Bytes::from(encode());
        let decode = || {
            let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap();
            let reader = reader.with_batch_size(8_192).build().unwrap();
            reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>()
        };
        assert_eq!(decode(), readings.len());
        let each = |of: f64| of / readings.len() as f64;
        let mut add = |what: &str, of: f64, unit| {
            figures.add(format!("parquet_{name}_{what}_{set}"), each(of), unit);
        };
        add("bytes", bytes.len() as f64, "B/reading");
        add("encode", time(encode).as_secs_f64() * 1e9, "ns/reading");
        add("decode", time(decode).as_secs_f64() * 1e9, "ns/reading");
    }
}

/// A recorded pulse wave at 117 Hz, in messages of two seconds.
fn measure_pulse(figures: &mut Figures) {
    let recording = include_str!("../tests/data/pulse_waveform.csv");
    let sample = |line: &str| line.split_once(',').unwrap().1.parse::<f64>().unwrap() as i32;
    let samples: Vec<i32> = recording.lines().skip(1).map(sample).collect();
    let build = || {
        let mut builder = WaveformsBuilder::new();
        for (index, samples) in (0..).zip(samples.chunks(234)) {
            let message = builder.message(meta(index));
            let start = common::now() + SignedDuration::from_secs(2 * i64::from(index));
            let period = Period::new(1_000_000, 117).unwrap();
            let signal = signal("150452").unwrap();
            let samples = samples.to_vec();
            let waveform = Waveform::new(signal, start, period, 1.0, 0.0, samples).unwrap();
            builder.push(message, waveform);
        }
        builder.finish().unwrap()
    };
    let each = |of: f64| of / samples.len() as f64;
    let bytes = build();
    figures.add(
        "chunk_bytes_recorded_pulse",
        each(bytes.len() as f64),
        "B/sample",
    );
    let ns = |all: Duration| each(all.as_secs_f64() * 1e9);
    figures.add("chunk_encode_recorded_pulse", ns(time(build)), "ns/sample");
    let waveforms = Waveforms::parse(bytes).unwrap();
    let mut values = Vec::new();
    let decode = time(|| {
        values.clear();
        waveforms
            .rows()
            .iter()
            .for_each(|row| waveforms.values(row, &mut values).unwrap());
        values.len()
    });
    assert!(
        values
            .iter()
            .zip(&samples)
            .all(|(value, sample)| *value == f64::from(*sample))
    );
    figures.add("chunk_decode_recorded_pulse", ns(decode), "ns/sample");
}

fn chunk(readings: &[Reading]) -> zeroize::Zeroizing<Vec<u8>> {
    let mut builder = ReadingsBuilder::new();
    let minute = |reading: &Reading| reading.at.as_second() / MESSAGE_S as i64;
    for (index, sent) in (0..).zip(readings.chunk_by(|a, b| minute(a) == minute(b))) {
        let message = builder.message(meta(index));
        builder.push(message, sent);
    }
    builder.finish().unwrap()
}

/// Messages come a minute apart, some milliseconds late.
fn meta(index: u32) -> MessageMeta {
    let late_us = i64::from(index) * 7_919 % 50_000;
    MessageMeta {
        device: "bench-001".parse().unwrap(),
        boot: 1,
        sequence: index.into(),
        received_at_us: common::now().as_microsecond() + i64::from(index) * 60_000_000 + late_us,
    }
}

/// A recorded run: heart rate at about 1 Hz, with real gaps.
fn recorded() -> Vec<Reading> {
    let recording = include_str!("../tests/data/heart_rate_run.csv");
    let reading = |line: &str| {
        let (at, value) = line.split_once(',').unwrap();
        Reading {
            signal: signal("8867-4").unwrap(),
            value: value.parse().unwrap(),
            at: at.parse().unwrap(),
        }
    };
    recording.lines().skip(1).map(reading).collect()
}

/// Five simulated signals a second, each step up to `jitter_us` late, on a clock of `tick_us`.
fn simulated(seconds: i64, jitter_us: i64, tick_us: i64) -> Vec<Reading> {
    let mut patient = SimulatedPatient::new(1);
    let step = |second: i64| {
        let late = (second * 7_919 + second * second * 31).rem_euclid(jitter_us.max(1));
        let at = (common::now().as_second() + second) * 1_000_000 + late / tick_us * tick_us;
        patient.step(Timestamp::from_microsecond(at).unwrap())
    };
    (0..seconds).flat_map(step).collect()
}
