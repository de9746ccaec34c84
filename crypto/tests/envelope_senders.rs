//! Session keys that are carried once and named afterwards, and messages that are addressed anew.
#![cfg(feature = "authority")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests argue with unwrap"
)]

mod common;

use std::error::Error as _;

use common::{Met, Site, backends, later, now};
use vitalseal_crypto::{
    Agreement, Backend, DeviceId, KeyEpoch, KeyError, MAX_ENVELOPE_BYTES, NoSenderKeys, Opened,
    OutboxKey, P256Point, Received, RecipientKeyRing, Rejection, Rule, SealError, SenderKeyId,
    SenderKeys, SessionKey, danger, default_backend, readdress,
};

fn open(
    site: &Site,
    wire: &[u8],
    senders: &dyn SenderKeys,
    backend: &dyn Backend,
) -> Result<Opened, Rejection> {
    Received::decode(wire)?
        .verify(&site.certificate, backend)?
        .open(&site.ring, senders, backend)
}

/// What the server remembers after a message that carried the session's key.
fn met(site: &Site, session: &SessionKey) -> Met {
    let backend = default_backend();
    let carried = site.seal(b"", Agreement::Session(session), backend).bytes;
    let met = Met::default();
    met.meet(&open(site, &carried, &NoSenderKeys, backend).unwrap());
    met
}

#[test]
fn a_key_that_was_carried_may_be_named() {
    for backend in backends() {
        let site = Site::new();
        let session = SessionKey::generate(backend).unwrap();
        let carried = site
            .seal(b"61", Agreement::Session(&session), backend)
            .bytes;
        let named = site
            .seal(b"62", Agreement::NamedSession(&session), backend)
            .bytes;
        assert_eq!(carried.len() - named.len(), 41);

        let unknown = open(&site, &named, &NoSenderKeys, backend).unwrap_err();
        assert_eq!(
            (unknown.rule, unknown.detail()),
            (
                Rule::UnknownKey,
                "the sender's key is only named, and this device sent no such key before"
            )
        );

        let first = open(&site, &carried, &NoSenderKeys, backend).unwrap();
        let (id, key) = first.introduced_sender().unwrap();
        assert_eq!(id, SenderKeyId::of(&key, backend));
        // As a database gives it back.
        assert_eq!(P256Point::from_sec1(&key.as_sec1()[..]), Some(key));
        let met = Met::default();
        met.meet(&first);
        let second = open(&site, &named, &met, backend).unwrap();
        assert_eq!(second.payload(), b"62");
        assert_eq!(
            second.introduced_sender(),
            None,
            "it carried no key to remember"
        );
    }
    let site = Site::new();
    let wire = site.seal(b"63", Agreement::Ephemeral, default_backend());
    let opened = open(&site, &wire.bytes, &NoSenderKeys, default_backend()).unwrap();
    assert_eq!(
        opened.introduced_sender(),
        None,
        "an ephemeral key is used once"
    );
}

/// A store that mixes keys up is found out by the thumbprint, not by a failed unwrap.
#[test]
fn a_found_key_must_be_the_one_that_was_named() {
    struct MixedUp(P256Point);
    impl SenderKeys for MixedUp {
        fn find(&self, device: &DeviceId, _: &SenderKeyId) -> Option<P256Point> {
            assert_eq!(
                device.as_str(),
                "monitor-007",
                "asked for the signer's keys"
            );
            Some(self.0)
        }
    }
    let site = Site::new();
    let backend = default_backend();
    let session = SessionKey::generate(backend).unwrap();
    let named = site
        .seal(b"62", Agreement::NamedSession(&session), backend)
        .bytes;
    let other = MixedUp(*backend.generate_p256().unwrap().public());
    assert_eq!(
        open(&site, &named, &other, backend).unwrap_err().rule,
        Rule::UnknownKey
    );
}

/// The key of RFC 9679 §6 is an EC2 key on P-256 with an uncompressed y; the thumbprint is the RFC's.
#[test]
fn a_sender_key_is_named_by_its_published_thumbprint() {
    let coordinate = |text| <[u8; 32]>::try_from(hex::decode(text).unwrap()).unwrap();
    let key = P256Point::from_coordinates(
        &coordinate("65eda5a12577c2bae829437fe338701a10aaa375e1bb5b5de108de439c08551d"),
        &coordinate("1e52ed75701163f7f9e40ddf9f341b3dc9ba860af7e0ca7ca7e9eecd0084d19c"),
    );
    for backend in backends() {
        assert_eq!(
            SenderKeyId::of(&key, backend).to_string(),
            "496bd8afadf307e5b08c64b0421bf9dc01528a344a43bda88fadd1669da253ec"
        );
    }
}

