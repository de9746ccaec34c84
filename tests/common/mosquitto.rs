//! Mosquitto as a site runs it: another program with its own files, that can be stopped, killed and started again.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part of the fixture"
)]

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything here takes; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A broker on 127.0.0.1. Dropped, it is killed.
pub struct Mosquitto {
    dir: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Mosquitto {
    /// Starts a broker on a free port with its files in `dir`, an existing directory. `listener` says who is let in.
    ///
    /// It queues without limit, and saves what it holds when it is told to stop and when [`Mosquitto::save`] asks it to:
    /// killed, it is what it was then.
    pub fn start(dir: &Path, listener: &str) -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let files = dir.display();
        // `user` is for root alone, who would become another user and could not write here.
        let settings = format!(
            "user root\nlistener {port} 127.0.0.1\n{listener}\nmax_queued_messages 0\npersistence true\n\
             persistence_location {files}/\nautosave_interval 0\nlog_dest file {files}/mosquitto.log\n"
        );
        fs::write(dir.join("mosquitto.conf"), settings).unwrap();
        let mut broker = Self {
            dir: dir.to_owned(),
            port,
            child: None,
        };
        broker.restart();
        broker
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts it again, after it ended.
    pub fn restart(&mut self) {
        let binary = Path::new("/usr/sbin/mosquitto"); // not in everybody's path
        let binary = if binary.exists() {
            binary
        } else {
            Path::new("mosquitto")
        };
        let child = Command::new(binary)
            .arg("-c")
            .arg(self.dir.join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is installed (test.sh installs the Debian package mosquitto)");
        self.child = Some(child);
        let address = (Ipv4Addr::LOCALHOST, self.port);
        self.wait_until("it listens", || TcpStream::connect(address).is_ok());
    }

    /// `kill -9`: it is what it last saved.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM: it saves what it holds.
    pub fn terminate(&mut self) {
        self.signal("-TERM");
        let mut child = self.child.take().expect("it runs");
        assert!(child.wait().unwrap().success());
    }

    /// Has it save what it holds, and waits until that is done.
    pub fn save(&self) {
        let saved = self.dir.join("mosquitto.db");
        // It writes a new file and renames it.
        let before = fs::metadata(&saved).map(|file| file.ino()).ok();
        self.signal("-USR1");
        self.wait_until("it has saved", || {
            fs::metadata(&saved).map(|file| file.ino()).ok() != before
        });
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }

    fn wait_until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            let log = || fs::read_to_string(self.dir.join("mosquitto.log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "never came: {what}\n{}", log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
