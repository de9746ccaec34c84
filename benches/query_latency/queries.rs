//! What is asked: five questions, each in the words that a side runs best.

use jiff::Timestamp;

/// A question.
pub struct Query {
    /// Prefix of its figures.
    pub name: &'static str,
    /// For sealed and plaintext alike: both are DataFusion, and the table is `vitals`. `{patients}` is where the patients
    /// may be limited, `{and_patients}` the same where there is a condition already.
    sql: String,
    /// For PostgreSQL, where `VALUE` is the decrypted value.
    pub postgres: String,
    /// Whether all patients are asked for, so that the time grows with the readings.
    pub whole: bool,
}

/// The codes of the questions: one of five signals, which some patients have from two devices, and one with a limit that
/// one value in ten is above.
const SATURATION: &str = "59408-5";
const SYSTOLIC: &str = "8480-6";
const ABOVE: f64 = 130.0;

impl Query {
    /// Over all patients.
    pub fn of_all(&self) -> String {
        self.sql
            .replace("{patients}", "")
            .replace("{and_patients}", "")
    }

    /// Over these patients only: what PostgreSQL holds.
    pub fn of(&self, patients: &[&str]) -> String {
        let named = format!("patient IN ('{}')", patients.join("', '"));
        self.sql
            .replace("{patients}", &format!("WHERE {named}"))
            .replace("{and_patients}", &format!("AND {named}"))
    }
}

/// The questions about all patients, and about `patient` in the hour from `from` on.
pub fn all(patient: &str, from: Timestamp) -> Vec<Query> {
    let to = from + jiff::SignedDuration::from_hours(1);
    let query = |name, whole, sql: String, postgres: String| Query {
        name,
        sql,
        postgres,
        whole,
    };
    vec![
        query(
            "full_scan",
            true,
            "SELECT code, count(*), avg(value), min(value), max(value) FROM vitals {patients} GROUP BY code".to_owned(),
            "SELECT code, count(*), avg(v), min(v), max(v) FROM (SELECT code, VALUE AS v FROM readings) r GROUP BY code"
                .to_owned(),
        ),
        query(
            "filter",
            true,
            format!(
                "SELECT count(*) FROM vitals WHERE code = '{SYSTOLIC}' AND value > {ABOVE} {{and_patients}}"
            ),
            format!("SELECT count(*) FROM readings WHERE code = '{SYSTOLIC}' AND VALUE > {ABOVE}"),
        ),
        query(
            "minutes",
            false,
            format!(
                "SELECT code, date_trunc('minute', ts), avg(value) FROM vitals WHERE patient = '{patient}' GROUP BY 1, 2"
            ),
            format!(
                "SELECT code, date_trunc('minute', ts), avg(v)
                 FROM (SELECT code, ts, VALUE AS v FROM readings WHERE patient = '{patient}') r GROUP BY 1, 2"
            ),
        ),
        query(
            "point",
            false,
            format!(
                "SELECT ts, value FROM vitals WHERE patient = '{patient}' AND code = '{SATURATION}' \
                 AND ts >= '{from}' AND ts < '{to}'"
            ),
            format!(
                "SELECT ts, VALUE FROM readings WHERE patient = '{patient}' AND code = '{SATURATION}'
                 AND ts >= '{from}' AND ts < '{to}'"
            ),
        ),
        query(
            "latest",
            true,
            "SELECT patient, code, max(ts), last_value(value ORDER BY ts) FROM vitals {patients} GROUP BY patient, code"
                .to_owned(),
            "SELECT s.patient, s.code, r.ts, VALUE FROM series s CROSS JOIN LATERAL (
                SELECT ts, value FROM readings r
                WHERE r.patient = s.patient AND r.code = s.code ORDER BY ts DESC LIMIT 1
             ) r"
            .to_owned(),
        ),
    ]
}
