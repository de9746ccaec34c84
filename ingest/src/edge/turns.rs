//! Turns for the handshakes: so many begin a second, and from one place no more than a share of them.
//!
//! A count of handshakes under way would be held by whoever begins one and says nothing. A turn is used up by beginning:
//! the silent ones hold a stranger's slot until their deadline, and nobody else's turn.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::time::{Instant, sleep_until};

use super::limits::EdgeLimits;
use super::rate::{Pace, Rate};
use super::slots::Origin;

/// Places remembered before those that are rested are forgotten.
const REMEMBERED: usize = 1_024;

/// Who began when.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    begun: Mutex<Begun>,
}

#[derive(Debug, Default)]
struct Begun {
    all: Pace,
    by_origin: HashMap<Origin, Pace>,
}

impl Turns {
    /// Waits until a handshake from there may begin, in the order of asking. `false`, at once, when that would be later
    /// than the limits' patience. First comes the place's own turn and then the common one, so that a place that is
    /// flooded takes nothing of the common rate but its share.
    pub(crate) async fn wait(&self, origin: Origin, limits: &EdgeLimits) -> bool {
        let now = Instant::now();
        let latest = now + limits.handshake_patience;
        let Some(own) = self.own(origin, limits.handshakes_per_address, now, latest) else {
            return false;
        };
        pass(own).await;
        let Some(common) = self.common(limits.handshakes, Instant::now(), latest) else {
            return false;
        };
        pass(common).await;
        true
    }

    fn own(&self, origin: Origin, rate: Rate, now: Instant, latest: Instant) -> Option<Instant> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if begun.by_origin.len() >= REMEMBERED {
            begun.by_origin.retain(|_, pace| !pace.is_rested(now));
        }
        let pace = begun.by_origin.entry(origin).or_default();
        pace.turn(rate, now, latest)
    }

    fn common(&self, rate: Rate, now: Instant, latest: Instant) -> Option<Instant> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.all.turn(rate, now, latest)
    }
}

async fn pass(at: Instant) {
    // Most turns are now: a timer would make them wait for its next tick.
    if at > Instant::now() {
        sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    fn origin(n: u32) -> Origin {
        Origin::of(Ipv4Addr::from_bits(n).into())
    }

    fn rate(per_s: u32) -> Rate {
        Rate { per_s, at_once: 1 }
    }

    /// A place asks for ten times its share, all at once. What it gets of the common rate is its share, spread evenly, so
    /// that somebody else waits for one of its handshakes at most.
    #[test]
    fn a_flood_from_one_place_delays_nobody_elsewhere() {
        let (turns, begin) = (Turns::default(), Instant::now());
        let latest = begin + Duration::from_secs(2);
        let flood: Vec<Instant> = (0..1_000)
            .filter_map(|_| turns.own(origin(1), rate(50), begin, latest))
            .collect();
        // Two seconds of patience at fifty a second; the rest is let go at once.
        assert_eq!(flood.len(), 101);
        for own in flood {
            assert_eq!(turns.common(rate(100), own, latest), Some(own));
            let patience = own + Duration::from_secs(1);
            let other = turns.common(rate(100), own, patience).unwrap();
            assert_eq!(other.duration_since(own), Duration::from_millis(10));
        }
        let other = turns.own(origin(2), rate(50), begin, latest);
        assert_eq!(other, Some(begin));
    }

    #[tokio::test]
    async fn whoever_would_wait_too_long_is_told_at_once() {
        let limits = EdgeLimits {
            handshakes: rate(1),
            handshakes_per_address: rate(1),
            handshake_patience: Duration::from_millis(500),
            ..EdgeLimits::default()
        };
        let turns = Turns::default();
        assert!(turns.wait(origin(1), &limits).await);
        assert!(
            !turns.wait(origin(1), &limits).await,
            "its own turn is in a second"
        );
        assert!(!turns.wait(origin(2), &limits).await, "the common one too");
    }

    #[test]
    fn places_that_are_rested_are_forgotten() {
        let (turns, begin) = (Turns::default(), Instant::now());
        for n in 0..5_000 {
            let now = begin + Duration::from_micros(u64::from(n) * 2);
            assert!(turns.own(origin(n), rate(1_000_000), now, now).is_some());
        }
        assert!(turns.begun.lock().unwrap().by_origin.len() <= REMEMBERED);
    }
}
