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

/// Names remembered at once, a few megabytes. When full, the one whose last failure is oldest goes, but none that is locked
/// out: nobody gets free by filling the memory. Locked names may exceed this, as far as [`LONGEST_LOCKOUT`] and the time
/// that five hashes take allow.
const NAMES: usize = 10_000;

/// Failed logins by name.
#[derive(Debug, Default)]
pub(super) struct Lockouts(HashMap<String, Failures>);

#[derive(Debug)]
struct Failures {
    count: u32,
    last: Timestamp,
}

impl Failures {
    fn locked_until(&self, now: Timestamp) -> Option<Timestamp> {
        let until = self
            .last
            .checked_add(lockout(self.count))
            .unwrap_or(Timestamp::MAX);
        (until > now).then_some(until)
    }
}

impl Lockouts {
    /// Lets an attempt begin and counts it as a failure until [`Self::succeeded`]: attempts made at the same time see each
    /// other, and one that is broken off counts.
    ///
    /// # Errors
    /// Until when the name is locked out.
    pub(super) fn attempt(&mut self, name: &str, now: Timestamp) -> Result<(), Timestamp> {
        match self.locked_until(name, now) {
            Some(until) => Err(until),
            None => {
                self.failed(name, now);
                Ok(())
            }
        }
    }

    /// Until when a name is locked out, if it is.
    fn locked_until(&self, name: &str, now: Timestamp) -> Option<Timestamp> {
        self.0.get(name)?.locked_until(now)
    }

    /// Counts a failure.
    fn failed(&mut self, name: &str, now: Timestamp) {
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
                .filter(|(_, failures)| failures.locked_until(now).is_none())
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
    fn attempts_at_the_same_time_are_counted_before_they_are_checked() {
        let mut lockouts = Lockouts::default();
        let let_in = (0..20).filter(|_| lockouts.attempt("n.okafor", at(0)).is_ok());
        assert_eq!(let_in.count(), 5);
        assert_eq!(lockouts.attempt("n.okafor", at(1)), Err(at(30)));
    }

    #[test]
    fn a_locked_name_is_not_pushed_out_by_others() {
        let mut lockouts = Lockouts::default();
        for _ in 0..5 {
            lockouts.failed("n.okafor", at(0));
        }
        for n in 0..20_000 {
            lockouts.failed(&n.to_string(), at(1));
        }
        assert_eq!(lockouts.locked_until("n.okafor", at(1)), Some(at(30)));
        assert!(lockouts.0.len() <= NAMES);
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
