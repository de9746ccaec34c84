//! The settings as a document: the file that `init` writes, every default named and explained.

use std::path::PathBuf;

use vitalseal_ingest::OnClone;
use vitalseal_ingest::cluster::SHARED_FILTER;

use super::{Cluster, Config, Pkcs11, registry, s3};

impl Config {
    /// The commented file that `init` writes.
    #[must_use]
    pub fn commented(&self) -> String {
        let Self {
            root_keys,
            names,
            mqtt,
            sql,
            http,
            registry,
            storage,
            housekeeping,
            retention,
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

# How clients may call this server; they stand in its certificate, which is issued anew at every start, for new names,
# and every month.
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

{registry}
[storage]
# The inbox becomes a Parquet file this often, or as soon as it holds this much.
flush_interval_s = {interval}
flush_mib = {flush_mib}
# With less free space than this, devices keep their messages: what is left is for flushes, erasures and the audit log.
reserve_mib = {reserve}

{s3}
{housekeeping}
{retention}
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
            housekeeping = housekeeping.commented(),
            retention = retention.commented(),
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
            registry = registry::commented(registry.as_ref()),
            s3 = s3::commented(storage.s3.as_ref()),
            epoch = recipient.epoch_h,
            overlap = recipient.overlap_h,
        )
    }
}

impl Pkcs11 {
    /// The settings as they stand in the file, one a line.
    pub(super) fn lines(&self) -> String {
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

/// A token as it may be.
pub(super) fn example() -> Pkcs11 {
    Pkcs11 {
        module: PathBuf::from("/usr/lib/softhsm/libsofthsm2.so"),
        token: "ward".to_owned(),
        pin_file: PathBuf::from("/etc/vitalseal/token.pin"),
        label: "north".to_owned(),
        issuing_ca: false,
        audit_log: false,
    }
}

pub(super) fn commented_out(lines: &str) -> String {
    lines.lines().map(|line| format!("# {line}\n")).collect()
}
