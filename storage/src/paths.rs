//! A type for each stored path. No path of the store is built anywhere else.
//!
//! ```text
//! DIR/                    0700
//!   registry.sqlite       patients, devices, users, wrapped keys, catalog      0600
//!                         (or on a PostgreSQL server)
//!   inbox.sqlite          durable intake and hot tier, quarantine              0600
//!   audit.sqlite          audit log                                            0600
//!   audit.vkey            its public verification key
//!   parquet/r-<id>.parquet  sealed rows; the name is random, never a pseudonym 0600
//!   parquet/c-<id>.parquet  sealed chunks; likewise. Both are in a bucket instead, if there is one
//!   parquet.owner         what the place of the data files holds as `owner`: it is this store's. In no backup
//!   ca-root.pem           certificate of the root certificate authority
//!   ca-issuing.pem        certificate of the issuing authority (its key is sealed in the registry)
//!   damaged/              data files that were damaged and set aside; nobody reads them
//!   erasures/<id>.json    certificates of erasure; no personal data
//!   vitalseal.toml        configuration
//!   vitalseal.lock        held while a process has the store open
//!   admin.sock            administrator's door
//! DIR.root/               0700, NEVER beside the data in a backup
//!   root-<epoch>.key      root key of the present epoch                        0600
//!   recipient-<n>.key     cover of an envelope key of the server               0600
//!   ca-root.key           key of the root certificate authority; better moved offline  0600
//! DIR.keys/               0700, key snapshots: worth nothing without the root; better on another disk
//! ```

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::catalog::FileKind;
use crate::database::{Place, RegistryPlace};
use crate::files::ObjectsPlace;

/// Where everything of one store lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorePaths {
    data: PathBuf,
    root_keys: PathBuf,
    registry: RegistryPlace,
    objects: Option<ObjectsPlace>,
}

impl StorePaths {
    /// The store in `data`; its root keys in `root_keys`, by default `data` with `.root` appended.
    #[must_use]
    pub fn new(data: &Path, root_keys: Option<&Path>) -> Self {
        let root_keys = root_keys.map_or_else(|| beside(data, ".root"), Path::to_path_buf);
        Self {
            data: data.to_path_buf(),
            root_keys,
            registry: RegistryPlace::File,
            objects: None,
        }
    }

    /// The same store with its data files somewhere else than in [`StorePaths::parquet`].
    #[must_use]
    pub fn with_objects(self, place: ObjectsPlace) -> Self {
        let objects = Some(place);
        Self { objects, ..self }
    }

    /// The same store with its registry somewhere else than in [`StorePaths::registry`].
    #[must_use]
    pub fn with_registry(self, registry: RegistryPlace) -> Self {
        Self { registry, ..self }
    }

    /// Where key snapshots go if nothing else is said: `data` with `.keys` appended.
    #[must_use]
    pub fn default_snapshots(&self) -> PathBuf {
        beside(&self.data, ".keys")
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The directory of the file root provider.
    #[must_use]
    pub fn root_keys(&self) -> &Path {
        &self.root_keys
    }

    /// Patients, devices, users, wrapped keys, catalog; unless a server has them.
    #[must_use]
    pub fn registry(&self) -> PathBuf {
        self.data.join("registry.sqlite")
    }

    /// Where the registry is, for people: no password is in it.
    #[must_use]
    pub fn registry_name(&self) -> String {
        match &self.registry {
            RegistryPlace::File => self.registry().display().to_string(),
            RegistryPlace::Postgres(place) => place.to_string(),
        }
    }

    /// Where the registry is.
    pub(crate) fn registry_place(&self) -> Place {
        match &self.registry {
            RegistryPlace::File => Place::Sqlite(self.registry()),
            RegistryPlace::Postgres(place) => Place::Postgres(place.clone()),
        }
    }

    /// Durable intake, hot tier and quarantine.
    #[must_use]
    pub fn inbox(&self) -> PathBuf {
        self.data.join("inbox.sqlite")
    }

    /// Audit log.
    #[must_use]
    pub fn audit(&self) -> PathBuf {
        self.data.join("audit.sqlite")
    }

    /// Public verification key of the audit log.
    #[must_use]
    pub fn audit_vkey(&self) -> PathBuf {
        self.data.join("audit.vkey")
    }

    /// Data files, unless they are elsewhere: see [`StorePaths::objects`].
    #[must_use]
    pub fn parquet(&self) -> PathBuf {
        self.data.join("parquet")
    }

    /// Where data files are.
    #[must_use]
    pub fn objects(&self) -> ObjectsPlace {
        let local = || ObjectsPlace::Local(self.parquet());
        self.objects.clone().unwrap_or_else(local)
    }

    /// What shows that the place of the data files is this store's.
    pub(crate) fn owner(&self) -> PathBuf {
        self.data.join("parquet.owner")
    }

    /// Configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.data.join("vitalseal.toml")
    }

