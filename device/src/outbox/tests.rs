//! What a failure is here: a pushed message that is gone, a removed one that is offered again in the same run, a
//! half-written one that is offered at all, a boot number used twice. Not a failure: a removed message that
//! comes back after a power cut.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use vitalseal_crypto::{MessageId, OutboxKey, danger, default_backend};

use super::key::KEY_FILE;
use super::*;

fn position(boot: u64, sequence: u64) -> Position {
    Position { boot, sequence }
}

/// A key of these tests, to make content keys with and to look at them.
fn looking_glass() -> OutboxKey {
    danger::outbox_key_from_bytes(&[7; 32]).unwrap()
}

fn content_key(position: Position) -> Dek {
    let key = [u8::try_from(position.sequence % 251).unwrap(); 32];
    let wrapped = default_backend().wrap(&[7; 32], &key).unwrap();
    looking_glass().unwrap(&wrapped).unwrap()
}

/// Whether a waiting message has the content key that it came with.
fn has_its_key(waiting: &Waiting, position: Position) -> bool {
    let seen = |key: &Dek| looking_glass().wrap(key).unwrap();
    let kept = waiting.content_key.as_ref();
    kept.is_some_and(|kept| seen(kept) == seen(&content_key(position)))
}

fn message(position: Position, bytes: &[u8]) -> Message {
    Message {
        id: MessageId {
            device: "monitor-001".parse().unwrap(),
            boot: position.boot,
            sequence: position.sequence,
        },
        bytes: bytes.to_vec(),
        signed_hash: [0; 32],
        content_key: content_key(position),
    }
}

#[test]
fn messages_survive_a_restart_in_order_and_every_start_is_a_new_boot() {
    let directory = tempfile::tempdir().unwrap();
    for boot in 0..3 {
        let outbox = Outbox::open(directory.path()).unwrap();
        assert_eq!(outbox.boot(), boot);
        // Pushed out of order: a second process of sealing may be ahead.
        for sequence in [1, 0, 300] {
            outbox
                .push(&message(
                    position(boot, sequence),
                    &[u8::try_from(boot).unwrap(); 3],
                ))
                .unwrap();
        }
    }
    let outbox = Outbox::open(directory.path()).unwrap();
    let expected: Vec<_> = (0..3)
        .flat_map(|boot| [0, 1, 300].map(|sequence| position(boot, sequence)))
        .collect();
    assert_eq!(outbox.pending(), expected);
    let waiting = outbox.read(position(2, 300)).unwrap();
    assert_eq!(waiting.envelope, [2; 3]);
    assert!(has_its_key(&waiting, position(2, 300)));
    let mut walked = Vec::new();
    let mut at = None;
    while let Some(next) = outbox.next_after(at) {
        walked.push(next);
        at = Some(next);
    }
    assert_eq!(walked, expected);
}

#[test]
fn a_write_cut_short_is_never_offered_and_foreign_files_are_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(directory.path()).unwrap();
    outbox.push(&message(position(0, 0), b"whole")).unwrap();
    drop(outbox);
    let cut_short = directory
        .path()
        .join(format!("{}.tmp", files::waiting(position(0, 1))));
    fs::write(&cut_short, b"ha").unwrap();
    fs::write(directory.path().join("boot.tmp"), b"").unwrap();
    for foreign in [
        "notes.txt",
        "1-2.msg",
        "000000000000000A-0000000000000000.msg",
        "0000000000000000-0000000000000001.acked",
        "0000000000000000-0000000000000001.12.acked",
    ] {
        fs::write(directory.path().join(foreign), b"").unwrap();
    }
    let outbox = Outbox::open(directory.path()).unwrap();
    assert_eq!(outbox.boot(), 1);
    assert_eq!(outbox.pending(), [position(0, 0)]);
    assert!(!cut_short.exists());
    assert!(directory.path().join("notes.txt").exists());
    outbox.push(&message(position(0, 1), b"again")).unwrap();
    assert_eq!(outbox.read(position(0, 1)).unwrap().envelope, b"again");
}

