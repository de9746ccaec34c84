//! Envelopes, keys and certificates.

pub mod backend;
pub mod certificate;
pub mod danger;
pub mod envelope;
pub mod ids;
pub mod keys;

#[cfg(feature = "aws-lc")]
pub use backend::aws_lc;
pub use backend::{Backend, BackendError, P256Point, P256Secret, default_backend, rust_crypto};
#[cfg(feature = "authority")]
pub use certificate::authority::{
    AuthorityError, CertificateAuthority, IssuedCertificate, NewAuthority, ServerIdentity,
    new_device_key_and_csr,
};
pub use certificate::{CertificateError, DeviceCertificate, RecipientCertificate};
pub use envelope::{
    Agreement, AtRest, ContentType, Header, MAX_ENVELOPE_BYTES, Opened, Received, Rejection, Rule,
    SealError, SealRequest, SealedMessage, Verified, seal,
};
pub use ids::{
    DeviceId, IdError, KeyEpoch, Kid, MAX_COUNTER, MessageId, SubjectPseudonym, Thumbprint,
};
pub use keys::{
    Dek, DeviceSigner, Kek, KeyError, PageKey, RecipientKey, RecipientKeyRing, RootKey, SessionKey,
};
