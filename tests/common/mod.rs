//! A real store, a real server process, the real command line: what every system test stands on.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part of the fixture"
)]

pub mod device;
mod files;
mod monitor;
mod wait;

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) use files::files_below;
pub use monitor::Monitor;
pub use wait::{Random, comes, wait_until};

/// The binary under test.
pub const VITALSEAL: &str = env!("CARGO_BIN_EXE_vitalseal");

/// A store in a temporary directory, with or without a server running on it.
pub struct Site {
    pub dir: TempDir,
    pub data: PathBuf,
    pub administrator: Value,
    /// What the server's next start finds in its environment.
    pub environment: Vec<(&'static str, OsString)>,
    server: Option<Running>,
}

struct Running {
    child: Child,
    addresses: Value,
}

impl Site {
    /// `vitalseal init`.
    pub fn init() -> Self {
        Self::init_with(&[])
    }

    /// `vitalseal init` with further arguments.
    pub fn init_with(further: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let output = Command::new(VITALSEAL)
            .args(["init", "--json", "--data"])
            .arg(&data)
            .args(further)
            .env_remove("VITALSEAL_DATA")
            .output()
            .unwrap();
        let created = parse(&output);
        Self {
            dir,
            data,
            administrator: created["administrator"].clone(),
            environment: Vec::new(),
            server: None,
        }
    }

