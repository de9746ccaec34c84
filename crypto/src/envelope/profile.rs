//! The profile's numbers: algorithms, labels and limits. Whatever is not here is refused.

use coset::iana::{
    self, CborTag, CoapContentFormat, CwtClaimName, Ec2KeyParameter, EllipticCurve,
    HeaderAlgorithmParameter, HeaderParameter, KeyParameter, KeyType, SymmetricKeyParameter,
};

/// The largest envelope taken, in bytes: five minutes of one 250 Hz ECG lead without compression, and small enough
/// that ten thousand devices may each have one in flight. An MQTT packet limit a little above it is safe.
pub const MAX_ENVELOPE_BYTES: usize = 256 * 1024;

pub(super) const TAG: u64 = CborTag::CoseEncrypt as u64;

/// `COSE_Encrypt0` (RFC 9052 §5.2), the COSE message without recipients: what evidence is cut down to.
pub(super) const TAG_BARE: u64 = CborTag::CoseEncrypt0 as u64;

/// Algorithms (RFC 9053).
pub(super) mod algorithm {
    use super::iana::Algorithm;

    pub(in super::super) const A256GCM: i64 = Algorithm::A256GCM as i64;
    pub(in super::super) const A256KW: i64 = Algorithm::A256KW as i64;
    pub(in super::super) const ECDH_ES_A256KW: i64 = Algorithm::ECDH_ES_A256KW as i64;
    pub(in super::super) const ECDH_SS_A256KW: i64 = Algorithm::ECDH_SS_A256KW as i64;
    pub(in super::super) const ES256: i64 = Algorithm::ES256 as i64;
    pub(in super::super) const SHA_256: i64 = Algorithm::SHA_256 as i64;
}

/// Header labels (RFC 9052 §3.1, RFC 9338 §3, RFC 9360 §2, RFC 9597 §2) and those of key agreement (RFC 9053 §6.3).
pub(super) const ALG: i64 = HeaderParameter::Alg as i64;
pub(super) const CONTENT_TYPE: i64 = HeaderParameter::ContentType as i64;
pub(super) const KID: i64 = HeaderParameter::Kid as i64;
pub(super) const IV: i64 = HeaderParameter::Iv as i64;
pub(super) const COUNTERSIGNATURE: i64 = HeaderParameter::CounterSignatureV2 as i64;
pub(super) const CWT_CLAIMS: i64 = HeaderParameter::CwtClaims as i64;
pub(super) const X5T: i64 = HeaderParameter::X5T as i64;
pub(super) const EPHEMERAL_KEY: i64 = HeaderAlgorithmParameter::EphemeralKey as i64;
pub(super) const STATIC_KEY: i64 = HeaderAlgorithmParameter::StaticKey as i64;
pub(super) const STATIC_KEY_ID: i64 = HeaderAlgorithmParameter::StaticKeyId as i64;
pub(super) const PARTY_U_NONCE: i64 = HeaderAlgorithmParameter::PartyUNonce as i64;

/// CWT claims (RFC 8392 §3.1), and ours from the private range.
pub(super) const ISS: i64 = CwtClaimName::Iss as i64;
pub(super) const SUB: i64 = CwtClaimName::Sub as i64;
pub(super) const IAT: i64 = CwtClaimName::Iat as i64;
pub(super) const BOOT: i64 = -65_537;
pub(super) const SEQUENCE: i64 = -65_538;
pub(super) const PREVIOUS: i64 = -65_539;

/// `COSE_Key` (RFC 9052 §7, RFC 9053 §7.1 and §7.3).
pub(super) const KTY: i64 = KeyParameter::Kty as i64;
pub(super) const KTY_EC2: i64 = KeyType::EC2 as i64;
pub(super) const KTY_SYMMETRIC: i64 = KeyType::Symmetric as i64;
pub(super) const SYMMETRIC_K: i64 = SymmetricKeyParameter::K as i64;
pub(super) const EC2_CRV: i64 = Ec2KeyParameter::Crv as i64;
pub(super) const EC2_X: i64 = Ec2KeyParameter::X as i64;
pub(super) const EC2_Y: i64 = Ec2KeyParameter::Y as i64;
pub(super) const CRV_P256: i64 = EllipticCurve::P_256 as i64;

/// Content types: `application/senml+cbor` by its CoAP number, and ours by name because nothing is registered for it.
pub(super) const SENML_CBOR: u64 = CoapContentFormat::SenmlCbor as u64;
pub(super) const WAVEFORM: &str = "application/vnd.vitalseal.waveform+cbor";