#[test]
fn one_outbox_has_one_owner() {
    let directory = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(directory.path()).unwrap();
    assert!(matches!(
        Outbox::open(directory.path()),
        Err(OutboxError::InUse { .. })
    ));
    drop(outbox);
    Outbox::open(directory.path()).unwrap();
}

#[test]
fn a_position_is_taken_once() {
    let directory = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(directory.path()).unwrap();
    outbox.push(&message(position(0, 0), b"first")).unwrap();
    let refused = outbox.push(&message(position(0, 0), b"second"));
    assert!(matches!(refused, Err(OutboxError::Occupied { .. })));
    assert_eq!(outbox.read(position(0, 0)).unwrap().envelope, b"first");
}

#[test]
fn a_lost_or_damaged_boot_counter_never_repeats_a_boot_that_shows() {
    let directory = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(directory.path()).unwrap();
    outbox
        .push(&message(position(41, 0), b"of an earlier life"))
        .unwrap();
    drop(outbox);
    fs::remove_file(directory.path().join("boot")).unwrap();
    assert_eq!(Outbox::open(directory.path()).unwrap().boot(), 42);
    fs::write(directory.path().join("boot"), b"not a number").unwrap();
    assert!(matches!(
        Outbox::open(directory.path()),
        Err(OutboxError::BootCounter { .. })
    ));
}

/// A second name of a file's bytes, which stay when the first is unlinked: what a disk keeps of a removed file.
fn remains(directory: &tempfile::TempDir, name: &str) -> PathBuf {
    let kept = directory.path().join(format!("{name}-remains"));
    fs::hard_link(directory.path().join(name), &kept).unwrap();
    kept
}

#[test]
fn what_an_acknowledged_message_leaves_on_the_disk_opens_with_nothing_that_the_device_has() {
    let directory = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(directory.path()).unwrap();
    let key = || fs::read(directory.path().join(KEY_FILE)).unwrap();
    let (first, second) = (position(0, 0), position(0, 1));
    for position in [first, second] {
        outbox.push(&message(position, b"sealed")).unwrap();
    }
    let (kept, before) = (remains(&directory, &files::waiting(first)), key());
    let old_key = remains(&directory, KEY_FILE);
    outbox.remove(first).unwrap();
    assert_eq!(
        fs::read(&kept).unwrap(),
        [&[0; 40], &b"sealed"[..]].concat()
    );
    assert_eq!(key(), before, "another message waits under this key");
    assert!(has_its_key(&outbox.read(second).unwrap(), second));
    outbox.remove(second).unwrap();
    let drained = key();
    assert_ne!(drained, before);
    assert_eq!(fs::read(&old_key).unwrap(), drained, "overwritten in place");
    drop(outbox);
    // Nothing waits: what an outbox that was lost or restored may have been read with ends too.
    drop(Outbox::open(directory.path()).unwrap());
    assert_ne!(key(), drained);
    let mode = fs::metadata(directory.path().join(KEY_FILE)).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&mode.permissions());
    assert_eq!(mode & 0o777, 0o600);
}

