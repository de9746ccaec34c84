//! The publisher against a small MQTT server of our own, over real mutual TLS on loopback.
//!
//! A failure is: a message that leaves the outbox without its PUBACK, one that is never sent, one sent out of order, or one
//! that a server lacks which forgot that it acknowledged it. Not a failure: a message that is sent twice.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests argue as tests do"
)]

mod common;
#[path = "publisher/forgotten.rs"]
mod forgotten;
#[path = "publisher/peer.rs"]
mod peer;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use vitalseal_crypto::{
    Agreement, CertificateAuthority, ContentType, MAX_ENVELOPE_BYTES, MessageId, NoSenderKeys,
    Received, RecipientCertificate, RecipientKeyRing, SealRequest, default_backend, seal,
};
use vitalseal_device::recording::HeartRateRecording;
use vitalseal_device::{
    AgreementMode, DeviceIdentity, Endpoint, Message, Outbox, PublishError, Publisher,
    PublisherSettings, PublisherStats, Sealer,
};
use vitalseal_vitals::senml;

use peer::{Conduct, Peer};

const LIMIT: Duration = Duration::from_secs(20);

/// TLS looks at the real clock, so these tests do too.
#[expect(
    clippy::disallowed_methods,
    reason = "certificates of these tests are checked by TLS"
)]
fn clock() -> Timestamp {
    Timestamp::now()
}

struct Bench {
    authority: CertificateAuthority,
    identity: Arc<DeviceIdentity>,
    recipient: RecipientCertificate,
    recipient_pem: String,
    outbox: Outbox,
    directory: tempfile::TempDir,
}

fn bench() -> Bench {
    let authority = common::authority(clock());
    let (identity, _) = common::enrol(&authority, clock());
    let recipient = common::recipient(&authority, clock()).certificate().clone();
    let directory = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(directory.path()).unwrap();
    Bench {
        authority,
        identity,
        recipient_pem: recipient.to_pem(),
        recipient,
        outbox,
        directory,
    }
}

impl Bench {
    fn settings() -> PublisherSettings {
        let mut settings = PublisherSettings::new(clock);
        settings.window = 8;
        settings.first_pause = Duration::from_millis(10);
        settings.longest_pause = Duration::from_millis(50);
        settings
    }

    fn publisher(&self, endpoint: &Endpoint) -> Publisher {
        self.publisher_with(Self::settings(), endpoint)
    }

    fn publisher_with(&self, settings: PublisherSettings, endpoint: &Endpoint) -> Publisher {
        let identity = Arc::clone(&self.identity);
        Publisher::new(identity, self.outbox.clone(), endpoint.clone(), settings).unwrap()
    }

    /// A message for the bench's recipient.
    fn message(&self, sequence: u64, payload: &[u8]) -> Message {
        let id = MessageId {
            device: common::device(),
            boot: 0,
            sequence,
        };
        let request = SealRequest {
            content_type: ContentType::SenmlCbor,
            device: &id.device,
            subject: &common::subject(),
            issued_at: clock(),
            boot: id.boot,
            sequence,
            previous: None,
        };
        let (signer, backend) = (self.identity.signer(), default_backend());
        let (to, es) = (&self.recipient, Agreement::Ephemeral);
        let sealed = seal(&request, payload, to, es, signer, backend).unwrap();
        Message {
            id,
            bytes: sealed.bytes,
            signed_hash: sealed.signed_hash,
            content_key: sealed.content_key,
        }
    }

    fn push(&self, sequences: std::ops::Range<u64>) {
        for sequence in sequences {
            let message = self.message(sequence, b"payload");
            self.outbox.push(&message).unwrap();
        }
    }
}

/// Lets it run until its counters say so.
async fn run_until(publisher: &Publisher, reached: impl Fn(&PublisherStats) -> bool) {
    let (stats, stop) = (publisher.stats(), CancellationToken::new());
    let waiting = async {
        while !reached(&stats) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        stop.cancel();
    };
    let both = async { tokio::join!(publisher.run(stop.clone()), waiting).0 };
    let ended = tokio::time::timeout(LIMIT, both).await;
    ended.unwrap().unwrap();
}

