//! Messages of any time: sealed then, in that boot, with readings of then.

use jiff::{SignedDuration, Timestamp};
use vitalseal_crypto::{
    Agreement, ContentType, SealRequest, SealedMessage, SubjectPseudonym, default_backend, seal,
};
use vitalseal_storage::{Clock as _, QuarantineRow, SystemClock};
use vitalseal_vitals::{Reading, senml};

use crate::rig::{Device, Rig, reading};

/// One message of a device.
#[derive(Clone)]
pub(crate) struct Past {
    pub(crate) boot: u64,
    pub(crate) sequence: u64,
    pub(crate) previous: Option<[u8; 32]>,
    pub(crate) issued_at: Timestamp,
    /// When each reading was measured.
    pub(crate) measured: Vec<Timestamp>,
    pub(crate) subject: SubjectPseudonym,
}

impl Past {
    /// Message 0 of boot 1 about the rig's patient, with one reading, all of that age.
    pub(crate) fn new(rig: &Rig, age: SignedDuration) -> Self {
        let issued_at = ago(age);
        Self {
            boot: 1,
            sequence: 0,
            previous: None,
            issued_at,
            measured: vec![issued_at],
            subject: rig.patient.clone(),
        }
    }

    pub(crate) fn seal(&self, rig: &Rig, device: &Device) -> SealedMessage {
        self.seal_value(rig, device, 72.0)
    }

    pub(crate) fn seal_value(&self, rig: &Rig, device: &Device, value: f64) -> SealedMessage {
        let at = |at: &Timestamp| Reading {
            at: *at,
            ..reading(value)
        };
        let readings: Vec<_> = self.measured.iter().map(at).collect();
        let request = SealRequest {
            content_type: ContentType::SenmlCbor,
            device: &device.id,
            subject: &self.subject,
            issued_at: self.issued_at,
            boot: self.boot,
            sequence: self.sequence,
            previous: self.previous,
        };
        let payload = senml::encode(&readings);
        let (es, signer) = (Agreement::Ephemeral, &device.signer);
        seal(
            &request,
            &payload,
            &rig.recipient,
            es,
            signer,
            default_backend(),
        )
        .unwrap()
    }
}

/// An instant of the past, in whole seconds as `iat` has them.
pub(crate) fn ago(age: SignedDuration) -> Timestamp {
    let then = SystemClock.now() - age;
    Timestamp::from_second(then.as_second()).unwrap()
}

/// An enrolled device that is assigned to the rig's patient since then.
pub(crate) async fn device_since(rig: &Rig, name: &str, since: Timestamp) -> Device {
    let device = rig.stranger(name, &rig.authority);
    let registry = &rig.store.registry;
    let enrolled = registry.enroll_device(&device.certificate, SystemClock.now());
    enrolled.await.unwrap();
    let assigned = registry.assign_device(&device.id, &rig.patient, since);
    assigned.await.unwrap();
    device
}

/// The newest refused message.
pub(crate) async fn newest(rig: &Rig) -> QuarantineRow {
    rig.store.inbox.quarantined(1).await.unwrap().remove(0)
}
