//! Displays, services and people: who hears what, who gets in with what, and when it ends.

use std::time::Duration;

use jiff::SignedDuration;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectReturnCode, Disconnect, DisconnectReasonCode, Filter, Packet, Subscribe,
    SubscribeReasonCode,
};
use tokio::io::{AsyncRead, AsyncWrite};
use vitalseal_ingest::Alert;
use vitalseal_ingest::edge::Closing;
use vitalseal_storage::{AuditEvent, Clock, Role, SystemClock, Wards};

use crate::raw::{Raw, connect_tls, publish5};
use crate::rig::{Rig, eventually};
use crate::websocket::browser;

const TOPICS: [&str; 7] = [
    "v1/alerts/icu",
    "v1/alerts/er",
    "v1/alerts/system",
    "v1/alerts/+",
    "v1/recipient",
    "v1/notices",
    "v1/d/mon-1/down",
];

fn wards(names: &[&str]) -> Wards {
    Wards::These(names.iter().map(|name| name.parse().unwrap()).collect())
}

/// Subscribes to every topic and says which were granted.
async fn granted<S: AsyncRead + AsyncWrite + Unpin>(raw: &mut Raw<S>) -> Vec<&'static str> {
    let filters = TOPICS.map(|topic| Filter::new(topic, QoS::AtLeastOnce));
    let mut subscribe = Subscribe::new_many(filters, None);
    subscribe.pkid = 1;
    raw.send5(&Packet::Subscribe(subscribe)).await;
    loop {
        match raw.read5().await {
            Some(Packet::SubAck(ack)) => {
                let codes = TOPICS.into_iter().zip(ack.return_codes);
                let granted =
                    codes.filter(|(_, code)| matches!(code, SubscribeReasonCode::Success(_)));
                return granted.map(|(topic, _)| topic).collect();
            }
            Some(Packet::Publish(_)) => {} // a retained one may come first
            other => panic!("{other:?}"),
        }
    }
}

/// What a client is told when it publishes on a topic.
async fn published<S: AsyncRead + AsyncWrite + Unpin>(raw: &mut Raw<S>, topic: &str) -> Packet {
    raw.send5(&publish5(topic, QoS::AtMostOnce, 0, b"x".to_vec()))
        .await;
    loop {
        match raw.read5().await {
            Some(Packet::Publish(_)) => {}
            other => return other.expect("told before it is closed"),
        }
    }
}

/// Role by role, every topic there is, to hear and to speak on; what is not in this table is refused.
#[tokio::test]
async fn every_role_hears_and_says_what_its_table_row_says_and_no_more() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let display = rig.subscriber("display:icu-door", wards(&["icu"])).await;
    let service = rig.subscriber("service:pager", Wards::All).await;
    let blind = rig.subscriber("display:shelf", wards(&[])).await;
    rig.person("nora", Role::Clinician, &["er"]).await;
    rig.person("root", Role::Admin, &[]).await;
    rig.person("vera", Role::Dpo, &[]).await;

    let token = |name: &str| Some((name.to_owned(), format!("token-of-{name}")));
    let clients = [
        ("mon-1", &device.tls, None, &TOPICS[4..]),
        ("display:icu-door", &display, None, &TOPICS[..1]),
        ("service:pager", &service, None, &TOPICS[..4]),
        ("display:shelf", &blind, None, &[][..]),
        ("tablet", &rig.nobody(), token("nora"), &TOPICS[1..2]),
        ("desk", &rig.nobody(), token("root"), &TOPICS[2..3]),
        ("desk", &rig.nobody(), token("vera"), &[][..]),
    ];
    // The wildcard is no topic name: whoever publishes to it is malformed.
    let names = TOPICS.map(|topic| topic.trim_end_matches("/+"));
    for (client, tls, login, hears) in clients {
        let login = login
            .as_ref()
            .map(|(user, token)| (user.as_str(), token.as_str()));
        for topic in names.into_iter().chain(["v1/d/mon-2/vitals", "anything"]) {
            let mut raw = browser(&rig, tls).await;
            let ack = raw.connect5(client, login).await;
            assert_eq!(ack.code, ConnectReturnCode::Success, "{client}");
            assert_eq!(granted(&mut raw).await, hears, "{client}");
            let refusal = published(&mut raw, topic).await;
            let Packet::Disconnect(Disconnect { reason_code, .. }) = refusal else {
                panic!("{client} on {topic}: {refusal:?}");
            };
            assert_eq!(
                reason_code,
                DisconnectReasonCode::NotAuthorized,
                "{client} on {topic}"
            );
        }
    }
    assert_eq!(rig.rows().await, 0);
}

