use proptest::prelude::*;

use super::super::fanout::{Fanout, Topic};
use super::super::packet::{Filter, Hello, RetainedOnSubscribe, Telling};
use super::super::subscriptions::Again;
use super::*;

const STORED: Outcome = Outcome::Stored {
    readings: 1,
    gap: false,
};

fn hello(version: Version) -> Hello {
    Hello {
        version,
        client_id: "mon-7".to_owned(),
        clean: false,
        keep_alive: 0,
        session_expiry: 0,
        will: None,
        login: None,
        has_authentication: false,
        receive_maximum: match version {
            Version::V311 => u16::MAX,
            Version::V5 => 2,
        },
        max_packet: None,
    }
}

fn resumed(version: Version, fanout: &Fanout, state: SessionState) -> Session {
    let permissions = Permissions::of_device(&"mon-7".parse().unwrap());
    let subscriptions =
        Subscriptions::new(&hello(version), permissions.clone(), fanout, state.heard);
    Session::new(version, permissions, 4, subscriptions, state.received)
}

fn session(version: Version) -> Session {
    resumed(version, &Fanout::silent(), SessionState::default())
}

fn publish(qos: Qos, id: u16) -> Inbound {
    publish_to("v1/d/mon-7/vitals", qos, id)
}

fn publish_to(topic: &str, qos: Qos, id: u16) -> Inbound {
    Inbound::Publish(Publish {
        topic: Bytes::copy_from_slice(topic.as_bytes()),
        qos,
        id,
        retain: false,
        has_alias: false,
        payload: Bytes::from_static(b"envelope"),
    })
}

fn submitted(session: &mut Session, qos: Qos, id: u16) -> Delivery {
    match session.on_packet(publish(qos, id)) {
        Ok(Step::Submit(delivery, _)) => delivery,
        other => panic!("{other:?}"),
    }
}

#[test]
fn exactly_once_is_answered_once_and_remembered_until_released() {
    for version in [Version::V311, Version::V5] {
        let mut session = session(version);
        let delivery = submitted(&mut session, Qos::ExactlyOnce, 5);
        // Repeated while the first is under way: no second submission, no second PUBREC.
        assert_eq!(
            session.on_packet(publish(Qos::ExactlyOnce, 5)),
            Ok(Step::Nothing)
        );
        assert_eq!(
            session.on_packet(Inbound::PubRel { id: 5 }),
            Err(Closing::Protocol)
        );

        let received = Some(Outbound::PubRec {
            id: 5,
            reason: AckReason::Success,
        });
        assert_eq!(session.on_outcome(delivery, STORED), received);
        // Repeated after that, perhaps on a new connection: the pipeline says whether it is the same message.
        let mut session = resumed(version, &Fanout::silent(), session.into_state());
        let again = submitted(&mut session, Qos::ExactlyOnce, 5);
        assert_eq!(session.on_outcome(again, Outcome::Duplicate), received);

        let complete = |known| Ok(Step::Send(Outbound::PubComp { id: 5, known }));
        assert_eq!(session.on_packet(Inbound::PubRel { id: 5 }), complete(true));
        assert_eq!(
            session.on_packet(Inbound::PubRel { id: 5 }),
            complete(false)
        );
        // The identifier is free for another message.
        submitted(&mut session, Qos::ExactlyOnce, 5);
    }
}

#[test]
fn a_message_on_its_way_is_not_part_of_what_outlives_the_connection() {
    let mut session = session(Version::V311);
    submitted(&mut session, Qos::ExactlyOnce, 5);
    assert_eq!(session.into_state(), SessionState::default());
}

#[test]
fn v5_is_told_what_became_of_it_and_v311_goes_on() {
    let quarantined = Outcome::Quarantined(QuarantineReason::Payload);
    let mut v5 = session(Version::V5);
    let delivery = submitted(&mut v5, Qos::ExactlyOnce, 5);
    let reason = AckReason::PayloadFormatInvalid;
    assert_eq!(
        v5.on_outcome(delivery, quarantined),
        Some(Outbound::PubRec { id: 5, reason })
    );
    // An error ends the exchange: the next use of the identifier is a new message.
    submitted(&mut v5, Qos::ExactlyOnce, 5);

    let mut v311 = session(Version::V311);
    let delivery = submitted(&mut v311, Qos::ExactlyOnce, 5);
    v311.on_outcome(delivery, quarantined);
    let released = Ok(Step::Send(Outbound::PubComp { id: 5, known: true }));
    assert_eq!(v311.on_packet(Inbound::PubRel { id: 5 }), released);
}

