//! Devices that play recordings: what `simulate` and `demo` run, on the SDK that firmware would link.
//!
//! Heart rate and pulse waveform are real recordings, moved in time so that they end now. `SpO2`, blood
//! pressure, temperature and respiration are simulated, and are called simulated wherever they show;
//! so is a pulse waveform of a rate that somebody asks for.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use vitalseal_crypto::{DeviceId, RecipientCertificate, SubjectPseudonym};
use vitalseal_device::recording::{HeartRateRecording, PulseRecording};
use vitalseal_device::simulated::{SimulatedPatient, SimulatedPulse};
use vitalseal_device::{
    AgreementMode, Batcher, DeviceIdentity, Endpoint, Outbox, Publisher, PublisherSettings, Sealer,
};
use vitalseal_storage::StorePaths;
use vitalseal_storage::ports::{Clock as _, SystemClock};
use vitalseal_vitals::{Reading, Waveform};

use crate::admin::client::ask;
use crate::admin::protocol::Request;
use crate::cli::SimulateArgs;
use crate::commands::{enroll_with_new_key, text};
use crate::{files, output};

/// Readings in one message: a minute of a slow signal.
const READINGS_PER_MESSAGE: usize = 60;
/// … or the readings of this long, whichever comes first.
const MESSAGE_SPAN: Duration = Duration::from_secs(60);
/// Samples in one waveform message: about two seconds.
const SAMPLES_PER_MESSAGE: usize = 250;
/// Minutes that a simulated patient is measured for, one step of five signals a second.
const SIMULATED_MINUTES: i64 = 10;
/// Seconds of a simulated pulse in one message, and such messages a device: a minute.
const PULSE_MESSAGE_SECONDS: i64 = 2;
const PULSE_MESSAGES: i64 = 30;
/// Recordings end now, and are shorter than this: their devices measured their patients since then.
const RECORDED_WITHIN: SignedDuration = SignedDuration::from_hours(24);
/// Messages per session key of a device in `ss` mode.
const MESSAGES_PER_SESSION: u32 = 100;
/// A healthy server on the same machine answers everything well within this.
const DRAIN_DEADLINE: Duration = Duration::from_secs(120);

/// What a device plays.
#[derive(Debug, Clone, Copy)]
pub enum Source {
    /// Recorded heart rate of one run.
    HeartRate,
    /// Recorded pulse waveform.
    PulseWaveform,
    /// Simulated `SpO2`, blood pressure, temperature, respiration.
    Simulated {
        /// The same seed gives the same patient.
        seed: u64,
    },
    /// Simulated pulse waveform, a minute of it.
    SimulatedPulse {
        /// The same seed gives the same wave.
        seed: u64,
        /// Samples a second.
        rate_hz: NonZeroU32,
    },
}

/// What was sealed and acknowledged.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Played {
    /// Messages acknowledged.
    pub acked: u64,
    /// Readings in them.
    pub readings: u64,
}

/// One device: its identity, its outbox, its sealer.
#[derive(Debug)]
pub struct Player {
    identity: Arc<DeviceIdentity>,
    outbox: Outbox,
    sealer: Sealer,
    readings: u64,
}

impl Player {
    /// A device whose key and certificates are in `directory`, measuring `subject`.
    ///
    /// # Errors
    /// The identity or the outbox cannot be opened, or the envelope certificate is not the server's.
    pub fn open(
        directory: &Path,
        subject: SubjectPseudonym,
        recipient_pem: &str,
        mode: AgreementMode,
        now: Timestamp,
    ) -> anyhow::Result<Self> {
        let identity =
            Arc::new(DeviceIdentity::load(directory).context("loading the device's identity")?);
        let recipient: RecipientCertificate = identity
            .trust_recipient(recipient_pem, now)
            .context("checking the server's envelope certificate")?;
        let outbox =
            Outbox::open(directory.join("outbox")).context("opening the device's outbox")?;
        let sealer = Sealer::new(
            Arc::clone(&identity),
            subject,
            recipient,
            mode,
            outbox.boot(),
        );
        Ok(Self {
            identity,
            outbox,
            sealer,
            readings: 0,
        })
    }

