//! Which bytes of a message may change, and which may not.
#![cfg(feature = "authority")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests argue with unwrap"
)]

mod common;

use std::collections::BTreeMap;
use std::ops::Range;

use common::{Met, Site, later, now};
use coset::{CoseEncrypt, TaggedCborSerializable as _};
use vitalseal_crypto::{
    Agreement, AtRest, Kek, KeyEpoch, NoSenderKeys, Received, Rejection, SealedMessage, SessionKey,
    default_backend, readdress,
};

const PAYLOAD: &[u8] = b"62 /min";

#[test]
fn rewrapping_and_readdressing_touch_only_the_recipients() {
    let site = Site::new();
    let backend = default_backend();
    let session = SessionKey::generate(backend).unwrap();
    let kek = Kek::generate(backend).unwrap();
    let next = site
        .authority
        .issue_recipient(KeyEpoch(2), now(), later(now(), 1), backend)
        .unwrap();
    for agreement in [
        Agreement::Ephemeral,
        Agreement::Session(&session),
        Agreement::NamedSession(&session),
    ] {
        let SealedMessage {
            bytes: wire,
            content_key,
            ..
        } = site.seal(PAYLOAD, agreement, backend);
        let readdressed =
            readdress(&wire, &content_key, next.certificate(), agreement, backend).unwrap();
        let rewrapped = open(&site, &wire, &met(&site, &session))
            .unwrap()
            .rewrap(&kek, backend)
            .unwrap();
        assert_eq!(*rewrapped.kek_kid(), *kek.kid());

        let before = Places::of(&wire);
        for after in [&readdressed, rewrapped.as_bytes()] {
            let places = Places::of(after);
            assert_eq!(places.0, before.0, "at the same offsets");
            for (name, place) in &places.0 {
                assert_eq!(after[place.clone()], wire[place.clone()], "{name}");
            }
            // So is every byte that is no field: heads, labels and the countersignature's headers.
            let recipients_at = places.0["ciphertext"].end;
            assert_eq!(after[..recipients_at], wire[..recipients_at]);
            assert_ne!(after[recipients_at..], wire[recipients_at..]);
        }
    }
}

/// Exhaustive over a small message of each form. Each flip is refused; were one not, it would have to be one that the
/// readings do not feel.
#[test]
fn no_single_bit_can_change() {
    let site = Site::new();
    let backend = default_backend();
    let session = SessionKey::generate(backend).unwrap();
    let remembered = met(&site, &session);
    for (form, agreement) in [
        ("es", Agreement::Ephemeral),
        ("ss, key carried", Agreement::Session(&session)),
        ("ss, key named", Agreement::NamedSession(&session)),
    ] {
        let wire = site.seal(PAYLOAD, agreement, backend).bytes;
        flip_every_bit(form, &wire, |changed| {
            open(&site, changed, &remembered).map(|opened| opened.payload().to_vec())
        });
    }

    let kek = Kek::generate(backend).unwrap();
    let wire = site.seal(PAYLOAD, Agreement::Ephemeral, backend).bytes;
    let stored = open(&site, &wire, &NoSenderKeys)
        .unwrap()
        .rewrap(&kek, backend)
        .unwrap();
    flip_every_bit("at rest", stored.as_bytes(), |changed| {
        let changed = AtRest::decode(changed)?;
        changed.verify(&site.certificate, backend)?;
        changed.open(&kek, backend).map(|payload| payload.to_vec())
    });
}

/// Prints by region and rule how many flips were refused, and allows none to yield another payload.
fn flip_every_bit(form: &str, bytes: &[u8], read: impl Fn(&[u8]) -> Result<Vec<u8>, Rejection>) {
    assert_eq!(read(bytes).unwrap(), PAYLOAD, "{form}: unchanged, it opens");
    let places = Places::of(bytes);
    let mut refused: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        let region = places.region_of(bit / 8);
        match read(&changed) {
            Err(rejection) => {
                *refused
                    .entry((region, rejection.rule.as_str()))
                    .or_default() += 1
            }
            Ok(_) => panic!(
                "{form}: bit {} of byte {} ({region}) is free",
                bit % 8,
                bit / 8
            ),
        }
    }
    println!("{form}: {} flips", bytes.len() * 8);
    for ((region, rule), count) in &refused {
        println!("  {region:18} {rule:12} {count:5}");
    }
}

fn open(
    site: &Site,
    wire: &[u8],
    senders: &dyn vitalseal_crypto::SenderKeys,
) -> Result<vitalseal_crypto::Opened, Rejection> {
    let backend = default_backend();
    Received::decode(wire)?
        .verify(&site.certificate, backend)?
        .open(&site.ring, senders, backend)
}

/// What the server remembers after a message that carried the session's key.
fn met(site: &Site, session: &SessionKey) -> Met {
    let carried = site.seal(b"", Agreement::Session(session), default_backend());
    let met = Met::default();
    met.meet(&open(site, &carried.bytes, &NoSenderKeys).unwrap());
    met
}

/// Where a message's fields stand, as another COSE library finds them.
struct Places(BTreeMap<&'static str, Range<usize>>);

impl Places {
    fn of(bytes: &[u8]) -> Self {
        let message = CoseEncrypt::from_tagged_slice(bytes).unwrap();
        let countersignature = &message.unprotected.rest[0].1.as_array().unwrap().clone();
        let place = |content: &[u8]| {
            let mut found = bytes.windows(content.len()).enumerate();
            let (at, _) = found.find(|(_, window)| *window == content).unwrap();
            at..at + content.len()
        };
        Self(BTreeMap::from([
            (
                "protected header",
                place(&message.protected.original_data.unwrap()),
            ),
            ("IV", place(&message.unprotected.iv)),
            ("signer", place(countersignature[0].as_bytes().unwrap())),
            ("signature", place(countersignature[2].as_bytes().unwrap())),
            ("ciphertext", place(&message.ciphertext.unwrap())),
        ]))
    }

    fn region_of(&self, byte: usize) -> &'static str {
        let within = self.0.iter().find(|(_, place)| place.contains(&byte));
        match within {
            Some((name, _)) => name,
            None if byte >= self.0["ciphertext"].end => "recipients",
            None => "heads and labels",
        }
    }
}