#[tokio::test]
async fn an_alert_reaches_displays_and_people_who_may_hear_it() {
    let rig = Rig::start().await;
    let display = rig.subscriber("display:rack", wards(&["system"])).await;
    let deaf = rig.subscriber("display:icu-door", wards(&["icu"])).await;
    rig.person("root", Role::Admin, &[]).await;
    let mut wall = Raw::over(connect_tls(rig.addr, &display).await.unwrap());
    let mut door = Raw::over(connect_tls(rig.addr, &deaf).await.unwrap());
    let mut desk = browser(&rig, &rig.nobody()).await;
    wall.connect5("display:rack", None).await;
    door.connect5("display:icu-door", None).await;
    desk.connect5("desk", Some(("root", "token-of-root"))).await;
    for raw in [&mut wall, &mut door] {
        granted(raw).await;
    }
    granted(&mut desk).await;
    rig.alerts.raise(Alert::DiskFull, SystemClock.now());
    for told in [wall.read5().await, desk.read5().await] {
        let Some(Packet::Publish(alert)) = told else {
            panic!("{told:?}");
        };
        assert_eq!(&alert.topic[..], b"v1/alerts/system");
        assert!(String::from_utf8_lossy(&alert.payload).contains("disk_full"));
    }
    door.send5(&Packet::PingReq(rumqttc::v5::mqttbytes::v5::PingReq))
        .await;
    assert!(
        matches!(door.read5().await, Some(Packet::PingResp(_))),
        "heard nothing before"
    );
}

#[tokio::test]
async fn a_certificate_of_one_kind_is_never_taken_for_another() {
    let rig = Rig::start().await;
    let device = rig.device("icu").await;
    let display = rig.subscriber("display:icu", Wards::All).await;
    for (tls, client) in [
        (&device.tls, "display:icu"),
        (&display, "icu"),
        (&display, "service:icu"),
        (&display, ""),
    ] {
        let mut raw = Raw::over(connect_tls(rig.addr, tls).await.unwrap());
        let ack = raw.connect5(client, None).await;
        assert_eq!(
            ack.code,
            ConnectReturnCode::ClientIdentifierNotValid,
            "{client:?}"
        );
    }
    // Another certificate for the same name, as whoever holds the authority's key could make: it was not enrolled.
    let subscriber = "display:icu".parse().unwrap();
    let (key, csr) = vitalseal_crypto::new_device_key_and_csr(&device.id).unwrap();
    let issued = rig
        .authority
        .issue_subscriber(&csr, &subscriber, SystemClock.now())
        .unwrap();
    let twin = crate::rig::client_config(&issued.pem, &key, &rig.authority.bundle_pem());
    let mut raw = Raw::over(connect_tls(rig.addr, &twin).await.unwrap());
    let ack = raw.connect5("display:icu", None).await;
    assert_eq!(ack.code, ConnectReturnCode::NotAuthorized);
    assert_eq!(
        rig.audit.refused().len(),
        3,
        "once for each client and reason"
    );
}

#[tokio::test]
async fn a_revoked_display_is_closed_at_once_and_does_not_come_back() {
    let rig = Rig::start().await;
    let display = rig.subscriber("display:icu", wards(&["icu"])).await;
    let mut raw = Raw::over(connect_tls(rig.addr, &display).await.unwrap());
    raw.connect5("display:icu", None).await;
    let name = "display:icu".parse().unwrap();
    let registry = &rig.store.registry;
    registry
        .revoke_subscriber(&name, "stolen", SystemClock.now())
        .await
        .unwrap();
    match raw.read5().await {
        Some(Packet::Disconnect(bye)) => {
            assert_eq!(bye.reason_code, DisconnectReasonCode::AdministrativeAction);
        }
        other => panic!("{other:?}"),
    }
    let mut raw = Raw::over(connect_tls(rig.addr, &display).await.unwrap());
    let ack = raw.connect5("display:icu", None).await;
    assert_eq!(ack.code, ConnectReturnCode::NotAuthorized);
}

