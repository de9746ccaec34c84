//! Certificates: who may sign as which device, and which key devices may seal for.
//!
//! ```text
//! root CA (10 years, kept offline)
//!   └─ issuing CA (5 years)
//!       ├─ device certificate      CN = device id, digitalSignature, clientAuth       signs envelopes, opens TLS
//!       ├─ subscriber certificate  CN = display:NAME or service:NAME, clientAuth      opens TLS, to listen
//!       ├─ server certificate      DNS names, digitalSignature, serverAuth            TLS only
//!       └─ recipient certificate   keyAgreement only, short-lived                     what devices seal for
//! ```
//!
//! All keys are P-256 and all signatures ECDSA with SHA-256: nothing else is parsed. The kinds of leaf are kept apart by
//! key usage, so that a device's own certificate can never pass as the one that others seal for; devices and subscribers
//! by their names, of which none is both.
//!
//! What never stands here: who is revoked or enrolled (the registry knows), the present time (an argument).

#[cfg(feature = "authority")]
pub mod authority;
mod device;
#[cfg(feature = "authority")]
mod issuing_key;
#[cfg(feature = "authority")]
mod params;
mod parsed;
mod recipient;
#[cfg(feature = "authority")]
mod revocation;
mod subscriber;

use jiff::Timestamp;

pub use self::device::DeviceCertificate;
pub use self::recipient::RecipientCertificate;
#[cfg(feature = "authority")]
pub use self::revocation::{RevocationList, RevocationReason, RevokedCertificate};
pub use self::subscriber::{NoSubscriber, Subscriber, SubscriberCertificate, SubscriberRole};
use crate::backend::Backend;
use crate::pem;

/// Why a certificate was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Not a certificate of the profile.
    #[error("not a certificate of this profile: {0}")]
    Malformed(&'static str),
    /// Not signed by the given issuer, or the issuer may not sign certificates.
    #[error("the certificate was not issued by this authority")]
    ForeignIssuer,
    /// The issuer's path length allows no authority below it.
    #[error("the authority may not have this other authority below it")]
    PathLength,
    /// The certificate or its issuer is not yet or no longer valid.
    #[error("the certificate or its issuer is not valid at this time")]
    NotValidNow,
}

/// Checks that an issuing CA's certificate is one, and comes from the root, which is self-signed and may have a CA below
/// it, and that both are valid now.
///
/// # Errors
/// [`CertificateError`].
pub fn verify_authority(
    issuing_der: &[u8],
    root_der: &[u8],
    now: Timestamp,
    backend: &dyn Backend,
) -> Result<(), CertificateError> {
    parsed::verify_issued_by(root_der, root_der, now, backend)?;
    parsed::verify_issued_by(issuing_der, root_der, now, backend)?;
    parsed::check_authority(issuing_der)
}

/// The DER of every certificate in a PEM bundle, in order.
///
/// # Errors
/// [`CertificateError::Malformed`] when there is none, or one is damaged.
pub fn certificates_in_pem(text: &str) -> Result<Vec<Vec<u8>>, CertificateError> {
    match pem::blocks(text, "CERTIFICATE") {
        Some(blocks) if !blocks.is_empty() => {
            Ok(blocks.into_iter().map(|block| block.to_vec()).collect())
        }
        _ => Err(CertificateError::Malformed(
            "no certificate in the PEM text",
        )),
    }
}

/// What every kind of certificate says about itself.
macro_rules! certificate_accessors {
    ($kind:ident) => {
        impl $kind {
            /// The first certificate of a PEM text.
            ///
            /// # Errors
            /// [`CertificateError::Malformed`].
            pub fn from_pem(text: &str) -> Result<Self, CertificateError> {
                let der = pem::first(text, "CERTIFICATE").ok_or(CertificateError::Malformed(
                    "no certificate in the PEM text",
                ))?;
                Self::from_der(&der)
            }

            /// Its serial number under its issuer: big-endian, without leading zeros.
            pub fn serial(&self) -> &[u8] {
                &self.leaf.serial
            }

            /// The public key.
            pub fn public_key(&self) -> &P256Point {
                &self.leaf.public_key
            }

            /// The first instant of its validity.
            pub fn not_before(&self) -> Timestamp {
                self.leaf.not_before
            }

            /// The last second of its validity.
            pub fn not_after(&self) -> Timestamp {
                self.leaf.not_after
            }

            /// The certificate's DER.
            pub fn der(&self) -> &[u8] {
                &self.leaf.der
            }

            /// The certificate as PEM.
            pub fn to_pem(&self) -> String {
                pem::encode("CERTIFICATE", &self.leaf.der)
            }

            /// Checks that `issuer_der`, a CA, signed this certificate, and that both are valid at `now`.
            ///
            /// # Errors
            /// [`CertificateError::ForeignIssuer`] or [`CertificateError::NotValidNow`]; [`CertificateError::Malformed`]
            /// when `issuer_der` is no certificate.
            pub fn verify_issued_by(
                &self,
                issuer_der: &[u8],
                now: Timestamp,
                backend: &dyn Backend,
            ) -> Result<(), CertificateError> {
                parsed::verify_issued_by(&self.leaf.der, issuer_der, now, backend)
            }
        }
    };
}
use certificate_accessors;
