//! The router for real, and feeds over its logs.

use std::time::Duration;

use super::feed::Lagged;
use super::*;
use crate::edge::acl::Subscription;

impl Fanout {
    /// Without a router: what is [appended](Self::append) is heard.
    pub(crate) fn silent() -> Self {
        Self {
            publish: mpsc::channel(1).0,
            logs: Arc::default(),
        }
    }

    pub(crate) fn append(&self, topic: &Topic, message: &'static str) {
        self.logs.append(topic, message.into());
    }
}

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

/// One packet may name a topic thousands of times, and none of them is answered before the last is read.
#[tokio::test]
async fn whoever_asks_many_times_before_it_is_told_is_told_once_and_costs_as_much() {
    let fanout = Fanout::silent();
    fanout.append(&Topic::Recipient, "certificate");
    let mut feed = fanout.feed(FeedState::default());
    for _ in 0..10_000 {
        feed.subscribe(Subscription::Topic(Topic::Recipient), true);
    }
    let message = heard(&mut feed).await;
    assert!(message.retained && message.payload == "certificate");
    assert_eq!(feed.next(), Ok(None));
    // Asked again after that, it is told again ([MQTT-3.8.4-4]).
    feed.subscribe(Subscription::Topic(Topic::Recipient), true);
    assert!(heard(&mut feed).await.retained);
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

/// Ten thousand devices wait for notices, and none of them is woken by an alert; here are five hundred, and as many
/// displays, of which every tenth never listens.
#[tokio::test]
async fn a_thousand_feeds_hear_what_is_theirs_and_who_never_listens_costs_nobody_anything() {
    const ALERTS: u32 = 1_200; // more than a log keeps
    let fanout = start().await;
    let feed = |topic: Topic| {
        let mut feed = fanout.feed(FeedState::default());
        feed.subscribe(Subscription::Topic(topic), true);
        feed
    };
    let mut asleep: Vec<_> = (0..50).map(|_| feed(ward("icu"))).collect();
    let listeners = (0..450).map(|_| feed(ward("icu")));
    let listeners: Vec<_> = listeners
        .map(|mut feed| {
            tokio::spawn(async move {
                for number in 0..ALERTS {
                    assert_eq!(self::number(&heard(&mut feed).await), number);
                }
            })
        })
        .collect();
    let devices: Vec<_> = (0..500)
        .map(|_| {
            let mut feed = feed(Topic::Notices);
            tokio::spawn(async move { heard(&mut feed).await.payload })
        })
        .collect();
    for number in 0..ALERTS {
        let alert = Bytes::from(number.to_string());
        fanout.publish(ward("icu"), alert).await;
        tokio::task::yield_now().await;
    }
    fanout
        .publish(Topic::Notices, Bytes::from("new firmware"))
        .await;
    for listener in listeners {
        listener.await.unwrap();
    }
    for device in devices {
        assert_eq!(device.await.unwrap(), "new firmware");
    }
    assert!(asleep.iter_mut().all(|feed| feed.next() == Err(Lagged)));
}

/// The one thing that ends a router of this version from within, a topic that begins outside ASCII: nobody here can
/// publish one, so this test takes a link of its own to do it, in a process of its own.
#[test]
fn a_router_that_dies_takes_the_process_with_it() {
    const CHILD: &str = "VITALSEAL_TEST_ROUTER_DIES";
    if std::env::var_os(CHILD).is_some() {
        let router = Router::new(0, router_config()).spawn();
        let link = |name| {
            let (tx, rx, _) = LinkBuilder::new(name, router.clone()).build()?;
            Ok((tx, rx))
        };
        let _fanout = Fanout::over(link).unwrap();
        let (mut hostile, _rx) = link("hostile").unwrap();
        let _ = hostile.publish("\u{e9}", "x");
        thread::sleep(Duration::from_secs(60));
        panic!("it outlived its router");
    }
    let test = "edge::fanout::tests::a_router_that_dies_takes_the_process_with_it";
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let signal = std::os::unix::process::ExitStatusExt::signal(&child.status);
    assert_eq!(signal, Some(6), "SIGABRT: {child:?}");
}
