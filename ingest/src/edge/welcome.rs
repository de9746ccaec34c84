//! Who may have a session: what was shown in the handshake and said in CONNECT, held against the registry.
//!
//! | Door | Shown | CONNECT | Who it is |
//! |---|---|---|---|
//! | any | a device's certificate | client id = device id | that device |
//! | any | a display's or service's | client id = its common name | that one |
//! | WebSocket | anything or nothing | login name and token; any client id | that person |
//!
//! A peer is told that it is not authorized, and never why. Tokens are 256 random bits and looked up by their hash: nobody
//! finds one by trying, so there is no lock-out that a stranger could use against a person.
//!
//! Never here: what happened in an earlier session; a decision that is kept.

use std::net::SocketAddr;
use std::time::Duration;

use vitalseal_storage::{AuthenticationError, DeviceState, RegistryError, Role, Ward, Wards};

use super::Carrier;
use super::acl::Permissions;
use super::closing::Closing;
use super::connection::Context;
use super::identity::{Principal, Shown};
use super::packet::{ConnectAnswer, Hello, Login};

/// A connection is not to go on: why, and what it is told.
pub(crate) type Refused = (Closing, ConnectAnswer);

/// How long a wrong token is made to wait. With the limits on connections it bounds guesses a second.
const REFUSAL_DELAY: Duration = Duration::from_millis(500);

/// The longest client id that a person's client may have; MQTT asks for 23 at least (v5 3.1.3.1).
const CLIENT_ID_BYTES: usize = 64;

impl Context {
    /// Says who a client is, by what it showed and says. It is not welcome yet.
    ///
    /// # Errors
    /// [`Refused`]; a refused login was made to wait, and recorded or counted.
    pub(crate) async fn identify(
        &self,
        carrier: &Carrier,
        shown: Option<&Shown>,
        hello: &mut Hello,
        peer: SocketAddr,
    ) -> Result<Principal, Refused> {
        let not_authorized = |why| (why, ConnectAnswer::NotAuthorized);
        // Overwritten as soon as it was checked; what TLS and the connection's buffer had of it is not.
        let login = hello.login.take();
        if let (Carrier::WebSocket { .. }, Some(login)) = (carrier, login) {
            return self.log_in(&login, hello, peer).await;
        }
        let shown = shown.ok_or(not_authorized(Closing::Login))?;
        if !shown.is_valid_at(self.clock.now()) {
            return Err(not_authorized(Closing::Certificate));
        }
        let principal = shown.principal();
        if hello.client_id != principal.client_id().as_str() {
            return Err((Closing::ClientId, ConnectAnswer::IdentifierRejected));
        }
        Ok(principal)
    }

    async fn log_in(
        &self,
        login: &Login,
        hello: &Hello,
        peer: SocketAddr,
    ) -> Result<Principal, Refused> {
        let now = self.clock.now();
        let token = login.password.as_str();
        let checked = self.authenticator.authenticate(&login.user, token, now);
        let login = match checked.await {
            Ok(checked) => checked,
            Err(AuthenticationError::Refused) => {
                self.refusals.record_login(&login.user, peer).await;
                tokio::time::sleep(REFUSAL_DELAY).await;
                return Err((Closing::Login, ConnectAnswer::NotAuthorized));
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "checking a token failed");
                return Err((Closing::Internal, ConnectAnswer::ServerUnavailable));
            }
        };
        let client = hello.client_id.as_str();
        let is_plain = client.bytes().all(|byte| byte.is_ascii_graphic());
        if !(1..=CLIENT_ID_BYTES).contains(&client.len()) || !is_plain {
            return Err((Closing::ClientId, ConnectAnswer::IdentifierRejected));
        }
        Ok(Principal::Person {
            who: login.who,
            until: login.until,
            client: client.into(),
        })
    }

    /// What this principal may do at present, `None` when it may not be here at all.
    ///
    /// # Errors
    /// `Internal` when the registry cannot say: then nobody is let in.
    pub(crate) async fn welcome(
        &self,
        principal: &Principal,
    ) -> Result<Option<Permissions>, Closing> {
        self.look_up(principal).await.map_err(|error| {
            let error = &error as &dyn std::error::Error;
            tracing::error!(client = %principal, error, "looking up a client failed");
            Closing::Internal
        })
    }

    async fn look_up(&self, principal: &Principal) -> Result<Option<Permissions>, RegistryError> {
        let registry = &self.store.registry;
        match principal {
            Principal::Device { id, certificate } => {
                let record = registry.device(id).await?.filter(|record| {
                    record.state == DeviceState::Active
                        && record.certificate.thumbprint() == certificate
                });
                Ok(record.map(|_| Permissions::of_device(id)))
            }
            Principal::Subscriber {
                subscriber,
                certificate,
            } => {
                let row = registry.subscriber(subscriber).await?;
                let row =
                    row.filter(|row| row.revoked_at.is_none() && row.certificate == *certificate);
                Ok(row.map(|row| Permissions::of_listener(row.wards)))
            }
            Principal::Person { who, until, .. } => {
                if *until <= self.clock.now() {
                    return Ok(None);
                }
                let mut wards = registry.wards_of(&who.user).await?;
                if who.role == Role::Admin {
                    wards.insert(Ward::system());
                }
                Ok(Some(Permissions::of_listener(Wards::These(wards))))
            }
        }
    }
}
