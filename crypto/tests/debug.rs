//! Secrets are quiet: they print as their name, and nothing copies, compares or serialises them by accident.
#![cfg(feature = "authority")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests argue with unwrap"
)]

mod common;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde::Serialize;
use vitalseal_crypto::*;

use common::{Site, now};

/// Whether a type implements a trait: an inherent constant, where its bounds hold, hides the trait's.
macro_rules! implements {
    ($type:ty: $trait:path) => {{
        struct Probe<T>(std::marker::PhantomData<T>);
        #[allow(dead_code, reason = "used where the bound does not hold")]
        trait Otherwise {
            const HOLDS: bool = false;
        }
        impl<T> Otherwise for Probe<T> {}
        #[allow(dead_code, reason = "used where the bound holds")]
        impl<T: $trait> Probe<T> {
            const HOLDS: bool = true;
        }
        <Probe<$type>>::HOLDS
    }};
}

/// A line for each type: how a value of it prints, and which of the traits that could leak it it has.
macro_rules! lines {
    ($($type:ty => $value:expr),* $(,)?) => {
        [$((stringify!($type), line(
            format!("{:?}", $value as &$type),
            &[
                ("Clone", implements!($type: Clone)),
                ("Serialize", implements!($type: Serialize)),
                ("Display", implements!($type: Display)),
                ("PartialEq", implements!($type: PartialEq)),
                ("AsRef", implements!($type: AsRef<[u8]>)),
            ],
        ))),*]
    };
}

fn line(printed: String, traits: &[(&str, bool)]) -> String {
    let found = traits.iter().filter(|(_, holds)| *holds);
    found.fold(printed, |line, (name, _)| format!("{line}  {name}"))
}

/// An `Agreement` and a `BlobKey` may be copied: they only borrow a key.
#[test]
fn no_secret_prints_or_can_be_copied_compared_or_serialised() {
    let backend = default_backend();
    let site = Site::new();
    let session = SessionKey::generate(backend).unwrap();
    let mut sealed = site.seal(b"62 /min", Agreement::Ephemeral, backend);
    let opened = Received::decode(&sealed.bytes)
        .unwrap()
        .verify(&site.certificate, backend)
        .unwrap()
        .open(&site.ring, &NoSenderKeys, backend)
        .unwrap();
    (sealed.bytes, sealed.signed_hash) = (vec![], [0; 32]);
    let kek = || danger::test_doors::kek_from_bytes(Kid::from_bytes(&[7]).unwrap(), &[7; 32]);
    let recipient = site
        .authority
        .issue_recipient(KeyEpoch(1), now(), common::later(now(), 1), backend)
        .unwrap();

    let elsewhere = Elsewhere(backend.generate_p256().unwrap());

    let lines = lines! {
        P256Secret => &backend.generate_p256().unwrap(),
        Dek => &sealed.content_key,
        Kek => &kek(),
        PatientKeys => &PatientKeys::new(kek(), vec![kek()]),
        PageKey => &PageKey::generate(backend).unwrap(),
        RootKey => &RootKey::generate(KeyEpoch(1), backend).unwrap(),
        OutboxKey => &OutboxKey::generate(backend).unwrap(),
        StoreKey => &StoreKey::generate(backend).unwrap(),
        FileKey => &FileKey::generate(backend).unwrap(),
        BlobKey<'_> => &BlobKey::Patient(&kek()),
        SessionKey => &session,
        RecipientKey => &recipient,
        RecipientKeyRing => &site.ring,
        DeviceSigner => &site.signer,
        CertificateAuthority => &site.authority,
        NewAuthority => &CertificateAuthority::create(now()).unwrap(),
        NewChain => &CertificateAuthority::create_remote(&elsewhere, now()).unwrap(),
        ServerIdentity => &site.authority.issue_server(&["localhost"], now()).unwrap(),
        Agreement<'_> => &Agreement::Session(&session),
        SealedMessage => &sealed,
        Opened => &opened,
    };
    let text = lines.iter().map(|(_, line)| format!("{line}\n"));
    insta::assert_snapshot!(text.collect::<String>(), @r"
    P256Secret { .. }
    Dek { .. }
    Kek { .. }
    PatientKeys { .. }
    PageKey { .. }
    RootKey { .. }
    OutboxKey { .. }
    StoreKey { .. }
    FileKey { .. }
    Patient(Kek { .. })  Clone
    SessionKey { .. }
    RecipientKey { .. }
    RecipientKeyRing { .. }
    DeviceSigner { .. }
    CertificateAuthority { .. }
    NewAuthority { .. }
    NewChain { .. }
    ServerIdentity { .. }
    Session(SessionKey { .. })  Clone
    SealedMessage { bytes: [], signed_hash: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], content_key: Dek { .. } }
    Opened { message: MessageId { device: DeviceId(monitor-007), boot: 3, sequence: 14 }, .. }
    ");

    let listed = lines.map(|(name, _)| name.trim_end_matches("<'_>").to_owned());
    assert_eq!(BTreeSet::from(listed), types_that_hold_a_secret());
}

