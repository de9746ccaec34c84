//! How many messages of one sender may be refused in a while: each is a row and a durable record, and whoever sends
//! nothing else must not fill the disk with them, nor keep it busy.
//!
//! A device that goes beyond is not answered and comes again, so it is slowed down and loses nothing. Strangers, who only
//! say which device they are, share one budget: nobody waits for them, and what is too much of theirs is counted.
//!
//! Never here: a clock, a wait.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;
use vitalseal_crypto::DeviceId;

use crate::edge::rate::{Pace, Rate};

/// A healthy device is refused nothing, and one with a wrong clock some 600 messages of its backlog at once.
const RATE: Rate = Rate {
    per_s: 1,
    at_once: 600,
};

/// Senders remembered before those are forgotten who have earned what they took.
const REMEMBERED: usize = 1_024;

/// Whose refusals are counted together; `None` is all strangers.
pub(super) type Sender = Option<DeviceId>;

/// What each sender has taken.
#[derive(Debug, Default)]
pub(super) struct Budget {
    taken: Mutex<HashMap<Sender, Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    pace: Pace,
    told: bool,
}

impl Budget {
    /// Takes the place of one refused message, if there is one. Says so once of a sender who finds none, until they have
    /// earned all that they took.
    pub(super) fn take(&self, sender: Sender, now: Instant) -> bool {
        // Every change is one step: a panic elsewhere cannot leave half of one.
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.len() >= REMEMBERED {
            taken.retain(|_, taken| !taken.pace.is_rested(now));
        }
        let name = sender.as_ref().map_or("a stranger", DeviceId::as_str);
        let name = name.to_owned();
        let taken = taken.entry(sender).or_default();
        if taken.pace.is_rested(now) {
            taken.told = false;
        }
        if taken.pace.turn(RATE, now, now).is_some() {
            return true;
        }
        if !std::mem::replace(&mut taken.told, true) {
            tracing::warn!(
                sender = name,
                "so many messages are refused that they are only kept aside slowly now"
            );
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_taken_then_one_a_second_and_senders_do_not_share() {
        let (budget, now) = (Budget::default(), Instant::now());
        let device = |n: usize| Some(format!("mon-{n}").parse().unwrap());
        let in_a_row = |sender: Sender, now| {
            let taken = (0..).take_while(|_| budget.take(sender.clone(), now));
            taken.count()
        };
        assert_eq!(in_a_row(device(1), now), 600);
        assert_eq!(in_a_row(None, now), 600);
        assert_eq!(in_a_row(device(2), now), 600);
        let later = now + Duration::from_secs(60);
        assert_eq!(in_a_row(device(1), later), 60);
        let rested = later + Duration::from_secs(600);
        assert_eq!(in_a_row(device(1), rested), 600);
    }

    #[test]
    fn who_has_rested_is_forgotten_and_nobody_else() {
        let (budget, now) = (Budget::default(), Instant::now());
        let device = |n: usize| Some(format!("mon-{n}").parse().unwrap());
        for n in 0..REMEMBERED {
            assert!(budget.take(device(n), now));
        }
        let later = now + Duration::from_secs(1);
        assert!(budget.take(device(0), now));
        assert!(budget.take(device(REMEMBERED), later));
        assert_eq!(budget.taken.lock().unwrap().len(), 2);
    }
}
