//! New logins.

use std::fmt;

use jiff::Timestamp;
use totp_rs::Secret;
use vitalseal_storage::Registry;
use vitalseal_storage::ports::{
    Actor, AuditError, AuditEvent, AuditRecord, AuditSink, Role, UserName,
};
use vitalseal_storage::registry::{NewUser, RegistryError};
use zeroize::Zeroizing;

use super::password::{self, PasswordError};
use super::totp;

/// What a new user is handed, once. Neither secret can be read back later.
pub struct NewCredentials {
    /// Login name.
    pub user: UserName,
    /// Password, 125 random bits.
    pub password: Zeroizing<String>,
    /// TOTP secret in base 32, for an authenticator app.
    pub totp_secret: Zeroizing<String>,
}

impl fmt::Debug for NewCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewCredentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// A user could not be added.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddUserError {
    /// No password could be made.
    #[error("making credentials")]
    Password(#[from] PasswordError),
    /// The registry refused or failed; a name that is taken is refused there.
    #[error("adding the user to the registry")]
    Registry(#[from] RegistryError),
    /// It could not be recorded.
    #[error("recording the new user")]
    Audit(#[from] AuditError),
}

/// Adds a user with a drawn password and a drawn second factor.
///
/// # Errors
///
/// When the name is taken, or the registry or the audit log fails.
pub async fn add_user(
    registry: &Registry,
    audit: &dyn AuditSink,
    actor: Actor,
    name: UserName,
    role: Role,
    now: Timestamp,
) -> Result<NewCredentials, AddUserError> {
    let password = password::draw()?;
    let mut secret = Zeroizing::new([0_u8; totp::SECRET_BYTES]);
    getrandom::fill(secret.as_mut_slice()).map_err(PasswordError::Random)?;
    let for_hash = password.clone();
    let password_hash = tokio::task::spawn_blocking(move || password::hash(&for_hash))
        .await
        .map_err(|_| PasswordError::Hash)??;
    let user = NewUser {
        name: name.clone(),
        role,
        password_hash,
        totp_secret: secret.as_slice(),
    };
    registry.add_user(user, now).await?;
    let event = AuditEvent::UserAdded {
        user: name.clone(),
        role,
    };
    audit
        .record(AuditRecord {
            at: now,
            actor,
            event,
        })
        .await?;
    Ok(NewCredentials {
        user: name,
        password,
        totp_secret: Zeroizing::new(Secret::from(*secret).to_base32()),
    })
}
