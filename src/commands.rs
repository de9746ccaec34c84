//! One function a subcommand: read the arguments, ask the server, print.

pub(crate) mod backup;
mod device;
pub(crate) mod envelope;
mod listeners;
pub(crate) mod provenance;
mod quarantine;
mod reserved;
mod server;
pub(crate) mod store;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use vitalseal_compliance::erasure::{self, ErasureCertificate};
use vitalseal_storage::StorePaths;
use vitalseal_storage::ports::{Actor, Clock as _, SystemClock};

pub(crate) use self::device::enroll_with_new_key;
use self::reserved::ReservedFile;
use crate::admin::client::ask;
use crate::admin::protocol::{Private, Request};
use crate::cli::{
    AuditCommand, CaCommand, Command, DataArgs, EraseArgs, EraseCommand, IncidentCommand, InitArgs,
    KeysCommand, PatientCommand, RecipientCommand, ReportFormat, ServeArgs, SimulateArgs,
    TokenCommand, UserCommand,
};
use crate::credentials::CredentialsView;
use crate::memory::{self, MemoryLock};
use crate::server::{Overrides, Server};
use crate::{init, logging, output, simulate as simulation};

/// How long an orderly stop may take before the process ends anyway; what was acknowledged is durable.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

pub(crate) async fn init(args: InitArgs, as_json: bool) -> anyhow::Result<()> {
    memory::forbid_core_dumps()?;
    let new = init::NewStore {
        data: args.at.data,
        root_keys: args.root_keys,
        names: args.names,
        administrator: args.administrator,
        token: match (args.pkcs11_module, args.pkcs11_token, args.pkcs11_pin_file) {
            (Some(module), Some(token), Some(pin_file)) => Some(init::NewToken {
                module,
                token,
                pin_file,
                signing: args.pkcs11_signing,
            }),
            _ => None,
        },
        bucket: args.bucket.settings()?,
        registry: args.registry.settings()?,
    };
    let created = init::create(new, SystemClock.now()).await?;
    if as_json {
        let view = CreatedView {
            data: &created.data,
            root_keys: &created.root_keys,
            root_provider: &created.root_provider,
            administrator: CredentialsView::from(&created.administrator),
        };
        return output::print(&serde_json::to_value(&view)?, true);
    }
    let credentials = &created.administrator;
    let mut roots = created.root_keys.display().to_string();
    if created.root_provider != "file" {
        roots = format!("{}; the root CA's key: {roots}", created.root_provider);
    }
    output::line(&format!(
        "Store           {}\nRoot keys       {}   (never into a backup of the store)\n\
         Administrator   {}\nPassword        {}\nTOTP secret     {}\n\n\
         Password and TOTP secret are shown this once. Next:\n  vitalseal serve --data {}",
        created.data.display(),
        roots,
        credentials.user,
        credentials.password.as_str(),
        credentials.totp_secret.as_str(),
        created.data.display(),
    ))
}

#[derive(Serialize)]
struct CreatedView<'a> {
    data: &'a Path,
    root_keys: &'a Path,
    root_provider: &'a str,
    administrator: CredentialsView<'a>,
}

