//! Root keys whose cover is on a token.
//!
//! ```text
//! token:  AES-256, one a slot, never leaves    ──wraps──▶  root key (32 bytes, drawn here)
//! data:   blob, beside the slot's row
//!
//! blob    0           1
//!         +-----------+----------------------------------+
//!         | mechanism | C_WrapKey of the root key        |   1: CKM_AES_KEY_WRAP (RFC 3394), 40 bytes
//!         | u8        | 40 bytes or more                 |   2: CKM_AES_KEY_WRAP_PAD
//!         +-----------+----------------------------------+
//! ```
//!
//! The blob is worth nothing without the token's object, so it may be in every backup; destroying the object ends it
//! in all of them.

use std::sync::Arc;

use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use vitalseal_crypto::{Backend, KeyEpoch, RootKey, danger};
use zeroize::{Zeroize as _, Zeroizing};

use super::token::{Connection, Token};
use super::{TokenError, TokenRefusal};
use crate::keys::{KeySlot, NewRoot, RootError, RootProvider, epochs};

/// Root keys under AES keys of a token, one for each epoch, destroyed there.
///
/// # Security
/// The AES keys are sensitive, not extractable, and only wrap and unwrap. Whoever has the PIN, the token and the data
/// can unwrap as this server does; whoever lacks one of the three cannot. A backup of the *token* brings destroyed
/// epochs back: see `docs/PKCS11.md`.
#[derive(Debug)]
pub struct Pkcs11RootProvider {
    token: Arc<Token>,
    unopened: String,
}

impl Pkcs11RootProvider {
    /// Keeps root keys under keys of this token.
    #[must_use]
    pub fn new(token: Arc<Token>) -> Self {
        let unopened = format!("pkcs11 (token {})", token.name());
        Self { token, unopened }
    }

    fn object(&self, slot: KeySlot) -> String {
        match slot {
            KeySlot::Root(epoch) => self.token.object(&format!("root-{epoch}")),
            KeySlot::Recipient(epoch) => self.token.object(&format!("recipient-{epoch}")),
        }
    }

    fn slot_of(&self, object: &str) -> Option<KeySlot> {
        let (_, epoch) = object.rsplit_once('-')?;
        let epoch = KeyEpoch(epoch.parse().ok()?);
        [KeySlot::Root(epoch), KeySlot::Recipient(epoch)]
            .into_iter()
            .find(|slot| self.object(*slot) == object)
    }

    fn missing(&self, slot: KeySlot) -> RootError {
        let held = match self.slots() {
            Ok(slots) => epochs(slot, &slots),
            Err(_) => "unreadable".to_owned(),
        };
        let place = self.name().to_owned();
        RootError::Missing { slot, place, held }
    }

    fn wrap(&self, slot: KeySlot, key: &RootKey) -> Result<Vec<u8>, TokenError> {
        let (label, bytes) = (self.object(slot), danger::root_key_to_bytes(key));
        self.token.with(&format!("wrapping the {slot}"), |line| {
            let (version, mechanism) = wrapping(&line.mechanisms)?;
            let cover = cover(line, &label)?;
            let mut template = session_key().to_vec();
            template.push(Attribute::Value(bytes.to_vec()));
            let imported = line.session.create_object(&template);
            wipe(template);
            let wrapped = consume(line, imported?, |object| {
                Ok(line.session.wrap_key(&mechanism, cover, object)?)
            })?;
            Ok([&[version], wrapped.as_slice()].concat())
        })
    }

    fn unwrap(&self, slot: KeySlot, blob: &[u8]) -> Result<Option<RootKey>, TokenError> {
        let label = self.object(slot);
        self.token.with(&format!("unwrapping the {slot}"), |line| {
            // First, because an ended epoch is asked for without its blob.
            let Some(cover) = line.find(ObjectClass::SECRET_KEY, &label)? else {
                return Ok(None);
            };
            let (mechanism, wrapped) = match blob {
                [1, wrapped @ ..] => (Mechanism::AesKeyWrap, wrapped),
                [2, wrapped @ ..] => (Mechanism::AesKeyWrapPad, wrapped),
                _ => return Err(TokenRefusal::Blob),
            };
            let unwrapped = line
                .session
                .unwrap_key(&mechanism, cover, wrapped, &session_key())?;
            consume(line, unwrapped, |object| {
                let bytes = value(line, object)?;
                danger::root_key_from_bytes(slot.epoch(), &bytes)
                    .map(Some)
                    .map_err(|_| TokenRefusal::Blob)
            })
        })
    }

    /// The second half of `create`: from here on a failure leaves a cover that covers nothing.
    fn fill(&self, slot: KeySlot, backend: &dyn Backend) -> Result<NewRoot, RootError> {
        let key = RootKey::generate(slot.epoch(), backend).map_err(RootError::draw(slot))?;
        let blob = self.wrap(slot, &key)?;
        let same =
            |read: &RootKey| *danger::root_key_to_bytes(read) == *danger::root_key_to_bytes(&key);
        match self.unwrap(slot, &blob)? {
            Some(read) if same(&read) => Ok(NewRoot { key, blob }),
            _ => {
                let attempt = format!("reading back the {slot}");
                Err(self.token.failed(&attempt, TokenRefusal::ReadBack).into())
            }
        }
    }
}

