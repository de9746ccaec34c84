//! A password and a one-time code for a token.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Semaphore;
use vitalseal_storage::Registry;
use vitalseal_storage::ports::{Actor, AuditError, AuditEvent, AuditRecord, AuditSink, UserName};
use vitalseal_storage::registry::{RegistryError, UserRow};
use zeroize::Zeroizing;

use super::lockout::Lockouts;
use super::password::{self, PasswordError};
use super::token::{self, DEFAULT_TOKEN_LIFETIME, Token};
use super::totp;

/// Hashes computed at a time: two cores' worth, 38 MiB. Whoever comes later waits.
const HASHES_AT_ONCE: usize = 2;

/// Longer passwords are refused unread, so that nobody makes us hash megabytes.
const MAX_PASSWORD_BYTES: usize = 1024;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoginError {
    /// Name, password or code was not right, or the code was used before. Which one is not said.
    #[error(
        "login refused: check user name, password file and the clock; a code works once, and repeated failures lock the \
         name for a while"
    )]
    Refused,
    /// Too many failures under this name; known and unknown names alike.
    #[error("too many failed logins under this name; try again after {0}")]
    LockedOut(Timestamp),
    /// The registry failed.
    #[error("checking a login against the registry")]
    Registry(#[from] RegistryError),
    /// Hashing failed.
    #[error("checking a login")]
    Password(#[from] PasswordError),
    /// The login could not be recorded, so it did not happen.
    #[error("recording a login")]
    Audit(#[from] AuditError),
}

/// Checks logins and hands out tokens. One of it per process: it remembers who failed.
#[derive(Clone)]
pub struct Login(Arc<Inner>);

struct Inner {
    registry: Registry,
    audit: Arc<dyn AuditSink>,
    lifetime: SignedDuration,
    lockouts: Mutex<Lockouts>,
    hashing: Semaphore,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("lifetime", &self.0.lifetime)
            .finish_non_exhaustive()
    }
}

impl Login {
    /// With tokens that are good for [`DEFAULT_TOKEN_LIFETIME`].
    pub fn new(registry: Registry, audit: Arc<dyn AuditSink>) -> Self {
        Self::with_lifetime(registry, audit, DEFAULT_TOKEN_LIFETIME)
    }

    /// With tokens that are good for `lifetime`.
    pub fn with_lifetime(
        registry: Registry,
        audit: Arc<dyn AuditSink>,
        lifetime: SignedDuration,
    ) -> Self {
        Self(Arc::new(Inner {
            registry,
            audit,
            lifetime,
            lockouts: Mutex::default(),
            hashing: Semaphore::new(HASHES_AT_ONCE),
        }))
    }

    /// Checks a login. The same work is done and the same error given whichever part is wrong.
    ///
    /// # Errors
    ///
    /// [`LoginError::Refused`] or [`LoginError::LockedOut`] for the person; the others when it could not be checked.
    pub async fn login(
        &self,
        user: &str,
        password: &str,
        totp: &str,
        now: Timestamp,
    ) -> Result<Token, LoginError> {
        // A name that can not exist is not kept, counted or recorded: it might be a password in the wrong field.
        let name = user.parse::<UserName>().ok();
        let key = name.as_ref().map_or("", UserName::as_str);
        self.lockouts(|lockouts| lockouts.attempt(key, now))
            .map_err(LoginError::LockedOut)?;
        let Some(user) = self.check(name.as_ref(), password, totp, now).await? else {
            if let Some(user) = name {
                self.record(Actor::System, AuditEvent::LoginFailed { user }, now)
                    .await?;
            }
            return Err(LoginError::Refused);
        };
        self.lockouts(|lockouts| lockouts.succeeded(key));
        let actor = Actor::User(user.clone());
        self.record(
            actor.clone(),
            AuditEvent::LoginSucceeded { user: user.clone() },
            now,
        )
        .await?;
        let token = token::draw(now, self.0.lifetime)?;
        let expires_at = token.expires_at;
        self.record(
            actor,
            AuditEvent::TokenIssued {
                user: user.clone(),
                expires_at,
            },
            now,
        )
        .await?;
        self.0
            .registry
            .put_token(token::digest(&token.token), &user, expires_at)
            .await?;
        Ok(token)
    }

    /// The user, if everything is right and the code's time step is used for the first time.
    async fn check(
        &self,
        name: Option<&UserName>,
        password: &str,
        code: &str,
        now: Timestamp,
    ) -> Result<Option<UserName>, LoginError> {
        let row: Option<UserRow> = match name {
            Some(name) => self.0.registry.user(name).await?,
            None => None,
        };
        let fits = self.password_fits(password, row.as_ref()).await?;
        // Nobody's secret is zeros: the code is computed all the same.
        let nobody = [0; totp::SECRET_BYTES];
        let secret = row
            .as_ref()
            .map_or(nobody.as_slice(), |row| row.totp_secret.as_slice());
        let step = totp::matching_step(secret, code, now);
        let (Some(row), true, Some(step)) = (row, fits, step) else {
            return Ok(None);
        };
        // One statement decides, so that of two logins with one code only one wins.
        let first_use = self.0.registry.set_totp_step(&row.name, step).await?;
        Ok(first_use.then_some(row.name))
    }

    async fn password_fits(
        &self,
        password: &str,
        row: Option<&UserRow>,
    ) -> Result<bool, PasswordError> {
        let too_long = password.len() > MAX_PASSWORD_BYTES;
        let password = Zeroizing::new(if too_long {
            String::new()
        } else {
            password.to_owned()
        });
        let stored = row.map(|row| row.password_hash.clone());
        let _slot = self
            .0
            .hashing
            .acquire()
            .await
            .map_err(|_| PasswordError::Hash)?;
        tokio::task::spawn_blocking(move || password::fits(&password, stored.as_deref()))
            .await
            .map_err(|_| PasswordError::Hash)
    }

    async fn record(
        &self,
        actor: Actor,
        event: AuditEvent,
        at: Timestamp,
    ) -> Result<(), AuditError> {
        self.0.audit.record(AuditRecord { at, actor, event }).await
    }

    fn lockouts<T>(&self, f: impl FnOnce(&mut Lockouts) -> T) -> T {
        f(&mut self
            .0
            .lockouts
            .lock()
            .unwrap_or_else(PoisonError::into_inner))
    }
}
