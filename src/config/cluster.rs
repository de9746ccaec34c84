//! `[mqtt.cluster]`: an MQTT cluster that the site runs already, to be consumed from.
//!
//! What is not usable is refused at the start: an unreadable file, a password that others may read, plaintext to another
//! machine.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use vitalseal_ingest::{ClusterLogin, ClusterSettings};

use crate::{files, tls};

/// `[mqtt.cluster]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Host name or address; also the name that the cluster's certificate must bear.
    pub host: String,
    /// Port.
    #[serde(default = "port")]
    pub port: u16,
    /// `false` is plaintext, and only for a cluster on this machine.
    #[serde(default = "yes")]
    pub tls: bool,
    /// PEM file of the authorities that the cluster's certificate may come from.
    pub ca: Option<PathBuf>,
    /// PEM file of our certificate, for a cluster that wants one …
    pub cert: Option<PathBuf>,
    /// … and its key (0600).
    pub key: Option<PathBuf>,
    /// User name, for a cluster that wants one …
    pub user: Option<String>,
    /// … and the file (0600) that holds its password.
    pub password_file: Option<PathBuf>,
    /// `false` for a broker that forgets shared subscriptions when it restarts, such as Mosquitto 2.0: then there is one
    /// consumer, with a subscription of its own.
    #[serde(default = "yes")]
    pub shared: bool,
    /// Connections, 16 at most.
    #[serde(default = "consumers")]
    pub consumers: u16,
    /// Unacknowledged messages for each of them.
    #[serde(default = "window")]
    pub window: u16,
    /// Consumers are called `{client_id}-0`, `{client_id}-1`, …; another prefix for every node.
    #[serde(default = "client_id")]
    pub client_id: String,
    /// The edge is not opened: nobody connects to this server over MQTT, neither devices nor displays.
    #[serde(default)]
    pub only: bool,
}

/// Beyond this, more connections bring nothing but more to be waited for.
const MOST_CONSUMERS: u16 = 16;

fn port() -> u16 {
    8883
}

fn yes() -> bool {
    true
}

fn consumers() -> u16 {
    2
}

fn window() -> u16 {
    64
}

fn client_id() -> String {
    "vitalseal".to_owned()
}

