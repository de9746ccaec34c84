//! What each administrative request does: change first made durable, then audited, then answered;
//! reads of identities audited before the answer.

mod backup;
mod devices;
mod downlink;
mod keys;
mod listeners;
mod quarantine;
mod store;

use anyhow::Context as _;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use vitalseal_compliance::audit::AuditLog;
use vitalseal_compliance::{access, erasure, incident};
use vitalseal_crypto::SubjectPseudonym;
use vitalseal_storage::ports::{Actor, AuditEvent, UserName};
use vitalseal_storage::{Progress, QuarantineFilter};

use super::protocol::Request;
use super::views::{
    CaView, GrantView, IncidentView, PatientIdentityView, PatientStateView, PatientView,
    RecipientView, ReportView, RevocationListView, TokenView, UserView, VerifiedView,
};
use crate::credentials::CredentialsView;
use crate::files;
use crate::recipient;
use crate::server::System;

/// Reasons are kept for ever, so they stay short enough to be read.
const MAX_REASON_CHARS: usize = 500;

/// Performs one request of the local user `uid`; `progress` hears of what takes long.
pub(super) async fn perform(
    system: &System,
    uid: u32,
    request: Request,
    progress: &dyn Progress,
) -> anyhow::Result<Value> {
    let act = Act {
        system,
        actor: Actor::Local { uid },
        now: system.clock.now(),
    };
    match request {
        Request::ServerStatus => json(&system.addresses),
        Request::ServerReload => json(&system.reload(act.actor).await?),
        Request::CaShow => json(&CaView {
            pem: system.authority.bundle_pem(),
        }),
        Request::CaCrl => {
            let list = system.revocations.list();
            json(&RevocationListView {
                number: list.number(),
                next_update: list.next_update(),
                certificates: list.revoked().len(),
                pem: list.to_pem(),
            })
        }
        Request::RecipientShow => act.recipient_show().await,
        Request::PatientAdd { name, mrn } => {
            act.patient_add(
                name.as_ref().map(|n| n.expose()),
                mrn.as_ref().map(|m| m.expose()),
            )
            .await
        }
        Request::PatientList => act.patient_list().await,
        Request::PatientShow { patient } => act.patient_show(&patient).await,
        Request::DeviceEnroll { device, csr_pem } => devices::enroll(&act, &device, &csr_pem).await,
        Request::DeviceAssign {
            device,
            patient,
            since,
        } => devices::assign(&act, device, patient, since).await,
        Request::DeviceAssignments { device } => devices::assignments(&act, &device).await,
        Request::DeviceList => devices::list(&act).await,
        Request::DeviceCertificates => devices::certificates(&act).await,
        Request::DeviceRevoke { device, reason } => devices::revoke(&act, device, &reason).await,
        Request::DeviceSuspend { device, reason } => devices::suspend(&act, device, &reason).await,
        Request::DeviceReinstate { device, reason } => {
            devices::reinstate(&act, device, &reason).await
        }
        Request::DeviceChain { device } => devices::chain(&act, &device).await,
        Request::DeviceSend {
            device,
            content,
            expires_s,
        } => downlink::send(&act, device, content.expose(), expires_s).await,
        Request::DeviceDownlink { device } => downlink::waiting(&act, &device).await,
        Request::DeviceCloneProof { device, boot } => {
            devices::clone_proof(&act, &device, boot).await
        }
        Request::DisplayEnroll {
            subscriber,
            wards,
            csr_pem,
        } => listeners::enroll(&act, subscriber, wards, &csr_pem).await,
        Request::DisplayList => listeners::list(&act).await,
        Request::DisplayRevoke { subscriber, reason } => {
            listeners::revoke(&act, subscriber, &reason).await
        }
        Request::NoticeSend { notice } => {
            listeners::send_notice(&act, notice.expose().to_vec()).await
        }
        Request::AlertTest { ward } => listeners::test_alert(&act, ward).await,
        Request::UserAdd { user, role } => {
            let registry = &system.store.registry;
            let actor = act.actor.clone();
            let made =
                access::add_user(registry, &*system.audit, actor, user, role, act.now).await?;
            json(&CredentialsView::from(&made))
        }
        Request::UserGrant { user, patient } => act.user_grant(user, patient).await,
        Request::UserGrantWard { user, ward } => listeners::grant_ward(&act, user, ward).await,
        Request::UserList => act.user_list().await,
        Request::TokenIssue {
            user,
            password,
            totp,
        } => {
            let (password, totp) = (password.expose(), totp.expose());
            let token = system
                .login
                .login(user.as_str(), password, totp, act.now)
                .await?;
            json(&TokenView {
                token: token.token.as_str(),
                expires_at: token.expires_at,
            })
        }
        Request::QuarantineList {
            limit,
            device,
            reason,
            state,
        } => {
            let filter = QuarantineFilter {
                device,
                reason: reason.as_deref().map(str::parse).transpose()?,
                state: state.as_deref().map(str::parse).transpose()?,
            };
            quarantine::list(&act, &filter, limit).await
        }
        Request::QuarantineShow { id } => quarantine::show(&act, id).await,
        Request::QuarantineRelease { id, reason } => quarantine::release(&act, id, &reason).await,
        Request::QuarantineDrop { id, reason } => quarantine::drop(&act, id, &reason).await,
        Request::AuditTail { limit } => json(&system.audit.tail(limit).await?),
        Request::AuditVerify { checkpoint } => {
            let verified = system.audit.verify(checkpoint.as_deref()).await?;
            let checkpoint = system.audit.checkpoint().await?;
            json(&VerifiedView {
                ok: verified.is_sound(),
                verified,
                checkpoint,
            })
        }
        Request::KeysStatus => keys::status(&act).await,
        Request::KeysRotate { patient: None } => keys::rotate_root(&act).await,
        Request::KeysRotate {
            patient: Some(patient),
        } => keys::rotate_kek(&act, &patient).await,
        Request::Backup { out } => backup::take(&act, &out).await,
        Request::Flush => json(&system.flush().await?),
        Request::StoreStatus => store::status(&act).await,
        Request::StoreCheck { keys, repair } => store::check(&act, keys, repair, progress).await,
        Request::StoreCompact { force } => store::compact(&act, force, progress).await,
        Request::StoreVacuum => store::vacuum(&act, progress).await,
        Request::Erase { patient, reason } => act.erase(&patient, &reason).await,
        Request::IncidentOpen {
            kind,
            from,
            to,
            devices,
            users,
            aware_at,
            aware_reason,
        } => {
            let kind: incident::IncidentKind = kind.parse()?;
            let new = incident::NewIncident {
                devices,
                users,
                aware_reason: reason_text(&aware_reason)?,
                ..incident::NewIncident::new(kind, from, to, aware_at, act.actor.clone())
            };
            let opened = incident::open(&act.incident_deps(), new, act.now).await?;
            json(&act.incident_view(&opened))
        }
        Request::IncidentReport { incident } => {
            let deps = act.incident_deps();
            let report = incident::report(&deps, &incident, act.actor.clone(), act.now).await?;
            let markdown = report.to_markdown();
            json(&ReportView { markdown, report })
        }
        Request::IncidentList => act.incident_list().await,
    }
}