pub(crate) async fn serve(args: ServeArgs, as_json: bool) -> anyhow::Result<()> {
    logging::start("info");
    memory::forbid_core_dumps()?;
    match memory::lock() {
        MemoryLock::Locked => {}
        MemoryLock::Limited => tracing::warn!(
            "memory is not locked, so keys may be swapped out: raise the limit on locked memory to infinity \
             (systemd: LimitMEMLOCK=infinity), or turn swap off or encrypt it"
        ),
        MemoryLock::Refused(errno) => tracing::warn!(
            %errno,
            "memory is not locked, so keys may be swapped out: turn swap off or encrypt it"
        ),
    }
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("listening for SIGHUP")?;
    let overrides = Overrides {
        mqtt: args.mqtt,
        websocket: args.websocket,
        sql: args.sql,
        http: args.http,
    };
    let server = Server::start(&args.at.data, overrides).await?;
    let addresses = server.addresses;
    if as_json {
        output::line(&serde_json::to_string(&addresses)?)?;
    } else {
        let mqtt = addresses.mqtt.zip(addresses.websocket);
        let mqtt = mqtt.map(|(tcp, ws)| format!("MQTT {tcp}   WebSocket wss://{ws}/mqtt   "));
        output::line(&format!(
            "{}SQL {}   health http://{}/healthz",
            mqtt.unwrap_or_default(),
            addresses.sql,
            addresses.http
        ))?;
    }
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = server.gone_back() => break,
            // What came of it stands in the log.
            _ = hangup.recv() => drop(server.system.reload(Actor::System).await),
        }
    }
    tokio::time::timeout(STOP_DEADLINE, server.stop())
        .await
        .context("stopping took too long; nothing acknowledged is lost")?
}

pub(crate) async fn simulate(args: SimulateArgs, as_json: bool) -> anyhow::Result<()> {
    logging::start("warn");
    let mut summary = serde_json::to_value(simulation::run(&args).await?)?;
    if !as_json
        && let Some(devices) = summary
            .as_object_mut()
            .and_then(|fields| fields.shift_remove("devices"))
    {
        output::print(&devices, false)?;
    }
    output::print(&summary, as_json)
}

pub(crate) async fn administer(command: Command, json: bool) -> anyhow::Result<()> {
    match command {
        Command::Server(command) => server::run(command, json).await,
        Command::Ca(CaCommand::Show(at)) => show_pem(&at, Request::CaShow, json).await,
        Command::Ca(CaCommand::Crl { at, der: None }) => show_pem(&at, Request::CaCrl, json).await,
        Command::Ca(CaCommand::Crl { at, der: Some(out) }) => {
            revocation_list(&at, &out, json).await
        }
        Command::Recipient(RecipientCommand::Show(at)) => {
            show_pem(&at, Request::RecipientShow, json).await
        }
        Command::Patient(command) => patient(command, json).await,
        Command::Device(command) => device::run(command, json).await,
        Command::Display(command) => listeners::display(command, json).await,
        Command::Notice(command) => listeners::notice(command, json).await,
        Command::Alert(command) => listeners::alert(command, json).await,
        Command::User(command) => match command {
            UserCommand::Add { at, user, role } => {
                relay(
                    &at,
                    Request::UserAdd {
                        user,
                        role: role.into(),
                    },
                    json,
                )
                .await
            }
            UserCommand::Grant { at, user, patient } => {
                relay(&at, Request::UserGrant { user, patient }, json).await
            }
            UserCommand::GrantWard { at, user, ward } => {
                relay(&at, Request::UserGrantWard { user, ward }, json).await
            }
            UserCommand::List(at) => relay(&at, Request::UserList, json).await,
        },
        Command::Token(TokenCommand::Issue {
            at,
            user,
            password_file,
            totp,
        }) => {
            let password = read(&password_file)?;
            let password = Private::new(password.trim_end_matches(['\r', '\n']).to_owned());
            let totp = Private::new(totp);
            relay(
                &at,
                Request::TokenIssue {
                    user,
                    password,
                    totp,
                },
                json,
            )
            .await
        }
        Command::Quarantine(command) => quarantine::run(command, json).await,
        Command::Audit(AuditCommand::Tail { at, limit }) => audit_tail(&at, limit, json).await,
        Command::Audit(AuditCommand::Verify { at, checkpoint }) => {
            audit_verify(&at, checkpoint.as_deref(), json).await
        }
        Command::Keys(KeysCommand::Status(at)) => relay(&at, Request::KeysStatus, json).await,
        Command::Keys(KeysCommand::Rotate { at, patient }) => {
            relay(&at, Request::KeysRotate { patient }, json).await
        }
        Command::Flush { at } => relay(&at, Request::Flush, json).await,
        Command::Incident(command) => incident(command, json).await,
        Command::Init(_)
        | Command::Serve(_)
        | Command::Demo(_)
        | Command::Simulate(_)
        | Command::Envelope(_)
        | Command::Provenance(_)
        | Command::Store(_)
        | Command::Backup(_)
        | Command::Restore(_)
        | Command::Erase(_) => anyhow::bail!("this command does not go through the server"),
    }
}