fn sequence(published: &[u8]) -> u64 {
    Received::decode(published).unwrap().header().sequence
}

#[tokio::test]
async fn a_server_that_keeps_hanging_up_gets_everything_in_order() {
    let bench = bench();
    bench.push(0..100);
    let conducts: Vec<_> = (1..8).map(Conduct::HangUpAfter).collect();
    let peer = Peer::start(&bench.authority, &bench.recipient_pem, &conducts).await;
    let publisher = bench.publisher(&peer.endpoint);
    publisher.run_until_drained(LIMIT).await.unwrap();

    let seen = peer.seen.lock().unwrap();
    assert!(bench.outbox.is_empty());
    let acked: BTreeSet<u64> = seen.acked.iter().map(|body| sequence(body)).collect();
    assert_eq!((seen.acked.len(), acked), (100, (0..100).collect()));
    // Each connection starts with the oldest message that is not acknowledged and leaves none out.
    let mut newest: Option<u64> = None;
    for published in &seen.published {
        let sequence = sequence(published);
        assert!(
            sequence <= newest.map_or(0, |newest| newest + 1),
            "a message was left out"
        );
        newest = Some(newest.unwrap_or(0).max(sequence));
    }
    assert_eq!(seen.clients, vec!["monitor-001"; 8]);
    let stats = publisher.stats();
    assert_eq!(
        (stats.acked(), stats.failures(), stats.connections()),
        (100, 7, 8)
    );
    assert!(stats.sent() >= 100);
}

/// The server's key ends while the device is away. What waits is sealed for it, and must open under the next one.
#[tokio::test]
async fn what_waits_for_an_ended_key_is_sent_to_the_one_that_the_server_has_now() {
    let bench = bench();
    let backend = default_backend();
    let (identity, certificate) = common::enrol(&bench.authority, clock());
    let key = || common::recipient(&bench.authority, clock());
    let (ended, present) = (key(), key());
    let for_key = |pem: &str| identity.trust_recipient(pem, clock()).unwrap();
    let readings = HeartRateRecording::embedded().unwrap().readings().to_vec();
    let mut sealer = Sealer::new(
        Arc::clone(&identity),
        common::subject(),
        for_key(&ended.certificate().to_pem()),
        AgreementMode::Ss {
            messages_per_session: 2,
        },
        bench.outbox.boot(),
    );
    let mut sealed = Vec::new();
    for minute in readings.chunks(60).take(3) {
        sealed.push(sealer.seal(minute, clock()).unwrap());
    }
    sealer.set_recipient(for_key(&present.certificate().to_pem()));
    sealed.push(sealer.seal(&readings[..5], clock()).unwrap());
    for message in &sealed {
        bench.outbox.push(message).unwrap();
    }

    let present_pem = present.certificate().to_pem();
    let peer = Peer::start(&bench.authority, &present_pem, &[]).await;
    let mut settings = PublisherSettings::new(clock);
    settings.window = 2;
    let endpoint = peer.endpoint.clone();
    let publisher = Publisher::new(identity, bench.outbox.clone(), endpoint, settings).unwrap();
    publisher.run_until_drained(LIMIT).await.unwrap();

    let seen = peer.seen.lock().unwrap();
    let (lost, held) = (
        RecipientKeyRing::new(vec![ended]),
        RecipientKeyRing::new(vec![present]),
    );
    let mut batches = readings.chunks(60);
    for (published, message) in seen.published.iter().zip(&sealed) {
        let verified = |bytes: &[u8]| {
            let received = Received::decode(bytes).unwrap();
            received.verify(&certificate, backend).unwrap()
        };
        assert!(
            verified(published)
                .open(&lost, &NoSenderKeys, backend)
                .is_err()
        );
        let opened = verified(published).open(&held, &NoSenderKeys, backend);
        let opened = opened.unwrap();
        assert_eq!(*opened.signed_hash(), message.signed_hash);
        let expected = match message.id.sequence {
            3 => &readings[..5],
            _ => batches.next().unwrap(),
        };
        assert_eq!(senml::decode(opened.payload()).unwrap(), expected);
    }
    assert_eq!(seen.published.len(), 4);
    assert_eq!(
        seen.published[3], sealed[3].bytes,
        "what was sealed for the present key goes as it is"
    );
}

