//! The authority's certificate revocation list (RFC 5280 §5): which of its certificates are not to be believed any more.
//!
//! The server itself asks its registry, live. The list says the same to those who cannot: a TLS handshake, a broker of
//! another make, a checker with OpenSSL. Its number and the instant of each entry are given; nothing here reads a clock.

use std::fmt;

use jiff::Timestamp;
use rcgen::{
    CertificateRevocationListParams, Issuer, KeyIdMethod, RevocationReason as Reason,
    RevokedCertParams, SerialNumber,
};
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::{CertificateRevocationList, RevokedCertificate as Entry};
use x509_parser::x509::ReasonCode;

use super::authority::AuthorityError;
use super::issuing_key::IssuingKey;
use super::params::since_epoch;
use super::{CertificateError, parsed};
use crate::backend::Backend;
use crate::pem;

/// Why a certificate stands in the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RevocationReason {
    /// For ever; why is for the audit log, so no reason code is written (RFC 5280 §5.3.1).
    Revoked,
    /// For now: `certificateHold`. A later list may leave it out again.
    OnHold,
}

/// One entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RevokedCertificate {
    /// The certificate's serial number: big-endian, without leading zeros.
    pub serial: Box<[u8]>,
    /// Since when; the list keeps whole seconds.
    pub at: Timestamp,
    /// Why.
    pub reason: RevocationReason,
}

/// A list that was read back: whole, and signed by the authority that it names.
#[derive(Clone, PartialEq, Eq)]
pub struct RevocationList {
    der: Box<[u8]>,
    number: u64,
    this_update: Timestamp,
    next_update: Timestamp,
    revoked: Vec<RevokedCertificate>,
}

impl RevocationList {
    /// Reads a list and checks that the authority `issuer_der` may sign lists and signed this one. Whether it is still of
    /// use at a certain time is for who asks: see [`Self::next_update`].
    ///
    /// # Errors
    /// [`CertificateError::Malformed`], or [`CertificateError::ForeignIssuer`].
    pub fn from_der(
        der: &[u8],
        issuer_der: &[u8],
        backend: &dyn Backend,
    ) -> Result<Self, CertificateError> {
        let malformed = CertificateError::Malformed;
        let Ok(([], list)) = CertificateRevocationList::from_der(der) else {
            return Err(malformed("the revocation list does not parse"));
        };
        parsed::verify_list(&list, issuer_der, backend)?;
        let number = list
            .crl_number()
            .and_then(|number| u64::try_from(number).ok())
            .ok_or(malformed("the revocation list has no number of ours"))?;
        let next_update = list
            .next_update()
            .ok_or(malformed("the revocation list never ends"))?;
        Ok(Self {
            der: der.into(),
            number,
            this_update: parsed::instant(&list.last_update())?,
            next_update: parsed::instant(&next_update)?,
            revoked: list
                .iter_revoked_certificates()
                .map(entry)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Its number, which grows from list to list (RFC 5280 §5.2.3).
    pub fn number(&self) -> u64 {
        self.number
    }

    /// When it was issued.
    pub fn this_update(&self) -> Timestamp {
        self.this_update
    }

    /// By when there is a newer one.
    pub fn next_update(&self) -> Timestamp {
        self.next_update
    }

    /// What it holds, in its order.
    pub fn revoked(&self) -> &[RevokedCertificate] {
        &self.revoked
    }

    /// The list's DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The list as PEM (RFC 7468 §6).
    pub fn to_pem(&self) -> String {
        pem::encode("X509 CRL", &self.der)
    }
}

impl fmt::Debug for RevocationList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevocationList")
            .field("number", &self.number)
            .field("revoked", &self.revoked.len())
            .finish_non_exhaustive()
    }
}

/// Signs a list; nobody has read it back yet.
pub(super) fn sign(
    issuer: &Issuer<'_, IssuingKey>,
    revoked: &[RevokedCertificate],
    number: u64,
    this_update: Timestamp,
    next_update: Timestamp,
) -> Result<Vec<u8>, AuthorityError> {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut revoked_certs = Vec::with_capacity(revoked.len());
    for entry in revoked {
        revoked_certs.push(RevokedCertParams {
            serial_number: SerialNumber::from_slice(&entry.serial),
            revocation_time: epoch + since_epoch(entry.at)?,
            reason_code: match entry.reason {
                RevocationReason::Revoked => None,
                RevocationReason::OnHold => Some(Reason::CertificateHold),
            },
            invalidity_date: None,
        });
    }
    let params = CertificateRevocationListParams {
        this_update: epoch + since_epoch(this_update)?,
        next_update: epoch + since_epoch(next_update)?,
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs,
        // As the authority's own certificate names its key (RFC 5280 §5.2.1).
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = params
        .signed_by(issuer)
        .map_err(|error| issuer.key().explain(error))?;
    Ok(list.der().to_vec())
}

fn entry(entry: &Entry<'_>) -> Result<RevokedCertificate, CertificateError> {
    let reason = match entry.reason_code() {
        Some((_, ReasonCode::CertificateHold)) => RevocationReason::OnHold,
        _ => RevocationReason::Revoked,
    };
    Ok(RevokedCertificate {
        serial: entry.serial().to_bytes_be().into(),
        at: parsed::instant(&entry.revocation_date)?,
        reason,
    })
}
