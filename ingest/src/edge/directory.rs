//! Who is connected, and the sessions of those who are not.
//!
//! A client has one connection. The next one closes the one before and waits until it has let go, so that a session is
//! never in two hands; its state passes through here.
//!
//! What is here lives in memory; `kept` says what of a device's session outlives the process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use vitalseal_storage::UserName;

use super::closing::Closing;
use super::identity::{ClientId, Principal};
use super::packet::SESSION_NEVER_EXPIRES;
use super::session::SessionState;

/// Live connections and parked sessions, by client.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    next_ticket: u64,
    live: HashMap<ClientId, Live>,
    parked: HashMap<ClientId, Parked>,
}

#[derive(Debug)]
struct Live {
    ticket: u64,
    principal: Principal,
    close: Arc<watch::Sender<Option<Closing>>>,
}

#[derive(Debug)]
struct Parked {
    state: SessionState,
    /// `None`: never.
    expires_at: Option<Instant>,
    /// The person whose client it is: the one kind of client that names itself.
    person: Option<UserName>,
}

/// Connections of one person at once: a desk, a tablet, a phone, and some that the server does not know to be gone yet.
const CONNECTIONS_PER_PERSON: usize = 8;

/// Sessions of one person that wait at once; the one that expires first makes room. Devices, displays and services have one
/// each, so that what is enrolled bounds theirs.
const PARKED_PER_PERSON: usize = 8;

/// A connection's right to its client's session. The client counts as connected until this is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    directory: Arc<Directory>,
    client: ClientId,
    number: u64,
    close: watch::Receiver<Option<Closing>>,
    /// What the principal came with holds until then; `None`: nothing that ends by itself.
    ends_at: Option<Instant>,
}

impl Directory {
    /// Makes the caller the client's one connection. Closes the one before, and gives it up after `patience`. `None` when
    /// its person has as many connections as may be; then nothing is closed.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        principal: &Principal,
        patience: Duration,
    ) -> Option<Ticket> {
        let deadline = Instant::now() + patience;
        let client = principal.client_id();
        loop {
            let live = self.entries().live.get(&client).map(Live::closer);
            // One that does not let go is left behind.
            let Some(before) = live.filter(|_| Instant::now() < deadline) else {
                return self.admit(client, principal);
            };
            before.send_replace(Some(Closing::TakenOver));
            // Resolves when the old connection has dropped its ticket, state parked. Another newcomer may be quicker than
            // we are: look again.
            let _ = timeout_at(deadline, before.closed()).await;
        }
    }

    fn admit(self: &Arc<Self>, client: ClientId, principal: &Principal) -> Option<Ticket> {
        let (close, receiver) = watch::channel(None);
        let mut entries = self.entries();
        // Under the lock that lets them in, or whoever knocks many times at once would be counted too late.
        if entries.others_of(principal, &client) >= CONNECTIONS_PER_PERSON {
            return None;
        }
        entries.next_ticket += 1;
        let number = entries.next_ticket;
        let live = Live {
            ticket: number,
            principal: principal.clone(),
            close: Arc::new(close),
        };
        if let Some(before) = entries.live.insert(client.clone(), live) {
            before.close.send_replace(Some(Closing::TakenOver));
        }
        Some(Ticket {
            directory: Arc::clone(self),
            client,
            number,
            close: receiver,
            ends_at: None,
        })
    }

    /// Who is connected under this name, if anybody is.
    pub(crate) fn connected_as(&self, client: &ClientId) -> Option<Principal> {
        let entries = self.entries();
        entries.live.get(client).map(|live| live.principal.clone())
    }

    /// Everybody who is connected now.
    pub(crate) fn connected(&self) -> Vec<Principal> {
        let entries = self.entries();
        let live = entries.live.values();
        live.map(|live| live.principal.clone()).collect()
    }

    /// Forgets the sessions that expired.
    pub(crate) fn drop_expired(&self, now: Instant) {
        let mut entries = self.entries();
        let lasts = |parked: &Parked| parked.expires_at.is_none_or(|at| now < at);
        entries.parked.retain(|_, parked| lasts(parked));
    }

    /// Asks this principal's connection to close, and forgets its session. `false`, and nothing is done, when another one
    /// has its name by now: the same client with a new certificate or a new token.
    pub(crate) fn revoke(&self, principal: &Principal) -> bool {
        let client = principal.client_id();
        let mut entries = self.entries();
        match entries.live.get(&client) {
            Some(live) if live.principal != *principal => return false,
            Some(live) => drop(live.close.send_replace(Some(Closing::Revoked))),
            None => {}
        }
        entries.parked.remove(&client);
        true
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // Entries change one by one, and nothing in between can panic.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    fn closer(&self) -> Arc<watch::Sender<Option<Closing>>> {
        Arc::clone(&self.close)
    }
}

