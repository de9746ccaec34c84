//! The sessions of devices on disk: `session present` is true after a restart, and truthfully so.
//!
//! | Of a session | After a restart |
//! |---|---|
//! | that there is one | known: it is written before the CONNACK is sent |
//! | subscriptions and their QoS | as they were: they are written before the SUBACK is sent |
//! | what the device was told and did not acknowledge | comes again: the downlink is a queue on disk |
//! | QoS 2 identifiers | gone: a PUBREL is answered, and a repeated PUBLISH is a duplicate, because the pipeline knows messages by their own counters |
//! | when it was left | as it was, but up to half a minute too late after a crash |
//!
//! Displays and services have none: what they missed meanwhile is gone with the process, and `session present = 0` tells
//! them. Nor has a store that was restored from a backup, or joined with a newer key snapshot: its server may have
//! forgotten what it acknowledged, and that is how a device learns of it.
//!
//! A session is written when it begins and when it changes. Ten thousand devices that come back with what they had cost
//! nothing but a row each in the next sweep, which also removes what has expired.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, RwLock};
use tokio::time::Instant;
use vitalseal_storage::{Clock, Inbox, InboxError, KeptSession, SessionChange};

use super::acl::Permissions;
use super::closing::Closing;
use super::directory::Directory;
use super::fanout::FeedState;
use super::identity::{ClientId, Principal};
use super::packet::SESSION_NEVER_EXPIRES;
use super::session::SessionState;
use super::subscriptions::{Granted, Heard};

/// How often sessions that expired are looked for, and those that were left or taken up are written.
const SWEEP: Duration = Duration::from_secs(30);

/// Rows in one transaction of a sweep: a few milliseconds, which acknowledgements wait for.
const SWEPT_AT_ONCE: usize = 256;

/// Subscriptions as they are written: topic filter, and the byte of a v5 SUBSCRIBE (3.8.3.1) that grants the same.
pub(crate) type Kept = Vec<(String, u8)>;

/// What the inbox knows of the sessions of devices, and what it is still to be told.
#[derive(Debug)]
pub(crate) struct KeptSessions {
    inbox: Inbox,
    clock: Arc<dyn Clock>,
    rows: Mutex<HashMap<String, Row>>,
    /// Held by a sweep alone, and by everybody else together: what a sweep says of a session must not come after what its
    /// connection said since.
    sweeping: RwLock<()>,
    /// Rung when a sweep should not wait.
    hurry: Notify,
}

#[derive(Debug)]
struct Row {
    subscriptions: Kept,
    expiry_s: u32,
    left_at: Option<Timestamp>,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Written,
    /// It was left, or taken up, since it was written.
    Moved,
    /// It was left with another expiry than was written.
    Altered,
    /// It ended, and the inbox does not know.
    Ended,
}

impl Row {
    fn is_expired(&self, now: Timestamp) -> bool {
        let Some(left_at) = self.left_at else {
            return false;
        };
        self.expiry_s != SESSION_NEVER_EXPIRES
            && left_at.duration_until(now).as_secs() >= i64::from(self.expiry_s)
    }

    /// What the inbox is to be told.
    fn news(&self, client: &str, now: Timestamp) -> Option<SessionChange> {
        let client = client.to_owned();
        match self.state {
            State::Ended => Some(SessionChange::Forget { client }),
            _ if self.is_expired(now) => Some(SessionChange::Forget { client }),
            State::Moved => Some(SessionChange::Left {
                client,
                at: self.left_at,
            }),
            State::Altered => Some(SessionChange::Keep(KeptSession {
                client,
                subscriptions: self.subscriptions.clone(),
                expiry_s: self.expiry_s,
                left_at: self.left_at,
            })),
            State::Written => None,
        }
    }
}

