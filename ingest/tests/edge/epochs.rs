//! The end of an envelope key: what was captured before opens nowhere, what a device still holds is addressed anew.

use jiff::SignedDuration;
use vitalseal_crypto::{Agreement, AtRest, SessionKey, default_backend, readdress};
use vitalseal_ingest::Outcome;
use vitalseal_storage::{Clock as _, QuarantineReason, SystemClock};
use vitalseal_vitals::senml;

use crate::files::copy_tree;
use crate::rig::{Rig, reading};

const STORED: Outcome = Outcome::Stored {
    readings: 1,
    gap: false,
};
const UNKNOWN_KEY: Outcome = Outcome::Quarantined(QuarantineReason::UnknownKey);

#[tokio::test]
async fn a_captured_message_of_an_ended_epoch_opens_neither_here_nor_in_an_older_copy() {
    let mut rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let captured = [1, 2, 3].map(|sequence| rig.seal(&device, sequence));
    let [sent, held, late] = captured;
    assert_eq!(rig.submit(&device, sent.clone()).await, STORED);
    rig.next_epoch(2).await;

    let data = rig.directories().0;
    let copy = data.with_file_name("copy");
    copy_tree(&data, &copy);
    rig.reopened(&copy).await;
    assert_eq!(
        rig.submit(&device, held).await,
        STORED,
        "the copy opens it while the epoch lasts, so the test looks at the right thing"
    );
    rig.reopened(&data).await;
    // The server keeps the secret of a session that it has opened.
    let session = SessionKey::generate(default_backend()).unwrap();
    let in_session = [4, 5].map(|sequence| {
        let agreement = Agreement::Session(&session);
        rig.seal_link(&device, sequence, None, agreement).bytes
    });
    let [opened, late_in_session] = in_session;
    assert_eq!(rig.submit(&device, opened).await, STORED);
    let end = SystemClock.now() + SignedDuration::from_hours(25);
    let keys = &rig.store.keys;
    let ended = keys.destroy_recipients_ended_before(end).await.unwrap();
    assert_eq!(ended.len(), 1);
    for late in [&late, &late_in_session] {
        assert_eq!(rig.submit(&device, late.clone()).await, UNKNOWN_KEY);
    }
    // With the root keys as they are now, which is all that is left of them.
    rig.reopened(&copy).await;
    for late in [late, late_in_session] {
        assert_eq!(rig.submit(&device, late).await, UNKNOWN_KEY);
    }
    // What was stored before is the patient's, and does not end with the epoch.
    assert_eq!(rig.submit(&device, sent).await, Outcome::Duplicate);
    assert!(rig.is_stored(&device, 1).await);
}

#[tokio::test]
async fn a_message_that_outlived_its_epoch_on_the_device_is_stored_once_addressed_anew() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let waiting = rig.seal_link(&device, 0, None, Agreement::Ephemeral);
    let present = rig.next_epoch(2).await;
    let end = SystemClock.now() + SignedDuration::from_hours(25);
    let keys = &rig.store.keys;
    keys.destroy_recipients_ended_before(end).await.unwrap();
    assert_eq!(
        rig.submit(&device, waiting.bytes.clone()).await,
        UNKNOWN_KEY,
        "as it was sealed, it is lost"
    );
    let backend = default_backend();
    let (key, es) = (&waiting.content_key, Agreement::Ephemeral);
    let anew = readdress(&waiting.bytes, key, &present, es, backend).unwrap();
    assert_eq!(rig.submit(&device, anew).await, STORED);

    let message = vitalseal_crypto::MessageId {
        device: device.id.clone(),
        boot: 1,
        sequence: 0,
    };
    let stored = rig.store.stored_envelope(&message).await.unwrap();
    let stored = AtRest::decode(&stored.unwrap()).unwrap();
    stored.verify(&device.certificate, backend).unwrap();
    let keys = rig.store.keys.patient_keys(&rig.patient).await.unwrap();
    let payload = stored.open(keys.unwrap().current(), backend).unwrap();
    let readings = senml::decode(&payload).unwrap();
    assert_eq!(readings.len(), 1);
    assert_eq!(readings[0].value.to_bits(), reading(72.0).value.to_bits());
}
