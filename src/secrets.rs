//! Names of the service's own secrets in the key store, each said once.

/// Private key of the issuing certificate authority (PKCS#8 PEM).
pub(crate) const ISSUING_KEY: &str = "ca/issuing-key";
/// Signing key of the audit log (signed-note form).
pub(crate) const AUDIT_KEY: &str = "audit/signing-key";
/// Origin line of the audit log's checkpoints.
pub(crate) const AUDIT_ORIGIN: &str = "vitalseal/audit";
