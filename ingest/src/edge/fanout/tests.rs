//! The router for real, and feeds over its logs.

use std::time::Duration;

use super::*;
use crate::edge::acl::Subscription;

async fn start() -> Fanout {
    tokio::task::spawn_blocking(Fanout::start)
        .await
        .unwrap()
        .unwrap()
}

/// Waits for the next message.
async fn heard(feed: &mut Feed) -> Message {
    let next = async {
        loop {
            if let Some(message) = feed.next().unwrap() {
                return message;
            }
            feed.news().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), next)
        .await
        .unwrap()
}

fn ward(name: &str) -> Topic {
    Topic::Alerts(name.parse().unwrap())
}

fn number(message: &Message) -> u32 {
    std::str::from_utf8(&message.payload)
        .unwrap()
        .parse()
        .unwrap()
}

#[tokio::test]
async fn every_subscriber_hears_every_message_once_and_in_order() {
    let fanout = start().await;
    let mut one = fanout.feed(FeedState::default());
    let mut all = fanout.feed(FeedState::default());
    one.subscribe(Subscription::Topic(ward("icu")), true);
    all.subscribe(Subscription::AllAlerts, true);
    // More than the router's own log and window hold, so that pausing and resuming is exercised too.
    for round in 0..500_u32 {
        let message = Bytes::from(round.to_string());
        fanout.publish(ward("er"), message.clone()).await;
        fanout.publish(ward("icu"), message).await;
    }
    for round in 0..500 {
        assert_eq!(number(&heard(&mut one).await), round);
    }
    let mut both = [0, 0];
    for _ in 0..1_000 {
        let message = heard(&mut all).await;
        let place = usize::from(message.topic == ward("icu"));
        assert_eq!(number(&message), both[place]);
        both[place] += 1;
    }
    assert_eq!(both, [500, 500]);
    assert_eq!(one.next(), Ok(None));
}

#[tokio::test]
async fn a_retained_topic_tells_its_newest_message_to_whoever_asks() {
    let fanout = start().await;
    let mut early = fanout.feed(FeedState::default());
    early.subscribe(Subscription::Topic(Topic::Recipient), true);
    for round in 0..3_u32 {
        let message = Bytes::from(round.to_string());
        fanout.publish(Topic::Recipient, message).await;
    }
    while number(&heard(&mut early).await) != 2 {}

    let mut late = fanout.feed(FeedState::default());
    late.subscribe(Subscription::Topic(Topic::Recipient), true);
    let message = heard(&mut late).await;
    assert!(message.retained && number(&message) == 2);
    assert_eq!(late.next(), Ok(None), "told once");
    late.subscribe(Subscription::Topic(Topic::Recipient), false);
    assert_eq!(late.next(), Ok(None), "not asked for");
}

#[tokio::test]
async fn a_session_that_was_away_hears_what_it_missed_or_that_it_missed_too_much() {
    let fanout = start().await;
    let mut feed = fanout.feed(FeedState::default());
    feed.subscribe(Subscription::Topic(ward("icu")), true);
    fanout.publish(ward("icu"), Bytes::from("0")).await;
    assert_eq!(number(&heard(&mut feed).await), 0);
    let away = feed.into_state();
    for round in 1..=3_u32 {
        let message = Bytes::from(round.to_string());
        fanout.publish(ward("icu"), message).await;
    }
    let mut feed = fanout.feed(away.clone());
    for round in 1..=3 {
        assert_eq!(number(&heard(&mut feed).await), round);
    }
    for round in 0..2_000_u32 {
        let message = Bytes::from(round.to_string());
        fanout.publish(ward("icu"), message).await;
    }
    let mut behind = fanout.feed(away);
    let lagged = async {
        while behind.next().is_ok() {
            behind.news().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), lagged)
        .await
        .unwrap();
}