struct Act<'a> {
    system: &'a System,
    actor: Actor,
    now: Timestamp,
}

impl Act<'_> {
    async fn audited(&self, event: AuditEvent) -> anyhow::Result<()> {
        self.system.audited(self.actor.clone(), event).await
    }

    fn incident_deps(&self) -> incident::IncidentDeps {
        let System {
            store,
            audit,
            config,
            ..
        } = self.system;
        incident::IncidentDeps {
            store: store.clone(),
            audit: AuditLog::clone(audit),
            parties: config.controller.clone(),
        }
    }

    fn incident_view<'i>(&self, incident: &'i incident::Incident) -> IncidentView<'i> {
        let clock = incident::NotificationClock::new(incident.aware_at, self.now);
        IncidentView {
            incident: &incident.id,
            kind: incident.kind.to_string(),
            aware_at: incident.aware_at,
            due_at: clock.due_at,
            late: clock.late,
            reports: incident.reports.len(),
        }
    }

    async fn incident_list(&self) -> anyhow::Result<Value> {
        let stored = self.system.store.registry.incidents().await?;
        let mut incidents: Vec<incident::Incident> = Vec::with_capacity(stored.len());
        for json in stored {
            incidents.push(serde_json::from_str(&json).context("reading an incident")?);
        }
        json(
            &incidents
                .iter()
                .map(|incident| self.incident_view(incident))
                .collect::<Vec<_>>(),
        )
    }

    async fn recipient_show(&self) -> anyhow::Result<Value> {
        let certificate = recipient::current(&self.system.store, self.now).await?;
        json(&RecipientView {
            kid: certificate.kid().to_string(),
            not_after: certificate.not_after(),
            pem: certificate.to_pem(),
        })
    }

    async fn patient_add(&self, name: Option<&str>, mrn: Option<&str>) -> anyhow::Result<Value> {
        let patient = self
            .system
            .store
            .registry
            .add_patient(name, mrn, self.now)
            .await?;
        self.audited(AuditEvent::PatientAdded {
            patient: patient.clone(),
        })
        .await?;
        json(&PatientView {
            patient: patient.as_str(),
        })
    }

    async fn patient_list(&self) -> anyhow::Result<Value> {
        let rows = self.system.store.registry.patients().await?;
        let view: Vec<_> = rows
            .iter()
            .map(|row| PatientStateView {
                patient: row.subject.as_str(),
                state: row.state.as_str(),
                created_at: row.created_at,
            })
            .collect();
        json(&view)
    }

    async fn patient_show(&self, patient: &SubjectPseudonym) -> anyhow::Result<Value> {
        let row = self.system.store.registry.patient(patient).await?;
        let row = row.with_context(|| no_patient(patient))?;
        self.audited(AuditEvent::IdentityResolved {
            patient: patient.clone(),
        })
        .await?;
        let identity = row.identity.as_ref();
        json(&PatientIdentityView {
            patient: row.subject.as_str(),
            state: row.state.as_str(),
            created_at: row.created_at,
            name: identity.and_then(|identity| identity.name.as_deref()),
            mrn: identity.and_then(|identity| identity.mrn.as_deref()),
        })
    }

    async fn user_grant(&self, user: UserName, patient: SubjectPseudonym) -> anyhow::Result<Value> {
        self.system
            .store
            .registry
            .grant(&user, &patient, self.now)
            .await?;
        let view = json(&GrantView {
            user: user.as_str(),
            patient: patient.as_str(),
        })?;
        self.audited(AuditEvent::AccessGranted { user, patient })
            .await?;
        Ok(view)
    }

    async fn user_list(&self) -> anyhow::Result<Value> {
        let rows = self.system.store.registry.users().await?;
        let view: Vec<_> = rows
            .iter()
            .map(|(user, role)| UserView {
                user: user.as_str(),
                role: role.as_str(),
            })
            .collect();
        json(&view)
    }

    async fn erase(&self, patient: &SubjectPseudonym, reason: &str) -> anyhow::Result<Value> {
        let System { store, audit, .. } = self.system;
        let deps = erasure::ErasureDeps {
            store: store.clone(),
            audit: AuditLog::clone(audit),
        };
        let reason = reason_text(reason)?;
        let certificate =
            erasure::erase(&deps, patient, &reason, self.actor.clone(), self.now).await?;
        // Whatever becomes of the answer, the certificate is kept: it cannot be issued twice. That it could
        // not be written must not keep it from the one who asked.
        let kept = self
            .system
            .paths
            .erasure_certificate(&certificate.statement.erasure);
        if let Err(error) = files::keep_document(&kept, certificate.to_json()?.as_bytes()) {
            tracing::error!("keeping a certificate of erasure: {error:#}; keep the answer instead");
        }
        json(&certificate)
    }
}

/// A reason that an operator typed: one line, not empty, not a novel.
fn reason_text(text: &str) -> anyhow::Result<String> {
    let text = text.trim();
    anyhow::ensure!(
        !text.is_empty(),
        "a reason is needed; it is kept in the audit log"
    );
    anyhow::ensure!(
        text.chars().count() <= MAX_REASON_CHARS && !text.chars().any(char::is_control),
        "a reason is one line of at most {MAX_REASON_CHARS} characters"
    );
    Ok(text.to_owned())
}

fn no_patient(patient: &SubjectPseudonym) -> String {
    format!(
        "there is no patient {} here (`vitalseal patient list`)",
        patient.as_str()
    )
}

fn json(view: &impl Serialize) -> anyhow::Result<Value> {
    serde_json::to_value(view).context("encoding the answer")
}
