//! rumqttc, in both versions.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::{TlsConfiguration, Transport};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use vitalseal::tls;

use super::Ward;

const PATIENCE: Duration = Duration::from_secs(20);

fn transport(directory: &Path) -> Transport {
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
    let tls = tls::device(&read("ca.pem"), &read("cert.pem"), &read("key.pem")).unwrap();
    Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls)))
}

/// The steps of a device, over one of the two modules of rumqttc: they are twins by name.
macro_rules! device {
    ($name:ident, $options:path, $client:path, $packet:path, $qos:path, $granted:path) => {
        async fn $name(port: u16, directory: &Path, prepare: impl Fn(&mut $options)) -> Value {
            use $packet as Packet;
            use $qos as QoS;
            let id = directory.file_name().unwrap().to_str().unwrap();
            let connect = || {
                let mut options = <$options>::new(id, "localhost", port);
                options.set_transport(transport(directory));
                prepare(&mut options);
                <$client>::new(options, 16)
            };
            macro_rules! next {
                ($events:expr, $pattern:pat => $value:expr) => {
                    timeout(PATIENCE, async {
                        loop {
                            if let Ok(event) = $events.poll().await
                                && let Some($pattern) = incoming::$name(event)
                            {
                                break $value;
                            }
                        }
                    })
                    .await
                    .unwrap()
                };
            }
            let (client, mut events) = connect();
            let mut present = vec![next!(events, Packet::ConnAck(ack) => ack.session_present)];
            let (mut granted, mut recipient) = (Vec::new(), None);
            let own = [format!("v1/d/{id}/down")];
            let filters = ["v1/d/other/down", "v1/#", "v1/recipient"];
            for filter in own.iter().map(String::as_str).chain(filters) {
                client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
                let code = loop {
                    match next!(events, packet => packet) {
                        Packet::SubAck(ack) => break ack.return_codes[0],
                        Packet::Publish(publish) => recipient = Some(publish),
                        _ => {}
                    }
                };
                granted.push(matches!(code, $granted(_)));
            }
            let recipient = match recipient {
                Some(publish) => publish,
                None => next!(events, Packet::Publish(publish) => publish),
            };
            let vitals = format!("v1/d/{id}/vitals");
            for (file, qos) in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce].into_iter().enumerate() {
                let payload = std::fs::read(directory.join(file.to_string())).unwrap();
                client.publish(&*vitals, qos, false, payload).await.unwrap();
            }
            next!(events, Packet::PubComp(_) => ());
            client.disconnect().await.unwrap();
            let _ = timeout(PATIENCE, async { while events.poll().await.is_ok() {} }).await;

            let (client, mut events) = connect();
            present.push(next!(events, Packet::ConnAck(ack) => ack.session_present));
            let foreign = "v1/d/other/vitals";
            client.publish(foreign, QoS::AtLeastOnce, false, b"x".to_vec()).await.unwrap();
            let refused = timeout(PATIENCE, async {
                loop {
                    match events.poll().await {
                        Ok(event) => match incoming::$name(event) {
                            Some(Packet::PubAck(ack)) => break refusal::$name(&ack),
                            _ => {}
                        },
                        Err(_) => break true,
                    }
                }
            });
            json!({
                "present": present,
                "granted": granted,
                "recipient": String::from_utf8(recipient.payload.to_vec()).unwrap(),
                "retained": recipient.retain,
                "refused": refused.await.unwrap(),
            })
        }
    };
}

device!(
    v4,
    rumqttc::MqttOptions,
    rumqttc::AsyncClient,
    rumqttc::Packet,
    rumqttc::QoS,
    rumqttc::SubscribeReasonCode::Success
);
device!(
    v5,
    rumqttc::v5::MqttOptions,
    rumqttc::v5::AsyncClient,
    rumqttc::v5::mqttbytes::v5::Packet,
    rumqttc::v5::mqttbytes::QoS,
    rumqttc::v5::mqttbytes::v5::SubscribeReasonCode::Success
);

/// The packet of an event, if it came in.
mod incoming {
    pub(super) fn v4(event: rumqttc::Event) -> Option<rumqttc::Packet> {
        match event {
            rumqttc::Event::Incoming(packet) => Some(packet),
            rumqttc::Event::Outgoing(_) => None,
        }
    }

    pub(super) fn v5(event: rumqttc::v5::Event) -> Option<rumqttc::v5::mqttbytes::v5::Packet> {
        match event {
            rumqttc::v5::Event::Incoming(packet) => Some(packet),
            rumqttc::v5::Event::Outgoing(_) => None,
        }
    }
}

/// Whether an acknowledgement is a refusal: in v3.1.1 it cannot be.
mod refusal {
    use rumqttc::v5::mqttbytes::v5::{PubAck, PubAckReason};

    pub(super) fn v4(_: &rumqttc::PubAck) -> bool {
        false
    }

    pub(super) fn v5(ack: &PubAck) -> bool {
        ack.reason == PubAckReason::NotAuthorized
    }
}

#[test]
fn rumqttc_is_a_device_in_both_versions() {
    let ward = Ward::new();
    let port = ward.site.address("mqtt").port();
    let runtime = Runtime::new().unwrap();
    let said = runtime.block_on(v4(port, &ward.device("rust-4"), |options| {
        options.set_clean_session(false);
    }));
    ward.check("rust-4", &said);
    let said = runtime.block_on(v5(port, &ward.device("rust-5"), |options| {
        options.set_clean_start(false);
        options.set_session_expiry_interval(Some(300));
    }));
    ward.check("rust-5", &said);
}