async fn patient(command: PatientCommand, json: bool) -> anyhow::Result<()> {
    let (at, request) = match command {
        PatientCommand::Add { at, name, mrn } => {
            let (name, mrn) = (name.map(Private::new), mrn.map(Private::new));
            (at, Request::PatientAdd { name, mrn })
        }
        PatientCommand::List(at) => (at, Request::PatientList),
        PatientCommand::Show { at, patient } => (at, Request::PatientShow { patient }),
    };
    relay(&at, request, json).await
}

async fn audit_verify(
    at: &DataArgs,
    checkpoint: Option<&Path>,
    as_json: bool,
) -> anyhow::Result<()> {
    // A note ends with one line break, whatever an editor or a copy through a terminal made of it.
    let checkpoint = checkpoint
        .map(|file| read(file).map(|note| format!("{}\n", note.trim_end())))
        .transpose()?;
    let mut verified = send(at, Request::AuditVerify { checkpoint }).await?;
    let sound = verified["ok"] == true;
    if as_json {
        output::print(&verified, true)?;
    } else {
        // Apart from the table, so that it can be copied as it is.
        let note = verified
            .as_object_mut()
            .and_then(|fields| fields.shift_remove("checkpoint"));
        output::print(&verified, false)?;
        if let Some(note) = note.as_ref().and_then(Value::as_str) {
            output::line(&format!("\nKeep this checkpoint somewhere else:\n{note}"))?;
        }
    }
    anyhow::ensure!(
        sound,
        "the audit log does not verify: keep a copy of the store as it is, and find out why"
    );
    Ok(())
}

async fn audit_tail(at: &DataArgs, limit: u32, as_json: bool) -> anyhow::Result<()> {
    let entries = send(at, Request::AuditTail { limit }).await?;
    if as_json {
        return output::print(&entries, true);
    }
    // One line an entry: the event's own fields differ, so a table would be mostly empty.
    for entry in entries.as_array().into_iter().flatten() {
        output::line(&audit_line(entry))?;
    }
    Ok(())
}

fn audit_line(entry: &Value) -> String {
    let mut fields = entry.as_object().cloned().unwrap_or_default();
    let mut take = |name: &str| fields.shift_remove(name).unwrap_or_default();
    let (seq, at, actor, event) = (take("seq"), take("at"), take("actor"), take("event"));
    let mut line = format!(
        "{:>8}  {}  {:<8}  {}",
        seq.to_string(),
        at.as_str().unwrap_or("-"),
        actor["id"]
            .as_str()
            .or(actor["kind"].as_str())
            .unwrap_or("-"),
        event.as_str().unwrap_or("-")
    );
    for (name, value) in &fields {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        line.push_str(&format!("  {name}={value}"));
    }
    line
}

