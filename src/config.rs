//! Settings of a store: `DIR/vitalseal.toml`, every default named, unknown fields refused.
//!
//! No secret stands in this file; keys and credentials are in the registry, sealed under the root.

mod cluster;
mod commented;
mod housekeeping;
mod limits;
mod registry;
mod s3;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use vitalseal_compliance::incident::Parties;
use vitalseal_ingest::EdgeLimits;
use vitalseal_ingest::OnClone;
use vitalseal_ingest::TimeLimits;
use vitalseal_query::{LONGEST_DEADLINE, QueryLimits};
use vitalseal_storage::StorePaths;

pub use self::cluster::Cluster;
pub use self::housekeeping::{Housekeeping, Retention};
pub use self::limits::Limits;
pub use self::registry::Registry;
pub use self::s3::S3;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the root keys are, outside the data directory.
    pub root_keys: PathBuf,
    /// Names and addresses in the server's certificate: how clients may call it.
    #[serde(default = "local_names")]
    pub names: Vec<String>,
    /// The MQTT edge.
    #[serde(default)]
    pub mqtt: Mqtt,
    /// The PostgreSQL door.
    #[serde(default)]
    pub sql: Sql,
    /// Health and metrics.
    #[serde(default)]
    pub http: Http,
    /// The server of the registry; with none it is a file in the data directory.
    pub registry: Option<Registry>,
    /// The inbox and its flush to Parquet.
    #[serde(default)]
    pub storage: Storage,
    /// What is done with stored files unasked.
    #[serde(default)]
    pub housekeeping: Housekeeping,
    /// For how long they are kept.
    #[serde(default)]
    pub retention: Retention,
    /// The key tree.
    #[serde(default)]
    pub keys: Keys,
    /// The server's envelope keys.
    #[serde(default)]
    pub recipient: Recipient,
    /// Who stands in a breach report (GDPR 4(7), 33(3)(b)); what is not set is reported as unknown.
    #[serde(default, rename = "report")]
    pub controller: Parties,
}

/// `[mqtt]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mqtt {
    /// Address to listen on (TLS, client certificates required).
    pub listen: SocketAddr,
    /// Address of MQTT over WebSocket (TLS; a certificate or a user's token).
    pub websocket: SocketAddr,
    /// Pages that may open a WebSocket in a browser. With one listed, nobody is asked for a certificate there.
    pub origins: Vec<String>,
    /// A message of this age, in hours, is taken by its own clock; an older one only if its device's chain proves its
    /// order.
    pub fresh_h: u32,
    /// The longest time that a device may be offline, in days: nothing older is taken.
    pub offline_days: u32,
    /// By how much two boots of a device may lie over each other, by its own clock, in seconds.
    pub boot_overlap_s: u32,
    /// Refused messages that are kept, in MiB.
    pub quarantine_mib: u32,
    /// Live connections at most.
    pub connections: usize,
    /// What one peer is allowed.
    pub limits: Limits,
    /// What happens to a device whose key seems to be in two hands.
    pub on_clone: OnClone,
    /// An MQTT cluster to consume from, beside the edge or instead of it.
    pub cluster: Option<Cluster>,
}

impl Default for Mqtt {
    fn default() -> Self {
        Self {
            listen: loopback(8883),
            websocket: loopback(8884),
            origins: Vec::new(),
            fresh_h: 24,
            offline_days: 60,
            boot_overlap_s: 600,
            quarantine_mib: 512,
            connections: 10_000,
            limits: Limits::default(),
            on_clone: OnClone::default(),
            cluster: None,
        }
    }
}

impl Mqtt {
    /// What of it bounds the edge, on this machine.
    #[must_use]
    pub fn edge_limits(&self) -> EdgeLimits {
        let cores = std::thread::available_parallelism().map_or(2, NonZero::get);
        self.limits.edge(self.connections, cores)
    }

