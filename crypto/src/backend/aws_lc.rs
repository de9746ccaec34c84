//! The server's backend: aws-lc through `aws-lc-rs`.
//!
//! Where the library offers several calls, this takes the one that is an approved service of the validated module
//! (feature `fips`), although it may cost a copy: signatures over whole messages and not over digests, opening in
//! place, HKDF with a salt. One remains that is none: [`Backend::seal`] takes its IV from the caller, while the module
//! approves only IVs that it draws inside the call. Ours are drawn from the same source ([`Backend::fill_random`]).

use std::borrow::Cow;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, ECDH_P256, UnparsedPublicKey};
use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::encoding::{AsBigEndian, EcPrivateKeyBin};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrap};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair,
};
use zeroize::Zeroizing;

use super::{Backend, BackendError, P256Point, P256Secret};

#[derive(Debug)]
pub(super) struct AwsLc;

impl Backend for AwsLc {
    fn name(&self) -> &'static str {
        "aws-lc"
    }

    fn sha256(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        parts.iter().for_each(|part| context.update(part));
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        hash
    }

    fn hkdf_sha256(
        &self,
        salt: &[u8],
        secret: &[u8],
        info: &[u8],
    ) -> Result<Zeroizing<[u8; 32]>, BackendError> {
        // RFC 5869 §2.2: no salt is a salt of zeros. The module approves only one that is there.
        let salt = if salt.is_empty() { &[0; 32] } else { salt };
        let mut okm = Zeroizing::new([0; 32]);
        Salt::new(HKDF_SHA256, salt)
            .extract(secret)
            .expand(&[info], HKDF_SHA256)
            .and_then(|output| output.fill(okm.as_mut_slice()))
            .map_err(|_| BackendError::Refused)?;
        Ok(okm)
    }

    fn verify(
        &self,
        key: &P256Point,
        message: &[&[u8]],
        signature: &[u8; 64],
    ) -> Result<(), BackendError> {
        signature::UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.as_sec1())
            .verify(&joined(message), signature)
            .map_err(|_| BackendError::Refused)
    }

    fn sign(&self, key: &P256Secret, message: &[&[u8]]) -> Result<[u8; 64], BackendError> {
        let pair = EcdsaKeyPair::from_private_key_and_public_key(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            key.scalar(),
            key.public().as_sec1(),
        )
        .map_err(|_| BackendError::Refused)?;
        let signature = pair
            .sign(&SystemRandom::new(), &joined(message))
            .map_err(|_| BackendError::Random)?;
        signature
            .as_ref()
            .try_into()
            .map_err(|_| BackendError::Refused)
    }

    fn generate_p256(&self) -> Result<P256Secret, BackendError> {
        let key = agreement::PrivateKey::generate(&ECDH_P256).map_err(|_| BackendError::Random)?;
        let scalar: EcPrivateKeyBin<'_> = key.as_be_bytes().map_err(|_| BackendError::Refused)?;
        with_public_half(
            &key,
            scalar
                .as_ref()
                .try_into()
                .map_err(|_| BackendError::Refused)?,
        )
    }

    fn p256_from_scalar(&self, scalar: &[u8; 32]) -> Result<P256Secret, BackendError> {
        let key = agreement::PrivateKey::from_private_key(&ECDH_P256, scalar)
            .map_err(|_| BackendError::Refused)?;
        with_public_half(&key, scalar)
    }

    fn agree(
        &self,
        own: &P256Secret,
        peer: &P256Point,
    ) -> Result<Zeroizing<[u8; 32]>, BackendError> {
        let own = agreement::PrivateKey::from_private_key(&ECDH_P256, own.scalar())
            .map_err(|_| BackendError::Refused)?;
        let peer = UnparsedPublicKey::new(&ECDH_P256, peer.as_sec1());
        agreement::agree(&own, peer, BackendError::Refused, |shared| {
            let mut x = Zeroizing::new([0; 32]);
            if shared.len() != x.len() {
                return Err(BackendError::Refused);
            }
            x.copy_from_slice(shared);
            Ok(x)
        })
    }

    fn seal(
        &self,
        key: &[u8; 32],
        iv: &[u8; 12],
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, BackendError> {
        let mut sealed = Zeroizing::new(Vec::with_capacity(plaintext.len() + 16));
        sealed.extend_from_slice(plaintext);
        gcm(key)?
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(*iv),
                Aad::from(aad),
                &mut *sealed,
            )
            .map_err(|_| BackendError::Refused)?;
        Ok(std::mem::take(&mut *sealed))
    }

    fn open(
        &self,
        key: &[u8; 32],
        iv: &[u8; 12],
        aad: &[u8],
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, BackendError> {
        let mut opened = Zeroizing::new(ciphertext.to_vec());
        let length = gcm(key)?
            .open_in_place(
                Nonce::assume_unique_for_key(*iv),
                Aad::from(aad),
                &mut opened,
            )
            .map_err(|_| BackendError::Refused)?
            .len();
        opened.truncate(length);
        Ok(opened)
    }

    fn wrap(&self, kek: &[u8; 32], key: &[u8; 32]) -> Result<[u8; 40], BackendError> {
        let mut wrapped = [0; 40];
        AesKek::new(&AES_256, kek)
            .and_then(|kek| kek.wrap(key, &mut wrapped).map(|_| ()))
            .map_err(|_| BackendError::Refused)?;
        Ok(wrapped)
    }

    fn unwrap(
        &self,
        kek: &[u8; 32],
        wrapped: &[u8; 40],
    ) -> Result<Zeroizing<[u8; 32]>, BackendError> {
        let mut key = Zeroizing::new([0; 32]);
        AesKek::new(&AES_256, kek)
            .and_then(|kek| kek.unwrap(wrapped, key.as_mut_slice()).map(|_| ()))
            .map_err(|_| BackendError::Refused)?;
        Ok(key)
    }

    fn fill_random(&self, out: &mut [u8]) -> Result<(), BackendError> {
        aws_lc_rs::rand::fill(out).map_err(|_| BackendError::Random)
    }
}

fn gcm(key: &[u8; 32]) -> Result<LessSafeKey, BackendError> {
    UnboundKey::new(&AES_256_GCM, key)
        .map(LessSafeKey::new)
        .map_err(|_| BackendError::Refused)
}

fn with_public_half(
    key: &agreement::PrivateKey,
    scalar: &[u8; 32],
) -> Result<P256Secret, BackendError> {
    let public = key
        .compute_public_key()
        .map_err(|_| BackendError::Refused)?;
    let public = P256Point::from_sec1(public.as_ref()).ok_or(BackendError::Refused)?;
    Ok(P256Secret::from_parts(scalar, public))
}

fn joined<'a>(parts: &[&'a [u8]]) -> Cow<'a, [u8]> {
    match parts {
        [whole] => Cow::Borrowed(whole),
        parts => Cow::Owned(parts.concat()),
    }
}
