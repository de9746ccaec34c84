//! What a token refused, in words for whoever runs it. The PIN and key bytes are in none of them.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};

/// An attempt on a token failed.
#[derive(Debug, thiserror::Error)]
#[error("{attempt} on {place}")]
pub struct TokenError {
    /// What was attempted.
    pub attempt: String,
    /// Which token, behind which module.
    pub place: Arc<str>,
    /// Why it failed, and what to do.
    #[source]
    pub why: Box<TokenRefusal>,
}

/// Why a token, or the way to it, refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenRefusal {
    /// The module's file could not be loaded.
    #[error(
        "the PKCS#11 module does not load: {0}; is it installed, for this machine's architecture?"
    )]
    Module(String),
    /// No token of this label.
    #[error(
        "no token of this label is there (labels there: {0}); is it plugged in and initialised?"
    )]
    NoToken(String),
    /// Several tokens of this label.
    #[error("{0} tokens have this label; give the right one a label of its own")]
    TwinTokens(usize),
    /// The PIN file could not be read.
    #[error("the PIN file {0} cannot be read")]
    PinFile(PathBuf, #[source] io::Error),
    /// Others may read the PIN file.
    #[error(
        "the PIN file {0} is open to others than its owner (mode {1:o}); run `chmod go=` on it, and change the PIN"
    )]
    PinFileOpen(PathBuf, u32),
    /// The PIN file holds nothing.
    #[error("the PIN file {0} is empty")]
    NoPin(PathBuf),
    /// The token did not take the PIN.
    #[error(
        "the token refused the PIN of {file} ({code}); it is not tried again, because tokens lock: correct the file, then start again"
    )]
    WrongPin {
        /// The PIN file.
        file: PathBuf,
        /// What the token answered, e.g. `CKR_PIN_INCORRECT`.
        code: String,
    },
    /// One more wrong PIN would lock the token.
    #[error(
        "one more wrong PIN locks the token, so it was not tried; log in once with the maker's own tool"
    )]
    LastTry,
    /// A function of the module failed.
    #[error("{function} answered {code}: {}", advice(*code_value))]
    Call {
        /// The function, e.g. `C_WrapKey`.
        function: String,
        /// Its answer, e.g. `CKR_FUNCTION_FAILED`.
        code: String,
        /// The same, to decide by.
        code_value: RvError,
    },
    /// The module answered something that PKCS#11 does not allow.
    #[error("the module's answer was not understood ({0})")]
    Answer(String),
    /// Two objects of one label.
    #[error(
        "{1} objects have the label {0}; another program made one, or two servers share it: see which is which, and destroy the wrong one"
    )]
    TwinObjects(String, usize),
    /// The object is not there.
    #[error(
        "there is no object of the label {0}; is it another token, or another `label` in the configuration?"
    )]
    NoObject(String),
    /// None of the store's keys is there.
    #[error(
        "no key of this store is on the token, so nothing is concluded from one that is missing; is it another token, another `label`, or has its storage gone? A module that lost its token may need the server to be started again"
    )]
    Vanished,
    /// The object is there before it was made.
    #[error(
        "there is an object of the label {0} already; is the `label` of another store in the configuration?"
    )]
    Exists(String),
    /// No way to wrap a key.
    #[error(
        "the token has neither CKM_AES_KEY_WRAP nor CKM_AES_KEY_WRAP_PAD; no root key can live there"
    )]
    CannotWrap,
    /// What was wrapped does not come back.
    #[error("what it wrapped did not come back as it was; the new key was not used")]
    ReadBack,
    /// The stored blob is not one of ours.
    #[error("the wrapped key beside the data is damaged, or of a newer version")]
    Blob,
    /// Destroyed, and still there.
    #[error("it is still there after the token destroyed it: nothing that it was to end is final")]
    Survived,
}

