//! A device of the SDK in this process: who it is, what it seals with, what waits to be sent.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use vitalseal::tls;
use vitalseal_device::{
    AgreementMode, DeviceIdentity, Endpoint, Outbox, Publisher, PublisherSettings, Sealer,
};

use super::Site;

pub struct Monitor {
    pub identity: Arc<DeviceIdentity>,
    pub sealer: Sealer,
    pub outbox: Outbox,
}

impl Monitor {
    /// Begins a new boot of the device whose key is in `directory`.
    pub fn boot(directory: &Path, patient: &str, recipient_pem: &str, mode: AgreementMode) -> Self {
        let identity = Arc::new(DeviceIdentity::load(directory).unwrap());
        let recipient = identity.trust_recipient(recipient_pem, Timestamp::now());
        let outbox = Outbox::open(directory.join("outbox")).unwrap();
        let sealer = Sealer::new(
            Arc::clone(&identity),
            patient.parse().unwrap(),
            recipient.unwrap(),
            mode,
            outbox.boot(),
        );
        Self {
            identity,
            sealer,
            outbox,
        }
    }

    /// The same, for what the site's server says that devices seal to.
    pub fn at(site: &Site, directory: &Path, patient: &str, mode: AgreementMode) -> Self {
        let recipient = site.json(&["recipient", "show"]);
        Self::boot(directory, patient, recipient["pem"].as_str().unwrap(), mode)
    }

    /// Sends what is in the outbox to this port, and does not wait long before it tries again.
    pub fn publisher(&self, port: u16) -> Publisher {
        let endpoint = Endpoint {
            host: "localhost".to_owned(),
            port,
        };
        let mut settings = PublisherSettings::new(Timestamp::now);
        settings.first_pause = Duration::from_millis(20);
        settings.longest_pause = Duration::from_millis(200);
        let identity = Arc::clone(&self.identity);
        Publisher::new(identity, self.outbox.clone(), endpoint, settings).unwrap()
    }

    /// For a session past the SDK.
    pub fn tls(&self) -> Arc<rustls::ClientConfig> {
        let identity = &self.identity;
        let (ca, key) = (identity.authority_pem(), identity.key_pem());
        Arc::new(tls::device(ca, identity.certificate_pem(), key).unwrap())
    }
}
