//! Deadlines, from dated rules. Only arithmetic: `now` and counts are arguments.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use serde::{Deserialize, Serialize};

use super::report::Precision;

/// How many hours an authority may be kept waiting, and since when that is so. Data and not a constant: a proposal of
/// November 2025 (Digital Omnibus) would make it 96 hours and for high risk only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotificationRule {
    /// Hours from awareness.
    pub hours: u32,
    /// Where that is written.
    pub source: String,
    /// First day of application.
    pub valid_from: Date,
}

impl NotificationRule {
    /// The rule for somebody who became aware at that instant: the latest that was in force.
    pub fn in_force_at(aware_at: Timestamp) -> Self {
        let day = utc_date(aware_at);
        let rules = Self::known();
        let latest = rules.iter().rev().find(|rule| rule.valid_from <= day);
        latest.unwrap_or(&rules[0]).clone()
    }

    /// Every rule that ever was, oldest first.
    fn known() -> [Self; 1] {
        [Self {
            hours: 72,
            source: "GDPR 33(1)".into(),
            valid_from: Date::constant(2018, 5, 25),
        }]
    }
}

/// The authority's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotificationClock {
    /// When it started.
    pub aware_at: Timestamp,
    /// When it runs out: `aware_at` plus the hours, in UTC. Never extended: Regulation 1182/71 moves no period that is
    /// expressed in hours to the next working day, and not counting the hour begun would be the bolder reading.
    pub due_at: Timestamp,
    /// The rule it follows.
    pub rule: NotificationRule,
    /// It had run out when this was computed: the reasons for the delay must accompany the notification (GDPR 33(1)).
    pub late: bool,
}

impl NotificationClock {
    /// Computes the clock as of `now`.
    pub fn new(aware_at: Timestamp, now: Timestamp) -> Self {
        let rule = NotificationRule::in_force_at(aware_at);
        let hours = SignedDuration::from_hours(i64::from(rule.hours));
        let due_at = aware_at.checked_add(hours).unwrap_or(Timestamp::MAX);
        Self {
            aware_at,
            due_at,
            late: now > due_at,
            rule,
        }
    }
}

/// When and how the Secretary of Health is told, 45 CFR 164.408.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "notice", rename_all = "snake_case", deny_unknown_fields)]
pub enum Hhs {
    /// 500 people or more, or not certain to be fewer: together with the individuals.
    Contemporaneous {
        /// Last day.
        by: Date,
    },
    /// Fewer: within 60 days after the calendar year of discovery.
    Annual {
        /// Last day.
        by: Date,
    },
}

/// HIPAA's clocks, 45 CFR 164.404–408, for whoever is under it. Outer limits, not targets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HipaaClock {
    /// Day of discovery. From an instant it is the UTC day; where the local day is earlier, count from that.
    pub discovered: Date,
    /// Last day to tell the individuals: 60 calendar days.
    pub individuals_by: Date,
    /// The Secretary.
    pub hhs: Hhs,
    /// Whether media must be told: more than 500 residents of one State. `None` while that can not be told.
    pub media: Option<bool>,
}

/// Calendar days, 45 CFR 164.404(b) and 164.408(c).
const HIPAA_DAYS: i64 = 60;
/// "500 or more", 164.408(b).
pub(super) const HHS_FROM: u64 = 500;
/// "More than 500", 164.406.
const MEDIA_ABOVE: u64 = 500;

impl HipaaClock {
    /// Computes the clocks. `per_state` is the number of people in each State, where known. Where `people` may be too
    /// low, the earlier date holds and media can not be ruled out.
    pub fn new(
        discovered: Date,
        people: u64,
        precision: Precision,
        per_state: Option<&[u64]>,
    ) -> Self {
        let individuals_by = after(discovered, HIPAA_DAYS);
        let hhs = if people >= HHS_FROM || !precision.is_upper_bound() {
            Hhs::Contemporaneous { by: individuals_by }
        } else {
            Hhs::Annual {
                by: after(discovered.last_of_year(), HIPAA_DAYS),
            }
        };
        let one_above = per_state.map(|states| states.iter().any(|&people| people > MEDIA_ABOVE));
        let media = match one_above {
            Some(true) => Some(true),
            _ if !precision.is_upper_bound() => None,
            Some(false) => Some(false),
            // So few that no State can have more.
            None if people <= MEDIA_ABOVE => Some(false),
            None => None,
        };
        Self {
            discovered,
            individuals_by,
            hhs,
            media,
        }
    }
}

