//! Peers that do what no peer should: one test each, with the class of weakness that it stands for (CWE) and, where we
//! know one, a server that fell to it (CVE). After each the edge is what it was before.

mod floods;
mod noise;
mod order;
mod sizes;
mod slow;
mod tls;
mod topics;

use rumqttc::QoS;
use rumqttc::mqttbytes::v4::Packet;
use rumqttc::v5::mqttbytes::v5::{DisconnectReasonCode, Packet as Packet5};
use vitalseal_ingest::edge::Closing;

use crate::raw::{Raw, publish4};
use crate::rig::{Device, Rig, eventually};

/// Whatever was done: nobody holds a slot or a session, nothing failed within, the edge runs, and a device that behaves
/// is served. Ask once a test.
async fn unharmed(rig: &Rig) {
    eventually("every place is free again", || {
        let metrics = &rig.metrics;
        (
            metrics.connections(),
            metrics.strangers(),
            metrics.sessions(),
        ) == (0, 0, 0)
    })
    .await;
    assert_eq!(rig.metrics.closed(Closing::Internal), 0);
    assert!(!rig.serving.is_finished());
    let good = rig.device("good").await;
    let (mut raw, _) = Raw::v4(rig, &good, true).await;
    raw.send4(&publish4(&good, QoS::AtLeastOnce, 1, rig.seal(&good, 1)))
        .await;
    assert!(matches!(raw.read4().await, Some(Packet::PubAck(_))));
    assert!(rig.is_stored(&good, 1).await);
}

/// What a v5 client is told at the end: a reason code and not a word more, and then the connection is closed.
async fn farewell(raw: &mut Raw) -> Option<DisconnectReasonCode> {
    let code = match raw.read5().await {
        Some(Packet5::Disconnect(bye)) => {
            assert_eq!(bye.properties, None);
            Some(bye.reason_code)
        }
        None => return None,
        other => panic!("{other:?}"),
    };
    assert_eq!(raw.read5().await, None);
    code
}

/// A v3.1.1 connection on which these bytes are the end, without a word.
async fn ends_v4(rig: &Rig, device: &Device, bytes: &[u8], reason: Closing) {
    let before = rig.metrics.closed(reason);
    let (mut raw, _) = Raw::v4(rig, device, true).await;
    raw.send(bytes).await;
    assert_eq!(raw.read4().await, None, "{bytes:02x?}");
    closed_for(rig, reason, before + 1).await;
}

/// A v5 connection on which these bytes are the end.
async fn ends_v5(
    rig: &Rig,
    device: &Device,
    bytes: &[u8],
    reason: Closing,
) -> Option<DisconnectReasonCode> {
    let before = rig.metrics.closed(reason);
    let (mut raw, _) = Raw::v5(rig, device, device.id.as_str()).await;
    raw.send(bytes).await;
    let told = farewell(&mut raw).await;
    closed_for(rig, reason, before + 1).await;
    told
}

async fn closed_for(rig: &Rig, reason: Closing, times: u64) {
    eventually(reason.as_str(), || rig.metrics.closed(reason) == times).await;
}
