//! Servers that forget, refuse and tell: what is kept for the first, how long the second are left alone, what becomes of
//! the words of the third.

use std::time::Duration;

use jiff::Timestamp;
use rumqttc::mqttbytes::v4::ConnectReturnCode;
use tokio_util::sync::CancellationToken;
use vitalseal_device::{Endpoint, Source};

use crate::peer::{Conduct, Peer, server_config};
use crate::{Bench, LIMIT, bench, clock, common, run_until, sequence};

/// A revoked device meets the one or the other.
#[tokio::test]
async fn a_device_that_is_not_wanted_does_not_hammer() {
    let bench = bench();
    bench.push(0..1);
    let own = &bench.recipient_pem;
    let not_authorized = Conduct::Refuses(ConnectReturnCode::NotAuthorized);
    let refuses = Peer::start(&bench.authority, own, &[not_authorized; 99]).await;
    let stranger = common::authority(clock());
    let tls = server_config(&bench.authority, &stranger);
    let shut_out = Peer::start_with(tls, own, &[]).await;
    for peer in [refuses, shut_out] {
        let mut settings = Bench::settings();
        settings.first_pause = Duration::from_millis(1);
        settings.longest_pause = Duration::from_secs(3_600);
        let publisher = bench.publisher_with(settings, &peer.endpoint);
        let (stats, stop) = (publisher.stats(), CancellationToken::new());
        let waiting = async {
            while stats.failures() < 1 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            // Room for a hundred attempts.
            tokio::time::sleep(Duration::from_millis(300)).await;
            stop.cancel();
        };
        let both = async { tokio::join!(publisher.run(stop.clone()), waiting).0 };
        tokio::time::timeout(LIMIT, both).await.unwrap().unwrap();
        assert_eq!((stats.failures(), stats.connections()), (1, 0));
    }
}

/// Sequences in the order in which a peer saw them.
fn published(peer: &Peer) -> Vec<u64> {
    let seen = peer.seen.lock().unwrap();
    seen.published.iter().map(|body| sequence(body)).collect()
}

#[tokio::test]
async fn a_server_that_forgot_the_session_gets_what_it_acknowledged_once_more_and_first() {
    let bench = bench();
    bench.push(0..5);
    let known = Peer::start(&bench.authority, &bench.recipient_pem, &[]).await;
    let publisher = bench.publisher(&known.endpoint);
    publisher.run_until_drained(LIMIT).await.unwrap();
    assert_eq!((bench.outbox.len(), bench.outbox.kept()), (0, 5));
    bench.push(5..7);
    publisher.run_until_drained(LIMIT).await.unwrap();
    let all: Vec<_> = (0..7).collect();
    assert_eq!(
        published(&known),
        all,
        "a server with a session gets nothing twice"
    );

    bench.push(7..9);
    let (own, conducts) = (&bench.recipient_pem, &[Conduct::Restored]);
    let restored = Peer::start(&bench.authority, own, conducts).await;
    let publisher = bench.publisher(&restored.endpoint);
    publisher.run_until_drained(LIMIT).await.unwrap();
    assert_eq!(published(&restored), (0..9).collect::<Vec<_>>());
    assert_eq!((publisher.stats().reoffered(), bench.outbox.kept()), (7, 9));
}

