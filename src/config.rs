//! Settings of a store: `DIR/vitalseal.toml`, every default named, unknown fields refused.
//!
//! No secret stands in this file; keys and credentials are in the registry, sealed under the root.

mod cluster;
mod limits;

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
use vitalseal_ingest::cluster::SHARED_FILTER;
use vitalseal_query::LONGEST_DEADLINE;

pub use self::cluster::Cluster;
pub use self::limits::Limits;

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
    /// The inbox and its flush to Parquet.
    #[serde(default)]
    pub storage: Storage,
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
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            flush_interval_s: 60,
            flush_mib: 64,
            reserve_mib: 256,
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

    /// The settings as they stand in the file, one a line.
    fn lines(&self) -> String {
        let text = |value: &str| toml::Value::String(value.to_owned());
        format!(
            "[keys.pkcs11]\nmodule = {}\ntoken = {}\npin_file = {}\nlabel = {}\nissuing_ca = {}\n\
             audit_log = {}\n",
            text(&self.module.display().to_string()),
            text(&self.token),
            text(&self.pin_file.display().to_string()),
            text(&self.label),
            self.issuing_ca,
            self.audit_log,
        )
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

/// The tables of the file.
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
            storage: Storage::default(),
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

    /// The commented file that `init` writes.
    #[must_use]
    pub fn commented(&self) -> String {
        let Self {
            root_keys,
            names,
            mqtt,
            sql,
            http,
            storage,
            keys,
            recipient,
            controller: _,
        } = self;
        format!(
            r#"# vitalseal: settings of this store. Unknown fields are refused. A restart applies changes;
# `vitalseal server reload` (or SIGHUP) applies those of names, mqtt.connections, mqtt.limits and mqtt.on_clone.

# Root keys. Back up the data directory without them: an erasure cannot hold against a copy that
# includes the root.
root_keys = {root}

# How clients may call this server; they stand in its certificate, which is issued anew at every start.
names = {names}

[mqtt]
# Devices connect here (TLS, client certificate required). Use 0.0.0.0:8883 to leave this machine.
listen = "{mqtt_listen}"
# The same over WebSocket, at wss://ADDRESS/mqtt: by certificate, or for people by login name and token.
websocket = "{websocket}"
# Pages that may connect there from a browser, such as "https://ward.example.org"; other clients are not pages. With one
# listed, that address asks nobody for a certificate, because a browser that is asked gives up: people come by token, and
# devices and displays use the other address.
origins = {origins}
# A message of up to fresh_h is taken by its own clock. An older one, from a device that was offline, is taken if the
# device's chain proves its order, and nothing older than offline_days is. Boots of a device that lie over each other by
# more than boot_overlap_s, by its own clock, are taken for a clone.
fresh_h = {fresh}
offline_days = {offline}
boot_overlap_s = {overlap_s}
# Refused messages are kept for a review (`vitalseal quarantine`). When they fill this, none is dropped: what could be
# released is not acknowledged until there is room, and its device keeps it.
quarantine_mib = {quarantine}
connections = {mqtt_connections}
# A device whose key seems to be in two hands: "suspend" shuts both holders out until an operator reinstates the
# device, "alert" only tells.
on_clone = {on_clone}

# An MQTT 5 cluster that devices publish to already: its messages are consumed, beside the edge, or with `only` instead
# of it. There, devices may publish on v1/d/{{device}}/vitals, each on its own, and read v1/recipient; we may subscribe
# to {filter} and publish on v1/recipient; queues are durable and have no limit. A message
# that waits there until the envelope key that it was sealed for has ended opens for nobody: let epoch_h below be longer
# than this server may be away. Before `consumers` is lowered or `client_id` changed, have the cluster end the sessions
# that are no longer used, or their share waits there. Some brokers, such as Mosquitto 2.0, forget shared subscriptions
# when they restart and lose what comes until this server is back: for them, shared = false and consumers = 1. Secret
# files must be 0600.
{cluster}
{limits}
[sql]
# psql, Grafana and other PostgreSQL clients (TLS required, token as password, database "vitalseal").
listen = "{sql_listen}"
connections = {sql_connections}
# All running queries share this; a query beyond it fails, because spilling would write plaintext.
memory_mib = {memory}
# Seconds a query may take, its rows included; 600 at most.
deadline_s = {deadline}

[http]
# /healthz and /metrics: no TLS, so keep it local; they show counts only.
listen = "{http_listen}"

[storage]
# The inbox becomes a Parquet file this often, or as soon as it holds this much.
flush_interval_s = {interval}
flush_mib = {flush_mib}
# With less free space than this, devices keep their messages: what is left is for flushes, erasures and the audit log.
reserve_mib = {reserve}

[keys]
# Each of these directories gets a snapshot of the (wrapped) key tree before a root is destroyed. Without a
# snapshot, a backup from before an erasure opens for nobody: put them on other disks, and keep them.
snapshots = {snapshots}

# Root keys on a PKCS#11 token instead of in files, and whether the issuing authority's and the audit log's
# key are there too. Chosen at `vitalseal init`: what is elsewhere does not move here by a change.
{pkcs11}
[recipient]
# The server's envelope key lives this long and is then destroyed; its successor is published
# overlap_h before, so that no device in flight is refused.
epoch_h = {epoch}
overlap_h = {overlap}

[report]
# Stands in breach reports (GDPR 33(3)(b)); what is not set is reported as unknown.
# controller = "Example Hospital"
# contact = {{ name = "Data protection officer", email = "dpo@example.org" }}
"#,
            names = toml::Value::from(names.clone()),
            root = toml::Value::String(root_keys.display().to_string()),
            mqtt_listen = mqtt.listen,
            websocket = mqtt.websocket,
            origins = toml::Value::from(mqtt.origins.clone()),
            fresh = mqtt.fresh_h,
            offline = mqtt.offline_days,
            overlap_s = mqtt.boot_overlap_s,
            quarantine = mqtt.quarantine_mib,
            mqtt_connections = mqtt.connections,
            on_clone = match mqtt.on_clone {
                OnClone::Suspend => "\"suspend\"",
                OnClone::Alert => "\"alert\"",
            },
            limits = mqtt.limits.commented(),
            filter = SHARED_FILTER,
            cluster = match &mqtt.cluster {
                Some(cluster) => cluster.lines(),
                None => commented_out(&Cluster::example().lines()),
            },
            sql_listen = sql.listen,
            sql_connections = sql.connections,
            memory = sql.memory_mib,
            deadline = sql.deadline_s,
            http_listen = http.listen,
            snapshots = toml::Value::from(
                keys.snapshots
                    .iter()
                    .map(|place| place.display().to_string())
                    .collect::<Vec<_>>()
            ),
            pkcs11 = match &keys.pkcs11 {
                Some(pkcs11) => pkcs11.lines(),
                None => commented_out(&example().lines()),
            },
            interval = storage.flush_interval_s,
            flush_mib = storage.flush_mib,
            reserve = storage.reserve_mib,
            epoch = recipient.epoch_h,
            overlap = recipient.overlap_h,
        )
    }
}

fn example() -> Pkcs11 {
    Pkcs11 {
        module: PathBuf::from("/usr/lib/softhsm/libsofthsm2.so"),
        token: "ward".to_owned(),
        pin_file: PathBuf::from("/etc/vitalseal/token.pin"),
        label: "north".to_owned(),
        issuing_ca: false,
        audit_log: false,
    }
}

fn commented_out(lines: &str) -> String {
    lines.lines().map(|line| format!("# {line}\n")).collect()
}

#[cfg(test)]
mod tests;
