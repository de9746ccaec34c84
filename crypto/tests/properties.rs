//! What holds for every message: it opens to what was sealed, and a changed one does not.
#![cfg(feature = "authority")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests argue with unwrap"
)]

mod common;

use common::{Site, backends};
use proptest::prelude::*;
use vitalseal_crypto::{
    Agreement, AtRest, ContentType, Kek, Kid, MAX_COUNTER, MAX_ENVELOPE_BYTES, NoSenderKeys,
    PageKey, Received, RecipientKeyRing, Rule, SealError, SessionKey, default_backend, seal,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// open ∘ seal = identity, on the wire and at rest, in both modes, whichever backend stands at either end.
    #[test]
    fn what_is_sealed_opens(
        payload in proptest::collection::vec(any::<u8>(), 0..2000),
        boot in 0..=MAX_COUNTER, sequence in 0..=MAX_COUNTER,
        seconds in 0..4_102_444_800_i64, previous in any::<Option<[u8; 32]>>(), waveform in any::<bool>(),
    ) {
        let site = Site::new();
        let kek = Kek::generate(default_backend()).unwrap();
        let session = SessionKey::generate(default_backend()).unwrap();
        let mut request = site.request();
        request.content_type =
            if waveform { ContentType::Waveform } else { ContentType::SenmlCbor };
        request.issued_at = jiff::Timestamp::from_second(seconds).unwrap();
        (request.boot, request.sequence, request.previous) = (boot, sequence, previous);

        for agreement in [Agreement::Ephemeral, Agreement::Session(&session), Agreement::Session(&session)] {
            for (device, server) in backends().into_iter().flat_map(|a| backends().into_iter().map(move |b| (a, b))) {
                let sealed = seal(&request, &payload, &site.recipient, agreement, &site.signer, device).unwrap();
                let received = Received::decode(&sealed.bytes).unwrap();
                let header = received.header();
                prop_assert_eq!(header.content_type, request.content_type);
                prop_assert_eq!(&header.device, request.device);
                prop_assert_eq!(&header.subject, request.subject);
                prop_assert_eq!(header.issued_at, request.issued_at);
                prop_assert_eq!((header.boot, header.sequence, header.previous), (boot, sequence, previous));
                prop_assert_eq!(received.signed_hash(server), sealed.signed_hash);

                let opened = received.verify(&site.certificate, server).unwrap().open(&site.ring, &NoSenderKeys, server).unwrap();
                prop_assert_eq!(opened.payload(), &payload);
                let stored = AtRest::decode(&opened.rewrap(&kek, server).unwrap().into_bytes()).unwrap();
                prop_assert_eq!(stored.verify(&site.certificate, device), Ok(()));
                prop_assert_eq!(&*stored.open(&kek, device).unwrap(), &payload);
            }
        }
    }

    /// No bytes from a network or a disk make the decoders panic, however near they are to a real message.
    #[test]
    fn decoding_never_panics(
        noise in proptest::collection::vec(any::<u8>(), 0..200),
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<proptest::sample::Index>(),
    ) {
        let _ = Received::decode(&noise);
        let _ = AtRest::decode(&noise);
        let _ = vitalseal_crypto::Signed::decode(&noise);
        let _ = vitalseal_crypto::CloneProof::decode(&noise);
        let _ = vitalseal_crypto::DeviceCertificate::from_der(&noise);
        let mut near = SAMPLE.with(|sample| sample.clone());
        for (at, byte) in edits {
            let at = at.index(near.len());
            near[at] = byte;
        }
        let _ = Received::decode(&near);
        near.truncate(cut.index(near.len()));
        prop_assert!(Received::decode(&near).is_err());
        near.extend(noise);
        let _ = AtRest::decode(&near);
    }
}

thread_local! {
    static SAMPLE: Vec<u8> = Site::new().seal(b"sample", Agreement::Ephemeral, default_backend()).bytes;
}

