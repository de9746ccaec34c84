//! Links between messages, and what a second holder of a device's key leaves behind.

use std::fs;

use jiff::SignedDuration;
use rumqttc::QoS;
use vitalseal_crypto::{
    Agreement, CloneKind, CloneProof, CloneStatement, SealedMessage, SessionKey,
    certificates_in_pem, default_backend, readdress,
};
use vitalseal_ingest::{Outcome, PipelineError};
use vitalseal_storage::{Clock as _, QuarantineReason, SystemClock};
use vitalseal_vitals::senml;

use crate::raw::{Raw, publish4};
use crate::rig::{Device, Rig, reading};

const ES: Agreement<'static> = Agreement::Ephemeral;
const STORED: Outcome = stored(false);
const FORK: Outcome = Outcome::Quarantined(QuarantineReason::Fork);

const fn stored(gap: bool) -> Outcome {
    Outcome::Stored { readings: 1, gap }
}

/// The first `count` messages of a boot, each naming the one before.
fn history(rig: &Rig, device: &Device, count: u64) -> Vec<SealedMessage> {
    let mut messages: Vec<SealedMessage> = Vec::new();
    for sequence in 0..count {
        let previous = messages.last().map(|message| message.signed_hash);
        messages.push(rig.seal_link(device, sequence, previous, ES));
    }
    messages
}

/// What the kept proofs prove to whoever trusts the authority.
async fn proven(rig: &Rig, device: &Device) -> Vec<CloneStatement> {
    let authorities = certificates_in_pem(&rig.authority.bundle_pem()).unwrap();
    let authorities: Vec<_> = authorities.iter().map(Vec::as_slice).collect();
    let kept = rig.store.inbox.clone_proofs(&device.id).await.unwrap();
    kept.iter()
        .map(|kept| CloneProof::decode(&kept.proof).unwrap())
        .map(|proof| proof.verify(&authorities, default_backend()).unwrap())
        .collect()
}

/// Two threads verify; which of two messages they finish first must not be taken for what the device did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_that_comes_at_once_has_no_gap() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let (mut raw, _) = Raw::v4(&rig, &device, true).await;
    for (id, message) in (1..).zip(history(&rig, &device, 60)) {
        raw.send4(&publish4(&device, QoS::AtLeastOnce, id, message.bytes))
            .await;
        // In between what is refused early, and so has its turn at once.
        raw.send4(&publish4(&device, QoS::AtMostOnce, 0, vec![0; 40]))
            .await;
    }
    for _ in 0..60 {
        raw.read4().await.unwrap();
    }
    assert_eq!((rig.rows().await, rig.metrics.chain_gaps()), (60, 0));
}

#[tokio::test]
async fn a_gap_is_stored_counted_and_closed_by_the_late_message() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let messages = history(&rig, &device, 4);
    let (mut raw, _) = Raw::v4(&rig, &device, true).await;
    for (id, sequence) in [(1, 0), (2, 3), (3, 1)] {
        let message = messages[sequence].bytes.clone();
        raw.send4(&publish4(&device, QoS::AtLeastOnce, id, message))
            .await;
        raw.read4().await.unwrap();
    }
    assert_eq!((rig.rows().await, rig.metrics.chain_gaps()), (3, 1));
    let missing = || async {
        let chain = rig.store.inbox.chain(&device.id).await.unwrap();
        chain[0].gaps.clone()
    };
    assert_eq!(missing().await, [2..=2]);
    assert_eq!(rig.submit(&device, messages[2].bytes.clone()).await, STORED);
    assert!(missing().await.is_empty());
    assert!(rig.audit.quarantined().is_empty());
}

#[tokio::test]
async fn a_clone_is_proven_by_the_counters_that_it_repeats_even_against_a_flushed_message() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let (honest, clone) = (history(&rig, &device, 3), history(&rig, &device, 3));
    for message in &honest {
        assert_eq!(rig.submit(&device, message.bytes.clone()).await, STORED);
    }
    rig.store
        .flush("2026-01-01T00:00:00Z".parse().unwrap())
        .await
        .unwrap();
    for message in &clone {
        assert_eq!(rig.submit(&device, message.bytes.clone()).await, FORK);
    }
    let proven = proven(&rig, &device).await;
    assert_eq!(proven.len(), 1, "one a boot is enough");
    assert_eq!(
        (proven[0].kind, proven[0].sequences),
        (CloneKind::SameCounters, [0, 0])
    );
    let mut hashes = [honest[0].signed_hash, clone[0].signed_hash];
    hashes.sort_unstable();
    assert_eq!(proven[0].signed_hashes, hashes);
    assert_eq!(rig.store.inbox.chain(&device.id).await.unwrap()[0].forks, 3);
    assert_eq!(rig.rows().await, 0);
}