#[test]
fn which_cryptographic_check_failed_is_not_told() {
    use QuarantineReason as R;
    for reason in [
        R::Identity,
        R::Signature,
        R::UnknownKey,
        R::Unwrap,
        R::Commitment,
        R::Open,
        R::Fork,
    ] {
        assert_eq!(
            ack_reason(reason),
            AckReason::ImplementationSpecific,
            "{reason:?}"
        );
    }
}

#[test]
fn a_foreign_topic_is_refused_in_the_words_of_the_version() {
    for topic in [
        "v1/d/mon-8/vitals",
        "v1/d/mon-7/down",
        "v1/recipient",
        "",
        "é",
    ] {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            let packet = publish_to(topic, qos, 3);
            let refused = session(Version::V311).on_packet(packet.clone());
            assert_eq!(refused, Err(Closing::NotAuthorized));
            let refused = session(Version::V5).on_packet(packet);
            match qos {
                Qos::AtMostOnce => assert_eq!(refused, Err(Closing::NotAuthorized)),
                _ => {
                    let delivery = Delivery { qos, id: 3 };
                    assert_eq!(
                        refused,
                        Ok(Step::Acknowledge(delivery, AckReason::NotAuthorized))
                    );
                }
            }
        }
    }
}

#[test]
fn v5_is_held_to_the_receive_maximum() {
    let mut session = session(Version::V5);
    for id in 1..=4 {
        submitted(&mut session, Qos::AtLeastOnce, id);
    }
    assert_eq!(
        session.on_packet(publish(Qos::AtLeastOnce, 5)),
        Err(Closing::ReceiveMaximum)
    );
    // QoS 0 is not counted; an acknowledged one no longer is.
    submitted(&mut session, Qos::AtMostOnce, 0);
    session.on_outcome(
        Delivery {
            qos: Qos::AtLeastOnce,
            id: 1,
        },
        STORED,
    );
    submitted(&mut session, Qos::AtLeastOnce, 5);
}

#[test]
fn what_is_repeated_after_a_reconnect_is_not_counted_twice() {
    let mut before = session(Version::V5);
    for id in 1..=4 {
        let delivery = submitted(&mut before, Qos::ExactlyOnce, id);
        before.on_outcome(delivery, STORED);
    }
    let mut session = resumed(Version::V5, &Fanout::silent(), before.into_state());
    for id in 1..=4 {
        let repeated = submitted(&mut session, Qos::ExactlyOnce, id);
        session.on_outcome(repeated, Outcome::Duplicate);
    }
    assert_eq!(
        session.on_packet(publish(Qos::AtLeastOnce, 9)),
        Err(Closing::ReceiveMaximum)
    );
}

#[test]
fn a_reboot_that_reuses_an_identifier_gets_its_own_message_stored() {
    let mut before = session(Version::V311);
    let first = submitted(&mut before, Qos::ExactlyOnce, 1);
    before.on_outcome(first, STORED);
    // The PUBREC was lost and so was the device's memory; identifier 1 now carries another message.
    let mut session = resumed(Version::V311, &Fanout::silent(), before.into_state());
    submitted(&mut session, Qos::ExactlyOnce, 1);
}

fn subscribe(session: &mut Session, path: &str, qos: Qos, retained: RetainedOnSubscribe) {
    let filters = vec![Filter {
        path: path.into(),
        qos,
        retained,
        retain_as_published: false,
    }];
    let (id, has_identifier) = (1, false);
    let answer = session.on_packet(Inbound::Subscribe {
        id,
        filters,
        has_identifier,
    });
    let code = match qos {
        Qos::AtMostOnce => SubscribeCode::GrantedQos0,
        _ => SubscribeCode::GrantedQos1,
    };
    let codes = vec![code];
    assert_eq!(answer, Ok(Step::Send(Outbound::SubAck { id, codes })));
}

/// All that the session says now, the feed's and what is left over.
fn told(session: &mut Session) -> Vec<Telling> {
    let mut all = Vec::new();
    let subscriptions = &mut session.subscriptions;
    while let Some(Again::Send(telling)) = subscriptions.tell_again() {
        all.push(telling);
    }
    while subscriptions.may_tell()
        && let Some(message) = subscriptions.feed().next().unwrap()
    {
        all.push(subscriptions.tell(message));
    }
    all
}