/// At every step of its way, in any form.
#[test]
fn a_message_prints_its_name_alone() {
    let backend = default_backend();
    let site = Site::new();
    let wire = site.seal(b"62 /min", Agreement::Ephemeral, backend).bytes;
    let signed = format!("{:?}", Signed::decode(&wire).unwrap());
    let received = Received::decode(&wire).unwrap();
    let printed = format!("{received:?}");
    let verified = received.verify(&site.certificate, backend).unwrap();
    let printed = [signed, printed, format!("{verified:?}")];
    let opened = verified.open(&site.ring, &NoSenderKeys, backend).unwrap();
    let stored = opened
        .rewrap(&Kek::generate(backend).unwrap(), backend)
        .unwrap();
    insta::assert_snapshot!(format!("{}\n{stored:?}", printed.join("\n")), @r"
    Signed { message: MessageId { device: DeviceId(monitor-007), boot: 3, sequence: 14 }, .. }
    Received { message: MessageId { device: DeviceId(monitor-007), boot: 3, sequence: 14 }, .. }
    Verified { message: MessageId { device: DeviceId(monitor-007), boot: 3, sequence: 14 }, .. }
    AtRest { message: MessageId { device: DeviceId(monitor-007), boot: 3, sequence: 14 }, .. }
    ");
}

/// A key in a place that gives no signature: none is needed to make a chain.
#[derive(Debug)]
struct Elsewhere(P256Secret);

impl RemoteSigner for Elsewhere {
    fn public(&self) -> &[u8] {
        self.0.public().as_sec1()
    }

    fn sign(&self, _: &[u8]) -> Result<[u8; 64], Box<dyn std::error::Error + Send + Sync>> {
        Err("not here".into())
    }
}

#[test]
fn the_probe_sees_the_traits_that_are_there() {
    assert!(implements!(DeviceId: Clone) && implements!(DeviceId: Serialize));
    assert!(implements!(DeviceId: Display) && implements!(P256Point: PartialEq));
    assert!(implements!(Vec<u8>: AsRef<[u8]>) && !implements!(DeviceId: AsRef<[u8]>));
}

/// Every public type of this crate with a secret in its fields, or with a type that has one.
fn types_that_hold_a_secret() -> BTreeSet<String> {
    let types = types_of(Path::new("src"));
    let mut secret = BTreeSet::from(["Zeroizing", "KeyPair"].map(str::to_owned));
    loop {
        let more = types
            .iter()
            .filter(|(_, name, fields)| {
                !secret.contains(name) && words(fields).any(|word| secret.contains(word))
            })
            .map(|(_, name, _)| name.clone())
            .collect::<Vec<_>>();
        if more.is_empty() {
            break;
        }
        secret.extend(more);
    }
    let public = types.into_iter().filter(|(public, ..)| *public);
    public
        .map(|(_, name, _)| name)
        .filter(|name| secret.contains(name))
        .collect()
}

/// Of every struct and enum under `folder`: whether it is public, its name, and its fields without their comments.
fn types_of(folder: &Path) -> Vec<(bool, String, String)> {
    let mut types = Vec::new();
    for path in sources(folder) {
        let text = std::fs::read_to_string(path).unwrap();
        let mut lines = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        while let Some(line) = lines.next() {
            let Some((before, after)) = ["struct ", "enum "].iter().find_map(|kind| {
                line.split_once(kind)
                    .filter(|(before, _)| before.is_empty() || before.starts_with("pub"))
            }) else {
                continue;
            };
            let name = words(after).next().unwrap().to_owned();
            let mut fields = after.to_owned();
            if line.ends_with('{') {
                fields.extend(lines.by_ref().take_while(|line| *line != "}"));
            }
            types.push((before == "pub ", name, fields));
        }
    }
    types
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else {
            found.push(path);
        }
    }
    found
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| !character.is_alphanumeric() && character != '_')
        .filter(|word| !word.is_empty())
}
