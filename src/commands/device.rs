//! `vitalseal device …`. What enrolment writes here is made before the server is asked: a device id is
//! given out once, so a file that cannot be written must not cost one.

use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};
use vitalseal_crypto::{CloneKind, CloneProof, DeviceId, certificates_in_pem, default_backend};

use super::reserved::{ReservedDirectory, ReservedFile};
use super::{read, relay, send, socket, text};
use crate::admin::client::ask;
use crate::admin::protocol::{Content, Request};
use crate::cli::{DeviceCommand, DeviceSendArgs};
use crate::{files, output};

pub(super) async fn run(command: DeviceCommand, json: bool) -> anyhow::Result<()> {
    match command {
        DeviceCommand::Enroll {
            at,
            device,
            csr: Some(csr),
            out: Some(out),
            new_key: None,
        } => {
            let csr_pem = read(&csr)?;
            let out = ReservedFile::create(&out)?;
            let answer = send(&at, Request::DeviceEnroll { device, csr_pem }).await?;
            out.fill(text(&answer, "pem")?.as_bytes())?;
            output::print(&without_pems(answer), json)
        }
        DeviceCommand::Enroll {
            at,
            device,
            new_key: Some(directory),
            ..
        } => {
            let answer = enroll_with_new_key(&socket(&at), &device, &directory).await?;
            output::print(&without_pems(answer), json)
        }
        DeviceCommand::Enroll { .. } => {
            anyhow::bail!("give either --csr FILE --out CERT or --new-key DIR")
        }
        DeviceCommand::Assign {
            at,
            device,
            patient,
            since,
        } => {
            let request = Request::DeviceAssign {
                device,
                patient,
                since,
            };
            relay(&at, request, json).await
        }
        DeviceCommand::Assignments { at, device } => {
            relay(&at, Request::DeviceAssignments { device }, json).await
        }
        DeviceCommand::List(at) => relay(&at, Request::DeviceList, json).await,
        DeviceCommand::Certificates(at) => {
            let certificates = send(&at, Request::DeviceCertificates).await?;
            if json {
                return output::print(&certificates, true);
            }
            let each = certificates.as_array().into_iter().flatten();
            let pems: Vec<_> = each.map(|one| text(one, "pem")).collect::<Result<_, _>>()?;
            output::line(&pems.concat())
        }
        DeviceCommand::Revoke { at, device, reason } => {
            relay(&at, Request::DeviceRevoke { device, reason }, json).await
        }
        DeviceCommand::Suspend { at, device, reason } => {
            relay(&at, Request::DeviceSuspend { device, reason }, json).await
        }
        DeviceCommand::Reinstate { at, device, reason } => {
            relay(&at, Request::DeviceReinstate { device, reason }, json).await
        }
        DeviceCommand::Chain { at, device } => {
            relay(&at, Request::DeviceChain { device }, json).await
        }
        DeviceCommand::Send(args) => send_content(args, json).await,
        DeviceCommand::Downlink { at, device } => {
            relay(&at, Request::DeviceDownlink { device }, json).await
        }
        DeviceCommand::CloneProof {
            at,
            device,
            boot,
            out,
        } => {
            let out = ReservedFile::create(&out)?;
            let mut answer = send(&at, Request::DeviceCloneProof { device, boot }).await?;
            let proof: Vec<u8> = serde_json::from_value(answer["proof"].take())
                .context("reading the proof in the server's answer")?;
            out.fill(&proof)?;
            if let Some(fields) = answer.as_object_mut() {
                fields.shift_remove("proof");
            }
            output::print(&answer, json)
        }
        DeviceCommand::VerifyCloneProof { file, ca } => {
            output::print(&verified_clone_proof(&file, &ca)?, json)
        }
    }
}

async fn send_content(args: DeviceSendArgs, json: bool) -> anyhow::Result<()> {
    let DeviceSendArgs {
        at,
        device,
        file,
        expires,
    } = args;
    let content = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
    let request = Request::DeviceSend {
        device,
        content: Content::new(content),
        expires_s: expires.as_secs(),
    };
    relay(&at, request, json).await
}

/// What a proof of a clone proves to whoever trusts the authority.
fn verified_clone_proof(file: &Path, ca: &Path) -> anyhow::Result<Value> {
    let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let authorities = certificates_in_pem(&read(ca)?)
        .with_context(|| format!("reading the certificates in {}", ca.display()))?;
    let authorities: Vec<_> = authorities.iter().map(Vec::as_slice).collect();
    let proven = CloneProof::decode(&bytes)
        .and_then(|proof| proof.verify(&authorities, default_backend()))
        .with_context(|| format!("{} proves nothing", file.display()))?;
    Ok(json!({
        "device": proven.device,
        "boot": proven.boot,
        "kind": match proven.kind {
            CloneKind::SameCounters => "same counters",
            CloneKind::BrokenLink => "broken link",
        },
        "sequences": proven.sequences,
        "signed_hashes": proven.signed_hashes.map(hexadecimal),
    }))
}

pub(super) fn hexadecimal(hash: [u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes a key pair in a new directory and enrols it; the private key never leaves that directory.
pub(crate) async fn enroll_with_new_key(
    socket: &Path,
    device: &DeviceId,
    directory: &Path,
) -> anyhow::Result<Value> {
    let request = |csr_pem| Request::DeviceEnroll {
        device: device.clone(),
        csr_pem,
    };
    certify_new_key(socket, device, directory, request).await
}

/// The same with any request for a certificate.
pub(super) async fn certify_new_key(
    socket: &Path,
    name: &DeviceId,
    directory: &Path,
    request: impl FnOnce(String) -> Request,
) -> anyhow::Result<Value> {
    let (key_pem, csr_pem) =
        vitalseal_crypto::new_device_key_and_csr(name).context("making a key")?;
    let request = request(csr_pem);
    let reserved = ReservedDirectory::create(directory)?;
    files::write_private(&directory.join("key.pem"), key_pem.as_bytes())?;
    let answer = ask(socket, &request).await?;
    reserved.keep();
    for (name, field) in [("cert.pem", "pem"), ("ca.pem", "ca_pem")] {
        files::write_public(&directory.join(name), text(&answer, field)?.as_bytes())?;
    }
    Ok(answer)
}

pub(super) fn without_pems(mut answer: Value) -> Value {
    if let Some(fields) = answer.as_object_mut() {
        fields.retain(|name, _| name != "pem" && name != "ca_pem");
    }
    answer
}
