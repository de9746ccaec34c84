//! What time has to say of a message: when the device sealed it, when it measured, and whom it measured then.
//!
//! ```text
//!            offline          fresh              received_at   +5 min
//!   ──────────┼────────────────┼──────────────────────┼──────────┼─────▶ issued_at (iat, signed)
//!     Stale       the chain         taken as it is                 NotYet
//!                 proves its order
//! ```
//!
//! The clocks of devices are never set here and never corrected: an instant is believed, or the message waits for
//! somebody who knows better.

use jiff::{SignedDuration, Timestamp};
use vitalseal_crypto::{Header, SubjectPseudonym};
use vitalseal_storage::{Assignment, Place, QuarantineReason, Required};

use super::quarantine::Refusal;

/// By how much the clock of a device may be ahead of ours. Five minutes, as Kerberos has it (RFC 4120 §7.5.8): more is
/// no drift but a clock that is wrong.
const AHEAD: SignedDuration = SignedDuration::from_mins(5);

/// By how much readings may lie outside their assignment: whoever assigns a device does it with the device in hand,
/// and by another clock.
const ASSIGNMENT_SLACK: SignedDuration = SignedDuration::from_secs(60);

/// How old a message may be, and how boots may lie to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// A message of this age is taken as it is; an older one only if the chain proves its order.
    pub fresh: SignedDuration,
    /// The longest time that a device may be offline: nothing older is taken.
    pub offline: SignedDuration,
    /// By how much two boots of a device may lie over each other: its clock may be set between them, and a wrong one is
    /// up to five minutes ahead before its messages wait.
    pub boot_overlap: SignedDuration,
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self {
            fresh: SignedDuration::from_hours(24),
            offline: SignedDuration::from_hours(60 * 24),
            boot_overlap: SignedDuration::from_secs(600),
        }
    }
}

/// What a message is judged by: when it came, and which one judgement a person has overruled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) received_at: Timestamp,
    limits: TimeLimits,
    waived: Option<QuarantineReason>,
}

impl Terms {
    pub(super) fn new(received_at: Timestamp, limits: TimeLimits) -> Self {
        Self {
            received_at,
            limits,
            waived: None,
        }
    }

    /// The same, but for one judgement.
    pub(super) fn waiving(self, reason: QuarantineReason) -> Self {
        let waived = Some(reason).filter(|reason| reason.is_releasable());
        Self { waived, ..self }
    }

    pub(super) fn waives(&self, reason: QuarantineReason) -> bool {
        self.waived == Some(reason)
    }

    /// What the inbox has to find of its place before it stores the message.
    pub(super) fn required(&self, header: &Header) -> Required {
        // An instant that nobody believes must not speak against the messages that follow.
        let believed =
            !self.waives(QuarantineReason::NotYet) && !self.waives(QuarantineReason::BootsOverlap);
        Required {
            link: self.is_old(header) && !self.waives(QuarantineReason::Stale),
            boot_overlap: believed.then_some(self.limits.boot_overlap),
        }
    }

    /// What the message after a refused one may name.
    pub(super) fn place(&self, header: &Header, signed_hash: [u8; 32]) -> Place {
        Place {
            signed_hash,
            previous: header.previous,
            must_link: self.is_old(header),
        }
    }

    /// Judges when the device sealed the message, and that it did so after it measured: a message of the future of its
    /// own clock contradicts itself, so it is as implausible as its values could be.
    ///
    /// # Errors
    /// `Implausible`, `NotYet`, `Stale`.
    pub(super) fn judge_issued(&self, header: &Header, last_at: Timestamp) -> Result<(), Refusal> {
        let refuse = |reason, detail: &'static str| Err(Refusal::new(reason, detail));
        let age = self.received_at.duration_since(header.issued_at);
        if last_at.duration_since(header.issued_at) > AHEAD {
            return refuse(
                QuarantineReason::Implausible,
                "measured after it was sealed",
            );
        }
        if age < -AHEAD && !self.waives(QuarantineReason::NotYet) {
            return refuse(QuarantineReason::NotYet, "sealed later than it came");
        }
        if age > self.limits.offline && !self.waives(QuarantineReason::Stale) {
            let detail = "sealed longer ago than a device may be offline";
            return refuse(QuarantineReason::Stale, detail);
        }
        Ok(())
    }

    /// Judges whether the device measured this patient for all of the message's time.
    ///
    /// # Errors
    /// `NotAssigned`. The detail says on which side, and no instant.
    pub(super) fn judge_measured(
        &self,
        assignments: &[Assignment],
        subject: &SubjectPseudonym,
        first_at: Timestamp,
        last_at: Timestamp,
    ) -> Result<(), Refusal> {
        let mut theirs = assignments.iter().filter(|of| of.subject == *subject);
        let began = |of: &Assignment| of.from.duration_since(first_at) <= ASSIGNMENT_SLACK;
        let lasted = |of: &Assignment| {
            of.until
                .is_none_or(|until| last_at.duration_since(until) <= ASSIGNMENT_SLACK)
        };
        if self.waives(QuarantineReason::NotAssigned)
            || theirs.clone().any(|of| began(of) && lasted(of))
        {
            return Ok(());
        }
        let detail = if theirs.clone().all(lasted) {
            "measured before the device was assigned to the envelope's subject"
        } else if theirs.all(began) {
            "measured after the assignment to the envelope's subject ended"
        } else {
            "measured while the device was not assigned to the envelope's subject"
        };
        Err(Refusal::new(QuarantineReason::NotAssigned, detail))
    }

    fn is_old(&self, header: &Header) -> bool {
        self.received_at.duration_since(header.issued_at) > self.limits.fresh
    }
}
