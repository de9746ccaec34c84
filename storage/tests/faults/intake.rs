//! A message on its way: acknowledged means stored exactly once, in the inbox or in a file, signed and readable; not
//! acknowledged means once or not at all.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use arrow::array::{AsArray as _, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt as _;
use futures::future::join_all;
use vitalseal_crypto::{AtRest, CertificateAuthority, SubjectPseudonym, default_backend};
use vitalseal_storage::{
    Authorized, InboxError, Judgement, NewQuarantine, QuarantineReason, Store, StoreError, schema,
};

use crate::errors::chain;
use crate::messages::{ALL, BEFORE, Messages, device, names, payload};
use crate::site::{Site, at, runtime};
use crate::trial::{Ground, Struck, Trial};

/// What the child does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operation {
    /// A batch of three devices, with a repetition and a fork in it.
    Admit,
    Quarantine,
    Flush,
    /// Opening what a flush left that was killed: before its file was whole, before it was in the catalog, before its
    /// rows were gone.
    Open,
}

/// How, and at every how many calls.
const MODES: [(&str, usize); 7] = [
    ("kill", 1),
    ("powercut", 1),
    ("torn", 4),
    ("eio", 4),
    ("fsync", 1),
    ("full", 5),
    ("kill+blackout", 4),
];

/// Between two looks at a lock.
pub(crate) const PAUSE: Duration = Duration::from_millis(5);

const REFUSED: [u8; 40] = [7; 40];

#[test]
fn a_fault_at_any_write_keeps_what_was_acknowledged_once() {
    if let Ok(operation) = std::env::var("VS_CHILD") {
        return child(&operation);
    }
    let ground = Ground::new();
    let prepared = Site::below(&ground.path().join("prepared"));
    let ward = runtime().block_on(prepare(&prepared, &ground));
    for operation in [Operation::Admit, Operation::Quarantine, Operation::Flush] {
        for (mode, stride) in MODES {
            ward.trial(&ground, operation, mode, &prepared, stride)
                .at_every_call();
        }
    }
    let all = halves(&ground, &ward, &prepared);
    assert!(
        all.len() >= 3,
        "{} states of an interrupted flush",
        all.len()
    );
    for half in &all {
        for (mode, stride) in MODES {
            ward.trial(&ground, Operation::Open, mode, half, stride)
                .at_every_call();
        }
    }
    ground.assert_struck(1);
}

struct Ward {
    patient: SubjectPseudonym,
    authority: CertificateAuthority,
    messages: Messages,
}

impl Ward {
    fn trial<'a>(
        &'a self,
        ground: &'a Ground,
        operation: Operation,
        mode: &'a str,
        prepared: &'a Site,
        stride: usize,
    ) -> Trial<'a> {
        Trial {
            ground,
            test: "intake::a_fault_at_any_write_keeps_what_was_acknowledged_once",
            operation: format!("{operation:?}"),
            given: self.messages.dir.to_str().unwrap(),
            mode,
            prepared,
            stride,
            judge: Box::new(|struck| runtime().block_on(judge(struck, self))),
        }
    }
}

/// Some messages in a file, some in the inbox.
async fn prepare(site: &Site, ground: &Ground) -> Ward {
    let store = Store::create(&site.paths(), site.custody(), at(0))
        .await
        .unwrap();
    let patient = store.registry.add_patient(None, None, at(1)).await.unwrap();
    let dir = ground.path().join("messages");
    let (messages, authority) = Messages::seal(&dir, &store, &patient).await;
    for name in names(1..=BEFORE - 1) {
        store.inbox.admit(messages.admission(&name)).await.unwrap();
    }
    store.flush(at(30)).await.unwrap();
    for name in names(BEFORE..=BEFORE) {
        store.inbox.admit(messages.admission(&name)).await.unwrap();
    }
    store.close().await;
    Ward {
        patient,
        authority,
        messages,
    }
}

