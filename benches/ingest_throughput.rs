//! Acknowledged messages per second, end to end, beside the ceiling of verifying signatures and doing
//! nothing else, measured in the same run on the same machine.
//!
//! End to end: real devices over mutual TLS, each message verified, opened, re-wrapped and fsynced before
//! its PUBACK. Messages are sealed beforehand; the clients run in the same process and so share the
//! cores with the server, which makes the figure a lower bound.
//!
//! `cargo bench --bench ingest_throughput [-- --quick]`

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
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Figures, quick, readings};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS, TlsConfiguration, Transport};
use vitalseal::init::{self, NewStore};
use vitalseal::server::{Addresses, Overrides, Server, System};
use vitalseal_crypto::{
    Agreement, ContentType, DeviceCertificate, DeviceId, DeviceSigner, Received, SealRequest,
    SessionKey, default_backend, new_device_key_and_csr, seal,
};
use vitalseal_vitals::senml;

/// Messages one session may have unacknowledged.
const WINDOW: u16 = 100;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut figures = Figures::of("ingest_throughput");
    runtime.block_on(run(&mut figures));
    figures.print_json();
}

async fn run(figures: &mut Figures) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let new = NewStore {
        data: data.clone(),
        root_keys: None,
        names: Vec::new(),
        administrator: "admin".parse().unwrap(),
        token: None,
    };
    init::create(new, jiff_now()).await.unwrap();
    let any = Some("127.0.0.1:0".parse().unwrap());
    let server = Server::start(
        &data,
        Overrides {
            mqtt: any,
            sql: any,
            http: any,
        },
    )
    .await
    .unwrap();

    let connections = [1, 8];
    let mut fleet = Vec::new();
    for index in 0..connections[1] {
        fleet.push(Peer::enrol(&server.system, index).await);
    }
    for count in [1_usize, 60, 300] {
        for connections in connections {
            let total: usize = match (count, quick()) {
                (1, false) => 20_000,
                (60, false) => 10_000,
                (_, false) => 4_000,
                (1, true) => 4_000,
                (60, true) => 2_000,
                (_, true) => 800,
            };
            let peers = &mut fleet[..connections];
            let loads: Vec<Vec<Vec<u8>>> = peers
                .iter_mut()
                .map(|peer| peer.seal(total / connections, count))
                .collect();
            let ceiling = verify_ceiling(&peers[0].certificate, &loads[0]);
            let acked = acked_per_second(server.addresses, peers, loads).await;
            let label = |what: &str| format!("{what}_{count}_readings_{connections}_connections");
            figures.add(label("verify_ceiling"), ceiling, "messages/s");
            figures.add(label("acked"), acked, "messages/s");
            figures.add(label("acked_readings"), acked * count as f64, "readings/s");
            figures.add(label("acked_over_verify_ceiling"), acked / ceiling, "ratio");
        }
    }
    server.stop().await.unwrap();
}

/// Signatures verified per second by every core, with nothing else done.
fn verify_ceiling(certificate: &DeviceCertificate, messages: &[Vec<u8>]) -> f64 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let time = Duration::from_millis(if quick() { 500 } else { 2_000 });
    let verified = AtomicU64::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for core in 0..cores {
            let verified = &verified;
            scope.spawn(move || {
                let mut own = 0;
                for message in messages.iter().cycle().skip(core) {
                    let received = Received::decode(message).unwrap();
                    received.verify(certificate, default_backend()).unwrap();
                    own += 1;
                    if started.elapsed() > time {
                        break;
                    }
                }
                verified.fetch_add(own, Ordering::Relaxed);
            });
        }
    });
    verified.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64()
}

