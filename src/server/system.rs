//! What every part of a running server may use, and the few acts that several of them share.

use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{Mutex, watch};
use vitalseal_compliance::access::Login;
use vitalseal_compliance::audit::AuditLog;
use vitalseal_crypto::CertificateAuthority;
use vitalseal_ingest::edge::{Announcer, Limits};
use vitalseal_ingest::{Alerts, Clones, ClusterMetrics, EdgeMetrics, Pipeline};
use vitalseal_query::QueryService;
use vitalseal_storage::ports::{Actor, AuditEvent, AuditRecord, AuditSink as _, Clock};
use vitalseal_storage::{Store, StorePaths};

use super::{Addresses, Revocations, Tended};
use crate::config::Config;

/// What every part of a running server may use.
#[derive(Debug)]
pub struct System {
    /// Where the server listens.
    pub addresses: Addresses,
    /// Registry, inbox, keys, catalog.
    pub store: Store,
    /// The audit log.
    pub audit: Arc<AuditLog>,
    /// Issues certificates.
    pub authority: CertificateAuthority,
    /// Password and TOTP for a token.
    pub login: Login,
    /// Answers SQL under policy.
    pub query: Arc<QueryService>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Settings that the server was started with.
    pub config: Config,
    /// The same, but for those that were changed since; locked while they are read again.
    pub running: Mutex<Config>,
    /// Paths of the store.
    pub paths: StorePaths,
    /// Takes messages in, and those that a review releases.
    pub pipeline: Pipeline,
    /// Held from the look at a quarantined message until it is released or dropped. Nobody else settles any.
    pub reviewing: Mutex<()>,
    /// The current envelope certificate (PEM), as published to devices.
    pub recipient: watch::Sender<Bytes>,
    /// The newest revocation list, and what the doors show.
    pub revocations: Revocations,
    /// What an operator must hear of.
    pub alerts: Alerts,
    /// Says something to many, if anybody connects here.
    pub announcer: Option<Announcer>,
    /// Counters of the edge.
    pub edge: Arc<EdgeMetrics>,
    /// Its limits, if devices connect here.
    pub edge_limits: Option<Limits>,
    /// What is done about clones.
    pub clones: Clones,
    /// What housekeeping did since the start.
    pub tended: Tended,
    /// Counters of the consumers, if there is a cluster.
    pub cluster: Option<Arc<ClusterMetrics>>,
}

/// What moved from the inbox into files.
#[derive(Debug, Default, Serialize)]
pub struct Flushed {
    /// Messages.
    pub messages: u64,
    /// Readings in them.
    pub readings: u64,
    /// Names of the new files.
    pub files: Vec<String>,
}

impl System {
    /// Writes one audit record and waits until it is durable.
    ///
    /// # Errors
    /// The audit log cannot be written; then the act it describes must not happen.
    pub async fn audited(&self, actor: Actor, event: AuditEvent) -> anyhow::Result<()> {
        let record = AuditRecord {
            at: self.clock.now(),
            actor,
            event,
        };
        self.audit
            .record(record)
            .await
            .context("writing the audit log")
    }

    /// Brings the revocation list up to what the registry says, and the doors to the list.
    ///
    /// # Errors
    /// The registry cannot be read or written, or the authority does not sign; the list before is shown.
    pub async fn renew_revocations(&self) -> anyhow::Result<()> {
        let now = self.clock.now();
        self.revocations
            .renew(&self.store, &self.authority, now)
            .await
    }

    /// Moves the inbox into Parquet and audits the file.
    ///
    /// # Errors
    /// The file, the catalog or the audit log cannot be written; the inbox keeps its rows.
    pub async fn flush(&self) -> anyhow::Result<Flushed> {
        let mut flushed = Flushed::default();
        loop {
            let report = self.store.flush(self.clock.now()).await?;
            for file in report.files {
                flushed.messages += file.messages;
                flushed.readings += file.readings;
                flushed.files.push(file.name.clone());
                let event = AuditEvent::ReadingsFlushed {
                    file: file.name,
                    messages: file.messages,
                    readings: file.readings,
                };
                self.audited(Actor::System, event).await?;
            }
            if !report.more {
                return Ok(flushed);
            }
        }
    }
}
