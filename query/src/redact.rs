//! SQL as the audit log may keep it: the shape of the question without its values.
//!
//! Works on tokens, not on the parsed tree, so that an alias, a comment or a dollar-quoted string
//! cannot carry a value past it. A word is kept if it is known, not if it looks harmless: somebody's
//! name in an alias is a word like any other.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use datafusion::execution::SessionStateDefaults;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer, Whitespace, Word};
use sha2::{Digest, Sha256};

use crate::engine::DATABASE;
use crate::table;

/// Longest text kept: room for the queries that BI tools write, small enough for an audit record.
const MAX_TEXT_BYTES: usize = 8 * 1024;

/// Names that say nothing about anybody: our tables with their columns, and where tables are found.
static NAMES: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let mut names: BTreeSet<String> = [DATABASE, "public", "information_schema", "pg_catalog"]
        .map(str::to_owned)
        .into();
    for (name, table) in table::all() {
        names.insert(name.to_owned());
        let schema = table.schema();
        names.extend(schema.fields().iter().map(|field| field.name().clone()));
    }
    names
});

/// Functions of the engine.
static FUNCTIONS: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let mut names = BTreeSet::new();
    let mut add = |name: &str, aliases: &[String]| {
        names.insert(name.to_owned());
        names.extend(aliases.iter().cloned());
    };
    for function in SessionStateDefaults::default_scalar_functions() {
        add(function.name(), function.aliases());
    }
    for function in SessionStateDefaults::default_aggregate_functions() {
        add(function.name(), function.aliases());
    }
    for function in SessionStateDefaults::default_window_functions() {
        add(function.name(), function.aliases());
    }
    for function in SessionStateDefaults::default_table_functions() {
        add(function.name(), &[]);
    }
    names
});

/// `sql` with every literal, comment and name that is not ours replaced by `?`.
///
/// A text that does not parse could hold a name or a number anywhere, so only its SHA-256 is kept.
#[must_use]
pub fn redact(sql: &str) -> String {
    let dialect = PostgreSqlDialect {};
    if Parser::parse_sql(&dialect, sql).is_err() {
        return digest(sql);
    }
    let Ok(tokens) = Tokenizer::new(&dialect, sql).tokenize() else {
        return digest(sql);
    };
    let mut text = String::with_capacity(sql.len().min(MAX_TEXT_BYTES));
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Whitespace(_) if text.is_empty() || text.ends_with(' ') => {}
            Token::Whitespace(
                Whitespace::Space
                | Whitespace::Newline
                | Whitespace::Tab
                | Whitespace::SingleLineComment { .. }
                | Whitespace::MultiLineComment(_),
            ) => text.push(' '),
            Token::Word(word) if !known(word, tokens.get(at + 1..).unwrap_or_default()) => {
                text.push_str(if word.quote_style.is_some() {
                    "\"?\""
                } else {
                    "?"
                });
            }
            kept if structural(kept) => text.push_str(&kept.to_string()),
            _ => text.push('?'),
        }
    }
    let text = text.trim_end();
    if text.len() > MAX_TEXT_BYTES {
        return digest(sql);
    }
    text.to_owned()
}

fn digest(sql: &str) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(sql.as_bytes())))
}

/// A keyword, a name of ours, or a function that is called.
fn known(word: &Word, behind: &[Token]) -> bool {
    if word.quote_style.is_none() && word.keyword != Keyword::NoKeyword {
        return true;
    }
    let name = word.value.to_lowercase();
    let next = behind
        .iter()
        .find(|token| !matches!(token, Token::Whitespace(_)));
    NAMES.contains(&name) || (next == Some(&Token::LParen) && FUNCTIONS.contains(&name))
}

/// `$1`, but not `$name`.
fn numbered(placeholder: &str) -> bool {
    placeholder
        .strip_prefix('$')
        .is_some_and(|n| n.len() <= 5 && n.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether a token is the query's grammar rather than a value.
fn structural(token: &Token) -> bool {
    if let Token::Placeholder(placeholder) = token {
        return numbered(placeholder);
    }
    !matches!(
        token,
        Token::Number(..)
            | Token::Char(_)
            | Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::TripleSingleQuotedString(_)
            | Token::TripleDoubleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::SingleQuotedByteStringLiteral(_)
            | Token::DoubleQuotedByteStringLiteral(_)
            | Token::TripleSingleQuotedByteStringLiteral(_)
            | Token::TripleDoubleQuotedByteStringLiteral(_)
            | Token::SingleQuotedRawStringLiteral(_)
            | Token::DoubleQuotedRawStringLiteral(_)
            | Token::TripleSingleQuotedRawStringLiteral(_)
            | Token::TripleDoubleQuotedRawStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::QuoteDelimitedStringLiteral(_)
            | Token::NationalQuoteDelimitedStringLiteral(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::HexStringLiteral(_)
            | Token::CustomBinaryOperator(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_spelling_of_a_literal_survives() {
        for (sql, kept) in [
            (
                "SELECT * FROM patients WHERE name = 'Ada'",
                "SELECT * FROM patients WHERE name = ?",
            ),
            ("select 1 + 2.5e3", "select ? + ?"),
            (
                "SELECT $$Ada$$, E'A\\x', X'4164', U&'Ada'",
                "SELECT ?, ?, ?, ?",
            ),
            (
                "SELECT value AS \"Ada Lovelace\" FROM vitals",
                "SELECT value AS \"?\" FROM vitals",
            ),
            ("SELECT 1 -- Ada\n, 2 /* Ada */", "SELECT ? , ?"),
            (
                "SELECT ts FROM vitals WHERE ts > now() - INTERVAL '1 hour' LIMIT 5",
                "SELECT ts FROM vitals WHERE ts > now() - INTERVAL ? LIMIT ?",
            ),
            (
                "SELECT \"value\" FROM vitals WHERE patient = $1",
                "SELECT \"value\" FROM vitals WHERE patient = $1",
            ),
        ] {
            assert_eq!(redact(sql), kept);
        }
    }

    #[test]
    fn no_name_that_somebody_chose_survives() {
        for (sql, kept) in [
            (
                "SELECT avg(value) AS huber_maria_mrn_4711 FROM vitals WHERE patient = $1",
                "SELECT avg(value) AS ? FROM vitals WHERE patient = $1",
            ),
            (
                "SELECT avg(value) AS \"huber_maria\" FROM vitals",
                "SELECT avg(value) AS \"?\" FROM vitals",
            ),
            (
                "SELECT AVG (huber.value) FROM public.vitals huber",
                "SELECT AVG (?.value) FROM public.vitals ?",
            ),
            (
                "WITH huber(maria) AS (SELECT 1) SELECT maria, ts FROM huber, vitals AS maier(a)",
                "WITH ?(?) AS (SELECT ?) SELECT ?, ts FROM ?, vitals AS ?(?)",
            ),
            (
                "SELECT ts FROM vitals WHERE patient = $huber",
                "SELECT ts FROM vitals WHERE patient = ?",
            ),
        ] {
            assert_eq!(redact(sql), kept);
        }
    }

    #[test]
    fn what_does_not_parse_is_only_a_digest() {
        let text = redact("SELEC Ada Lovelace 120");
        assert!(text.starts_with("sha256:") && text.len() == 71, "{text}");
        assert!(redact(&format!("SELECT {}1", "1+".repeat(20_000))).starts_with("sha256:"));
    }
}
