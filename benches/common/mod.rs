//! What every bench shares: a fleet with real certificates, and how figures are printed.
//!
//! Times on a shared machine are noisy; ratios within one run are what to read and to compare.

#![allow(dead_code, reason = "each bench uses its own part")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use vitalseal_crypto::{
    Agreement, Backend, CertificateAuthority, ContentType, DeviceCertificate, DeviceId,
    DeviceSigner, Kek, KeyEpoch, RecipientCertificate, RecipientKeyRing, SealRequest,
    SealedMessage, SubjectPseudonym, default_backend, new_device_key_and_csr, seal,
};
use vitalseal_vitals::{Reading, senml, signal};

/// `--quick`, which keeps a bench under a minute.
pub fn quick() -> bool {
    std::env::args().any(|argument| argument == "--quick")
}

/// The number after `name` on the command line.
pub fn argument(name: &str) -> Option<usize> {
    let mut arguments = std::env::args().skip_while(|given| given != name);
    arguments.nth(1)?.parse().ok()
}

/// Prints the figures of one bench: readable lines first, then one JSON object a figure.
pub struct Figures {
    bench: &'static str,
    figures: Vec<(String, f64, &'static str)>,
}

impl Figures {
    pub fn of(bench: &'static str) -> Self {
        let build = if cfg!(debug_assertions) {
            ", DEBUG BUILD: not a measurement"
        } else {
            ""
        };
        println!("{bench}{}{build}", if quick() { " (quick)" } else { "" });
        Self {
            bench,
            figures: Vec::new(),
        }
    }

    pub fn add(&mut self, figure: impl Into<String>, value: f64, unit: &'static str) {
        let figure = figure.into();
        println!("  {figure:<44} {value:>14.3} {unit}");
        self.figures.push((figure, value, unit));
    }

    pub fn print_json(&self) {
        for (figure, value, unit) in &self.figures {
            let line = serde_json::json!({
                "bench": self.bench, "figure": figure, "value": value, "unit": unit,
            });
            println!("{line}");
        }
    }
}

/// Median time of one call, from batches long enough for the clock.
pub fn time<T>(mut call: impl FnMut() -> T) -> Duration {
    let budget = Duration::from_millis(if quick() { 150 } else { 1_000 });
    let mut batch = 1_u32;
    loop {
        let started = Instant::now();
        for _ in 0..batch {
            black_box(call());
        }
        if started.elapsed() > Duration::from_millis(5) || batch >= 1 << 20 {
            break;
        }
        batch *= 2;
    }
    let mut samples = Vec::new();
    let end = Instant::now() + budget;
    while samples.len() < 5 || Instant::now() < end {
        let started = Instant::now();
        for _ in 0..batch {
            black_box(call());
        }
        samples.push(started.elapsed() / batch);
    }
    samples.sort_unstable();
    samples[samples.len() / 2]
}

/// One device, its server's envelope key and a patient, all with real keys.
pub struct Fixture {
    pub device: DeviceId,
    pub subject: SubjectPseudonym,
    pub signer: DeviceSigner,
    pub certificate: DeviceCertificate,
    pub recipient: RecipientCertificate,
    pub ring: RecipientKeyRing,
    pub kek: Kek,
}

impl Fixture {
    pub fn new() -> Self {
        let now = now();
        let backend = default_backend();
        let made = CertificateAuthority::create(now).unwrap();
        let authority = CertificateAuthority::open(
            &made.issuing_key_pem,
            &made.issuing_cert_pem,
            &made.root_cert_pem,
        )
        .unwrap();
        let device: DeviceId = "bench-001".parse().unwrap();
        let (key_pem, csr_pem) = new_device_key_and_csr(&device).unwrap();
        let issued = authority.issue_device(&csr_pem, &device, now).unwrap();
        let later = now + jiff::SignedDuration::from_hours(24);
        let recipient = authority
            .issue_recipient(KeyEpoch(0), now, later, backend)
            .unwrap();
        Self {
            subject: SubjectPseudonym::random(backend).unwrap(),
            signer: DeviceSigner::from_pkcs8_pem(&key_pem, &issued.pem).unwrap(),
            certificate: issued.certificate,
            recipient: recipient.certificate().clone(),
            ring: RecipientKeyRing::new(vec![recipient]),
            kek: Kek::generate(backend).unwrap(),
            device,
        }
    }

    pub fn seal_with(
        &self,
        sequence: u64,
        payload: &[u8],
        agreement: Agreement<'_>,
        backend: &dyn Backend,
    ) -> SealedMessage {
        let request = SealRequest {
            content_type: ContentType::SenmlCbor,
            device: &self.device,
            subject: &self.subject,
            issued_at: now(),
            boot: 1,
            sequence,
            previous: None,
        };
        seal(
            &request,
            payload,
            &self.recipient,
            agreement,
            &self.signer,
            backend,
        )
        .unwrap()
    }
}

/// A payload of `count` readings, one second and five signals a step, as a monitor sends them.
pub fn payload(count: usize) -> Vec<u8> {
    senml::encode(&readings(count, now()))
}

/// The readings of [`payload`].
pub fn readings(count: usize, from: Timestamp) -> Vec<Reading> {
    const CODES: [(&str, f64); 5] = [
        ("8867-4", 72.0),
        ("59408-5", 97.0),
        ("9279-1", 16.0),
        ("8310-5", 36.8),
        ("8480-6", 121.0),
    ];
    (0..count)
        .map(|index| {
            let (code, base) = CODES[index % CODES.len()];
            let step = index / CODES.len();
            Reading {
                signal: signal(code).unwrap(),
                value: base + (step % 3) as f64,
                at: from + jiff::SignedDuration::from_secs(step as i64),
            }
        })
        .collect()
}

/// Whole seconds, as envelopes carry them.
pub fn now() -> Timestamp {
    Timestamp::from_second(1_767_312_000).unwrap()
}
