//! `vitalseal envelope …`: a message in somebody's hands, checked by them alone.
//!
//! Neither a server nor a key is asked, and no reading is shown: what stands here needs certificates only.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::{Value, json};
use vitalseal_crypto::{
    AtRest, CertificateError, ContentType, DeviceCertificate, MAX_ENVELOPE_BYTES, Received,
    Rejection, Rule, Signed, certificates_in_pem, default_backend,
};

use super::device::hexadecimal;
use super::read;
use crate::cli::{EnvelopeCommand, EnvelopeVerifyArgs};
use crate::output;

/// Two digits a byte, `\x` before them and a line break behind.
const LONGEST_LINE: usize = 2 * MAX_ENVELOPE_BYTES + 4;

/// What was asked could not be found out. As the argument parser's own refusals, so that 1 stands for one thing only.
const UNDECIDED: u8 = 2;

pub(crate) fn run(command: EnvelopeCommand, as_json: bool) -> ExitCode {
    let ran = match command {
        EnvelopeCommand::Inspect(args) => inspect(&args.file, as_json),
        EnvelopeCommand::Verify(args) => verify(&args, as_json),
    };
    ran.unwrap_or_else(|error| {
        eprintln!("vitalseal: {error:#}");
        ExitCode::from(UNDECIDED)
    })
}

fn inspect(file: &Path, as_json: bool) -> anyhow::Result<ExitCode> {
    let mut said = Vec::new();
    each(file, |bytes| {
        said.push(Envelope::decode(bytes)?.says());
        Ok(())
    })?;
    output::print(&one_or_all(said), as_json)?;
    Ok(ExitCode::SUCCESS)
}

