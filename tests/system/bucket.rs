//! A site whose Parquet files are in a bucket: init, intake, flush, compaction, queries and checks, and a server that dies in
//! between.

use std::time::Duration;

use serde_json::Value;

use crate::common::{Random, Site, files_below, wait_until};
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
    let shown = std::fs::read_to_string(site.data.join("vitalseal.toml")).unwrap();
    assert!(
        !shown.contains("not-a-secret"),
        "credentials stay where they are"
    );

    // A second store must not share the place.
    let second = std::process::Command::new(crate::common::VITALSEAL)
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
