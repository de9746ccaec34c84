//! A site whose Parquet files are in a bucket: init, intake, flush, compaction, queries and checks, and a server that dies in
//! between.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use vitalseal_crypto::CertificateAuthority;

use crate::common::{Random, Site, VITALSEAL, files_below, wait_until};
use crate::load::Load;
use crate::moto::{BUCKET, Server, place};

const SEED: u64 = 0x7617_a15e_a1ed_0005;

#[test]
fn a_site_with_a_bucket_flushes_compacts_and_answers_and_kills_cost_nothing() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(Server::start());
    let dir = tempfile::tempdir().unwrap();
    let at = place(server.address, dir.path());
    let (endpoint, credentials) = (at.endpoint.unwrap(), at.credentials.unwrap());
    let bucket = [
        ["--s3-bucket", BUCKET],
        ["--s3-endpoint", &endpoint],
        ["--s3-prefix", &at.prefix],
        ["--s3-credentials-file", credentials.to_str().unwrap()],
    ]
    .concat();
    let mut site = Site::init_with(&bucket);
    site.serve();
    let load = Load::begin(&site, "bucket");
    let mut random = Random(SEED);
    let mut acked_before = 0;
    for kill in 0..4 {
        wait_until(
            || load.acked() > acked_before,
            "no message was acknowledged after a restart",
        );
        site.json(&["flush"]);
        if kill == 2 {
            site.json(&["store", "compact", "--force"]);
        }
        std::thread::sleep(Duration::from_millis(30 + random.below(300)));
        acked_before = load.acked();
        site.kill();
        site.serve();
    }
    load.end(&site);
    let compacted = site.json(&["store", "compact", "--force"]);
    assert_ne!(compacted["chunks"], Value::from(0), "{compacted}");
    assert_eq!(site.json(&["store", "check"])["sound"], true);
    assert_eq!(
        files_below(&site.data.join("parquet")),
        Vec::<std::path::PathBuf>::new()
    );
    assert!(runtime.block_on(server.objects()) > 0);
    let shown = fs::read_to_string(site.data.join("vitalseal.toml")).unwrap();
    assert!(
        !shown.contains("not-a-secret"),
        "credentials stay where they are"
    );

    // A backup of it becomes a store in the same bucket, at a place of its own.
    let backup = dir.path().join("backup");
    site.json(&["backup", "--out", backup.to_str().unwrap()]);
    let config = dir.path().join("restored.toml");
    let place = format!("prefix = \"{}\"", at.prefix);
    assert!(shown.contains(&place), "{shown}");
    fs::write(&config, shown.replace(&place, "prefix = \"restored\"")).unwrap();
    let before = runtime.block_on(server.objects());
    let held = |site: &Site| site.json(&["store", "check"])["messages"].clone();
    site.terminate();
    let data = dir.path().join("again");
    let restored = Command::new(VITALSEAL)
        .args(["restore", "--json", "--from"])
        .arg(&backup)
        .arg("--data")
        .arg(&data)
        .arg("--config")
        .arg(&config)
        .output()
        .unwrap();
    assert!(restored.status.success(), "{restored:?}");
    let again = Site::on(data);
    assert!(files_below(&again.data.join("parquet")).is_empty());
    assert!(runtime.block_on(server.objects()) > before);
    assert_eq!(held(&again), held(&site));

    // A second store must not share the place.
    let second = Command::new(VITALSEAL)
        .args(["init", "--data"])
        .arg(dir.path().join("second"))
        .args(&bucket)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(
        !second.status.success() && said.contains("belongs to another store"),
        "{said}"
    );
    assert!(!dir.path().join("second").exists(), "nothing is left of it");
}

/// TLS before a server, as `localhost`: its address, and the authority's certificate.
async fn behind_tls(server: SocketAddr) -> (SocketAddr, String) {
    let now = Timestamp::now();
    let made = CertificateAuthority::create(now).unwrap();
    let (key, issuing, root) = (
        &made.issuing_key_pem,
        &made.issuing_cert_pem,
        made.root_cert_pem,
    );
    let authority = CertificateAuthority::open(key, issuing, &root).unwrap();
    let identity = authority.issue_server(&["localhost"], now).unwrap();
    let chain = CertificateDer::pem_slice_iter(identity.chain_pem.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Who does not believe the certificate goes away.
                let Ok(mut client) = acceptor.accept(client).await else {
                    return;
                };
                let mut server = TcpStream::connect(server).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (address, root)
}

#[test]
fn a_bucket_over_tls_is_reached_under_an_authority_of_this_machine_or_not_at_all() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(Server::start());
    let (address, root) = runtime.block_on(behind_tls(server.address));
    let dir = tempfile::tempdir().unwrap();
    let roots = dir.path().join("roots.pem");
    fs::write(&roots, root).unwrap();
    let credentials = place(address, dir.path()).credentials.unwrap();
    let init = |host: &str, trusted: bool| {
        let mut init = Command::new(VITALSEAL);
        if trusted {
            init.env("SSL_CERT_FILE", &roots);
        }
        let data = dir.path().join("data");
        let output = init
            .args([
                "init",
                "--s3-bucket",
                BUCKET,
                "--s3-prefix",
                "tls",
                "--s3-endpoint",
            ])
            .arg(format!("https://{host}:{}", address.port()))
            .arg("--s3-credentials-file")
            .arg(&credentials)
            .arg("--data")
            .arg(&data)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.success(), data.exists(), "{said}");
        (output.status.success(), said)
    };
    for (host, trusted, why) in [
        ("localhost", false, "UnknownIssuer"),
        ("127.0.0.1", true, "not valid for name"),
    ] {
        let (made, said) = init(host, trusted);
        assert!(!made && said.contains(why), "{host}: {said}");
    }
    let (made, said) = init("localhost", true);
    assert!(made, "{said}");
}
