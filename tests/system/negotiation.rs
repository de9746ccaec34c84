//! What TLS can do and these doors do not: found out by OpenSSL, which knows nothing of us.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{Site, wait_until};

/// A handshake that came to its end.
const SHAKEN: &str = "Verify return code";

/// What OpenSSL says of a connection to the MQTT door on which it is told `typed` once it said `awaited`.
fn client(site: &Site, device: &Path, args: &[&str], awaited: &str, typed: &str) -> String {
    let file = |name: &str| device.join(name).to_str().unwrap().to_owned();
    let (out, err) = (file("openssl.out"), file("openssl.err"));
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &site.address("mqtt").to_string()])
        .args(["-CAfile", &file("ca.pem"), "-cert", &file("cert.pem")])
        .args(["-key", &file("key.pem"), "-cert_chain", &file("cert.pem")])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(File::create(&out).unwrap())
        .stderr(File::create(&err).unwrap())
        .spawn()
        .unwrap();
    let said = || {
        [&out, &err]
            .map(|file| fs::read_to_string(file).unwrap())
            .concat()
    };
    let mut stdin = client.stdin.take().unwrap();
    // A letter is a command only when it is read alone, after the handshake.
    let ready = || client.try_wait().unwrap().is_some() || said().contains(awaited);
    wait_until(ready, "the handshake came to no end");
    let _ = stdin.write_all(typed.as_bytes());
    drop(stdin);
    client.wait().unwrap();
    said()
}

/// CWE-476, CWE-400; CVE-2021-3449: a second hello inside a connection ended the server.
#[test]
fn no_connection_is_renegotiated_and_none_is_older_than_tls_1_2() {
    let site = Site::serving();
    let device = site.device("mon-1", &site.patient());
    let said = client(&site, &device, &["-tls1_2"], SHAKEN, "R\n");
    // Asked, and left alone until the deadline for CONNECT.
    let (_, after) = said.split_once("RENEGOTIATING").expect(&said);
    assert!(!after.contains("verify return"), "{said}");
    assert!(
        after.contains("unexpected eof") || after.contains("no renegotiation"),
        "{said}"
    );
    for old in ["-tls1", "-tls1_1"] {
        let args = [old, "-cipher", "ALL:@SECLEVEL=0"];
        let said = client(&site, &device, &args, SHAKEN, "");
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
    let said = client(&site, &device, &["-tls1_3"], "Max Early Data", "");
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
    assert!(said.contains("Max Early Data: 0"), "{said}");
    assert!(!said.contains("Max Early Data: 1"), "{said}");
    assert!(said.contains("Compression: NONE"), "{said}");
}
