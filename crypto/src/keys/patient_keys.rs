//! All keys of one patient: the one that new messages are wrapped under, and those that older ones still need.

use super::{Kek, blank_debug};
use crate::ids::Kid;

/// A patient's KEKs. A rotation makes a new current one and keeps the others, since stored envelopes are wrapped under
/// them; an erasure destroys them all.
pub struct PatientKeys {
    current: Kek,
    retired: Vec<Kek>,
}

impl PatientKeys {
    /// The keys of one patient.
    pub fn new(current: Kek, retired: Vec<Kek>) -> Self {
        Self { current, retired }
    }

    /// The key that new messages and the identity are sealed under.
    pub fn current(&self) -> &Kek {
        &self.current
    }

    /// The key of this identifier, as an at-rest envelope names it.
    pub fn find(&self, kid: &Kid) -> Option<&Kek> {
        self.all().find(|kek| kek.kid() == kid)
    }

    /// Every key, the current one first.
    pub fn all(&self) -> impl Iterator<Item = &Kek> {
        std::iter::once(&self.current).chain(&self.retired)
    }
}

blank_debug! { PatientKeys }
