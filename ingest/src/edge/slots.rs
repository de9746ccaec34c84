//! Room for connections: so many in all, so many from one place, and only a part of it for those who have not proven yet
//! who they are.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::limits::EdgeLimits;

/// Where a peer is, as far as limits go: an IPv4 address, or the /64 of an IPv6 one. Whoever has one address of a /64 has
/// them all (RFC 4291 §2.5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Origin(IpAddr);

impl Origin {
    pub(crate) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// Counts of open connections.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: Count,
    by_origin: HashMap<Origin, Count>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Count {
    connections: usize,
    /// Of these, the ones that are not admitted yet.
    strangers: usize,
}

/// One connection's place, free again when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    origin: Origin,
    admitted: Arc<AtomicBool>,
}

impl Slots {
    /// A place for one more connection from there, if there is one.
    pub(crate) fn take(self: &Arc<Self>, origin: Origin, limits: &EdgeLimits) -> Option<Slot> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let here = open.by_origin.get(&origin).copied().unwrap_or_default();
        let room = open.all.connections < limits.connections
            && open.all.strangers < limits.strangers
            && here.connections < limits.connections_per_address
            && here.strangers < limits.strangers_per_address;
        if !room {
            return None;
        }
        open.change(origin, |count| {
            count.connections += 1;
            count.strangers += 1;
        });
        Some(Slot {
            slots: Arc::clone(self),
            origin,
            admitted: Arc::default(),
        })
    }

    /// Connections open now.
    pub(crate) fn connections(&self) -> usize {
        self.all().connections
    }

    /// Of these, the ones that are not admitted yet.
    pub(crate) fn strangers(&self) -> usize {
        self.all().strangers
    }

    fn all(&self) -> Count {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all
    }
}

impl Open {
    fn change(&mut self, origin: Origin, change: impl Fn(&mut Count)) {
        change(&mut self.all);
        let here = self.by_origin.entry(origin).or_default();
        change(here);
        if here.connections == 0 {
            self.by_origin.remove(&origin);
        }
    }
}

impl Slot {
    /// The peer has proven who it is: its place is no longer one of the strangers'.
    pub(crate) fn admit(&self) {
        if !self.admitted.swap(true, Ordering::Relaxed) {
            self.change(|count| count.strangers = count.strangers.saturating_sub(1));
        }
    }

    /// Turns `true` with [`Slot::admit`].
    pub(crate) fn admitted(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.admitted)
    }

    fn change(&self, change: impl Fn(&mut Count)) {
        let open = &self.slots.open;
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        open.change(self.origin, change);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.admit();
        self.change(|count| count.connections = count.connections.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(
        connections: usize,
        strangers: usize,
        connections_per_address: usize,
        strangers_per_address: usize,
    ) -> EdgeLimits {
        EdgeLimits {
            connections,
            strangers,
            connections_per_address,
            strangers_per_address,
            ..EdgeLimits::default()
        }
    }

    fn origin(address: &str) -> Origin {
        Origin::of(address.parse().unwrap())
    }

    #[test]
    fn slots_are_counted_in_all_and_by_origin_and_all_come_back() {
        let (slots, limits) = (Arc::new(Slots::default()), limits(3, 3, 2, 2));
        let [a, b] = ["192.0.2.1", "192.0.2.2"].map(origin);
        let first = slots.take(a, &limits).unwrap();
        let second = slots.take(origin("::ffff:192.0.2.1"), &limits).unwrap();
        let refused = slots.take(a, &limits);
        assert!(refused.is_none(), "the mapped form is the same host");
        let third = slots.take(b, &limits).unwrap();
        assert!(slots.take(b, &limits).is_none(), "none left in all");
        drop(first);
        let again = slots.take(a, &limits).unwrap();
        again.admit();
        drop((second, third, again));
        let open = slots.open.lock().unwrap();
        assert_eq!(open.all, Count::default());
        assert!(open.by_origin.is_empty());
    }

    #[test]
    fn one_ipv6_network_is_one_origin() {
        assert_eq!(origin("2001:db8:0:7::1"), origin("2001:db8:0:7:ffff::2"));
        assert_ne!(origin("2001:db8:0:7::1"), origin("2001:db8:0:8::1"));
    }

    #[test]
    fn strangers_get_a_part_only_and_whoever_is_admitted_makes_room_for_the_next() {
        let (slots, limits) = (Arc::new(Slots::default()), limits(100, 3, 100, 2));
        let [a, b] = ["192.0.2.1", "192.0.2.2"].map(origin);
        let known = slots.take(a, &limits).unwrap();
        let _silent = slots.take(a, &limits).unwrap();
        assert!(slots.take(a, &limits).is_none(), "two strangers from there");
        known.admit();
        known.admit();
        assert_eq!(slots.strangers(), 1);
        let _more = [
            slots.take(a, &limits).unwrap(),
            slots.take(b, &limits).unwrap(),
        ];
        assert!(slots.take(b, &limits).is_none(), "three strangers in all");
        assert_eq!(slots.open.lock().unwrap().all.connections, 4);
    }
}
