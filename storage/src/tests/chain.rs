//! Links between messages: a gap is told from a fork, whatever the order of arrival; what follows
//! from either.

use vitalseal_crypto::{CloneKind, P256Point, SenderKeyId, SenderKeys as _, default_backend};

use super::*;
use crate::inbox::{BootChain, Fork, Judgement, NewQuarantine};
use crate::ports::QuarantineReason;

/// Message `sequence` of one of a device's histories: they are the same up to the third message.
fn link(subject: &SubjectPseudonym, device: u32, history: u8, sequence: u64) -> Admission {
    let hash = |sequence: u64| {
        let number = u8::try_from(sequence).unwrap();
        [if number < 3 { number } else { number + history }; 32]
    };
    Admission {
        message: MessageId {
            device: super::device(device),
            ..message(sequence)
        },
        signed_hash: hash(sequence),
        previous: sequence.checked_sub(1).map(hash),
        ..admission(subject, sequence)
    }
}

/// A shuffle that is the same in every run (Fisher–Yates over a linear congruential generator).
pub(super) fn shuffle<T>(items: &mut [T], seed: &mut u64) {
    for last in (1..items.len()).rev() {
        *seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let at = usize::try_from(*seed >> 33).unwrap() % (last + 1);
        items.swap(last, at);
    }
}

fn broken(other: u64) -> Judgement {
    let kind = CloneKind::BrokenLink;
    Judgement::Fork(Fork { kind, other })
}

#[tokio::test]
async fn an_honest_device_is_never_accused_and_every_late_message_closes_its_gap() {
    let site = Site::new();
    let store = site.create().await;
    let subject = patient(&store).await;
    let mut seed = 1;
    for round in 0..40 {
        let mut messages: Vec<_> = (0..8).map(|n| link(&subject, round, 0, n)).collect();
        shuffle(&mut messages, &mut seed);
        // In one batch and one by one: the outcome is the order's, not the batch's.
        let sent = if round % 2 == 0 {
            futures::future::join_all(messages.iter().map(|m| store.inbox.admit(m.clone()))).await
        } else {
            let mut sent = Vec::new();
            for message in &messages {
                sent.push(store.inbox.admit(message.clone()).await);
            }
            sent
        };
        let mut here = BTreeSet::new();
        for (message, admitted) in messages.iter().zip(sent) {
            let sequence = message.message.sequence;
            let expected = match sequence.checked_sub(1) {
                Some(before) if !here.contains(&before) => Judgement::StoredAfterGap,
                _ => Judgement::Stored,
            };
            assert_eq!(admitted.unwrap(), expected, "round {round}, {sequence}");
            here.insert(sequence);
        }
        let chain = store.inbox.chain(&device(round)).await.unwrap();
        let whole = BootChain {
            boot: 1,
            first: 0,
            last: 7,
            messages: 8,
            missing: 0,
            gaps: vec![],
            forks: 0,
        };
        assert_eq!(chain, [whole]);
    }
}

#[tokio::test]
async fn of_two_histories_under_one_key_no_two_neighbours_that_disagree_are_stored() {
    let site = Site::new();
    let store = site.create().await;
    let subject = patient(&store).await;
    let (mut seed, mut kinds) = (2, (0, 0));
    for round in 0..60 {
        let mut messages: Vec<_> = (0..7)
            .flat_map(|n| [0, 100].map(|history| link(&subject, round, history, n)))
            .collect();
        shuffle(&mut messages, &mut seed);
        let mut stored: std::collections::BTreeMap<u64, Admission> = Default::default();
        for message in messages {
            let sequence = message.message.sequence;
            match store.inbox.admit(message.clone()).await.unwrap() {
                Judgement::Stored | Judgement::StoredAfterGap => {
                    stored.insert(sequence, message);
                }
                Judgement::Duplicate => {
                    assert_eq!(stored[&sequence].signed_hash, message.signed_hash);
                }
                Judgement::Fork(Fork { kind, other }) => {
                    let against = &stored[&other];
                    let contradicts = match kind {
                        CloneKind::SameCounters => against.signed_hash != message.signed_hash,
                        CloneKind::BrokenLink if other < sequence => {
                            message.previous != Some(against.signed_hash)
                        }
                        CloneKind::BrokenLink => against.previous != Some(message.signed_hash),
                    };
                    assert!(contradicts, "round {round}: {sequence} against {other}");
                    match kind {
                        CloneKind::SameCounters => kinds.0 += 1,
                        CloneKind::BrokenLink => kinds.1 += 1,
                    }
                }
                other => panic!("round {round}: {sequence} is {other:?}"),
            }
        }
        for (sequence, message) in &stored {
            if let Some(before) = sequence.checked_sub(1).and_then(|n| stored.get(&n)) {
                assert_eq!(message.previous, Some(before.signed_hash), "round {round}");
            }
        }
    }
    assert!(kinds.0 > 50 && kinds.1 > 50, "{kinds:?}: both are tried");
}

