//! What the data protection officer needs: who may see what, what was done, proof that something is gone, and a
//! breach report that is counted rather than written.
//!
//! - [`audit`]: the append-only Merkle log that everything below writes to and counts from.
//! - [`access`]: logins, tokens, and whose readings a person may see.
//! - [`erasure`]: forgetting a patient, and the certificate of it.
//! - [`incident`]: incidents, their clocks, and the report that GDPR Art. 33(3) asks for.
//!
//! Nothing here ever decrypts a reading. The one place that holds a patient's key is the erasure, for a moment, to show that
//! what could be opened before can not be opened after.

pub mod access;
pub mod audit;
pub mod erasure;
pub mod incident;

#[cfg(test)]
mod testing;
