//! Keys on a hardware token, through the PKCS#11 module of its maker (PKCS#11 v2.40, base specification).
//!
//! ```text
//! token object                      on the token for ever, until it is destroyed there
//! vitalseal-LABEL-root-<epoch>      AES-256, wraps the root key of one epoch                 Pkcs11RootProvider
//! vitalseal-LABEL-recipient-<n>     AES-256, wraps the cover of one envelope key             Pkcs11RootProvider
//! vitalseal-LABEL-issuing-ca        P-256, signs certificates                                Pkcs11Signer
//! vitalseal-LABEL-audit-log         Ed25519, signs heads of the audit log and erasures       Pkcs11Signer
//! ```
//!
//! Every private or secret object is made on the token, sensitive and not extractable. What stands here speaks to one
//! token: sessions, login, objects by their label. Never a key of the tree: the token wraps the root of an epoch, and
//! the tree below it is as with any other provider. Never the PIN: it is read from its file for a login and forgotten.
//!
//! "Not there" is an answer on which keys are given up for destroyed. A token whose user was logged out hides its
//! private objects without an error, and one whose storage went away shows nothing at all. So that answer is only
//! believed of a session that is still logged in and still shows another secret key of this store: there always is
//! one, from the root of epoch 0 on.

mod error;
mod root;
mod signer;
mod token;

pub use self::error::{TokenError, TokenRefusal};
pub use self::root::Pkcs11RootProvider;
pub use self::signer::{Pkcs11Signer, SigningPurpose};
pub use self::token::{Token, TokenSettings};
