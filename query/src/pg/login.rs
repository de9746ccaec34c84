//! From the startup message to a session.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::{Sink, SinkExt};
use pgwire::api::auth::{
    DefaultServerParameterProvider, StartupHandler, finish_authentication, protocol_negotiation,
    save_startup_parameters_to_metadata,
};
use pgwire::api::{ClientInfo, METADATA_DATABASE, METADATA_USER, PgWireConnectionState};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::startup::{Authentication, SecretKey};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage, ProtocolVersion};
use tokio_util::sync::CancellationToken;
use vitalseal_storage::ports::{
    Actor, AuditEvent, AuditRecord, AuthenticationError, Purpose, UserName,
};
use zeroize::Zeroizing;

use super::cancel::{Cancels, Current};
use super::connection::Connection;
use super::{SERVER_VERSION, error, fatal};
use crate::engine::DATABASE;
use crate::service::QueryService;

/// How long a wrong token is made to wait. With the connection limit it bounds guesses (and audit
/// records) per second; tokens are 256 bits, so it need not be longer.
const REFUSAL_DELAY: Duration = Duration::from_millis(500);

/// The startup handler of one connection.
pub(super) struct Login {
    pub(super) service: Arc<QueryService>,
    pub(super) cancels: Arc<Cancels>,
    pub(super) pids: Arc<AtomicI32>,
    pub(super) peer: SocketAddr,
    pub(super) shutdown: CancellationToken,
}

#[async_trait]
impl StartupHandler for Login {
    async fn on_startup<C>(
        &self,
        client: &mut C,
        message: PgWireFrontendMessage,
    ) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        match message {
            PgWireFrontendMessage::Startup(startup) => {
                protocol_negotiation(client, &startup).await?;
                save_startup_parameters_to_metadata(client, &startup);
                client.set_state(PgWireConnectionState::AuthenticationInProgress);
                let ask = PgWireBackendMessage::Authentication(Authentication::CleartextPassword);
                client.send(ask).await?;
                Ok(())
            }
            PgWireFrontendMessage::PasswordMessageFamily(password)
                if matches!(
                    client.state(),
                    PgWireConnectionState::AuthenticationInProgress
                ) =>
            {
                let token = Zeroizing::new(password.into_password()?.password);
                self.admit(client, token).await
            }
            _ => Err(fatal("08P01", "unexpected message before authentication")),
        }
    }
}

impl Login {
    async fn admit<C>(&self, client: &mut C, token: Zeroizing<String>) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let deps = &self.service.deps;
        let user = client
            .metadata()
            .get(METADATA_USER)
            .cloned()
            .unwrap_or_default();
        let checked = deps
            .authenticator
            .authenticate(&user, &token, deps.clock.now())
            .await;
        let who = match checked {
            Ok(login) => login.who,
            Err(AuthenticationError::Refused) => {
                self.record_failure(&user).await?;
                tokio::time::sleep(REFUSAL_DELAY).await;
                return Err(fatal("28P01", "authentication failed"));
            }
            Err(cause) => {
                tracing::error!(error = &cause as &dyn std::error::Error, "checking a token");
                return Err(fatal("57P03", "authentication is not available"));
            }
        };
        let database = client
            .metadata()
            .get(METADATA_DATABASE)
            .map_or(user.as_str(), |d| d);
        if database != DATABASE {
            return Err(fatal(
                "3D000",
                format!("the only database here is \"{DATABASE}\""),
            ));
        }
        let purpose = purpose(client.metadata().get("options").map(String::as_str))?;
        let session = self.service.session(who, purpose).await.map_err(|cause| {
            tracing::error!(
                error = &cause as &dyn std::error::Error,
                "opening a session"
            );
            fatal("XX000", "the session could not be opened")
        })?;

        let pid = self.pids.fetch_add(1, Ordering::Relaxed);
        let secret = secret(client.protocol_version())?;
        let current = Arc::new(Current::default());
        let registered = self
            .cancels
            .enter(pid, secret.to_bytes().to_vec(), Arc::clone(&current));
        client.set_pid_and_secret_key(pid, secret);
        client.session_extensions().insert(Connection::new(
            session,
            Arc::clone(deps),
            user,
            token,
            current,
            registered,
            self.shutdown.clone(),
        ));
        let mut parameters = DefaultServerParameterProvider::default();
        SERVER_VERSION.clone_into(&mut parameters.server_version);
        parameters.is_superuser = false;
        parameters.default_transaction_read_only = true;
        "UTC".clone_into(&mut parameters.time_zone);
        finish_authentication(client, &parameters).await
    }

    /// A refusal that cannot be recorded still is one; the client learns no difference.
    async fn record_failure(&self, user: &str) -> PgWireResult<()> {
        let deps = &self.service.deps;
        let event = match user.parse::<UserName>() {
            Ok(user) => AuditEvent::LoginFailed { user },
            Err(_) => AuditEvent::ConnectionRefused {
                door: "sql".to_owned(),
                peer: Some(self.peer.ip().to_string()),
                reason: "not a user name".to_owned(),
            },
        };
        let record = AuditRecord {
            at: deps.clock.now(),
            actor: Actor::System,
            event,
        };
        deps.audit.record(record).await.map_err(|cause| {
            tracing::error!(
                error = &cause as &dyn std::error::Error,
                "recording a failed login"
            );
            fatal("28P01", "authentication failed")
        })
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// The declared purpose: `options=-c vitalseal.purpose=TREAT` when connecting, treatment otherwise.
fn purpose(options: Option<&str>) -> PgWireResult<Purpose> {
    let declared = options
        .into_iter()
        .flat_map(str::split_whitespace)
        .filter_map(|word| {
            word.trim_start_matches("-c")
                .trim_start_matches("--")
                .split_once('=')
        })
        .find(|(name, _)| *name == "vitalseal.purpose");
    match declared {
        None => Ok(Purpose::Treatment),
        Some((_, code)) => code
            .parse()
            .map_err(|cause| fatal("22023", format!("vitalseal.purpose: {cause}"))),
    }
}

/// A fresh secret for cancel requests: 32 bits in protocol 3.0, which has no room for more, else 256.
fn secret(version: ProtocolVersion) -> PgWireResult<SecretKey> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|_| error("XX000", "no randomness"))?;
    Ok(match version {
        ProtocolVersion::PROTOCOL3_0 => {
            SecretKey::I32(i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        }
        _ => SecretKey::Bytes(bytes.to_vec().into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_is_declared_when_connecting() {
        assert_eq!(purpose(None).unwrap(), Purpose::Treatment);
        assert_eq!(purpose(Some("-c geqo=off")).unwrap(), Purpose::Treatment);
        assert_eq!(
            purpose(Some("-c vitalseal.purpose=ETREAT")).unwrap(),
            Purpose::EmergencyTreatment
        );
        assert_eq!(
            purpose(Some("--vitalseal.purpose=HRESCH")).unwrap(),
            Purpose::Research
        );
        assert!(purpose(Some("-c vitalseal.purpose=CURIOSITY")).is_err());
    }
}
