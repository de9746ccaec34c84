//! Signing keys that are made on a token and sign there.

use std::error::Error;
use std::sync::Arc;

use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, AttributeType, ObjectClass};
use vitalseal_crypto::{RemoteSigner, default_backend};

use super::token::{Connection, Token};
use super::{TokenError, TokenRefusal};

/// What a key on the token signs; each is one key pair, with an algorithm of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningPurpose {
    /// Certificates, as the issuing authority: P-256, `CKM_ECDSA`.
    IssuingCa,
    /// Heads of the audit log and certificates of erasure: Ed25519, `CKM_EDDSA`.
    AuditLog,
}

impl SigningPurpose {
    fn suffix(self) -> &'static str {
        match self {
            Self::IssuingCa => "issuing-ca",
            Self::AuditLog => "audit-log",
        }
    }

    fn generation(self) -> Mechanism<'static> {
        match self {
            Self::IssuingCa => Mechanism::EccKeyPairGen,
            Self::AuditLog => Mechanism::EccEdwardsKeyPairGen,
        }
    }

    /// The curve's object identifier in DER: `secp256r1` (RFC 5480 §2.1.1.1), `id-Ed25519` (RFC 8410 §3).
    fn curve(self) -> &'static [u8] {
        match self {
            Self::IssuingCa => &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
            Self::AuditLog => &[0x06, 0x03, 0x2b, 0x65, 0x70],
        }
    }

    fn public_bytes(self) -> usize {
        match self {
            Self::IssuingCa => 65,
            Self::AuditLog => 32,
        }
    }
}

/// A key pair on a token, ready to sign.
#[derive(Debug)]
pub struct Pkcs11Signer {
    token: Arc<Token>,
    purpose: SigningPurpose,
    public: Vec<u8>,
}

impl Pkcs11Signer {
    /// Makes the key pair on the token.
    ///
    /// # Errors
    /// When there is one already, or the token cannot.
    pub fn generate(token: Arc<Token>, purpose: SigningPurpose) -> Result<Self, TokenError> {
        let label = token.object(purpose.suffix());
        token.with(&format!("making the key pair {label}"), |line| {
            if line.find(ObjectClass::PRIVATE_KEY, &label)?.is_some() {
                return Err(TokenRefusal::Exists(label.clone()));
            }
            let name = Attribute::Label(label.as_bytes().to_vec());
            let public = [
                name.clone(),
                Attribute::Token(true),
                Attribute::Verify(true),
                Attribute::Encrypt(false),
                Attribute::Wrap(false),
                Attribute::EcParams(purpose.curve().to_vec()),
            ];
            let private = [
                name,
                Attribute::Token(true),
                Attribute::Private(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                Attribute::Modifiable(false),
                Attribute::Sign(true),
                Attribute::Decrypt(false),
                Attribute::Unwrap(false),
                Attribute::Derive(false),
            ];
            line.session
                .generate_key_pair(&purpose.generation(), &public, &private)?;
            Ok(())
        })?;
        Self::open(token, purpose)
    }

    /// Finds the key pair on the token.
    ///
    /// # Errors
    /// When it is not there, or the token cannot be used.
    pub fn open(token: Arc<Token>, purpose: SigningPurpose) -> Result<Self, TokenError> {
        let label = token.object(purpose.suffix());
        let public = token.with(&format!("reading the public key {label}"), |line| {
            let missing = || TokenRefusal::NoObject(label.clone());
            let object = line
                .find(ObjectClass::PUBLIC_KEY, &label)?
                .ok_or_else(missing)?;
            let read = line
                .session
                .get_attributes(object, &[AttributeType::EcPoint])?;
            match read.first() {
                Some(Attribute::EcPoint(point)) => plain_point(point, purpose.public_bytes()),
                _ => Err(TokenRefusal::Answer("a public key without a point".into())),
            }
        })?;
        Ok(Self {
            token,
            purpose,
            public,
        })
    }

    /// Destroys the key pair on the token; returns once it is gone. One that is not there is no error.
    ///
    /// # Errors
    /// When it may still exist.
    pub fn destroy(token: &Token, purpose: SigningPurpose) -> Result<(), TokenError> {
        let label = token.object(purpose.suffix());
        token.with(&format!("destroying the key pair {label}"), |line| {
            line.destroy(ObjectClass::PRIVATE_KEY, &label)?;
            line.destroy(ObjectClass::PUBLIC_KEY, &label)
        })
    }
}

impl RemoteSigner for Pkcs11Signer {
    fn public(&self) -> &[u8] {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], Box<dyn Error + Send + Sync>> {
        let label = self.token.object(self.purpose.suffix());
        let signature = self.token.with(&format!("signing with {label}"), |line| {
            sign(line, &label, self.purpose, message)
        })?;
        Ok(signature)
    }
}

fn sign(
    line: &Connection,
    label: &str,
    purpose: SigningPurpose,
    message: &[u8],
) -> Result<[u8; 64], TokenRefusal> {
    let key = line
        .find(ObjectClass::PRIVATE_KEY, label)?
        .ok_or_else(|| TokenRefusal::NoObject(label.to_owned()))?;
    let signature = match purpose {
        // Hashed here: CKM_ECDSA is what every token has.
        SigningPurpose::IssuingCa => {
            let digest = default_backend().sha256(&[message]);
            line.session.sign(&Mechanism::Ecdsa, key, &digest)?
        }
        SigningPurpose::AuditLog => {
            let pure = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure));
            line.session.sign(&pure, key, message)?
        }
    };
    signature
        .try_into()
        .map_err(|_| TokenRefusal::Answer("a signature that is not 64 bytes".into()))
}

/// `CKA_EC_POINT` is a DER OCTET STRING around the point; some modules leave the wrapping out.
fn plain_point(point: &[u8], length: usize) -> Result<Vec<u8>, TokenRefusal> {
    match point {
        [0x04, rest @ ..] if point.len() == length + 2 && usize::from(rest[0]) == length => {
            Ok(rest[1..].to_vec())
        }
        _ if point.len() == length => Ok(point.to_vec()),
        _ => Err(TokenRefusal::Answer(format!(
            "a public key of {} bytes",
            point.len()
        ))),
    }
}
