//! X.509 (RFC 5280), as little of it as the profile has.

use jiff::Timestamp;
use x509_parser::asn1_rs::BitString;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{KeyUsage, ParsedExtension};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256,
};
use x509_parser::prelude::FromDer as _;
#[cfg(feature = "authority")]
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::time::ASN1Time;
use x509_parser::x509::AlgorithmIdentifier;

use super::CertificateError;
use crate::backend::{Backend, P256Point, signature_from_der};

/// The largest certificate parsed, in bytes. Ours have about 500; RFC 5280 sets no limit.
const MAX_CERTIFICATE_BYTES: usize = 8 * 1024;

/// What is kept of an end-entity certificate.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) der: Box<[u8]>,
    pub(super) serial: Box<[u8]>,
    pub(super) common_name: Box<str>,
    pub(super) public_key: P256Point,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

impl Leaf {
    /// Reads a certificate that is no CA's. `may` decides by its usages whether it is of the wanted kind.
    pub(super) fn read(
        der: &[u8],
        may: impl FnOnce(&Usages) -> bool,
    ) -> Result<Self, CertificateError> {
        let certificate = parse(der)?;
        if certificate.is_ca() {
            return Err(CertificateError::Malformed("an authority is no end entity"));
        }
        if !may(&Usages::of(&certificate)?) {
            return Err(CertificateError::Malformed(
                "its key usage is that of another kind",
            ));
        }
        let mut names = certificate.subject().iter_common_name();
        let (Some(name), None) = (names.next(), names.next()) else {
            return Err(CertificateError::Malformed(
                "it must have exactly one common name",
            ));
        };
        let common_name = name
            .as_str()
            .map_err(|_| CertificateError::Malformed("the common name is no text"))?;
        Ok(Self {
            der: der.into(),
            serial: certificate.tbs_certificate.serial.to_bytes_be().into(),
            common_name: common_name.into(),
            public_key: public_key(&certificate)?,
            not_before: instant(&certificate.validity().not_before)?,
            not_after: instant(&certificate.validity().not_after)?,
        })
    }
}

/// The usages that tell the kinds of certificate apart. `None` stands for a missing extension.
pub(super) struct Usages {
    pub(super) digital_signature: Option<bool>,
    pub(super) key_agreement: Option<bool>,
    pub(super) client_auth: Option<bool>,
}

impl Usages {
    fn of(certificate: &X509Certificate<'_>) -> Result<Self, CertificateError> {
        let malformed = |_| CertificateError::Malformed("an extension is damaged or repeated");
        let usage = certificate.key_usage().map_err(malformed)?;
        let extended = certificate.extended_key_usage().map_err(malformed)?;
        Ok(Self {
            digital_signature: usage.as_ref().map(|usage| usage.value.digital_signature()),
            key_agreement: usage.as_ref().map(|usage| usage.value.key_agreement()),
            client_auth: extended.map(|usage| usage.value.client_auth),
        })
    }
}

/// Checks the issuer's right to sign (basic constraints, key usage and path length), names, signature, and both validity
/// periods.
pub(super) fn verify_issued_by(
    der: &[u8],
    issuer_der: &[u8],
    now: Timestamp,
    backend: &dyn Backend,
) -> Result<(), CertificateError> {
    let (certificate, issuer) = (parse(der)?, parse(issuer_der)?);
    let may_follow = authorities_below(&issuer)?;
    if certificate.issuer().as_raw() != issuer.subject().as_raw() {
        return Err(CertificateError::ForeignIssuer);
    }
    // RFC 5280 does not count self-issued authorities. A root that allows none below it is of no use here: all count.
    if certificate.is_ca() && may_follow == 0 {
        return Err(CertificateError::PathLength);
    }
    let signed = Signed {
        bytes: certificate.tbs_certificate.as_ref(),
        algorithms: [
            &certificate.signature_algorithm,
            &certificate.tbs_certificate.signature,
        ],
        signature: &certificate.signature_value,
    };
    signed.verify(&issuer, backend)?;

    for validity in [certificate.validity(), issuer.validity()] {
        if now < instant(&validity.not_before)? || instant(&validity.not_after)? < now {
            return Err(CertificateError::NotValidNow);
        }
    }
    Ok(())
}

