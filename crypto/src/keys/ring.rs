//! The server's envelope keys that are still held, and the secrets they share with running sessions.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use zeroize::Zeroizing;

use super::{RecipientKey, blank_debug};
use crate::backend::{Backend, BackendError, P256Point};
use crate::ids::Kid;

/// Sessions whose shared secret is remembered: between this many and twice as many, so that ten thousand devices
/// keep theirs. About 150 bytes each.
const SESSIONS_REMEMBERED: usize = 10_000;

/// The recipient keys of the present epoch and of those whose messages may still arrive.
///
/// With every key goes what it agreed on, so destroying a key means building a new ring without it.
pub struct RecipientKeyRing {
    keys: HashMap<Kid, RecipientKey>,
    sessions: Mutex<Sessions>,
}

impl RecipientKeyRing {
    /// A ring of these keys.
    pub fn new(keys: Vec<RecipientKey>) -> Self {
        let keys = keys
            .into_iter()
            .map(|key| (key.kid().clone(), key))
            .collect();
        Self {
            keys,
            sessions: Mutex::default(),
        }
    }

    /// The key of this identifier, while it is held.
    pub fn find(&self, kid: &Kid) -> Option<&RecipientKey> {
        self.keys.get(kid)
    }

    /// Hands the secret shared with a session's key to `unwrap`, and remembers it if that succeeds: agreeing costs
    /// a hundred times what the rest of opening a small message does.
    pub(crate) fn with_session_secret<T>(
        &self,
        own: &RecipientKey,
        peer: &P256Point,
        backend: &dyn Backend,
        unwrap: impl FnOnce(&[u8; 32]) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let session = Session(own.kid().clone(), *peer.as_sec1());
        let known = self.lock().find(&session);
        match known {
            Some(secret) => unwrap(&secret),
            None => {
                let secret = own.agree(peer, backend)?;
                let unwrapped = unwrap(&secret)?;
                self.lock().remember(session, secret);
                Ok(unwrapped)
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A recipient key and a session's public key.
#[derive(PartialEq, Eq, Hash)]
struct Session(Kid, [u8; 65]);

type Secrets = HashMap<Session, Zeroizing<[u8; 32]>>;

/// Two generations: when the young one is full, the old one is forgotten and they change places. Whoever is still
/// talking moves to the young one, so that forgetting needs neither a clock nor a list.
#[derive(Default)]
struct Sessions {
    young: Secrets,
    old: Secrets,
}

impl Sessions {
    fn find(&mut self, session: &Session) -> Option<Zeroizing<[u8; 32]>> {
        if let Some(secret) = self.young.get(session) {
            return Some(secret.clone());
        }
        let (session, secret) = self.old.remove_entry(session)?;
        self.remember(session, secret.clone());
        Some(secret)
    }

    fn remember(&mut self, session: Session, secret: Zeroizing<[u8; 32]>) {
        if self.young.len() >= SESSIONS_REMEMBERED {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(session, secret);
    }
}

blank_debug! { RecipientKeyRing }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_sessions_is_bounded_and_keeps_whoever_talks() {
        let session = |n: usize| {
            let mut point = [4; 65];
            point[1..9].copy_from_slice(&n.to_be_bytes());
            Session(Kid::from_bytes(&[1]).unwrap(), point)
        };
        let mut sessions = Sessions::default();
        for n in 0..5 * SESSIONS_REMEMBERED {
            sessions.remember(session(n), Zeroizing::new([0; 32]));
            assert!(
                n == 0 || sessions.find(&session(0)).is_some(),
                "0 talks all the time"
            );
            assert!(sessions.young.len() + sessions.old.len() <= 2 * SESSIONS_REMEMBERED);
        }
        assert!(sessions.find(&session(1)).is_none(), "1 fell silent");
        let remembered = sessions.young.len() + sessions.old.len();
        assert!(remembered > SESSIONS_REMEMBERED, "those who spoke last");
    }
}