/// Stores in which a flush was killed after a quarter, a half, three quarters of its calls, and at the last but one.
fn halves(ground: &Ground, ward: &Ward, prepared: &Site) -> Vec<Site> {
    let flush = ward.trial(ground, Operation::Flush, "kill", prepared, 1);
    let calls = flush.calls();
    let at = [calls / 4, calls / 2, calls * 3 / 4, calls - 1];
    at.map(|call| flush.left_at(call)).into()
}

/// The child: opens the store, does one thing again and again, as devices and timers do, and notes what it was
/// promised.
fn child(operation: &str) {
    let site = Site::of_child();
    let messages = Messages {
        dir: std::env::var_os("VS_GIVEN").unwrap().into(),
    };
    let mode = std::env::var("VS_FAULT_MODE").unwrap();
    let mut promised = File::options()
        .create(true)
        .append(true)
        .open(std::env::var_os("VS_PROMISED").unwrap())
        .unwrap();
    let mut promise = |what: String| promised.write_all(format!("{what}\n").as_bytes()).unwrap();
    runtime().block_on(async {
        let Ok(store) = site.open().await else { return };
        let mut failed = 0;
        for _ in 0..3 {
            let done = match operation {
                "Admit" => admit(&store, &messages, &mode, &mut promise).await,
                "Quarantine" => {
                    let kept = store.quarantine(refused()).await;
                    kept.map(|()| promise("kept".to_owned()))
                        .map_err(|e| chain(&e))
                }
                "Flush" => store.flush(at(50)).await.map(drop).map_err(|e| chain(&e)),
                _ => Ok(()),
            };
            failed += usize::from(done.is_err());
            println!("{done:?}");
        }
        // One call failed, so one round may have; all goes on without a restart.
        let once = matches!(mode.as_str(), "eio" | "fsync");
        assert!(!once || failed <= 1, "{failed} rounds failed");
        // The power is to go while the log is in use: closing would copy it.
        if matches!(mode.as_str(), "fsync" | "blackout") {
            std::process::exit(0);
        }
        store.close().await;
    });
}

async fn admit(
    store: &Store,
    messages: &Messages,
    mode: &str,
    promise: &mut dyn FnMut(String),
) -> Result<(), String> {
    let mut all = names(BEFORE + 1..=ALL);
    all.extend(["0-1", "0-4", "fork"].map(str::to_owned));
    let admitted = all
        .iter()
        .map(|name| store.inbox.admit(messages.admission(name)));
    let mut done = Ok(());
    for (name, judged) in all.iter().zip(join_all(admitted).await) {
        match judged {
            Ok(Judgement::Fork(_)) => assert_eq!(name, "fork"),
            Ok(_) => {
                assert_ne!(name, "fork");
                promise(format!("stored {name}"));
            }
            Err(error) => {
                let full = matches!(error, InboxError::Full(_));
                assert_eq!(full, mode == "full", "{}", chain(&error));
                assert_eq!(full, store.space.is_full());
                done = Err(chain(&error));
            }
        }
    }
    done
}

fn refused() -> NewQuarantine {
    NewQuarantine {
        device: device(0),
        message: Some((1, 9)),
        reason: QuarantineReason::Shape,
        detail: "not an envelope".to_owned(),
        received_at: at(20),
        subject: None,
        body: Some(REFUSED.to_vec()),
        releasable: None,
        introduced: None,
        place: None,
        clone_proof: None,
    }
}

