//! A device of the SDK in front of a test server, and the raw session that a broken one would use.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::runtime::Runtime;
use vitalseal::mqtt_client::Session;
use vitalseal::simulate::Player;
use vitalseal::tls;
use vitalseal_device::AgreementMode;
use vitalseal_vitals::{Reading, Waveform};

use super::Site;

/// A device, driven from blocking test code.
pub struct Device<'a> {
    site: &'a Site,
    name: String,
    directory: PathBuf,
    player: Player,
    runtime: Runtime,
}

impl<'a> Device<'a> {
    /// The device whose key is in `directory`.
    pub fn load(directory: &Path, patient: &str, site: &'a Site) -> Self {
        let recipient = site.json(&["recipient", "show"]);
        let recipient = recipient["pem"].as_str().unwrap();
        let now = Timestamp::now();
        let mode = AgreementMode::Ss {
            messages_per_session: 50,
        };
        let player =
            Player::open(directory, patient.parse().unwrap(), recipient, mode, now).unwrap();
        Self {
            site,
            name: directory.file_name().unwrap().to_str().unwrap().to_owned(),
            directory: directory.to_owned(),
            player,
            runtime: Runtime::new().unwrap(),
        }
    }

    /// Seals readings into the outbox.
    pub fn push(&mut self, readings: &[Reading]) {
        self.player
            .record_readings(readings.to_vec(), Timestamp::now())
            .unwrap();
    }

    /// Seals a waveform into the outbox.
    pub fn push_waveform(&mut self, waveform: &Waveform) {
        self.player
            .record_waveform(waveform, Timestamp::now())
            .unwrap();
    }

    /// Seals one message, for [`Device::publish_raw`].
    pub fn seal(&mut self, readings: &[Reading]) -> Vec<u8> {
        self.player.seal(readings, Timestamp::now()).unwrap()
    }

    /// Publishes the outbox until it is empty.
    pub fn drain(&mut self) {
        let mqtt = self.site.address("mqtt");
        self.runtime.block_on(self.player.drain(mqtt)).unwrap();
    }

    /// Publishes any bytes as this device and waits for the PUBACK.
    pub fn publish_raw(&self, payload: Vec<u8>) {
        let read = |name: &str| std::fs::read_to_string(self.directory.join(name)).unwrap();
        let tls = tls::device(&read("ca.pem"), &read("cert.pem"), &read("key.pem")).unwrap();
        self.runtime.block_on(async {
            let mqtt = self.site.address("mqtt");
            let mut session = Session::connect(mqtt, &self.name, Arc::new(tls))
                .await
                .unwrap();
            session
                .publish(&format!("v1/d/{}/vitals", self.name), payload)
                .await
                .unwrap();
            session.close().await;
        });
    }
}

/// The message with one bit of its ciphertext flipped.
pub fn tamper(message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    // The recipient takes the last 140 bytes or so; the ciphertext lies before it.
    let at = message.len() - 155;
    message[at] ^= 1;
    message
}
