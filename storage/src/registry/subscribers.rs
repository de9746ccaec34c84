//! Who only listens: displays and services with a certificate, and the wards whose alerts they and people hear.
//!
//! A subscriber is enrolled once, with one certificate, and revoked for ever. Every change here rings
//! [`Registry::listeners_changed`]: there are few of them, so whoever serves them looks at all again.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use sqlx::Row as _;
use tokio::sync::watch;
use vitalseal_crypto::{
    RevocationReason, RevokedCertificate, Subscriber, SubscriberCertificate, Thumbprint,
};

use super::users::require_user;
use super::{Registry, RegistryError};
use crate::database::{self, Connection, at, at_opt, damaged, parsed, us};
use crate::ports::{UserName, Ward, Wards};

/// How "every ward" is stored: the MQTT wildcard, which no [`Ward`] is.
const EVERY_WARD: &str = "+";

/// A display or a service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubscriberRow {
    /// Who.
    pub subscriber: Subscriber,
    /// The one certificate that it may show.
    pub certificate: Thumbprint,
    /// What it hears.
    pub wards: Wards,
    /// First and only enrolment.
    pub enrolled_at: Timestamp,
    /// Since when it may not connect.
    pub revoked_at: Option<Timestamp>,
    /// Why, as an operator said.
    pub revoked_reason: Option<String>,
}

impl Registry {
    /// Notes a subscriber, its certificate and its wards.
    ///
    /// # Errors
    /// [`RegistryError::SubscriberExists`]: a name is given out once, so a revoked one never comes back. Others when it
    /// is not durable.
    pub async fn enroll_subscriber(
        &self,
        certificate: &SubscriberCertificate,
        wards: &Wards,
        now: Timestamp,
    ) -> Result<(), RegistryError> {
        let subscriber = certificate.subscriber();
        let name = subscriber.to_string();
        let mut tx = self.db.begin().await?;
        let conn = tx.connection();
        let added = sqlx::query(
            "INSERT INTO subscribers (subscriber, der, enrolled_at_us) VALUES ($1, $2, $3) \
             ON CONFLICT (subscriber) DO NOTHING",
        )
        .bind(&name)
        .bind(certificate.der())
        .bind(us(now))
        .execute(&mut *conn)
        .await?;
        if added.rows_affected() == 0 {
            return Err(RegistryError::SubscriberExists(subscriber.clone()));
        }
        let wards: Vec<&str> = match wards {
            Wards::All => vec![EVERY_WARD],
            Wards::These(these) => these.iter().map(Ward::as_str).collect(),
        };
        for ward in wards {
            sqlx::query("INSERT INTO subscriber_wards (subscriber, ward) VALUES ($1, $2)")
                .bind(&name)
                .bind(ward)
                .execute(&mut *conn)
                .await?;
        }
        tx.commit().await?;
        self.listeners.send_replace(());
        Ok(())
    }

