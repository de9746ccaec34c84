//! One token: found by its label, opened when first needed, opened again when it was lost.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::MechanismType;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use tokio::runtime::{Handle, RuntimeFlavor};
use zeroize::Zeroizing;

use super::error::code_name;
use super::{TokenError, TokenRefusal};
use crate::durable;

/// Where a token is, and what is ours on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSettings {
    /// The maker's module, a shared library.
    pub module: PathBuf,
    /// The token's label, as it was initialised.
    pub token: String,
    /// A file (0600) that holds the user PIN and nothing else; a line break at its end is cut.
    pub pin_file: PathBuf,
    /// Tells this store's objects from others' on the same token: they are `vitalseal-LABEL-…`.
    pub label: String,
}

/// A token. One session, used by one caller at a time; nothing is opened before it is needed.
#[derive(Debug)]
pub struct Token {
    settings: TokenSettings,
    place: Arc<str>,
    /// `None` until it is needed, and again when it was lost.
    line: Mutex<Option<Connection>>,
    description: OnceLock<String>,
}

/// A session whose user is logged in, and what its token can do.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) session: Session,
    pub(super) mechanisms: Vec<MechanismType>,
    /// What the labels of this store's objects begin with.
    ours: String,
}

impl Token {
    /// The token of these settings. Nothing is tried yet.
    #[must_use]
    pub fn new(settings: TokenSettings) -> Arc<Self> {
        let (token, module) = (&settings.token, settings.module.display());
        let place = format!("PKCS#11 token {token:?} (module {module})").into();
        Arc::new(Self {
            settings,
            place,
            line: Mutex::new(None),
            description: OnceLock::new(),
        })
    }

    /// The label of the store's objects, e.g. `vitalseal-north-root-7`.
    pub(super) fn object(&self, suffix: &str) -> String {
        format!("vitalseal-{}-{suffix}", self.settings.label)
    }

    /// The label and what the token says of itself, e.g. `pkcs11 (token ward, SoftHSM project SoftHSM v2)`; only after
    /// it was opened.
    pub(super) fn description(&self) -> Option<&str> {
        self.description.get().map(String::as_str)
    }

    /// The token's label.
    pub(super) fn name(&self) -> &str {
        &self.settings.token
    }

    /// Runs `call` on an open session, and once more on a new one if the first was lost on the way. So `call` must be
    /// whole in itself: it looks its objects up, and leaves none in the session.
    ///
    /// # Errors
    /// [`TokenError`] with the last refusal.
    pub(super) fn with<T>(
        &self,
        attempt: &str,
        call: impl Fn(&Connection) -> Result<T, TokenRefusal>,
    ) -> Result<T, TokenError> {
        blocking(|| {
            let mut line = self.line();
            let first = self.try_once(&mut line, &call);
            let outcome = match first {
                Err(lost) if lost.session_was_lost() => {
                    tracing::warn!(place = %self.place, attempt, why = %lost, "opening the token again");
                    *line = None;
                    self.try_once(&mut line, &call)
                }
                other => other,
            };
            if matches!(&outcome, Err(refusal) if refusal.session_was_lost()) {
                *line = None;
            }
            outcome
        })
        .map_err(|why| self.failed(attempt, why))
    }

    pub(super) fn failed(&self, attempt: &str, why: TokenRefusal) -> TokenError {
        TokenError {
            attempt: attempt.to_owned(),
            place: Arc::clone(&self.place),
            why: Box::new(why),
        }
    }

    fn try_once<T>(
        &self,
        line: &mut Option<Connection>,
        call: &impl Fn(&Connection) -> Result<T, TokenRefusal>,
    ) -> Result<T, TokenRefusal> {
        match line {
            Some(connection) => call(connection),
            None => call(line.insert(self.open()?)),
        }
    }

