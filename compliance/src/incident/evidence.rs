//! The queries behind the figures, written so that somebody else can ask them again.

use vitalseal_crypto::DeviceId;
use vitalseal_storage::ports::UserName;

use super::counting;
use super::draft::Findings;
use super::record::Incident;
use super::report::{Evidence, EvidenceQuery, LogRange};

/// Every query that a report's figures refer to.
pub(super) fn evidence(incident: &Incident, findings: &Findings) -> Evidence {
    let (from, to) = (incident.from, incident.to);
    let LogRange { first, end, root } = &findings.range;
    let over = format!("over audit records [{first}, {end}) under root {root}");
    let users = list("user", incident.users.iter().map(UserName::as_str));
    let devices = list("device", incident.devices.iter().map(DeviceId::as_str));
    let mut queries = Vec::new();
    let mut query = |id: &str, statement: String| {
        queries.push(EvidenceQuery {
            id: id.to_owned(),
            statement,
        });
    };
    if let Some(accesses) = &findings.accesses {
        let since = counting::queries_from(incident);
        let ran = format!(
            "FROM query_started LEFT JOIN query_finished USING (query) WHERE started.at >= '{since}' AND started.at < \
             '{to}' AND (started.at >= '{from}' OR finished.at IS NULL OR finished.at >= '{from}'){users}"
        );
        query(
            "A1",
            format!(
                "SELECT count(DISTINCT patient), sum(messages), sum(readings), sum(identities), min(first_at), max(last_at) \
                 {ran}, plus the authorized patients (its own, or its scope_of's) of each without an end; {over}"
            ),
        );
        query("A2", format!("SELECT count(*) {ran}; {over}"));
        if accesses.resolved.is_some() {
            query(
                "A5",
                format!(
                    "SELECT count(*), count(DISTINCT patient) FROM identity_resolved WHERE at >= '{from}' AND at < \
                     '{to}'; {over}"
                ),
            );
        }
    }
    if findings.deliveries.is_some() {
        query(
            "A3",
            format!(
                "SELECT count(*) FROM message_quarantined WHERE at >= '{from}' AND at < '{to}'{devices}; {over}"
            ),
        );
        query(
            "A4",
            format!(
                "SELECT count(*) FROM fork_detected WHERE at >= '{from}' AND at < '{to}'{devices}; {over}"
            ),
        );
        query(
            "C1",
            format!(
                "SELECT count(DISTINCT subject), count(*), sum(readings), min(first_at), max(last_at) FROM \
                 sealed_rows WHERE received_at >= '{from}' AND received_at < '{to}'{devices}; over the catalog, its \
                 files and the inbox, at the time of drafting"
            ),
        );
    }
    query(
        "K1",
        "SELECT count(*) FROM patients WHERE state = 'erased' AND subject IN (people concerned); over the registry, at \
         the time of drafting"
            .to_owned(),
    );
    Evidence {
        log: findings.log.clone(),
        range: findings.range.clone(),
        checkpoint: findings.checkpoint.clone(),
        queries,
    }
}

/// ` AND user IN ('a', 'b')`; ids hold no quotes.
fn list<'a>(column: &str, ids: impl Iterator<Item = &'a str>) -> String {
    let ids: Vec<_> = ids.map(|id| format!("'{id}'")).collect();
    if ids.is_empty() {
        String::new()
    } else {
        format!(" AND {column} IN ({})", ids.join(", "))
    }
}