    /// Data files that were damaged and set aside. Nobody reads them.
    #[must_use]
    pub fn damaged(&self) -> PathBuf {
        self.data.join("damaged")
    }

    /// Certificates of erasure.
    #[must_use]
    pub fn erasures(&self) -> PathBuf {
        self.data.join("erasures")
    }

    /// The certificate of an erasure, by the erasure's id.
    #[must_use]
    pub fn erasure_certificate(&self, erasure: &str) -> PathBuf {
        self.erasures().join(format!("{erasure}.json"))
    }

    /// Certificate of the root certificate authority.
    #[must_use]
    pub fn root_certificate(&self) -> PathBuf {
        self.data.join("ca-root.pem")
    }

    /// Certificate of the issuing certificate authority.
    #[must_use]
    pub fn issuing_certificate(&self) -> PathBuf {
        self.data.join("ca-issuing.pem")
    }

    /// Private key of the root certificate authority.
    #[must_use]
    pub fn root_authority_key(&self) -> PathBuf {
        self.root_keys.join("ca-root.key")
    }

    /// Lock file.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.data.join("vitalseal.lock")
    }

    /// Written and removed to see whether there is room; not there in between.
    pub(crate) fn space_trial(&self) -> PathBuf {
        self.data.join("space.trial")
    }

    /// Administrator's socket.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.data.join("admin.sock")
    }
}

impl StorePaths {
    /// Whether a path directly in the data directory is one of a store's; SQLite keeps its log
    /// beside a database.
    pub(crate) fn is_ours(&self, path: &Path) -> bool {
        let databases = [self.registry(), self.inbox(), self.audit()];
        let with = |base: &Path, suffix: &str| {
            let mut name = base.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        let others = [
            self.audit_vkey(),
            self.parquet(),
            self.owner(),
            self.config(),
            self.root_certificate(),
            self.issuing_certificate(),
            self.erasures(),
            self.damaged(),
            self.lock(),
            self.space_trial(),
            self.admin_socket(),
        ];
        others.iter().any(|ours| ours == path)
            || databases
                .iter()
                .any(|db| ["", "-wal", "-shm"].iter().any(|s| with(db, s) == path))
    }
}

/// The name of the data file of this kind with this id, in [`StorePaths::objects`].
pub(crate) fn data_file(kind: FileKind, id: &[u8; 16]) -> String {
    format!("{}-{}.parquet", prefix(kind), hex::encode(id))
}

/// Whether [`data_file`] makes this name. One that somebody put into the registry leads anywhere, and files are read and
/// removed by it.
pub(crate) fn is_data_file(name: &str) -> bool {
    [FileKind::Rows, FileKind::Chunks].into_iter().any(|kind| {
        let mut id = [0; 16];
        let digits = name.strip_prefix(prefix(kind));
        let digits = digits.and_then(|rest| rest.strip_prefix('-'));
        let digits = digits.and_then(|rest| rest.strip_suffix(".parquet"));
        let decoded = digits.map(|digits| hex::decode_to_slice(digits, &mut id));
        decoded.is_some_and(|decoded| decoded.is_ok()) && name == data_file(kind, &id)
    })
}

fn prefix(kind: FileKind) -> char {
    match kind {
        FileKind::Rows => 'r',
        FileKind::Chunks => 'c',
    }
}

fn beside(data: &Path, suffix: &str) -> PathBuf {
    // A trailing slash or dot must not put the root keys inside the data directory: components()
    // drops both.
    let mut name: OsString = data.components().as_path().as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_keys_never_land_inside_the_data_directory() {
        for data in ["/srv/vs", "/srv/vs/", "/srv/vs/.", "/srv//vs"] {
            let paths = StorePaths::new(Path::new(data), None);
            assert_eq!(paths.root_keys(), Path::new("/srv/vs.root"), "{data}");
            assert!(!paths.root_keys().starts_with(paths.data()));
        }
    }
}
