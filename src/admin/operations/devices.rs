//! Devices: enrolled, assigned, suspended, reinstated, revoked; what is here of their messages, and proofs against their
//! clones.

use std::ops::RangeInclusive;

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::Value;
use vitalseal_crypto::{DeviceCertificate, DeviceId, SubjectPseudonym};
use vitalseal_storage::ports::AuditEvent;
use vitalseal_storage::{BootChain, DeviceState};

use super::{Act, json, reason_text};
use crate::admin::views::{
    AssignedView, AssignmentView, BootView, CertificateView, CloneProofView, DeviceView,
    EnrolledView, StandingView,
};

pub(super) async fn enroll(
    act: &Act<'_>,
    device: &DeviceId,
    csr_pem: &str,
) -> anyhow::Result<Value> {
    let registry = &act.system.store.registry;
    anyhow::ensure!(
        registry.device(device).await?.is_none(),
        "device {device} is enrolled already; choose another id"
    );
    let authority = &act.system.authority;
    let issued = authority
        .issue_device(csr_pem, device, act.now)
        .with_context(|| format!("certifying device {device}"))?;
    registry.enroll_device(&issued.certificate, act.now).await?;
    let certificate = *issued.certificate.thumbprint();
    act.audited(AuditEvent::DeviceEnrolled {
        device: device.clone(),
        certificate,
    })
    .await?;
    json(&EnrolledView {
        device,
        certificate: certificate.to_string(),
        not_after: issued.certificate.not_after(),
        pem: issued.pem,
        ca_pem: authority.bundle_pem(),
    })
}

/// Of revoked devices and replaced ones too: what was signed under them stays verifiable.
pub(super) async fn certificates(act: &Act<'_>) -> anyhow::Result<Value> {
    let certificates = act.system.store.registry.device_certificates().await?;
    let view = |certificate: &DeviceCertificate| {
        json(&CertificateView {
            device: certificate.device(),
            certificate: certificate.thumbprint().to_string(),
            not_before: certificate.not_before(),
            not_after: certificate.not_after(),
            pem: certificate.to_pem(),
        })
    };
    certificates.iter().map(view).collect()
}

pub(super) async fn assign(
    act: &Act<'_>,
    device: DeviceId,
    patient: SubjectPseudonym,
    since: Option<Timestamp>,
) -> anyhow::Result<Value> {
    let registry = &act.system.store.registry;
    let from = since.unwrap_or(act.now);
    anyhow::ensure!(
        from <= act.now,
        "{from} is in the future; assign the device when it is in the patient's hands"
    );
    registry.assign_device(&device, &patient, from).await?;
    let view = json(&AssignedView {
        device: &device,
        patient: patient.as_str(),
        since: from,
    })?;
    act.audited(AuditEvent::DeviceAssigned {
        device,
        patient,
        since: Some(from),
    })
    .await?;
    Ok(view)
}

pub(super) async fn assignments(act: &Act<'_>, device: &DeviceId) -> anyhow::Result<Value> {
    let record = act.system.store.registry.device(device).await?;
    let record = record.with_context(|| no_device(device))?;
    let history = record.assignments.iter().map(|of| AssignmentView {
        patient: of.subject.as_str(),
        since: of.from,
        until: of.until,
    });
    json(&history.collect::<Vec<_>>())
}

pub(super) async fn list(act: &Act<'_>) -> anyhow::Result<Value> {
    let rows = act.system.store.registry.devices().await?;
    let view: Vec<_> = rows
        .iter()
        .map(|row| DeviceView {
            device: &row.id,
            state: row.state.as_str(),
            patient: row.patient.as_ref().map(SubjectPseudonym::as_str),
            enrolled_at: row.enrolled_at,
            state_since: row.state_since,
            state_reason: row.state_reason.as_deref(),
        })
        .collect();
    json(&view)
}

/// Audited first, as each of these decisions is: what cannot be recorded is not done, and asking again does both.
pub(super) async fn revoke(act: &Act<'_>, device: DeviceId, reason: &str) -> anyhow::Result<Value> {
    let store = &act.system.store;
    let reason = reason_text(reason)?;
    // Of an unknown device the registry says so.
    if store.registry.device(&device).await?.is_some() {
        let event = AuditEvent::DeviceRevoked {
            device: device.clone(),
            reason: reason.clone(),
        };
        act.audited(event).await?;
    }
    store
        .registry
        .revoke_device(&device, &reason, act.now)
        .await?;
    // Nothing of it is opened any more; that it could name its sessions is of no use. Nor does it come for anything.
    store.inbox.forget_senders(&device).await?;
    store.inbox.forget_downlink(&device).await?;
    standing(act, &device, DeviceState::Revoked).await
}