    /// What of it judges messages by their time.
    #[must_use]
    pub fn times(&self) -> TimeLimits {
        TimeLimits {
            fresh: SignedDuration::from_hours(i64::from(self.fresh_h)),
            offline: SignedDuration::from_hours(24 * i64::from(self.offline_days)),
            boot_overlap: SignedDuration::from_secs(i64::from(self.boot_overlap_s)),
        }
    }
}

/// `[sql]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sql {
    /// Address to listen on (TLS required).
    pub listen: SocketAddr,
    /// Live connections at most.
    pub connections: usize,
    /// Memory of all running queries together, in MiB; a query beyond it fails, nothing spills.
    pub memory_mib: usize,
    /// A query may take this long, its rows included, in seconds; 600 at most, which is how far breach
    /// reports look back for queries that were running.
    pub deadline_s: u64,
}

impl Default for Sql {
    fn default() -> Self {
        Self {
            listen: loopback(5433),
            connections: 64,
            memory_mib: 1024,
            deadline_s: 60,
        }
    }
}

impl Sql {
    /// What of it bounds queries.
    #[must_use]
    pub fn limits(&self) -> QueryLimits {
        QueryLimits {
            memory_bytes: self.memory_mib << 20,
            deadline: Duration::from_secs(self.deadline_s),
            connections: self.connections,
        }
    }
}

/// `[http]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Address of `/healthz` and `/metrics` (no TLS, no personal data).
    pub listen: SocketAddr,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: loopback(9464),
        }
    }
}

/// `[storage]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Storage {
    /// The inbox becomes a Parquet file at least this often, in seconds.
    pub flush_interval_s: u64,
    /// … and as soon as it holds this much, in MiB.
    pub flush_mib: u64,
    /// Free space, in MiB, below which no message is taken: what is left is for flushes, erasures and the audit log.
    /// Several times `flush_mib`.
    pub reserve_mib: u32,
    /// The bucket that Parquet files are in; with none they are in the data directory.
    pub s3: Option<S3>,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            flush_interval_s: 60,
            flush_mib: 64,
            reserve_mib: 256,
            s3: None,
        }
    }
}

/// `[keys]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// Directories that get a snapshot of the key tree before an old root is destroyed; best on other disks.
    pub snapshots: Vec<PathBuf>,
    /// The token that keeps the root keys; with none they are files in `root_keys`.
    pub pkcs11: Option<Pkcs11>,
}

/// `[keys.pkcs11]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pkcs11 {
    /// The maker's module: an absolute path, so that no search path decides what is loaded.
    pub module: PathBuf,
    /// Label of the token.
    pub token: String,
    /// File (0600) that holds the user PIN.
    pub pin_file: PathBuf,
    /// Tells this store's objects from others' on the token: letters, digits and hyphens, 40 at most.
    pub label: String,
    /// Whether the issuing authority's key is there too.
    #[serde(default)]
    pub issuing_ca: bool,
    /// Whether the audit log's signing key is there too.
    #[serde(default)]
    pub audit_log: bool,
}

impl Pkcs11 {
    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.module.is_absolute() && self.pin_file.is_absolute(),
            "keys.pkcs11.module and keys.pkcs11.pin_file must be absolute paths"
        );
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        anyhow::ensure!(
            (1..=40).contains(&self.label.len()) && self.label.chars().all(plain),
            "keys.pkcs11.label must be letters, digits and hyphens, 40 at most"
        );
        Ok(())
    }
}

/// `[recipient]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recipient {
    /// Length of an envelope key epoch, in hours. When it ends, its private key is destroyed: until
    /// then, traffic captured before an erasure could still be opened by whoever steals that key.
    pub epoch_h: u32,
    /// The next epoch is published this long before the current one ends, in hours.
    pub overlap_h: u32,
}

impl Default for Recipient {
    fn default() -> Self {
        Self {
            epoch_h: 24,
            overlap_h: 6,
        }
    }
}

/// An origin is scheme, host and port as a browser writes them (RFC 6454 §6.2); anything else would never match.
fn check_origins(origins: &[String]) -> anyhow::Result<()> {
    for origin in origins {
        let host = origin
            .strip_prefix("https://")
            .or(origin.strip_prefix("http://"));
        anyhow::ensure!(
            host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '*', ' '])),
            "mqtt.origins: {origin:?} must be like \"https://ward.example.org\" or \"https://10.0.0.7:8443\", without a path"
        );
    }
    Ok(())
}

