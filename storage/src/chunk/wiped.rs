//! Vectors that leave nothing of what was in them.

use std::ops::{Deref, DerefMut};

use zeroize::{DefaultIsZeroes, Zeroize as _};

/// A vector that is wiped when it is dropped, and what it leaves behind whenever it outgrows its place. What is in it is
/// never taken out.
pub(super) struct Wiped<T: DefaultIsZeroes>(Vec<T>);

impl<T: DefaultIsZeroes> Wiped<T> {
    pub(super) fn push(&mut self, value: T) {
        if self.0.len() == self.0.capacity() {
            let mut larger = Vec::with_capacity(2 * self.0.len().max(32));
            larger.extend_from_slice(&self.0);
            self.0.as_mut_slice().zeroize();
            self.0 = larger;
        }
        self.0.push(value);
    }
}

impl<T: DefaultIsZeroes> Default for Wiped<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: DefaultIsZeroes> Deref for Wiped<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: DefaultIsZeroes> DerefMut for Wiped<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<T: DefaultIsZeroes> Drop for Wiped<T> {
    fn drop(&mut self) {
        self.0.as_mut_slice().zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_grows_and_keeps_what_is_in_it() {
        let mut wiped = Wiped::default();
        (0..1_000_u64).for_each(|n| wiped.push(n));
        assert!(wiped.iter().copied().eq(0..1_000));
        wiped.sort_by_key(|n| std::cmp::Reverse(*n));
        assert_eq!(wiped.first(), Some(&999));
    }
}
