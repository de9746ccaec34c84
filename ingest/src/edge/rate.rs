//! How fast somebody may go: the generic cell rate algorithm, with the time passed in.
//!
//! ```text
//! earned_at   the instant by which all that was taken is earned, at so many units a second
//! ready_at    earned_at less the burst: from here on the next unit may be taken
//! ```
//!
//! One instant is the whole state. Whoever paused long enough may take the burst at once; on average nobody takes more
//! than the rate.
//!
//! Never here: a clock, a wait.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::identity::ClientId;

/// So many units a second, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Units a second; 0 counts as 1.
    pub per_s: u32,
    /// Units that may be taken together after a pause; 0 counts as 1.
    pub at_once: u32,
}

impl Rate {
    fn time_for(self, units: u32) -> Duration {
        Duration::from_secs(1) * units / self.per_s.max(1)
    }
}

/// What one has taken.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    /// `None`: nothing yet.
    earned_at: Option<Instant>,
}

impl Pace {
    /// When the next unit may be taken: `now`, or later.
    pub(crate) fn ready_at(self, rate: Rate, now: Instant) -> Instant {
        let head_start = rate.time_for(rate.at_once.max(1) - 1);
        let ready_at = self.earned_at.and_then(|at| at.checked_sub(head_start));
        ready_at.map_or(now, |at| at.max(now))
    }

    /// Takes `units`, whether they are ready or not: what was too much is waited for by the next one.
    pub(crate) fn take(&mut self, units: u32, rate: Rate, now: Instant) {
        let from = self.earned_at.map_or(now, |at| at.max(now));
        self.earned_at = Some(from + rate.time_for(units));
    }

    /// Takes one unit and says when it is ready, unless that is after `latest`.
    pub(crate) fn turn(&mut self, rate: Rate, now: Instant, latest: Instant) -> Option<Instant> {
        let at = self.ready_at(rate, now);
        if at > latest {
            return None;
        }
        self.take(1, rate, now);
        Some(at)
    }

    /// Has everything that was taken been earned?
    pub(crate) fn is_rested(self, now: Instant) -> bool {
        self.earned_at.is_none_or(|at| at <= now)
    }
}

/// A client's packets. Whoever is too fast is not read for a while; TCP holds the client back, and nothing is dropped.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Throttle {
    pace: Pace,
    /// Since when it has been held back again and again.
    held_since: Option<Instant>,
    told: bool,
}

/// Held back for longer than this, a client is told of. A backlog of half a day, one message a second, is through in
/// this time.
const HELD_FOR_LONG: Duration = Duration::from_secs(5 * 60);

impl Throttle {
    /// When the next packet may be taken in.
    pub(crate) fn ready_at(&self, rate: Rate, now: Instant) -> Instant {
        self.pace.ready_at(rate, now)
    }

    /// Counts a packet. `true`, once, when the operator should hear of it: the client has been too fast for long.
    pub(crate) fn count(&mut self, rate: Rate, now: Instant) -> bool {
        if self.pace.is_rested(now) {
            self.held_since = None;
            self.told = false;
        }
        self.pace.take(1, rate, now);
        if self.pace.ready_at(rate, now) <= now {
            return false;
        }
        let since = *self.held_since.get_or_insert(now);
        let tell = !self.told && now.duration_since(since) >= HELD_FOR_LONG;
        self.told |= tell;
        tell
    }
}

/// The throttles of clients that are not connected and not rested yet, so that nobody gets a new burst by connecting
/// again.
#[derive(Debug, Default)]
pub(crate) struct Throttles {
    left: Mutex<HashMap<ClientId, Throttle>>,
}

/// Clients remembered before those that are rested are forgotten.
const REMEMBERED: usize = 1_024;

impl Throttles {
    /// Takes out what this client left.
    pub(crate) fn of(&self, client: &ClientId) -> Throttle {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.remove(client).unwrap_or_default()
    }

