//! SQL as the audit log may keep it: the shape of the question without its values.
//!
//! Works on tokens, not on the parsed tree, so that an alias, a comment or a dollar-quoted string
//! cannot carry a value past it.

use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer, Whitespace};
use sha2::{Digest, Sha256};

/// Longest text kept: room for the queries that BI tools write, small enough for an audit record.
const MAX_TEXT_BYTES: usize = 8 * 1024;

/// `sql` with every literal, comment and unusual quoted name replaced by `?`.
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
    for token in &tokens {
        match token {
            Token::Whitespace(_) if text.is_empty() || text.ends_with(' ') => {}
            Token::Whitespace(
                Whitespace::Space
                | Whitespace::Newline
                | Whitespace::Tab
                | Whitespace::SingleLineComment { .. }
                | Whitespace::MultiLineComment(_),
            ) => text.push(' '),
            Token::Word(word) if word.quote_style.is_some() && !plain_name(&word.value) => {
                text.push_str("\"?\"");
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

/// A quoted name that could just as well stand unquoted.
fn plain_name(name: &str) -> bool {
    name.len() <= 32 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

/// Whether a token is the query's grammar rather than a value.
fn structural(token: &Token) -> bool {
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
    fn what_does_not_parse_is_only_a_digest() {
        let text = redact("SELEC Ada Lovelace 120");
        assert!(text.starts_with("sha256:") && text.len() == 71, "{text}");
        assert!(redact(&format!("SELECT {}1", "1+".repeat(20_000))).starts_with("sha256:"));
    }
}
