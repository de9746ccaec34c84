//! The chain: each message of a boot names the signed hash of the one before it (`-65539`).

use super::Header;

/// What a message says about the one before it.
///
/// ```text
/// previous (-65539)   predecessor known   it is
/// any, sequence 0     -                   First
/// absent              -                   Unchained
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

impl Link {
    /// Judges what a message with this sequence names as its `previous`. `predecessor` is the signed hash of the message
    /// with the sequence before, of the same device and boot, where it is known.
    pub fn judge(
        sequence: u64,
        previous: Option<&[u8; 32]>,
        predecessor: Option<&[u8; 32]>,
    ) -> Self {
        match (previous, predecessor) {
            _ if sequence == 0 => Self::First,
            (None, _) => Self::Unchained,
            (Some(_), None) => Self::Gap,
            (Some(previous), Some(predecessor)) if previous == predecessor => Self::Holds,
            (Some(_), Some(_)) => Self::Fork,
        }
    }
}

impl Header {
    /// [Judges](Link::judge) the link of this message.
    pub fn link(&self, predecessor: Option<&[u8; 32]>) -> Link {
        Link::judge(self.sequence, self.previous.as_ref(), predecessor)
    }
}