    /// Seals what a source has to say, ending at `now`, into the outbox.
    ///
    /// # Errors
    /// Sealing failed or the outbox is full.
    pub fn record(&mut self, source: Source, now: Timestamp) -> anyhow::Result<()> {
        match source {
            Source::HeartRate => {
                let recording = HeartRateRecording::embedded()?;
                let readings = recording.readings();
                let span = match (readings.first(), readings.last()) {
                    (Some(first), Some(last)) => last.at.duration_since(first.at),
                    _ => SignedDuration::ZERO,
                };
                self.record_readings(recording.readings_from(now - span), now)
            }
            Source::PulseWaveform => {
                let recording = PulseRecording::embedded()?;
                // 128 s, as its README says; the recording carries no wall clock of its own.
                let start = now - SignedDuration::from_secs(129);
                for waveform in recording.waveforms_from(start, SAMPLES_PER_MESSAGE)? {
                    self.record_waveform(&waveform, now)?;
                }
                Ok(())
            }
            Source::Simulated { seed } => {
                let mut patient = SimulatedPatient::new(seed);
                let seconds = SIMULATED_MINUTES * 60;
                let start = now - SignedDuration::from_secs(seconds);
                let readings = (0..seconds)
                    .flat_map(|second| patient.step(start + SignedDuration::from_secs(second)))
                    .collect();
                self.record_readings(readings, now)
            }
            Source::SimulatedPulse { seed, rate_hz } => {
                let mut pulse = SimulatedPulse::new(seed, rate_hz);
                let start = now - SignedDuration::from_secs(PULSE_MESSAGES * PULSE_MESSAGE_SECONDS);
                let samples = rate_hz.get() * u32::try_from(PULSE_MESSAGE_SECONDS)?;
                for _ in 0..PULSE_MESSAGES {
                    self.record_waveform(&pulse.next(start, samples)?, now)?;
                }
                Ok(())
            }
        }
    }

    /// Seals readings, batched by count and time, into the outbox.
    ///
    /// # Errors
    /// As [`Player::record`].
    pub fn record_readings(
        &mut self,
        readings: Vec<Reading>,
        now: Timestamp,
    ) -> anyhow::Result<()> {
        let mut batcher = Batcher::new(READINGS_PER_MESSAGE, MESSAGE_SPAN);
        for reading in readings {
            if let Some(batch) = batcher.push(reading) {
                self.push(&batch, now)?;
            }
        }
        match batcher.flush() {
            Some(batch) => self.push(&batch, now),
            None => Ok(()),
        }
    }

    /// Seals a waveform, as one message, into the outbox.
    ///
    /// # Errors
    /// As [`Player::record`].
    pub fn record_waveform(&mut self, waveform: &Waveform, now: Timestamp) -> anyhow::Result<()> {
        let message = self.sealer.seal_waveform(waveform, now)?;
        self.outbox.push(&message)?;
        self.readings += u64::try_from(waveform.samples().len())?;
        Ok(())
    }

    /// Seals one message without putting it into the outbox.
    ///
    /// # Errors
    /// Sealing failed.
    pub fn seal(&mut self, readings: &[Reading], now: Timestamp) -> anyhow::Result<Vec<u8>> {
        Ok(self.sealer.seal(readings, now)?.bytes)
    }

    /// Messages waiting in the outbox.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.outbox.len()
    }

    /// Publishes until every message is acknowledged.
    ///
    /// # Errors
    /// The server did not acknowledge everything in time.
    pub async fn drain(&mut self, mqtt: SocketAddr) -> anyhow::Result<Played> {
        let endpoint = Endpoint {
            host: "localhost".to_owned(),
            port: mqtt.port(),
        };
        let settings = PublisherSettings::new(|| SystemClock.now());
        let publisher = Publisher::new(
            Arc::clone(&self.identity),
            self.outbox.clone(),
            endpoint,
            settings,
        )?;
        publisher.run_until_drained(DRAIN_DEADLINE).await?;
        let acked = publisher.stats().acked();
        Ok(Played {
            acked,
            readings: std::mem::take(&mut self.readings),
        })
    }

    fn push(&mut self, batch: &[Reading], now: Timestamp) -> anyhow::Result<()> {
        let message = self.sealer.seal(batch, now)?;
        self.outbox.push(&message)?;
        self.readings += u64::try_from(batch.len())?;
        Ok(())
    }
}