impl Entries {
    /// How many connections a person has under other names than this one; of whoever is no person there are none.
    fn others_of(&self, principal: &Principal, client: &ClientId) -> usize {
        let Principal::Person { who, .. } = principal else {
            return 0;
        };
        let others = self.live.iter().filter(|(other, live)| {
            matches!(&live.principal, Principal::Person { who: one, .. } if one.user == who.user)
                && *other != client
        });
        others.count()
    }

    fn make_room(&mut self, person: &UserName) {
        let waits = |(_, parked): &(&ClientId, &Parked)| parked.person.as_ref() == Some(person);
        let theirs = self.parked.iter().filter(waits);
        if theirs.clone().count() < PARKED_PER_PERSON {
            return;
        }
        let first =
            theirs.min_by_key(|(_, parked)| (parked.expires_at.is_none(), parked.expires_at));
        if let Some(client) = first.map(|(client, _)| client.clone()) {
            self.parked.remove(&client);
        }
    }
}

impl Ticket {
    /// The session that the client left here, unless it expired. What is taken is not here any more.
    pub(crate) fn take_parked(&self, now: Instant) -> Option<SessionState> {
        let mut entries = self.directory.entries();
        let parked = entries.parked.remove(&self.client)?;
        parked
            .expires_at
            .is_none_or(|at| now < at)
            .then_some(parked.state)
    }

    /// Leaves the session here for `expiry` seconds; 0 ends it. `false`, and nothing is left, when another connection has
    /// taken its place.
    pub(crate) fn park(&self, state: SessionState, expiry: u32, now: Instant) -> bool {
        let expires_at =
            (expiry != SESSION_NEVER_EXPIRES).then(|| now + Duration::from_secs(u64::from(expiry)));
        let mut entries = self.directory.entries();
        let own = entries.live.get(&self.client);
        let Some(own) = own.filter(|live| live.ticket == self.number) else {
            return false;
        };
        let person = match &own.principal {
            Principal::Person { who, .. } => Some(who.user.clone()),
            _ => None,
        };
        if expiry == 0 {
            return true;
        }
        if let Some(person) = &person {
            entries.make_room(person);
        }
        let parked = Parked {
            state,
            expires_at,
            person,
        };
        entries.parked.insert(self.client.clone(), parked);
        true
    }

    /// The connection has to close at this instant: this one, whoever may have its name by then.
    pub(crate) fn end_at(&mut self, at: Instant) {
        self.ends_at = Some(at);
    }