async fn acked_per_second(addresses: Addresses, peers: &[Peer], loads: Vec<Vec<Vec<u8>>>) -> f64 {
    let total: usize = loads.iter().map(Vec::len).sum();
    let mut sessions = Vec::new();
    for (peer, load) in peers.iter().zip(loads) {
        sessions.push((peer.connect(addresses).await, peer.topic(), load));
    }
    let started = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for ((client, mut events), topic, load) in sessions {
        running.spawn(async move {
            let mut open = load.len();
            let publisher = client.clone();
            let publishing = tokio::spawn(async move {
                for message in load {
                    publisher
                        .publish(&topic, QoS::AtLeastOnce, false, message)
                        .await
                        .unwrap();
                }
            });
            while open > 0 {
                if let Event::Incoming(Packet::PubAck(_)) = events.poll().await.unwrap() {
                    open -= 1;
                }
            }
            publishing.await.unwrap();
            client.disconnect().await.unwrap();
            while events.poll().await.is_ok() {}
        });
    }
    let mut last = started;
    while let Some(done) = running.join_next().await {
        done.unwrap();
        last = Instant::now();
    }
    total as f64 / (last - started).as_secs_f64()
}

/// One device outside the server.
struct Peer {
    device: DeviceId,
    subject: vitalseal_crypto::SubjectPseudonym,
    signer: DeviceSigner,
    certificate: DeviceCertificate,
    recipient: vitalseal_crypto::RecipientCertificate,
    session: SessionKey,
    tls: Arc<rustls::ClientConfig>,
    sequence: u64,
}

impl Peer {
    async fn enrol(system: &System, index: usize) -> Self {
        let device: DeviceId = format!("bench-{index:03}").parse().unwrap();
        let (key_pem, csr_pem) = new_device_key_and_csr(&device).unwrap();
        let now = jiff_now();
        let issued = system
            .authority
            .issue_device(&csr_pem, &device, now)
            .unwrap();
        let registry = &system.store.registry;
        let subject = registry.add_patient(None, None, now).await.unwrap();
        registry
            .enroll_device(&issued.certificate, now)
            .await
            .unwrap();
        registry
            .assign_device(&device, &subject, now)
            .await
            .unwrap();
        Self {
            tls: Arc::new(
                vitalseal::tls::device(&system.authority.bundle_pem(), &issued.pem, &key_pem)
                    .unwrap(),
            ),
            signer: DeviceSigner::from_pkcs8_pem(&key_pem, &issued.pem).unwrap(),
            recipient: system
                .store
                .keys
                .current_recipient(now)
                .await
                .unwrap()
                .unwrap(),
            session: SessionKey::generate(default_backend()).unwrap(),
            certificate: issued.certificate,
            subject,
            device,
            sequence: 0,
        }
    }

    fn topic(&self) -> String {
        format!("v1/d/{}/vitals", self.device)
    }

    fn seal(&mut self, messages: usize, count: usize) -> Vec<Vec<u8>> {
        let now = jiff_now();
        let payload = senml::encode(&readings(count, now));
        (0..messages)
            .map(|_| {
                self.sequence += 1;
                let request = SealRequest {
                    content_type: ContentType::SenmlCbor,
                    device: &self.device,
                    subject: &self.subject,
                    issued_at: now,
                    boot: 1,
                    sequence: self.sequence,
                    previous: None,
                };
                let agreement = Agreement::Session(&self.session);
                seal(
                    &request,
                    &payload,
                    &self.recipient,
                    agreement,
                    &self.signer,
                    default_backend(),
                )
                .unwrap()
                .bytes
            })
            .collect()
    }

    async fn connect(&self, addresses: Addresses) -> (AsyncClient, rumqttc::EventLoop) {
        let mut options =
            MqttOptions::new(self.device.as_str(), "localhost", addresses.mqtt.port());
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(
            Arc::clone(&self.tls),
        )));
        options.set_max_packet_size(512 * 1024, 512 * 1024);
        options.set_inflight(WINDOW);
        options.set_keep_alive(Duration::from_secs(30));
        let (client, mut events) = AsyncClient::new(options, usize::from(WINDOW));
        while !matches!(
            events.poll().await.unwrap(),
            Event::Incoming(Packet::ConnAck(_))
        ) {}
        (client, events)
    }
}

fn jiff_now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
