//! The log's Ed25519 key pair, in the text forms of `c2sp.org/signed-note`.
//!
//! ```text
//! skey  PRIVATE+KEY+<origin>+<key id, 8 hex>+<base64(0x01 ‖ seed[32])>       secret, sealed by the key store
//! vkey  <origin>+<key id, 8 hex>+<base64(0x01 ‖ public key[32])>             public, handed to whoever checks
//! ```
//!
//! The same key signs checkpoints and erasure certificates. The two can not be confused: a checkpoint's first line is
//! the origin, which holds no white space, and a certificate's first line is a sentence that does.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use signed_note::{Note, NoteError, Signature, StandardSigner, StandardVerifier, VerifierList};
use vitalseal_crypto::RemoteSigner;
use zeroize::Zeroizing;

use super::AuditLogError;

/// Signature type of Ed25519 in `c2sp.org/signed-note`.
const ALG_ED25519: u8 = 1;

/// A signer or verifier key is not in the form that `signed-note` defines.
#[derive(Debug, thiserror::Error)]
#[error("malformed {0}")]
pub struct KeyMalformed(pub(super) &'static str);

/// A signed note was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoteRefused {
    /// It is not a signed note at all.
    #[error("not a signed note")]
    Malformed,
    /// It carries no valid signature by the expected key.
    #[error("not signed by {0}")]
    Signature(String),
}

/// The public half: checks checkpoints and certificates, far away from the server if need be.
#[derive(Clone)]
pub struct AuditKey {
    vkey: String,
    verifier: StandardVerifier,
}

impl AuditKey {
    /// Reads a verifier key, `<origin>+<id>+<key>`.
    ///
    /// # Errors
    ///
    /// When the text is not such a key.
    pub fn parse(vkey: &str) -> Result<Self, KeyMalformed> {
        let vkey = vkey.trim();
        let verifier = StandardVerifier::new(vkey).map_err(|_| KeyMalformed("verifier key"))?;
        Ok(Self {
            vkey: vkey.to_owned(),
            verifier,
        })
    }

    /// The log that this key belongs to.
    pub fn origin(&self) -> &str {
        signed_note::Verifier::name(&self.verifier)
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.vkey
    }

    /// Returns the text of a signed note once its signature by this key holds.
    ///
    /// # Errors
    ///
    /// When the note is malformed or this key's signature is absent or wrong.
    pub fn open(&self, note: &str) -> Result<String, NoteRefused> {
        let parsed = Note::from_bytes(note.as_bytes()).map_err(|_| NoteRefused::Malformed)?;
        let known = VerifierList::new(vec![Box::new(self.verifier.clone())]);
        parsed
            .verify(&known)
            .map_err(|_| NoteRefused::Signature(self.origin().to_owned()))?;
        String::from_utf8(parsed.text().to_vec()).map_err(|_| NoteRefused::Malformed)
    }
}

impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AuditKey").field(&self.vkey).finish()
    }
}

/// Both halves. Debug shows the public one.
#[derive(Clone)]
pub(super) struct AuditIdentity {
    signer: NoteSigner,
    key: AuditKey,
}

#[derive(Clone)]
enum NoteSigner {
    Here(Arc<StandardSigner>),
    Remote(Arc<dyn RemoteSigner>),
}

