//! The real server in a process of its own, so that its CPU time and memory are told from its clients'.

#![allow(dead_code, reason = "each bench uses its own part")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;
use tempfile::TempDir;
use vitalseal::admin::client::ask;
use vitalseal::admin::protocol::Request;
use vitalseal_crypto::{
    DeviceCertificate, DeviceId, DeviceSigner, RecipientCertificate, SubjectPseudonym,
    new_device_key_and_csr,
};

/// A store with a running server.
pub struct Site {
    server: Process,
    addresses: Value,
    socket: PathBuf,
    pub recipient: RecipientCertificate,
    pub patient: SubjectPseudonym,
    pub dir: TempDir,
}

/// An enrolled device and what it needs to connect and to seal.
pub struct Enrolled {
    pub id: DeviceId,
    pub tls: Arc<rustls::ClientConfig>,
    pub signer: DeviceSigner,
    pub certificate: DeviceCertificate,
}

impl Site {
    /// `vitalseal init` and `vitalseal serve`; `settings` go into `vitalseal.toml`, each as (before, after).
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let init = Command::new(env!("CARGO_BIN_EXE_vitalseal"))
            .args(["init", "--json", "--data"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(init.status.success(), "{init:?}");
        let config = data.join("vitalseal.toml");
        let mut text = fs::read_to_string(&config).unwrap();
        for (before, after) in settings {
            assert!(text.contains(before), "{before}");
            text = text.replace(before, after);
        }
        fs::write(&config, text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_vitalseal"))
            .args(["serve", "--json", "--data"])
            .arg(&data)
            .args([
                "--mqtt",
                "127.0.0.1:0",
                "--websocket",
                "127.0.0.1:0",
                "--sql",
                "127.0.0.1:0",
                "--http",
                "127.0.0.1:0",
            ])
            .env("VITALSEAL_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let socket = data.join("admin.sock");
        let recipient = ask(&socket, &Request::RecipientShow).await.unwrap();
        let patient = Request::PatientAdd {
            name: None,
            mrn: None,
        };
        let patient = ask(&socket, &patient).await.unwrap();
        Self {
            server: Process(child),
            addresses: serde_json::from_str(&line).unwrap(),
            recipient: RecipientCertificate::from_pem(recipient["pem"].as_str().unwrap()).unwrap(),
            patient: patient["patient"].as_str().unwrap().parse().unwrap(),
            socket,
            dir,
        }
    }

    pub fn port(&self) -> u16 {
        let address: std::net::SocketAddr =
            self.addresses["mqtt"].as_str().unwrap().parse().unwrap();
        address.port()
    }

    pub fn server(&self) -> &Process {
        &self.server
    }

    pub async fn ask(&self, request: &Request) -> Value {
        ask(&self.socket, request).await.unwrap()
    }

    /// Enrols a device and assigns it to the one patient.
    pub async fn enrol(&self, name: &str) -> Enrolled {
        let device: DeviceId = name.parse().unwrap();
        let (key_pem, csr_pem) = new_device_key_and_csr(&device).unwrap();
        let enrolled = self
            .ask(&Request::DeviceEnroll {
                device: device.clone(),
                csr_pem,
            })
            .await;
        self.ask(&Request::DeviceAssign {
            device: device.clone(),
            patient: self.patient.clone(),
            since: None,
        })
        .await;
        let (pem, ca) = (&enrolled["pem"], &enrolled["ca_pem"]);
        let (pem, ca) = (pem.as_str().unwrap(), ca.as_str().unwrap());
        let leaf = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        Enrolled {
            tls: Arc::new(vitalseal::tls::device(ca, pem, &key_pem).unwrap()),
            signer: DeviceSigner::from_pkcs8_pem(&key_pem, pem).unwrap(),
            certificate: DeviceCertificate::from_der(&leaf).unwrap(),
            id: device,
        }
    }
}

/// A child process; killed with its owner.
pub struct Process(pub Child);

/// CPU time and memory of a process.
#[derive(Clone, Copy)]
pub struct Usage {
    pub cpu: Duration,
    pub resident_bytes: u64,
}

impl Process {
    pub fn usage(&self) -> Usage {
        usage(&format!("/proc/{}", self.0.id()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// This process.
pub fn own_usage() -> Usage {
    usage("/proc/self")
}

/// proc(5): `stat` has user and system time in fields 14 and 15, in hundredths of a second; `statm` has resident pages.
fn usage(process: &str) -> Usage {
    let read = |file: &str| fs::read_to_string(Path::new(process).join(file)).unwrap();
    let stat = read("stat");
    // The name in brackets may contain spaces.
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap()..].split(' ').collect();
    let ticks = |field: usize| fields[field - 2].parse::<u64>().unwrap();
    let pages: u64 = read("statm").split(' ').nth(1).unwrap().parse().unwrap();
    Usage {
        cpu: Duration::from_millis(10 * (ticks(14) + ticks(15))),
        resident_bytes: 4096 * pages,
    }
}