#[tokio::test]
async fn a_wrong_login_is_told_nothing_and_recorded_once_a_minute_with_how_many_there_were() {
    let mut rig = Rig::start().await;
    rig.person("nora", Role::Clinician, &["icu"]).await;
    let answers = [
        Some(("nora", "token-of-vera")),
        Some(("nobody", "token-of-nobody")),
        Some(("no user name", "x")),
        Some(("nora", "token-of-vera")),
        None,
    ];
    for login in answers {
        let mut raw = browser(&rig, &rig.nobody()).await;
        let ack = raw.connect5("tablet", login).await;
        assert_eq!(ack.code, ConnectReturnCode::NotAuthorized, "{login:?}");
    }
    let events = rig.audit.events();
    let failed = events
        .iter()
        .filter(|event| matches!(event, AuditEvent::LoginFailed { .. }));
    assert_eq!(failed.count(), 1);
    eventually("all are counted", || {
        rig.metrics.closed(Closing::Login) == 5
    })
    .await;

    // At the other door a token is no way in, whatever comes with it.
    if let Ok(stream) = connect_tls(rig.addr, &rig.nobody()).await {
        let mut raw = Raw::over(stream);
        raw.send(b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x1e\x00\x00\x00")
            .await;
        assert_eq!(raw.read5().await, None);
    }
    // And a login beside a certificate changes nothing there.
    let device = rig.device("mon-1").await;
    let mut raw = Raw::over(connect_tls(rig.addr, &device.tls).await.unwrap());
    let ack = raw.connect5("mon-1", Some(("nora", "token-of-nora"))).await;
    assert_eq!(ack.code, ConnectReturnCode::Success);
    assert_eq!(granted(&mut raw).await, &TOPICS[4..]);

    // Nothing that was left out is forgotten when the server stops.
    rig.shutdown.cancel();
    (&mut rig.serving).await.unwrap();
    assert_eq!(rig.audit.refused(), ["login, 3 more times"]);
}

#[tokio::test]
async fn a_session_ends_with_its_token() {
    let rig = Rig::start().await;
    rig.person("nora", Role::Clinician, &["icu"]).await;
    *rig.tokens.until.lock().unwrap() = SystemClock.now() + SignedDuration::from_millis(1_500);
    let mut raw = browser(&rig, &rig.nobody()).await;
    let ack = raw
        .connect5("tablet", Some(("nora", "token-of-nora")))
        .await;
    assert_eq!(ack.code, ConnectReturnCode::Success);
    match raw.read5().await {
        Some(Packet::Disconnect(bye)) => {
            assert_eq!(bye.reason_code, DisconnectReasonCode::MaximumConnectTime);
        }
        other => panic!("{other:?}"),
    }
    eventually("it is counted as what it is", || {
        rig.metrics.closed(Closing::Expired) == 1
    })
    .await;
    let mut raw = browser(&rig, &rig.nobody()).await;
    let ack = raw
        .connect5("tablet", Some(("nora", "token-of-nora")))
        .await;
    assert_eq!(ack.code, ConnectReturnCode::NotAuthorized);
}

#[tokio::test]
async fn a_person_has_so_many_connections_and_names_that_are_bounded() {
    let rig = Rig::start().await;
    rig.person("nora", Role::Clinician, &["icu"]).await;
    rig.person("vera", Role::Clinician, &["icu"]).await;
    let nora = Some(("nora", "token-of-nora"));
    let mut open = Vec::new();
    for number in 0..8 {
        let mut raw = browser(&rig, &rig.nobody()).await;
        let ack = raw.connect5(&format!("tab-{number}"), nora).await;
        assert_eq!(ack.code, ConnectReturnCode::Success);
        open.push(raw);
    }
    for (client, login, code) in [
        ("tab-9", nora, ConnectReturnCode::ServerUnavailable),
        ("tab-0", nora, ConnectReturnCode::Success),
        (
            "tab-0",
            Some(("vera", "token-of-vera")),
            ConnectReturnCode::Success,
        ),
        (
            "two words",
            nora,
            ConnectReturnCode::ClientIdentifierNotValid,
        ),
        (
            &"x".repeat(65),
            nora,
            ConnectReturnCode::ClientIdentifierNotValid,
        ),
    ] {
        let mut raw = browser(&rig, &rig.nobody()).await;
        assert_eq!(raw.connect5(client, login).await.code, code, "{client}");
        tokio::time::sleep(Duration::from_millis(1)).await;
        open.push(raw);
    }
}