#[test]
fn keys_that_are_gone_or_wrong_open_nothing() {
    let site = Site::new();
    let backend = default_backend();
    let verified = || {
        Received::decode(&site.seal(b"62", Agreement::Ephemeral, backend).bytes)
            .and_then(|received| received.verify(&site.certificate, backend))
            .unwrap()
    };
    let destroyed = RecipientKeyRing::new(vec![]);
    assert_eq!(
        verified()
            .open(&destroyed, &NoSenderKeys, backend)
            .unwrap_err()
            .rule,
        Rule::UnknownKey
    );

    let kek = Kek::generate(backend).unwrap();
    let other = Kek::generate(backend).unwrap();
    let stored = rewrapped(&site, &kek);
    assert_eq!(
        stored.open(&other, backend).unwrap_err().rule,
        Rule::UnknownKey
    );
    let page = PageKey::generate(backend).unwrap();
    let posing = page
        .unwrap_kek(kek.kid().clone(), &page.wrap_kek(&other).unwrap())
        .unwrap();
    assert_eq!(
        stored.open(&posing, backend).unwrap_err().rule,
        Rule::Unwrap
    );

    let stranger = Site::new();
    let foreign = Received::decode(&site.seal(b"62", Agreement::Ephemeral, backend).bytes).unwrap();
    assert_eq!(
        foreign
            .verify(&stranger.certificate, backend)
            .unwrap_err()
            .rule,
        Rule::Identity,
        "the same device id, another certificate"
    );
}

#[test]
fn what_does_not_fit_is_not_sealed() {
    let site = Site::new();
    let backend = default_backend();
    let sealed = |request, payload: &[u8]| {
        seal(
            &request,
            payload,
            &site.recipient,
            Agreement::Ephemeral,
            &site.signer,
            backend,
        )
    };
    let other = "monitor-008".parse().unwrap();
    let mut request = site.request();
    request.device = &other;
    assert_eq!(sealed(request, b"").unwrap_err(), SealError::ForeignDevice);
    let mut request = site.request();
    (request.boot, request.sequence) = (MAX_COUNTER, MAX_COUNTER);
    sealed(request, b"").expect("the last counters there are");
    request.sequence = MAX_COUNTER + 1;
    assert_eq!(sealed(request, b"").unwrap_err(), SealError::OutOfRange);
    let mut request = site.request();
    request.issued_at = "1969-12-31T23:59:59Z".parse().unwrap();
    assert_eq!(sealed(request, b"").unwrap_err(), SealError::OutOfRange);
    let payload = vec![0; MAX_ENVELOPE_BYTES];
    assert_eq!(
        sealed(site.request(), &payload).unwrap_err(),
        SealError::TooLarge
    );
    let refused = Received::decode(&[]).unwrap_err().to_string();
    assert!(
        refused.starts_with("envelope refused (shape): "),
        "{refused}"
    );
    let largest = sealed(site.request(), &payload[..MAX_ENVELOPE_BYTES - 1024]).unwrap();
    assert!(Received::decode(&largest.bytes).is_ok());
    assert_eq!(
        Received::decode(&[largest.bytes.as_slice(), &[0; 1024]].concat())
            .unwrap_err()
            .rule,
        Rule::Shape
    );
}

#[test]
fn messages_of_a_session_have_a_wrap_of_their_own() {
    let site = Site::new();
    let backend = default_backend();
    let session = SessionKey::generate(backend).unwrap();
    let nonces: Vec<_> = (0..3)
        .map(|_| {
            let wire = site
                .seal(b"62", Agreement::Session(&session), backend)
                .bytes;
            // -22: nonce, then the 40 wrapped bytes.
            let tail = &wire[wire.len() - 44..];
            assert_eq!(tail[0], 0x35);
            tail[1]
        })
        .collect();
    assert_eq!(nonces, [0, 1, 2]);
}

fn rewrapped(site: &Site, kek: &Kek) -> AtRest {
    let backend = default_backend();
    Received::decode(&site.seal(b"62 /min", Agreement::Ephemeral, backend).bytes)
        .and_then(|received| received.verify(&site.certificate, backend))
        .and_then(|verified| verified.open(&site.ring, &NoSenderKeys, backend))
        .unwrap()
        .rewrap(kek, backend)
        .unwrap()
}

#[test]
fn a_kid_is_bounded() {
    assert!(Kid::from_bytes(&[]).is_err());
    assert!(Kid::from_bytes(&[0; 33]).is_err());
}
