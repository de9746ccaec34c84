//! People who may log in, the patients they were granted, and their short-lived tokens.

use std::fmt;

use jiff::Timestamp;
use sqlx::Row as _;
use vitalseal_crypto::SubjectPseudonym;
use zeroize::Zeroizing;

use super::{Registry, RegistryError};
use crate::database::{Connection, at, count, number, parsed, us};
use crate::keys::secrets;
use crate::ports::{Role, UserName};

/// A login to be added.
pub struct NewUser<'a> {
    /// Login name.
    pub name: UserName,
    /// Role.
    pub role: Role,
    /// Password hash in PHC form.
    pub password_hash: String,
    /// TOTP secret; sealed under the service page key before it is written.
    pub totp_secret: &'a [u8],
}

impl fmt::Debug for NewUser<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewUser")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A login.
#[derive(Clone)]
pub struct UserRow {
    /// Login name.
    pub name: UserName,
    /// Role.
    pub role: Role,
    /// Password hash in PHC form.
    pub password_hash: String,
    /// TOTP secret.
    pub totp_secret: Zeroizing<Vec<u8>>,
    /// Newest time step used; that one and older ones are refused.
    pub last_totp_step: Option<u64>,
    /// When added.
    pub created_at: Timestamp,
}

impl fmt::Debug for UserRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserRow")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

fn totp_name(user: &UserName) -> String {
    format!("totp/{user}")
}

impl Registry {
    /// Adds a login.
    ///
    /// # Errors
    /// [`RegistryError::UserExists`]; others when it is not durable.
    pub async fn add_user(&self, user: NewUser<'_>, now: Timestamp) -> Result<(), RegistryError> {
        let tree = self.keys.tree().await;
        let mut tx = self.db.begin().await?;
        let added = sqlx::query(
            "INSERT INTO users (name, role, password_hash, created_at_us) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (name) DO NOTHING",
        )
        .bind(user.name.as_str())
        .bind(user.role.as_str())
        .bind(&user.password_hash)
        .bind(us(now))
        .execute(tx.connection())
        .await?;
        if added.rows_affected() == 0 {
            return Err(RegistryError::UserExists(user.name));
        }
        let name = totp_name(&user.name);
        secrets::write(&name, user.totp_secret, &tree.service, tx.connection()).await?;
        tx.commit().await?;
        Ok(())
    }

    /// A login with its opened TOTP secret.
    ///
    /// # Errors
    /// When the registry cannot be read or the secret does not open.
    pub async fn user(&self, name: &UserName) -> Result<Option<UserRow>, RegistryError> {
        let row = sqlx::query("SELECT * FROM users WHERE name = $1")
            .bind(name.as_str())
            .fetch_optional(self.db.pool())
            .await?;
        let Some(row) = row else { return Ok(None) };
        let secret = self.keys.secret(&totp_name(name)).await?;
        Ok(Some(UserRow {
            name: name.clone(),
            role: parsed(row.try_get("role")?)?,
            password_hash: row.try_get("password_hash")?,
            totp_secret: secret.ok_or(sqlx::Error::RowNotFound)?,
            last_totp_step: row
                .try_get::<Option<i64>, _>("last_totp_step")?
                .map(count)
                .transpose()?,
            created_at: at(row.try_get("created_at_us")?)?,
        }))
    }

    /// Uses up a TOTP time step; `false` when it or a later one was used before, by whomever.
    ///
    /// # Errors
    /// When it is not durable.
    pub async fn set_totp_step(&self, name: &UserName, step: u64) -> Result<bool, RegistryError> {
        let mut tx = self.db.begin().await?;
        let done = sqlx::query(
            "UPDATE users SET last_totp_step = $1 \
             WHERE name = $2 AND (last_totp_step IS NULL OR last_totp_step < $1)",
        )
        .bind(number(step)?)
        .bind(name.as_str())
        .execute(tx.connection())
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Everybody who may log in, in order of names.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn users(&self) -> Result<Vec<(UserName, Role)>, RegistryError> {
        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT name, role FROM users ORDER BY name")
                .fetch_all(self.db.pool())
                .await?;
        let read = |(name, role): &(String, String)| Ok((parsed(name)?, parsed(role)?));
        rows.iter().map(read).collect()
    }

    /// Lets a person see a patient.
    ///
    /// # Errors
    /// When either is not there or the patient was erased; others when it is not durable.
    pub async fn grant(
        &self,
        user: &UserName,
        subject: &SubjectPseudonym,
        now: Timestamp,
    ) -> Result<(), RegistryError> {
        let mut tx = self.db.begin().await?;
        let conn = tx.connection();
        require_user(user, conn).await?;
        Self::require_active(subject, conn).await?;
        sqlx::query(
            "INSERT INTO grants (user_name, subject, granted_at_us) VALUES ($1, $2, $3) \
             ON CONFLICT (user_name, subject) DO NOTHING",
        )
        .bind(user.as_str())
        .bind(subject.as_str())
        .bind(us(now))
        .execute(conn)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    /// The patients that a person was granted by `now`, in order.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn grants_of(
        &self,
        user: &UserName,
        now: Timestamp,
    ) -> Result<Vec<SubjectPseudonym>, RegistryError> {
        // One row however many there are: each query of SQL asks this.
        let subjects: Option<String> = sqlx::query_scalar(
            "SELECT string_agg(subject, ' ') FROM grants WHERE user_name = $1 AND granted_at_us <= $2",
        )
        .bind(user.as_str())
        .bind(us(now))
        .fetch_one(self.db.pool())
        .await?;
        let subjects = subjects.as_deref().unwrap_or_default();
        let subjects = subjects.split_ascii_whitespace().map(parsed);
        let mut subjects = subjects.collect::<Result<Vec<_>, _>>()?;
        subjects.sort_unstable();
        Ok(subjects)
    }

    /// Notes a token by its hash. The token itself is never stored.
    ///
    /// # Errors
    /// When it is not durable.
    pub async fn put_token(
        &self,
        sha256: [u8; 32],
        user: &UserName,
        expires_at: Timestamp,
    ) -> Result<(), RegistryError> {
        let mut tx = self.db.begin().await?;
        sqlx::query("INSERT INTO tokens (sha256, user_name, expires_at_us) VALUES ($1, $2, $3)")
            .bind(sha256.as_slice())
            .bind(user.as_str())
            .bind(us(expires_at))
            .execute(tx.connection())
            .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Whose token this is, and until when it is good; the caller compares with its clock.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn token(
        &self,
        sha256: [u8; 32],
    ) -> Result<Option<(UserName, Role, Timestamp)>, RegistryError> {
        let row: Option<(String, String, i64)> = sqlx::query_as(
            "SELECT u.name, u.role, t.expires_at_us FROM tokens t JOIN users u ON u.name = t.user_name \
             WHERE t.sha256 = $1",
        )
        .bind(sha256.as_slice())
        .fetch_optional(self.db.pool())
        .await?;
        let Some((name, role, expires_at)) = row else {
            return Ok(None);
        };
        Ok(Some((parsed(&name)?, parsed(&role)?, at(expires_at)?)))
    }
}

/// # Errors
/// [`RegistryError::UnknownUser`].
pub(super) async fn require_user(
    user: &UserName,
    conn: &mut Connection,
) -> Result<(), RegistryError> {
    let known: Option<i64> = sqlx::query_scalar("SELECT 1 FROM users WHERE name = $1")
        .bind(user.as_str())
        .fetch_optional(conn)
        .await?;
    known
        .map(drop)
        .ok_or_else(|| RegistryError::UnknownUser(user.clone()))
}
