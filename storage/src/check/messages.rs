//! Which messages were met: each must be so once.
//!
//! Sequences of a boot are dense, so they are kept as ranges: millions of messages are a few kilobytes.

use std::collections::{BTreeMap, HashMap};

use vitalseal_crypto::{DeviceId, MessageId};

/// Messages that were met.
#[derive(Default)]
pub(super) struct Messages {
    boots: HashMap<DeviceId, BTreeMap<u64, Ranges>>,
}

impl Messages {
    /// Whether it was not met before.
    pub(super) fn insert(&mut self, message: &MessageId) -> bool {
        let boots = match self.boots.get_mut(&message.device) {
            Some(boots) => boots,
            None => self.boots.entry(message.device.clone()).or_default(),
        };
        boots
            .entry(message.boot)
            .or_default()
            .insert(message.sequence)
    }
}

/// Numbers as ranges: first to last, both inclusive.
#[derive(Default)]
struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    fn insert(&mut self, number: u64) -> bool {
        let before = self.0.range(..=number).next_back();
        let before = before.map(|(first, last)| (*first, *last));
        if before.is_some_and(|(_, last)| last >= number) {
            return false;
        }
        let joins_before = before.filter(|(_, last)| last.checked_add(1) == Some(number));
        let first = joins_before.map_or(number, |(first, _)| first);
        let after = number.checked_add(1).and_then(|next| self.0.remove(&next));
        self.0.insert(first, after.unwrap_or(number));
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_message_is_new_once_in_whatever_order_they_come(
            numbers in proptest::collection::vec(0_u64..40, 0..120),
        ) {
            let (mut messages, mut plain) = (Messages::default(), HashSet::new());
            for number in numbers {
                let message = MessageId {
                    device: "monitor-1".parse().unwrap(),
                    boot: number % 2,
                    sequence: number,
                };
                prop_assert_eq!(messages.insert(&message), plain.insert(number));
            }
        }
    }

    #[test]
    fn a_year_of_messages_in_a_row_is_one_range() {
        let mut ranges = Ranges::default();
        for number in (1..50_000).rev().chain([u64::MAX, 0]) {
            assert!(ranges.insert(number));
        }
        assert_eq!(ranges.0.len(), 2);
        assert!(!ranges.insert(25_000) && !ranges.insert(u64::MAX));
    }
}
