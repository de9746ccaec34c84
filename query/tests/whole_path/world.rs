//! A ward full of devices, and what they measured in the clear.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, StringViewArray,
    TimestampMicrosecondArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use jiff::{SignedDuration, Timestamp};
use vitalseal_query::table::vitals_schema;
use vitalseal_storage::inbox::{Admission, Judgement, Required};
use vitalseal_storage::ports::Clock as _;
use vitalseal_storage::{CompactionSettings, Unwatched};
use vitalseal_vitals::{Reading, Signal, senml, signal};

use crate::random::{Random, mixed};
use crate::ward::{Bedside, START_US, Ward};

const CODES: [&str; 5] = ["8867-4", "59408-5", "9279-1", "8310-5", "8480-6"];

/// Whom the asker may see.
const VISIBLE: usize = 3;
const PATIENTS: usize = 5;

pub(crate) struct World {
    pub(crate) ward: Ward,
    beds: Vec<Bed>,
    rows: Vec<Row>,
    erased: Vec<usize>,
}

struct Bed {
    bedside: Bedside,
    patient: usize,
    clock_us: i64,
}

/// A reading of a patient who may be seen.
struct Row {
    patient: String,
    device: String,
    reading: Reading,
    received_at_us: i64,
    boot: i64,
    sequence: i64,
}

impl World {
    pub(crate) async fn open(random: &mut Random) -> Self {
        let ward = Ward::open().await;
        let mut beds: Vec<Bed> = Vec::new();
        for patient in 0..PATIENTS {
            let user = if patient < VISIBLE { "md" } else { "other" };
            let name = format!("bed-{patient}");
            let bedside = ward.admit(&name, "Somebody", user).await;
            let of = bedside.patient.clone();
            let clock_us = START_US;
            beds.push(Bed {
                bedside,
                patient,
                clock_us,
            });
            if random.chance(60) {
                // A second device of the same patient, with a name too long to stand in a view.
                let name = format!("bed-{patient}-transport-monitor");
                let mut bedside = ward.admit(&name, "Nobody", "nobody").await;
                bedside.patient = of;
                beds.push(Bed {
                    bedside,
                    patient,
                    clock_us,
                });
            }
        }
        Self {
            ward,
            beds,
            rows: Vec::new(),
            erased: Vec::new(),
        }
    }

    /// One message, or the same readings once more in another.
    pub(crate) async fn measure(&mut self, random: &mut Random) {
        let at = loop {
            let at = random.below(self.beds.len());
            if !self.erased.contains(&self.beds[at].patient) {
                break at;
            }
        };
        let bed = &mut self.beds[at];
        // A step of the clock, forwards or back.
        if random.chance(20) {
            bed.clock_us += (i64::try_from(random.below(8)).unwrap() - 3) * 3_500_000_000;
        }
        let many = *random.pick(&[1, 2, 17, 60, 300, 900]);
        let signals = random.some(&CODES);
        let mut readings = Vec::with_capacity(many);
        for number in 0..many {
            let code = signals[number % signals.len()];
            if number % signals.len() == 0 {
                bed.clock_us += *random.pick(&[1_000_000, 1_000_000, 1_000_017, 250_000]);
            }
            let signal = signal(code).unwrap();
            readings.push(Reading {
                signal,
                value: value(bed.patient, signal, bed.clock_us),
                at: Timestamp::from_microsecond(bed.clock_us).unwrap(),
            });
        }
        if random.chance(10) {
            // Not in the order of time.
            readings.reverse();
        }
        let sendings = if random.chance(15) { 2 } else { 1 };
        for _ in 0..sendings {
            self.send(at, &readings, random).await;
        }
    }

    async fn send(&mut self, at: usize, readings: &[Reading], random: &mut Random) {
        let bed = &self.beds[at];
        let payload = senml::encode(readings);
        // What the codec makes of them is what was sent: it does not tell −0 from 0.
        let readings = senml::decode(&payload).unwrap();
        let (envelope, signed_hash) = self.ward.sealed(&bed.bedside, &payload).await;
        let message = envelope.header().message_id();
        let times = || readings.iter().map(|reading| reading.at);
        let late = i64::try_from(random.below(3_000_000_000)).unwrap();
        let received_at_us = bed.clock_us + late;
        let admission = Admission {
            message: message.clone(),
            signed_hash,
            previous: None,
            introduced: None,
            subject: bed.bedside.patient.clone(),
            issued_at: times().max().unwrap(),
            required: Required::default(),
            received_at: Timestamp::from_microsecond(received_at_us).unwrap(),
            first_at: times().min().unwrap(),
            last_at: times().max().unwrap(),
            readings: u32::try_from(readings.len()).unwrap(),
            envelope: envelope.into_bytes(),
        };
        let judged = self.ward.store.inbox.admit(admission).await.unwrap();
        assert!(matches!(judged, Judgement::Stored));
        if bed.patient < VISIBLE {
            self.rows.extend(readings.iter().map(|reading| Row {
                patient: bed.bedside.patient.as_str().to_owned(),
                device: message.device.as_str().to_owned(),
                reading: *reading,
                received_at_us,
                boot: i64::try_from(message.boot).unwrap(),
                sequence: i64::try_from(message.sequence).unwrap(),
            }));
        }
    }