    /// Resolves when the connection has to close. Cancel safe.
    pub(crate) async fn closed(&mut self) -> Closing {
        let Self { close, ends_at, .. } = self;
        let asked = async {
            match close.wait_for(Option::is_some).await {
                Ok(reason) => reason.unwrap_or(Closing::Internal),
                // The directory dropped our entry: another connection was let in over our head.
                Err(_) => Closing::TakenOver,
            }
        };
        match *ends_at {
            Some(at) => timeout_at(at, asked).await.unwrap_or(Closing::Expired),
            None => asked.await,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut entries = self.directory.entries();
        if entries
            .live
            .get(&self.client)
            .is_some_and(|live| live.ticket == self.number)
        {
            entries.live.remove(&self.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use jiff::Timestamp;
    use vitalseal_crypto::Thumbprint;
    use vitalseal_storage::{Identity, Role};

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(200);

    fn names() -> (Arc<Directory>, Principal) {
        let device = Principal::Device {
            id: "mon-7".parse().unwrap(),
            certificate: Thumbprint::from_bytes([7; 32]),
        };
        (Arc::default(), device)
    }

    #[tokio::test]
    async fn the_second_connection_gets_what_the_first_one_leaves() {
        let (directory, device) = names();
        let mut first = directory.enter(&device, PATIENCE).await.unwrap();
        let leaving = tokio::spawn(async move {
            assert_eq!(first.closed().await, Closing::TakenOver);
            first.park(SessionState::default(), 60, Instant::now());
        });
        let second = directory.enter(&device, PATIENCE).await.unwrap();
        leaving.await.unwrap();
        assert!(second.take_parked(Instant::now()).is_some());
        assert!(second.take_parked(Instant::now()).is_none(), "taken once");
        drop(second);
        assert!(directory.connected().is_empty());
    }

    #[tokio::test]
    async fn a_connection_that_does_not_let_go_is_left_behind() {
        let (directory, device) = names();
        let mut stuck = directory.enter(&device, PATIENCE).await.unwrap();
        let second = directory.enter(&device, PATIENCE).await.unwrap();
        stuck.park(SessionState::default(), 60, Instant::now());
        assert_eq!(stuck.closed().await, Closing::TakenOver);
        drop(stuck);
        assert!(
            second.take_parked(Instant::now()).is_none(),
            "a stale state is not taken"
        );
        assert_eq!(directory.connected(), [device]);
    }

    #[tokio::test]
    async fn sessions_expire_when_they_said_they_would() {
        let (directory, device) = names();
        for (expiry, after, kept) in [
            (0, 0, false),
            (60, 59, true),
            (60, 61, false),
            (u32::MAX, 1 << 30, true),
        ] {
            let ticket = directory.enter(&device, PATIENCE).await.unwrap();
            let parked_at = Instant::now();
            ticket.park(SessionState::default(), expiry, parked_at);
            drop(ticket);
            let next = directory.enter(&device, PATIENCE).await.unwrap();
            let later = parked_at + Duration::from_secs(after);
            let found = next.take_parked(later).is_some();
            assert_eq!(found, kept, "{expiry} s, after {after} s");
        }
    }

    fn parked(directory: &Directory) -> usize {
        directory.entries.lock().unwrap().parked.len()
    }

    #[tokio::test]
    async fn expired_sessions_leave_memory_without_being_asked_for() {
        let (directory, device) = names();
        let parked_at = Instant::now();
        let ticket = directory.enter(&device, PATIENCE).await.unwrap();
        ticket.park(SessionState::default(), 60, parked_at);
        drop(ticket);
        directory.drop_expired(parked_at + Duration::from_secs(59));
        assert_eq!(parked(&directory), 1);
        directory.drop_expired(parked_at + Duration::from_secs(60));
        assert_eq!(parked(&directory), 0);
    }

    fn tab(number: u32) -> Principal {
        Principal::Person {
            who: Identity {
                user: "n.okafor".parse().unwrap(),
                role: Role::Clinician,
            },
            until: Timestamp::MAX,
            client: format!("tab-{number}").into(),
        }
    }

    #[tokio::test]
    async fn a_person_who_knocks_many_times_at_once_gets_so_many_connections_and_no_more() {
        let (directory, device) = names();
        let stuck = directory.enter(&tab(0), PATIENCE).await.unwrap();
        let knock = |number| {
            let directory = Arc::clone(&directory);
            async move { directory.enter(&tab(number), PATIENCE).await }
        };
        let knocked = futures::future::join_all((0..40).map(knock)).await;
        let let_in: Vec<_> = knocked.into_iter().flatten().collect();
        assert_eq!(let_in.len(), CONNECTIONS_PER_PERSON);
        assert_eq!(directory.connected().len(), CONNECTIONS_PER_PERSON);
        drop(stuck);
        // A name that is in may be taken over, and devices are not counted among a person's.
        assert!(directory.enter(&tab(99), PATIENCE).await.is_none());
        assert!(directory.enter(&tab(0), PATIENCE).await.is_some());
        assert!(directory.enter(&device, PATIENCE).await.is_some());
    }

    #[tokio::test]
    async fn the_end_of_a_token_closes_the_connection_that_came_with_it_and_not_its_successor() {
        let (directory, _) = names();
        let mut stuck = directory.enter(&tab(0), PATIENCE).await.unwrap();
        stuck.end_at(Instant::now());
        assert_eq!(stuck.closed().await, Closing::Expired);
        let mut next = directory.enter(&tab(0), Duration::ZERO).await.unwrap();
        next.end_at(Instant::now() + Duration::from_secs(3_600));
        assert!(next.closed().now_or_never().is_none());
        assert_eq!(stuck.closed().await, Closing::TakenOver);
    }

    #[tokio::test]
    async fn who_was_found_unwelcome_is_revoked_and_not_who_came_back_welcome_meanwhile() {
        let (directory, found) = names();
        let renewed = Principal::Device {
            id: "mon-7".parse().unwrap(),
            certificate: Thumbprint::from_bytes([8; 32]),
        };
        let mut ticket = directory.enter(&renewed, PATIENCE).await.unwrap();
        assert!(!directory.revoke(&found));
        assert!(ticket.closed().now_or_never().is_none());
        assert!(directory.revoke(&renewed));
        assert_eq!(ticket.closed().await, Closing::Revoked);
        // Gone in between, it leaves nothing.
        ticket.park(SessionState::default(), 60, Instant::now());
        drop(ticket);
        assert!(directory.revoke(&renewed));
        assert_eq!(parked(&directory), 0);
    }

    #[tokio::test]
    async fn a_person_leaves_a_few_sessions_and_none_in_place_of_a_device() {
        let (directory, device) = names();
        let park = async |principal: &Principal, expiry| {
            let ticket = directory.enter(principal, PATIENCE).await.unwrap();
            assert!(ticket.park(SessionState::default(), expiry, Instant::now()));
        };
        park(&device, 1).await;
        for n in 0..40 {
            park(&tab(n), 60 + n).await;
        }
        assert_eq!(parked(&directory), PARKED_PER_PERSON + 1);
        for (principal, stays) in [(device, true), (tab(39), true), (tab(0), false)] {
            let ticket = directory.enter(&principal, PATIENCE).await.unwrap();
            let found = ticket.take_parked(Instant::now()).is_some();
            assert_eq!(found, stays, "{principal}");
        }
    }
}
