//! When the clock starts.
//!
//! A controller is *aware* with a reasonable degree of certainty that personal data was compromised (EDPB Guidelines 9/2022
//! §II.A.2). A first alert alone starts no clock while a short, prompt investigation runs; a processor's notice does, at once
//! (§II.A.4); a review that ends later postpones nothing. All moments are kept, with their reasons.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What happened at a moment on the way to awareness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AwarenessEvent {
    /// A first sign, not yet looked into.
    FirstAlert,
    /// Reasonable certainty that personal data was compromised.
    Certainty,
    /// A processor told us of a breach (GDPR 33(2)).
    ProcessorNotice,
    /// Our own review ended.
    ReviewFinished,
}

/// A dated moment with its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwarenessMoment {
    /// When.
    pub at: Timestamp,
    /// What.
    pub event: AwarenessEvent,
    /// In the words of whoever recorded it.
    pub reason: String,
}

/// The instant of awareness that follows from the moments: the earliest certainty or processor's notice. `None`: not aware yet.
pub fn aware_at(moments: &[AwarenessMoment]) -> Option<Timestamp> {
    moments
        .iter()
        .filter(|moment| {
            matches!(
                moment.event,
                AwarenessEvent::Certainty | AwarenessEvent::ProcessorNotice
            )
        })
        .map(|moment| moment.at)
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(hour: u8, event: AwarenessEvent) -> AwarenessMoment {
        let at = format!("2026-11-21T{hour:02}:00:00Z").parse().unwrap();
        AwarenessMoment {
            at,
            event,
            reason: "as noted".into(),
        }
    }

    fn hour(hour: u8) -> Option<Timestamp> {
        Some(moment(hour, AwarenessEvent::Certainty).at)
    }

    #[test]
    fn a_processors_notice_counts_at_once_whatever_our_review_takes() {
        use AwarenessEvent::{ProcessorNotice, ReviewFinished};
        let moments = [moment(20, ReviewFinished), moment(10, ProcessorNotice)];
        assert_eq!(aware_at(&moments), hour(10));
    }

    #[test]
    fn a_short_investigation_after_the_alert_does_not_run_the_clock() {
        use AwarenessEvent::{Certainty, FirstAlert};
        assert_eq!(
            aware_at(&[moment(8, FirstAlert), moment(15, Certainty)]),
            hour(15)
        );
        assert_eq!(aware_at(&[moment(8, FirstAlert)]), None);
    }
}