    /// Keeps it for the next connection.
    pub(crate) fn leave(&self, client: ClientId, throttle: Throttle, now: Instant) {
        if throttle.pace.is_rested(now) {
            return;
        }
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if left.len() >= REMEMBERED {
            left.retain(|_, throttle| !throttle.pace.is_rested(now));
        }
        left.insert(client, throttle);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However turns are asked for: over any stretch of time no more begin than the rate and one burst allow, they
        /// begin in the order of asking, and none is later than its asker would wait.
        #[test]
        fn turns_keep_the_rate_the_order_and_the_patience(
            per_s in 1_u32..2_000,
            at_once in 1_u32..50,
            pauses in prop::collection::vec(0_u64..20_000, 1..200),
        ) {
            let rate = Rate { per_s, at_once };
            let (mut pace, mut now) = (Pace::default(), Instant::now());
            let mut begun: Vec<Instant> = Vec::new();
            for pause in pauses {
                now += Duration::from_micros(pause);
                let latest = now + Duration::from_millis(100);
                if let Some(at) = pace.turn(rate, now, latest) {
                    prop_assert!(now <= at && at <= latest);
                    prop_assert!(begun.last().is_none_or(|before| *before <= at));
                    begun.push(at);
                }
            }
            for (first, from) in begun.iter().enumerate() {
                for (count, until) in (1_u32..).zip(&begun[first..]) {
                    let within = until.duration_since(*from).as_secs_f64();
                    // One for each of the burst, one for each interval that passed; a nanosecond is rounded off each.
                    let most = f64::from(at_once) + within * f64::from(per_s) + 0.001;
                    prop_assert!(f64::from(count) <= most, "{count} in {within} s");
                }
            }
        }
    }

    #[test]
    fn what_was_too_much_is_paid_for_afterwards() {
        let rate = Rate {
            per_s: 1_000,
            at_once: 500,
        };
        let (mut pace, now) = (Pace::default(), Instant::now());
        pace.take(400, rate, now);
        assert_eq!(pace.ready_at(rate, now), now);
        pace.take(400, rate, now);
        let ready_at = pace.ready_at(rate, now);
        assert_eq!(ready_at, now + Duration::from_millis(301));
        assert!(!pace.is_rested(ready_at));
        assert!(pace.is_rested(now + Duration::from_millis(800)));
    }

    #[test]
    fn who_is_too_fast_for_long_is_told_of_once_until_they_rest() {
        let rate = Rate {
            per_s: 10,
            at_once: 2,
        };
        let (mut throttle, mut now, mut told) = (Throttle::default(), Instant::now(), 0);
        let begin = now;
        for _ in 0..2 {
            while now < begin + 3 * HELD_FOR_LONG {
                now = throttle.ready_at(rate, now);
                told += u32::from(throttle.count(rate, now));
            }
            assert_eq!(told, 1);
        }
        now += Duration::from_secs(1);
        assert!(!throttle.count(rate, now));
        assert!(throttle.held_since.is_none(), "rested");
    }

    #[test]
    fn connecting_again_gives_no_new_burst_and_who_is_rested_is_forgotten() {
        let rate = Rate {
            per_s: 10,
            at_once: 5,
        };
        let (throttles, now) = (Throttles::default(), Instant::now());
        let client = |n: usize| ClientId::of_device(&format!("mon-{n}").parse().unwrap());
        let later = now + Duration::from_secs(1);
        for n in 0..=REMEMBERED {
            let mut throttle = throttles.of(&client(n));
            for _ in 0..6 {
                throttle.count(rate, now);
            }
            let leaving = if n == REMEMBERED { later } else { now };
            assert!(throttle.ready_at(rate, now) > now);
            throttles.leave(client(n), throttle, leaving.min(now));
        }
        assert!(throttles.of(&client(7)).ready_at(rate, now) > now);
        assert_eq!(throttles.of(&client(7)).ready_at(rate, now), now, "taken");
        let mut last = Throttle::default();
        last.count(rate, later);
        throttles.leave(client(0), last, later);
        assert_eq!(throttles.left.lock().unwrap().len(), 1);
    }
}
