//! What TLS can do and these doors do not: found out by OpenSSL, which knows nothing of us.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::Site;

/// What OpenSSL says of a connection to the MQTT door on which it is told `typed`.
fn client(site: &Site, device: &Path, args: &[&str], typed: &str) -> String {
    let file = |name: &str| device.join(name).to_str().unwrap().to_owned();
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &site.address("mqtt").to_string()])
        .args(["-CAfile", &file("ca.pem"), "-cert", &file("cert.pem")])
        .args(["-key", &file("key.pem"), "-cert_chain", &file("cert.pem")])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = client.stdin.take().unwrap();
    // A letter is a command only when it is read alone, after the handshake.
    std::thread::sleep(Duration::from_millis(300));
    let _ = stdin.write_all(typed.as_bytes());
    std::thread::sleep(Duration::from_millis(300));
    drop(stdin);
    let mut said = String::new();
    client
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    client
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    client.wait().unwrap();
    said
}

/// CWE-476, CWE-400; CVE-2021-3449: a second hello inside a connection ended the server.
#[test]
fn no_connection_is_renegotiated_and_none_is_older_than_tls_1_2() {
    let site = Site::serving();
    let device = site.device("mon-1", &site.patient());
    let said = client(&site, &device, &["-tls1_2"], "R\n");
    // Asked, and left alone until the deadline for CONNECT.
    let (_, after) = said.split_once("RENEGOTIATING").expect(&said);
    assert!(!after.contains("verify return"), "{said}");
    assert!(
        after.contains("unexpected eof") || after.contains("no renegotiation"),
        "{said}"
    );
    for old in ["-tls1", "-tls1_1"] {
        let said = client(&site, &device, &[old, "-cipher", "ALL:@SECLEVEL=0"], "");
        assert!(said.contains("Cipher is (NONE)"), "{said}");
    }
    site.json(&["server", "status"]);
}

/// CWE-294: what comes before the handshake's end could be sent again by others. CWE-310: a compressed secret tells of
/// itself by its length.
#[test]
fn no_early_data_and_no_compression_is_offered() {
    let site = Site::serving();
    let device = site.device("mon-1", &site.patient());
    let said = client(&site, &device, &["-tls1_3"], "");
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
    assert!(said.contains("Max Early Data: 0"), "{said}");
    assert!(!said.contains("Max Early Data: 1"), "{said}");
    assert!(said.contains("Compression: NONE"), "{said}");
}