/// Opens the store as the next start does, and holds it against what was promised.
async fn judge(struck: &Struck, ward: &Ward) {
    let (site, context) = (&struck.site, &struck.context);
    let open = || async {
        loop {
            match site.open().await {
                // A child that another thread is starting holds every lock of this process until it is another program.
                Err(StoreError::Locked(_)) => tokio::time::sleep(PAUSE).await,
                opened => break opened.unwrap_or_else(|e| panic!("{context}: {}", chain(&e))),
            }
        }
    };
    let store = open().await;
    let found = ward.stored(&store, context).await;
    let promised = struck
        .promised
        .iter()
        .filter_map(|line| line.strip_prefix("stored "));
    for name in names(1..=BEFORE).iter().map(String::as_str).chain(promised) {
        assert!(found.contains_key(name), "{context}: {name} is lost");
    }
    let kept = store.inbox.quarantined(10).await.unwrap();
    assert!(kept.len() <= 1, "{context}: {kept:?}");
    if struck.promised.iter().any(|line| line == "kept") {
        let body = store.quarantined_body(kept[0].id).await.unwrap();
        assert_eq!(*body.expect(context), REFUSED, "{context}");
    }

    // The devices send everything again, and the rest.
    for name in names(1..=ALL) {
        let judged = store
            .inbox
            .admit(ward.messages.admission(&name))
            .await
            .unwrap();
        let known = judged == Judgement::Duplicate;
        assert_eq!(
            known,
            found.contains_key(&name),
            "{context}: {name} {judged:?}"
        );
    }
    let everything = names(1..=ALL);
    for flushed in [None, Some(0)] {
        let report = store.flush(at(200)).await.unwrap();
        assert!(
            flushed.is_none_or(|none| report.messages() == none),
            "{context}"
        );
        let found = ward.stored(&store, context).await;
        assert!(found.keys().eq(&everything), "{context}: {found:?}");
    }
    let files = store.catalog.files().await.unwrap();
    store.close().await;
    let store = open().await;
    assert_eq!(store.catalog.files().await.unwrap(), files, "{context}");
    assert!(
        ward.stored(&store, context).await.keys().eq(&everything),
        "{context}"
    );
    store.close().await;
}

impl Ward {
    /// Every stored message by its name. Each is there once, bit for bit, signed by its device under a certificate of the
    /// authority, and opens.
    async fn stored(&self, store: &Store, context: &str) -> BTreeMap<String, ()> {
        let who = Authorized::new([self.patient.clone()].into());
        let cut = store.cut(&who).await.unwrap();
        let mut batches = vec![cut.hot];
        let mut names: Vec<_> = cut.files.iter().map(|file| file.path.to_string()).collect();
        let schema = schema::sealed_rows();
        let columns: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        for file in cut.files.iter() {
            let read = store.files.batches(file, &columns, 1024);
            batches.extend(read.try_collect::<Vec<_>>().await.unwrap());
        }
        let there = store.files.names().await.unwrap();
        let there: Vec<_> = there.into_iter().map(|(name, _)| name).collect();
        names.sort();
        assert_eq!(there, names, "{context}: files that are in no catalog");
        let mut found = BTreeMap::new();
        for batch in &batches {
            for row in 0..batch.num_rows() {
                let name = self.row(batch, row, store, context).await;
                assert_eq!(
                    found.insert(name.clone(), ()),
                    None,
                    "{context}: {name} twice"
                );
            }
        }
        found
    }

    async fn row(&self, batch: &RecordBatch, row: usize, store: &Store, context: &str) -> String {
        let backend = default_backend();
        let column = |name| batch.column_by_name(name).unwrap();
        let stored = column("envelope").as_binary::<i32>().value(row);
        let sequence = column("sequence").as_primitive::<Int64Type>().value(row);
        let sequence = u64::try_from(sequence).unwrap();
        let who = column("device").as_string::<i32>().value(row);
        let n = (0..).find(|n| device(*n).as_str() == who).unwrap();
        let name = format!("{n}-{sequence}");
        assert!(
            stored == self.messages.bytes(&name),
            "{context}: {name} is another"
        );
        let at_rest = AtRest::decode(stored).unwrap();
        let signer = store.registry.device_certificate(at_rest.signer()).await;
        let signer = signer.unwrap().expect(context);
        let issuer = self.authority.issuing_der();
        signer.verify_issued_by(issuer, at(100), backend).unwrap();
        at_rest.verify(&signer, backend).unwrap();
        let keys = store
            .keys
            .patient_keys(&self.patient)
            .await
            .unwrap()
            .unwrap();
        let opened = at_rest.open(keys.current(), backend).unwrap();
        assert_eq!(*opened, payload(n, sequence), "{context}");
        name
    }
}