/// Checks that the authority may sign revocation lists (RFC 5280 §4.2.1.3), is the one that the list names, and signed it.
#[cfg(feature = "authority")]
pub(super) fn verify_list(
    list: &CertificateRevocationList<'_>,
    issuer_der: &[u8],
    backend: &dyn Backend,
) -> Result<(), CertificateError> {
    let issuer = parse(issuer_der)?;
    let usage = issuer
        .key_usage()
        .map_err(|_| CertificateError::ForeignIssuer)?;
    let may_sign = usage.is_some_and(|usage| usage.value.crl_sign());
    if !may_sign || list.issuer().as_raw() != issuer.subject().as_raw() {
        return Err(CertificateError::ForeignIssuer);
    }
    let signed = Signed {
        bytes: list.tbs_cert_list.as_ref(),
        algorithms: [&list.signature_algorithm, &list.tbs_cert_list.signature],
        signature: &list.signature_value,
    };
    signed.verify(&issuer, backend)
}

/// What a certificate and a revocation list have in common.
struct Signed<'a> {
    bytes: &'a [u8],
    /// It stands twice: once signed, once beside the signature (RFC 5280 §4.1.1.2, §5.1.1.2).
    algorithms: [&'a AlgorithmIdentifier<'a>; 2],
    signature: &'a BitString<'a>,
}

impl Signed<'_> {
    fn verify(
        &self,
        issuer: &X509Certificate<'_>,
        backend: &dyn Backend,
    ) -> Result<(), CertificateError> {
        let foreign = CertificateError::ForeignIssuer;
        let ours = |it: &AlgorithmIdentifier<'_>| it.algorithm == OID_SIG_ECDSA_WITH_SHA256;
        if !self.algorithms.into_iter().all(ours) || self.signature.unused_bits != 0 {
            return Err(foreign);
        }
        let signature = signature_from_der(&self.signature.data).ok_or(foreign)?;
        backend
            .verify(&public_key(issuer)?, &[self.bytes], &signature)
            .map_err(|_| foreign)
    }
}

/// That this is the certificate of an authority, which may sign others.
pub(super) fn check_authority(der: &[u8]) -> Result<(), CertificateError> {
    authorities_below(&parse(der)?).map(|_| ())
}

/// How many authorities may stand between this one and an end entity (RFC 5280 §4.2.1.9); refused if this is none.
fn authorities_below(issuer: &X509Certificate<'_>) -> Result<u32, CertificateError> {
    let foreign = |_| CertificateError::ForeignIssuer;
    let may_sign = issuer
        .key_usage()
        .map_err(foreign)?
        .is_none_or(|usage| KeyUsage::key_cert_sign(usage.value));
    match issuer.basic_constraints().map_err(foreign)? {
        Some(constraints) if may_sign && constraints.value.ca => {
            Ok(constraints.value.path_len_constraint.unwrap_or(u32::MAX))
        }
        _ => Err(CertificateError::ForeignIssuer),
    }
}

/// The public key of a CA or an end entity.
#[cfg(feature = "authority")]
pub(super) fn public_key_of(der: &[u8]) -> Result<P256Point, CertificateError> {
    public_key(&parse(der)?)
}

/// The end of a certificate's validity.
#[cfg(feature = "authority")]
pub(super) fn not_after_of(der: &[u8]) -> Result<Timestamp, CertificateError> {
    instant(&parse(der)?.validity().not_after)
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    if der.len() > MAX_CERTIFICATE_BYTES {
        return Err(CertificateError::Malformed(
            "larger than any certificate may be",
        ));
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => {
            // RFC 5280 §4.2: a critical extension that is not understood makes the certificate unusable.
            let foreign = certificate.iter_extensions().any(|extension| {
                extension.critical
                    && !matches!(
                        extension.parsed_extension(),
                        ParsedExtension::BasicConstraints(_)
                            | ParsedExtension::KeyUsage(_)
                            | ParsedExtension::ExtendedKeyUsage(_)
                            | ParsedExtension::SubjectAlternativeName(_)
                    )
            });
            if foreign {
                return Err(CertificateError::Malformed(
                    "a critical extension is not understood",
                ));
            }
            Ok(certificate)
        }
        _ => Err(CertificateError::Malformed("the DER does not parse")),
    }
}

fn public_key(certificate: &X509Certificate<'_>) -> Result<P256Point, CertificateError> {
    let key = certificate.public_key();
    let curve = key
        .algorithm
        .parameters
        .as_ref()
        .and_then(|curve| curve.as_oid().ok());
    if key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || curve != Some(OID_EC_P256) {
        return Err(CertificateError::Malformed("its key is not on P-256"));
    }
    P256Point::from_sec1(&key.subject_public_key.data).ok_or(CertificateError::Malformed(
        "its key is not an uncompressed point",
    ))
}

pub(super) fn instant(time: &ASN1Time) -> Result<Timestamp, CertificateError> {
    Timestamp::from_second(time.timestamp())
        .map_err(|_| CertificateError::Malformed("its validity is out of range"))
}
