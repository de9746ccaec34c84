//! The report for a person to read and to copy into an authority's form.

use std::fmt::{self, Display, Write};

use super::awareness::AwarenessEvent;
use super::deadline::{HHS_FROM, Hhs};
use super::report::{BreachReport, Figure, Precision, ReportKind};

impl BreachReport {
    /// Renders the report as Markdown.
    pub fn to_markdown(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let kind = match self.kind {
            ReportKind::Initial => "initial",
            ReportKind::Supplementary => "supplementary",
        };
        writeln!(
            out,
            "# Personal data breach {}: report {} ({kind})\n",
            self.incident, self.version
        )?;
        writeln!(
            out,
            "Draft of {} under GDPR Art. 33. Not sent by vitalseal.\n",
            self.drafted_at
        )?;
        self.clocks(out)?;
        self.nature(out)?;
        self.contact(out)?;
        list(out, "(c) Likely consequences", &self.likely_consequences)?;
        list(out, "(d) Measures", &self.measures)?;
        self.keys(out)?;
        list(out, "Not known", &self.unknowns)?;
        self.evidence(out)
    }

    fn clocks(&self, out: &mut String) -> fmt::Result {
        let clock = &self.clock;
        writeln!(out, "## Deadlines\n")?;
        writeln!(out, "| | |\n|---|---|")?;
        row(out, "Aware", clock.aware_at)?;
        row(out, "Why then", or_unknown(&self.aware_reason))?;
        for moment in &self.moments {
            let event = match moment.event {
                AwarenessEvent::FirstAlert => "first alert",
                AwarenessEvent::Certainty => "certainty",
                AwarenessEvent::ProcessorNotice => "notice of a processor",
                AwarenessEvent::ReviewFinished => "own review finished",
            };
            row(
                out,
                &format!("Recorded: {event}"),
                format_args!("{}: {}", moment.at, moment.reason),
            )?;
        }
        row(
            out,
            "**Authority by**",
            format_args!(
                "**{}** ({} h, {}, applies since {}; UTC, never extended)",
                clock.due_at, clock.rule.hours, clock.rule.source, clock.rule.valid_from
            ),
        )?;
        let late = if clock.late {
            "**Yes: the reasons for the delay must accompany the notification (Art. 33(1))**"
        } else {
            "No"
        };
        row(out, "Late at drafting", late)?;
        let hipaa = &self.hipaa;
        let secretary = match hipaa.hhs {
            Hhs::Contemporaneous { by } if self.nature.people.value >= HHS_FROM => {
                format!("with them, by {by} (500 people or more)")
            }
            Hhs::Contemporaneous { by } => {
                format!("with them, by {by} (not certain to be fewer than 500 people)")
            }
            Hhs::Annual { by } => format!("by {by} (fewer than 500 people)"),
        };
        let media = match hipaa.media {
            Some(true) => "media: yes",
            Some(false) => "media: no",
            None => "media: not determinable, depends on people per State",
        };
        let unsecured = match self.hipaa_unsecured {
            Some(true) => "the data counts as unsecured",
            Some(false) => {
                "no notice is due: ciphertext only and the keys are recorded as safe (45 CFR 164.402)"
            }
            None => "whether the data counts as unsecured is unknown",
        };
        row(
            out,
            "HIPAA, if it applies",
            format_args!(
                "individuals by {} (60 days from {}), Secretary {secretary}; {media}; {unsecured}",
                hipaa.individuals_by, hipaa.discovered
            ),
        )?;
        writeln!(out)
    }

