//! `vitalseal display …`, `vitalseal notice …`, `vitalseal alert …`.

use anyhow::Context as _;
use vitalseal_crypto::Subscriber;

use super::device::{certify_new_key, without_pems};
use super::reserved::ReservedFile;
use super::{read, relay, send, socket, text};
use crate::admin::protocol::{Content, Request};
use crate::cli::{AlertCommand, DisplayCommand, DisplayEnrollArgs, NoticeCommand};
use crate::output;

pub(super) async fn display(command: DisplayCommand, json: bool) -> anyhow::Result<()> {
    match command {
        DisplayCommand::Enroll(args) => enroll(args, json).await,
        DisplayCommand::List(at) => relay(&at, Request::DisplayList, json).await,
        DisplayCommand::Revoke {
            at,
            name,
            role,
            reason,
        } => {
            let subscriber = Subscriber::new(role.into(), &name)?;
            relay(&at, Request::DisplayRevoke { subscriber, reason }, json).await
        }
    }
}

async fn enroll(args: DisplayEnrollArgs, json: bool) -> anyhow::Result<()> {
    let subscriber = Subscriber::new(args.role.into(), &args.name)?;
    anyhow::ensure!(
        (args.csr.is_some() || args.new_key.is_some())
            && (args.all_wards || !args.wards.is_empty()),
        "give either --csr FILE --out CERT or --new-key DIR, and what it hears: --ward WARD, once or more, or --all-wards"
    );
    let wards = (!args.all_wards).then_some(args.wards);
    let request = |csr_pem: String| Request::DisplayEnroll {
        subscriber,
        wards,
        csr_pem,
    };
    let answer = match (&args.csr, &args.out, &args.new_key) {
        (Some(csr), Some(out), None) => {
            let request = request(read(csr)?);
            let out = ReservedFile::create(out)?;
            let answer = send(&args.at, request).await?;
            out.fill(text(&answer, "pem")?.as_bytes())?;
            answer
        }
        (_, _, Some(directory)) => {
            // Of the request for a certificate only the key counts.
            let name = args.name.parse()?;
            certify_new_key(&socket(&args.at), &name, directory, request).await?
        }
        _ => anyhow::bail!("give either --csr FILE --out CERT or --new-key DIR"),
    };
    output::print(&without_pems(answer), json)
}

pub(super) async fn notice(command: NoticeCommand, json: bool) -> anyhow::Result<()> {
    let NoticeCommand::Send { at, file } = command;
    let notice = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
    relay(
        &at,
        Request::NoticeSend {
            notice: Content::new(notice),
        },
        json,
    )
    .await
}

pub(super) async fn alert(command: AlertCommand, json: bool) -> anyhow::Result<()> {
    let AlertCommand::Test { at, ward } = command;
    relay(&at, Request::AlertTest { ward }, json).await
}