#[test]
fn a_message_for_an_ended_epoch_is_addressed_anew() {
    let site = Site::new();
    let backend = default_backend();
    let next = site
        .authority
        .issue_recipient(KeyEpoch(2), later(now(), 1), later(now(), 2), backend)
        .unwrap();
    let recipient = next.certificate().clone();
    let only_next = RecipientKeyRing::new(vec![next]);
    let outbox = OutboxKey::generate(backend).unwrap();
    let session = SessionKey::generate(backend).unwrap();

    for agreement in [
        Agreement::Ephemeral,
        Agreement::Session(&session),
        Agreement::NamedSession(&session),
    ] {
        let sealed = site.seal(b"62", agreement, backend);
        let wrapped = outbox.wrap(&sealed.content_key).unwrap();
        drop(sealed.content_key);

        // The device was off meanwhile: it has the message and the wrap from its disk.
        let outbox =
            danger::outbox_key_from_bytes(&danger::outbox_key_to_bytes(&outbox)[..]).unwrap();
        let content_key = outbox.unwrap(&wrapped).unwrap();
        let senders = met(&site, &session);
        let verified = |wire: &[u8]| {
            Received::decode(wire)
                .and_then(|received| received.verify(&site.certificate, backend))
                .unwrap()
        };
        let lost = verified(&sealed.bytes).open(&only_next, &senders, backend);
        assert_eq!(lost.unwrap_err().rule, Rule::UnknownKey);
        let wire = readdress(&sealed.bytes, &content_key, &recipient, agreement, backend).unwrap();
        let opened = verified(&wire).open(&only_next, &senders, backend).unwrap();
        assert_eq!(opened.payload(), b"62");
        assert_eq!(*opened.signed_hash(), sealed.signed_hash);
    }
}

#[test]
fn only_a_wire_message_of_that_content_key_is_addressed_anew() {
    let site = Site::new();
    let backend = default_backend();
    let one = site.seal(b"62", Agreement::Ephemeral, backend);
    let other = site.seal(b"62", Agreement::Ephemeral, backend);
    let again =
        |wire: &[u8], key| readdress(wire, key, &site.recipient, Agreement::Ephemeral, backend);
    let refused = again(&one.bytes, &other.content_key).unwrap_err();
    let SealError::Readdress(rejection) = refused else {
        panic!("{refused}")
    };
    assert_eq!(rejection.rule, Rule::Commitment);
    assert!(refused.source().is_some(), "the reason is not swallowed");
    let refused = again(&one.bytes[1..], &one.content_key).unwrap_err();
    assert!(matches!(refused, SealError::Readdress(shape) if shape.rule == Rule::Shape));

    // A named session's message at the largest size has no room for the key in full.
    let session = SessionKey::generate(backend).unwrap();
    let overhead = site
        .seal(&[0; 70_000], Agreement::NamedSession(&session), backend)
        .bytes
        .len()
        - 70_000;
    let largest = site.seal(
        &vec![0; MAX_ENVELOPE_BYTES - overhead],
        Agreement::NamedSession(&session),
        backend,
    );
    assert_eq!(largest.bytes.len(), MAX_ENVELOPE_BYTES);
    let refused = again(&largest.bytes, &largest.content_key);
    assert_eq!(refused.unwrap_err(), SealError::TooLarge);
}

#[test]
fn an_outbox_key_opens_what_it_wrapped_and_nothing_else() {
    let backend = default_backend();
    let sealed = Site::new().seal(b"62", Agreement::Ephemeral, backend);
    let key = OutboxKey::generate(backend).unwrap();
    let wrapped = key.wrap(&sealed.content_key).unwrap();
    assert!(key.unwrap(&wrapped).is_ok());
    let other = OutboxKey::generate(backend).unwrap();
    assert_eq!(other.unwrap(&wrapped).unwrap_err(), KeyError::Unwrap);
    assert_eq!(key.unwrap(&wrapped[1..]).unwrap_err(), KeyError::Malformed);
    assert_eq!(
        danger::outbox_key_from_bytes(&[0; 31]).unwrap_err(),
        KeyError::Malformed
    );
    assert_eq!(format!("{key:?}"), "OutboxKey { .. }");
    assert_eq!(format!("{:?}", sealed.content_key), "Dek { .. }");
}