impl KeptSessions {
    /// Whoever was connected when the process before ended has left now.
    ///
    /// # Errors
    /// When the inbox cannot be read.
    pub(crate) async fn load(inbox: Inbox, clock: Arc<dyn Clock>) -> Result<Self, InboxError> {
        let now = clock.now();
        let kept = inbox.sessions().await?;
        let rows = kept.into_iter().map(|session| {
            let row = Row {
                subscriptions: session.subscriptions,
                expiry_s: session.expiry_s,
                left_at: Some(session.left_at.unwrap_or(now)),
                state: match session.left_at {
                    Some(_) => State::Written,
                    None => State::Moved,
                },
            };
            (session.client, row)
        });
        Ok(Self {
            rows: Mutex::new(rows.collect()),
            inbox,
            clock,
            sweeping: RwLock::default(),
            hurry: Notify::new(),
        })
    }

    /// The session that a client takes up: the one in memory, or else the one on disk, unless it expired. A `clean` start
    /// ends it, durably, before the client hears of it ([MQTT-3.1.2-6], [MQTT-3.1.2-4] in v5).
    ///
    /// # Errors
    /// [`Closing::Storage`]
    pub(crate) async fn take_up(
        &self,
        principal: &Principal,
        permissions: &Permissions,
        clean: bool,
        parked: Option<SessionState>,
    ) -> Result<Option<SessionState>, Closing> {
        let client = principal.client_id();
        let _turn = self.sweeping.read().await;
        let on_disk = {
            let mut rows = self.rows();
            match rows.get_mut(client.as_str()) {
                None => None,
                Some(row)
                    if clean || row.state == State::Ended || row.is_expired(self.clock.now()) =>
                {
                    row.state = State::Ended;
                    None
                }
                Some(row) => {
                    row.left_at = None;
                    if row.state == State::Written {
                        row.state = State::Moved;
                    }
                    Some(restored(&row.subscriptions, permissions))
                }
            }
        };
        if on_disk.is_none() {
            self.forget(client.as_str()).await?;
        }
        Ok(parked.filter(|_| !clean).or(on_disk))
    }

    /// What a client's session is now; durable when this returns. Nothing is written when nothing changed.
    ///
    /// # Errors
    /// [`Closing::Storage`]; the client must not be told then.
    pub(crate) async fn keep(
        &self,
        principal: &Principal,
        subscriptions: Kept,
        expiry_s: u32,
    ) -> Result<(), Closing> {
        let client = principal.client_id();
        let _turn = self.sweeping.read().await;
        if principal.device().is_none() || expiry_s == 0 {
            return self.forget(client.as_str()).await;
        }
        let unchanged = match self.rows().get(client.as_str()) {
            Some(row) => {
                matches!(row.state, State::Written | State::Moved)
                    && row.subscriptions == subscriptions
                    && row.expiry_s == expiry_s
            }
            None => false,
        };
        if unchanged {
            return Ok(());
        }
        let session = KeptSession {
            client: client.as_str().to_owned(),
            subscriptions,
            expiry_s,
            left_at: None,
        };
        self.write(vec![SessionChange::Keep(session.clone())])
            .await?;
        let row = Row {
            subscriptions: session.subscriptions,
            expiry_s,
            left_at: None,
            state: State::Written,
        };
        self.rows().insert(session.client, row);
        Ok(())
    }

    /// A connection ended; its session lasts for `expiry_s` from now, which a DISCONNECT may have changed. Written by the
    /// next sweep, and at once when it ended with the connection.
    pub(crate) fn leave(&self, client: &ClientId, expiry_s: u32) {
        if let Some(row) = self.rows().get_mut(client.as_str()) {
            row.left_at = Some(self.clock.now());
            if expiry_s == 0 {
                row.state = State::Ended;
                self.hurry.notify_one();
            } else if expiry_s != row.expiry_s {
                row.state = State::Altered;
                row.expiry_s = expiry_s;
            } else if row.state == State::Written {
                row.state = State::Moved;
            }
        }
    }