fn local_names() -> Vec<String> {
    ["localhost", "127.0.0.1", "::1"]
        .map(str::to_owned)
        .to_vec()
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// The tables of the file, but for those that came later: a file from before them is whole.
const TABLES: [&str; 7] = [
    "mqtt",
    "sql",
    "http",
    "storage",
    "keys",
    "recipient",
    "report",
];

impl Config {
    /// Where the parts of the store in `data` are, by these settings.
    ///
    /// # Errors
    /// The registry's address or password is of no use.
    pub fn paths(&self, data: &Path) -> anyhow::Result<StorePaths> {
        let mut paths = StorePaths::new(data, Some(&self.root_keys));
        if let Some(s3) = &self.storage.s3 {
            paths = paths.with_objects(s3.objects());
        }
        if let Some(registry) = &self.registry {
            paths = paths.with_registry(registry.place()?);
        }
        Ok(paths)
    }

    /// Every setting at its default; the server is called `localhost` and by `further_names`.
    #[must_use]
    pub fn new(root_keys: PathBuf, snapshots: PathBuf, further_names: Vec<String>) -> Self {
        let mut names = local_names();
        names.extend(further_names);
        Self {
            root_keys,
            names,
            mqtt: Mqtt::default(),
            sql: Sql::default(),
            http: Http::default(),
            registry: None,
            storage: Storage::default(),
            housekeeping: Housekeeping::default(),
            retention: Retention::default(),
            keys: Keys {
                snapshots: vec![snapshots],
                pkcs11: None,
            },
            recipient: Recipient::default(),
            controller: Parties::default(),
        }
    }

    /// Reads the file of a store.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, or has a field that is not a setting.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!(
                "reading the configuration {} (is this a store? `vitalseal init` makes one)",
                path.display()
            )
        })?;
        let config = Self::parse(&text).with_context(|| format!("parsing {}", path.display()))?;
        anyhow::ensure!(
            (1..config.recipient.epoch_h).contains(&config.recipient.overlap_h),
            "{}: recipient.overlap_h must be at least 1 and less than recipient.epoch_h",
            path.display()
        );
        if let Some(pkcs11) = &config.keys.pkcs11 {
            pkcs11
                .check()
                .with_context(|| format!("reading {}", path.display()))?;
        }
        check_origins(&config.mqtt.origins)
            .with_context(|| format!("reading {}", path.display()))?;
        config
            .mqtt
            .limits
            .check()
            .with_context(|| format!("reading {}", path.display()))?;
        config
            .housekeeping
            .check(config.sql.deadline_s)
            .and_then(|()| config.retention.check())
            .with_context(|| format!("reading {}", path.display()))?;
        if let Some(s3) = &config.storage.s3 {
            s3.check()
                .with_context(|| format!("reading {}", path.display()))?;
        }
        if let Some(cluster) = &config.mqtt.cluster {
            cluster
                .check()
                .with_context(|| format!("reading {}", path.display()))?;
        }
        anyhow::ensure!(
            config.mqtt.times().fresh <= config.mqtt.times().offline,
            "{}: mqtt.offline_days must not be shorter than mqtt.fresh_h",
            path.display()
        );
        anyhow::ensure!(
            Duration::from_secs(config.sql.deadline_s) <= LONGEST_DEADLINE,
            "{}: sql.deadline_s may be {} at most",
            path.display(),
            LONGEST_DEADLINE.as_secs()
        );
        Ok(config)
    }

    /// A file that was cut off would say the defaults of all that is missing: every table has to be there.
    fn parse(text: &str) -> anyhow::Result<Self> {
        let config = toml::from_str(text)?;
        let tables: toml::Table = toml::from_str(text)?;
        for name in TABLES {
            anyhow::ensure!(
                tables.contains_key(name),
                "there is no [{name}]: is the file whole? An empty table stands for the defaults"
            );
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests;
