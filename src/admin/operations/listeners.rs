//! Displays and services, the wards that people hear, and what an operator says to many.

use anyhow::Context as _;
use serde_json::{Value, json};
use vitalseal_crypto::{Subscriber, SubscriberRole, default_backend};
use vitalseal_ingest::edge::{Announcer, MAX_NOTICE_BYTES};
use vitalseal_ingest::{Alert, Raised};
use vitalseal_storage::ports::{AuditEvent, UserName, Ward, Wards};

use super::{Act, devices, reason_text};

/// `wards`: `None` is every ward.
pub(super) async fn enroll(
    act: &Act<'_>,
    subscriber: Subscriber,
    wards: Option<Vec<Ward>>,
    csr_pem: &str,
) -> anyhow::Result<Value> {
    let (registry, authority) = (&act.system.store.registry, &act.system.authority);
    anyhow::ensure!(
        wards.is_some() || subscriber.role() == SubscriberRole::Service,
        "only a service may hear every ward; name the display's wards with --ward"
    );
    let issued = authority
        .issue_subscriber(csr_pem, &subscriber, act.now)
        .with_context(|| format!("certifying {subscriber}"))?;
    let hears = match &wards {
        Some(wards) => Wards::These(wards.iter().cloned().collect()),
        None => Wards::All,
    };
    let certificate = &issued.certificate;
    registry
        .enroll_subscriber(certificate, &hears, act.now)
        .await?;
    let answer = json!({
        "subscriber": subscriber,
        "wards": spelled(&hears),
        "certificate": certificate.thumbprint().to_string(),
        "not_after": certificate.not_after(),
        "pem": issued.pem,
        "ca_pem": authority.bundle_pem(),
    });
    act.audited(AuditEvent::SubscriberEnrolled {
        subscriber,
        certificate: *certificate.thumbprint(),
        wards: wards.unwrap_or_default(),
    })
    .await?;
    Ok(answer)
}

pub(super) async fn list(act: &Act<'_>) -> anyhow::Result<Value> {
    let rows = act.system.store.registry.subscribers().await?;
    let rows = rows.iter().map(|row| {
        json!({
            "subscriber": row.subscriber,
            "state": if row.revoked_at.is_some() { "revoked" } else { "active" },
            "wards": spelled(&row.wards),
            "enrolled_at": row.enrolled_at,
        })
    });
    Ok(rows.collect())
}

pub(super) async fn revoke(
    act: &Act<'_>,
    subscriber: Subscriber,
    reason: &str,
) -> anyhow::Result<Value> {
    let reason = reason_text(reason)?;
    let registry = &act.system.store.registry;
    registry
        .revoke_subscriber(&subscriber, &reason, act.now)
        .await?;
    let event = AuditEvent::SubscriberRevoked {
        subscriber: subscriber.clone(),
        reason,
    };
    act.audited(event).await?;
    // It is out in any case: the list says the same to those who cannot ask the registry.
    Ok(json!({
        "subscriber": subscriber,
        "state": "revoked",
        "revocation_list_fault": devices::list_fault(act).await,
    }))
}

pub(super) async fn grant_ward(act: &Act<'_>, user: UserName, ward: Ward) -> anyhow::Result<Value> {
    let registry = &act.system.store.registry;
    registry.grant_ward(&user, &ward, act.now).await?;
    let answer = json!({ "user": user, "ward": ward });
    act.audited(AuditEvent::WardGranted { user, ward }).await?;
    Ok(answer)
}

pub(super) async fn send_notice(act: &Act<'_>, notice: Vec<u8>) -> anyhow::Result<Value> {
    let bytes = notice.len();
    anyhow::ensure!(
        (1..=MAX_NOTICE_BYTES).contains(&bytes),
        "a notice has 1 to {MAX_NOTICE_BYTES} bytes, this one {bytes}"
    );
    let announcer = announcer(act)?;
    let hash = default_backend().sha256(&[&notice]);
    let sha256: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let answer = json!({ "topic": "v1/notices", "bytes": bytes, "sha256": sha256 });
    // What was said to every device cannot be taken back: recorded first.
    act.audited(AuditEvent::NoticeSent {
        sha256,
        bytes: u64::try_from(bytes)?,
    })
    .await?;
    announcer.notice(notice.into()).await?;
    Ok(answer)
}

pub(super) async fn test_alert(act: &Act<'_>, ward: Option<Ward>) -> anyhow::Result<Value> {
    let announcer = announcer(act)?;
    let shown = ward.clone().unwrap_or_else(Ward::system);
    let answer = json!({ "topic": format!("v1/alerts/{shown}"), "alert": "test" });
    act.audited(AuditEvent::AlertTested { ward: shown }).await?;
    match ward {
        // The whole way, as an alert of the installation goes.
        None => act.system.alerts.raise(Alert::Test, act.now),
        Some(ward) => {
            let raised = Raised {
                at: act.now,
                alert: Alert::Test,
            };
            announcer.alert(&ward, &raised).await?;
        }
    }
    Ok(answer)
}

fn announcer<'a>(act: &Act<'a>) -> anyhow::Result<&'a Announcer> {
    let announcer = act.system.announcer.as_ref();
    announcer.context(
        "nobody connects here: this server consumes from a cluster only (mqtt.cluster.only)",
    )
}

fn spelled(wards: &Wards) -> String {
    match wards {
        Wards::All => "all".to_owned(),
        Wards::These(wards) => {
            let wards: Vec<&str> = wards.iter().map(Ward::as_str).collect();
            wards.join(" ")
        }
    }
}
