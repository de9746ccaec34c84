//! Sessions and what devices are told: durable, in order, sealed, bounded; and gone from a store that goes on from an
//! older copy.

use super::backup::{backup, create as create_with_places, custody};
use super::snapshot::{ONE, beside, copy_by_hand, create, open};
use super::*;
use crate::inbox::{
    DownlinkError, KeptSession, Listener, MAX_DOWNLINK_BYTES, MAX_DOWNLINK_WAITING, SessionChange,
};

const LATER_S: i64 = 100_000;

async fn tell(store: &Store, to: u32, body: &[u8]) -> Result<i64, DownlinkError> {
    let (now, end) = (at(1), at(LATER_S));
    store.inbox.tell(&device(to), body, now, end).await
}

/// Everything that a device is told at an instant, without acknowledging any of it.
async fn told(listener: &mut Listener, now: i64) -> Vec<Vec<u8>> {
    let (mut bodies, mut last) = (Vec::new(), 0);
    while let Some((id, body)) = listener.next_after(last, at(now)).await.unwrap() {
        assert!(id > last);
        last = id;
        bodies.push(body.to_vec());
    }
    bodies
}

fn session(client: &str) -> KeptSession {
    KeptSession {
        client: client.to_owned(),
        subscriptions: vec![("v1/recipient".to_owned(), 0), ("v1/notices".to_owned(), 1)],
        expiry_s: u32::MAX,
        left_at: Some(at(7)),
    }
}

#[tokio::test]
async fn what_a_device_is_told_waits_in_order_until_it_has_it_through_restarts() {
    let site = Site::new();
    let store = site.create().await;
    let mut first = Vec::new();
    for n in 0..5_u8 {
        first.push(tell(&store, 1, &[n]).await.unwrap());
        tell(&store, 2, b"another device's").await.unwrap();
    }
    let mut listener = store.inbox.listen(&device(1));
    assert_eq!(told(&mut listener, 2).await, [[0], [1], [2], [3], [4]]);
    assert_eq!(
        told(&mut listener, 2).await.len(),
        5,
        "nothing was acknowledged"
    );
    listener.done(first[0]).await.unwrap();
    listener.done(first[2]).await.unwrap();
    // A device cannot acknowledge what another one is told.
    store.inbox.listen(&device(2)).done(first[1]).await.unwrap();

    let site = site.power_cut();
    let cut = site.open().await.unwrap();
    let mut listener = cut.inbox.listen(&device(1));
    assert_eq!(told(&mut listener, 2).await, [[1], [3], [4]]);
    for n in [1, 3, 4] {
        listener.done(first[n]).await.unwrap();
    }
    let again = tell(&cut, 1, b"next").await.unwrap();
    assert!(again > first[4], "a number is not used twice");
    assert_eq!(told(&mut listener, 2).await, [b"next"]);
    assert_eq!(told(&mut cut.inbox.listen(&device(2)), 2).await.len(), 5);
}

#[tokio::test]
async fn a_listener_hears_of_a_message_and_only_of_its_own() {
    let site = Site::new();
    let store = site.create().await;
    let mut listener = store.inbox.listen(&device(1));
    let mut other = store.inbox.listen(&device(2));
    assert_eq!(told(&mut listener, 2).await.len(), 0);
    let news = tokio::spawn(async move {
        listener.news().await;
        listener.next_after(0, at(2)).await.unwrap().unwrap().1
    });
    tell(&store, 1, b"restart at noon").await.unwrap();
    assert_eq!(*news.await.unwrap(), b"restart at noon");
    let woken = futures::FutureExt::now_or_never(other.news());
    assert!(woken.is_none(), "ten thousand others sleep on");
}

#[tokio::test]
async fn expired_messages_are_not_told_and_leave_the_disk() {
    let site = Site::new();
    let store = site.create().await;
    let inbox = &store.inbox;
    let soon = inbox.tell(&device(1), b"soon", at(1), at(10)).await;
    soon.unwrap();
    tell(&store, 1, b"later").await.unwrap();
    let refused = inbox.tell(&device(1), b"never", at(10), at(10)).await;
    assert!(matches!(refused, Err(DownlinkError::Expired)));
    let mut listener = inbox.listen(&device(1));
    assert_eq!(told(&mut listener, 9).await.len(), 2);
    assert_eq!(told(&mut listener, 10).await, [b"later"]);
    let rows = || async { inbox.downlink(&device(1), at(0)).await.unwrap().len() };
    assert_eq!(rows().await, 2);
    inbox.expire_downlink(at(10)).await.unwrap();
    assert_eq!(rows().await, 1);
    inbox.forget_downlink(&device(1)).await.unwrap();
    assert_eq!((rows().await, told(&mut listener, 2).await.len()), (0, 0));
}