#[tokio::test]
async fn a_clone_is_proven_by_the_link_that_it_breaks_before_or_after_the_device_s_own_message() {
    let rig = Rig::start().await;
    for (name, order) in [("mon-1", [0, 1]), ("mon-2", [1, 0])] {
        let device = rig.device(name).await;
        // Both have sent message 0; then the device sends its 1, and the clone a 2 after a 1 of its own.
        let honest = history(&rig, &device, 2);
        let own = rig.seal_link(&device, 1, Some(honest[0].signed_hash), ES);
        let clone = rig.seal_link(&device, 2, Some(own.signed_hash), ES);
        assert_eq!(rig.submit(&device, honest[0].bytes.clone()).await, STORED);
        let sent = [&honest[1], &clone].map(|message| message.bytes.clone());
        let first = rig.submit(&device, sent[order[0]].clone()).await;
        assert_eq!(first, stored(order[0] == 1));
        assert_eq!(rig.submit(&device, sent[order[1]].clone()).await, FORK);
        let proven = proven(&rig, &device).await;
        assert_eq!(proven[0].kind, CloneKind::BrokenLink);
        assert_eq!(
            proven[0].signed_hashes,
            [honest[1].signed_hash, clone.signed_hash]
        );
    }
}

/// The proof would need the message that it contradicts; that one ended with its patient before it was flushed.
#[tokio::test]
async fn a_fork_that_cannot_be_proven_is_refused_for_good_all_the_same() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    assert_eq!(rig.submit(&device, rig.seal(&device, 0)).await, STORED);
    let (registry, now) = (&rig.store.registry, SystemClock.now());
    let erased = rig.store.keys.erase(&rig.patient, "erasure-1", now).await;
    erased.unwrap();
    let next = registry.add_patient(None, None, now).await.unwrap();
    registry
        .assign_device(&device.id, &next, now)
        .await
        .unwrap();
    let payload = senml::encode(&[reading(61.0)]);
    let clone = rig.seal_payload(&device, &next, 0, &payload);
    for _ in 0..2 {
        assert_eq!(rig.submit(&device, clone.clone()).await, FORK);
    }
    assert!(proven(&rig, &device).await.is_empty());
    let kept = &rig.store.inbox.quarantined(1).await.unwrap()[0];
    assert_eq!((kept.reason, kept.times), (QuarantineReason::Fork, 2));
    let body = rig.store.quarantined_body(kept.id).await.unwrap();
    assert_eq!(**body.unwrap(), clone);
}

/// A search reads files, and a clone may repeat itself as often as it likes.
#[tokio::test]
async fn a_fork_is_searched_for_once_and_another_of_the_same_boot_may_still_be_proven() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let (honest, clone) = (history(&rig, &device, 2), history(&rig, &device, 2));
    for message in &honest {
        assert_eq!(rig.submit(&device, message.bytes.clone()).await, STORED);
    }
    rig.store.flush(SystemClock.now()).await.unwrap();
    let parquet = rig.directories().0.join("parquet");
    let away = parquet.with_file_name("away");
    fs::rename(&parquet, &away).unwrap();
    assert_eq!(rig.submit(&device, clone[0].bytes.clone()).await, FORK);
    fs::rename(&away, &parquet).unwrap();
    assert_eq!(rig.submit(&device, clone[0].bytes.clone()).await, FORK);
    assert!(proven(&rig, &device).await.is_empty(), "searched again");
    assert_eq!(rig.submit(&device, clone[1].bytes.clone()).await, FORK);
    assert_eq!(proven(&rig, &device).await.len(), 1);
}

#[tokio::test]
async fn nobody_is_accused_by_a_message_that_the_device_did_not_sign() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let message = rig.seal(&device, 1);
    assert_eq!(rig.submit(&device, message.clone()).await, STORED);
    for at in 0..message.len() {
        let mut forged = message.clone();
        forged[at] ^= 1;
        let outcome = rig.submit(&device, forged).await;
        // What is not signed, its recipient and its IV, may change: it is then the same message.
        let harmless = matches!(outcome, Outcome::Duplicate | Outcome::Quarantined(_));
        assert!(harmless && outcome != FORK, "byte {at}: {outcome:?}");
    }
    assert!(proven(&rig, &device).await.is_empty());
}

