//! Envelopes, keys and certificates of vitalseal: pure functions, no async, no I/O, no clock.
//!
//! A device seals its readings for the server and signs them. The server verifies, opens, and wraps the content key
//! for the patient; the device's signature stays valid over what is stored. Destroying one patient's key makes all
//! of that patient's readings unreadable, wherever copies of them are.
//!
//! # A message's way
//!
//! ```
//! # #[cfg(feature = "authority")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use vitalseal_crypto::*;
//!
//! let backend = default_backend();
//! let now: jiff::Timestamp = "2026-05-04T03:02:01Z".parse()?;
//! let tomorrow = now + jiff::SignedDuration::from_hours(24);
//!
//! // A site has an authority, and an envelope key for today.
//! let new = CertificateAuthority::create(now)?;
//! let authority =
//!     CertificateAuthority::open(&new.issuing_key_pem, &new.issuing_cert_pem, &new.root_cert_pem)?;
//! let today = authority.issue_recipient(KeyEpoch(1), now, tomorrow, backend)?;
//!
//! // A device makes its own key and is given a certificate.
//! let device: DeviceId = "monitor-001".parse()?;
//! let (key_pem, csr_pem) = new_device_key_and_csr(&device)?;
//! let issued = authority.issue_device(&csr_pem, &device, now)?;
//! let signer = DeviceSigner::from_pkcs8_pem(&key_pem, &issued.pem)?;
//!
//! // It checks whom it seals for, and seals.
//! let recipient = today.certificate().clone();
//! recipient.verify_issued_by(authority.issuing_der(), now, backend)?;
//! let subject = SubjectPseudonym::random(backend)?;
//! let request = SealRequest {
//!     content_type: ContentType::SenmlCbor,
//!     device: &device,
//!     subject: &subject,
//!     issued_at: now,
//!     boot: 1,
//!     sequence: 0,
//!     previous: None,
//! };
//! let sealed = seal(&request, b"62 /min", &recipient, Agreement::Ephemeral, &signer, backend)?;
//!
//! // The server takes it step by step; each type is the proof of the step before.
//! let held = RecipientKeyRing::new(vec![today]);
//! let opened = Received::decode(&sealed.bytes)?
//!     .verify(&issued.certificate, backend)?
//!     .open(&held, &NoSenderKeys, backend)?;
//! assert_eq!(opened.payload(), b"62 /min");
//!
//! // What is stored is wrapped for the patient and still signed by the device.
//! let kek = Kek::generate(backend)?;
//! let stored = AtRest::decode(opened.rewrap(&kek, backend)?.as_bytes())?;
//! stored.verify(&issued.certificate, backend)?;
//! assert_eq!(*stored.open(&kek, backend)?, b"62 /min");
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "authority"))]
//! # fn main() {}
//! ```
//!
//! # Keys
//!
//! ```text
//! root key, epoch e   outside the data directory      destroyed and replaced when anything below is erased
//!   └─ page key       one for about 1,000 patients    so an erasure re-wraps thousands of keys, not millions
//!       └─ patient KEK   random, never derived        (a derived key can be derived again); a rotation keeps the
//!           │                                         ones before it, an erasure takes all
//!           └─ content key, one a message             A256KW, stored beside its ciphertext
//!
//! store key           over the store's files        a file key each, and the content keys of sealed evidence
//!
//! cover, epoch r      outside the data directory      destroyed when its epoch ends
//!   └─ recipient key  what devices seal for           its certificate is published, its private part ends with the cover
//!
//! device key          ECDSA, never leaves the device
//! session key         ECDH, for a bounded number of messages
//! outbox key          wraps the content keys of what waits on the device, so that it can be addressed anew
//! ```
//!
//! [`RootKey`] wraps [`PageKey`]s, a page key wraps [`Kek`]s, a KEK wraps content keys ([`Dek`]). An erasure deletes
//! one KEK, replaces its page key and the root, and destroys the old root: older copies of the wraps, in backups and
//! in freed pages, then open under nothing. A cover is a [`RootKey`] too, for one recipient key alone: once it is gone,
//! captured messages of that epoch open for nobody, whatever was copied. See [`keys`]; what a message looks like in
//! bytes is in the [`manual`].
//!
//! # Threat model
//!
//! | Who | Can | Cannot |
//! |---|---|---|
//! | network, broker | see device id, pseudonym, counters and sizes; drop, repeat, reorder | read or change a reading; a repeat is recognised by its [signed hash](Received::signed_hash) |
//! | a thief of the data directory | see headers and sizes | read a reading, without the root key |
//! | a thief of an old backup, after an erasure | as above, and read those who were not erased if he also holds that epoch's root | read the erased: that root is destroyed |
//! | a thief of a recipient key | read traffic of its epoch that he captured | read other epochs' or what is stored; forge a reading |
//! | the server itself | read what it may decrypt; lose messages | forge a device's reading: it holds no device's signing key |
//! | a device, or its clone | send false readings under its own name | send them under another's; hide a clone: two messages that one device cannot both have signed are a [`CloneProof`] |
//!
//! Out of scope here: traffic analysis, whoever reads the memory of a running server or device, and a false reading
//! from a sound device. Unsigned are the IV and the recipients: changing them makes a message unreadable, never other.
//!
//! # Rules of this crate
//!
//! - It never reads the time, a file or a socket, and never logs.
//! - Algorithms are fixed by the profile. Nothing is negotiated, and both [`backend`]s yield the same bytes.
//! - Verification is over the bytes as received; only their one deterministic encoding is accepted.
//! - A [`Rejection`] is for our own records. A peer learns nothing from it.
//! - Raw key bytes pass through [`danger`] and nowhere else.

pub mod backend;
pub mod certificate;
pub mod danger;
pub mod envelope;
pub mod ids;
pub mod keys;
pub mod manual;
mod pem;
mod remote;

#[cfg(feature = "aws-lc")]
pub use backend::aws_lc;
pub use backend::{Backend, BackendError, P256Point, P256Secret, default_backend, rust_crypto};
#[cfg(feature = "authority")]
pub use certificate::authority::{
    AuthorityError, CertificateAuthority, IssuedCertificate, IssuedSubscriber, NewAuthority,
    NewChain, ServerIdentity, new_device_key_and_csr,
};
pub use certificate::{
    CertificateError, DeviceCertificate, NoSubscriber, RecipientCertificate, Subscriber,
    SubscriberCertificate, SubscriberRole, certificates_in_pem, verify_authority,
};
#[cfg(feature = "authority")]
pub use certificate::{RevocationList, RevocationReason, RevokedCertificate};
pub use envelope::{
    Agreement, AtRest, CloneKind, CloneProof, CloneStatement, ContentType, Header, Link,
    MAX_ENVELOPE_BYTES, NoProof, NoSenderKeys, Opened, Received, Rejection, Rule, SealError,
    SealRequest, SealedMessage, SenderKeys, Signed, Verified, readdress, seal,
};
pub use ids::{
    DeviceId, IdError, KeyEpoch, Kid, MAX_COUNTER, MessageId, SenderKeyId, SubjectPseudonym,
    Thumbprint,
};
pub use keys::{
    BLOB_OVERHEAD, BlobContext, BlobKey, Dek, DeviceSigner, FileKey, Kek, KeyError, OutboxKey,
    PageKey, PatientKeys, RecipientKey, RecipientKeyRing, RootKey, SessionKey, StoreKey, blob_kid,
    open_blob, seal_blob,
};
pub use remote::RemoteSigner;
