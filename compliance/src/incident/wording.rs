//! The sentences of a report. Each says what is so, or that it is not known; none is written to sound better than that.

use jiff::Timestamp;

use super::deadline::HHS_FROM;
use super::draft::Findings;
use super::kind::{Effect, KeyExposure};
use super::record::{Incident, Parties};
use super::report::Figure;

/// Art. 33(3)(c), by what suffered.
pub(super) fn consequences(incident: &Incident) -> Vec<String> {
    let text = |effect: &Effect| match effect {
        Effect::Confidentiality => {
            "Confidentiality: vital signs allow inferences about illness and way of life; disclosure may lead to \
             distress, discrimination or loss of trust in care."
        }
        Effect::Integrity => {
            "Integrity: false or missing readings may lead to wrong or delayed clinical decisions. Readings from \
             before stay verifiable by the device's signature."
        }
        Effect::Availability => {
            "Availability: care may be delayed while readings are out of reach; what was sealed under a lost key is \
             lost for good."
        }
    };
    incident
        .kind
        .effects
        .iter()
        .map(|effect| text(effect).to_owned())
        .collect()
}

/// Art. 33(3)(d), as far as the store knows it.
pub(super) fn measures(incident: &Incident, findings: &Findings, erased: u64) -> Vec<String> {
    let mut measures = vec![
        "In place: readings are stored encrypted only, under a key for each patient; stored data is pseudonymous and the \
         identity map is sealed under the same key."
            .to_owned(),
        format!(
            "In place: keys are kept apart from the data (root epoch {}, provider \"{}\").",
            findings.keys.root_epoch, findings.keys.root_provider
        ),
        "In place: access to readings needs a second factor and a care-team grant; every query is recorded in a signed, append-only \
         log before it is answered."
            .to_owned(),
    ];
    for device in &findings.revoked {
        measures.push(format!(
            "Taken: device {device} is revoked and can not connect any more."
        ));
    }
    for device in incident.devices.difference(&findings.revoked) {
        measures.push(format!("Open: device {device} is not revoked."));
    }
    if erased > 0 {
        measures.push(format!(
            "Taken: the keys of {erased} of the people concerned were destroyed since (erasure)."
        ));
    }
    measures
}

/// What a person must still find out.
pub(super) fn unknowns(
    incident: &Incident,
    parties: &Parties,
    findings: &Findings,
    people: &Figure,
    now: Timestamp,
    late: bool,
) -> Vec<String> {
    let mut unknowns = Vec::new();
    let mut unknown = |text: String| unknowns.push(text);
    if parties.controller.is_none() {
        unknown("The controller's name: it is not configured.".into());
    }
    if parties.contact.is_none() {
        unknown(
            "The data protection officer or other contact point (Art. 33(3)(b)): it is not configured."
                .into(),
        );
    }
    if late {
        unknown(
            "The reasons for the delay, which must accompany a notification after the deadline (Art. 33(1))."
                .into(),
        );
    }
    if incident.aware_reason.is_empty() {
        unknown("Why awareness is dated as it is: no reason was recorded.".into());
    }
    if incident.to > now {
        unknown(format!(
            "How the incident goes on: its window ends at {}, after this draft.",
            incident.to
        ));
    }
    if incident.keys == KeyExposure::Unknown {
        unknown("Whether patient keys, the root key or the identity map were exposed: nothing was recorded.".into());
    }
    if !people.precision.is_upper_bound() && people.value < HHS_FROM {
        unknown(format!(
            "Whether fewer than {HHS_FROM} people are concerned: their number is not an upper bound, so the earlier date of \
             HIPAA is given and media are not ruled out."
        ));
    }
    if findings.accesses.is_none() {
        unknown("What was read through queries: the incident names devices only, so none was looked at.".into());
    }
    if let Some(accesses) = &findings.accesses {
        if accesses.unfinished > 0 {
            unknown(format!(
                "What {} queries read that have no end in the log: their whole authorized scope ({} people) is counted \
                 as people concerned, their records and \
                 identification data are not counted.",
                accesses.unfinished,
                accesses.people_in_unfinished.len()
            ));
        }
        if accesses.carried > 0 {
            unknown(format!(
                "How much of what {} queries read left before the window: they began before it, and all of it is counted.",
                accesses.carried
            ));
        }
        if accesses.queries > 1 {
            unknown("How many distinct readings were read: one that several queries read is counted each time.".into());
        }
        unknown("Whether what was read was copied or passed on.".into());
    }
    if let Some(deliveries) = &findings.deliveries
        && deliveries.undated > 0
    {
        unknown(format!(
            "When {} messages came in: what proves it was lost to damage. They lie around the beginning or the end of the \
             window, and all of them are counted.",
            deliveries.undated
        ));
    }
    if let Some(deliveries) = &findings.deliveries
        && deliveries.lost > 0
    {
        unknown(format!(
            "Whether more came in: {} rows or files are on record as lost to damage (`vitalseal store status`), and nothing \
             that was in them is counted.",
            deliveries.lost
        ));
    }
    if findings
        .deliveries
        .as_ref()
        .is_some_and(|deliveries| deliveries.quarantined > 0)
    {
        unknown("Whom the refused messages concern: they were not opened.".into());
    }
    unknown(
        "In which countries and States the people concerned live: vitalseal does not keep that."
            .into(),
    );
    unknown("How severe the likely consequences are for each person: that is to be judged, not counted.".into());
    unknowns
}
