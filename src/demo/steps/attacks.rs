//! What must not work: a changed message, a stranger, a replay, reading the disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use vitalseal_crypto::{CertificateAuthority, DeviceId, new_device_key_and_csr};
use vitalseal_storage::ports::{Clock as _, SystemClock};
use vitalseal_vitals::{Reading, senml, signal};

use super::path::NAME;
use crate::admin::protocol::Request;
use crate::demo::site::Site;
use crate::mqtt_client::Session;
use crate::tls;

const COUNT: &str = "SELECT count(*) FROM vitals";

/// So many first bytes of an envelope lie in its signed header, which storage keeps as it came.
const HEADER_BYTES: usize = 96;

/// A body temperature with so many digits that its bytes stand nowhere by accident.
const KNOWN: f64 = 37.182_930_457;

pub(super) async fn tampered(site: &mut Site) -> anyhow::Result<String> {
    let before = site.count(COUNT).await?;
    let mut message = sealed(site, "watch-01", 71.0)?;
    let length = message.len();
    // The recipient takes the last 136 bytes or so; the ciphertext lies before it.
    let byte = length
        .checked_sub(150)
        .and_then(|at| message.get_mut(at))
        .context("the message is too short to hold a ciphertext")?;
    *byte ^= 1;
    publish(site, "watch-01", &[message]).await?;
    let listed = site
        .ask(Request::QuarantineList {
            limit: 10,
            device: None,
            reason: None,
            state: None,
        })
        .await?;
    let reasons: Vec<&str> = listed
        .as_array()
        .into_iter()
        .flatten()
        .filter(|row| row["device"] == "watch-01")
        .filter_map(|row| row["reason"].as_str())
        .collect();
    ensure!(
        reasons == ["signature"],
        "the quarantine should say `signature`, it says {reasons:?}"
    );
    ensure!(
        site.count(COUNT).await? == before,
        "the changed message was stored"
    );
    Ok(format!(
        "one bit of {length} bytes: acknowledged, not stored, quarantined with reason `signature`"
    ))
}

pub(super) async fn stranger(site: &mut Site) -> anyhow::Result<String> {
    // A certificate for the very same device id, from an authority that the server does not know.
    let now = SystemClock.now();
    let foreign = CertificateAuthority::create(now)?;
    let foreign = CertificateAuthority::open(
        &foreign.issuing_key_pem,
        &foreign.issuing_cert_pem,
        &foreign.root_cert_pem,
    )?;
    let device: DeviceId = "watch-01".parse()?;
    let (key, csr) = new_device_key_and_csr(&device)?;
    let issued = foreign.issue_device(&csr, &device, now)?;
    let tls = Arc::new(tls::device(&site.authorities, &issued.pem, &key)?);
    if Session::connect(site.mqtt()?, device.as_str(), tls)
        .await
        .is_ok()
    {
        bail!("a certificate of a foreign authority was let in");
    }
    // The server still serves the real one.
    let session = connect(site, "watch-01").await?;
    session.close().await;
    Ok(
        "a foreign authority's certificate for the same device id is refused in the handshake"
            .to_owned(),
    )
}

pub(super) async fn replay(site: &mut Site) -> anyhow::Result<String> {
    let before = site.count(COUNT).await?;
    let message = sealed(site, "watch-01", 72.0)?;
    publish(site, "watch-01", &[message.clone(), message.clone()]).await?;
    publish(site, "watch-01", &[message]).await?;
    let stored = site.count(COUNT).await? - before;
    ensure!(
        stored == 1,
        "one reading sent three times is stored {stored} times"
    );
    site.rows += 1;
    Ok("sent three times over two sessions, acknowledged three times, stored once".to_owned())
}

