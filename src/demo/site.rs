//! What the demo's steps share: the server, its devices, one clinician.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::Value;
use tokio_postgres::Client;
use vitalseal_storage::StorePaths;
use vitalseal_storage::ports::UserName;

use crate::admin::client::ask;
use crate::admin::protocol::{Private, Request};
use crate::commands::text;
use crate::server::Server;
use crate::simulate::{Player, Source};
use crate::sql_client;

/// One device of the demo.
pub(super) struct Member {
    pub(super) name: &'static str,
    pub(super) patient: String,
    pub(super) source: Source,
    pub(super) directory: PathBuf,
    pub(super) player: Player,
}

/// The demo's hospital.
pub(super) struct Site {
    pub(super) directory: PathBuf,
    pub(super) data: PathBuf,
    pub(super) server: Option<Server>,
    pub(super) authorities: String,
    pub(super) members: Vec<Member>,
    pub(super) clinician: UserName,
    pub(super) token: String,
    pub(super) acked: u64,
    pub(super) readings: u64,
    pub(super) rows: u64,
}

impl Site {
    pub(super) fn new(directory: PathBuf) -> anyhow::Result<Self> {
        Ok(Self {
            data: directory.join("data"),
            directory,
            server: None,
            authorities: String::new(),
            members: Vec::new(),
            clinician: "nora".parse()?,
            token: String::new(),
            acked: 0,
            readings: 0,
            rows: 0,
        })
    }

    pub(super) fn paths(&self) -> StorePaths {
        StorePaths::new(&self.data, None)
    }

    /// One administrative act, through the socket as any operator's.
    pub(super) async fn ask(&self, request: Request) -> anyhow::Result<Value> {
        ask(&self.paths().admin_socket(), &request).await
    }

    pub(super) fn mqtt(&self) -> anyhow::Result<SocketAddr> {
        let mqtt = self.running()?.addresses.mqtt;
        mqtt.context("the server has no MQTT edge")
    }

    pub(super) fn running(&self) -> anyhow::Result<&Server> {
        self.server.as_ref().context("the server does not run")
    }

    /// Lets the clinician in: password and code for a token.
    pub(super) async fn login(&mut self, credentials: &Value) -> anyhow::Result<()> {
        let server = self.running()?;
        let secret = text(credentials, "totp_secret")?;
        let code = crate::credentials::totp_code(secret, server.system.clock.now())?;
        let request = Request::TokenIssue {
            user: self.clinician.clone(),
            password: Private::new(text(credentials, "password")?.to_owned()),
            totp: Private::new(code),
        };
        self.token = text(&self.ask(request).await?, "token")?.to_owned();
        Ok(())
    }

    /// A connection through the PostgreSQL door, as `psql` makes one.
    pub(super) async fn sql(&self) -> anyhow::Result<Client> {
        let address = self.running()?.addresses.sql;
        sql_client::connect(
            address,
            &self.authorities,
            self.clinician.as_str(),
            &self.token,
        )
        .await
    }

    /// One number that a statement answers.
    pub(super) async fn count(&self, sql: &str) -> anyhow::Result<u64> {
        let row = self
            .sql()
            .await?
            .query_one(sql, &[])
            .await
            .context("asking SQL")?;
        u64::try_from(row.get::<_, i64>(0)).context("reading a count")
    }

    /// The member of that name.
    pub(super) fn member(&mut self, name: &str) -> anyhow::Result<&mut Member> {
        self.members
            .iter_mut()
            .find(|member| member.name == name)
            .context("no such device")
    }

    /// Stops the server, if it runs.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        match self.server.take() {
            Some(server) => server.stop().await,
            None => Ok(()),
        }
    }
}

/// Loopback, any free port.
pub(super) fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}
