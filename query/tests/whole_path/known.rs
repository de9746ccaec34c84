//! What was measured, in the clear, and the tables that a stock engine has of it.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, Float64Array, Float64Builder, Int64Array, ListBuilder, RecordBatch, StringArray,
    StringViewArray, TimestampMicrosecondArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use vitalseal_query::table::{vitals_schema, waveforms_schema};
use vitalseal_vitals::{Reading, Waveform};

/// A message, as every row of it tells.
#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) patient: String,
    pub(crate) device: String,
    pub(crate) received_at_us: i64,
    pub(crate) boot: i64,
    pub(crate) sequence: i64,
}

#[derive(Default)]
pub(crate) struct Known {
    pub(crate) readings: Vec<(Sent, Reading)>,
    pub(crate) waves: Vec<(Sent, Waveform)>,
}

impl Known {
    /// Nothing of this patient is expected any more.
    pub(crate) fn forget(&mut self, patient: &str) {
        self.readings.retain(|(sent, _)| sent.patient != patient);
        self.waves.retain(|(sent, _)| sent.patient != patient);
    }

    /// With the tables `vitals`, `waveforms` and `patients`.
    pub(crate) fn context(&self, patients: &[(String, &str)]) -> SessionContext {
        let config = SessionConfig::new().with_target_partitions(2);
        let context = SessionContext::new_with_config(config);
        for (name, schema, columns) in [
            ("vitals", vitals_schema(), self.vitals()),
            ("waveforms", waveforms_schema(), self.waveforms()),
            ("patients", patients_schema(), states(patients)),
        ] {
            let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
            let table = MemTable::try_new(schema, vec![vec![batch]]).unwrap();
            context.register_table(name, Arc::new(table)).unwrap();
        }
        context
    }

    fn vitals(&self) -> Vec<ArrayRef> {
        let readings = || self.readings.iter().map(|(_, reading)| reading);
        let sent = || self.readings.iter().map(|(sent, _)| sent);
        vec![
            text(sent().map(|s| s.patient.as_str())),
            text(sent().map(|s| s.device.as_str())),
            text(readings().map(|r| r.signal.code)),
            text(readings().map(|r| r.signal.display)),
            Arc::new(Float64Array::from_iter_values(readings().map(|r| r.value))),
            text(readings().map(|r| r.signal.unit)),
            instants(readings().map(|r| r.at.as_microsecond())),
            instants(sent().map(|s| s.received_at_us)),
            text(readings().map(|r| r.quality().as_str())),
            numbers(sent().map(|s| s.boot)),
            numbers(sent().map(|s| s.sequence)),
        ]
    }

    fn waveforms(&self) -> Vec<ArrayRef> {
        let waves = || self.waves.iter().map(|(_, wave)| wave);
        let sent = || self.waves.iter().map(|(sent, _)| sent);
        let periods = waves().map(|wave| {
            let period = wave.period();
            f64::from(period.micros.get()) / f64::from(period.samples.get())
        });
        let sample = Field::new_list_field(DataType::Float64, false);
        let mut samples = ListBuilder::new(Float64Builder::new()).with_field(sample);
        for wave in waves() {
            let values = wave.readings().into_iter().map(|reading| reading.value);
            samples.append_value(values.map(Some));
        }
        vec![
            text(sent().map(|s| s.patient.as_str())),
            text(sent().map(|s| s.device.as_str())),
            text(waves().map(|w| w.signal().code)),
            text(waves().map(|w| w.signal().display)),
            text(waves().map(|w| w.signal().unit)),
            instants(waves().map(|w| w.start().as_microsecond())),
            Arc::new(Float64Array::from_iter_values(periods)),
            Arc::new(samples.finish()),
            instants(sent().map(|s| s.received_at_us)),
            numbers(sent().map(|s| s.boot)),
            numbers(sent().map(|s| s.sequence)),
        ]
    }
}

fn patients_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("patient", DataType::Utf8, false),
        Field::new("state", DataType::Utf8, false),
    ]))
}

fn states(patients: &[(String, &str)]) -> Vec<ArrayRef> {
    let names = StringArray::from_iter_values(patients.iter().map(|(name, _)| name));
    let states = StringArray::from_iter_values(patients.iter().map(|(_, state)| state));
    vec![Arc::new(names), Arc::new(states)]
}

fn text<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringViewArray::from_iter_values(values))
}

fn instants(us: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(us).with_timezone("UTC"))
}

fn numbers(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}
