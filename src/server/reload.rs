//! Settings that change while the server runs: `vitalseal.toml` is read again on SIGHUP and by `vitalseal server reload`.
//!
//! All or nothing. Whatever can fail is done before anything is changed, so a file that is wrong leaves the server as it
//! was, and says so. What cannot be changed while it runs is named, and waits for the next start.

use anyhow::Context as _;
use serde::Serialize;
use toml::Value;
use vitalseal_storage::ports::{Actor, AuditEvent};

use super::System;
use crate::config::Config;

/// Settings that take effect at once; all others need a restart.
const LIVE: [&str; 4] = ["names", "mqtt.connections", "mqtt.limits", "mqtt.on_clone"];

/// What reading the configuration again came to. Names of settings, never their values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// Changed, and in effect.
    pub applied: Vec<String>,
    /// Changed in the file; the server goes on with what it was started with.
    pub needs_restart: Vec<String>,
}

impl System {
    /// Reads the configuration again and applies what can be applied.
    ///
    /// # Errors
    /// The file cannot be read or is not a configuration, no certificate could be issued for new names, or the audit log
    /// cannot be written. Then nothing is changed.
    pub async fn reload(&self, actor: Actor) -> anyhow::Result<Reloaded> {
        let mut running = self.running.lock().await;
        match self.apply(&mut running, actor.clone()).await {
            Ok(reloaded) => {
                let (applied, needs_restart) = (&reloaded.applied, &reloaded.needs_restart);
                tracing::info!(?applied, ?needs_restart, "configuration reloaded");
                Ok(reloaded)
            }
            Err(error) => {
                tracing::error!(
                    "the configuration was not reloaded, the one before stays: {error:#}"
                );
                self.audited(actor, AuditEvent::ConfigurationRefused {})
                    .await?;
                Err(error.context("nothing was changed: the configuration was not reloaded"))
            }
        }
    }

    async fn apply(&self, running: &mut Config, actor: Actor) -> anyhow::Result<Reloaded> {
        let wanted = Config::load(&self.paths.config())?;
        let changed = changed(running, &wanted)?;
        let (applied, needs_restart): (Vec<_>, Vec<_>) =
            changed.into_iter().partition(|name| is_live(name));
        let reloaded = Reloaded {
            applied,
            needs_restart,
        };
        let now = self.clock.now();
        let renamed = if wanted.names == running.names {
            None
        } else {
            let renamed = self.revocations.rename(&self.authority, &wanted.names, now);
            Some(renamed.await?)
        };
        let event = AuditEvent::ConfigurationReloaded {
            applied: reloaded.applied.clone(),
            needs_restart: reloaded.needs_restart.clone(),
        };
        self.audited(actor, event).await?;
        // From here on nothing fails.
        if let Some(renamed) = renamed {
            renamed.show();
        }
        if let Some(limits) = &self.edge_limits {
            limits.set(wanted.mqtt.edge_limits());
        }
        self.clones.set_policy(wanted.mqtt.on_clone);
        running.mqtt.on_clone = wanted.mqtt.on_clone;
        running.names = wanted.names;
        running.mqtt.connections = wanted.mqtt.connections;
        running.mqtt.limits = wanted.mqtt.limits;
        Ok(reloaded)
    }
}

fn is_live(name: &str) -> bool {
    LIVE.iter().any(|live| {
        let below = name.strip_prefix(live);
        below.is_some_and(|below| below.is_empty() || below.starts_with('.'))
    })
}

/// The settings in which the two differ, by their full names.
fn changed(running: &Config, wanted: &Config) -> anyhow::Result<Vec<String>> {
    let value = |config| Value::try_from(config).context("comparing configurations");
    let mut names = Vec::new();
    differ(
        "",
        Some(&value(running)?),
        Some(&value(wanted)?),
        &mut names,
    );
    Ok(names)
}

fn differ(name: &str, before: Option<&Value>, after: Option<&Value>, names: &mut Vec<String>) {
    let tables = (
        before.and_then(Value::as_table),
        after.and_then(Value::as_table),
    );
    let (Some(one), Some(other)) = tables else {
        if before != after {
            names.push(name.to_owned());
        }
        return;
    };
    let added = other.keys().filter(|key| !one.contains_key(*key));
    for key in one.keys().chain(added) {
        let full = if name.is_empty() {
            key.clone()
        } else {
            format!("{name}.{key}")
        };
        differ(&full, one.get(key), other.get(key), names);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        toml::from_str(&format!("root_keys = \"/r\"\n{text}")).unwrap()
    }

    #[test]
    fn what_changed_is_named_in_full_and_only_what_is_known_to_be_live_is_live() {
        let running = config("");
        let wanted = config(
            "names = [\"x\"]\n[mqtt]\nlisten = \"127.0.0.1:1\"\nconnections = 7\non_clone = \"alert\"\n[mqtt.limits]\nstrangers = 3\n\
             packets_per_s = 9\n[sql]\ndeadline_s = 5\n",
        );
        let names = changed(&running, &wanted).unwrap();
        let (live, rest): (Vec<&str>, Vec<&str>) = names
            .iter()
            .map(String::as_str)
            .partition(|name| is_live(name));
        let live: std::collections::BTreeSet<_> = live.into_iter().collect();
        let expected = [
            "mqtt.connections",
            "mqtt.limits.packets_per_s",
            "mqtt.limits.strangers",
            "mqtt.on_clone",
            "names",
        ];
        assert_eq!(live, expected.into());
        assert_eq!(rest, ["mqtt.listen", "sql.deadline_s"]);
        assert!(changed(&wanted, &wanted).unwrap().is_empty());
        assert!(!is_live("mqtt.connections_something"));
    }
}
