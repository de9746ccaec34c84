//! Forgetting a patient, that a backup cannot undo it, and the report that the DPO would send.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use jiff::{SignedDuration, Timestamp};
use vitalseal_compliance::erasure;
use vitalseal_storage::ports::{Clock as _, Role, SystemClock};
use vitalseal_storage::{FileRootProvider, Store, StoreError, StorePaths};

use crate::admin::protocol::Request;
use crate::commands::text;
use crate::config::Config;
use crate::demo::site::{Site, any_port};
use crate::server::{Overrides, Server};

const COPY: &str = "copy-before-erasure";

pub(super) async fn erase(site: &mut Site) -> anyhow::Result<String> {
    let patient = site.member("watch-01")?.patient.clone();
    let of_patient = format!("SELECT count(*) FROM vitals WHERE patient = '{patient}'");
    let before = site.count(&of_patient).await?;
    let others = site.count("SELECT count(*) FROM vitals").await? - before;
    ensure!(before > 0, "the patient to be erased has no readings");

    // As an administrator would: copy the data directory of the running server, by hand.
    copy_tree(&site.data, &site.directory.join(COPY))?;
    ensure!(
        opens_the_key(site, &patient).await?,
        "the copy should bring the patient's key back as long as nothing is erased"
    );

    let request = Request::Erase {
        patient: patient.parse().context("reading the pseudonym")?,
        reason: "Art. 17(1)(b), demonstration".to_owned(),
    };
    let certificate = site.ask(request).await?;
    let vkey =
        fs::read_to_string(site.paths().audit_vkey()).context("reading the audit log's key")?;
    let certificate = serde_json::to_string(&certificate)?;
    erasure::verify(&certificate, vkey.trim()).context("verifying the certificate of erasure")?;
    fs::write(site.directory.join("erasure.json"), &certificate)
        .context("keeping the certificate")?;

    let after = site.count(&of_patient).await?;
    let kept = site.count("SELECT count(*) FROM vitals").await?;
    ensure!(after == 0, "the same query still answers {after} readings");
    ensure!(
        kept == others,
        "{others} readings of others before, {kept} after"
    );
    Ok(format!(
        "{before} readings gone, {kept} of others untouched, the signed certificate verifies"
    ))
}

pub(super) async fn backup(site: &mut Site) -> anyhow::Result<String> {
    // The copy of yesterday, the root keys of today.
    let today = site.paths();
    let paths = StorePaths::new(&site.directory.join(COPY), Some(today.root_keys()));
    let roots = Arc::new(FileRootProvider::new(paths.root_keys()));
    match Store::open(&paths, roots, SystemClock.now()).await {
        Err(StoreError::RootMissing { .. }) => {}
        Err(other) => {
            return Err(other)
                .context("the copy is refused, but not because its root is destroyed");
        }
        Ok(store) => {
            store.close().await;
            bail!("the copy made before the erasure still opens")
        }
    }
    let kept = site.count("SELECT count(*) FROM vitals").await?;
    let trial = tempfile::Builder::new()
        .prefix("trial-")
        .tempdir_in(&site.directory)
        .context("creating a temporary directory")?;
    let mut twin = twin(site, trial.path())?;
    let answered = serve_twin(site, &mut twin).await;
    twin.stop().await?;
    let answered = answered?;
    trial
        .close()
        .context("removing the copy of the root keys")?;
    ensure!(
        answered == kept,
        "{kept} readings of others, the copy with the key snapshot answers {answered}"
    );
    Ok(format!(
        "the copy opened before the erasure; beside today's root keys it opens for nobody, with the key snapshot it \
         serves {answered} readings of others, and the erased patient stays gone"
    ))
}

/// The copy in `directory`, configured to stand beside copies of today's root keys and key snapshot.
fn twin(site: &Site, directory: &Path) -> anyhow::Result<Site> {
    let mut twin = Site::new(directory.to_path_buf())?;
    let (old, today) = (twin.paths(), site.paths());
    copy_tree(&site.directory.join(COPY), &twin.data)?;
    copy_tree(today.root_keys(), old.root_keys())?;
    copy_tree(&today.default_snapshots(), &old.default_snapshots())?;
    let mut config = Config::load(&old.config())?;
    config.root_keys = old.root_keys().to_path_buf();
    config.keys.snapshots = vec![old.default_snapshots()];
    fs::write(old.config(), config.commented()).context("configuring the copy")?;
    twin.authorities = site.authorities.clone();
    twin.clinician = "nils".parse()?;
    Ok(twin)
}