/// The UTC day of an instant.
pub(super) fn utc_date(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}

fn after(day: Date, days: i64) -> Date {
    day.saturating_add(days.days())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> Date {
        text.parse().unwrap()
    }

    #[test]
    fn seventy_two_hours_in_utc_across_a_switch_to_summer_time() {
        let aware_at: Timestamp = "2026-03-27T18:30:00Z".parse().unwrap();
        let due: Timestamp = "2026-03-30T18:30:00Z".parse().unwrap();
        let clock = NotificationClock::new(aware_at, due);
        assert_eq!((clock.due_at, clock.late), (due, false));
        assert_eq!(
            (clock.rule.hours, clock.rule.source.as_str()),
            (72, "GDPR 33(1)")
        );
        let later = due + SignedDuration::from_micros(1);
        assert!(NotificationClock::new(aware_at, later).late);
    }

    #[test]
    fn a_weekend_and_holidays_extend_nothing() {
        let aware_at: Timestamp = "2026-12-24T16:00:00Z".parse().unwrap();
        let clock = NotificationClock::new(aware_at, aware_at);
        assert_eq!(clock.due_at, "2026-12-27T16:00:00Z".parse().unwrap());
    }

    #[test]
    fn sixty_calendar_days_for_individuals_and_for_the_secretary_from_500() {
        let clock = HipaaClock::new(date("2026-11-21"), 500, Precision::Exact, Some(&[500]));
        assert_eq!(clock.individuals_by, date("2027-01-20"));
        assert_eq!(
            clock.hhs,
            Hhs::Contemporaneous {
                by: date("2027-01-20")
            }
        );
        assert_eq!(
            clock.media,
            Some(false),
            "exactly 500 in one State: no media"
        );
    }

    #[test]
    fn fewer_than_500_are_reported_after_the_year_of_discovery() {
        for (discovered, by) in [
            ("2026-01-01", "2027-03-01"),
            ("2026-12-31", "2027-03-01"),
            ("2027-06-15", "2028-02-29"),
        ] {
            let clock = HipaaClock::new(date(discovered), 12, Precision::Exact, None);
            assert_eq!(clock.hhs, Hhs::Annual { by: date(by) });
            assert_eq!(clock.media, Some(false));
        }
        let clock = HipaaClock::new(date("2026-11-21"), 499, Precision::Exact, None);
        assert!(matches!(clock.hhs, Hhs::Annual { .. }));
    }

    #[test]
    fn a_number_that_may_be_too_low_gets_the_earlier_date_and_no_answer_on_media() {
        let by = date("2027-01-20");
        for precision in [Precision::AtLeast, Precision::Estimate] {
            let clock = HipaaClock::new(date("2026-11-21"), 2, precision, None);
            assert_eq!(clock.hhs, Hhs::Contemporaneous { by });
            assert_eq!(clock.media, None);
        }
        let clock = HipaaClock::new(date("2026-11-21"), 2, Precision::AtMost, None);
        assert!(matches!(clock.hhs, Hhs::Annual { .. }));
        assert_eq!(clock.media, Some(false));
    }

    #[test]
    fn media_hang_on_one_state_not_on_the_total() {
        let day = date("2026-11-21");
        assert_eq!(
            HipaaClock::new(day, 501, Precision::Exact, Some(&[501])).media,
            Some(true)
        );
        let spread = HipaaClock::new(day, 900, Precision::Exact, Some(&[300, 300, 300]));
        assert_eq!(spread.media, Some(false));
        assert!(matches!(spread.hhs, Hhs::Contemporaneous { .. }));
        assert_eq!(
            HipaaClock::new(day, 900, Precision::Exact, None).media,
            None,
            "unknown is said as unknown"
        );
    }
}