#[test]
fn the_retained_certificate_comes_as_the_subscriber_asked() {
    let fanout = Fanout::silent();
    fanout.append(&Topic::Recipient, "PEM");
    let mut session = resumed(Version::V5, &fanout, SessionState::default());
    let mut delivered = |retained| {
        subscribe(&mut session, "v1/recipient", Qos::AtMostOnce, retained);
        told(&mut session)
            .iter()
            .filter(|telling| telling.retain)
            .count()
    };
    assert_eq!(delivered(RetainedOnSubscribe::Never), 0);
    assert_eq!(delivered(RetainedOnSubscribe::IfNew), 0, "there already");
    assert_eq!(delivered(RetainedOnSubscribe::Always), 1);
    let filters = vec!["v1/recipient".into(), "v1/d/mon-7/down".into(), "#".into()];
    let existed = vec![true, false, false];
    let answer = session.on_packet(Inbound::Unsubscribe { id: 2, filters });
    assert_eq!(
        answer,
        Ok(Step::Send(Outbound::UnsubAck { id: 2, existed }))
    );
    fanout.append(&Topic::Recipient, "PEM 2");
    assert_eq!(told(&mut session), []);
}

#[test]
fn no_more_is_told_than_the_client_acknowledges_and_all_of_it_again_on_the_next_connection() {
    let fanout = Fanout::silent();
    let mut session = resumed(Version::V5, &fanout, SessionState::default());
    subscribe(
        &mut session,
        "v1/notices",
        Qos::ExactlyOnce,
        RetainedOnSubscribe::Always,
    );
    for text in ["a", "b", "c"] {
        fanout.append(&Topic::Notices, text);
    }
    let first = told(&mut session);
    assert_eq!(first.len(), 2, "the client's receive maximum");
    assert_eq!(
        told(&mut session),
        [],
        "and nothing again on this connection [MQTT-4.4.0-1]"
    );

    let mut session = resumed(Version::V311, &fanout, session.into_state());
    let again = told(&mut session);
    let dup = |telling: &Telling| Telling {
        dup: true,
        ..telling.clone()
    };
    assert_eq!(again[..2], first.iter().map(dup).collect::<Vec<_>>());
    let third = &again[2];
    assert!(
        !third.dup && &third.payload[..] == b"c",
        "v3.1.1 has no receive maximum of its own"
    );

    assert_eq!(
        session.on_packet(Inbound::PubAck { id: 99 }),
        Ok(Step::Nothing)
    );
    for telling in &again {
        let id = telling.id.unwrap();
        assert_eq!(session.on_packet(Inbound::PubAck { id }), Ok(Step::Nothing));
    }
    let mut session = resumed(Version::V5, &fanout, session.into_state());
    assert_eq!(told(&mut session), []);
}

/// Whoever may hear every ward could name wards without end.
#[test]
fn a_session_has_so_many_subscriptions_and_no_more() {
    let permissions = Permissions::of_listener(vitalseal_storage::Wards::All);
    let heard = SessionState::default().heard;
    let hello = hello(Version::V5);
    let mut subscriptions = Subscriptions::new(&hello, permissions, &Fanout::silent(), heard);
    let mut ask = |ward: usize| {
        subscriptions.subscribe(&Filter {
            path: format!("v1/alerts/w{ward}"),
            qos: Qos::AtLeastOnce,
            retained: RetainedOnSubscribe::Always,
            retain_as_published: false,
        })
    };
    let granted = (0..1_000).take_while(|ward| ask(*ward) == SubscribeCode::GrantedQos1);
    assert_eq!(granted.count(), 256);
    assert_eq!(ask(256), SubscribeCode::QuotaExceeded);
    assert_eq!(
        ask(0),
        SubscribeCode::GrantedQos1,
        "one that is there may change"
    );
}

#[test]
fn what_a_client_may_hear_no_longer_is_not_told_again_either() {
    let wards = |names: &[&str]| {
        let wards = names.iter().map(|name| name.parse().unwrap());
        Permissions::of_listener(vitalseal_storage::Wards::These(wards.collect()))
    };
    let (fanout, hello) = (Fanout::silent(), hello(Version::V311));
    let heard = SessionState::default().heard;
    let permissions = wards(&["icu", "er"]);
    let subscriptions = Subscriptions::new(&hello, permissions.clone(), &fanout, heard);
    let received = HashSet::new();
    let mut session = Session::new(
        hello.version,
        permissions,
        4,
        subscriptions,
        received.clone(),
    );
    for ward in ["icu", "er"] {
        let filter = format!("v1/alerts/{ward}");
        subscribe(
            &mut session,
            &filter,
            Qos::AtLeastOnce,
            RetainedOnSubscribe::Always,
        );
        fanout.append(&Topic::Alerts(ward.parse().unwrap()), "bed 7");
    }
    assert_eq!(told(&mut session).len(), 2);

    let permissions = wards(&["er"]);
    let heard = session.into_state().heard;
    let subscriptions = Subscriptions::new(&hello, permissions.clone(), &fanout, heard);
    let mut session = Session::new(hello.version, permissions, 4, subscriptions, received);
    let again: Vec<_> = told(&mut session)
        .into_iter()
        .map(|telling| telling.topic)
        .collect();
    assert_eq!(again, ["v1/alerts/er"]);
}

