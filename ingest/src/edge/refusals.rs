//! Refused connections in the audit log: whoever could name themselves, and not every time.
//!
//! | Refused | Recorded | A record stands for |
//! |---|---|---|
//! | no certificate of our authority | never: counted and logged | |
//! | a device, display, service or person, proven | at once, then silence for [`QUIET`] | that principal and reason |
//! | a login with a wrong token | at once, then silence for [`QUIET_LOGIN`] | the peer's address, IPv6: its /64 |
//!
//! What came in the silence is counted, and the number recorded at its end. A record is a write to disk: without this an
//! open door would let anybody fill the log, and a client library that reconnects every second would write 86,400 a day.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use vitalseal_storage::{Actor, AuditEvent, AuditRecord, AuditSink, Clock, UserName};

use super::closing::Closing;
use super::identity::Principal;
use super::slots::Origin;

/// Silence after a record about the same principal and reason.
const QUIET: Duration = Duration::from_secs(10 * 60);

/// Silence after a refused login. So many from one place are a fault or an attack, and either is known from the first.
const QUIET_LOGIN: Duration = Duration::from_secs(60);

/// How often silences are looked at that have ended.
const SWEEP: Duration = Duration::from_secs(10);

/// Silences at once about principals, who are enrolled. Beyond these nothing is recorded alone, only counted together.
const PRINCIPALS: usize = 10_000;

/// The same of places: so many records a minute at most, however many addresses a peer has.
const PLACES: usize = 1_000;

/// Records refusals.
#[derive(Debug)]
pub(crate) struct Refusals {
    audit: Arc<dyn AuditSink>,
    clock: Arc<dyn Clock>,
    silences: Mutex<Silences>,
}

#[derive(Debug, Default)]
struct Silences {
    principals: HashMap<(String, Closing), Silence>,
    logins: HashMap<Origin, Silence>,
    /// What found no room in either since the last sweep.
    others: u64,
}

/// One refusal was recorded; no more like it until the end.
#[derive(Debug)]
struct Silence {
    until: Instant,
    /// Of the last one.
    peer: SocketAddr,
    actor: Actor,
    left_out: u64,
}

impl Refusals {
    pub(crate) fn new(audit: Arc<dyn AuditSink>, clock: Arc<dyn Clock>) -> Self {
        Self {
            audit,
            clock,
            silences: Mutex::default(),
        }
    }

    /// Records that a client was refused, unless it was just recorded. A person is one, whatever their clients are called.
    pub(crate) async fn record(&self, client: &Principal, peer: SocketAddr, reason: Closing) {
        let actor = client.actor();
        let name = match client {
            Principal::Person { who, .. } => format!("user:{}", who.user),
            _ => client.to_string(),
        };
        let begins = {
            let Silences {
                principals, others, ..
            } = &mut *self.silences();
            let silence = Silence::new(peer, actor.clone(), QUIET);
            begins(principals, PRINCIPALS, (name, reason), silence, others)
        };
        if begins {
            self.write(actor, refused(Some(peer), reason.as_str()))
                .await;
        }
    }

    /// Records that a login was refused, unless one from there was just recorded; `user` is what the peer called itself.
    pub(crate) async fn record_login(&self, user: &str, peer: SocketAddr) {
        let begins = {
            let Silences { logins, others, .. } = &mut *self.silences();
            let silence = Silence::new(peer, Actor::System, QUIET_LOGIN);
            begins(logins, PLACES, Origin::of(peer.ip()), silence, others)
        };
        if begins {
            let event = match user.parse::<UserName>() {
                Ok(user) => AuditEvent::LoginFailed { user },
                Err(_) => refused(Some(peer), "not a user name"),
            };
            self.write(Actor::System, event).await;
        }
    }

    /// Records what silences left out, for as long as the edge serves.
    pub(crate) async fn run(&self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.sweep(Instant::now()).await;
        }
    }

    /// Records what the silences that have ended left out, all of them when the edge does.
    pub(crate) async fn finish(&self) {
        self.sweep(Instant::now() + QUIET).await;
    }

    async fn sweep(&self, now: Instant) {
        let mut records = Vec::new();
        {
            let mut silences = self.silences();
            let Silences {
                principals,
                logins,
                others,
            } = &mut *silences;
            for ((_, reason), silence) in principals.extract_if(|_, silence| silence.until <= now) {
                silence.tell(reason.as_str(), &mut records);
            }
            for (_, silence) in logins.extract_if(|_, silence| silence.until <= now) {
                silence.tell(Closing::Login.as_str(), &mut records);
            }
            if *others > 0 {
                let event = refused(None, &format!("{others} from too many places to name"));
                records.push((Actor::System, event));
                *others = 0;
            }
        }
        for (actor, event) in records {
            self.write(actor, event).await;
        }
    }

    /// A failure is logged: the refusal stands anyway.
    async fn write(&self, actor: Actor, event: AuditEvent) {
        let at = self.clock.now();
        if let Err(error) = self.audit.record(AuditRecord { at, actor, event }).await {
            tracing::error!(%error, "a refused connection could not be recorded");
        }
    }

    fn silences(&self) -> MutexGuard<'_, Silences> {
        // Silences change one by one, and nothing in between can panic.
        self.silences.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Silence {
    fn new(peer: SocketAddr, actor: Actor, quiet: Duration) -> Self {
        Self {
            until: Instant::now() + quiet,
            peer,
            actor,
            left_out: 0,
        }
    }

    fn tell(self, reason: &str, records: &mut Vec<(Actor, AuditEvent)>) {
        if self.left_out > 0 {
            let reason = format!("{reason}, {} more times", self.left_out);
            records.push((self.actor, refused(Some(self.peer), &reason)));
        }
    }
}

