//! What every backend refuses, and the two held against each other over the whole trait.
//!
//! Published vectors stand in `tests/rfc_vectors.rs` and `tests/wycheproof.rs`. They say what is right; this says
//! that no message is right for one backend and wrong for the other.

#[cfg(feature = "aws-lc")]
use proptest::prelude::*;

use super::{Backend, BackendError, P256Point};

/// The order of the group and the prime of the field (SEC 2 §2.4.2): the first numbers that are no scalar and no
/// coordinate.
const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
const PRIME: &str = "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff";
/// √b: (0, √b) is a point.
const ROOT: &str = "66485c780e2f83d72433bd5d84a06bb6541c2af31dae871728bf856a174f93f4";

fn backends() -> Vec<&'static dyn Backend> {
    vec![
        super::rust_crypto(),
        #[cfg(feature = "aws-lc")]
        super::aws_lc(),
    ]
}

fn number(hex: &str) -> [u8; 32] {
    hex::decode(hex).unwrap().try_into().unwrap()
}

/// A number near another; the difference has to fit in the last byte.
fn near(hex: &str, difference: i8) -> [u8; 32] {
    let mut number = number(hex);
    number[31] = number[31].checked_add_signed(difference).unwrap();
    number
}

#[test]
fn only_numbers_below_the_order_are_scalars_and_zero_is_none() {
    for backend in backends() {
        for scalar in [near(ORDER, -1), near(ORDER, -2), near(&"00".repeat(32), 1)] {
            let key = backend.p256_from_scalar(&scalar).unwrap();
            assert_eq!(*key.scalar(), scalar, "{}", backend.name());
        }
        for scalar in [[0; 32], number(ORDER), near(ORDER, 1), [0xff; 32]] {
            let refused = backend.p256_from_scalar(&scalar).unwrap_err();
            assert_eq!(refused, BackendError::Refused, "{}", backend.name());
        }
    }
}

#[test]
fn no_backend_takes_a_point_off_the_curve() {
    for backend in backends() {
        let own = backend.generate_p256().unwrap();
        let signature = backend.sign(&own, &[b"text"]).unwrap();
        let at_zero = P256Point::from_coordinates(&[0; 32], &number(ROOT));
        assert!(backend.agree(&own, &at_zero).is_ok());
        for point in points_off_the_curve(own.public()) {
            assert_eq!(backend.agree(&own, &point), Err(BackendError::Refused));
            let verified = backend.verify(&point, &[b"text"], &signature);
            assert_eq!(verified, Err(BackendError::Refused));
        }
    }
    assert!(P256Point::from_sec1(&[2; 33]).is_none(), "compressed");
    assert!(P256Point::from_sec1(&[0]).is_none(), "the identity");
    assert!(P256Point::from_sec1(&[6; 65]).is_none(), "hybrid");
}

/// The nearest that does not lie on the curve, the origin, and coordinates that are no field elements. The last but
/// one would be a point if they were reduced.
fn points_off_the_curve(point: &P256Point) -> Vec<P256Point> {
    let (x, y): ([u8; 32], [u8; 32]) =
        (point.x().try_into().unwrap(), point.y().try_into().unwrap());
    let mut off = y;
    off[31] ^= 1;
    vec![
        P256Point::from_coordinates(&x, &off),
        P256Point::from_coordinates(&y, &x),
        P256Point::from_coordinates(&[0; 32], &[0; 32]),
        P256Point::from_coordinates(&number(PRIME), &number(ROOT)),
        P256Point::from_coordinates(&[0xff; 32], &y),
    ]
}

#[test]
fn a_signature_of_numbers_out_of_range_is_refused() {
    for backend in backends() {
        let key = backend.generate_p256().unwrap();
        let signature = backend.sign(&key, &[b"text"]).unwrap();
        for number in [[0; 32], number(ORDER), near(ORDER, 1), [0xff; 32]] {
            for half in [0..32, 32..64] {
                let mut wrong = signature;
                wrong[half].copy_from_slice(&number);
                let verified = backend.verify(key.public(), &[b"text"], &wrong);
                assert_eq!(verified, Err(BackendError::Refused), "{}", backend.name());
            }
        }
    }
}