    fn open(&self) -> Result<Connection, TokenRefusal> {
        let module = module(&self.settings.module)?;
        match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(other) => return Err(other.into()),
        }
        let slot = self.find_slot(&module)?;
        let session = module.open_rw_session(slot)?;
        let info = module.get_token_info(slot)?;
        // The login is the process's, not the session's: another part of us may have logged in.
        if !is_logged_in(&session)? {
            if info.user_pin_final_try() {
                return Err(TokenRefusal::LastTry);
            }
            self.log_in(&session)?;
        }
        let (token, maker, model) = (info.label(), info.manufacturer_id(), info.model());
        self.description
            .get_or_init(|| format!("pkcs11 (token {token}, {maker} {model})"));
        Ok(Connection {
            session,
            mechanisms: module.get_mechanism_list(slot)?,
            ours: self.object(""),
        })
    }

    fn find_slot(&self, module: &Pkcs11) -> Result<Slot, TokenRefusal> {
        let mut labels = Vec::new();
        let mut ours = Vec::new();
        for slot in module.get_slots_with_initialized_token()? {
            let label = module.get_token_info(slot)?.label().to_owned();
            if label == self.settings.token {
                ours.push(slot);
            }
            labels.push(label);
        }
        match ours[..] {
            [slot] => Ok(slot),
            [] if labels.is_empty() => Err(TokenRefusal::NoToken("none".to_owned())),
            [] => Err(TokenRefusal::NoToken(labels.join(", "))),
            _ => Err(TokenRefusal::TwinTokens(ours.len())),
        }
    }

    /// Presents the PIN, unless this process did so before and was refused: tokens count, and every part of the process
    /// has the same PIN.
    fn log_in(&self, session: &Session) -> Result<(), TokenRefusal> {
        static REFUSED: Mutex<BTreeMap<(PathBuf, String), String>> = Mutex::new(BTreeMap::new());
        let token = (self.settings.module.clone(), self.settings.token.clone());
        let wrong_pin = |code| TokenRefusal::WrongPin {
            file: self.settings.pin_file.clone(),
            code,
        };
        let mut refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(code) = refused.get(&token) {
            return Err(wrong_pin(code.clone()));
        }
        let pin = read_pin(&self.settings.pin_file)?;
        match session.login(UserType::User, Some(&pin)) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(Error::Pkcs11(
                code @ (RvError::PinIncorrect
                | RvError::PinInvalid
                | RvError::PinLenRange
                | RvError::PinExpired
                | RvError::PinLocked),
                _,
            )) => {
                let code = code_name(code);
                refused.insert(token, code.clone());
                Err(wrong_pin(code))
            }
            Err(other) => Err(other.into()),
        }
    }

    /// A panic elsewhere left at worst a session that is found lost.
    fn line(&self) -> MutexGuard<'_, Option<Connection>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// The token object of this class and label. `None` can be relied on: see the module docs of `pkcs11`.
    pub(super) fn find(
        &self,
        class: ObjectClass,
        label: &str,
    ) -> Result<Option<ObjectHandle>, TokenRefusal> {
        let wanted = [
            Attribute::Token(true),
            Attribute::Class(class),
            Attribute::Label(label.as_bytes().to_vec()),
        ];
        match self.session.find_objects(&wanted)?[..] {
            [] if self.secret_keys()?.is_empty() => Err(TokenRefusal::Vanished),
            [] => Ok(None),
            [object] => Ok(Some(object)),
            ref twins => Err(TokenRefusal::TwinObjects(label.to_owned(), twins.len())),
        }
    }

    /// Labels of the store's secret keys.
    pub(super) fn secret_keys(&self) -> Result<Vec<String>, TokenRefusal> {
        let wanted = [
            Attribute::Token(true),
            Attribute::Class(ObjectClass::SECRET_KEY),
        ];
        let mut labels = Vec::new();
        for object in self.session.find_objects(&wanted)? {
            let read = self
                .session
                .get_attributes(object, &[AttributeType::Label])?;
            if let [Attribute::Label(label)] = &read[..]
                && let Ok(label) = std::str::from_utf8(label)
                && label.starts_with(&self.ours)
            {
                labels.push(label.to_owned());
            }
        }
        if !is_logged_in(&self.session)? {
            return Err(TokenRefusal::call(
                RvError::UserNotLoggedIn,
                Function::FindObjects,
            ));
        }
        Ok(labels)
    }

    /// Destroys the token object of this class and label, and makes sure of it. One that is not there is no error.
    pub(super) fn destroy(&self, class: ObjectClass, label: &str) -> Result<(), TokenRefusal> {
        let Some(object) = self.find(class, label)? else {
            return Ok(());
        };
        self.session.destroy_object(object)?;
        match self.find(class, label)? {
            None => Ok(()),
            Some(_) => Err(TokenRefusal::Survived),
        }
    }
}

fn is_logged_in(session: &Session) -> Result<bool, TokenRefusal> {
    Ok(session.get_session_info()?.session_state() == SessionState::RwUser)
}

/// A module is loaded once in a process and never let go: its state is the process's, and others may be using it.
fn module(path: &Path) -> Result<Pkcs11, TokenRefusal> {
    static LOADED: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(module) = loaded.get(path) {
        return Ok(module.clone());
    }
    let module = Pkcs11::new(path)?;
    loaded.insert(path.to_owned(), module.clone());
    Ok(module)
}

/// Read for each login, so that the PIN is in memory only while it is needed.
fn read_pin(path: &Path) -> Result<AuthPin, TokenRefusal> {
    let unreadable = |cause| TokenRefusal::PinFile(path.to_owned(), cause);
    if let Some(mode) = durable::open_to_others(path).map_err(|e| unreadable(e.source))? {
        return Err(TokenRefusal::PinFileOpen(path.to_owned(), mode));
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(unreadable)?);
    let pin = text.trim_end_matches(['\r', '\n']);
    if pin.is_empty() {
        return Err(TokenRefusal::NoPin(path.to_owned()));
    }
    Ok(AuthPin::new(pin.into()))
}

/// A token may be a network away. Where the runtime has other threads, they go on meanwhile.
fn blocking<T>(call: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(call),
        _ => call(),
    }
}