    /// One subscriber.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn subscriber(
        &self,
        subscriber: &Subscriber,
    ) -> Result<Option<SubscriberRow>, RegistryError> {
        let mut conn = self.db.pool().acquire().await?;
        let row = sqlx::query("SELECT * FROM subscribers WHERE subscriber = $1")
            .bind(subscriber.to_string())
            .fetch_optional(&mut *conn)
            .await?;
        match row {
            Some(row) => Ok(Some(read(&row, &mut conn).await?)),
            None => Ok(None),
        }
    }

    /// Every subscriber, in order of names.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn subscribers(&self) -> Result<Vec<SubscriberRow>, RegistryError> {
        let mut conn = self.db.pool().acquire().await?;
        let rows = sqlx::query("SELECT * FROM subscribers ORDER BY subscriber")
            .fetch_all(&mut *conn)
            .await?;
        let mut subscribers = Vec::with_capacity(rows.len());
        for row in &rows {
            subscribers.push(read(row, &mut conn).await?);
        }
        Ok(subscribers)
    }

    /// Shuts a subscriber out, for ever. Revoked twice, the first instant and reason stay.
    ///
    /// # Errors
    /// [`RegistryError::UnknownSubscriber`]; others when it is not durable.
    pub async fn revoke_subscriber(
        &self,
        subscriber: &Subscriber,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), RegistryError> {
        let mut tx = self.db.begin().await?;
        let revoked = sqlx::query(
            "UPDATE subscribers SET revoked_at_us = COALESCE(revoked_at_us, $1), \
             revoked_reason = COALESCE(revoked_reason, $2) WHERE subscriber = $3",
        )
        .bind(us(now))
        .bind(reason)
        .bind(subscriber.to_string())
        .execute(tx.connection())
        .await?;
        if revoked.rows_affected() == 0 {
            return Err(RegistryError::UnknownSubscriber(subscriber.clone()));
        }
        tx.commit().await?;
        self.listeners.send_replace(());
        Ok(())
    }

    /// Lets a person hear a ward's alerts.
    ///
    /// # Errors
    /// [`RegistryError::UnknownUser`]; others when it is not durable.
    pub async fn grant_ward(
        &self,
        user: &UserName,
        ward: &Ward,
        now: Timestamp,
    ) -> Result<(), RegistryError> {
        let mut tx = self.db.begin().await?;
        let conn = tx.connection();
        require_user(user, conn).await?;
        sqlx::query(
            "INSERT INTO user_wards (user_name, ward, granted_at_us) VALUES ($1, $2, $3) \
             ON CONFLICT (user_name, ward) DO NOTHING",
        )
        .bind(user.as_str())
        .bind(ward.as_str())
        .bind(us(now))
        .execute(conn)
        .await?;
        tx.commit().await?;
        self.listeners.send_replace(());
        Ok(())
    }

    /// The wards that a person was granted.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn wards_of(&self, user: &UserName) -> Result<BTreeSet<Ward>, RegistryError> {
        let wards: Vec<String> =
            sqlx::query_scalar("SELECT ward FROM user_wards WHERE user_name = $1")
                .bind(user.as_str())
                .fetch_all(self.db.pool())
                .await?;
        Ok(wards
            .iter()
            .map(|ward| parsed(ward))
            .collect::<Result<_, _>>()?)
    }

    /// Rung after every change of who may listen to what, once it is durable.
    #[must_use]
    pub fn listeners_changed(&self) -> watch::Receiver<()> {
        self.listeners.subscribe()
    }

    /// What the revocation list has to name of subscribers: as of devices, unless it ran out `listed_for` ago.
    pub(super) async fn revoked_subscribers(
        &self,
        now: Timestamp,
        listed_for: SignedDuration,
    ) -> Result<Vec<RevokedCertificate>, RegistryError> {
        let rows: Vec<(Vec<u8>, i64)> = sqlx::query_as(
            "SELECT der, revoked_at_us FROM subscribers WHERE revoked_at_us IS NOT NULL \
             ORDER BY revoked_at_us, subscriber",
        )
        .fetch_all(self.db.pool())
        .await?;
        let mut revoked = Vec::with_capacity(rows.len());
        for (der, revoked_at) in rows {
            let certificate = SubscriberCertificate::from_der(&der).map_err(damaged)?;
            if now.duration_since(certificate.not_after()) <= listed_for {
                revoked.push(RevokedCertificate {
                    serial: certificate.serial().into(),
                    at: at(revoked_at)?,
                    reason: RevocationReason::Revoked,
                });
            }
        }
        Ok(revoked)
    }
}

async fn read(row: &database::Row, conn: &mut Connection) -> Result<SubscriberRow, RegistryError> {
    let name: &str = row.try_get("subscriber")?;
    let wards: Vec<String> =
        sqlx::query_scalar("SELECT ward FROM subscriber_wards WHERE subscriber = $1")
            .bind(name)
            .fetch_all(conn)
            .await?;
    let certificate = SubscriberCertificate::from_der(row.try_get("der")?).map_err(damaged)?;
    Ok(SubscriberRow {
        subscriber: certificate.subscriber().clone(),
        certificate: *certificate.thumbprint(),
        wards: match wards.iter().any(|ward| ward == EVERY_WARD) {
            true => Wards::All,
            false => Wards::These(
                wards
                    .iter()
                    .map(|ward| parsed(ward))
                    .collect::<Result<_, _>>()?,
            ),
        },
        enrolled_at: at(row.try_get("enrolled_at_us")?)?,
        revoked_at: at_opt(row.try_get("revoked_at_us")?)?,
        revoked_reason: row.try_get("revoked_reason")?,
    })
}
