//! Checking a certificate with nothing but the document and the audit log's verifier key.

use super::certificate::{ErasureCertificate, FORMAT};
use crate::audit::{AuditKey, KeyMalformed, NoteRefused, ProofRefused};

/// Why a certificate was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateRefused {
    /// The verifier key is not one.
    #[error("reading the verifier key")]
    Key(#[from] KeyMalformed),
    /// It is no certificate.
    #[error("reading the certificate")]
    Json(#[from] serde_json::Error),
    /// It is written differently from how it was signed.
    #[error("the certificate was changed: it does not read back to itself")]
    Changed,
    /// It is of a format that this version does not know.
    #[error("this version does not know certificates of the format {0:?}")]
    Format(String),
    /// The signature does not hold.
    #[error("the certificate's signature does not hold")]
    Signature(#[source] NoteRefused),
    /// The proof of the audit record does not hold.
    #[error("the certificate's proof from the audit log does not hold")]
    Proof(#[source] ProofRefused),
    /// It is signed, and yet it contradicts itself.
    #[error("the certificate contradicts itself: {0}")]
    Contradiction(&'static str),
}

/// Checks a certificate: the signature over everything it says, the proof from the audit log, and that it does not contradict
/// itself. Whom it is about is checked with [`ErasureCertificate::is_about`].
///
/// # Errors
///
/// When anything does not hold.
pub fn verify(json: &str, vkey: &str) -> Result<ErasureCertificate, CertificateRefused> {
    let key = AuditKey::parse(vkey)?;
    let certificate: ErasureCertificate = serde_json::from_str(json)?;
    // What was read must say the same as what stands there: a time written "…z" for "…Z" reads alike but was not signed.
    // Order of members and white space carry no meaning and may differ.
    let written: serde_json::Value = serde_json::from_str(json)?;
    if serde_json::to_value(&certificate)? != written {
        return Err(CertificateRefused::Changed);
    }
    let statement = &certificate.statement;
    if statement.format != FORMAT {
        return Err(CertificateRefused::Format(statement.format.clone()));
    }
    if certificate.signature.contains('\n') {
        return Err(CertificateRefused::Signature(NoteRefused::Malformed));
    }
    let note = format!("{}\n{}\n", statement.signed_text()?, certificate.signature);
    key.open(&note).map_err(CertificateRefused::Signature)?;
    statement
        .log
        .verify(&key)
        .map_err(CertificateRefused::Proof)?;
    consistent(&certificate).map_err(CertificateRefused::Contradiction)?;
    Ok(certificate)
}

fn consistent(certificate: &ErasureCertificate) -> Result<(), &'static str> {
    let statement = &certificate.statement;
    let checks = &statement.checks;
    if statement.completed_at < statement.ordered_at {
        return Err("completed before it was ordered");
    }
    if statement.keys.root_epoch <= statement.keys.root_epoch_destroyed {
        return Err("the destroyed root is not older than the present one");
    }
    if !checks.kek_absent || checks.opened_after != 0 {
        return Err("the patient's key was still there");
    }
    if checks.wrapped_under_destroyed_key != checks.envelopes_tried
        || checks
            .opened_before
            .is_some_and(|opened| opened != checks.envelopes_tried)
    {
        return Err("the tried messages do not add up");
    }
    Ok(())
}
