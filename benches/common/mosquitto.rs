//! Mosquitto on loopback: what a broker does that checks nothing and keeps nothing.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use vitalseal_crypto::{CertificateAuthority, DeviceId, new_device_key_and_csr};

use super::site::Process;

/// A broker with the same kind of TLS as ours, without persistence, without an ACL and without a subscriber.
pub struct Mosquitto {
    pub broker: Process,
    pub port: u16,
    authority: CertificateAuthority,
    _dir: TempDir,
}

impl Mosquitto {
    /// `None` where it is not installed.
    pub fn start() -> Option<Self> {
        let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"]
            .into_iter()
            .find(|program| fs::exists(program).unwrap_or(false))?;
        let now = jiff::Timestamp::now();
        let made = CertificateAuthority::create(now).unwrap();
        let authority = CertificateAuthority::open(
            &made.issuing_key_pem,
            &made.issuing_cert_pem,
            &made.root_cert_pem,
        )
        .unwrap();
        let server = authority.issue_server(&["localhost"], now).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("ca.pem"), authority.bundle_pem()).unwrap();
        fs::write(at("cert.pem"), &server.chain_pem).unwrap();
        fs::write(at("key.pem"), server.key_pem.as_bytes()).unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let user =
            String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
        let config = format!(
            "user {}\nlistener {port} 127.0.0.1\nallow_anonymous true\nrequire_certificate true\npersistence false\n\
             max_queued_messages 0\nmax_inflight_messages 0\nlog_type error\nset_tcp_nodelay true\ncafile {}\n\
             certfile {}\nkeyfile {}\n",
            user.trim(),
            at("ca.pem").display(),
            at("cert.pem").display(),
            at("key.pem").display(),
        );
        fs::write(at("mosquitto.conf"), config).unwrap();
        let child = Command::new(program)
            .arg("-c")
            .arg(at("mosquitto.conf"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let broker = Process(child);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self {
            broker,
            port,
            authority,
            _dir: dir,
        })
    }

    /// TLS of a client that it lets in.
    pub fn client(&self, name: &str) -> Arc<rustls::ClientConfig> {
        let device: DeviceId = name.parse().unwrap();
        let (key_pem, csr_pem) = new_device_key_and_csr(&device).unwrap();
        let now = jiff::Timestamp::now();
        let issued = self.authority.issue_device(&csr_pem, &device, now).unwrap();
        Arc::new(
            vitalseal::tls::device(&self.authority.bundle_pem(), &issued.pem, &key_pem).unwrap(),
        )
    }
}
