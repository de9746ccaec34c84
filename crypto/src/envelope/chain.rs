//! The chain: each message of a boot names the signed hash of the one before it (`-65539`).

use super::Header;

/// What a message says about the one before it.
///
/// ```text
/// previous (-65539)   predecessor known   it is
/// absent, sequence 0  -                   First
/// absent, later       -                   Unchained
/// present             no                  Gap
/// present             the same hash       Holds
/// present             another hash        Fork
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    /// The first message of its boot.
    First,
    /// Its device does not chain: nothing can be said.
    Unchained,
    /// It names the message before it.
    Holds,
    /// The message before it is not known here: lost, late, or not yet looked at.
    Gap,
    /// The message before it is known, and is another than it names: one key signed two histories. The two messages
    /// make a [`CloneProof`](super::CloneProof).
    Fork,
}

impl Header {
    /// Judges the link to the message with the sequence before this one, of the same device and boot, whose signed
    /// hash is `predecessor`, where it is known.
    pub fn link(&self, predecessor: Option<&[u8; 32]>) -> Link {
        match (&self.previous, predecessor) {
            (None, _) if self.sequence == 0 => Link::First,
            (None, _) => Link::Unchained,
            (Some(_), None) => Link::Gap,
            (Some(previous), Some(predecessor)) if previous == predecessor => Link::Holds,
            (Some(_), Some(_)) => Link::Fork,
        }
    }
}
