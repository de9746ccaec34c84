//! The content key.

use std::fmt;

use super::secret::Secret;

/// The key that seals one message.
pub struct Dek(Secret);

impl fmt::Debug for Dek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dek").finish_non_exhaustive()
    }
}