#[tokio::test]
async fn nothing_leaves_the_outbox_while_the_server_is_silent_or_away() {
    let bench = bench();
    bench.push(0..3);
    let silent = Peer::start(
        &bench.authority,
        &bench.recipient_pem,
        &[Conduct::Silent; 99],
    )
    .await;
    let nobody = Endpoint {
        host: "127.0.0.1".into(),
        port: 1,
    };
    for endpoint in [&silent.endpoint, &nobody] {
        let ended = bench
            .publisher(endpoint)
            .run_until_drained(Duration::from_millis(300))
            .await;
        assert!(matches!(
            ended,
            Err(PublishError::Deadline { pending: 3, .. })
        ));
    }
    assert_eq!(bench.outbox.len(), 3);
}

/// The server acknowledges what it cannot open, and the device would forget it.
#[tokio::test]
async fn nothing_is_sent_on_a_connection_that_shows_no_trusted_key_even_if_one_was_known() {
    let bench = bench();
    bench.push(0..3);
    let own = &bench.recipient_pem;
    let stranger = common::authority(clock());
    let foreign = common::recipient(&stranger, clock()).certificate().to_pem();
    let earlier = clock() - jiff::SignedDuration::from_hours(48);
    let ended = common::recipient(&bench.authority, earlier)
        .certificate()
        .to_pem();
    let untrusted = [
        (Conduct::Untold, own.as_str()),
        (Conduct::Unsubscribed, own),
        (Conduct::Well, &foreign),
        (Conduct::Well, &ended),
        (Conduct::Well, ""),
    ];
    for (case, (conduct, pem)) in untrusted.into_iter().enumerate() {
        let peer = Peer::start(&bench.authority, pem, &[conduct; 99]).await;
        let mut settings = Bench::settings();
        if matches!(conduct, Conduct::Untold) {
            settings.recipient_patience = Duration::from_millis(300);
        }
        let publisher = bench.publisher_with(settings, &peer.endpoint);
        run_until(&publisher, |stats| stats.failures() >= 3).await;
        assert!(peer.seen.lock().unwrap().published.is_empty(), "{case}");
    }

    // Known from the first connection, and not shown on the next ones.
    let conducts = [&[Conduct::HangUpAfter(1)][..], &[Conduct::Unsubscribed; 99]].concat();
    let peer = Peer::start(&bench.authority, own, &conducts).await;
    let publisher = bench.publisher(&peer.endpoint);
    run_until(&publisher, |stats| stats.failures() >= 4).await;
    assert_eq!(peer.seen.lock().unwrap().published.len(), 2);
}

#[tokio::test]
async fn what_cannot_be_addressed_to_the_present_key_stays_and_holds_up_nothing() {
    let mut bench = bench();
    bench.push(0..2);
    let directory = bench.directory.path().to_owned();
    let file = |sequence| directory.join(format!("{:016x}-{sequence:016x}.msg", 0));
    // The content key of the first is damaged, and the server has another key by now.
    let mut damaged = std::fs::read(file(0)).unwrap();
    damaged[0] ^= 1;
    std::fs::write(file(0), damaged).unwrap();
    bench.recipient = common::recipient(&bench.authority, clock())
        .certificate()
        .clone();
    bench.push(2..3);
    let peer = Peer::start(&bench.authority, &bench.recipient.to_pem(), &[]).await;
    let publisher = bench.publisher(&peer.endpoint);
    run_until(&publisher, |stats| stats.acked() == 2).await;
    assert_eq!(bench.outbox.len(), 1);
    let seen = peer.seen.lock().unwrap();
    let published = seen.published.iter().map(|body| {
        let received = Received::decode(body).unwrap();
        assert_eq!(received.recipient_kid(), bench.recipient.kid());
        received.header().sequence
    });
    assert_eq!(published.collect::<Vec<_>>(), [1, 2]);
    assert!(file(0).exists());
}