/// The session that a lost CONNACK leaves behind looks like one that never ended.
#[tokio::test]
async fn an_answer_that_is_lost_does_not_hide_that_the_server_forgot() {
    let bench = bench();
    bench.push(0..3);
    let own = &bench.recipient_pem;
    let peer = Peer::start(&bench.authority, own, &[]).await;
    let publisher = bench.publisher(&peer.endpoint);
    publisher.run_until_drained(LIMIT).await.unwrap();

    bench.push(3..4);
    let restored = Peer::start(&bench.authority, own, &[Conduct::Unheard]).await;
    let publisher = bench.publisher(&restored.endpoint);
    publisher.run_until_drained(LIMIT).await.unwrap();
    assert_eq!(published(&restored), [0, 1, 2, 3]);

    // Whoever does not even reach a server has asked nothing.
    bench.push(4..5);
    let nobody = Endpoint {
        host: "127.0.0.1".into(),
        port: 1,
    };
    let mut settings = Bench::settings();
    settings.first_pause = Duration::from_secs(3_600);
    settings.longest_pause = settings.first_pause;
    let publisher = bench.publisher_with(settings, &nobody);
    run_until(&publisher, |stats| stats.failures() >= 1).await;
    let publisher = bench.publisher(&restored.endpoint);
    publisher.run_until_drained(LIMIT).await.unwrap();
    assert_eq!(publisher.stats().reoffered(), 0);
    assert_eq!(published(&restored), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn who_keeps_nothing_sends_nothing_twice() {
    let bench = bench();
    bench.push(0..3);
    let own = &bench.recipient_pem;
    let peer = Peer::start(&bench.authority, own, &[Conduct::Well, Conduct::Restored]).await;
    let mut settings = Bench::settings();
    settings.keep_acknowledged = false;
    let publisher = bench.publisher_with(settings, &peer.endpoint);
    publisher.run_until_drained(LIMIT).await.unwrap();
    bench.push(3..4);
    publisher.run_until_drained(LIMIT).await.unwrap();
    assert_eq!(published(&peer), [0, 1, 2, 3]);
    assert_eq!(bench.outbox.kept(), 0);
}

#[tokio::test]
async fn what_is_kept_ends_a_day_after_the_certificate_that_it_was_sent_under() {
    /// A day and a second after the certificate of the bench ended, which was a day long.
    fn tomorrow() -> Timestamp {
        clock() + jiff::SignedDuration::from_secs(48 * 3_600 + 1)
    }
    let bench = bench();
    bench.push(0..3);
    let own = &bench.recipient_pem;
    let peer = Peer::start(&bench.authority, own, &[]).await;
    let publisher = bench.publisher(&peer.endpoint);
    publisher.run_until_drained(LIMIT).await.unwrap();
    assert_eq!(bench.outbox.kept(), 3);

    let next = common::recipient(&bench.authority, tomorrow());
    let next = next.certificate().to_pem();
    bench.push(3..4);
    let restored = Peer::start(&bench.authority, &next, &[Conduct::Restored]).await;
    let mut settings = Bench::settings();
    settings.clock = tomorrow;
    let publisher = bench.publisher_with(settings, &restored.endpoint);
    publisher.run_until_drained(LIMIT).await.unwrap();
    assert_eq!(published(&restored), [3]);
    assert_eq!(bench.outbox.kept(), 1);
}

#[tokio::test]
async fn what_the_server_says_is_acknowledged_when_the_program_took_it_and_not_before() {
    let bench = bench();
    let own = &bench.recipient_pem;
    let peer = Peer::start(&bench.authority, own, &[Conduct::Tells, Conduct::Tells]).await;
    let publisher = bench.publisher(&peer.endpoint);
    let mut messages = publisher.messages();
    let stop = CancellationToken::new();
    let program = async {
        let own = messages.recv().await.unwrap();
        let all = messages.recv().await.unwrap();
        assert_eq!(
            (own.source, own.payload()),
            (Source::Down, &b"restart at noon"[..])
        );
        assert_eq!(
            (all.source, all.payload()),
            (Source::Notices, &b"tea is ready"[..])
        );
        assert!(!format!("{own:?}").contains("noon"));
        // All of this was said before anything that is pushed now is acknowledged.
        bench.push(0..1);
        while publisher.stats().acked() < 1 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert!(peer.seen.lock().unwrap().taken.is_empty());
        assert_eq!(all.take(), b"tea is ready");
        drop(own); // not taken: it will be told again
        while peer.seen.lock().unwrap().taken.is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        stop.cancel();
    };
    let both = async { tokio::join!(publisher.run(stop.clone()), program).0 };
    tokio::time::timeout(LIMIT, both).await.unwrap().unwrap();
    let seen = peer.seen.lock().unwrap();
    assert_eq!(seen.taken, [6]);
    assert_eq!(
        seen.filters,
        ["v1/recipient", "v1/d/monitor-001/down", "v1/notices"]
    );
}