impl AuditIdentity {
    /// Draws a key pair for a new log and returns it with its secret text form.
    pub(super) fn generate(origin: &str) -> Result<(Self, Zeroizing<String>), AuditLogError> {
        refuse_unless_name(origin)?;
        let mut seed = Zeroizing::new([0_u8; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(AuditLogError::Random)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice())
            .map_err(|_| KeyMalformed("Ed25519 seed"))?;
        let (id, vkey) = verifier_key(origin, pair.public_key().as_ref());
        let secret = Zeroizing::new([&[ALG_ED25519], seed.as_slice()].concat());
        let encoded = Zeroizing::new(BASE64_STANDARD.encode(secret.as_slice()));
        let skey = Zeroizing::new(format!(
            "PRIVATE+KEY+{origin}+{id:08x}+{}",
            encoded.as_str()
        ));
        Ok((Self::parse(&skey, &vkey)?, skey))
    }

    /// An identity for a new log, of a key that is somewhere else.
    pub(super) fn of_remote(
        origin: &str,
        signer: Arc<dyn RemoteSigner>,
    ) -> Result<Self, AuditLogError> {
        refuse_unless_name(origin)?;
        let (_, vkey) = verifier_key(origin, signer.public());
        Ok(Self::remote(signer, &vkey)?)
    }

    /// Takes a key that is somewhere else and makes sure that it is the one of the verifier key.
    pub(super) fn remote(signer: Arc<dyn RemoteSigner>, vkey: &str) -> Result<Self, KeyMalformed> {
        let key = AuditKey::parse(vkey)?;
        if verifier_key(key.origin(), signer.public()).1 != key.vkey {
            return Err(KeyMalformed("key pair: signer and verifier key differ"));
        }
        let signer = NoteSigner::Remote(signer);
        Ok(Self { signer, key })
    }

    /// Reads both text forms and makes sure that they belong together.
    pub(super) fn parse(skey: &str, vkey: &str) -> Result<Self, KeyMalformed> {
        let key = AuditKey::parse(vkey)?;
        let signer = StandardSigner::new(skey.trim()).map_err(|_| KeyMalformed("signer key"))?;
        let (name, id) = (
            signed_note::Signer::name(&signer),
            signed_note::Signer::key_id(&signer),
        );
        if name != key.origin() || id != signed_note::Verifier::key_id(&key.verifier) {
            return Err(KeyMalformed("key pair: signer and verifier key differ"));
        }
        let signer = NoteSigner::Here(Arc::new(signer));
        Ok(Self { signer, key })
    }

    pub(super) fn key(&self) -> &AuditKey {
        &self.key
    }

    /// Signs `text`, which ends in a newline, and returns the whole note. What a remote key signed is checked before it
    /// becomes the log's head: nobody could undo that.
    pub(super) fn sign(&self, text: &str) -> Result<String, AuditLogError> {
        let sign = |cause| AuditLogError::Sign(Arc::new(cause));
        let note = match &self.signer {
            NoteSigner::Here(signer) => {
                let mut note = Note::new(text.as_bytes(), &[]).map_err(sign)?;
                note.add_sigs(&[signer.as_ref()]).map_err(sign)?;
                note
            }
            NoteSigner::Remote(signer) => {
                let remote = |cause| AuditLogError::RemoteKey(Arc::from(cause));
                let id = signed_note::Verifier::key_id(&self.key.verifier);
                let signature = signer.sign(text.as_bytes()).map_err(remote)?;
                let signature = Signature::new(self.key.origin().to_owned(), id, signature.into());
                Note::new(text.as_bytes(), &[signature.map_err(sign)?]).map_err(sign)?
            }
        };
        let note =
            String::from_utf8(note.to_bytes()).map_err(|_| sign(NoteError::MalformedNote))?;
        if let NoteSigner::Remote(_) = self.signer {
            let remote = |cause| AuditLogError::RemoteKey(Arc::new(cause));
            self.key.open(&note).map_err(remote)?;
        }
        Ok(note)
    }
}

fn refuse_unless_name(origin: &str) -> Result<(), AuditLogError> {
    if !signed_note::is_key_name_valid(origin) || origin.chars().any(char::is_control) {
        return Err(AuditLogError::Origin(origin.to_owned()));
    }
    Ok(())
}

/// Key id and verifier key of an Ed25519 public key.
fn verifier_key(origin: &str, public: &[u8]) -> (u32, String) {
    let public = [&[ALG_ED25519], public].concat();
    let id = signed_note::key_id(origin, &public);
    let vkey = format!("{origin}+{id:08x}+{}", BASE64_STANDARD.encode(&public));
    (id, vkey)
}

impl fmt::Debug for AuditIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditIdentity")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}
