//! The portable backend: p256, aes-gcm, aes-kw, hkdf and sha2 of the RustCrypto project.

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Tag};
use hkdf::Hkdf;
use p256::ecdsa::signature::{DigestSigner, DigestVerifier};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use p256::elliptic_curve::sec1::ToSec1Point;
use p256::{PublicKey, SecretKey};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

use super::{Backend, BackendError, P256Point, P256Secret};

#[derive(Debug)]
pub(super) struct RustCrypto;

impl Backend for RustCrypto {
    fn name(&self) -> &'static str {
        "rust-crypto"
    }

    fn sha256(&self, parts: &[&[u8]]) -> [u8; 32] {
        hash(parts).finalize().into()
    }

    fn hkdf_sha256(
        &self,
        salt: &[u8],
        secret: &[u8],
        info: &[u8],
    ) -> Result<Zeroizing<[u8; 32]>, BackendError> {
        let (mut extracted, hkdf) = Hkdf::<Sha256>::extract(Some(salt), secret);
        extracted.zeroize();
        let mut okm = Zeroizing::new([0; 32]);
        hkdf.expand(info, okm.as_mut_slice())
            .map_err(|_| BackendError::Refused)?;
        Ok(okm)
    }

    fn verify(
        &self,
        key: &P256Point,
        message: &[&[u8]],
        signature: &[u8; 64],
    ) -> Result<(), BackendError> {
        let key =
            VerifyingKey::from_sec1_bytes(key.as_sec1()).map_err(|_| BackendError::Refused)?;
        let signature = Signature::from_slice(signature).map_err(|_| BackendError::Refused)?;
        key.verify_digest(|digest: &mut Sha256| feed(digest, message), &signature)
            .map_err(|_| BackendError::Refused)
    }

    fn sign(&self, key: &P256Secret, message: &[&[u8]]) -> Result<[u8; 64], BackendError> {
        let key = SigningKey::from_slice(key.scalar()).map_err(|_| BackendError::Refused)?;
        let signature: Signature = key
            .try_sign_digest(|digest: &mut Sha256| feed(digest, message))
            .map_err(|_| BackendError::Refused)?;
        Ok(signature.to_bytes().into())
    }

    fn generate_p256(&self) -> Result<P256Secret, BackendError> {
        // A draw is not a scalar once in 2^32; sixteen misses mean that the source is not random.
        let mut scalar = Zeroizing::new([0; 32]);
        for _ in 0..16 {
            self.fill_random(scalar.as_mut_slice())?;
            if let Ok(key) = self.p256_from_scalar(&scalar) {
                return Ok(key);
            }
        }
        Err(BackendError::Random)
    }

    fn p256_from_scalar(&self, scalar: &[u8; 32]) -> Result<P256Secret, BackendError> {
        let key = SecretKey::from_slice(scalar).map_err(|_| BackendError::Refused)?;
        let public = P256Point::from_sec1(key.public_key().to_sec1_point(false).as_bytes())
            .ok_or(BackendError::Refused)?;
        Ok(P256Secret::from_parts(scalar, public))
    }

    fn agree(
        &self,
        own: &P256Secret,
        peer: &P256Point,
    ) -> Result<Zeroizing<[u8; 32]>, BackendError> {
        let own = SecretKey::from_slice(own.scalar()).map_err(|_| BackendError::Refused)?;
        let peer = PublicKey::from_sec1_bytes(peer.as_sec1()).map_err(|_| BackendError::Refused)?;
        let shared = own.diffie_hellman(&peer);
        let mut x = Zeroizing::new([0; 32]);
        x.copy_from_slice(shared.raw_secret_bytes());
        Ok(x)
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
        let tag = Aes256Gcm::new(key.into())
            .encrypt_inout_detached(iv.into(), aad, sealed.as_mut_slice().into())
            .map_err(|_| BackendError::Refused)?;
        sealed.extend_from_slice(&tag);
        Ok(std::mem::take(&mut *sealed))
    }

    fn open(
        &self,
        key: &[u8; 32],
        iv: &[u8; 12],
        aad: &[u8],
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, BackendError> {
        let (body, tag) = ciphertext
            .split_last_chunk::<16>()
            .ok_or(BackendError::Refused)?;
        let mut opened = Zeroizing::new(body.to_vec());
        Aes256Gcm::new(key.into())
            .decrypt_inout_detached(
                iv.into(),
                aad,
                opened.as_mut_slice().into(),
                <&Tag>::from(tag),
            )
            .map_err(|_| BackendError::Refused)?;
        Ok(opened)
    }

    fn wrap(&self, kek: &[u8; 32], key: &[u8; 32]) -> Result<[u8; 40], BackendError> {
        let mut wrapped = [0; 40];
        aes_kw::KwAes256::new(kek.into())
            .wrap_key(key, &mut wrapped)
            .map_err(|_| BackendError::Refused)?;
        Ok(wrapped)
    }

    fn unwrap(
        &self,
        kek: &[u8; 32],
        wrapped: &[u8; 40],
    ) -> Result<Zeroizing<[u8; 32]>, BackendError> {
        let mut key = Zeroizing::new([0; 32]);
        aes_kw::KwAes256::new(kek.into())
            .unwrap_key(wrapped, key.as_mut_slice())
            .map_err(|_| BackendError::Refused)?;
        Ok(key)
    }

    fn fill_random(&self, out: &mut [u8]) -> Result<(), BackendError> {
        getrandom::fill(out).map_err(|_| BackendError::Random)
    }
}

fn hash(parts: &[&[u8]]) -> Sha256 {
    let mut digest = Sha256::new();
    parts.iter().for_each(|part| digest.update(part));
    digest
}

fn feed<E>(digest: &mut Sha256, parts: &[&[u8]]) -> Result<(), E> {
    parts.iter().for_each(|part| digest.update(part));
    Ok(())
}