#[tokio::test]
async fn a_server_of_another_authority_gets_nothing() {
    let bench = bench();
    bench.push(0..1);
    let stranger = common::authority(clock());
    let peer = Peer::start(&stranger, &bench.recipient_pem, &[]).await;
    let publisher = bench.publisher(&peer.endpoint);
    let ended = publisher
        .run_until_drained(Duration::from_millis(500))
        .await;
    let Err(PublishError::Deadline {
        pending: 1,
        cause: Some(cause),
    }) = ended
    else {
        panic!("the handshake must fail");
    };
    assert!(cause.to_string().contains("certificate"), "{cause}");
    assert!(peer.seen.lock().unwrap().published.is_empty());
}

#[tokio::test]
async fn the_recipient_is_fetched_and_checked() {
    let bench = bench();
    let peer = Peer::start(&bench.authority, &bench.recipient_pem, &[]).await;
    let publisher = bench.publisher(&peer.endpoint);
    let recipient = publisher.fetch_recipient(LIMIT).await.unwrap();
    assert_eq!(recipient.to_pem().trim(), bench.recipient_pem.trim());
    assert!(publisher.recipient().borrow().is_some());

    let stranger = common::authority(clock());
    let forged = common::recipient(&stranger, clock()).certificate().to_pem();
    let peer = Peer::start(&bench.authority, &forged, &[]).await;
    let publisher = bench.publisher(&peer.endpoint);
    let ended = publisher.fetch_recipient(Duration::from_millis(500)).await;
    assert!(matches!(ended, Err(PublishError::NoRecipient { .. })));
}

#[tokio::test]
async fn while_it_runs_it_sends_what_is_pushed_and_stops_with_a_farewell() {
    let bench = bench();
    let peer = Peer::start(&bench.authority, &bench.recipient_pem, &[]).await;
    let publisher = bench.publisher(&peer.endpoint);
    let (stats, stop) = (publisher.stats(), CancellationToken::new());
    let told = stop.clone();
    let running = tokio::spawn(async move { publisher.run(told).await });
    for round in 0..5 {
        bench.push(round * 20..round * 20 + 20);
        let waited = async {
            while stats.acked() < round * 20 + 20 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(LIMIT, waited).await.unwrap();
    }
    stop.cancel();
    tokio::time::timeout(LIMIT, running)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(bench.outbox.is_empty());
    let said = async {
        while peer.seen.lock().unwrap().farewells == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(LIMIT, said).await.unwrap();
    assert_eq!(stats.connections(), 1);
}

#[tokio::test]
async fn the_largest_envelope_fits() {
    let bench = bench();
    // What an envelope adds to an empty payload, and two longer length prefixes.
    let around = bench.message(9, b"").bytes.len() + 8;
    let payload = vec![0xd8; MAX_ENVELOPE_BYTES - around];
    for sequence in 0..3 {
        let message = bench.message(sequence, &payload);
        assert!(message.bytes.len() + 16 > MAX_ENVELOPE_BYTES);
        bench.outbox.push(&message).unwrap();
    }
    let peer = Peer::start(&bench.authority, &bench.recipient_pem, &[]).await;
    bench
        .publisher(&peer.endpoint)
        .run_until_drained(LIMIT)
        .await
        .unwrap();
    assert_eq!(peer.seen.lock().unwrap().published.len(), 3);
}