fn instant(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn an_acknowledged_message_is_kept_through_restarts_until_its_certificate_ends_and_is_then_wiped() {
    let directory = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(directory.path()).unwrap();
    let key = || fs::read(directory.path().join(KEY_FILE)).unwrap();
    let (early, late) = (position(0, 0), position(0, 1));
    for (position, until) in [(early, 100), (late, 200)] {
        outbox.push(&message(position, b"sealed")).unwrap();
        outbox.acknowledge(position, instant(until)).unwrap();
        outbox.acknowledge(position, instant(until)).unwrap();
    }
    assert_eq!((outbox.len(), outbox.kept()), (0, 2));
    let again = outbox.push(&message(early, b"another"));
    assert!(matches!(again, Err(OutboxError::Occupied { .. })));
    let remains = [(early, 100), (late, 200)]
        .map(|(position, until)| remains(&directory, &files::kept(position, until)));
    let before = key();
    drop(outbox);

    let outbox = Outbox::open(directory.path()).unwrap();
    assert_eq!((outbox.len(), outbox.kept(), outbox.boot()), (0, 2, 1));
    assert_eq!(key(), before, "kept messages need it");
    let wiped = [&[0; 40], &b"sealed"[..]].concat();
    outbox.forget_ended(instant(100)).unwrap();
    assert_eq!(outbox.kept(), 2, "not before the end is over");
    outbox.forget_ended(instant(101)).unwrap();
    assert_eq!(outbox.kept(), 1);
    assert_eq!(fs::read(&remains[0]).unwrap(), wiped);
    assert_ne!(fs::read(&remains[1]).unwrap(), wiped);
    outbox.forget_ended(instant(201)).unwrap();
    assert_eq!(fs::read(&remains[1]).unwrap(), wiped);
    assert_ne!(key(), before, "no message is left");
    let names = files_of(directory.path());
    assert!(
        names.iter().all(|name| !name.ends_with(".acked")),
        "{names:?}"
    );
}

fn files_of(directory: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[test]
fn what_a_server_may_have_forgotten_waits_again_with_its_keys_and_in_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(directory.path()).unwrap();
    for sequence in 0..6 {
        outbox
            .push(&message(position(0, sequence), b"sealed"))
            .unwrap();
    }
    for sequence in [0, 1, 3] {
        outbox
            .acknowledge(position(0, sequence), instant(100))
            .unwrap();
    }
    outbox.remove(position(0, 2)).unwrap();
    assert_eq!(outbox.reoffer().unwrap(), 3);
    assert_eq!(outbox.reoffer().unwrap(), 0);
    drop(outbox);
    let outbox = Outbox::open(directory.path()).unwrap();
    let expected = [0, 1, 3, 4, 5].map(|sequence| position(0, sequence));
    assert_eq!(outbox.pending(), expected);
    for position in expected {
        assert!(has_its_key(&outbox.read(position).unwrap(), position));
    }
}

#[test]
fn the_oldest_that_are_kept_make_room() {
    let directory = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(directory.path()).unwrap();
    // As if they were there: ten thousand real ones take a while.
    let kept = (1..=MAX_KEPT as u64).map(|sequence| (position(0, sequence), 100));
    outbox.state().kept.extend(kept);
    let first = position(0, 0);
    outbox.push(&message(first, b"sealed")).unwrap();
    let remains = remains(&directory, &files::waiting(first));
    outbox.acknowledge(first, instant(100)).unwrap();
    assert_eq!(outbox.kept(), MAX_KEPT);
    assert_eq!(fs::read(remains).unwrap()[..40], [0; 40]);
}

/// See [`Outbox::ask_session`].
#[test]
fn a_session_is_known_only_when_the_answer_to_the_last_connect_was_heard() {
    let directory = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(directory.path()).unwrap();
    assert!(
        outbox.ask_session().unwrap(),
        "nothing is kept, so nothing can be missed"
    );
    outbox.session_heard().unwrap();
    outbox.push(&message(position(0, 0), b"sealed")).unwrap();
    outbox.acknowledge(position(0, 0), instant(100)).unwrap();
    drop(outbox);
    let outbox = Outbox::open(directory.path()).unwrap();
    assert!(
        outbox.ask_session().unwrap(),
        "the one in which it was acknowledged"
    );
    assert!(!outbox.ask_session().unwrap(), "the answer was not heard");
    drop(outbox);
    let outbox = Outbox::open(directory.path()).unwrap();
    assert!(!outbox.ask_session().unwrap());
    outbox.session_heard().unwrap();
    assert!(outbox.ask_session().unwrap());
}

#[test]
fn a_removal_cut_short_by_a_crash_is_completed_at_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(directory.path()).unwrap();
    let (acknowledged, waits) = (position(0, 0), position(0, 1));
    for position in [acknowledged, waits] {
        outbox.push(&message(position, b"sealed")).unwrap();
    }
    files::wipe(&directory.path().join(files::waiting(acknowledged))).unwrap();
    drop(outbox);
    let outbox = Outbox::open(directory.path()).unwrap();
    assert_eq!(outbox.pending(), [waits]);
    assert!(!directory.path().join(files::waiting(acknowledged)).exists());
}

