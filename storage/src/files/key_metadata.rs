//! How a file names its key: the key metadata of Parquet's own key tools, single wrapping, inside the file.
//!
//! ```text
//! {"keyMaterialType":"PKMT1","internalStorage":true,"isFooterKey":true,"kmsInstanceID":"DEFAULT",
//!  "kmsInstanceURL":"DEFAULT","masterKeyID":"<kid of the store key, hex>",
//!  "wrappedDEK":"<file key, A256KW under the store key, hex>","doubleWrapping":false}
//! ```
//!
//! Another Parquet reader hands `wrappedDEK` and `masterKeyID` to its KMS client, which unwraps with the store key (RFC
//! 3394). The form is in the clear: it tells which store key is needed, and nothing of what is inside.

use serde::{Deserialize, Serialize};
use vitalseal_crypto::{FileKey, KeyError, Kid, StoreKey};

/// How the JSON begins in a file: serde keeps the order of the fields.
const START: &[u8] = b"{\"keyMaterialType\":\"PKMT1\"";

/// The key of one file, wrapped.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct KeyMetadata {
    key_material_type: String,
    internal_storage: bool,
    is_footer_key: bool,
    #[serde(rename = "kmsInstanceID")]
    kms_instance_id: String,
    #[serde(rename = "kmsInstanceURL")]
    kms_instance_url: String,
    #[serde(rename = "masterKeyID")]
    master_key_id: String,
    #[serde(rename = "wrappedDEK")]
    wrapped_dek: String,
    double_wrapping: bool,
}

impl KeyMetadata {
    pub(super) fn wrap(file: &FileKey, store: &StoreKey) -> Result<Self, KeyError> {
        Ok(Self {
            key_material_type: "PKMT1".to_owned(),
            internal_storage: true,
            is_footer_key: true,
            kms_instance_id: "DEFAULT".to_owned(),
            kms_instance_url: "DEFAULT".to_owned(),
            master_key_id: store.kid().to_string(),
            wrapped_dek: hex::encode(store.wrap_file_key(file)?),
            double_wrapping: false,
        })
    }

    /// The key metadata in the last bytes of a file, and its JSON; `None` if they are not framed as this program writes
    /// them:
    ///
    /// ```text
    /// …  FileCryptoMetaData, its last field the JSON │ 00 │ length u32 LE │ sealed footer │ length u32 LE │ "PARE"
    /// ```
    ///
    /// Parquet trusts these lengths; whoever asks here first need not.
    pub(super) fn find(tail: &[u8]) -> Option<(Self, &[u8])> {
        let (rest, magic) = tail.split_last_chunk::<4>()?;
        let (rest, length) = rest.split_last_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let footer = rest.get(rest.len().checked_sub(length)?..)?;
        let start = footer
            .windows(START.len())
            .position(|bytes| bytes == START)?;
        let json = footer.get(start..)?;
        let mut parsed = serde_json::Deserializer::from_slice(json).into_iter::<Self>();
        let found = parsed.next()?.ok()?;
        let (json, rest) = json.split_at_checked(parsed.byte_offset())?;
        let sealed = rest.strip_prefix(&[0])?;
        (magic == b"PARE" && super::read::is_framed(sealed)).then_some((found, json))
    }

    /// The store key that is needed; `None` if it is no key of a store.
    pub(super) fn kid(&self) -> Option<Kid> {
        self.master_key_id.parse().ok()
    }

    pub(super) fn unwrap(&self, store: &StoreKey) -> Result<FileKey, KeyError> {
        let wrapped = hex::decode(&self.wrapped_dek).map_err(|_| KeyError::Malformed)?;
        store.unwrap_file_key(&wrapped)
    }
}
