//! How answers look: tables for people by default, JSON for programs with `--json`.

use std::time::Duration;

use anyhow::Context as _;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

/// Prints one answer.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn print(value: &Value, json: bool) -> anyhow::Result<()> {
    let text = if json {
        serde_json::to_string(value).context("encoding the answer")?
    } else {
        readable(value)
    };
    line(&text)
}

/// Prints one line of text.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", text.trim_end()).context("writing to standard output")?;
    out.flush().context("writing to standard output")
}

/// A duration in seconds with the precision of a millisecond: more digits would be noise.
#[must_use]
pub(crate) fn seconds(elapsed: Duration) -> f64 {
    (elapsed.as_secs_f64() * 1e3).round() / 1e3
}

/// A list of objects becomes a table, an object becomes `key  value` lines, anything else itself.
fn readable(value: &Value) -> String {
    match value {
        Value::Array(rows) if rows.is_empty() => "(none)".into(),
        Value::Array(rows) => {
            let mut table = blank();
            let columns: Vec<&String> = rows
                .first()
                .and_then(Value::as_object)
                .map(|row| row.keys().collect())
                .unwrap_or_default();
            table.set_header(columns.iter().map(|column| column.to_uppercase()));
            for row in rows {
                table.add_row(columns.iter().map(|column| cell(&row[column.as_str()])));
            }
            table.to_string()
        }
        Value::Object(fields) => {
            let mut table = blank();
            for (name, field) in fields {
                table.add_row([name.clone(), cell(field)]);
            }
            table.to_string()
        }
        other => cell(other),
    }
}

fn blank() -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
