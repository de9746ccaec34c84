//! Acknowledged messages per second, end to end, beside two things measured in the same run on the same machine: the
//! ceiling of verifying signatures and doing nothing else, and Mosquitto, which checks and keeps nothing.
//!
//! End to end: devices over mutual TLS, each message verified, opened, re-wrapped and fsynced before its PUBACK. The
//! server is the release binary in a process of its own; the clients share its cores, and what they cost is told.
//!
//! | Figure | Meaning |
//! |---|---|
//! | `verify_ceiling` | signatures verified per second by all cores |
//! | `acked` | messages acknowledged per second, clients on the same cores |
//! | `acked_over_verify_ceiling` | their ratio |
//! | `server_cpu_us` | CPU time of the server, a message |
//! | `client_cpu_us` | CPU time of the clients, a message |
//! | `verify_share_of_server_cpu` | verification alone over `server_cpu_us`: the ratio that clients elsewhere would leave |
//! | `bytes_per_connection` | resident memory that the server has more once its clients are connected, a connection |
//! | `load_mib` | … and by how much that grew under the load: what is in flight, caches, a file being written |
//! | `ack_p50_ms`, `ack_p99_ms` | from sending to the PUBACK at half of that load |
//! | `mosquitto` | its acknowledged messages per second, the same clients |
//!
//! `cargo bench --bench ingest_throughput [-- --quick] [--readings 60] [--waveforms 250] [--connections 100]`
//!
//! With `--waveforms HZ` a message is two seconds of a pulse wave, and what is called readings are its samples.

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
#[path = "common/load.rs"]
mod load;
#[path = "common/mosquitto.rs"]
mod mosquitto;
#[path = "common/site.rs"]
mod site;

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Figures, argument, quick, readings};
use load::{Client, publish_packet, quantile};
use mosquitto::Mosquitto;
use site::{Enrolled, Process, Site, Usage, own_usage};
use vitalseal_crypto::{
    Agreement, ContentType, DeviceCertificate, Received, SealRequest, SessionKey, default_backend,
    seal,
};
use vitalseal_device::simulated::SimulatedPulse;
use vitalseal_vitals::{senml, waveform};

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("client")
        .enable_all()
        .build()
        .unwrap();
    let mut figures = Figures::of("ingest_throughput");
    runtime.block_on(run(&mut figures));
    figures.print_json();
}

async fn run(figures: &mut Figures) {
    let connections = chosen("--connections").unwrap_or_else(|| vec![1, 100, 1_000]);
    // A bench is faster than any device may be.
    let unlimited = [
        ("packets_per_s = 200", "packets_per_s = 1000000"),
        ("bytes_per_s = 1048576", "bytes_per_s = 1000000000"),
    ];
    let site = Site::start(&unlimited).await;
    let mosquitto = Mosquitto::start();
    if mosquitto.is_none() {
        println!("  (Mosquitto is not installed: its rows are missing)");
    }
    let mut fleet = Vec::new();
    for index in 0..connections.iter().copied().max().unwrap_or(0) {
        fleet.push(Device::enrol(&site, index).await);
    }
    let samples = rate_hz().map(|rate| vec![2 * rate.get() as usize]);
    let counts = samples.or_else(|| chosen("--readings"));
    for count in counts.unwrap_or_else(|| vec![1, 60, 300]) {
        for &connections in &connections {
            let total = match (count, quick()) {
                (1, false) => 60_000,
                (60, false) => 40_000,
                (_, false) => 20_000,
                (1, true) => 12_000,
                (60, true) => 8_000,
                (_, true) => 4_000,
            };
            let devices = &mut fleet[..connections];
            let label = |what: &str| format!("{what}_{count}_readings_{connections}_connections");

            let loads = seal_all(devices, total, count, &site);
            let messages: Vec<_> = loads.iter().flatten().take(1_000).collect();
            let ceiling = verify_ceiling(&devices[0].enrolled.certificate, &messages);
            let packets = packets(devices, &loads);
            let server = drive(&site, site.port(), devices, packets, None).await;
            figures.add(label("verify_ceiling"), ceiling, "messages/s");
            figures.add(label("acked"), server.per_second, "messages/s");
            figures.add(
                label("acked_readings"),
                server.per_second * count as f64,
                "readings/s",
            );
            figures.add(
                label("acked_over_verify_ceiling"),
                server.per_second / ceiling,
                "ratio",
            );
            figures.add(label("server_cpu_us"), server.broker_us, "us");
            figures.add(label("client_cpu_us"), server.client_us, "us");
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let verify_us = 1e6 * cores as f64 / ceiling;
            figures.add(
                label("verify_share_of_server_cpu"),
                verify_us / server.broker_us,
                "ratio",
            );

            figures.add(
                label("bytes_per_connection"),
                server.connected_bytes,
                "bytes",
            );
            figures.add(label("load_mib"), server.load_mib, "MiB");

            let half = server.per_second / 2.0;
            let loads = seal_all(devices, total / 2, count, &site);
            let pause = Duration::from_secs_f64(connections as f64 / half);
            let paced = self::packets(devices, &loads);
            let at_half = drive(&site, site.port(), devices, paced, Some(pause)).await;
            let ms = |q| quantile(&at_half.latencies, q).as_secs_f64() * 1e3;
            figures.add(label("ack_p50_ms"), ms(500), "ms");
            figures.add(label("ack_p99_ms"), ms(990), "ms");

            if let Some(mosquitto) = &mosquitto {
                let packets = self::packets(devices, &loads);
                let plain = drive(mosquitto, mosquitto.port, devices, packets, None).await;
                figures.add(label("mosquitto"), plain.per_second, "messages/s");
                figures.add(label("mosquitto_cpu_us"), plain.broker_us, "us");
            }
        }
    }
}

