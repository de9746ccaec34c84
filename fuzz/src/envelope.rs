//! Envelopes from the network and from storage.
//!
//! The keys are those of the published vectors, so that whoever mutates a vector gets as far as its change lets him:
//! past the signature when the recipient was changed, past the shape when a header was.

use std::sync::LazyLock;

use serde_json::Value;
use vitalseal_crypto::{
    AtRest, DeviceCertificate, DeviceId, Kek, Kid, MAX_ENVELOPE_BYTES, P256Point, Received,
    RecipientCertificate, RecipientKeyRing, SenderKeyId, SenderKeys, Signed, danger, rust_crypto,
};

/// A certificate for the vectors' server key, self-signed: the vectors have only the key.
pub const RECIPIENT: &[u8] = include_bytes!("recipient.der");

/// What decodes has one home and is no longer than an envelope may be. What verifies is one of the published
/// messages, because nobody else has the device's key. What opens, or is evidence that verifies, counts as taken, and
/// what opens holds that message's payload.
pub fn decode(bytes: &[u8]) -> bool {
    let (received, stored) = (Received::decode(bytes), AtRest::decode(bytes));
    let evidence = Signed::decode(bytes);
    assert!(
        received.is_err() || stored.is_err(),
        "a message passes both as sent and as stored"
    );
    if received.is_ok() || stored.is_ok() {
        assert!(bytes.len() <= MAX_ENVELOPE_BYTES);
        assert!(evidence.is_ok(), "a whole message is no evidence");
    }
    match (received, stored, evidence) {
        (Ok(received), _, _) => sent(received),
        (_, Ok(stored), _) => {
            assert!(
                stored.as_bytes() == bytes,
                "a stored message is not the bytes it was read from"
            );
            at_rest(&stored)
        }
        (_, _, Ok(evidence)) => signed(&evidence) && evidence.as_bytes() == bytes,
        _ => false,
    }
}

fn signed(evidence: &Signed) -> bool {
    let again = Signed::decode(evidence.as_bytes()).expect("what is cut down can be read");
    assert!(again.as_bytes() == evidence.as_bytes());
    let world = &*WORLD;
    let verified = evidence.verify(&world.certificate, rust_crypto()).is_ok();
    if verified {
        world.published(&evidence.signed_hash(rust_crypto()));
    }
    verified
}

fn sent(received: Received) -> bool {
    let world = &*WORLD;
    let Ok(verified) = received.verify(&world.certificate, rust_crypto()) else {
        return false;
    };
    let published = world.published(verified.signed_hash());
    let Ok(opened) = verified.open(&world.ring, world, rust_crypto()) else {
        return false;
    };
    assert!(
        Some(opened.payload()) == published.payload.as_deref(),
        "a message opens to another payload"
    );
    let rewrapped = opened
        .rewrap(&world.kek, rust_crypto())
        .expect("a content key wraps");
    let stored = AtRest::decode(rewrapped.as_bytes()).expect("what is stored can be read");
    assert!(stored.signed_hash(rust_crypto()) == *opened.signed_hash());
    assert!(at_rest(&stored), "what was taken does not open as stored");
    true
}

fn at_rest(stored: &AtRest) -> bool {
    let world = &*WORLD;
    let opened = stored.open(&world.kek, rust_crypto());
    if stored.verify(&world.certificate, rust_crypto()).is_err() {
        return false;
    }
    let published = world.published(&stored.signed_hash(rust_crypto()));
    let Ok(payload) = opened else {
        return false;
    };
    assert!(
        Some(payload.as_slice()) == published.payload.as_deref(),
        "a stored message opens to another payload"
    );
    true
}

/// A message that the vectors' device did sign.
struct Published {
    signed_hash: [u8; 32],
    /// `None` for one that must not open.
    payload: Option<Vec<u8>>,
}

struct World {
    certificate: DeviceCertificate,
    ring: RecipientKeyRing,
    kek: Kek,
    session: P256Point,
    published: Vec<Published>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let file: Value =
        serde_json::from_str(include_str!("../../crypto/tests/vectors/envelope.json")).unwrap();
    let backend = rust_crypto();
    let kid = |field| Kid::from_bytes(&bytes_of(&file, field)).unwrap();
    let scalar = bytes_of(&file, "session_private_scalar")
        .try_into()
        .unwrap();
    let server = danger::test_doors::recipient_key_under_kid(
        kid("server_kid"),
        &bytes_of(&file, "server_private_scalar"),
        RecipientCertificate::from_der(RECIPIENT).unwrap(),
    );
    let kek = bytes_of(&file, "patient_kek").try_into().unwrap();
    let certificate =
        DeviceCertificate::from_der(&bytes_of(&file, "device_certificate_der")).unwrap();
    let vectors = ["valid", "invalid"].map(|list| file[list].as_array().unwrap().iter());
    let published = vectors.into_iter().flatten().filter_map(|vector| {
        let received = Received::decode(&bytes_of(vector, "wire")).ok()?;
        let verified = received.verify(&certificate, backend).ok()?;
        Some(Published {
            signed_hash: *verified.signed_hash(),
            payload: vector.get("payload").map(|_| bytes_of(vector, "payload")),
        })
    });
    let published: Vec<_> = published.collect();
    World {
        ring: RecipientKeyRing::new(vec![server.unwrap()]),
        kek: danger::test_doors::kek_from_bytes(kid("patient_kek_kid"), &kek),
        session: *backend.p256_from_scalar(&scalar).unwrap().public(),
        published,
        certificate,
    }
});

impl World {
    fn published(&self, signed_hash: &[u8; 32]) -> &Published {
        let mut published = self.published.iter();
        published
            .find(|message| message.signed_hash == *signed_hash)
            .expect("a signature verifies over what its device never signed")
    }
}

/// The server remembers the vectors' one session, as if every message of it had come before.
impl SenderKeys for World {
    fn find(&self, _: &DeviceId, id: &SenderKeyId) -> Option<P256Point> {
        let known = SenderKeyId::of(&self.session, rust_crypto());
        (known == *id).then_some(self.session)
    }
}

fn bytes_of(value: &Value, field: &str) -> Vec<u8> {
    hex::decode(value[field].as_str().unwrap()).unwrap()
}
