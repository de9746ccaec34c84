//! What stands in every certificate of ours: names, lifetimes, serial numbers, and the kind of key.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber, SignatureAlgorithm,
};

use super::authority::AuthorityError;
use crate::backend::{P256Point, default_backend};

const DAY: SignedDuration = SignedDuration::from_hours(24);
/// As long as a device is in service; the root's key is kept offline and hardly used.
pub(super) const ROOT_DAYS: i32 = 10 * 365;
/// Half of the root's, so that its successor overlaps.
pub(super) const ISSUING_DAYS: i32 = 5 * 365;
/// A yearly renewal is the rhythm of a device's maintenance.
pub(super) const LEAF_DAYS: i32 = 365;
/// A checker that gets no newer revocation list for a week should stop to believe; a new one is made every day.
pub(super) const LIST_DAYS: i32 = 7;
/// Certificates and lists begin this long before `now`, because a device's clock may lag.
const BACKDATED: SignedDuration = SignedDuration::from_mins(5);

pub(super) fn new_key_pair() -> Result<KeyPair, AuthorityError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::Signing)
}

pub(super) fn authority_params(name: &str, path_length: u8) -> CertificateParams {
    let mut params = leaf_params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

pub(super) fn leaf_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params
}

pub(super) fn set_validity(
    params: &mut CertificateParams,
    not_before: Timestamp,
    not_after: Timestamp,
) -> Result<(), AuthorityError> {
    let (from, to) = (since_epoch(not_before)?, since_epoch(not_after)?);
    if from >= to {
        return Err(AuthorityError::Validity);
    }
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + from;
    params.not_after = epoch + to;
    Ok(())
}

/// Whole seconds, to be added to 1970: a `Timestamp` ends with the year 9999, so that sum exists.
pub(super) fn since_epoch(at: Timestamp) -> Result<Duration, AuthorityError> {
    let seconds = u64::try_from(at.as_second()).map_err(|_| AuthorityError::Validity)?;
    Ok(Duration::from_secs(seconds))
}

/// Unique under the authority (RFC 5280 §4.1.2.2), also when one key is certified twice: a revocation names nothing else.
pub(super) fn random_serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0; 16];
    default_backend().fill_random(&mut bytes)?;
    // Positive, and never shorter for a leading zero.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

pub(super) fn backdated(now: Timestamp) -> Result<Timestamp, AuthorityError> {
    now.checked_sub(BACKDATED)
        .map_err(|_| AuthorityError::Validity)
}

pub(super) fn days_after(now: Timestamp, days: i32) -> Result<Timestamp, AuthorityError> {
    now.checked_add(DAY * days)
        .map_err(|_| AuthorityError::Validity)
}

/// A public key that came from elsewhere, as rcgen takes it.
pub(super) struct PublicKey(pub(super) P256Point);

impl PublicKey {
    pub(super) fn of_request(
        request: &CertificateSigningRequestParams,
    ) -> Result<Self, AuthorityError> {
        if *request.public_key.algorithm() != PKCS_ECDSA_P256_SHA256 {
            return Err(AuthorityError::Request);
        }
        P256Point::from_sec1(request.public_key.der_bytes())
            .map(Self)
            .ok_or(AuthorityError::Request)
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.as_sec1()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}
