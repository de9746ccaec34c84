//! The server's envelope keys: which seals today, and that each ends with its epoch, cover and all.

use vitalseal_crypto::{KeyEpoch, default_backend};

use super::opening::authority;
use super::*;

#[tokio::test]
async fn envelope_keys_end_with_their_epoch_and_survive_reopening() {
    let site = Site::new();
    let store = site.create().await;
    let authority = authority();
    let mut kids = Vec::new();
    for (epoch, from, until) in [(1, 0, 100), (2, 90, 190)] {
        let epoch = KeyEpoch(epoch);
        let key = authority
            .issue_recipient(epoch, at(from), at(until), default_backend())
            .unwrap();
        kids.push(key.kid().clone());
        store
            .keys
            .put_recipient(&key, epoch, at(from), at(until))
            .await
            .unwrap();
    }
    let current = |t| {
        let keys = store.keys.clone();
        async move {
            keys.current_recipient(at(t))
                .await
                .unwrap()
                .map(|c| c.kid().clone())
        }
    };
    assert_eq!(current(50).await.as_ref(), Some(&kids[0]));
    assert_eq!(current(95).await.as_ref(), Some(&kids[1]));
    assert_eq!(current(190).await, None);
    let ring = store.keys.recipient_ring().await.unwrap();
    assert!(kids.iter().all(|kid| ring.find(kid).is_some()));
    assert_eq!(
        store
            .keys
            .destroy_recipients_ended_before(at(100))
            .await
            .unwrap(),
        []
    );
    let destroyed = store
        .keys
        .destroy_recipients_ended_before(at(101))
        .await
        .unwrap();
    assert_eq!(destroyed, [(KeyEpoch(1), kids[0].clone())]);
    let again = store.keys.destroy_recipients_ended_before(at(101)).await;
    assert_eq!(again.unwrap(), destroyed, "until it is recorded");
    store.keys.recipient_recorded(KeyEpoch(1)).await.unwrap();
    assert_eq!(
        store
            .keys
            .destroy_recipients_ended_before(at(101))
            .await
            .unwrap(),
        []
    );
    store.close().await;
    let store = site.open().await.unwrap();
    let ring = store.keys.recipient_ring().await.unwrap();
    assert!(ring.find(&kids[0]).is_none() && ring.find(&kids[1]).is_some());
    assert_eq!(store.keys.recipients().await.unwrap().len(), 2);
}

#[tokio::test]
async fn covers_of_envelope_keys_that_no_row_knows_do_not_stay_for_ever() {
    let site = Site::new();
    let store = site.create().await;
    let authority = authority();
    let put = async |epoch, from, until| {
        let epoch = KeyEpoch(epoch);
        let key = authority
            .issue_recipient(epoch, at(from), at(until), default_backend())
            .unwrap();
        let put = store.keys.put_recipient(&key, epoch, at(from), at(until));
        put.await.unwrap();
        key
    };
    let first = put(0, 0, 100).await;
    // What is put and not stored leaves nothing behind.
    let twice = store
        .keys
        .put_recipient(&first, KeyEpoch(1), at(0), at(100));
    assert!(twice.await.is_err());
    let covers = || {
        let slots = site.roots().slots().unwrap().into_iter();
        let covers = slots.filter(|slot| matches!(slot, KeySlot::Recipient(_)));
        covers.map(|slot| slot.epoch().0).collect::<Vec<_>>()
    };
    assert_eq!(covers(), [0]);

    // Made after the backup from which this registry came, and after it.
    for unknown in [1, 3] {
        let slot = KeySlot::Recipient(KeyEpoch(unknown));
        site.roots().create(slot, default_backend()).unwrap();
    }
    put(2, 90, 190).await;
    let end = async |now| {
        let ended = store.keys.destroy_recipients_ended_before(at(now));
        ended.await.unwrap();
        covers()
    };
    assert_eq!(end(150).await, [1, 2, 3], "it may still be in use");
    assert_eq!(end(191).await, [3]);
    put(4, 180, 280).await;
    assert_eq!(end(281).await, [0; 0]);
}