    /// A store that is there already, such as a copy or a restored one.
    pub fn on(data: PathBuf) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            data,
            administrator: Value::Null,
            environment: Vec::new(),
            server: None,
        }
    }

    /// `vitalseal init` and `vitalseal serve`.
    pub fn serving() -> Self {
        let mut site = Self::init();
        site.serve();
        site
    }

    /// Starts the server on the ports it had before, or on free ones.
    pub fn serve(&mut self) {
        assert!(
            self.start(),
            "the server did not start:\n{}",
            self.log_tail()
        );
    }

    /// The same; whether it came as far as to listen.
    pub fn start(&mut self) -> bool {
        let port = |name: &str| {
            // A door that is not open has no address.
            let before = self.server.as_ref();
            let before = before.and_then(|running| running.addresses[name].as_str());
            before.unwrap_or("127.0.0.1:0").to_owned()
        };
        let [mqtt, websocket, sql, http] = ["mqtt", "websocket", "sql", "http"].map(port);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap();
        let mut child = Command::new(VITALSEAL)
            .args(
                [
                    [
                        "serve",
                        "--json",
                        "--mqtt",
                        &mqtt,
                        "--websocket",
                        &websocket,
                    ]
                    .as_slice(),
                    &["--sql", &sql, "--http", &http, "--data"],
                ]
                .concat(),
            )
            .arg(&self.data)
            .env("VITALSEAL_LOG", "trace")
            .envs(self.environment.clone())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        if line.is_empty() {
            child.wait().unwrap();
            return false;
        }
        self.server = Some(Running {
            child,
            addresses: serde_json::from_str(&line).unwrap(),
        });
        true
    }

    /// Whether the server's process ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.ended_with().is_some()
    }

    /// The exit code, once the server's process ended by itself.
    pub fn ended_with(&mut self) -> Option<i32> {
        let running = self.server.as_mut().expect("the server runs");
        let status = running.child.try_wait().unwrap()?;
        Some(status.code().unwrap_or(-1))
    }

    /// Address of one door.
    pub fn address(&self, door: &str) -> SocketAddr {
        let running = self.server.as_ref().expect("the server runs");
        running.addresses[door].as_str().unwrap().parse().unwrap()
    }

    /// What the health door answers: head and body.
    pub fn get(&self, path: &str) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(self.address("http")).unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let ends = answer.windows(4).position(|four| four == b"\r\n\r\n");
        let body = answer.split_off(ends.unwrap() + 4);
        (String::from_utf8(answer).unwrap(), body)
    }

    /// One of the numbers on `/metrics`.
    pub fn metric(&self, name: &str) -> u64 {
        let shown = String::from_utf8(self.get("/metrics").1).unwrap();
        let name = format!("vitalseal_{name} ");
        let value = shown.lines().find_map(|line| line.strip_prefix(&name));
        value.expect("the metric is shown").parse().unwrap()
    }

    /// Process id of the server.
    pub fn pid(&self) -> u32 {
        self.server.as_ref().expect("the server runs").child.id()
    }

    /// `kill -9`: nothing is flushed, nothing is said.
    pub fn kill(&mut self) {
        let running = self.server.as_mut().expect("the server runs");
        running.child.kill().unwrap();
        running.child.wait().unwrap();
    }

    /// SIGTERM, and the exit code.
    pub fn terminate(&mut self) -> i32 {
        let running = self.server.as_mut().expect("the server runs");
        let pid = running.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        let mut ended = None;
        let has_ended = || {
            ended = running.child.try_wait().unwrap();
            ended.is_some()
        };
        wait_until(has_ended, "the server did not stop");
        ended.and_then(|status| status.code()).unwrap_or(-1)
    }

    /// One administrative command; its whole output.
    pub fn run(&self, args: &[&str]) -> Output {
        Command::new(VITALSEAL)
            .args(args)
            .env("VITALSEAL_DATA", &self.data)
            .output()
            .unwrap()
    }

    /// One administrative command that must succeed; its JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        let mut args = args.to_vec();
        args.push("--json");
        parse(&self.run(&args))
    }

    /// One administrative command that must fail; what it says.
    pub fn refused(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(!output.status.success(), "{args:?} should have failed");
        String::from_utf8(output.stderr).unwrap()
    }

    /// A new patient's pseudonym.
    pub fn patient(&self) -> String {
        self.json(&["patient", "add"])["patient"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Enrols a device with a key of its own, assigned to `patient` for all that tests measure; its directory.
    pub fn device(&self, id: &str, patient: &str) -> PathBuf {
        let directory = self.dir.path().join(id);
        self.json(&[
            "device",
            "enroll",
            id,
            "--new-key",
            directory.to_str().unwrap(),
        ]);
        self.assign(id, patient);
        directory
    }

    /// Assigns a device to `patient` since before anything that tests measure.
    pub fn assign(&self, id: &str, patient: &str) {
        let since = "2026-01-01T00:00:00Z";
        self.json(&[
            "device",
            "assign",
            id,
            "--patient",
            patient,
            "--since",
            since,
        ]);
    }

    /// A user who may see `patients`, with a fresh token.
    pub fn clinician(&self, name: &str, patients: &[&str]) -> String {
        let made = self.json(&["user", "add", name, "--role", "clinician"]);
        for patient in patients {
            self.json(&["user", "grant", name, "--patient", patient]);
        }
        self.token(&made)
    }

    /// Logs a user in with the credentials that `user add` showed.
    pub fn token(&self, credentials: &Value) -> String {
        let user = credentials["user"].as_str().unwrap();
        let file = self.dir.path().join(format!("{user}.password"));
        std::fs::write(&file, credentials["password"].as_str().unwrap()).unwrap();
        let code = totp_now(credentials["totp_secret"].as_str().unwrap());
        let file = file.to_str().unwrap();
        let issued = self.json(&[
            "token",
            "issue",
            "--user",
            user,
            "--password-file",
            file,
            "--totp",
            &code,
        ]);
        issued["token"].as_str().unwrap().to_owned()
    }

    /// The PEM bundle that clients trust, as a file.
    pub fn ca_file(&self) -> PathBuf {
        let file = self.dir.path().join("ca.pem");
        std::fs::write(&file, self.run(&["ca", "show"]).stdout).unwrap();
        file
    }

    /// Rows of one statement through `psql` over TLS with the certificate checked, unaligned.
    pub fn psql(&self, user: &str, token: &str, sql: &str) -> Result<Vec<String>, String> {
        let address = self.address("sql");
        let output = Command::new("psql")
            .args([
                "--no-psqlrc",
                "--tuples-only",
                "--no-align",
                "--set=ON_ERROR_STOP=1",
                "-c",
                sql,
            ])
            .env("PGHOST", "localhost")
            .env("PGHOSTADDR", address.ip().to_string())
            .env("PGPORT", address.port().to_string())
            .env("PGDATABASE", "vitalseal")
            .env("PGUSER", user)
            .env("PGPASSWORD", token)
            .env("PGSSLMODE", "verify-full")
            .env("PGSSLROOTCERT", self.ca_file())
            .output()
            .expect("psql is installed (test.sh installs postgresql-client)");
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let text = String::from_utf8(output.stdout).unwrap();
        Ok(text
            .lines()
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect())
    }

    /// The server's log so far, all starts together.
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }

    fn log_tail(&self) -> String {
        let log = self.log_text();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(running) = &mut self.server {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- end of the server's log\n{}", self.log_tail());
        }
    }
}

/// The code an authenticator shows now.
pub fn totp_now(secret: &str) -> String {
    vitalseal::credentials::totp_code(secret, jiff::Timestamp::now()).unwrap()
}

fn parse(output: &Output) -> Value {
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}