/// What `simulate` prints.
#[derive(Debug, Serialize)]
pub struct Summary {
    devices: Vec<SimulatedDevice>,
    acked: u64,
    readings: u64,
    elapsed_s: f64,
}

#[derive(Debug, Serialize)]
struct SimulatedDevice {
    device: String,
    patient: String,
    plays: &'static str,
}

/// Enrols devices at a running server and plays until everything is acknowledged.
///
/// # Errors
/// The server cannot be reached or refuses, or a device cannot be set up.
pub async fn run(args: &SimulateArgs) -> anyhow::Result<Summary> {
    let started = Instant::now();
    let socket = StorePaths::new(&args.at.data, None).admin_socket();
    let status = ask(&socket, &Request::ServerStatus).await?;
    let mqtt: SocketAddr = text(&status, "mqtt")?
        .parse()
        .context("reading the MQTT address")?;
    let state = args.state.clone().unwrap_or_else(|| beside(&args.at.data));
    if !state.exists() {
        files::create_private_dir(&state)?;
    }
    let now = SystemClock.now();
    let mut summary = Summary {
        devices: Vec::new(),
        acked: 0,
        readings: 0,
        elapsed_s: 0.0,
    };
    let mut playing = tokio::task::JoinSet::new();
    for index in 0..args.devices {
        let seed = args.seed + u64::from(index);
        let (source, plays) = match (args.waveforms, index % 3) {
            (Some(rate_hz), _) => (
                Source::SimulatedPulse { seed, rate_hz },
                "simulated pulse waveform",
            ),
            (None, 0) => (Source::HeartRate, "recorded heart rate"),
            (None, 1) => (Source::PulseWaveform, "recorded pulse waveform"),
            (None, _) => (
                Source::Simulated { seed },
                "simulated SpO2, blood pressure, temperature, respiration",
            ),
        };
        // A device id is enrolled once; the milliseconds make a second run's ids new.
        let device: DeviceId = format!("sim-{}-{index:03}", now.as_millisecond()).parse()?;
        let directory = state.join(device.as_str());
        let patient = enrol(&socket, &device, &directory).await?;
        let recipient = ask(&socket, &Request::RecipientShow).await?;
        let subject = patient
            .parse()
            .context("reading the new patient's pseudonym")?;
        let mode = AgreementMode::Ss {
            messages_per_session: MESSAGES_PER_SESSION,
        };
        let mut player = Player::open(&directory, subject, text(&recipient, "pem")?, mode, now)?;
        summary.devices.push(SimulatedDevice {
            device: device.to_string(),
            patient,
            plays,
        });
        playing.spawn(async move {
            player.record(source, now)?;
            player.drain(mqtt).await
        });
    }
    while let Some(played) = playing.join_next().await {
        let played = played.context("running a device")??;
        summary.acked += played.acked;
        summary.readings += played.readings;
    }
    summary.elapsed_s = output::seconds(started.elapsed());
    Ok(summary)
}

/// `DIR.devices`: devices are not part of the store.
fn beside(data: &Path) -> PathBuf {
    let mut name = data.components().as_path().as_os_str().to_owned();
    name.push(".devices");
    PathBuf::from(name)
}

/// A new patient and a new device for them; the patient's pseudonym.
///
/// # Errors
/// The server refuses, or the key's directory cannot be written.
pub async fn enrol(socket: &Path, device: &DeviceId, directory: &Path) -> anyhow::Result<String> {
    let added = ask(
        socket,
        &Request::PatientAdd {
            name: None,
            mrn: None,
        },
    )
    .await?;
    let patient = text(&added, "patient")?.to_owned();
    enrol_for(socket, device, directory, &patient).await?;
    Ok(patient)
}

/// A new device, with a key made here, for an existing patient.
///
/// # Errors
/// As [`enrol`].
pub async fn enrol_for(
    socket: &Path,
    device: &DeviceId,
    directory: &Path,
    patient: &str,
) -> anyhow::Result<()> {
    enroll_with_new_key(socket, device, directory).await?;
    let subject = patient.parse().context("reading the patient's pseudonym")?;
    ask(
        socket,
        &Request::DeviceAssign {
            device: device.clone(),
            patient: subject,
            since: Some(SystemClock.now() - RECORDED_WITHIN),
        },
    )
    .await?;
    Ok(())
}
