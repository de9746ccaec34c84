//! Who this device is: its key, its certificate, and the authority that it trusts.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use vitalseal_crypto::certificate::certificates_in_pem;
use vitalseal_crypto::{
    CertificateError, DeviceId, DeviceSigner, KeyError, RecipientCertificate, default_backend,
};
use zeroize::Zeroizing;

/// File of the private key inside an identity directory: PKCS#8 PEM, P-256.
pub const KEY_FILE: &str = "key.pem";
/// File of the device's certificate, followed by the issuing one: PEM.
pub const CERTIFICATE_FILE: &str = "cert.pem";
/// File of the authority's certificates, issuing and root: PEM.
pub const AUTHORITY_FILE: &str = "ca.pem";

/// A device's key and certificate, and the certificates that it trusts.
///
/// One key signs messages and answers the server's TLS challenge; both name the device by the certificate's
/// common name.
pub struct DeviceIdentity {
    signer: DeviceSigner,
    key_pem: Zeroizing<String>,
    certificate_pem: String,
    authority_pem: String,
    authorities: Vec<Vec<u8>>,
}

/// Why an identity could not be used. Never with key material.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A file is missing or unreadable.
    #[error("reading {}; an enrolled device has {KEY_FILE}, {CERTIFICATE_FILE} and {AUTHORITY_FILE}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Key or certificate is damaged, or they do not belong together.
    #[error("using the device's key and certificate")]
    Key(#[source] KeyError),
    /// The authority's certificates are damaged.
    #[error("using the authority's certificates")]
    Authority(#[source] CertificateError),
}

impl DeviceIdentity {
    /// Reads [`KEY_FILE`], [`CERTIFICATE_FILE`] and [`AUTHORITY_FILE`] in `directory`.
    ///
    /// # Errors
    /// [`IdentityError`]
    pub fn load(directory: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let read = |file: &str| {
            let path = directory.as_ref().join(file);
            fs::read_to_string(&path).map_err(|cause| IdentityError::Read { path, cause })
        };
        let key_pem = Zeroizing::new(read(KEY_FILE)?);
        Self::from_pem(key_pem, read(CERTIFICATE_FILE)?, read(AUTHORITY_FILE)?)
    }

    /// From PEM texts: the private key, the device's certificate (and those above it), the authority's certificates.
    ///
    /// # Errors
    /// [`IdentityError::Key`], [`IdentityError::Authority`]
    pub fn from_pem(
        key_pem: Zeroizing<String>,
        certificate_pem: String,
        authority_pem: String,
    ) -> Result<Self, IdentityError> {
        let signer =
            DeviceSigner::from_pkcs8_pem(&key_pem, &certificate_pem).map_err(IdentityError::Key)?;
        let authorities = certificates_in_pem(&authority_pem).map_err(IdentityError::Authority)?;
        Ok(Self {
            signer,
            key_pem,
            certificate_pem,
            authority_pem,
            authorities,
        })
    }

    /// The device's id, as its certificate says.
    #[must_use]
    pub fn device(&self) -> &DeviceId {
        self.signer.device()
    }

    /// The signing key.
    #[must_use]
    pub fn signer(&self) -> &DeviceSigner {
        &self.signer
    }

    /// The private key, PKCS#8 PEM: for a TLS stack and for nothing else.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The device's certificate and those above it, PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The certificates that the device trusts, PEM.
    #[must_use]
    pub fn authority_pem(&self) -> &str {
        &self.authority_pem
    }

    /// Reads the server's envelope certificate and accepts it only if the device's own authority issued it
    /// and it is valid at `now`: whoever can publish on the broker must not thereby receive readings.
    ///
    /// # Errors
    /// [`CertificateError`]
    pub fn trust_recipient(
        &self,
        pem: &str,
        now: Timestamp,
    ) -> Result<RecipientCertificate, CertificateError> {
        let recipient = RecipientCertificate::from_pem(pem)?;
        let mut refusal = CertificateError::ForeignIssuer;
        for authority in &self.authorities {
            match recipient.verify_issued_by(authority, now, default_backend()) {
                Ok(()) => return Ok(recipient),
                // Of all reasons, that it has expired says more than that the root did not issue it itself.
                Err(CertificateError::ForeignIssuer) => {}
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }
}

impl fmt::Debug for DeviceIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DeviceIdentity")
            .field("device", self.device())
            .finish_non_exhaustive()
    }
}