impl TokenRefusal {
    /// Whether a new session may help: the old one, the login or the token was lost on the way.
    pub(super) fn session_was_lost(&self) -> bool {
        let Self::Call { code_value, .. } = self else {
            return false;
        };
        matches!(
            code_value,
            RvError::SessionHandleInvalid
                | RvError::SessionClosed
                | RvError::UserNotLoggedIn
                | RvError::DeviceRemoved
                | RvError::DeviceError
                | RvError::TokenNotPresent
                | RvError::TokenNotRecognized
                | RvError::SlotIdInvalid
                | RvError::CryptokiNotInitialized
                // Somebody else's search, or one of ours that broke off, is in the way of this session for good.
                | RvError::OperationActive
                // Handles are looked up within each attempt: one that is stale was lost with a login in between.
                | RvError::KeyHandleInvalid
                | RvError::ObjectHandleInvalid
                | RvError::WrappingKeyHandleInvalid
                | RvError::UnwrappingKeyHandleInvalid
        )
    }
}

impl From<Error> for TokenRefusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Pkcs11(code, function) => Self::call(code, function),
            Error::LibraryLoading(cause) => Self::Module(cause.to_string()),
            Error::MissingSymbol(name) => Self::Module(format!("it has no {name}")),
            other => Self::Answer(other.to_string()),
        }
    }
}

impl TokenRefusal {
    pub(super) fn call(code: RvError, function: Function) -> Self {
        Self::Call {
            function: format!("C_{function:?}"),
            code: code_name(code),
            code_value: code,
        }
    }
}

/// `CKR_PIN_INCORRECT` of `PinIncorrect`: the name by which a maker's manual knows it.
pub(super) fn code_name(code: RvError) -> String {
    match code {
        RvError::VendorDefined(code) | RvError::UnknownErrorCode(code) => format!("{code:#010x}"),
        known => {
            let mut name = "CKR".to_owned();
            for character in format!("{known:?}").chars() {
                if character.is_ascii_uppercase() {
                    name.push('_');
                }
                name.push(character.to_ascii_uppercase());
            }
            name
        }
    }
}

fn advice(code: RvError) -> &'static str {
    match code {
        RvError::TokenNotPresent | RvError::DeviceRemoved | RvError::TokenNotRecognized => {
            "the token is not there; plug it in, or start its service"
        }
        RvError::TokenWriteProtected | RvError::SessionReadOnly => {
            "the token is write-protected; the server has to make and destroy keys"
        }
        RvError::DeviceMemory | RvError::HostMemory => {
            "the token is full; destroy objects of stores that are gone"
        }
        RvError::MechanismInvalid | RvError::FunctionNotSupported | RvError::CurveNotSupported => {
            "the token lacks what this key needs; docs/PKCS11.md lists it"
        }
        RvError::KeyUnextractable
        | RvError::KeyFunctionNotPermitted
        | RvError::AttributeSensitive
        | RvError::ActionProhibited
        | RvError::TemplateInconsistent
        | RvError::AttributeValueInvalid => {
            "the token's policy forbids it; docs/PKCS11.md says what it has to allow"
        }
        RvError::WrappedKeyInvalid
        | RvError::WrappedKeyLenRange
        | RvError::EncryptedDataInvalid
        | RvError::EncryptedDataLenRange => {
            "the wrapped key does not belong to this token's key: is the data another store's, or damaged?"
        }
        RvError::SessionCount => "the token has no session left; stop what else uses it",
        RvError::PinExpired | RvError::UserPinNotInitialized => {
            "set the user PIN with the maker's tool"
        }
        _ => "the module's own log says more",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_function_and_code_as_the_standard_does() {
        let refused = TokenRefusal::from(Error::Pkcs11(
            RvError::SessionHandleInvalid,
            Function::WrapKey,
        ));
        let said = refused.to_string();
        assert!(
            said.starts_with("C_WrapKey answered CKR_SESSION_HANDLE_INVALID:"),
            "{said}"
        );
        assert!(refused.session_was_lost());
        let vendor = TokenRefusal::call(RvError::VendorDefined(0x8000_0017), Function::Login);
        assert!(vendor.to_string().contains("0x80000017"), "{vendor}");
        assert!(!vendor.session_was_lost());
    }
}
