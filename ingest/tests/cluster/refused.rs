//! What is not a message of the device that its topic names: kept aside, and never in the way.

use std::time::Duration;

use vitalseal_crypto::{Agreement, SessionKey, default_backend};
use vitalseal_storage::QuarantineReason;

use crate::rig::eventually;
use crate::site::Site;

#[tokio::test]
async fn whatever_comes_is_kept_aside_and_what_follows_is_stored() {
    let site = Site::start().await;
    let (device, other) = (
        site.rig.device("mon-1").await,
        site.rig.device("mon-2").await,
    );
    let stranger = site.rig.stranger("mon-3", &site.rig.authority);
    let consuming = site.consume().await;
    let seal = |sequence| site.rig.seal(&device, sequence);
    let cases = [
        // (topic, payload, why it is refused)
        (device.vitals(), Vec::new(), QuarantineReason::Shape),
        (
            device.vitals(),
            vec![0; 300 << 10],
            QuarantineReason::TooLarge,
        ),
        // Another's topic, one that names no device, and one that only looks like it.
        (other.vitals(), seal(1), QuarantineReason::Identity),
        (
            "v1/d//vitals".to_owned(),
            seal(2),
            QuarantineReason::Identity,
        ),
        (
            "v1/d/mon 1/vitals".to_owned(),
            seal(3),
            QuarantineReason::Identity,
        ),
        (
            stranger.vitals(),
            site.rig.seal(&stranger, 1),
            QuarantineReason::DeviceNotActive,
        ),
    ];
    for (number, (topic, payload, reason)) in (1..).zip(cases) {
        site.publish(vec![(topic.clone(), payload, false)]).await;
        consuming.acked(number).await;
        assert_eq!(
            site.rig.audit.quarantined().last(),
            Some(&reason),
            "{topic}"
        );
    }
    assert_eq!(consuming.metrics.quarantined(), 6);
    assert_eq!(consuming.metrics.unnamed(), 2);
    assert_eq!(site.rig.rows().await, 0);

    // What is larger than any packet that we ask for is discarded by the broker, as the protocol says, and told in its log.
    let giant = (device.vitals(), vec![0; 2 << 20], false);
    site.publish(vec![giant, (device.vitals(), seal(4), false)])
        .await;
    consuming.acked(7).await;
    assert_eq!(site.rig.rows().await, 1);
    assert_eq!(consuming.metrics.received(), 7);
    assert_eq!(consuming.metrics.connections_lost(), 0);
    assert!(site.log().contains("too large"), "{}", site.log());
}

#[tokio::test]
async fn a_session_key_that_never_comes_holds_nobody_up_for_ever() {
    let site = Site::start().await;
    let (device, other) = (
        site.rig.device("mon-1").await,
        site.rig.device("mon-2").await,
    );
    let consuming = site.consume_with(|settings| {
        settings.consumers = 1;
        settings.sender_patience = Duration::from_millis(300);
    });
    eventually("it is connected", || consuming.metrics.connected() == 1).await;
    let key = SessionKey::generate(default_backend()).unwrap();
    let seal = |sequence, agreement| {
        let message = site.rig.seal_link(&device, sequence, None, agreement);
        (device.vitals(), message.bytes, false)
    };
    let named = |sequence| seal(sequence, Agreement::NamedSession(&key));
    let others = (other.vitals(), site.rig.seal(&other, 1), false);
    site.publish(vec![named(2), others]).await;
    consuming.acked(2).await;
    assert_eq!(site.rig.audit.quarantined(), [QuarantineReason::UnknownKey]);
    assert!(consuming.metrics.connections_lost() >= 1);
    assert!(site.rig.is_stored(&other, 1).await);

    // Once it comes, what names it opens.
    let full = Agreement::Session(&key);
    site.publish(vec![seal(1, full), named(3)]).await;
    site.stored(&device, 3).await;
    assert_eq!(consuming.metrics.quarantined(), 1);
}

#[tokio::test]
async fn nobody_stops_the_intake_with_forged_messages_of_a_device_that_is_shut_out() {
    let site = Site::start().await;
    let device = site.rig.device("mon-1").await;
    let stranger = site.rig.stranger("mon-2", &site.rig.authority);
    let consuming = site.consume().await;
    site.rig.store.inbox.limit_quarantine(0);
    let forged = (stranger.vitals(), site.rig.seal(&stranger, 1), false);
    let good = (device.vitals(), site.rig.seal(&device, 1), false);
    site.publish(vec![forged, good]).await;
    consuming.acked(2).await;
    assert!(site.rig.is_stored(&device, 1).await);
    assert_eq!(consuming.metrics.connections_lost(), 0);
}
