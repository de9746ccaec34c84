//! What an authenticated connection carries.

use std::fmt;
use std::sync::Arc;

use pgwire::api::ClientInfo;
use pgwire::error::PgWireResult;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::cancel::{Current, Registered};
use super::fatal;
use crate::service::QueryDeps;
use crate::session::QuerySession;

/// A session and the token that it lives by. Only [`Login`](super::login::Login) makes one.
pub(super) struct Connection {
    pub(super) session: QuerySession,
    deps: Arc<QueryDeps>,
    user: String,
    token: Zeroizing<String>,
    current: Arc<Current>,
    shutdown: CancellationToken,
    _registered: Registered,
}

impl Connection {
    pub(super) fn new(
        session: QuerySession,
        deps: Arc<QueryDeps>,
        user: String,
        token: Zeroizing<String>,
        current: Arc<Current>,
        registered: Registered,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            session,
            deps,
            user,
            token,
            current,
            shutdown,
            _registered: registered,
        }
    }

    /// The connection behind `client`, if it logged in and its token still holds as the same identity.
    ///
    /// # Errors
    /// A fatal error for the client otherwise.
    pub(super) async fn of<C: ClientInfo + Sync>(client: &C) -> PgWireResult<Arc<Self>> {
        let found = client.session_extensions().get::<Self>();
        let connection = found.ok_or_else(|| fatal("28000", "not authenticated"))?;
        let now = connection.deps.clock.now();
        let checked =
            connection
                .deps
                .authenticator
                .authenticate(&connection.user, &connection.token, now);
        match checked.await {
            Ok(login) if login.who == *connection.session.identity() => Ok(connection),
            _ => Err(fatal(
                "28P01",
                "the token is not valid any more: log in again",
            )),
        }
    }

    /// The token of the query that begins now: fired by a cancel request or by the shutdown.
    pub(super) fn begin_query(&self) -> CancellationToken {
        let token = self.shutdown.child_token();
        self.current.begin(token.clone());
        token
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
