//! A registry that somebody else changed, from a copy of this store: whatever it says, nothing is read by it and nothing
//! removed for it.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::*;
use crate::backup::copy_registry;
use crate::database::sqlite;

/// What another host makes of the registry: its last change is another one, and one more ends all.
const OTHER: &str = "\
    UPDATE snapshots SET change = 'of others' WHERE id = (SELECT MAX(id) FROM snapshots); \
    INSERT INTO snapshots (id, change, kind, at_us) SELECT MAX(id) + 1, 'and more', 'retention', 0 FROM snapshots; \
    UPDATE data_files SET state = 'ended', end_snapshot = (SELECT MAX(id) FROM snapshots), ended_at_us = 0 \
    WHERE state = 'live';";

fn assert_is_elsewhere(refused: &StoreError) {
    let cause = WentBack::Elsewhere.to_string();
    assert!(chain(refused).contains(&cause), "{refused:?}");
}

#[tokio::test]
async fn a_registry_that_others_changed_under_a_running_store_is_read_by_nobody() {
    let site = Site::new();
    let store = site.create().await;
    let mut ward = Ward::of(&store).await;
    let past = Past::of(&site).await;
    for _ in 0..2 {
        ward.admit(&store).await;
        ward.take(Step::Flush, &store).await.unwrap();
    }
    ward.messages(&store).await;
    past.run([OTHER.to_owned()].into_iter()).await;
    for _ in 0..2 {
        assert_is_elsewhere(&store.catalog.current().await.unwrap_err());
        let who = authorized(&[&ward.patients[0]]);
        assert_is_elsewhere(&store.cut(&who).await.map(drop).unwrap_err());
        assert_is_elsewhere(&ward.take(Step::Flush, &store).await.unwrap_err());
    }
}

#[tokio::test]
async fn whenever_others_change_the_registry_no_file_is_removed_that_is_live_here() {
    let site = Site::with_file();
    let store = site.create().await;
    let mut ward = Ward::of(&store).await;
    let mut past = Past::of(&site).await;
    let others = sqlite::options(&site.paths().registry()).busy_timeout(Duration::ZERO);
    let mut others = others.connect().await.unwrap();
    let mut changed = 0;
    for polls in 0..40 {
        // One that no snapshot in memory has yet.
        ward.admit(&store).await;
        ward.take(Step::Flush, &store).await.unwrap();
        let (here, there) = (past.save().await, site.parquet_files());
        let mut collect = pin!(ward.take(Step::Collect, &store));
        let mut left = polls;
        let done = poll_fn(|context| match collect.as_mut().poll(context) {
            Poll::Pending if left > 0 => {
                left -= 1;
                Poll::Pending
            }
            polled => Poll::Ready(polled.is_ready()),
        });
        let done = done.await;
        // Fails in the middle of a transaction that writes.
        let statements = AssertSqlSafe(format!("BEGIN IMMEDIATE; {OTHER} COMMIT"));
        let swap = sqlx::raw_sql(statements).execute(&mut others).await;
        changed += usize::from(swap.is_ok());
        if !done && let Err(refused) = collect.await {
            let is_it = matches!(refused, StoreError::RegistryBehind { .. });
            assert!(is_it, "{}", chain(&refused));
        }
        assert_eq!(site.parquet_files(), there, "after {polls} polls");
        past.bring_back(here).await;
    }
    assert!(changed > 10, "{changed}");
    assert_eq!(ward.messages(&store).await.len(), 80);
}

#[tokio::test]
async fn a_backup_takes_no_registry_that_went_back_after_the_inbox_was_copied() {
    let site = Site::new();
    let store = site.create().await;
    let mut ward = Ward::of(&store).await;
    let mut past = Past::of(&site).await;
    let earlier = past.save().await;
    ward.admit(&store).await;
    ward.take(Step::Flush, &store).await.unwrap();
    let now = past.save().await;
    let settled = store.catalog.settle().await.unwrap();
    let copy = async |name| {
        let to = site.dir.path().join(name);
        copy_registry(store.registry.database(), &settled, &to).await
    };
    past.bring_back(earlier).await;
    let refused = copy("earlier").await.unwrap_err();
    let meanwhile = WentBack::Meanwhile.to_string();
    assert!(chain(&refused).contains(&meanwhile), "{refused:?}");
    past.bring_back(now).await;
    copy("present").await.unwrap();
}