    /// Sweeps for as long as the edge serves: sessions that expired go, from memory and disk, and so does what devices
    /// were told and did not fetch in time.
    pub(crate) async fn run(&self, directory: &Directory) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(SWEEP) => {}
                () = self.hurry.notified() => {}
            }
            directory.drop_expired(Instant::now());
            self.sweep().await;
        }
    }

    /// Writes what is not written.
    pub(crate) async fn sweep(&self) {
        let now = self.clock.now();
        while self.sweep_some(now).await == SWEPT_AT_ONCE {}
        if let Err(error) = self.inbox.expire_downlink(now).await {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "what expired of messages to devices was not removed");
        }
    }

    /// How many were written; what fails is left to the next sweep.
    async fn sweep_some(&self, now: Timestamp) -> usize {
        let _turn = self.sweeping.write().await;
        let changes: Vec<_> = {
            let rows = self.rows();
            let news = rows
                .iter()
                .filter_map(|(client, row)| row.news(client, now));
            news.take(SWEPT_AT_ONCE).collect()
        };
        if changes.is_empty() || self.write(changes.clone()).await.is_err() {
            return 0;
        }
        let (mut rows, written) = (self.rows(), changes.len());
        for change in changes {
            match change {
                SessionChange::Left { client, at }
                | SessionChange::Keep(KeptSession {
                    client,
                    left_at: at,
                    ..
                }) => {
                    let row = rows.get_mut(&client);
                    let as_it_was = |row: &&mut Row| row.state != State::Ended && row.left_at == at;
                    if let Some(row) = row.filter(as_it_was) {
                        row.state = State::Written;
                    }
                }
                SessionChange::Forget { client } => drop(rows.remove(&client)),
            }
        }
        written
    }

    async fn forget(&self, client: &str) -> Result<(), Closing> {
        if !self.rows().contains_key(client) {
            return Ok(());
        }
        let gone = SessionChange::Forget {
            client: client.to_owned(),
        };
        self.write(vec![gone]).await?;
        self.rows().remove(client);
        Ok(())
    }

    async fn write(&self, changes: Vec<SessionChange>) -> Result<(), Closing> {
        self.inbox.change_sessions(changes).await.map_err(|error| {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "what became of sessions could not be made durable");
            Closing::Storage
        })
    }

    fn rows(&self) -> MutexGuard<'_, HashMap<String, Row>> {
        // Rows change one by one, and nothing in between can panic.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session as it was written, as far as its client may still hear what it subscribed to.