#[test]
fn a_message_of_the_downlink_is_done_when_it_is_acknowledged() {
    let mut session = session(Version::V5);
    subscribe(
        &mut session,
        "v1/d/mon-7/down",
        Qos::AtLeastOnce,
        RetainedOnSubscribe::Always,
    );
    let subscriptions = &mut session.subscriptions;
    let id = subscriptions.tell_down(7, "do".into(), None).id.unwrap();
    assert_eq!(subscriptions.told_down(), 7);
    let mut session = resumed(Version::V5, &Fanout::silent(), session.into_state());
    let subscriptions = &mut session.subscriptions;
    assert_eq!(
        subscriptions.tell_again(),
        Some(Again::Fetch { id, number: 7 })
    );
    let again = subscriptions.tell_down(7, "do".into(), Some(id));
    assert!(again.dup && again.id == Some(id) && again.topic == "v1/d/mon-7/down");
    assert_eq!(
        session.on_packet(Inbound::PubAck { id }),
        Ok(Step::Delivered(7))
    );
    assert_eq!(session.on_packet(Inbound::PubAck { id }), Ok(Step::Nothing));
}

/// What a model of the session does next.
#[derive(Debug, Clone)]
enum Event {
    Publish(Qos, u16),
    Release(u16),
    Outcome(bool),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let qos = prop::sample::select(vec![Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce]);
    let event = prop_oneof![
        (qos, 1..5_u16).prop_map(|(qos, id)| Event::Publish(qos, id)),
        (1..5_u16).prop_map(Event::Release),
        any::<bool>().prop_map(Event::Outcome),
    ];
    prop::collection::vec(event, 0..60)
}

proptest! {
    /// Whatever a client sends in whatever order: never two submissions of one open QoS 2 identifier, never an
    /// acknowledgement without an outcome or a durable predecessor, acknowledgements in order of arrival.
    #[test]
    fn acknowledgements_follow_outcomes(events in events(), v5: bool) {
        let version = if v5 { Version::V5 } else { Version::V311 };
        let mut session = session(version);
        let mut under_way: Vec<Delivery> = Vec::new();
        let mut durable: HashSet<u16> = HashSet::new();
        for event in events {
            let step = match event {
                Event::Publish(qos, id) => session.on_packet(publish(qos, id)),
                Event::Release(id) => {
                    let known = durable.remove(&id);
                    let step = session.on_packet(Inbound::PubRel { id });
                    if let Ok(step) = &step {
                        prop_assert_eq!(step, &Step::Send(Outbound::PubComp { id, known }));
                    }
                    step
                }
                Event::Outcome(good) => {
                    if under_way.is_empty() {
                        continue;
                    }
                    let delivery = under_way.remove(0);
                    let outcome = if good { STORED } else { Outcome::Quarantined(QuarantineReason::Shape) };
                    let answer = session.on_outcome(delivery, outcome);
                    prop_assert_eq!(answer.is_some(), delivery.qos != Qos::AtMostOnce);
                    if delivery.qos == Qos::ExactlyOnce && (good || version == Version::V311) {
                        durable.insert(delivery.id);
                    } else if delivery.qos == Qos::ExactlyOnce {
                        durable.remove(&delivery.id);
                    }
                    Ok(Step::Nothing)
                }
            };
            match step {
                Ok(Step::Submit(delivery, _)) => {
                    if delivery.qos == Qos::ExactlyOnce {
                        prop_assert!(!under_way.contains(&delivery));
                    }
                    under_way.push(delivery);
                }
                Ok(Step::Acknowledge(delivery, reason)) => {
                    prop_assert!(durable.contains(&delivery.id));
                    session.acknowledge(delivery, reason);
                }
                Ok(_) => {}
                Err(_) => return Ok(()), // closed
            }
        }
    }
}
