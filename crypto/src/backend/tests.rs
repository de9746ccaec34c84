//! Published vectors for the primitives, and the two backends against each other.

#[cfg(feature = "aws-lc")]
use proptest::prelude::*;

use super::{Backend, P256Point};

fn backends() -> Vec<&'static dyn Backend> {
    vec![
        super::rust_crypto(),
        #[cfg(feature = "aws-lc")]
        super::aws_lc(),
    ]
}

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    hex::decode(hex).unwrap().try_into().unwrap()
}

/// RFC 3394 §4.6: 256 bits of key data under a 256-bit KEK.
#[test]
fn rfc_3394_key_wrap() {
    let kek = bytes("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
    let key = bytes("00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f");
    let wrapped = bytes::<40>(
        "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21",
    );
    for backend in backends() {
        assert_eq!(backend.wrap(&kek, &key), Ok(wrapped), "{}", backend.name());
        assert_eq!(
            *backend.unwrap(&kek, &wrapped).unwrap(),
            key,
            "{}",
            backend.name()
        );
        for bit in 0..40 * 8 {
            let mut damaged = wrapped;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(
                backend.unwrap(&kek, &damaged).is_err(),
                "{} bit {bit}",
                backend.name()
            );
        }
    }
}

/// RFC 5869 appendix A.1 and A.3, the first 32 bytes of the output (a prefix, as expansion is by blocks).
#[test]
fn rfc_5869_hkdf() {
    let secret = [0x0b; 22];
    let salted = bytes("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf");
    let unsalted = bytes("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d");
    for backend in backends() {
        let salt = hex::decode("000102030405060708090a0b0c").unwrap();
        let info = hex::decode("f0f1f2f3f4f5f6f7f8f9").unwrap();
        assert_eq!(*backend.hkdf_sha256(&salt, &secret, &info).unwrap(), salted);
        assert_eq!(*backend.hkdf_sha256(b"", &secret, b"").unwrap(), unsalted);
    }
}

/// NIST SP 800-38D test case 16 (AES-256, with AAD).
#[test]
fn nist_aes_256_gcm() {
    let key = bytes("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
    let iv = bytes("cafebabefacedbaddecaf888");
    let aad = hex::decode("feedfacedeadbeeffeedfacedeadbeefabaddad2").unwrap();
    let plaintext = hex::decode(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
    )
    .unwrap();
    let sealed = hex::decode(
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b",
    )
    .unwrap();
    for backend in backends() {
        assert_eq!(backend.seal(&key, &iv, &aad, &plaintext).unwrap(), sealed);
        assert_eq!(*backend.open(&key, &iv, &aad, &sealed).unwrap(), plaintext);
        assert!(backend.open(&key, &iv, b"", &sealed).is_err());
        assert!(
            backend.open(&key, &iv, &aad, &sealed[..15]).is_err(),
            "shorter than a tag"
        );
    }
}

/// RFC 6979 appendix A.2.5, message "sample": a signature that both must accept, in either half of the group.
#[test]
fn rfc_6979_signature_verifies_in_both_halves() {
    let x = bytes("60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6");
    let y = bytes("7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299");
    let key = P256Point::from_coordinates(&x, &y);
    let high = bytes::<64>(
        "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
    );
    let low = p256::ecdsa::Signature::from_slice(&high)
        .unwrap()
        .normalize_s();
    assert_ne!(low.to_bytes().as_slice(), high);
    for backend in backends() {
        for signature in [high, low.to_bytes().into()] {
            assert_eq!(backend.verify(&key, &[b"sam", b"ple"], &signature), Ok(()));
            assert!(backend.verify(&key, &[b"sample."], &signature).is_err());
        }
        assert!(backend.verify(&key, &[b"sample"], &[0; 64]).is_err());
        assert!(backend.verify(&key, &[b"sample"], &[0xff; 64]).is_err());
    }
}

#[test]
fn no_backend_takes_a_point_off_the_curve_or_a_scalar_out_of_range() {
    for backend in backends() {
        let own = backend.generate_p256().unwrap();
        let mut off = *own.public().as_sec1();
        off[64] ^= 1;
        let off = P256Point::from_sec1(&off).unwrap();
        assert!(backend.agree(&own, &off).is_err(), "{}", backend.name());
        assert!(backend.verify(&off, &[b""], &[1; 64]).is_err());
        assert!(backend.p256_from_scalar(&[0; 32]).is_err());
        assert!(backend.p256_from_scalar(&[0xff; 32]).is_err());
    }
    assert!(P256Point::from_sec1(&[2; 33]).is_none(), "compressed");
}

#[test]
fn private_keys_do_not_print() {
    let key = super::rust_crypto().generate_p256().unwrap();
    assert_eq!(format!("{key:?}"), "P256Secret { .. }");
}

#[cfg(feature = "aws-lc")]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What one makes the other takes, and where there is nothing random they make the same bytes.
    #[test]
    fn the_backends_agree(
        a in any::<[u8; 32]>(), b in any::<[u8; 32]>(), iv in any::<[u8; 12]>(),
        aad in proptest::collection::vec(any::<u8>(), 0..80),
        text in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let (ours, theirs) = (super::rust_crypto(), super::aws_lc());
        prop_assert_eq!(ours.sha256(&[&aad, &text]), theirs.sha256(&[&aad, &text]));
        prop_assert_eq!(ours.hkdf_sha256(&aad, &a, &text), theirs.hkdf_sha256(&aad, &a, &text));
        prop_assert_eq!(ours.wrap(&a, &b), theirs.wrap(&a, &b));
        prop_assert_eq!(ours.unwrap(&a, &ours.wrap(&a, &b).unwrap()), theirs.unwrap(&a, &theirs.wrap(&a, &b).unwrap()));
        let sealed = ours.seal(&a, &iv, &aad, &text).unwrap();
        prop_assert_eq!(&sealed, &theirs.seal(&a, &iv, &aad, &text).unwrap());
        prop_assert_eq!(&*ours.open(&a, &iv, &aad, &sealed).unwrap(), &text);
        prop_assert_eq!(&*theirs.open(&a, &iv, &aad, &sealed).unwrap(), &text);

        let (Ok(a1), Ok(a2)) = (ours.p256_from_scalar(&a), theirs.p256_from_scalar(&a)) else {
            prop_assert!(ours.p256_from_scalar(&a).is_err() && theirs.p256_from_scalar(&a).is_err());
            return Ok(());
        };
        prop_assert_eq!(a1.public(), a2.public());
        let peer = theirs.generate_p256().unwrap();
        prop_assert_eq!(ours.agree(&a1, peer.public()), theirs.agree(&a2, peer.public()));
        prop_assert_eq!(ours.agree(&a1, peer.public()), theirs.agree(&peer, a1.public()));
        for (signer, verifier) in [(ours, theirs), (theirs, ours)] {
            let signature = signer.sign(&a1, &[&aad, &text]).unwrap();
            prop_assert_eq!(verifier.verify(a1.public(), &[&aad, &text], &signature), Ok(()));
        }
    }
}