/// The number after an argument, instead of all that are tried.
fn chosen(name: &str) -> Option<Vec<usize>> {
    argument(name).map(|number| vec![number])
}

/// Who answers, and how its clients get in.
trait Broker {
    fn process(&self) -> &Process;
    fn tls(&self, device: &Device) -> std::sync::Arc<rustls::ClientConfig>;
}

impl Broker for Site {
    fn process(&self) -> &Process {
        self.server()
    }

    fn tls(&self, device: &Device) -> std::sync::Arc<rustls::ClientConfig> {
        std::sync::Arc::clone(&device.enrolled.tls)
    }
}

impl Broker for Mosquitto {
    fn process(&self) -> &Process {
        &self.broker
    }

    fn tls(&self, device: &Device) -> std::sync::Arc<rustls::ClientConfig> {
        self.client(device.enrolled.id.as_str())
    }
}

struct Driven {
    per_second: f64,
    broker_us: f64,
    client_us: f64,
    connected_bytes: f64,
    load_mib: f64,
    /// Sorted.
    latencies: Vec<Duration>,
}

/// Connects everybody, then publishes; only the publishing is measured.
async fn drive(
    broker: &impl Broker,
    port: u16,
    devices: &[Device],
    packets: Vec<Vec<Bytes>>,
    pause: Option<Duration>,
) -> Driven {
    let total: usize = packets.iter().map(Vec::len).sum();
    let alone = broker.process().usage();
    let mut clients = Vec::new();
    for device in devices {
        let tls = broker.tls(device);
        clients.push(Client::connect(port, device.enrolled.id.as_str(), &tls).await);
    }
    let before = (broker.process().usage(), own_usage());
    let started = Instant::now();
    let count = clients.len();
    let mut running = tokio::task::JoinSet::new();
    for (index, (mut client, packets)) in clients.into_iter().zip(packets).enumerate() {
        running.spawn(async move {
            // Spread over the first pause, as devices are.
            if let Some(pause) = pause {
                tokio::time::sleep(pause.mul_f64(index as f64 / count as f64)).await;
            }
            (client.publish(&packets, pause).await, client)
        });
    }
    let mut latencies = Vec::with_capacity(total);
    let mut clients = Vec::new();
    while let Some(done) = running.join_next().await {
        let (ran, client) = done.unwrap();
        latencies.extend(ran.latencies);
        clients.push(client);
    }
    let elapsed = started.elapsed();
    let after = (broker.process().usage(), own_usage());
    latencies.sort_unstable();
    let grown = |from: Usage, to: Usage| to.resident_bytes as f64 - from.resident_bytes as f64;
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / total as f64;
    Driven {
        per_second: total as f64 / elapsed.as_secs_f64(),
        broker_us: each(after.0.cpu - before.0.cpu),
        client_us: each(after.1.cpu - before.1.cpu),
        connected_bytes: grown(alone, before.0) / count as f64,
        load_mib: grown(before.0, after.0) / f64::from(1 << 20),
        latencies,
    }
}