pub(crate) async fn erase(args: EraseArgs, as_json: bool) -> anyhow::Result<()> {
    if let Some(EraseCommand::Verify { file, key, data }) = args.verify {
        let certificate = read(&file)?;
        let vkey = match (key, data) {
            (Some(key), _) => read(&key)?,
            (None, Some(data)) => read(&StorePaths::new(&data, None).audit_vkey())?,
            (None, None) => anyhow::bail!("give --key FILE or --data DIR"),
        };
        let verified = erasure::verify(&certificate, vkey.trim())
            .with_context(|| format!("verifying {}", file.display()))?;
        if as_json {
            return output::print(&serde_json::to_value(&verified)?, true);
        }
        return output::line(&format!(
            "The certificate is genuine.\n\n{}",
            verified.to_text()
        ));
    }
    let (Some(data), Some(patient), Some(reason)) = (args.data, args.patient, args.reason) else {
        anyhow::bail!("give --data DIR, the patient and --reason");
    };
    let at = DataArgs { data: data.clone() };
    let out = args.out.as_deref().map(ReservedFile::create).transpose()?;
    let certificate = send(&at, Request::Erase { patient, reason }).await?;
    if let Some(out) = out {
        out.fill(serde_json::to_string_pretty(&certificate)?.as_bytes())?;
    }
    if as_json {
        return output::print(&certificate, true);
    }
    let certificate: ErasureCertificate =
        serde_json::from_value(certificate).context("reading the certificate")?;
    output::line(&certificate.to_text())?;
    let kept = StorePaths::new(&data, None).erasure_certificate(&certificate.statement.erasure);
    output::line(&format!("Kept in {}", kept.display()))
}

async fn incident(command: IncidentCommand, json: bool) -> anyhow::Result<()> {
    match command {
        IncidentCommand::Open(args) => {
            let request = Request::IncidentOpen {
                kind: args.kind,
                from: args.from,
                to: args.to,
                devices: args.devices,
                users: args.users,
                aware_at: args.aware_at,
                aware_reason: args.aware_reason,
            };
            relay(&args.at, request, json).await
        }
        IncidentCommand::Report {
            at,
            incident,
            format,
        } => {
            let answer = send(&at, Request::IncidentReport { incident }).await?;
            if json || format == ReportFormat::Json {
                return output::print(&answer["report"], true);
            }
            output::line(text(&answer, "markdown")?)
        }
        IncidentCommand::List(at) => relay(&at, Request::IncidentList, json).await,
    }
}

/// Writes the newest revocation list as DER; PEM is for the eye and for some brokers.
async fn revocation_list(at: &DataArgs, out: &Path, as_json: bool) -> anyhow::Result<()> {
    let out = ReservedFile::create(out)?;
    let mut answer = send(at, Request::CaCrl).await?;
    let der = CertificateRevocationListDer::from_pem_slice(text(&answer, "pem")?.as_bytes())
        .context("reading the list in the server's answer")?;
    out.fill(&der)?;
    if let Some(fields) = answer.as_object_mut() {
        fields.shift_remove("pem");
    }
    output::print(&answer, as_json)
}

async fn show_pem(at: &DataArgs, request: Request, as_json: bool) -> anyhow::Result<()> {
    let answer = send(at, request).await?;
    if as_json {
        output::print(&answer, true)
    } else {
        output::line(text(&answer, "pem")?)
    }
}

async fn relay(at: &DataArgs, request: Request, as_json: bool) -> anyhow::Result<()> {
    output::print(&send(at, request).await?, as_json)
}

async fn send(at: &DataArgs, request: Request) -> anyhow::Result<Value> {
    ask(&socket(at), &request).await
}

fn socket(at: &DataArgs) -> PathBuf {
    StorePaths::new(&at.data, None).admin_socket()
}

/// A text field of an answer.
pub(crate) fn text<'a>(answer: &'a Value, field: &str) -> anyhow::Result<&'a str> {
    answer[field]
        .as_str()
        .with_context(|| format!("the server's answer has no {field}; is it of the same version?"))
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_audit_line_names_who_did_what() {
        let entry = json!({
            "seq": 7, "at": "2026-01-02T03:04:05Z", "actor": {"kind": "user", "id": "dpo"},
            "event": "user_added", "user": "nora", "role": "clinician",
        });
        assert_eq!(
            audit_line(&entry),
            "       7  2026-01-02T03:04:05Z  dpo       user_added  user=nora  role=clinician"
        );
    }
}