#[test]
fn what_is_drawn_is_drawn_anew() {
    for backend in backends() {
        let (mut one, mut other) = ([0; 32], [0; 32]);
        backend.fill_random(&mut one).unwrap();
        backend.fill_random(&mut other).unwrap();
        assert!(one != other && one != [0; 32], "{}", backend.name());
        let key = || *backend.generate_p256().unwrap().public();
        assert_ne!(key(), key(), "{}", backend.name());
    }
}

/// A build that asks for the validated module and runs another would be a false statement.
#[cfg(feature = "aws-lc")]
#[test]
fn the_validated_module_runs_where_it_was_asked_for() {
    let validated = aws_lc_rs::try_fips_mode().is_ok();
    assert_eq!(validated, cfg!(feature = "fips"));
}

/// The libraries wipe what they expand from a key only with their `zeroize` feature: without it this does not compile.
const _: () = {
    const fn wiped_on_drop<T: zeroize::ZeroizeOnDrop>() {}
    wiped_on_drop::<aes_gcm::Aes256Gcm>();
    wiped_on_drop::<aes_kw::KwAes256>();
    wiped_on_drop::<p256::SecretKey>();
    wiped_on_drop::<p256::ecdsa::SigningKey>();
    wiped_on_drop::<p256::ecdh::SharedSecret>();
};

#[cfg(feature = "aws-lc")]
fn pairs() -> [(&'static dyn Backend, &'static dyn Backend); 2] {
    [
        (super::rust_crypto(), super::aws_lc()),
        (super::aws_lc(), super::rust_crypto()),
    ]
}

/// Scalars, those at either end of the range and beyond it more often than chance would have them.
#[cfg(feature = "aws-lc")]
fn scalars() -> impl Strategy<Value = [u8; 32]> {
    prop_oneof![
        8 => any::<[u8; 32]>(),
        1 => (-3_i8..=3).prop_map(|difference| near(ORDER, difference)),
        1 => (0_i8..=3).prop_map(|difference| near(&"00".repeat(32), difference)),
    ]
}

#[cfg(feature = "aws-lc")]
fn texts(limit: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..limit)
}

/// `bytes` with one bit of them changed.
#[cfg(feature = "aws-lc")]
fn flipped<T: AsMut<[u8]>>(mut bytes: T, bit: prop::sample::Index) -> T {
    let slice = bytes.as_mut();
    let bit = bit.index(slice.len() * 8);
    slice[bit / 8] ^= 1 << (bit % 8);
    bytes
}