/// Signatures verified per second by every core, with nothing else done.
fn verify_ceiling(certificate: &DeviceCertificate, messages: &[&Vec<u8>]) -> f64 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let time = Duration::from_millis(if quick() { 500 } else { 2_000 });
    let own: Vec<_> = messages
        .iter()
        .filter(|message| {
            let received = Received::decode(message).unwrap();
            received.header().device == *certificate.device()
        })
        .collect();
    let verified = AtomicU64::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for core in 0..cores {
            let (own, verified) = (&own, &verified);
            scope.spawn(move || {
                let mut count = 0;
                for message in own.iter().cycle().skip(core) {
                    let received = Received::decode(message).unwrap();
                    received.verify(certificate, default_backend()).unwrap();
                    count += 1;
                    if started.elapsed() > time {
                        break;
                    }
                }
                verified.fetch_add(count, Ordering::Relaxed);
            });
        }
    });
    verified.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64()
}

/// One device outside the server.
struct Device {
    enrolled: Enrolled,
    session: SessionKey,
    sequence: u64,
}

/// Samples a second of the waveforms that are asked for.
fn rate_hz() -> Option<NonZeroU32> {
    argument("--waveforms").and_then(|rate| NonZeroU32::new(rate as u32))
}

impl Device {
    async fn enrol(site: &Site, index: usize) -> Self {
        Self {
            enrolled: site.enrol(&format!("bench-{index:04}")).await,
            session: SessionKey::generate(default_backend()).unwrap(),
            sequence: 0,
        }
    }

    fn seal(&mut self, messages: usize, count: usize, site: &Site) -> Vec<Vec<u8>> {
        let now = jiff::Timestamp::now();
        let (content_type, payload) = match rate_hz() {
            Some(rate) => {
                let wave = SimulatedPulse::new(1, rate)
                    .next(now, count as u32)
                    .unwrap();
                (ContentType::Waveform, waveform::encode(&wave))
            }
            None => (ContentType::SenmlCbor, senml::encode(&readings(count, now))),
        };
        let mut sealed = Vec::with_capacity(messages);
        for _ in 0..messages {
            let request = SealRequest {
                content_type,
                device: &self.enrolled.id,
                subject: &site.patient,
                issued_at: now,
                boot: 1,
                sequence: self.sequence,
                previous: None,
            };
            self.sequence += 1;
            let agreement = Agreement::Session(&self.session);
            let message = seal(
                &request,
                &payload,
                &site.recipient,
                agreement,
                &self.enrolled.signer,
                default_backend(),
            );
            sealed.push(message.unwrap().bytes);
        }
        sealed
    }
}

fn seal_all(devices: &mut [Device], total: usize, count: usize, site: &Site) -> Vec<Vec<Vec<u8>>> {
    let each = (total / devices.len()).max(1);
    std::thread::scope(|scope| {
        let halves = devices.chunks_mut(devices.len().div_ceil(2));
        let running: Vec<_> = halves
            .map(|half| {
                scope.spawn(move || {
                    half.iter_mut()
                        .map(|device| device.seal(each, count, site))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        running
            .into_iter()
            .flat_map(|half| half.join().unwrap())
            .collect()
    })
}

fn packets(devices: &[Device], loads: &[Vec<Vec<u8>>]) -> Vec<Vec<Bytes>> {
    let packet = |(device, load): (&Device, &Vec<Vec<u8>>)| {
        let topic = format!("v1/d/{}/vitals", device.enrolled.id);
        load.iter()
            .enumerate()
            .map(|(number, message)| publish_packet(&topic, number, message))
            .collect()
    };
    devices.iter().zip(loads).map(packet).collect()
}