pub(super) async fn suspend(
    act: &Act<'_>,
    device: DeviceId,
    reason: &str,
) -> anyhow::Result<Value> {
    let registry = &act.system.store.registry;
    let reason = reason_text(reason)?;
    let record = registry.device(&device).await?;
    if record.is_some_and(|record| record.state == DeviceState::Active) {
        let event = AuditEvent::DeviceSuspended {
            device: device.clone(),
            reason: reason.clone(),
        };
        act.audited(event).await?;
    }
    anyhow::ensure!(
        registry.suspend_device(&device, &reason, act.now).await?,
        "device {device} is suspended already (`vitalseal device list` says why)"
    );
    standing(act, &device, DeviceState::Suspended).await
}

/// Audited first: a device that is let in again without a record of who decided it must not be.
pub(super) async fn reinstate(
    act: &Act<'_>,
    device: DeviceId,
    reason: &str,
) -> anyhow::Result<Value> {
    let registry = &act.system.store.registry;
    let reason = reason_text(reason)?;
    let record = registry.device(&device).await?;
    // Of another state the registry says why not.
    if record.is_some_and(|record| record.state == DeviceState::Suspended) {
        let event = AuditEvent::DeviceReinstated {
            device: device.clone(),
            reason: reason.clone(),
        };
        act.audited(event).await?;
    }
    registry.reinstate_device(&device, &reason, act.now).await?;
    standing(act, &device, DeviceState::Active).await
}

/// The answer once a device's state changed, which stands whatever becomes of the list: sessions are judged by the
/// registry.
async fn standing(act: &Act<'_>, device: &DeviceId, state: DeviceState) -> anyhow::Result<Value> {
    let revocation_list_fault = list_fault(act).await;
    json(&StandingView {
        device,
        state: state.as_str(),
        revocation_list: act.system.revocations.list().number(),
        revocation_list_fault,
    })
}

/// Renews the revocation list, and says why that failed if it did.
pub(super) async fn list_fault(act: &Act<'_>) -> Option<String> {
    let error = act.system.renew_revocations().await.err()?;
    tracing::error!("renewing the revocation list: {error:#}; the one before is shown");
    Some(format!("{error:#}"))
}

pub(super) async fn chain(act: &Act<'_>, device: &DeviceId) -> anyhow::Result<Value> {
    let store = &act.system.store;
    let known = store.registry.device(device).await?;
    known.with_context(|| no_device(device))?;
    let boots = store.inbox.chain(device).await?;
    json(&boots.iter().map(boot_view).collect::<Vec<_>>())
}

pub(super) fn no_device(device: &DeviceId) -> String {
    format!("there is no device {device} here (`vitalseal device list`)")
}

fn boot_view(chain: &BootChain) -> BootView {
    BootView {
        boot: chain.boot,
        first: chain.first,
        last: chain.last,
        messages: chain.messages,
        missing: chain.missing,
        gaps: chain.gaps.iter().map(range).collect(),
        forks: chain.forks,
    }
}

/// `7`, or `7-9`.
fn range(gap: &RangeInclusive<u64>) -> String {
    match (gap.start(), gap.end()) {
        (one, same) if one == same => one.to_string(),
        (from, to) => format!("{from}-{to}"),
    }
}

/// The newest proof against a device, or the one of a boot.
pub(super) async fn clone_proof(
    act: &Act<'_>,
    device: &DeviceId,
    boot: Option<u64>,
) -> anyhow::Result<Value> {
    let proofs = act.system.store.inbox.clone_proofs(device).await?;
    let mut newest_first = proofs.iter().rev();
    let proof = newest_first.find(|proof| boot.is_none_or(|boot| proof.boot == boot));
    let proof = proof.with_context(|| {
        format!("there is no proof of a clone of device {device} (`vitalseal device chain` shows its forks)")
    })?;
    json(&CloneProofView {
        device,
        boot: proof.boot,
        found_at: proof.found_at,
        proof: &proof.proof,
    })
}
