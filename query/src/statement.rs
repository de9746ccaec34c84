//! Which statements may run at all. One list, asked by every path into the engine.
//!
//! Queries go on to the planner; settings and transaction words that every driver sends are answered
//! without effect, because a session here is read-only and each query is its own consistent cut.
//! Whatever is not named is refused.

use datafusion::sql::sqlparser::ast::{Expr, Reset, Set, Statement};

/// What to do with one parsed statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A `SELECT`, `VALUES` or `WITH` query.
    Query,
    /// Acknowledge with this command tag and change nothing.
    Acknowledge(&'static str),
    /// Open a transaction block, in name only.
    Begin,
    /// Close it; the tag says how the client asked.
    End(&'static str),
    /// One row, one column: the value of a setting.
    Show(String, &'static str),
    /// Not allowed, with the reason that the client gets.
    Refused(String),
}

/// Settings that clients send on connecting and that have no meaning for what is read here.
const HARMLESS_SETTINGS: &[&str] = &[
    "application_name",
    "bytea_output",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "default_transaction_read_only",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "intervalstyle",
    "lock_timeout",
    "search_path",
    "session characteristics",
    "standard_conforming_strings",
    "statement_timeout",
    "timezone",
];

/// Settings that clients ask for, with the only value they ever have here.
const ANSWERS: &[(&str, &str)] = &[
    ("client_encoding", "UTF8"),
    ("datestyle", "ISO, YMD"),
    ("default_transaction_isolation", "repeatable read"),
    ("default_transaction_read_only", "on"),
    ("integer_datetimes", "on"),
    ("max_identifier_length", "63"),
    ("search_path", "public"),
    ("server_encoding", "UTF8"),
    ("server_version", crate::pg::SERVER_VERSION),
    ("server_version_num", "160006"),
    ("standard_conforming_strings", "on"),
    ("timezone", "UTC"),
    ("transaction_isolation", "repeatable read"),
    ("transaction_read_only", "on"),
];

/// Decides what happens with `statement`.
pub(crate) fn verdict(statement: &Statement) -> Verdict {
    match statement {
        Statement::Query(_) => Verdict::Query,
        Statement::Set(set) => setting(set),
        Statement::Reset(reset) => match &reset.reset {
            Reset::ALL => Verdict::Acknowledge("RESET"),
            Reset::ConfigurationParameter(name) => named(&name.to_string(), "RESET"),
        },
        Statement::ShowVariable { variable } => {
            let words: Vec<_> = variable
                .iter()
                .map(|part| part.value.to_lowercase())
                .collect();
            let name = match words.join(".") {
                joined if joined == "transaction.isolation.level" => "transaction_isolation".into(),
                joined if joined == "time.zone" => "timezone".into(),
                joined => joined,
            };
            ANSWERS
                .iter()
                .find(|(known, _)| *known == name)
                .map_or_else(
                    || Verdict::Refused("this setting is not shown".to_owned()),
                    |(known, value)| Verdict::Show((*known).to_owned(), value),
                )
        }
        Statement::StartTransaction { .. } => Verdict::Begin,
        Statement::Commit { .. } => Verdict::End("COMMIT"),
        Statement::Rollback {
            savepoint: None, ..
        } => Verdict::End("ROLLBACK"),
        Statement::Discard { .. } => Verdict::Acknowledge("DISCARD ALL"),
        Statement::Deallocate { .. } => Verdict::Acknowledge("DEALLOCATE"),
        Statement::Explain { .. } | Statement::ExplainTable { .. } => Verdict::Refused(
            "EXPLAIN shows file names, statistics and pseudonyms, so it is not available"
                .to_owned(),
        ),
        _ => Verdict::Refused("only SELECT statements can be run here".to_owned()),
    }
}

fn setting(set: &Set) -> Verdict {
    match set {
        Set::SingleAssignment {
            variable, values, ..
        } => {
            // A purpose cannot be changed under a running session: it is part of the identity.
            match named(&variable.to_string(), "SET") {
                Verdict::Acknowledge(_) if !values.iter().all(constant) => {
                    Verdict::Refused("SET takes a constant".to_owned())
                }
                decided => decided,
            }
        }
        Set::SetTimeZone { .. }
        | Set::SetNames { .. }
        | Set::SetNamesDefault {}
        | Set::SetTransaction { .. } => Verdict::Acknowledge("SET"),
        _ => Verdict::Refused("this SET is not available".to_owned()),
    }
}

fn named(name: &str, tag: &'static str) -> Verdict {
    let name = name.replace('"', "").to_lowercase();
    if HARMLESS_SETTINGS.contains(&name.as_str()) {
        Verdict::Acknowledge(tag)
    } else {
        Verdict::Refused("this setting cannot be changed".to_owned())
    }
}

fn constant(value: &Expr) -> bool {
    matches!(
        value,
        Expr::Value(_) | Expr::Identifier(_) | Expr::UnaryOp { .. }
    )
}

#[cfg(test)]
mod tests {
    use datafusion_pg_catalog::sql::PostgresCompatibilityParser;

    use super::*;

    fn of(sql: &str) -> Verdict {
        let parsed = PostgresCompatibilityParser::new().parse(sql).unwrap();
        assert_eq!(parsed.len(), 1, "{sql}");
        verdict(&parsed[0])
    }

    #[test]
    fn only_what_is_named_passes() {
        for sql in [
            "CREATE TABLE t (a INT)",
            "CREATE VIEW v AS SELECT 1",
            "DROP TABLE vitals",
            "ALTER TABLE vitals ADD COLUMN a INT",
            "INSERT INTO vitals VALUES (1)",
            "UPDATE vitals SET value = 1",
            "DELETE FROM vitals",
            "TRUNCATE vitals",
            "COPY vitals TO '/tmp/x'",
            "COPY (SELECT * FROM vitals) TO '/tmp/x.parquet'",
            "EXPLAIN SELECT 1",
            "EXPLAIN ANALYZE SELECT * FROM vitals",
            "PREPARE p AS SELECT 1",
            "EXECUTE p",
            "DECLARE c CURSOR FOR SELECT 1",
            "SET datafusion.runtime.temp_directory = '/tmp'",
            "SET \"datafusion\".\"runtime\".\"memory_limit\" = '10G'",
            "SET datafusion.execution.target_partitions = 64",
            "RESET datafusion.runtime.max_temp_directory_size",
            "SET ROLE admin",
            "SET SESSION AUTHORIZATION admin",
            "SHOW datafusion.runtime.temp_directory",
            "SHOW ALL",
            "LOCK TABLE vitals",
            "GRANT SELECT ON vitals TO public",
        ] {
            assert!(
                matches!(of(sql), Verdict::Refused(_)),
                "{sql} {:?}",
                of(sql)
            );
        }
    }

    #[test]
    fn what_drivers_send_is_acknowledged() {
        for sql in [
            "SET client_encoding TO 'UTF8'",
            "SET extra_float_digits = 3",
            "SET DateStyle = 'ISO'",
            "SET TIME ZONE 'Europe/Zurich'",
            "SET SESSION application_name = 'psql'",
            "RESET ALL",
            "SET statement_timeout TO 0",
        ] {
            assert!(
                matches!(of(sql), Verdict::Acknowledge(_)),
                "{sql} {:?}",
                of(sql)
            );
        }
        assert_eq!(of("BEGIN"), Verdict::Begin);
        assert_eq!(of("ROLLBACK"), Verdict::End("ROLLBACK"));
        assert!(matches!(
            of("SHOW transaction_isolation"),
            Verdict::Show(..)
        ));
        assert!(matches!(
            of("SHOW TRANSACTION ISOLATION LEVEL"),
            Verdict::Show(..)
        ));
    }
}
