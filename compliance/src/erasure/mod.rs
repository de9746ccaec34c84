//! Forgetting a patient (GDPR Art. 17 by cryptographic erase, NIST SP 800-88) and the certificate of it.
//!
//! ```text
//! ErasureStarted in the log ─▶ sample of envelopes opens (control) ─▶ KEK, page and root destroyed (storage)
//!   ─▶ the KEK is gone, the sample opens no more ─▶ ErasureCompleted in the log ─▶ signed certificate
//! ```
//!
//! The certificate is issued only for what was seen to be so. It is signed with the audit log's key, which is no key of the
//! patient's tree, holds no personal data of the patient (a hash of the random pseudonym stands for them), and says what is
//! left and what it does not claim. Ciphertext is still there afterwards; nobody calls it anonymous here.

mod certificate;
mod perform;
mod residual;
mod verify;

#[cfg(test)]
mod tests;

pub use certificate::{
    ErasureCertificate, ErasureChecks, ErasureStatement, KeyDestruction, subject_handle,
};
pub use perform::{EraseError, ErasureDeps, erase};
pub use residual::Residual;
pub use verify::{CertificateRefused, verify};
