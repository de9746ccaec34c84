//! Gathering readings into messages.
//!
//! A message costs one signature on the device and one verification on the server, whatever it holds: sixty
//! seconds of five signals in one message are 300 readings for the price of one. The price of waiting is that a
//! reading may be a batch's span late.

use std::time::Duration;

use vitalseal_vitals::{MAX_READINGS, Reading};

/// Gathers readings until there are enough of them, or until they span enough time.
///
/// Time is that of the readings, not of a clock: a recording that is played fast makes the same batches.
#[derive(Debug)]
pub struct Batcher {
    max_readings: usize,
    max_span: Duration,
    batch: Vec<Reading>,
}

impl Batcher {
    /// A batch ends at `max_readings` (at least 1, at most [`MAX_READINGS`]) or before a reading that lies `max_span`
    /// or more away from its first one.
    #[must_use]
    pub fn new(max_readings: usize, max_span: Duration) -> Self {
        Self {
            max_readings: max_readings.clamp(1, MAX_READINGS),
            max_span,
            batch: Vec::new(),
        }
    }

    /// Takes a reading; gives back the batch that this completes, if it does.
    pub fn push(&mut self, reading: Reading) -> Option<Vec<Reading>> {
        let spans_too_much = self.batch.first().is_some_and(|first| {
            // Either way round: a clock that was set back must not keep a batch open for ever.
            reading.at.duration_since(first.at).unsigned_abs() >= self.max_span
        });
        if spans_too_much {
            let complete = std::mem::replace(&mut self.batch, vec![reading]);
            return Some(complete);
        }
        self.batch.push(reading);
        if self.batch.len() >= self.max_readings {
            self.flush()
        } else {
            None
        }
    }

    /// Gives back what was gathered so far; `None` if nothing was.
    pub fn flush(&mut self) -> Option<Vec<Reading>> {
        (!self.batch.is_empty()).then(|| std::mem::take(&mut self.batch))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;
    use vitalseal_vitals::signal;

    use super::*;

    fn at(second: i64) -> Reading {
        let signal = signal("8867-4").unwrap();
        Reading {
            signal,
            value: 60.0,
            at: Timestamp::from_second(second).unwrap(),
        }
    }

    proptest! {
        #[test]
        fn every_reading_leaves_once_in_order_and_within_the_bounds(
            seconds in proptest::collection::vec(0..500_i64, 0..200), size in 1..20_usize, span in 1..60_u64,
        ) {
            let mut batcher = Batcher::new(size, Duration::from_secs(span));
            let mut batches: Vec<_> = seconds.iter().filter_map(|s| batcher.push(at(*s))).collect();
            batches.extend(batcher.flush());
            for batch in &batches {
                prop_assert!(!batch.is_empty() && batch.len() <= size);
                let first = batch[0].at.as_second();
                prop_assert!(batch.iter().all(|r| r.at.as_second().abs_diff(first) < span));
            }
            let left: Vec<_> = batches.concat().iter().map(|r| r.at.as_second()).collect();
            prop_assert_eq!(left, seconds);
            prop_assert!(batcher.flush().is_none());
        }
    }
}
