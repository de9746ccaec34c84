//! Slowing down whoever guesses.
//!
//! Kept in memory and per typed name, known or not, so that being locked out says nothing about who exists. A restart forgets it;
//! the second factor's million codes and a password of 125 bits do not hang on it.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

/// Failures that cost nothing: typing errors.
const FREE_FAILURES: u32 = 5;

/// The first lock-out; each further failure doubles it.
const FIRST_LOCKOUT: SignedDuration = SignedDuration::from_secs(30);

/// The longest lock-out: 96 guesses a day, so that guessing six digits within ±1 step takes decades on average and a
/// locked-out clinician is back within a quarter of an hour.
const LONGEST_LOCKOUT: SignedDuration = SignedDuration::from_mins(15);

/// Failures older than this are forgotten.
const MEMORY: SignedDuration = SignedDuration::from_hours(24);

/// Names remembered at once, a few megabytes. When full, the one whose last failure is oldest goes.
const NAMES: usize = 10_000;

/// Failed logins by name.
#[derive(Debug, Default)]
pub(super) struct Lockouts(HashMap<String, Failures>);

#[derive(Debug)]
struct Failures {
    count: u32,
    last: Timestamp,
}

impl Lockouts {
    /// Until when a name is locked out, if it is.
    pub(super) fn locked_until(&self, name: &str, now: Timestamp) -> Option<Timestamp> {
        let failures = self.0.get(name)?;
        let until = failures
            .last
            .checked_add(lockout(failures.count))
            .unwrap_or(Timestamp::MAX);
        (until > now).then_some(until)
    }

    /// Counts a failure.
    pub(super) fn failed(&mut self, name: &str, now: Timestamp) {
        if !self.0.contains_key(name) && self.0.len() >= NAMES {
            self.make_room(now);
        }
        let failures = self.0.entry(name.to_owned()).or_insert(Failures {
            count: 0,
            last: now,
        });
        if failures.last.duration_until(now) > MEMORY {
            failures.count = 0;
        }
        failures.count = failures.count.saturating_add(1);
        failures.last = now;
    }

    /// Forgets a name after it logged in.
    pub(super) fn succeeded(&mut self, name: &str) {
        self.0.remove(name);
    }

    fn make_room(&mut self, now: Timestamp) {
        self.0
            .retain(|_, failures| failures.last.duration_until(now) <= MEMORY);
        if self.0.len() >= NAMES
            && let Some(oldest) = self
                .0
                .iter()
                .min_by_key(|(_, failures)| failures.last)
                .map(|(name, _)| name.clone())
        {
            self.0.remove(&oldest);
        }
    }
}

/// How long the failures so far lock out, from the last of them on.
fn lockout(failures: u32) -> SignedDuration {
    let Some(beyond) = failures.checked_sub(FREE_FAILURES) else {
        return SignedDuration::ZERO;
    };
    let factor = 1_i32.checked_shl(beyond.min(20)).unwrap_or(i32::MAX);
    FIRST_LOCKOUT
        .checked_mul(factor)
        .unwrap_or(LONGEST_LOCKOUT)
        .min(LONGEST_LOCKOUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_760_000_000 + seconds).unwrap()
    }

    #[test]
    fn the_fifth_failure_locks_and_each_further_one_doubles_up_to_the_longest() {
        let mut lockouts = Lockouts::default();
        for _ in 0..4 {
            lockouts.failed("n.okafor", at(0));
            assert_eq!(lockouts.locked_until("n.okafor", at(0)), None);
        }
        for seconds in [30, 60, 120, 240, 480, 900, 900, 900] {
            lockouts.failed("n.okafor", at(0));
            assert_eq!(lockouts.locked_until("n.okafor", at(0)), Some(at(seconds)));
            assert_eq!(lockouts.locked_until("n.okafor", at(seconds)), None);
        }
        assert_eq!(lockouts.locked_until("somebody.else", at(0)), None);
        lockouts.succeeded("n.okafor");
        assert_eq!(lockouts.locked_until("n.okafor", at(0)), None);
    }

    #[test]
    fn failures_are_forgotten_after_a_day_and_names_are_bounded() {
        let mut lockouts = Lockouts::default();
        for _ in 0..9 {
            lockouts.failed("n.okafor", at(0));
        }
        lockouts.failed("n.okafor", at(86_401));
        assert_eq!(lockouts.locked_until("n.okafor", at(86_401)), None);
        for n in 0..20_000 {
            lockouts.failed(&n.to_string(), at(n));
        }
        assert!(lockouts.0.len() <= NAMES);
    }
}