fn restored(subscriptions: &Kept, permissions: &Permissions) -> SessionState {
    let granted = subscriptions.iter().filter_map(|(filter, options)| {
        let granted = Granted::from_options(*options);
        Some((permissions.subscription(filter)?, granted))
    });
    let granted: BTreeMap<_, _> = granted.collect();
    SessionState {
        heard: Heard {
            feed: FeedState::since_the_start(granted.keys().cloned().collect()),
            granted,
            ..Heard::default()
        },
        ..SessionState::default()
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use tempfile::TempDir;
    use vitalseal_crypto::Thumbprint;
    use vitalseal_storage::{FileRootProvider, Store, StorePaths, SystemClock};

    use super::*;

    #[derive(Debug, Default)]
    struct Hand(Mutex<SignedDuration>);

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH + *self.0.lock().unwrap()
        }
    }

    fn device(number: usize) -> Principal {
        Principal::Device {
            id: format!("mon-{number}").parse().unwrap(),
            certificate: Thumbprint::from_bytes([7; 32]),
        }
    }

    fn permissions(principal: &Principal) -> Permissions {
        Permissions::of_device(principal.device().unwrap())
    }

    async fn store(directory: &TempDir) -> Store {
        let (data, roots) = (directory.path().join("data"), directory.path().join("root"));
        let paths = StorePaths::new(&data, Some(&roots));
        let roots = Arc::new(FileRootProvider::new(&roots));
        Store::create(&paths, roots, SystemClock.now())
            .await
            .unwrap()
    }

    /// v5 3.14.2.2.2: a DISCONNECT has the last word on how long its session is kept.
    #[tokio::test]
    async fn a_session_is_kept_for_as_long_as_its_client_said_last_also_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory).await;
        let clock = Arc::new(Hand::default());
        let at = |second| *clock.0.lock().unwrap() = SignedDuration::from_secs(second);
        let load = || KeptSessions::load(store.inbox.clone(), Arc::clone(&clock) as _);
        let taken_up = async |kept: &KeptSessions, number| {
            let (device, clean) = (device(number), false);
            let permissions = permissions(&device);
            let session = kept.take_up(&device, &permissions, clean, None).await;
            session.unwrap().is_some()
        };
        for is_restarted in [false, true] {
            at(0);
            let mut kept = load().await.unwrap();
            for (number, expiry_s) in [(1, 10), (2, 1_000), (3, 10)] {
                let device = device(number);
                kept.keep(&device, Kept::new(), 100).await.unwrap();
                kept.leave(&device.client_id(), expiry_s);
            }
            // Back in time, and left as it was meant at first.
            assert!(taken_up(&kept, 3).await);
            kept.keep(&device(3), Kept::new(), 100).await.unwrap();
            kept.leave(&device(3).client_id(), 100);
            kept.sweep().await;
            if is_restarted {
                kept = load().await.unwrap();
            }
            at(50);
            assert!(!taken_up(&kept, 1).await, "{is_restarted}");
            assert!(taken_up(&kept, 3).await, "{is_restarted}");
            at(500);
            assert!(taken_up(&kept, 2).await, "{is_restarted}");
        }
    }

    /// More than one step of a sweep.
    const DEVICES: usize = 2 * SWEPT_AT_ONCE + 1;

    #[tokio::test]
    async fn a_sweep_says_of_everybody_who_left_and_who_is_back_and_ends_what_expired() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory).await;
        let clock = Arc::new(Hand::default());
        let at = |second| *clock.0.lock().unwrap() = SignedDuration::from_secs(second);
        let load = || KeptSessions::load(store.inbox.clone(), Arc::clone(&clock) as _);
        let subscriptions: Kept = vec![("v1/notices".to_owned(), 1)];
        let mut changes = Vec::new();
        for number in 0..DEVICES {
            let client = device(number).client_id();
            changes.push(SessionChange::Keep(KeptSession {
                client: client.as_str().to_owned(),
                subscriptions: subscriptions.clone(),
                expiry_s: 60,
                left_at: None,
            }));
        }
        store.inbox.change_sessions(changes).await.unwrap();

        // Nobody is connected when a process begins, whatever the one before wrote.
        at(100);
        let kept = load().await.unwrap();
        let back = device(1);
        let resumed = kept.take_up(&back, &permissions(&back), false, None).await;
        assert_eq!(resumed.unwrap().unwrap().heard.granted.len(), 1);
        kept.leave(&device(2).client_id(), 0);
        kept.sweep().await;
        let left = async |client: &str| {
            let sessions = store.inbox.sessions().await.unwrap();
            let found = sessions.iter().find(|session| session.client == client);
            (sessions.len(), found.map(|session| session.left_at))
        };
        let then = Timestamp::from_second(100).unwrap();
        assert_eq!(left("mon-0").await, (DEVICES - 1, Some(Some(then))));
        assert_eq!(left("mon-1").await, (DEVICES - 1, Some(None)));
        assert_eq!(left("mon-2").await, (DEVICES - 1, None));

        at(159);
        kept.sweep().await;
        assert_eq!(left("mon-0").await.0, DEVICES - 1);
        at(160);
        let late = device(0);
        let resumed = kept.take_up(&late, &permissions(&late), false, None).await;
        assert!(resumed.unwrap().is_none());
        kept.sweep().await;
        assert_eq!(
            left("mon-1").await,
            (1, Some(None)),
            "whoever is here stays"
        );
    }
}