#[tokio::test]
async fn a_queue_is_bounded_and_says_so() {
    let site = Site::new();
    let store = site.create().await;
    for size in [0, MAX_DOWNLINK_BYTES + 1] {
        let refused = tell(&store, 1, &vec![0; size]).await;
        assert!(matches!(refused, Err(DownlinkError::Size(found)) if found == size));
    }
    // At once, so that they meet in one transaction.
    let body = vec![7; MAX_DOWNLINK_BYTES];
    let all = (0..=MAX_DOWNLINK_WAITING).map(|_| tell(&store, 1, &body));
    let queued = futures::future::join_all(all).await;
    let refused: Vec<_> = queued.iter().filter_map(|one| one.as_ref().err()).collect();
    assert!(matches!(refused[..], [DownlinkError::Full(_)]));
    tell(&store, 2, b"another device has room").await.unwrap();
    let rows = store.inbox.downlink(&device(1), at(2)).await.unwrap();
    assert_eq!(rows.len(), MAX_DOWNLINK_WAITING);
    assert!(rows.iter().all(|row| row.bytes == body.len() as u64));
}

#[tokio::test]
async fn what_a_device_is_told_rests_sealed_and_bound_to_its_place() {
    let site = Site::new();
    let store = site.create().await;
    let secret = b"alarm limits of bed 4: 40 to 130";
    let id = tell(&store, 1, secret).await.unwrap();
    for file in files_below(&site.data()) {
        let bytes = fs::read(&file).unwrap();
        let found = bytes.windows(16).any(|window| window == &secret[..16]);
        assert!(!found, "{}", file.display());
    }
    // Moved to another device, or to another instant, it does not open.
    for moved in ["device = 'monitor-2'", "queued_at_us = queued_at_us + 1"] {
        let statement = format!("UPDATE downlink SET {moved} WHERE id = {id}");
        let mut tx = store.inbox.database().pool().begin().await.unwrap();
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .execute(&mut *tx)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let to = if moved.starts_with("device") { 2 } else { 1 };
        let copy = site.power_cut();
        let copied = copy.open().await.unwrap();
        let opened = copied.inbox.listen(&device(to)).next_after(0, at(2)).await;
        assert!(opened.is_err(), "{moved}");
        let back = "UPDATE downlink SET device = 'monitor-1'";
        let mut tx = store.inbox.database().pool().begin().await.unwrap();
        sqlx::query(back).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn sessions_are_what_was_last_said_of_them_after_a_power_cut() {
    let site = Site::new();
    let store = site.create().await;
    let (stays, goes) = (session("monitor-1"), session("monitor-2"));
    let changes = [stays.clone(), goes].map(SessionChange::Keep);
    store.inbox.change_sessions(changes.into()).await.unwrap();
    let left = |client: &str, at| SessionChange::Left {
        client: client.to_owned(),
        at,
    };
    let changes = vec![
        left("monitor-1", None),
        left("nobody", Some(at(3))),
        SessionChange::Forget {
            client: "monitor-2".to_owned(),
        },
    ];
    store.inbox.change_sessions(changes).await.unwrap();
    let site = site.power_cut();
    let cut = site.open().await.unwrap();
    let expected = KeptSession {
        left_at: None,
        ..stays
    };
    assert_eq!(cut.inbox.sessions().await.unwrap(), [expected]);
}

async fn peers(store: &Store) -> (usize, usize) {
    let mut listener = store.inbox.listen(&device(1));
    let sessions = store.inbox.sessions().await.unwrap();
    (sessions.len(), told(&mut listener, 2).await.len())
}

async fn with_peers(store: &Store) {
    let kept = vec![SessionChange::Keep(session("monitor-1"))];
    store.inbox.change_sessions(kept).await.unwrap();
    tell(store, 1, b"yesterday's command").await.unwrap();
    assert_eq!(peers(store).await, (1, 1));
}

/// Its server may have forgotten what it acknowledged, and a device learns of it by having no session.
#[tokio::test]
async fn a_restored_store_has_no_sessions_and_tells_nothing_of_yesterday() {
    let site = Site::new();
    let store = create_with_places(&site).await;
    with_peers(&store).await;
    let from = backup(&site, &store).await;
    assert_eq!(peers(&store).await, (1, 1), "the store itself goes on");
    store.close().await;
    let paths = StorePaths::new(&site.dir.path().join("restored"), Some(&site.roots_dir()));
    let restored = Store::restore(&from, &paths, custody(&site), at(50)).await;
    assert_eq!(peers(&restored.unwrap().0).await, (0, 0));
}

#[tokio::test]
async fn a_copy_that_was_joined_with_a_newer_key_snapshot_has_no_sessions_either() {
    let site = Site::new();
    let store = create(&site, ONE).await;
    with_peers(&store).await;
    let gone = patient(&store).await;
    let copy = copy_by_hand(&site);
    store.keys.erase(&gone, "e1", at(10)).await.unwrap();
    beside(&copy, &site);
    let joined = open(&copy, ONE).await.unwrap();
    assert_eq!(peers(&joined).await, (0, 0));
    // Once the join is on record, what comes after it stays.
    joined.keys.join_recorded().await.unwrap();
    with_peers(&joined).await;
    joined.close().await;
    let again = open(&copy, ONE).await.unwrap();
    assert_eq!(peers(&again).await, (1, 1));
}