#[tokio::test]
async fn a_session_key_may_be_named_once_it_was_sent_in_full_also_after_a_restart() {
    let mut rig = Rig::start().await;
    let (device, other) = (rig.device("mon-1").await, rig.device("mon-2").await);
    let key = SessionKey::generate(default_backend()).unwrap();
    let (full, named) = (Agreement::Session(&key), Agreement::NamedSession(&key));
    let link = |rig: &Rig, device: &Device, sequence, agreement| {
        rig.seal_link(device, sequence, None, agreement).bytes
    };

    let early = link(&rig, &device, 0, named);
    assert!(is_left(&rig, &device, early).await);
    let introduced = link(&rig, &device, 1, full);
    assert_eq!(rig.submit(&device, introduced).await, STORED);
    let short = link(&rig, &device, 2, named);
    assert_eq!(rig.submit(&device, short).await, STORED);
    let foreign = link(&rig, &other, 0, named);
    assert!(is_left(&rig, &other, foreign).await, "another device's key");

    let data = rig.directories().0;
    rig.reopened(&data).await;
    let short = link(&rig, &device, 3, named);
    assert_eq!(rig.submit(&device, short).await, STORED);
    rig.store.inbox.forget_senders(&device.id).await.unwrap();
    let late = link(&rig, &device, 4, named);
    assert!(is_left(&rig, &device, late).await);
}

/// Whether a message is neither stored nor refused, so that its device keeps it.
async fn is_left(rig: &Rig, device: &Device, message: Vec<u8>) -> bool {
    let outcome = rig.pipeline.submit(&device.id, message.into()).await;
    assert!(rig.audit.quarantined().is_empty());
    matches!(outcome, Err(PipelineError::UnknownSender))
}

/// The keys of what came since the backup are gone with a restore. The device was told that they are here.
#[tokio::test]
async fn a_message_that_names_a_key_which_is_not_known_is_left_to_be_sent_again_in_full() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let key = SessionKey::generate(default_backend()).unwrap();
    let named = rig.seal_link(&device, 0, None, Agreement::NamedSession(&key));
    let (mut raw, _) = Raw::v4(&rig, &device, true).await;
    raw.send4(&publish4(&device, QoS::AtLeastOnce, 1, named.bytes.clone()))
        .await;
    assert_eq!(raw.read4().await, None, "closed without an acknowledgement");
    assert!(!rig.is_stored(&device, 0).await);
    assert!(rig.store.inbox.quarantined(1).await.unwrap().is_empty());

    let (content_key, full) = (&named.content_key, Agreement::Session(&key));
    let backend = default_backend();
    let again = readdress(&named.bytes, content_key, &rig.recipient, full, backend).unwrap();
    assert_eq!(rig.submit(&device, again).await, STORED);
    // With a recipient that is not held, the sender's key would not help.
    let stranger = rig.next_epoch(2).await;
    let end = SystemClock.now() + SignedDuration::from_hours(80);
    rig.store
        .keys
        .destroy_recipients_ended_before(end)
        .await
        .unwrap();
    let other = SessionKey::generate(backend).unwrap();
    let lost = rig.seal_link(&device, 1, None, ES);
    let (content_key, named) = (&lost.content_key, Agreement::NamedSession(&other));
    let lost = readdress(&lost.bytes, content_key, &stranger, named, backend).unwrap();
    assert_eq!(
        rig.submit(&device, lost).await,
        Outcome::Quarantined(QuarantineReason::UnknownKey)
    );
}

#[tokio::test]
async fn a_key_is_known_by_every_message_that_opened_also_by_a_refused_one_and_by_no_other() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let session = || SessionKey::generate(default_backend()).unwrap();
    let mut sequence = 20;
    let mut named = |key: &SessionKey| {
        sequence += 1;
        let agreement = Agreement::NamedSession(key);
        rig.seal_link(&device, sequence, None, agreement).bytes
    };
    let first = rig.seal_link(&device, 1, None, ES);
    assert_eq!(rig.submit(&device, first.bytes).await, STORED);

    // Its counters were used, so it was not even opened.
    let unopened = session();
    let fork = rig.seal_link(&device, 1, None, Agreement::Session(&unopened));
    assert_eq!(rig.submit(&device, fork.bytes).await, FORK);
    let outcome = rig.pipeline.submit(&device.id, named(&unopened).into());
    assert!(matches!(outcome.await, Err(PipelineError::UnknownSender)));

    let broken = session();
    let fork = rig.seal_link(&device, 2, Some([0; 32]), Agreement::Session(&broken));
    assert_eq!(rig.submit(&device, fork.bytes).await, FORK);
    assert_eq!(rig.submit(&device, named(&broken)).await, STORED);

    let payloads = [
        (
            senml::encode(&[reading(9e9)]),
            QuarantineReason::Implausible,
        ),
        (b"no payload".to_vec(), QuarantineReason::Payload),
    ];
    for (at, (payload, reason)) in (6..).zip(payloads) {
        let key = session();
        let full = Agreement::Session(&key);
        let refused = rig.seal_message(&device, &rig.patient, at, None, &payload, full);
        let outcome = rig.submit(&device, refused.bytes).await;
        assert_eq!(outcome, Outcome::Quarantined(reason));
        assert_eq!(rig.submit(&device, named(&key)).await, STORED);
    }
}
