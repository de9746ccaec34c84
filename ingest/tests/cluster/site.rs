//! A broker, our consumers, and whoever publishes.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use vitalseal_ingest::{Alerts, ClusterConsumers, ClusterDeps, ClusterMetrics, ClusterSettings};
use vitalseal_storage::SystemClock;

use crate::mosquitto::Mosquitto;
use crate::rig::{Device, PATIENCE, Rig, eventually};

/// A message as it is published: topic, payload, retained.
pub(crate) type Published = (String, Vec<u8>, bool);

pub(crate) struct Site {
    pub(crate) rig: Rig,
    pub(crate) broker: Mosquitto,
    pub(crate) alerts: Alerts,
    dir: TempDir,
}

/// Running consumers.
pub(crate) struct Consuming {
    pub(crate) metrics: Arc<ClusterMetrics>,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

impl Site {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let broker = Mosquitto::start(dir.path(), "allow_anonymous true");
        Self {
            rig: Rig::start().await,
            broker,
            alerts: Alerts::default(),
            dir,
        }
    }

    /// Two consumers, connected.
    pub(crate) async fn consume(&self) -> Consuming {
        let consuming = self.consume_with(|_| {});
        eventually("both consumers are connected", || {
            consuming.metrics.connected() == 2
        })
        .await;
        consuming
    }

    pub(crate) fn consume_with(&self, set: impl FnOnce(&mut ClusterSettings)) -> Consuming {
        let mut settings = ClusterSettings::new("127.0.0.1".to_owned(), self.broker.port());
        settings.first_pause = Duration::from_millis(10);
        settings.longest_pause = Duration::from_millis(100);
        set(&mut settings);
        let deps = ClusterDeps {
            pipeline: self.rig.pipeline.clone(),
            alerts: self.alerts.clone(),
            clock: Arc::new(SystemClock),
            recipient: self.rig.recipient_pem.subscribe(),
        };
        let consumers = ClusterConsumers::new(settings, deps);
        let (metrics, shutdown) = (consumers.metrics(), CancellationToken::new());
        let serving = tokio::spawn(consumers.serve(shutdown.clone()));
        Consuming {
            metrics,
            shutdown,
            serving,
        }
    }

    /// Publishes with QoS 1 and waits until the broker has everything.
    pub(crate) async fn publish(&self, messages: Vec<Published>) {
        let (client, mut events) = self.client("devices");
        let mut missing = messages.len();
        tokio::spawn(async move {
            for (topic, payload, retain) in messages {
                let qos = QoS::AtLeastOnce;
                client.publish(topic, qos, retain, payload).await.unwrap();
            }
            std::future::pending::<()>().await;
        });
        let acked = async {
            while missing > 0 {
                if let Event::Incoming(Packet::PubAck(_)) = events.poll().await.unwrap() {
                    missing -= 1;
                }
            }
        };
        timeout(PATIENCE, acked).await.unwrap();
    }

    /// Waits until a message is stored.
    pub(crate) async fn stored(&self, device: &Device, sequence: u64) {
        let stored = async {
            while !self.rig.is_stored(device, sequence).await {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, stored).await.unwrap();
    }

    /// What the broker keeps on `v1/recipient`.
    pub(crate) async fn retained_recipient(&self) -> Vec<u8> {
        let (client, mut events) = self.client("reader");
        client
            .subscribe("v1/recipient", QoS::AtMostOnce)
            .await
            .unwrap();
        let retained = async {
            loop {
                if let Event::Incoming(Packet::Publish(publish)) = events.poll().await.unwrap() {
                    return publish.payload.to_vec();
                }
            }
        };
        timeout(PATIENCE, retained).await.unwrap()
    }

    fn client(&self, name: &str) -> (AsyncClient, rumqttc::EventLoop) {
        let mut options = MqttOptions::new(name, "127.0.0.1", self.broker.port());
        options.set_max_packet_size(4 << 20, 4 << 20);
        AsyncClient::new(options, 16)
    }

    /// The broker's log.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("mosquitto.log")).unwrap()
    }
}

impl Consuming {
    /// Waits until so many messages were acknowledged to the broker.
    pub(crate) async fn acked(&self, messages: u64) {
        eventually("the acknowledgements", || self.metrics.acked() >= messages).await;
        assert_eq!(self.metrics.acked(), messages);
    }

    /// Tells the consumers to stop, and waits until they have.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        timeout(PATIENCE, self.serving).await.unwrap().unwrap();
    }

    /// Ends them as a crash would: nothing is said to the broker.
    pub(crate) fn crash(self) {
        self.serving.abort();
    }
}