/// Serves the copy to a clinician of its own, who may see everybody that is left; says how many readings that is.
async fn serve_twin(site: &mut Site, twin: &mut Site) -> anyhow::Result<u64> {
    let any = Some(any_port());
    let overrides = Overrides {
        mqtt: any,
        websocket: any,
        sql: any,
        http: any,
    };
    twin.server = Some(Server::start(&twin.data, overrides).await?);
    let user = twin.clinician.clone();
    let role = Role::Clinician;
    let credentials = twin.ask(Request::UserAdd { user, role }).await?;
    let gone = site.member("watch-01")?.patient.clone();
    for member in &site.members {
        let granted = twin
            .ask(Request::UserGrant {
                user: twin.clinician.clone(),
                patient: member.patient.parse().context("reading the pseudonym")?,
            })
            .await;
        if member.patient == gone {
            ensure!(granted.is_err(), "the copy still knows the erased patient");
        } else {
            granted.context("granting a patient of the copy")?;
        }
    }
    twin.login(&credentials).await?;
    twin.count("SELECT count(*) FROM vitals").await
}

/// Whether the copy, with the root keys of this moment, yields the patient's key.
///
/// Opening a store may finish what was under way in it, so a copy of the copy is opened, beside a copy of
/// the root keys, and both are removed at once: a copy of root keys outlives no erasure.
async fn opens_the_key(site: &Site, patient: &str) -> anyhow::Result<bool> {
    let trial = tempfile::Builder::new()
        .prefix("trial-")
        .tempdir_in(&site.directory)
        .context("creating a temporary directory")?;
    let (data, root_keys) = (trial.path().join("data"), trial.path().join("root"));
    copy_tree(&site.directory.join(COPY), &data)?;
    copy_tree(site.paths().root_keys(), &root_keys)?;
    let roots = Arc::new(FileRootProvider::new(&root_keys));
    let paths = StorePaths::new(&data, Some(&root_keys));
    let store = Store::open(&paths, roots, SystemClock.now())
        .await
        .context("opening the copy before the erasure")?;
    let subject = patient.parse().context("reading the pseudonym")?;
    let key = store.keys.patient_keys(&subject).await;
    store.close().await;
    let found = key.context("unwrapping the patient's key")?.is_some();
    trial
        .close()
        .context("removing the copy of the root keys")?;
    Ok(found)
}

pub(super) async fn report(site: &mut Site) -> anyhow::Result<String> {
    // An hour in whole seconds that ends after the last query.
    let now = Timestamp::from_second(SystemClock.now().as_second() + 1)?;
    let aware_at = now - SignedDuration::from_mins(10);
    let opened = site
        .ask(Request::IncidentOpen {
            kind: "credential_misuse".to_owned(),
            from: now - SignedDuration::from_hours(1),
            to: now,
            devices: Vec::new(),
            users: vec![site.clinician.clone()],
            aware_at,
            aware_reason: "demonstration: the clinician's token was seen elsewhere".to_owned(),
        })
        .await?;
    let incident = text(&opened, "incident")?.to_owned();
    let answer = site
        .ask(Request::IncidentReport {
            incident: incident.clone(),
        })
        .await?;
    let markdown = text(&answer, "markdown")?;
    fs::write(site.directory.join("breach-report.md"), markdown).context("keeping the report")?;
    let report = &answer["report"];
    let due: Timestamp = text(&report["clock"], "due_at")?
        .parse()
        .context("reading the deadline")?;
    ensure!(
        due == aware_at + SignedDuration::from_hours(72),
        "the deadline is not 72 h after awareness"
    );
    let people = report["nature"]["people"]["value"]
        .as_u64()
        .context("the report counts no people")?;
    ensure!(
        people == 4,
        "the clinician read 4 patients, the report counts {people}"
    );
    Ok(format!(
        "{incident}: {people} people concerned, to be notified by {due} (GDPR 33(1))"
    ))
}

fn copy_tree(from: &Path, to: &Path) -> anyhow::Result<()> {
    crate::files::create_private_dir(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("listing {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if entry.file_type()?.is_file() {
            fs::copy(entry.path(), &target)
                .with_context(|| format!("copying {}", entry.path().display()))?;
        }
    }
    Ok(())
}
