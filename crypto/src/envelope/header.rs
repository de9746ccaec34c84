//! The protected header: what the device's signature binds to the readings.

use jiff::Timestamp;

use super::cbor::{Reader, Writer};
use super::profile::{
    ALG, BOOT, CONTENT_TYPE, CWT_CLAIMS, IAT, ISS, KID, PREVIOUS, SENML_CBOR, SEQUENCE, SUB,
    WAVEFORM, algorithm,
};
use super::{Rejection, Rule};
use crate::ids::{DeviceId, MAX_COUNTER, MessageId, SubjectPseudonym};

/// What the sealed bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContentType {
    /// SenML in CBOR (RFC 8428): CoAP content format 112.
    SenmlCbor,
    /// Sampled waveforms: `application/vnd.vitalseal.waveform+cbor`.
    Waveform,
}

/// The protected header of an envelope. Whoever holds the envelope can read it; only its device can have signed it.
///
/// ```text
/// hdr = {1: 3,                A256GCM
///        3: uint / tstr,      content_type
///        4: bstr .size 32,    key_thumbprint
///        15: {1: tstr,        device (iss)
///             2: tstr,        subject (sub)
///             6: uint,        issued_at (iat), seconds
///             -65537: uint,   boot
///             -65538: uint,   sequence
///             ? -65539: bstr .size 32}}   previous
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the sealed bytes are.
    pub content_type: ContentType,
    /// SHA-256 thumbprint of the content key as a `COSE_Key` (RFC 9679): the key commitment.
    pub key_thumbprint: [u8; 32],
    /// The device that signed.
    pub device: DeviceId,
    /// The person measured.
    pub subject: SubjectPseudonym,
    /// When the device sealed, by its own clock, in whole seconds.
    pub issued_at: Timestamp,
    /// The device's boot counter.
    pub boot: u64,
    /// The message's sequence within the boot.
    pub sequence: u64,
    /// The signed hash of the device's previous message, when it chains them.
    pub previous: Option<[u8; 32]>,
}

impl Header {
    /// The name of this message.
    pub fn message_id(&self) -> MessageId {
        MessageId {
            device: self.device.clone(),
            boot: self.boot,
            sequence: self.sequence,
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Rejection> {
        let mut reader = Reader::new(bytes);
        let (mut alg, mut content_type, mut thumbprint, mut claims) = (None, None, None, None);
        let mut labels = reader.map()?;
        while let Some(label) = labels.next(&mut reader)? {
            match label {
                ALG => alg = Some(expect_algorithm(&mut reader, algorithm::A256GCM)?),
                CONTENT_TYPE => content_type = Some(ContentType::read(&mut reader)?),
                KID => thumbprint = Some(*reader.fixed()?),
                CWT_CLAIMS => claims = Some(Claims::read(&mut reader)?),
                _ => return Err(Rejection::shape("the protected header has a foreign label")),
            }
        }
        reader.end()?;
        let (Some(()), Some(content_type), Some(key_thumbprint), Some(claims)) =
            (alg, content_type, thumbprint, claims)
        else {
            return Err(Rejection::shape("the protected header lacks a label"));
        };
        let Claims {
            device,
            subject,
            issued_at,
            boot,
            sequence,
            previous,
        } = claims;
        Ok(Self {
            content_type,
            key_thumbprint,
            device,
            subject,
            issued_at,
            boot,
            sequence,
            previous,
        })
    }

    /// The header's encoding, or `None` when a counter or the time does not fit the profile.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let issued_at = u64::try_from(self.issued_at.as_second()).ok()?;
        if self.boot > MAX_COUNTER || self.sequence > MAX_COUNTER {
            return None;
        }
        let mut writer = Writer::default();
        writer
            .map(4)
            .int(ALG)
            .int(algorithm::A256GCM)
            .int(CONTENT_TYPE);
        match self.content_type {
            ContentType::SenmlCbor => writer.uint(SENML_CBOR),
            ContentType::Waveform => writer.text(WAVEFORM),
        };
        writer.int(KID).bytes(&self.key_thumbprint).int(CWT_CLAIMS);
        writer.map(if self.previous.is_some() { 6 } else { 5 });
        writer
            .int(ISS)
            .text(self.device.as_str())
            .int(SUB)
            .text(self.subject.as_str());
        writer.int(IAT).uint(issued_at);
        writer
            .int(BOOT)
            .uint(self.boot)
            .int(SEQUENCE)
            .uint(self.sequence);
        if let Some(previous) = &self.previous {
            writer.int(PREVIOUS).bytes(previous);
        }
        Some(writer.into_bytes())
    }
}

impl ContentType {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Rejection> {
        let known = if reader.text_follows() {
            (reader.text()? == WAVEFORM).then_some(Self::Waveform)
        } else {
            (reader.uint()? == SENML_CBOR).then_some(Self::SenmlCbor)
        };
        known.ok_or(Rejection::shape("the content type is unknown"))
    }
}

/// Reads an algorithm and checks it against the only one that may stand here.
pub(super) fn expect_algorithm(reader: &mut Reader<'_>, expected: i64) -> Result<(), Rejection> {
    let refused = |detail| Err(Rejection::new(Rule::Algorithm, detail));
    // RFC 9052 §3.1 allows text; none that we allow is named so.
    if reader.text_follows() {
        return refused("an algorithm is named by text");
    }
    if reader.int()? == expected {
        Ok(())
    } else {
        refused("an algorithm is not on the allow-list")
    }
}

struct Claims {
    device: DeviceId,
    subject: SubjectPseudonym,
    issued_at: Timestamp,
    boot: u64,
    sequence: u64,
    previous: Option<[u8; 32]>,
}

impl Claims {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Rejection> {
        let (mut device, mut subject, mut issued_at) = (None, None, None);
        let (mut boot, mut sequence, mut previous) = (None, None, None);
        let mut labels = reader.map()?;
        while let Some(label) = labels.next(reader)? {
            match label {
                ISS => device = Some(name(reader.text()?, "the issuer is no device id")?),
                SUB => subject = Some(name(reader.text()?, "the subject is no pseudonym")?),
                IAT => issued_at = Some(seconds(reader.uint()?)?),
                BOOT => boot = Some(counter(reader.uint()?)?),
                SEQUENCE => sequence = Some(counter(reader.uint()?)?),
                PREVIOUS => previous = Some(*reader.fixed()?),
                _ => return Err(Rejection::shape("the claims have a foreign label")),
            }
        }
        let (Some(device), Some(subject), Some(issued_at), Some(boot), Some(sequence)) =
            (device, subject, issued_at, boot, sequence)
        else {
            return Err(Rejection::shape("a claim is missing"));
        };
        Ok(Self {
            device,
            subject,
            issued_at,
            boot,
            sequence,
            previous,
        })
    }
}

fn name<T: std::str::FromStr>(text: &str, otherwise: &'static str) -> Result<T, Rejection> {
    text.parse().map_err(|_| Rejection::shape(otherwise))
}

fn seconds(value: u64) -> Result<Timestamp, Rejection> {
    i64::try_from(value)
        .ok()
        .and_then(|value| Timestamp::from_second(value).ok())
        .ok_or(Rejection::shape("the time is out of range"))
}

fn counter(value: u64) -> Result<u64, Rejection> {
    if value <= MAX_COUNTER {
        Ok(value)
    } else {
        Err(Rejection::shape("a counter is 2^53 or more"))
    }
}