fn verify(args: &EnvelopeVerifyArgs, as_json: bool) -> anyhow::Result<ExitCode> {
    let trusted = certificates(&args.ca)?;
    let mut shown = Vec::new();
    for file in &args.certificates {
        shown.extend(certificates(file)?);
    }
    let (mut said, mut refused) = (Vec::new(), 0_u64);
    each(&args.envelope.file, |bytes| {
        let verdict = match Envelope::decode(bytes) {
            Ok(envelope) => envelope.verify(&trusted, &shown)?,
            Err(rejection) => Err(rejection.into()),
        };
        said.push(verdict.unwrap_or_else(|Refused { rule, why }| {
            refused += 1;
            json!({"verified": false, "rule": rule, "why": why})
        }));
        Ok(())
    })?;
    if !as_json && said.len() > 1 {
        // Of many, those that need a look.
        let count = said.len();
        for (number, verdict) in (1..).zip(said) {
            if verdict["verified"] == false {
                let part = |name: &str| verdict[name].as_str().unwrap_or_default().to_owned();
                output::line(&format!("{number}: {}: {}", part("rule"), part("why")))?;
            }
        }
        output::line(&format!(
            "{count} envelopes, {refused} of them do not verify"
        ))?;
    } else {
        output::print(&one_or_all(said), as_json)?;
    }
    Ok(if refused == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// One answer stands for itself.
fn one_or_all(mut said: Vec<Value>) -> Value {
    match (said.pop(), said.is_empty()) {
        (Some(only), true) => only,
        (last, _) => said.into_iter().chain(last).collect(),
    }
}

/// Any form of an envelope, and what is signed of it.
struct Envelope {
    form: Form,
    signed: Signed,
    bytes: usize,
}

enum Form {
    Wire(Received),
    AtRest(AtRest),
    Evidence,
}

/// Why an envelope does not verify.
struct Refused {
    rule: &'static str,
    why: String,
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Self {
        Self {
            rule: rejection.rule.as_str(),
            why: rejection.detail().to_owned(),
        }
    }
}

impl From<CertificateError> for Refused {
    fn from(refused: CertificateError) -> Self {
        Self {
            rule: "certificate",
            why: refused.to_string(),
        }
    }
}

impl Envelope {
    /// Every rule of the profile about shape and algorithms, of the recipients too.
    fn decode(bytes: &[u8]) -> Result<Self, Rejection> {
        let signed = Signed::decode(bytes)?;
        let form = if signed.as_bytes() == bytes {
            Form::Evidence
        } else {
            match (AtRest::decode(bytes), Received::decode(bytes)) {
                (Ok(stored), _) => Form::AtRest(stored),
                (_, Ok(wire)) => Form::Wire(wire),
                // Recipients of the one are of a forbidden algorithm to the other.
                (Err(refused), Err(other)) if other.rule == Rule::Algorithm => return Err(refused),
                (_, Err(refused)) => return Err(refused),
            }
        };
        Ok(Self {
            form,
            signed,
            bytes: bytes.len(),
        })
    }

    /// The outer result is for what could not be found out.
    fn verify(
        &self,
        trusted: &[Vec<u8>],
        shown: &[Vec<u8>],
    ) -> anyhow::Result<Result<Value, Refused>> {
        let backend = default_backend();
        let certificate = shown
            .iter()
            .chain(trusted)
            .filter_map(|der| DeviceCertificate::from_der(der).ok())
            .find(|certificate| certificate.thumbprint() == self.signed.signer())
            .with_context(|| {
                format!(
                    "it is signed under the certificate with the SHA-256 {}, which was not given: add it with \
                     --certificate (`vitalseal device certificates` prints what a store knows)",
                    self.signed.signer()
                )
            })?;
        if let Err(rejection) = self.signed.verify(&certificate, backend) {
            return Ok(Err(rejection.into()));
        }
        let [trusted, shown] =
            [trusted, shown].map(|all| all.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let at = self.signed.header().issued_at;
        if let Err(refused) = certificate.verify_chain(&trusted, &shown, at, backend) {
            return Ok(Err(refused.into()));
        }
        let mut proven = self.says();
        proven["verified"] = json!(true);
        proven["certificate_from"] = json!(certificate.not_before());
        proven["certificate_to"] = json!(certificate.not_after());
        Ok(Ok(proven))
    }

    fn says(&self) -> Value {
        let header = self.signed.header();
        let (form, sealed_for) = match &self.form {
            Form::Wire(wire) => ("wire", Some(wire.recipient_kid().to_string())),
            Form::AtRest(stored) => ("at rest", Some(stored.kek_kid().to_string())),
            Form::Evidence => ("evidence", None),
        };
        json!({
            "form": form,
            "bytes": self.bytes,
            "content": match header.content_type {
                ContentType::SenmlCbor => "readings (application/senml+cbor)",
                ContentType::Waveform => "waveforms (application/vnd.vitalseal.waveform+cbor)",
            },
            "device": header.device,
            "patient": header.subject,
            "issued_at": header.issued_at,
            "boot": header.boot,
            "sequence": header.sequence,
            "previous": header.previous.map(hexadecimal),
            "sealed_for": sealed_for,
            "content_key": hexadecimal(header.key_thumbprint),
            "certificate": self.signed.signer().to_string(),
            "signed_hash": hexadecimal(self.signed.signed_hash(default_backend())),
        })
    }
}

/// The envelopes of a file: the one that it is, or those that it writes out in digits, one a line.
///
/// # Errors
/// The file cannot be read, or the first error of `look`; it names the line.
fn each(file: &Path, mut look: impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let reading = || format!("reading {}", file.display());
    let source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(file).with_context(reading)?)
    };
    let mut source = BufReader::new(source);
    let is_text = source
        .fill_buf()
        .with_context(reading)?
        .first()
        .is_some_and(|first| *first == b'\\' || first.is_ascii_hexdigit());
    for number in 1_u64.. {
        let mut bytes = Vec::new();
        // One more than there may be, so that what is too long is told from what fits.
        let longest = if is_text {
            LONGEST_LINE
        } else {
            MAX_ENVELOPE_BYTES
        } as u64;
        let mut part = source.by_ref().take(longest + 1);
        let read = if is_text {
            part.read_until(b'\n', &mut bytes)
        } else {
            part.read_to_end(&mut bytes)
        };
        read.with_context(reading)?;
        if is_text && bytes.len() as u64 <= longest {
            if bytes.is_empty() {
                break;
            }
            let line = bytes.trim_ascii_end();
            if line.is_empty() {
                continue;
            }
            // No envelope is text, so none is mistaken for its own digits.
            let envelope = from_hex(line).unwrap_or_else(|| line.to_vec());
            look(&envelope).with_context(|| format!("{}, line {number}", file.display()))?;
        } else {
            // The only one, or a line that is too long for any.
            look(&bytes).with_context(|| file.display().to_string())?;
            break;
        }
    }
    Ok(())
}

fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.strip_prefix(b"\\x").unwrap_or(text);
    let value = |digit: &u8| char::from(*digit).to_digit(16);
    digits
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => u8::try_from(16 * value(high)? + value(low)?).ok(),
            _ => None,
        })
        .collect()
}

fn certificates(file: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    certificates_in_pem(&read(file)?)
        .with_context(|| format!("reading the certificates in {}", file.display()))
}
