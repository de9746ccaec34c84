//! Clone proofs, as anyone can hand them in.

use std::sync::LazyLock;

use serde_json::Value;
use vitalseal_crypto::{CloneProof, rust_crypto};

/// What decodes is the bytes it was read from. What verifies, and so counts as taken, is about two messages that the
/// vectors' device signed: the same two as a published proof.
pub fn decode(bytes: &[u8]) -> bool {
    let Ok(proof) = CloneProof::decode(bytes) else {
        return false;
    };
    assert!(
        proof.encode() == bytes,
        "a proof is not the bytes it was read from"
    );
    let known = &*KNOWN;
    let Ok(statement) = proof.verify(&[&known.authority], rust_crypto()) else {
        return false;
    };
    let mut hashes = statement.signed_hashes;
    hashes.sort_unstable();
    assert!(
        known.hashes.contains(&hashes),
        "a proof verifies over what no device signed"
    );
    true
}

struct Known {
    authority: Vec<u8>,
    /// The signed hashes of each published proof, in order.
    hashes: Vec<[[u8; 32]; 2]>,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let file: Value =
        serde_json::from_str(include_str!("../../crypto/tests/vectors/clone_proof.json")).unwrap();
    let bytes = |value: &Value| hex::decode(value.as_str().unwrap()).unwrap();
    let proofs = file["proofs"].as_array().unwrap().iter();
    let hashes = proofs.map(|proof| {
        let of = |index: usize| {
            let hash = &proof["statement"]["signed_hashes"][index];
            bytes(hash).try_into().unwrap()
        };
        let mut hashes = [of(0), of(1)];
        hashes.sort_unstable();
        hashes
    });
    Known {
        hashes: hashes.collect(),
        authority: bytes(&file["issuing_certificate_der"]),
    }
});