#[test]
fn a_lost_key_leaves_the_messages_and_a_damaged_one_is_not_taken_for_lost() {
    let directory = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(directory.path()).unwrap();
    outbox.push(&message(position(0, 0), b"sealed")).unwrap();
    drop(outbox);
    let key = directory.path().join(KEY_FILE);
    fs::write(&key, [1; 31]).unwrap();
    assert!(matches!(
        Outbox::open(directory.path()),
        Err(OutboxError::Key { .. })
    ));
    fs::remove_file(&key).unwrap();
    let outbox = Outbox::open(directory.path()).unwrap();
    let waiting = outbox.read(position(0, 0)).unwrap();
    assert!(waiting.content_key.is_none());
    assert_eq!(waiting.envelope, b"sealed");
}

#[test]
fn a_message_that_comes_while_the_last_one_goes_keeps_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(directory.path()).unwrap();
    let pushing = outbox.clone();
    let pusher = std::thread::spawn(move || {
        for sequence in 0..60 {
            let pushed = pushing.push(&message(position(0, sequence), b"sealed"));
            pushed.unwrap();
        }
    });
    for sequence in 0..60 {
        let at = position(0, sequence);
        while !outbox.pending().contains(&at) {
            std::thread::yield_now();
        }
        assert!(has_its_key(&outbox.read(at).unwrap(), at), "{at}");
        outbox.remove(at).unwrap();
    }
    pusher.join().unwrap();
}

#[cfg(feature = "mqtt")]
#[test]
fn every_push_wakes() {
    let directory = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(directory.path()).unwrap();
    let woken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&woken);
    outbox.on_push(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    outbox.push(&message(position(0, 0), b"")).unwrap();
    outbox.push(&message(position(0, 1), b"")).unwrap();
    assert_eq!(woken.load(Ordering::Relaxed), 2);
}

#[derive(Clone, Debug)]
enum Step {
    Push(u64),
    Remove(u64),
    Acknowledge(u64),
    Reoffer,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..12_u64).prop_map(Step::Push),
        2 => (0..12_u64).prop_map(Step::Remove),
        3 => (0..12_u64).prop_map(Step::Acknowledge),
        1 => Just(Step::Reoffer),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Any sequence of pushes, removals, acknowledgements and restarts leaves exactly what two maps would hold, with its
    /// content keys.
    #[test]
    fn it_behaves_like_a_map_that_outlives_restarts(steps in proptest::collection::vec(step(), 0..40)) {
        let directory = tempfile::tempdir().unwrap();
        let mut outbox = Outbox::open(directory.path()).unwrap();
        let mut model = BTreeMap::new();
        let mut kept = BTreeMap::new();
        for (time, step) in steps.into_iter().enumerate() {
            match step {
                Step::Push(sequence) => {
                    let content = time.to_be_bytes().to_vec();
                    let pushed = outbox.push(&message(position(0, sequence), &content));
                    let is_new = !model.contains_key(&sequence) && !kept.contains_key(&sequence);
                    prop_assert_eq!(pushed.is_ok(), is_new);
                    if is_new {
                        model.insert(sequence, content);
                    }
                }
                Step::Remove(sequence) => {
                    outbox.remove(position(0, sequence)).unwrap();
                    model.remove(&sequence);
                }
                Step::Acknowledge(sequence) => {
                    outbox.acknowledge(position(0, sequence), instant(1)).unwrap();
                    kept.extend(model.remove_entry(&sequence));
                }
                Step::Reoffer => {
                    prop_assert_eq!(outbox.reoffer().unwrap(), kept.len());
                    model.append(&mut kept);
                }
                Step::Restart => {
                    let boot = outbox.boot();
                    drop(outbox);
                    outbox = Outbox::open(directory.path()).unwrap();
                    prop_assert_eq!(outbox.boot(), boot + 1);
                }
            }
            let pending: Vec<_> = outbox.pending().iter().map(|found| found.sequence).collect();
            prop_assert_eq!(pending, model.keys().copied().collect::<Vec<_>>());
            prop_assert_eq!(outbox.kept(), kept.len());
        }
        for (sequence, content) in &model {
            let waiting = outbox.read(position(0, *sequence)).unwrap();
            prop_assert_eq!(&waiting.envelope, content);
            prop_assert!(has_its_key(&waiting, position(0, *sequence)));
        }
    }
}
