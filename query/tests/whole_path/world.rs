//! A ward full of devices, and what they measured in the clear.

use std::collections::BTreeSet;

use datafusion::prelude::SessionContext;
use jiff::{SignedDuration, Timestamp};
use vitalseal_crypto::ContentType;
use vitalseal_storage::catalog::FileKind;
use vitalseal_storage::inbox::{Admission, Judgement, Required};
use vitalseal_storage::ports::Clock as _;
use vitalseal_storage::{CompactionSettings, Unwatched};
use vitalseal_vitals::signal::PULSE_WAVEFORM;
use vitalseal_vitals::{Period, Reading, Signal, Waveform, senml, signal, waveform};

use crate::known::{Known, Sent};
use crate::random::{Random, mixed};
use crate::ward::{Bedside, START_US, Ward};

const CODES: [&str; 5] = ["8867-4", "59408-5", "9279-1", "8310-5", "8480-6"];

/// Whom the asker may see.
const VISIBLE: usize = 3;
const PATIENTS: usize = 5;

pub(crate) struct World {
    pub(crate) ward: Ward,
    beds: Vec<Bed>,
    /// Of those who may be seen.
    known: Known,
    erased: Vec<usize>,
}

struct Bed {
    bedside: Bedside,
    patient: usize,
    clock_us: i64,
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
            known: Known::default(),
            erased: Vec::new(),
        }
    }

    /// One message of readings or of a waveform, or the same once more in another.
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
        let sendings = if random.chance(15) { 2 } else { 1 };
        if random.chance(20) {
            let wave = bed.waveform(random);
            let (payload, readings) = (waveform::encode(&wave), wave.readings());
            for _ in 0..sendings {
                let content = ContentType::Waveform;
                let sent = self.send(at, content, &payload, &readings, random).await;
                self.known.waves.extend(sent.zip(Some(wave.clone())));
            }
            return;
        }
        let payload = senml::encode(&bed.readings(random));
        // What the codec makes of them is what was sent: it does not tell −0 from 0.
        let readings = senml::decode(&payload).unwrap();
        for _ in 0..sendings {
            let content = ContentType::SenmlCbor;
            let sent = self.send(at, content, &payload, &readings, random).await;
            if let Some(sent) = sent {
                let rows = readings.iter().map(|reading| (sent.clone(), *reading));
                self.known.readings.extend(rows);
            }
        }
    }

    /// Tells what is known of the message, if its patient may be seen.
    async fn send(
        &self,
        at: usize,
        content: ContentType,
        payload: &[u8],
        readings: &[Reading],
        random: &mut Random,
    ) -> Option<Sent> {
        let bed = &self.beds[at];
        let sealed = self.ward.sealed_as(content, &bed.bedside, payload);
        let (envelope, signed_hash) = sealed.await;
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
        (bed.patient < VISIBLE).then(|| Sent {
            patient: bed.bedside.patient.as_str().to_owned(),
            device: message.device.as_str().to_owned(),
            received_at_us,
            boot: i64::try_from(message.boot).unwrap(),
            sequence: i64::try_from(message.sequence).unwrap(),
        })
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

    /// What kinds of files there are.
    pub(crate) async fn levels(&self) -> BTreeSet<(FileKind, u8)> {
        let files = self.ward.store.catalog.files().await.unwrap();
        files.iter().map(|file| (file.kind, file.level)).collect()
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
        self.known.forget(subject);
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

    /// What a stock engine makes of what may be seen.
    pub(crate) fn plaintext(&self) -> SessionContext {
        let mut patients = self.patients();
        patients.truncate(VISIBLE);
        let state = |patient: usize| match self.erased.contains(&patient) {
            true => "erased",
            false => "active",
        };
        let patients = (0..).zip(patients);
        let patients: Vec<_> = patients.map(|(n, patient)| (patient, state(n))).collect();
        self.known.context(&patients)
    }
}

impl Bed {
    fn readings(&mut self, random: &mut Random) -> Vec<Reading> {
        let many = *random.pick(&[1, 2, 17, 60, 300, 900]);
        let signals = random.some(&CODES);
        let mut readings = Vec::with_capacity(many);
        for number in 0..many {
            let code = signals[number % signals.len()];
            if number % signals.len() == 0 {
                self.clock_us += *random.pick(&[1_000_000, 1_000_000, 1_000_017, 250_000]);
            }
            let signal = signal(code).unwrap();
            readings.push(Reading {
                signal,
                value: value(self.patient, signal, self.clock_us),
                at: Timestamp::from_microsecond(self.clock_us).unwrap(),
            });
        }
        if random.chance(10) {
            // Not in the order of time.
            readings.reverse();
        }
        readings
    }

    fn waveform(&mut self, random: &mut Random) -> Waveform {
        let start = Timestamp::from_microsecond(self.clock_us).unwrap();
        let many = *random.pick(&[1, 17, 250, 500]);
        let period = Period::new(1_000_000, *random.pick(&[117, 250])).unwrap();
        let samples = (0..many).map(|_| i32::try_from(random.below(4_000)).unwrap() - 2_000);
        let samples = samples.collect();
        let (factor, origin) = *random.pick(&[(1.0, 0.0), (0.1, -3.0)]);
        self.clock_us += period.offset_us(many);
        let pulse = signal(PULSE_WAVEFORM).unwrap();
        Waveform::new(pulse, start, period, factor, origin, samples).unwrap()
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