pub(super) async fn ciphertext(site: &mut Site) -> anyhow::Result<String> {
    let known = Reading {
        signal: signal("8310-5").context("body temperature is not in the table")?,
        value: KNOWN,
        at: SystemClock.now(),
    };
    let payload = senml::encode(&[known]);
    let text = KNOWN.to_string();
    let needles: [&[u8]; 4] = [
        &KNOWN.to_be_bytes(),
        &KNOWN.to_le_bytes(),
        text.as_bytes(),
        NAME.as_bytes(),
    ];
    ensure!(
        contains(&payload, needles[0]),
        "the search would not find the reading in its plaintext"
    );

    let message = {
        let member = site.member("monitor-01")?;
        member.player.seal(&[known], SystemClock.now())?
    };
    let header = message
        .get(..HEADER_BYTES)
        .context("the message is too short to hold a header")?
        .to_vec();
    ensure!(
        contains(&header, b"monitor-01"),
        "the signed header should begin with whose message it is"
    );
    publish(site, "monitor-01", &[message]).await?;
    // A search for what is never there proves nothing where nothing is ever found: until the flush, the message's signed
    // header lies in the inbox byte for byte.
    ensure!(
        holds(&files_below(&site.data)?, &header)?,
        "no file holds the header of the message that just came: the search would not find anything"
    );
    site.ask(Request::Flush).await?;
    let found = site
        .count(&format!(
            "SELECT count(*) FROM vitals WHERE value = {KNOWN}"
        ))
        .await?;
    ensure!(
        found == 1,
        "SQL should find the known reading once, it finds it {found} times"
    );
    site.rows += 1;
    let files = files_below(&site.data)?;
    let parquet: Vec<PathBuf> = files
        .iter()
        .filter(|file| is_parquet(file))
        .cloned()
        .collect();
    ensure!(!parquet.is_empty(), "the flush left no Parquet file");
    for needle in needles {
        ensure!(
            !holds(&files, needle)?,
            "a file holds a known value in the clear"
        );
    }
    // Files of many messages tell less than the inbox: not even whose they are.
    let patient = site.member("monitor-01")?.patient.clone();
    for needle in [header.as_slice(), b"monitor-01", patient.as_bytes()] {
        ensure!(
            !holds(&parquet, needle)?,
            "a Parquet file tells of a device or a patient in the clear"
        );
    }
    let sizes = files.iter().map(|file| Ok(fs::metadata(file)?.len()));
    let bytes: u64 = sizes.sum::<anyhow::Result<u64>>()?;
    Ok(format!(
        "SQL finds the reading; {} files, {} KiB, hold neither it nor a name, and {} Parquet files no pseudonym either",
        files.len(),
        bytes / 1024,
        parquet.len()
    ))
}

fn sealed(site: &mut Site, device: &str, value: f64) -> anyhow::Result<Vec<u8>> {
    let now = SystemClock.now();
    let reading = Reading {
        signal: signal("8867-4").context("heart rate is not in the table")?,
        value,
        at: now,
    };
    site.member(device)?.player.seal(&[reading], now)
}

async fn connect(site: &mut Site, device: &str) -> anyhow::Result<Session> {
    let directory = site.member(device)?.directory.clone();
    let read = |name: &str| {
        fs::read_to_string(directory.join(name)).with_context(|| format!("reading {name}"))
    };
    let tls = Arc::new(tls::device(
        &site.authorities,
        &read("cert.pem")?,
        &read("key.pem")?,
    )?);
    Session::connect(site.mqtt()?, device, tls).await
}

async fn publish(site: &mut Site, device: &str, messages: &[Vec<u8>]) -> anyhow::Result<()> {
    let mut session = connect(site, device).await?;
    for message in messages {
        session
            .publish(&format!("v1/d/{device}/vitals"), message.clone())
            .await?;
    }
    session.close().await;
    Ok(())
}

fn files_below(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in
        fs::read_dir(directory).with_context(|| format!("listing {}", directory.display()))?
    {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files_below(&entry.path())?);
        } else if entry.file_type()?.is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Whether any of the files holds these bytes.
fn holds(files: &[PathBuf], needle: &[u8]) -> anyhow::Result<bool> {
    for file in files {
        let content = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        if contains(&content, needle) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_parquet(file: &Path) -> bool {
    file.extension()
        .is_some_and(|extension| extension == "parquet")
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}