    fn nature(&self, out: &mut String) -> fmt::Result {
        let nature = &self.nature;
        let effects: Vec<_> = nature
            .kind
            .effects
            .iter()
            .map(|effect| effect.as_str())
            .collect();
        writeln!(out, "## (a) Nature of the breach\n")?;
        writeln!(out, "| | |\n|---|---|")?;
        row(out, "What happened", nature.kind.cause.describe())?;
        row(out, "Affects", effects.join(", "))?;
        row(
            out,
            "Window",
            format_args!("{} to {} (end exclusive)", nature.from, nature.to),
        )?;
        let devices: Vec<_> = nature.devices.iter().map(ToString::to_string).collect();
        let users: Vec<_> = nature.users.iter().map(ToString::to_string).collect();
        if devices.is_empty() && users.is_empty() {
            row(
                out,
                "Limited to",
                "nothing: everything that the window touches is counted",
            )?;
        }
        if !devices.is_empty() {
            row(out, "Limited to devices", devices.join(", "))?;
        }
        if !users.is_empty() {
            row(out, "Limited to users", users.join(", "))?;
        }
        row(
            out,
            "Categories of people",
            nature.categories_of_people.join("; "),
        )?;
        row(
            out,
            "**People**",
            format_args!("**{}**", number(&nature.people)),
        )?;
        row(
            out,
            "Categories of records",
            nature.categories_of_records.join("; "),
        )?;
        row(
            out,
            "**Records** (readings)",
            format_args!("**{}**", number(&nature.records)),
        )?;
        row(out, "Sealed messages", number(&nature.messages))?;
        for (name, figure) in [
            ("Names and record numbers handed out", &nature.identities),
            ("Queries", &nature.queries),
            ("Refused messages", &nature.quarantined),
            ("Proofs of a cloned device", &nature.forks),
        ] {
            if let Some(figure) = figure {
                row(out, name, number(figure))?;
            }
        }
        let vitals = match (nature.vitals_from, nature.vitals_to) {
            (Some(from), Some(to)) => format!("measured from {from} to {to}"),
            _ => "none found".into(),
        };
        row(out, "Time range of the vitals", vitals)?;
        writeln!(out)
    }

    fn contact(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "## (b) Contact\n")?;
        writeln!(out, "| | |\n|---|---|")?;
        row(
            out,
            "Controller",
            or_unknown(self.parties.controller.as_deref().unwrap_or_default()),
        )?;
        let contact = self.parties.contact.as_ref();
        let part = |part: Option<&String>| or_unknown(part.map_or("", String::as_str)).to_owned();
        row(
            out,
            "Data protection officer or contact",
            part(contact.map(|c| &c.name)),
        )?;
        row(out, "Mail", part(contact.and_then(|c| c.email.as_ref())))?;
        row(
            out,
            "Telephone",
            part(contact.and_then(|c| c.phone.as_ref())),
        )?;
        writeln!(out)
    }

    fn keys(&self, out: &mut String) -> fmt::Result {
        let keys = &self.keys;
        writeln!(out, "## State of the keys\n")?;
        writeln!(out, "| | |\n|---|---|")?;
        row(out, "Encryption", &keys.encryption)?;
        row(
            out,
            "Exposure of patient keys, root and identity map",
            keys.exposure,
        )?;
        row(
            out,
            "Root",
            format_args!(
                "epoch {}, held by \"{}\"",
                keys.root_epoch, keys.root_provider
            ),
        )?;
        row(
            out,
            "Envelope keys of the server that exist",
            keys.envelope_keys_alive,
        )?;
        row(
            out,
            "People concerned who were erased since",
            number(&keys.people_erased_since),
        )?;
        writeln!(out)
    }

    fn evidence(&self, out: &mut String) -> fmt::Result {
        let evidence = &self.evidence;
        writeln!(out, "## Evidence\n")?;
        writeln!(
            out,
            "Audit log `{}`, records {} to {} (end exclusive), root hash `{}`.\n",
            evidence.log, evidence.range.first, evidence.range.end, evidence.range.root
        )?;
        for query in &evidence.queries {
            writeln!(out, "- **{}** `{}`", query.id, query.statement)?;
        }
        writeln!(out, "\n```text\n{}```", evidence.checkpoint)
    }
}

/// `3 (A1, C1)`, `at most 12 (A1)`, `about 12; may be more or fewer (A1)`.
fn number(figure: &Figure) -> String {
    let (before, behind) = match figure.precision {
        Precision::Exact => ("", ""),
        Precision::AtMost => ("at most ", ""),
        Precision::AtLeast => ("at least ", ""),
        Precision::Estimate => ("about ", "; may be more or fewer"),
    };
    let queries = figure.queries.join(", ");
    format!("{before}{}{behind} ({queries})", figure.value)
}

fn or_unknown(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}

/// What somebody typed must not break out of its cell.
fn row(out: &mut String, name: &str, value: impl Display) -> fmt::Result {
    let value = value
        .to_string()
        .replace('|', "\\|")
        .replace(['\n', '\r'], " ");
    writeln!(out, "| {name} | {value} |")
}

fn list(out: &mut String, title: &str, items: &[String]) -> fmt::Result {
    writeln!(out, "## {title}\n")?;
    for item in items {
        writeln!(out, "- {item}")?;
    }
    writeln!(out)
}
