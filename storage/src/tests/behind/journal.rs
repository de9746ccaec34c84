//! What stands in the journal, what is missing in it, and what can be made again then.

use super::*;
use crate::check::CheckOptions;

/// The journal, as it stands in the inbox.
async fn journal(store: &Store) -> Vec<(i64, String, Option<String>)> {
    let journal = sqlx::query_as("SELECT id, change, body FROM changes ORDER BY id");
    journal
        .fetch_all(store.inbox.database().pool())
        .await
        .unwrap()
}

async fn forget(store: &Store, statement: &'static str) {
    let pool = store.inbox.database().pool();
    sqlx::raw_sql(statement).execute(pool).await.unwrap();
}

#[tokio::test]
async fn a_change_that_was_made_and_not_noted_is_noted_whole_and_made_again() {
    let site = Site::new();
    let store = site.create().await;
    let mut ward = Ward::of(&store).await;
    let mut past = Past::of(&site).await;
    let before = past.save().await;
    ward.admit(&store).await;
    ward.take(Step::Flush, &store).await.unwrap();
    let earlier = past.save().await;
    ward.admit(&store).await;
    ward.take(Step::Flush, &store).await.unwrap();
    // As a crash leaves it between the two.
    forget(&store, "DELETE FROM changes WHERE id = 2").await;
    store.close().await;
    let store = site.open().await.unwrap();
    ward.take(Step::Compact, &store).await.unwrap();
    forget(&store, "DELETE FROM changes WHERE id = 3").await;
    store.close().await;
    let store = site.open().await.unwrap();
    let later = past.save().await;
    ward.admit(&store).await;
    ward.take(Step::Flush, &store).await.unwrap();
    let expected = ward.messages(&store).await;
    let noted = journal(&store).await;
    let is_noted: Vec<bool> = noted.iter().map(|(.., body)| body.is_some()).collect();
    assert_eq!(is_noted, [false, true, true, true, true]);
    store.close().await;
    for state in [before, later, earlier] {
        past.bring_back(state).await;
        let copy = site.power_cut();
        assert_lives_on(&copy, &ward, &expected, &format!("state {state}")).await;
    }
}

#[tokio::test]
async fn an_inbox_without_a_journal_begins_one_with_what_the_registry_has() {
    let site = Site::new();
    let store = site.create().await;
    let mut ward = Ward::of(&store).await;
    let mut past = Past::of(&site).await;
    let mut states = Vec::new();
    for _ in 0..3 {
        states.push(past.save().await);
        ward.admit(&store).await;
        ward.take(Step::Flush, &store).await.unwrap();
    }
    // As version 3 left it.
    forget(&store, "DROP TABLE changes; PRAGMA user_version = 3").await;
    let expected = ward.messages(&store).await;
    store.close().await;
    let store = site.open().await.unwrap();
    let [(3, _, None)] = journal(&store).await[..] else {
        panic!("{:?}", journal(&store).await);
    };
    let last = past.save().await;
    ward.admit(&store).await;
    ward.take(Step::Flush, &store).await.unwrap();
    assert_eq!(ward.messages(&store).await.len(), expected.len() + 2);
    let expected = ward.messages(&store).await;
    store.close().await;
    for earlier in states {
        past.bring_back(earlier).await;
        let refused = site.open().await.unwrap_err();
        assert!(
            chain(&refused).contains(&WentBack::TooFar.to_string()),
            "{refused:?}"
        );
    }
    past.bring_back(last).await;
    assert_lives_on(&site, &ward, &expected, "from the first on").await;
}

#[tokio::test]
async fn what_a_repair_noted_as_lost_stays_on_record_and_so_it_does_if_only_the_registry_noted_it()
{
    for noted in [true, false] {
        let site = Site::new();
        let store = site.create().await;
        let mut ward = Ward::of(&store).await;
        let mut past = Past::of(&site).await;
        ward.admit(&store).await;
        ward.take(Step::Flush, &store).await.unwrap();
        ward.admit(&store).await;
        ward.take(Step::Flush, &store).await.unwrap();
        let earlier = past.save().await;
        let file = store.catalog.files().await.unwrap()[0].path.to_string();
        fs::remove_file(site.data().join("parquet").join(&file)).unwrap();
        let options = CheckOptions {
            keys: true,
            authorities: Vec::new(),
        };
        let report = store.check(&options, &Unwatched).await.unwrap();
        let given_up = [file].into();
        let repair = store.repair(&report, &given_up, at(ward.now + 20));
        let losses = repair.await.unwrap().losses;
        assert_eq!(losses.len(), 1);
        let expected = ward.messages(&store).await;
        let mut store = store;
        if !noted {
            forget(&store, "DELETE FROM changes WHERE id = 3").await;
            store.close().await;
            store = site.open().await.unwrap();
        }
        past.bring_back(earlier).await;
        let now = store.catalog.current().await.unwrap();
        assert_eq!(*now.losses, losses[..], "{noted}");
        assert_eq!(store.catalog.losses().await.unwrap(), losses);
        store.close().await;
        past.bring_back(earlier).await;
        assert_lives_on(&site, &ward, &expected, "a loss").await;
        let store = site.open().await.unwrap();
        assert_eq!(store.catalog.losses().await.unwrap(), losses);
    }
}

#[tokio::test]
async fn the_change_that_the_journal_ends_with_is_not_forgotten_while_another_is_not_noted() {
    let site = Site::new();
    let store = site.create().await;
    let mut ward = Ward::of(&store).await;
    for _ in 0..3 {
        ward.admit(&store).await;
        ward.take(Step::Flush, &store).await.unwrap();
    }
    let expected = ward.messages(&store).await;
    forget(&store, "DELETE FROM changes WHERE id = 3").await;
    store.catalog.forget_changes(at(10_000)).await.unwrap();
    let kept = "SELECT id FROM snapshots ORDER BY id";
    let kept: Vec<i64> = sqlx::query_scalar(kept)
        .fetch_all(site.database().await.pool())
        .await
        .unwrap();
    assert_eq!(kept.last(), Some(&3));
    store.close().await;
    assert_lives_on(&site, &ward, &expected, "after a week").await;
    assert_eq!(kept, [2, 3]);
}

#[tokio::test]
async fn a_registry_from_before_the_first_change_of_the_journal_is_refused() {
    let site = Site::new();
    let store = site.create().await;
    let mut ward = Ward::of(&store).await;
    let mut past = Past::of(&site).await;
    let mut states = Vec::new();
    for _ in 0..3 {
        ward.admit(&store).await;
        ward.take(Step::Flush, &store).await.unwrap();
        states.push(past.save().await);
    }
    let expected = ward.messages(&store).await;
    forget(&store, "DELETE FROM changes WHERE id < 2").await;
    store.close().await;
    past.bring_back(states[0]).await;
    let refused = site.open().await.unwrap_err();
    assert!(
        chain(&refused).contains(&WentBack::TooFar.to_string()),
        "{refused:?}"
    );
    past.bring_back(states[1]).await;
    assert_lives_on(&site, &ward, &expected, "the first that is kept").await;
}