impl Cluster {
    /// Checks what can be checked without looking at files.
    ///
    /// # Errors
    /// A setting is out of its range, or does not go with another.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.host.is_empty(), "mqtt.cluster.host must not be empty");
        anyhow::ensure!(
            (1..=MOST_CONSUMERS).contains(&self.consumers) && (1..=1024).contains(&self.window),
            "mqtt.cluster.consumers must be 1 to {MOST_CONSUMERS} and mqtt.cluster.window 1 to 1024"
        );
        anyhow::ensure!(
            self.shared || self.consumers == 1,
            "mqtt.cluster.shared = false is for one consumer: say mqtt.cluster.consumers = 1"
        );
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        anyhow::ensure!(
            (1..=40).contains(&self.client_id.len()) && self.client_id.chars().all(plain),
            "mqtt.cluster.client_id must be letters, digits and hyphens, 40 at most"
        );
        anyhow::ensure!(
            self.cert.is_some() == self.key.is_some(),
            "mqtt.cluster.cert and mqtt.cluster.key go together"
        );
        anyhow::ensure!(
            self.user.is_some() == self.password_file.is_some(),
            "mqtt.cluster.user and mqtt.cluster.password_file go together"
        );
        if self.tls {
            anyhow::ensure!(
                self.ca.is_some(),
                "mqtt.cluster.ca must name the authorities of the cluster's certificate"
            );
        } else {
            anyhow::ensure!(
                is_loopback(&self.host),
                "mqtt.cluster.tls = false is for a cluster on this machine only: mqtt.cluster.host must be localhost or \
                 a loopback address"
            );
            anyhow::ensure!(
                self.ca.is_none() && self.cert.is_none(),
                "mqtt.cluster.ca and mqtt.cluster.cert are for TLS, which mqtt.cluster.tls turns off"
            );
        }
        Ok(())
    }

    /// What consumers work with: certificates, key and password are read here.
    ///
    /// # Errors
    /// A file cannot be read, or may be read by others although it is secret, or its content is not what it should be.
    pub(crate) fn settings(&self) -> anyhow::Result<ClusterSettings> {
        let mut settings = ClusterSettings::new(self.host.clone(), self.port);
        settings.shared = self.shared;
        settings.consumers = self.consumers;
        settings.window = self.window;
        settings.client_id.clone_from(&self.client_id);
        if let (true, Some(ca)) = (self.tls, &self.ca) {
            let authorities = read(ca, "mqtt.cluster.ca")?;
            let client = match (&self.cert, &self.key) {
                (Some(cert), Some(key)) => {
                    let chain = read(cert, "mqtt.cluster.cert")?;
                    let key = files::read_secret(key).context("reading mqtt.cluster.key")?;
                    tls::device(&authorities, &chain, &key)
                        .with_context(|| format!("using mqtt.cluster.cert {}", cert.display()))
                }
                _ => tls::client(&authorities),
            };
            let client = client.with_context(|| {
                format!("preparing TLS for the MQTT cluster of {}", ca.display())
            })?;
            settings.tls = Some(client.into());
        }
        if let (Some(user), Some(file)) = (&self.user, &self.password_file) {
            let text = files::read_secret(file).context("reading mqtt.cluster.password_file")?;
            let password = text.trim_end_matches(['\r', '\n']).to_owned();
            anyhow::ensure!(!password.is_empty(), "{} holds no password", file.display());
            let user = user.clone();
            settings.login = Some(ClusterLogin { user, password });
        }
        Ok(settings)
    }

    /// The settings as they stand in the file, one a line.
    pub(super) fn lines(&self) -> String {
        let text = |value: &str| toml::Value::String(value.to_owned()).to_string();
        let path = |path: &Option<PathBuf>| path.as_ref().map(|p| text(&p.display().to_string()));
        let lines = [
            ("host", Some(text(&self.host))),
            ("port", Some(self.port.to_string())),
            ("tls", Some(self.tls.to_string())),
            ("ca", path(&self.ca)),
            ("cert", path(&self.cert)),
            ("key", path(&self.key)),
            ("user", self.user.as_deref().map(text)),
            ("password_file", path(&self.password_file)),
            ("shared", Some(self.shared.to_string())),
            ("consumers", Some(self.consumers.to_string())),
            ("window", Some(self.window.to_string())),
            ("client_id", Some(text(&self.client_id))),
            ("only", Some(self.only.to_string())),
        ];
        let lines = lines
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        std::iter::once("[mqtt.cluster]\n".to_owned())
            .chain(lines.map(|(name, value)| format!("{name} = {value}\n")))
            .collect()
    }

    /// Every setting, for the commented file.
    pub(super) fn example() -> Self {
        let below = |name: &str| Some(Path::new("/etc/vitalseal/cluster").join(name));
        Self {
            host: "mqtt.example.org".to_owned(),
            port: port(),
            tls: yes(),
            ca: below("ca.pem"),
            cert: below("cert.pem"),
            key: below("key.pem"),
            user: Some("ingest".to_owned()),
            password_file: below("password"),
            shared: yes(),
            consumers: consumers(),
            window: window(),
            client_id: client_id(),
            only: false,
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

fn read(path: &Path, setting: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {setting} {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn plaintext_leaves_this_machine_under_no_setting() {
        let plain = |host: &str| Cluster {
            host: host.to_owned(),
            tls: false,
            ca: None,
            cert: None,
            key: None,
            ..Cluster::example()
        };
        for host in ["localhost", "127.0.0.1", "127.8.8.8", "::1"] {
            assert!(plain(host).check().is_ok(), "{host}");
        }
        for host in [
            "",
            "mqtt.example.org",
            "10.0.0.1",
            "0.0.0.0",
            "localhost.example.org",
            "::",
        ] {
            assert!(plain(host).check().is_err(), "{host}");
        }
        // Nor do settings for TLS that is off look as if they did something.
        let believed = Cluster {
            tls: false,
            host: "localhost".to_owned(),
            ..Cluster::example()
        };
        assert!(believed.check().is_err());
        let text = "host = \"mqtt.example.org\"\nca = \"/ca.pem\"";
        let unsaid: Cluster = toml::from_str(text).unwrap();
        assert!(unsaid.tls && unsaid.check().is_ok());
    }

    #[test]
    fn halves_of_a_setting_and_numbers_out_of_range_are_refused() {
        let example = Cluster::example;
        assert!(example().check().is_ok());
        let wrong = [
            Cluster {
                ca: None,
                ..example()
            },
            Cluster {
                key: None,
                ..example()
            },
            Cluster {
                cert: None,
                ..example()
            },
            Cluster {
                user: None,
                ..example()
            },
            Cluster {
                password_file: None,
                ..example()
            },
            Cluster {
                shared: false,
                ..example()
            },
            Cluster {
                consumers: 0,
                ..example()
            },
            Cluster {
                consumers: 17,
                ..example()
            },
            Cluster {
                window: 0,
                ..example()
            },
            Cluster {
                client_id: "a/b".to_owned(),
                ..example()
            },
            Cluster {
                client_id: String::new(),
                ..example()
            },
        ];
        for wrong in wrong {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_or_can_be_read_by_others_stops_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let password_file = dir.path().join("password");
        let cluster = Cluster {
            host: "localhost".to_owned(),
            tls: false,
            ca: None,
            cert: None,
            key: None,
            password_file: Some(password_file.clone()),
            ..Cluster::example()
        };
        assert!(cluster.settings().is_err(), "no file");
        let write = |text: &str, mode| {
            std::fs::write(&password_file, text).unwrap();
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&password_file, mode).unwrap();
        };
        write("kestrel\n", 0o640);
        assert!(cluster.settings().is_err(), "open to others");
        write("\n", 0o600);
        assert!(cluster.settings().is_err(), "empty");
        write("kestrel\n", 0o600);
        assert_eq!(
            cluster.settings().unwrap().login.unwrap().password,
            "kestrel"
        );

        let no_ca = Cluster {
            ca: Some(dir.path().join("ca.pem")),
            ..Cluster::example()
        };
        let error = no_ca.settings().unwrap_err().to_string();
        assert!(error.contains("mqtt.cluster.ca"), "{error}");
    }
}