#[tokio::test]
async fn a_fork_shows_on_either_side_and_after_the_flush() {
    let site = Site::new();
    let store = site.create().await;
    let subject = patient(&store).await;
    let inbox = &store.inbox;
    for n in [0, 1, 2, 3] {
        inbox.admit(link(&subject, 1, 0, n)).await.unwrap();
    }
    store.flush(at(100)).await.unwrap();
    let ahead = inbox.admit(link(&subject, 1, 100, 4)).await.unwrap();
    assert_eq!(ahead, broken(3));
    // 5 of the clone comes first: nothing contradicts it, until the device's own 4 does.
    let gap = inbox.admit(link(&subject, 1, 100, 5)).await.unwrap();
    assert_eq!(gap, Judgement::StoredAfterGap);
    let behind = inbox.admit(link(&subject, 1, 0, 4)).await.unwrap();
    assert_eq!(behind, broken(5));
    let stored = |n| {
        let message = message(n);
        let store = store.clone();
        async move { store.stored_envelope(&message).await.unwrap() }
    };
    assert_eq!(stored(3).await, Some(vec![0xd8; 600]), "from a file");
    assert_eq!(stored(5).await, Some(vec![0xd8; 600]), "from the inbox");
    assert_eq!(stored(4).await, None);
}

#[tokio::test]
async fn what_is_missing_is_listed_by_boot() {
    let site = Site::new();
    let store = site.create().await;
    let subject = patient(&store).await;
    let of = |boot, sequence| {
        let mut admission = admission(&subject, sequence);
        admission.message.boot = boot;
        admission
    };
    for (boot, sequence) in [(3, 0), (3, 1), (3, 5), (3, 9), (7, 2)] {
        store.inbox.admit(of(boot, sequence)).await.unwrap();
    }
    for sequence in [0, 1] {
        store.quarantine(forked(3, sequence, None)).await.unwrap();
    }
    let chain = store.inbox.chain(&device(1)).await.unwrap();
    let expected = BootChain {
        boot: 3,
        first: 0,
        last: 9,
        messages: 4,
        missing: 6,
        gaps: vec![2..=4, 6..=8],
        forks: 2,
    };
    assert_eq!(chain[0], expected);
    assert_eq!((chain[1].missing, &chain[1].gaps[..]), (2, &[0..=1][..]));
    assert!(store.inbox.chain(&device(2)).await.unwrap().is_empty());
}

/// A refused message of device 1 that contradicts a stored one.
fn forked(boot: u64, sequence: u64, clone_proof: Option<&[u8]>) -> NewQuarantine {
    NewQuarantine {
        device: device(1),
        message: Some((boot, sequence)),
        reason: QuarantineReason::Fork,
        detail: "counters were used for other signed bytes".into(),
        received_at: at(60),
        subject: None,
        body: None,
        releasable: None,
        introduced: None,
        place: None,
        clone_proof: clone_proof.map(<[u8]>::to_vec),
    }
}

/// The clone chooses its boots and how much it sends; neither disk nor search may follow.
#[tokio::test]
async fn proofs_are_kept_once_a_boot_and_sixteen_a_device_and_each_fork_is_searched_for_once() {
    let site = Site::new();
    let store = site.create().await;
    let wants = |device_number, boot, sequence| {
        let device = device(device_number);
        let fork = MessageId {
            device,
            boot,
            sequence,
        };
        let inbox = &store.inbox;
        async move { inbox.wants_proof(&fork).await.unwrap() }
    };
    assert!(wants(1, 0, 0).await);
    store.quarantine(forked(0, 0, None)).await.unwrap();
    assert!(!wants(1, 0, 0).await, "none was found before");
    assert!(wants(1, 0, 1).await, "another message may prove it");
    for boot in 0..40 {
        for (sequence, proof) in [(1, b"first"), (2, b"later")] {
            let refused = forked(boot, sequence, Some(proof));
            store.quarantine(refused).await.unwrap();
        }
        assert!(!wants(1, boot, 3).await, "one of this boot is kept");
        assert_eq!(wants(1, boot + 1, 3).await, boot < 15);
    }
    assert!(wants(2, 0, 0).await, "another device");
    let proofs = store.inbox.clone_proofs(&device(1)).await.unwrap();
    let boots: Vec<u64> = proofs.iter().map(|kept| kept.boot).collect();
    assert_eq!(boots, (0..16).collect::<Vec<_>>());
    assert!(proofs.iter().all(|kept| kept.proof == b"first"));
}

