//! Published vectors for the primitives and for the byte strings that COSE builds around them, through both backends.
//!
//! The primitives' are in the RFCs. The structures' are the COSE working group's examples
//! (`vectors/cose_wg.json`, which says what is left out and why): the bytes that are bound, derived from and signed
//! are rebuilt from each message by another COSE library and compared, then our primitives must yield what is
//! published. That our own structures are the same bytes is shown beside them, in `src/envelope`.
#![cfg(feature = "authority")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests argue with unwrap"
)]

mod common;

use coset::cbor::value::Value as Cbor;
use coset::iana::{self, EnumI64 as _};
use coset::{
    AsCborValue as _, CborSerializable as _, CoseEncrypt, CoseKdfContextBuilder, CoseKey, CoseMac,
    CoseRecipient, CoseSign, CoseSign1, CoseSignature, EncryptionContext, Label, SignatureContext,
    SuppPubInfo, TaggedCborSerializable as _, enc_structure_data, sig_structure_data,
};
use p256::elliptic_curve::sec1::ToSec1Point as _;
use serde_json::Value;
use vitalseal_crypto::{Backend, BackendError, P256Point};

/// RFC 3394 §4.6: 256 bits of key data under a 256-bit KEK.
#[test]
fn a_wrapped_key_is_that_of_rfc_3394_and_no_bit_of_it_may_change() {
    let kek = array("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
    let key = array("00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f");
    let wrapped = array::<40>(
        "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21",
    );
    for backend in common::backends() {
        let name = backend.name();
        assert_eq!(backend.wrap(&kek, &key), Ok(wrapped), "{name}");
        assert_eq!(*backend.unwrap(&kek, &wrapped).unwrap(), key, "{name}");
        for bit in 0..40 * 8 {
            let mut damaged = wrapped;
            damaged[bit / 8] ^= 1 << (bit % 8);
            let refused = backend.unwrap(&kek, &damaged);
            assert_eq!(refused, Err(BackendError::Refused), "{name} bit {bit}");
        }
    }
}

/// RFC 5869 appendix A.1 to A.3: the first 32 bytes of each output, as expansion is by blocks.
#[test]
fn derived_keys_are_those_of_rfc_5869() {
    let counting = |from: u8, to: u8| (from..=to).collect::<Vec<u8>>();
    let cases = [
        (
            counting(0x00, 0x0c),
            vec![0x0b; 22],
            counting(0xf0, 0xf9),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf",
        ),
        (
            counting(0x60, 0xaf),
            counting(0x00, 0x4f),
            counting(0xb0, 0xff),
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c",
        ),
        (
            vec![],
            vec![0x0b; 22],
            vec![],
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d",
        ),
    ];
    for backend in common::backends() {
        for (salt, secret, info, okm) in &cases {
            let derived = backend.hkdf_sha256(salt, secret, info).unwrap();
            assert_eq!(*derived, array(okm), "{}", backend.name());
        }
    }
}

/// NIST SP 800-38D test case 16 (AES-256, with AAD).
#[test]
fn a_sealed_text_is_that_of_nist() {
    let key = array("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
    let iv = array("cafebabefacedbaddecaf888");
    let aad = bytes("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let plaintext = bytes(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
    );
    let sealed = bytes(
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b",
    );
    for backend in common::backends() {
        assert_eq!(
            backend.seal(&key, &iv, &aad, &plaintext),
            Ok(sealed.clone())
        );
        assert_eq!(*backend.open(&key, &iv, &aad, &sealed).unwrap(), plaintext);
    }
}

/// RFC 6979 appendix A.2.5, message "sample": a signature that both must accept, in either half of the group.
#[test]
fn the_signature_of_rfc_6979_verifies_in_both_halves() {
    let key = P256Point::from_coordinates(
        &array("60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6"),
        &array("7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299"),
    );
    let high = array::<64>(
        "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
    );
    let low = p256::ecdsa::Signature::from_slice(&high)
        .unwrap()
        .normalize_s();
    assert_ne!(low.to_bytes().as_slice(), high);
    for backend in common::backends() {
        for signature in [high, low.to_bytes().into()] {
            assert_eq!(backend.verify(&key, &[b"sam", b"ple"], &signature), Ok(()));
            assert!(backend.verify(&key, &[b"sample."], &signature).is_err());
        }
    }
}

/// Agreement, KDF context, wrap key, wrap, bound bytes and content: each step as published, as far as it is ours.
#[test]
fn the_working_groups_encrypted_messages_open_step_by_step() {
    for vector in examples("encrypted", 5) {
        let name = vector["example"].as_str().unwrap();
        let message = CoseEncrypt::from_tagged_slice(&field(&vector, "message")).unwrap();
        let aad = enc_structure_data(
            EncryptionContext::CoseEncrypt,
            message.protected.clone(),
            b"",
        );
        assert_eq!(aad, field(&vector, "aad"), "{name}");

        for backend in common::backends() {
            let recipient = &message.recipients[0];
            let wrap_key = vector
                .get("context")
                .map(|_| agreed_key(&vector, recipient, backend));
            let Some(content_key) = vector.get("content_key") else {
                continue;
            };
            let content_key = array(content_key.as_str().unwrap());
            if let Some(wrap_key) = wrap_key {
                wraps(&wrap_key, &content_key, recipient, backend);
            }
            let iv = message.unprotected.iv.as_slice().try_into().unwrap();
            let ciphertext = message.ciphertext.as_deref().unwrap();
            let opened = backend.open(&content_key, iv, &aad, ciphertext).unwrap();
            assert_eq!(*opened, b"This is the content.", "{name}");
            let sealed = backend.seal(&content_key, iv, &aad, &opened).unwrap();
            assert_eq!(sealed, ciphertext, "{name}");
        }
    }
}

#[test]
fn the_working_groups_wrapped_key_is_ours() {
    for vector in examples("wrapped", 1) {
        let message = CoseMac::from_tagged_slice(&field(&vector, "message")).unwrap();
        let kek = array(vector["key_encryption_key"].as_str().unwrap());
        let key = array(vector["content_key"].as_str().unwrap());
        for backend in common::backends() {
            wraps(&kek, &key, &message.recipients[0], backend);
        }
    }
}

#[test]
fn the_working_groups_signatures_verify_and_its_changed_ones_do_not() {
    let key = signer();
    for vector in examples("signed", 6) {
        let name = vector["example"].as_str().unwrap();
        let message = field(&vector, "message");
        let external = vector
            .get("external")
            .map_or(vec![], |text| bytes(text.as_str().unwrap()));
        // Tag 18 is COSE_Sign1, and 98 COSE_Sign.
        let (signed, signature) = if message.starts_with(&[0xd2]) {
            let message = CoseSign1::from_tagged_slice(&message).unwrap();
            (message.tbs_data(&external), message.signature)
        } else {
            let message = CoseSign::from_tagged_slice(&message).unwrap();
            let signature = &message.signatures[0];
            let signed = message.tbs_data(&external, signature);
            (signed, signature.signature.clone())
        };
        if let Some(published) = vector.get("to_be_signed") {
            assert_eq!(hex::encode(&signed), published.as_str().unwrap(), "{name}");
        }
        let signature = signature.try_into().unwrap();
        let expected = if vector["valid"] == true {
            Ok(())
        } else {
            Err(BackendError::Refused)
        };
        for backend in common::backends() {
            let verified = backend.verify(&key, &[&signed], &signature);
            assert_eq!(verified, expected, "{name} {}", backend.name());
        }
    }
}

/// RFC 9338 §3.3: the bytes are the same for every message that keeps its content in one byte string.
#[test]
fn the_working_groups_countersigned_bytes_are_rebuilt_and_their_signature_verifies() {
    for vector in examples("countersigned", 2) {
        let name = vector["example"].as_str().unwrap();
        let message = field(&vector, "message");
        let (protected, rest, content) = if vector["es256"] == true {
            let message = CoseSign::from_tagged_slice(&message).unwrap();
            (message.protected, message.unprotected.rest, message.payload)
        } else {
            let message = CoseEncrypt::from_tagged_slice(&message).unwrap();
            (
                message.protected,
                message.unprotected.rest,
                message.ciphertext,
            )
        };
        let countersignature = value_of(&rest, iana::HeaderParameter::CounterSignatureV2.to_i64());
        let countersignature = CoseSignature::from_cbor_value(countersignature).unwrap();
        let signed = sig_structure_data(
            SignatureContext::CounterSignature,
            protected,
            Some(countersignature.protected),
            b"",
            &content.unwrap(),
        );
        assert_eq!(signed, field(&vector, "to_be_signed"), "{name}");
        if vector["es256"] == true {
            let signature = countersignature.signature.try_into().unwrap();
            for backend in common::backends() {
                let verified = backend.verify(&signer(), &[&signed], &signature);
                assert_eq!(verified, Ok(()), "{name} {}", backend.name());
            }
        }
    }
}

/// Our own KDF context is checked against `vectors/envelope.json`; this ties that file to the working group's.
#[test]
fn the_profiles_kdf_context_is_the_working_groups() {
    let profile: Value = serde_json::from_str(include_str!("vectors/envelope.json")).unwrap();
    let theirs = &examples("encrypted", 5)[0]["context"];
    let ours = profile["valid"].as_array().unwrap();
    let mut ours = ours
        .iter()
        .filter(|vector| vector["mode"] == "es")
        .peekable();
    assert!(ours.peek().is_some());
    assert!(ours.all(|vector| vector["kdf_info"] == *theirs));
}

/// The key that an agreement yields, with every value on the way compared.
fn agreed_key(vector: &Value, recipient: &CoseRecipient, backend: &dyn Backend) -> [u8; 32] {
    let name = vector["example"].as_str().unwrap();
    let algorithm = iana::Algorithm::from_i64(vector["kdf_algorithm"].as_i64().unwrap()).unwrap();
    let context = CoseKdfContextBuilder::new()
        .algorithm(algorithm)
        .supp_pub_info(SuppPubInfo {
            key_data_length: vector["kdf_bits"].as_u64().unwrap(),
            protected: recipient.protected.clone(),
            other: None,
        })
        .build()
        .to_vec()
        .unwrap();
    assert_eq!(context, field(vector, "context"), "{name}");

    let scalar = array(vector["recipient_private_scalar"].as_str().unwrap());
    let own = backend.p256_from_scalar(&scalar).unwrap();
    let sender = sender(recipient);
    let secret = backend.agree(&own, &sender).unwrap();
    assert_eq!(secret.as_slice(), field(vector, "secret"), "{name}");
    if let Some(scalar) = vector.get("sender_private_scalar") {
        let scalar = array(scalar.as_str().unwrap());
        let theirs = backend.p256_from_scalar(&scalar).unwrap();
        assert_eq!(*theirs.public(), sender, "{name}");
        assert_eq!(backend.agree(&theirs, own.public()), Ok(secret.clone()));
    }

    // A shorter key is the beginning of a longer one (RFC 5869 §2.3).
    let published = field(vector, "derived");
    let derived = backend.hkdf_sha256(b"", &*secret, &context).unwrap();
    assert_eq!(derived[..published.len()], published, "{name}");
    *derived
}

/// The recipient carries this key under that one, in either direction.
fn wraps(kek: &[u8; 32], key: &[u8; 32], recipient: &CoseRecipient, backend: &dyn Backend) {
    let wrapped = recipient.ciphertext.as_deref().unwrap();
    let wrapped = wrapped.try_into().unwrap();
    assert_eq!(*backend.unwrap(kek, &wrapped).unwrap(), *key);
    assert_eq!(backend.wrap(kek, key), Ok(wrapped));
}

/// The sender's point: ephemeral or static, with `y` in full or only its sign (RFC 9053 §7.1.1).
fn sender(recipient: &CoseRecipient) -> P256Point {
    let rest = &recipient.unprotected.rest;
    let label = [-1, -2]
        .into_iter()
        .find(|label| rest.iter().any(|(found, _)| *found == Label::Int(*label)));
    let key = CoseKey::from_cbor_value(value_of(rest, label.unwrap())).unwrap();
    let x = value_of(&key.params, -2).into_bytes().unwrap();
    let sec1 = match value_of(&key.params, -3) {
        Cbor::Bool(odd) => [&[if odd { 3 } else { 2 }], x.as_slice()].concat(),
        y => [&[4], x.as_slice(), &y.into_bytes().unwrap()].concat(),
    };
    let point = p256::PublicKey::from_sec1_bytes(&sec1).unwrap();
    P256Point::from_sec1(point.to_sec1_point(false).as_bytes()).unwrap()
}

fn value_of(map: &[(Label, Cbor)], label: i64) -> Cbor {
    let found = map.iter().find(|(found, _)| *found == Label::Int(label));
    found.unwrap().1.clone()
}

/// The examples of one kind, and how many there are: fewer would prove less without anyone noticing.
fn examples(kind: &str, count: usize) -> Vec<Value> {
    let file: Value = serde_json::from_str(include_str!("vectors/cose_wg.json")).unwrap();
    let examples = file[kind].as_array().unwrap().clone();
    assert_eq!(examples.len(), count, "{kind}");
    examples
}

fn signer() -> P256Point {
    let file: Value = serde_json::from_str(include_str!("vectors/cose_wg.json")).unwrap();
    let coordinate = |name: &str| array(file["signer"][name].as_str().unwrap());
    P256Point::from_coordinates(&coordinate("x"), &coordinate("y"))
}

fn field(vector: &Value, name: &str) -> Vec<u8> {
    bytes(vector[name].as_str().unwrap())
}

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

fn array<const N: usize>(text: &str) -> [u8; N] {
    bytes(text).try_into().unwrap()
}
