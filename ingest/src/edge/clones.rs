//! One certificate at work in two places, as connections show it: each takes the session from the other, again and again.
//!
//! A device that lost its path connects anew while the server still holds the old connection: nobody answers there any
//! more, and that is no sign. A sign is an old connection that was alive: its peer closed it when asked to. One of those
//! happens, as when firmware opens the new connection first; several within a minute do not happen to one device.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use vitalseal_crypto::DeviceId;

use super::connection::Context;
use super::identity::Principal;
use crate::clones::CloneSignal;

/// So many live connections taken over …
const SIGNS: usize = 3;

/// … within this time. Two holders that each come back within seconds get there in a few of them; whoever waits longer
/// between attempts is found by what it signs.
const WITHIN: Duration = Duration::from_secs(60);

/// The last takeovers of live connections, by device: of enrolled ones only, since nobody else gets a session.
#[derive(Debug, Default)]
pub(crate) struct Takeovers {
    recent: Mutex<HashMap<DeviceId, VecDeque<Instant>>>,
}

impl Takeovers {
    /// Notes that a live connection of the device was taken over. Says whether that makes a clone likely; then it counts
    /// from the beginning again.
    pub(crate) fn note(&self, device: &DeviceId, now: Instant) -> bool {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let signs = recent.entry(device.clone()).or_default();
        signs.retain(|at| now.duration_since(*at) < WITHIN);
        signs.push_back(now);
        if signs.len() < SIGNS {
            return false;
        }
        recent.remove(device);
        true
    }
}

/// A live connection of this principal was taken over: gives the alarm when there were too many.
pub(crate) async fn taken_over(context: &Context, principal: &Principal) {
    let Some(device) = principal.device() else {
        return; // a display may be opened twice
    };
    if !context.takeovers.note(device, Instant::now()) {
        return;
    }
    let clones = context.pipeline.clones();
    if let Err(error) = clones.suspect(device, CloneSignal::Takeovers).await {
        let error = &error as &dyn std::error::Error;
        tracing::error!(%device, error, "an alarm could not be given; it is given at the next sign");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says at which of the takeovers, in seconds, the alarm comes.
    fn alarms(takeovers: &Takeovers, device: &str, seconds: &[u64]) -> Vec<u64> {
        let (device, start) = (device.parse().unwrap(), Instant::now());
        let at = |second: &&u64| start + Duration::from_secs(**second);
        let alarm = |second: &&u64| takeovers.note(&device, at(second));
        seconds.iter().filter(alarm).copied().collect()
    }

    #[test]
    fn two_holders_that_take_the_session_from_each_other_are_found() {
        let takeovers = Takeovers::default();
        assert_eq!(alarms(&takeovers, "mon-1", &[0, 1, 2]), [2]);
        assert_eq!(alarms(&takeovers, "mon-2", &[0, 29, 59]), [59]);
        // After an alarm it begins anew, so that the one after a reinstatement needs as many signs.
        assert_eq!(alarms(&takeovers, "mon-1", &[3, 4, 5, 6, 7, 8]), [5, 8]);
    }

    #[test]
    fn a_reconnect_now_and_then_is_none_of_it() {
        let takeovers = Takeovers::default();
        assert_eq!(alarms(&takeovers, "mon-1", &[0, 1]), [0; 0]);
        assert_eq!(alarms(&takeovers, "mon-2", &[0, 1, 60, 61, 120]), [0; 0]);
        let hourly: Vec<u64> = (0..100).map(|hour| hour * 3600).collect();
        assert_eq!(alarms(&takeovers, "mon-3", &hourly), [0; 0]);
    }

    #[test]
    fn devices_are_counted_apart() {
        let takeovers = Takeovers::default();
        for device in ["mon-1", "mon-2", "mon-3"] {
            assert_eq!(alarms(&takeovers, device, &[0, 1]), [0; 0], "{device}");
        }
    }
}