#[tokio::test]
async fn a_named_key_is_found_once_its_message_is_kept_until_newer_ones_or_a_revocation_replace_it()
{
    let site = Site::new();
    let store = site.create().await;
    let subject = patient(&store).await;
    let introduced = |n: u8| {
        let key = P256Point::from_coordinates(&[n; 32], &[n; 32]);
        (SenderKeyId::of(&key, default_backend()), key)
    };
    let knows = |store: &Store, device: &DeviceId, n| {
        let (id, key) = introduced(n);
        let found = store.inbox.senders().find(device, &id);
        assert!(found.is_none_or(|found| found.as_sec1() == key.as_sec1()));
        found.is_some()
    };
    // The clock goes backwards; what is newer does not change with it.
    let with = |n: u8, sequence| Admission {
        introduced: Some(introduced(n)),
        received_at: at(100 - i64::from(n)),
        ..admission(&subject, sequence)
    };
    // The same key comes with every message of its session.
    for sequence in [0, 1] {
        store.inbox.admit(with(1, sequence)).await.unwrap();
    }
    assert!(knows(&store, &device(1), 1));
    assert!(
        !knows(&store, &device(2), 1),
        "another device does not name it"
    );
    let fork = Admission {
        signed_hash: [255; 32],
        ..with(2, 1)
    };
    store.inbox.admit(fork).await.unwrap();
    assert!(
        !knows(&store, &device(1), 2),
        "nothing comes in with a fork"
    );
    for n in 3..7 {
        store.inbox.admit(with(n, u64::from(n))).await.unwrap();
    }
    // Opened and refused, it is acknowledged all the same.
    let refused = NewQuarantine {
        reason: QuarantineReason::Implausible,
        introduced: Some(introduced(7)),
        ..forked(1, 7, None)
    };
    store.quarantine(refused).await.unwrap();
    let known =
        |store: &Store| -> Vec<u8> { (1..9).filter(|n| knows(store, &device(1), *n)).collect() };
    let newest: Vec<u8> = vec![4, 5, 6, 7];
    assert_eq!(newest, known(&store));
    store.close().await;
    let store = site.open().await.unwrap();
    assert_eq!(newest, known(&store));
    store.inbox.forget_senders(&device(1)).await.unwrap();
    assert_eq!(Vec::<u8>::new(), known(&store));
    store.close().await;
    assert_eq!(Vec::<u8>::new(), known(&site.open().await.unwrap()));
}

#[tokio::test]
async fn a_refused_body_ends_with_its_patients_key_even_in_an_older_inbox_beside_newer_keys() {
    let site = Site::new();
    let store = site.create().await;
    let (gone, stays) = (patient(&store).await, patient(&store).await);
    let mut of = Vec::new();
    for (n, subject) in [Some(&gone), Some(&stays), None].into_iter().enumerate() {
        let refused = NewQuarantine {
            device: device(1),
            message: Some((1, u64::try_from(n).unwrap())),
            reason: QuarantineReason::Shape,
            detail: String::new(),
            received_at: at(3),
            subject: subject.cloned(),
            body: Some(b"pulse 71".to_vec()),
            releasable: None,
            introduced: None,
            place: None,
            clone_proof: None,
        };
        store.quarantine(refused).await.unwrap();
        of.push(store.inbox.quarantined(1).await.unwrap()[0].id);
    }
    // A rotation makes a new key and leaves what the old one sealed readable.
    store.registry.rotate_kek(&stays, at(4)).await.unwrap();
    let readable = |store: Store| {
        let of = of.clone();
        async move {
            let mut readable = Vec::new();
            for id in of {
                let body = store.quarantined_body(id).await.unwrap();
                assert!(
                    body.as_ref()
                        .is_none_or(|body| body.as_slice() == b"pulse 71")
                );
                readable.push(body.is_some());
            }
            readable
        }
    };
    assert_eq!(readable(store.clone()).await, [true, true, true]);
    let older = site.power_cut();
    store.keys.erase(&gone, "e", at(40)).await.unwrap();
    store.close().await;
    for entry in fs::read_dir(older.data()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("inbox.sqlite") {
            fs::copy(&path, site.data().join(name)).unwrap();
        }
    }
    let store = site.open().await.unwrap();
    assert_eq!(readable(store).await, [false, true, true]);
}
