//! Tokens: `vs_` and 32 random bytes in base64url. Only their SHA-256 is stored; 256 random bits need no slow hash.

use std::fmt;

use async_trait::async_trait;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};
use vitalseal_storage::Registry;
use vitalseal_storage::ports::{Authenticated, AuthenticationError, Authenticator, Identity};
use zeroize::Zeroizing;

use super::password::PasswordError;

/// How long a token is good for: one long shift. Automatic logoff, 45 CFR 164.312(a)(2)(iii).
pub const DEFAULT_TOKEN_LIFETIME: SignedDuration = SignedDuration::from_hours(12);

/// Makes a token recognizable to whoever scans logs and repositories for secrets.
const PREFIX: &str = "vs_";

const RANDOM_BYTES: usize = 32;

/// Characters of a token: the prefix and 43 of base64url.
const LENGTH: usize = PREFIX.len() + 43;

/// A token, shown once.
pub struct Token {
    /// What is given as the password of the SQL door, and of the WebSocket door.
    pub token: Zeroizing<String>,
    /// The instant from which it is refused.
    pub expires_at: Timestamp,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// Draws a token.
pub(super) fn draw(now: Timestamp, lifetime: SignedDuration) -> Result<Token, PasswordError> {
    let mut bytes = Zeroizing::new([0_u8; RANDOM_BYTES]);
    getrandom::fill(bytes.as_mut_slice()).map_err(PasswordError::Random)?;
    let mut token = Zeroizing::new(String::with_capacity(LENGTH));
    token.push_str(PREFIX);
    BASE64_URL_SAFE_NO_PAD.encode_string(bytes.as_slice(), &mut token);
    Ok(Token {
        token,
        expires_at: now.checked_add(lifetime).unwrap_or(Timestamp::MAX),
    })
}

/// What is stored of a token.
pub(super) fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Checks tokens at the doors that people come to.
///
/// The look-up is by the token's SHA-256: how far a comparison inside the database got tells a guesser something about
/// a hash that they can not steer towards a stored one, so no constant-time comparison of the token itself is needed.
#[derive(Clone, Debug)]
pub struct TokenAuthenticator {
    registry: Registry,
}

impl TokenAuthenticator {
    /// Looks tokens up in `registry`.
    pub fn new(registry: Registry) -> Self {
        Self { registry }
    }
}

#[async_trait]
impl Authenticator for TokenAuthenticator {
    async fn authenticate(
        &self,
        user: &str,
        token: &str,
        now: Timestamp,
    ) -> Result<Authenticated, AuthenticationError> {
        if token.len() != LENGTH {
            return Err(AuthenticationError::Refused);
        }
        let found = self
            .registry
            .token(digest(token))
            .await
            .map_err(|error| AuthenticationError::Unavailable(Box::new(error)))?;
        match found {
            Some((owner, role, expires_at)) if owner.as_str() == user && now < expires_at => {
                Ok(Authenticated {
                    who: Identity { user: owner, role },
                    until: expires_at,
                })
            }
            _ => Err(AuthenticationError::Refused),
        }
    }
}