    /// One merge, of what is due at some hour of the server's clock: so files of every level are there at once.
    pub(crate) async fn compact(&self, random: &mut Random) {
        let hours = i64::try_from(1 + random.below(36)).unwrap();
        let settings = CompactionSettings {
            flushed_files: 1 + random.below(3),
            settle: SignedDuration::ZERO,
            ..CompactionSettings::default()
        };
        let now = Timestamp::from_second(START_US / 1_000_000 + hours * 3_600).unwrap();
        let store = &self.ward.store;
        store.compact(now, &settings, &Unwatched).await.unwrap();
    }

    /// Gives a patient a new key; what is stored stays under the old one until it is merged.
    pub(crate) async fn rotate(&self, random: &mut Random) {
        let bed = random.pick(&self.beds);
        if !self.erased.contains(&bed.patient) {
            let (registry, now) = (&self.ward.store.registry, self.ward.clock.now());
            let rotated = registry.rotate_kek(&bed.bedside.patient, now).await;
            rotated.unwrap();
        }
    }

    /// Erases one of those who may be seen. Nothing of theirs is expected ever after.
    pub(crate) async fn erase(&mut self, random: &mut Random) {
        let patient = random.below(VISIBLE);
        let bed = self.beds.iter().find(|bed| bed.patient == patient).unwrap();
        self.ward.erase(&bed.bedside).await;
        let subject = bed.bedside.patient.as_str();
        self.rows.retain(|row| row.patient != subject);
        self.erased.push(patient);
    }

    /// Drops what is left of the erased.
    pub(crate) async fn vacuum(&self) {
        let now = self.ward.clock.now();
        self.ward.store.vacuum(now, &Unwatched).await.unwrap();
    }

    /// Pseudonyms, hidden ones among them.
    pub(crate) fn patients(&self) -> Vec<String> {
        let beds = self.beds.iter();
        let mut all: Vec<String> = beds
            .map(|bed| bed.bedside.patient.as_str().to_owned())
            .collect();
        all.dedup();
        all
    }

    pub(crate) fn devices(&self) -> Vec<String> {
        let beds = self.beds.iter();
        beds.map(|bed| bed.bedside.device.as_str().to_owned())
            .collect()
    }

    pub(crate) fn codes(&self) -> &'static [&'static str] {
        &CODES
    }

    /// An instant near those that were measured.
    pub(crate) fn instant(&self, random: &mut Random) -> String {
        let clock = random.pick(&self.beds).clock_us;
        let back = i64::try_from(random.below(2_000_000)).unwrap() * 1_000;
        let at = clock - back / 1_000_000 * 1_000_000;
        Timestamp::from_microsecond(at).unwrap().to_string()
    }

    /// What a stock engine makes of the readings that may be seen.
    pub(crate) fn plaintext(&self) -> SessionContext {
        let config = SessionConfig::new().with_target_partitions(2);
        let context = SessionContext::new_with_config(config);
        let rows = &self.rows;
        let text = |of: fn(&Row) -> &str| -> ArrayRef {
            Arc::new(StringViewArray::from_iter_values(rows.iter().map(of)))
        };
        let instants = |of: fn(&Row) -> i64| -> ArrayRef {
            let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(of));
            Arc::new(times.with_timezone("UTC"))
        };
        let numbers = |of: fn(&Row) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(rows.iter().map(of)))
        };
        let values = rows.iter().map(|row| row.reading.value);
        let columns = vec![
            text(|row| &row.patient),
            text(|row| &row.device),
            text(|row| row.reading.signal.code),
            text(|row| row.reading.signal.display),
            Arc::new(Float64Array::from_iter_values(values)),
            text(|row| row.reading.signal.unit),
            instants(|row| row.reading.at.as_microsecond()),
            instants(|row| row.received_at_us),
            text(|row| row.reading.quality().as_str()),
            numbers(|row| row.boot),
            numbers(|row| row.sequence),
        ];
        let batch = RecordBatch::try_new(vitals_schema(), columns).unwrap();
        let vitals = MemTable::try_new(vitals_schema(), vec![vec![batch]]).unwrap();
        context.register_table("vitals", Arc::new(vitals)).unwrap();

        let mut known = self.patients();
        known.truncate(VISIBLE);
        let schema = Arc::new(Schema::new(vec![
            Field::new("patient", DataType::Utf8, false),
            Field::new("state", DataType::Utf8, false),
        ]));
        let state = |patient| match self.erased.contains(&patient) {
            true => "erased",
            false => "active",
        };
        let states: Vec<&str> = (0..known.len()).map(state).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(known)),
            Arc::new(StringArray::from(states)),
        ];
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        let patients = MemTable::try_new(schema, vec![vec![batch]]).unwrap();
        context
            .register_table("patients", Arc::new(patients))
            .unwrap();
        context
    }
}

/// One value for one patient, signal and instant, so that "the latest" is never two. Some are flagged, some extreme.
fn value(patient: usize, signal: &Signal, at_us: i64) -> f64 {
    let code = signal.code.bytes().map(u64::from).sum::<u64>();
    let drawn =
        mixed(at_us.cast_unsigned() ^ (code << 48) ^ (u64::try_from(patient).unwrap() << 56));
    let step = f64::from(u32::try_from(drawn % 400).unwrap());
    match (drawn >> 16) % 200 {
        0 => -0.0,
        1 => 0.0,
        2 => 1e12,
        3 => f64::MIN_POSITIVE,
        4 => 1.0 / 3.0,
        5 => -12.5,
        _ => (step - 200.0) / 10.0 + 70.0,
    }
}
