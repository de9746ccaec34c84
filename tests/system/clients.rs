//! Clients that are not ours, in front of the real server: paho for Python and for C, Mosquitto's, rumqttc, and MQTT.js
//! over WebSocket. What they publish is sealed here, by our device, and has to come out of SQL.
//!
//! Each client takes the same steps as a device, in its own words (`tests/interop/client.*`):
//!
//! 1. connects for a session that lasts, and says whether there was one;
//! 2. subscribes to its own topic, to another's, to everything, to `v1/recipient`; reads the retained message there;
//! 3. publishes a message at QoS 0, 1 and 2, and waits for all acknowledgements;
//! 4. goes, comes back, and says whether there was a session;
//! 5. publishes on another device's topic.

mod browser;
mod chromium;
mod mosquitto;
mod rust;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use jiff::Timestamp;
use serde_json::{Value, json};
use vitalseal_vitals::{Reading, signal};

use crate::common::device::Device;
use crate::common::{Site, wait_until};
use crate::python;

/// A server, a patient, and somebody who may read what devices send.
struct Ward {
    site: Site,
    patient: String,
    token: String,
}

impl Ward {
    fn new() -> Self {
        Self::with(str::to_owned)
    }

    /// With a configuration that was changed before the start.
    fn with(change: impl FnOnce(&str) -> String) -> Self {
        let mut site = Site::init();
        let file = site.data.join("vitalseal.toml");
        let changed = change(&std::fs::read_to_string(&file).unwrap());
        std::fs::write(&file, changed).unwrap();
        site.serve();
        let patient = site.patient();
        let token = site.clinician("nora", &[&patient]);
        site.ca_file();
        Self {
            site,
            patient,
            token,
        }
    }

    /// A device's directory, with its key and three sealed messages, `0` to `2`: each a heart rate of 60 and its name.
    fn device(&self, id: &str) -> PathBuf {
        let directory = self.site.device(id, &self.patient);
        let mut device = Device::load(&directory, &self.patient, &self.site);
        for message in 0..3_u8 {
            let reading = Reading {
                signal: signal("8867-4").unwrap(),
                value: f64::from(60 + message),
                at: Timestamp::now(),
            };
            let sealed = device.seal(&[reading]);
            std::fs::write(directory.join(message.to_string()), sealed).unwrap();
        }
        directory
    }

    /// A display's or a service's directory; `rights` are options of `vitalseal display enroll`.
    fn subscriber(&self, name: &str, rights: &[&str]) -> PathBuf {
        let directory = self.site.dir.path().join(name);
        let mut args = vec!["display", "enroll", name, "--new-key", text(&directory)];
        args.extend(rights);
        self.site.json(&args);
        directory
    }

    fn port(&self, door: &str) -> String {
        self.site.address(door).port().to_string()
    }

    fn websocket(&self) -> String {
        format!("wss://localhost:{}/mqtt", self.port("websocket"))
    }

    fn ca(&self) -> PathBuf {
        self.site.dir.path().join("ca.pem")
    }

    /// Holds what a client saw and did as a device against what it should have.
    fn check(&self, id: &str, said: &Value) {
        // paho for C keeps it to itself in v5.
        let present = if id == "pahoc-5" {
            Value::Null
        } else {
            json!([false, true])
        };
        assert_eq!(said["present"], present, "{id}: {said}");
        assert_eq!(
            said["granted"],
            json!([true, false, false, true]),
            "{id}: {said}"
        );
        assert_eq!(said["retained"], json!(true), "{id}: {said}");
        assert_eq!(said["refused"], json!(true), "{id}: {said}");
        let recipient = self.site.json(&["recipient", "show"]);
        assert_eq!(said["recipient"], recipient["pem"], "{id}");
        self.check_rows(id);
    }

    /// Every message of [`Ward::device`] is there once.
    fn check_rows(&self, id: &str) {
        let sql = format!("SELECT value FROM vitals WHERE device = '{id}' ORDER BY value");
        // Whoever sends at QoS 0 is not told when it is stored.
        let stored = || self.site.psql("nora", &self.token, &sql).unwrap() == ["60", "61", "62"];
        wait_until(stored, "not all three are stored");
        assert_eq!(self.site.json(&["quarantine", "list"]), json!([]), "{id}");
    }

    /// Has a script be this device, over bare TLS.
    fn play_device(&self, client: &dyn Fn(&[&str]) -> Command, id: &str, version: &str) {
        let directory = self.device(id);
        let (port, files) = (self.port("mqtt"), self.files(&directory));
        let mut args = vec!["device", "localhost", &port];
        args.extend(files.iter().map(String::as_str));
        args.extend([id, version, text(&directory)]);
        self.check(id, &told(client(&args).output().unwrap()));
    }

    /// Has a script be this display, and shows it an alert.
    fn play_display(&self, client: &dyn Fn(&[&str]) -> Command, name: &str, version: &str) {
        let directory = self.subscriber(name, &["--ward", "icu"]);
        let (port, files) = (self.port("mqtt"), self.files(&directory));
        let id = format!("display:{name}");
        let mut args = vec!["listen", "localhost", &port];
        args.extend(files.iter().map(String::as_str));
        args.extend([&*id, version, "v1/alerts/icu"]);
        let listening = Listening::start(client(&args));
        self.site.json(&["alert", "test", "--ward", "icu"]);
        listening.shows_the_test();
    }

    /// The authorities, and the certificate and the key in a directory.
    fn files(&self, directory: &Path) -> [String; 3] {
        [
            self.ca(),
            directory.join("cert.pem"),
            directory.join("key.pem"),
        ]
        .map(|file| file.into_os_string().into_string().unwrap())
    }
}

/// A client that has said that it is listening.
struct Listening {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Listening {
    fn start(mut client: Command) -> Self {
        let mut child = client.stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "listening\n");
        Self { child, out }
    }

    /// The one alert that it is shown, and an orderly end.
    fn shows_the_test(mut self) {
        let mut shown = String::new();
        self.out.read_to_string(&mut shown).unwrap();
        assert!(self.child.wait().unwrap().success());
        let alert: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(alert["alert"], json!("test"), "{shown}");
    }
}

#[test]
fn paho_for_python_is_a_device_and_a_display() {
    let ward = Ward::new();
    let client = |args: &[&str]| python::command("client.py", args);
    for version in ["4", "5"] {
        ward.play_device(&client, &format!("paho-{version}"), version);
        ward.play_display(&client, &format!("screen-{version}"), version);
    }
}

#[test]
fn paho_for_c_is_a_device_and_a_display() {
    let ward = Ward::new();
    let program = ward.site.dir.path().join("client");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/client.c");
    let built = Command::new("cc")
        .args(["-Wall", "-Wextra"])
        .args([&source, Path::new("-o"), &program])
        .arg("-lpaho-mqtt3cs")
        .output()
        .expect("cc is installed");
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(
        built.status.success(),
        "{said} (test.sh installs libpaho-mqtt-dev)"
    );
    let client = |args: &[&str]| {
        let mut command = Command::new(&program);
        command.args(args);
        command
    };
    for version in ["4", "5"] {
        ward.play_device(&client, &format!("pahoc-{version}"), version);
        ward.play_display(&client, &format!("screen-{version}"), version);
    }
}

/// What a client that ended well printed.
fn told(output: Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