impl RootProvider for Pkcs11RootProvider {
    fn name(&self) -> &str {
        self.token.description().unwrap_or(&self.unopened)
    }

    fn load(&self, slot: KeySlot, blob: &[u8]) -> Result<RootKey, RootError> {
        self.unwrap(slot, blob)?.ok_or_else(|| self.missing(slot))
    }

    fn create(&self, slot: KeySlot, backend: &dyn Backend) -> Result<NewRoot, RootError> {
        let label = self.object(slot);
        let made = self.token.with(&format!("making the {slot}"), |line| {
            match line.find(ObjectClass::SECRET_KEY, &label) {
                Ok(None) => {}
                // The first key of a store; no other is made where none is.
                Err(TokenRefusal::Vanished) if slot == KeySlot::Root(KeyEpoch(0)) => {}
                Ok(Some(_)) => return Ok(false),
                Err(other) => return Err(other),
            }
            line.session
                .generate_key(&Mechanism::AesKeyGen, &cover_template(&label))?;
            Ok(true)
        })?;
        if !made {
            let place = self.name().to_owned();
            return Err(RootError::Exists { slot, place });
        }
        self.fill(slot, backend).inspect_err(|_| {
            // The first failure is the one to tell of. What stays covers nothing, and its number is not used again.
            let _ = self.destroy(slot);
        })
    }

    fn destroy(&self, slot: KeySlot) -> Result<(), RootError> {
        let label = self.object(slot);
        Ok(self.token.with(&format!("destroying the {slot}"), |line| {
            line.destroy(ObjectClass::SECRET_KEY, &label)
        })?)
    }

    fn slots(&self) -> Result<Vec<KeySlot>, RootError> {
        let labels = self
            .token
            .with("listing the root keys", Connection::secret_keys)?;
        let mut slots: Vec<KeySlot> = labels
            .iter()
            .filter_map(|label| self.slot_of(label))
            .collect();
        slots.sort_unstable();
        slots.dedup();
        Ok(slots)
    }
}

/// What a cover may do, and that it never leaves.
fn cover_template(label: &str) -> [Attribute; 16] {
    [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::ValueLen(32.into()),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Modifiable(false),
        Attribute::Wrap(true),
        Attribute::Unwrap(true),
        Attribute::Encrypt(false),
        Attribute::Decrypt(false),
        Attribute::Sign(false),
        Attribute::Verify(false),
        Attribute::Derive(false),
    ]
}

/// A root key while the token looks at it: in this session only, and good for nothing but to be wrapped or read.
fn session_key() -> [Attribute; 6] {
    [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
    ]
}

fn cover(line: &Connection, label: &str) -> Result<ObjectHandle, TokenRefusal> {
    line.find(ObjectClass::SECRET_KEY, label)?
        .ok_or_else(|| TokenRefusal::NoObject(label.to_owned()))
}

/// The first mechanism that the token has, and the number by which the blob remembers it.
fn wrapping(mechanisms: &[MechanismType]) -> Result<(u8, Mechanism<'static>), TokenRefusal> {
    if mechanisms.contains(&MechanismType::AES_KEY_WRAP) {
        Ok((1, Mechanism::AesKeyWrap))
    } else if mechanisms.contains(&MechanismType::AES_KEY_WRAP_PAD) {
        Ok((2, Mechanism::AesKeyWrapPad))
    } else {
        Err(TokenRefusal::CannotWrap)
    }
}

/// Uses a session object and destroys it, whatever came of the use.
fn consume<T>(
    line: &Connection,
    object: ObjectHandle,
    used: impl FnOnce(ObjectHandle) -> Result<T, TokenRefusal>,
) -> Result<T, TokenRefusal> {
    let outcome = used(object);
    let destroyed = line.session.destroy_object(object);
    let value = outcome?;
    destroyed?;
    Ok(value)
}

/// The bytes of an extractable object. The wrapper's own buffer is freed unwiped: it is the one place where a root key
/// may be left in this process's memory, which `serve` keeps out of core dumps.
fn value(line: &Connection, object: ObjectHandle) -> Result<Zeroizing<Vec<u8>>, TokenRefusal> {
    match line
        .session
        .get_attributes(object, &[AttributeType::Value])?
        .pop()
    {
        Some(Attribute::Value(bytes)) => Ok(Zeroizing::new(bytes)),
        _ => Err(TokenRefusal::call(
            cryptoki::error::RvError::AttributeSensitive,
            cryptoki::context::Function::GetAttributeValue,
        )),
    }
}

fn wipe(template: Vec<Attribute>) {
    for attribute in template {
        if let Attribute::Value(mut bytes) = attribute {
            bytes.zeroize();
        }
    }
}