#[cfg(feature = "aws-lc")]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hashes_and_derived_keys_agree_however_long_their_input(
        salt in texts(200), secret in texts(200), info in texts(1025), cut in any::<prop::sample::Index>(),
    ) {
        let (ours, theirs) = pairs()[0];
        let (head, tail) = info.split_at(cut.index(info.len() + 1));
        prop_assert_eq!(ours.sha256(&[head, tail]), theirs.sha256(&[&info]));
        let derived = ours.hkdf_sha256(&salt, &secret, &info).unwrap();
        prop_assert_eq!(&*derived, &*theirs.hkdf_sha256(&salt, &secret, &info).unwrap());
    }

    #[test]
    fn one_opens_what_the_other_sealed_and_both_refuse_any_bit_of_it_changed(
        key in any::<[u8; 32]>(), iv in any::<[u8; 12]>(), aad in texts(80), text in texts(400),
        bit in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>(),
    ) {
        for (one, other) in pairs() {
            let sealed = one.seal(&key, &iv, &aad, &text).unwrap();
            prop_assert_eq!(&sealed, &other.seal(&key, &iv, &aad, &text).unwrap());
            prop_assert_eq!(&*other.open(&key, &iv, &aad, &sealed).unwrap(), &text);

            let longer = [aad.as_slice(), &[0]].concat();
            let wrong = [
                other.open(&flipped(key, bit), &iv, &aad, &sealed),
                other.open(&key, &flipped(iv, bit), &aad, &sealed),
                other.open(&key, &iv, &longer, &sealed),
                other.open(&key, &iv, &aad, &flipped(sealed.clone(), bit)),
                other.open(&key, &iv, &aad, &sealed[..cut.index(sealed.len())]),
            ];
            prop_assert!(wrong.iter().all(|opened| *opened == Err(BackendError::Refused)));
        }
    }

    #[test]
    fn one_unwraps_what_the_other_wrapped_and_both_refuse_any_bit_of_it_changed(
        kek in any::<[u8; 32]>(), key in any::<[u8; 32]>(), bit in any::<prop::sample::Index>(),
    ) {
        for (one, other) in pairs() {
            let wrapped = one.wrap(&kek, &key).unwrap();
            prop_assert_eq!(wrapped, other.wrap(&kek, &key).unwrap());
            prop_assert_eq!(*other.unwrap(&kek, &wrapped).unwrap(), key);
            let wrong = [
                other.unwrap(&flipped(kek, bit), &wrapped),
                other.unwrap(&kek, &flipped(wrapped, bit)),
            ];
            prop_assert!(wrong.iter().all(|key| *key == Err(BackendError::Refused)));
        }
    }

    #[test]
    fn they_take_the_same_scalars_and_agree_on_the_same_secret_or_on_none(
        scalar in scalars(), bit in any::<prop::sample::Index>(),
    ) {
        let (ours, theirs) = pairs()[0];
        let (mine, same) = match (ours.p256_from_scalar(&scalar), theirs.p256_from_scalar(&scalar)) {
            (Ok(mine), Ok(same)) => (mine, same),
            (mine, same) => {
                prop_assert_eq!(mine.unwrap_err(), same.unwrap_err());
                return Ok(());
            }
        };
        prop_assert_eq!(mine.public(), same.public());
        for (one, other) in pairs() {
            let peer = one.generate_p256().unwrap();
            let again = other.p256_from_scalar(peer.scalar()).unwrap();
            prop_assert_eq!(peer.public(), again.public());
            let secret = one.agree(&mine, peer.public());
            prop_assert!(secret.is_ok());
            prop_assert_eq!(&secret, &other.agree(&same, peer.public()));
            prop_assert_eq!(&secret, &other.agree(&peer, mine.public()));
        }
        let coordinates = flipped(<[u8; 64]>::try_from(&mine.public().as_sec1()[1..]).unwrap(), bit);
        let wrong = P256Point::from_sec1(&[&[4], &coordinates[..]].concat()).unwrap();
        prop_assert_eq!(ours.agree(&mine, &wrong), theirs.agree(&mine, &wrong));
    }

    #[test]
    fn one_verifies_what_the_other_signed_in_either_half_and_both_refuse_any_bit_of_it_changed(
        text in texts(400), cut in any::<prop::sample::Index>(), bit in any::<prop::sample::Index>(),
    ) {
        let (head, tail) = text.split_at(cut.index(text.len() + 1));
        for (one, other) in pairs() {
            let key = one.generate_p256().unwrap();
            let signature = one.sign(&key, &[head, tail]).unwrap();
            let other_half = {
                let signature = p256::ecdsa::Signature::from_slice(&signature).unwrap();
                let (r, s) = signature.split_scalars();
                p256::ecdsa::Signature::from_scalars(r, -*s).unwrap().to_bytes().into()
            };
            prop_assert_ne!(signature, other_half);
            for taken in [&signature, &other_half] {
                prop_assert_eq!(other.verify(key.public(), &[&text], taken), Ok(()));
                prop_assert_eq!(one.verify(key.public(), &[&text], taken), Ok(()));
            }
            let longer = [text.as_slice(), &[0]].concat();
            for backend in [one, other] {
                let wrong = [
                    backend.verify(key.public(), &[&longer], &signature),
                    backend.verify(key.public(), &[&text], &flipped(signature, bit)),
                    backend.verify(other.generate_p256().unwrap().public(), &[&text], &signature),
                ];
                prop_assert_eq!(wrong, [Err(BackendError::Refused); 3]);
            }
        }
    }
}