/// Does a silence begin with this refusal? Otherwise it is counted.
fn begins<K: Eq + std::hash::Hash>(
    silences: &mut HashMap<K, Silence>,
    room: usize,
    about: K,
    new: Silence,
    others: &mut u64,
) -> bool {
    if let Some(silence) = silences.get_mut(&about) {
        silence.left_out += 1;
        silence.peer = new.peer;
        return false;
    }
    if silences.len() >= room {
        *others += 1;
        return false;
    }
    silences.insert(about, new);
    true
}

fn refused(peer: Option<SocketAddr>, reason: &str) -> AuditEvent {
    AuditEvent::ConnectionRefused {
        door: "mqtt".to_owned(),
        peer: peer.map(|peer| peer.to_string()),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv6Addr};

    use jiff::Timestamp;
    use vitalseal_storage::{AuditError, Identity, Role, SystemClock};

    use super::*;

    #[derive(Debug, Default)]
    struct Log(Mutex<Vec<AuditRecord>>);

    #[async_trait::async_trait]
    impl AuditSink for Log {
        async fn record(&self, record: AuditRecord) -> Result<(), AuditError> {
            self.0.lock().unwrap().push(record);
            Ok(())
        }
    }

    fn refusals() -> (Arc<Log>, Refusals) {
        let log = Arc::new(Log::default());
        let refusals = Refusals::new(Arc::clone(&log) as _, Arc::new(SystemClock));
        (log, refusals)
    }

    impl Log {
        fn taken(&self) -> Vec<String> {
            let records = std::mem::take(&mut *self.0.lock().unwrap());
            let line = |record: AuditRecord| match record.event {
                AuditEvent::LoginFailed { user } => format!("login of {user}"),
                AuditEvent::ConnectionRefused { reason, .. } => reason,
                other => panic!("{other:?}"),
            };
            records.into_iter().map(line).collect()
        }
    }

    /// An address of the network `2001:db8:0:NETWORK::/64`.
    fn peer(network: u16, host: u16) -> SocketAddr {
        let address = Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, host);
        (IpAddr::from(address), 40_000).into()
    }

    #[tokio::test]
    async fn a_flood_of_wrong_tokens_costs_a_record_a_minute_and_place_and_its_size_is_told() {
        let (log, refusals) = refusals();
        let begin = Instant::now();
        for host in 0..500 {
            refusals.record_login("nora", peer(1, host)).await;
            refusals.record_login("no user name", peer(2, host)).await;
        }
        assert_eq!(log.taken(), ["login of nora", "not a user name"]);
        refusals.sweep(begin).await;
        assert_eq!(log.taken(), [""; 0], "the silence goes on");
        refusals.finish().await;
        assert_eq!(log.taken(), ["login, 499 more times"; 2]);
        refusals.record_login("nora", peer(1, 0)).await;
        assert_eq!(log.taken(), ["login of nora"]);
        refusals.finish().await;
        assert_eq!(log.taken(), [""; 0], "none was left out");
    }

    #[tokio::test]
    async fn however_many_places_a_flood_comes_from_its_records_and_what_is_remembered_are_bounded()
    {
        let (log, refusals) = refusals();
        for network in 0..5_000 {
            refusals.record_login("nora", peer(network, 0)).await;
        }
        assert_eq!(log.taken().len(), PLACES);
        refusals.finish().await;
        assert_eq!(log.taken(), ["4000 from too many places to name"]);
        assert!(refusals.silences().logins.is_empty());
    }

    #[tokio::test]
    async fn a_person_is_recorded_once_for_a_reason_whatever_their_clients_are_called() {
        let (log, refusals) = refusals();
        for number in 0..500 {
            let person = Principal::Person {
                who: Identity {
                    user: "nora".parse().unwrap(),
                    role: Role::Clinician,
                },
                until: Timestamp::MAX,
                client: format!("tab-{number}").into(),
            };
            let reason = Closing::UnsupportedConnect;
            refusals.record(&person, peer(number, 0), reason).await;
        }
        assert_eq!(log.taken(), ["unsupported_connect"]);
        refusals.finish().await;
        assert_eq!(log.taken(), ["unsupported_connect, 499 more times"]);
    }
}
