//! Floating point numbers as PostgreSQL writes them: `60`, not `60.0`; `1e+15`; `NaN`, `Infinity`.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch, StringBuilder};
use datafusion::arrow::datatypes::{DataType, Field, Float64Type, Schema};
use datafusion::arrow::error::ArrowError;
use pgwire::api::results::{FieldFormat, FieldInfo};

/// The batch with every `Float64` column that goes out as text written as PostgreSQL writes it.
///
/// # Errors
/// None is known: the columns keep their lengths.
pub(super) fn as_postgres_text(
    batch: &RecordBatch,
    fields: &[FieldInfo],
) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    let as_text = |index: usize| {
        schema.field(index).data_type() == &DataType::Float64
            && fields
                .get(index)
                .is_some_and(|field| field.format() == FieldFormat::Text)
    };
    if !(0..batch.num_columns()).any(as_text) {
        return Ok(batch.clone());
    }
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
    let mut written: Vec<Field> = Vec::with_capacity(batch.num_columns());
    for (index, column) in batch.columns().iter().enumerate() {
        let field = schema.field(index);
        if as_text(index) {
            columns.push(written_out(column));
            written.push(field.clone().with_data_type(DataType::Utf8));
        } else {
            columns.push(Arc::clone(column));
            written.push(field.clone());
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(written)), columns)
}

fn written_out(column: &ArrayRef) -> ArrayRef {
    let numbers = column.as_primitive::<Float64Type>();
    let mut text = StringBuilder::with_capacity(numbers.len(), numbers.len() * 8);
    for number in numbers {
        match number {
            // Writing to a string builder cannot fail.
            Some(number) => {
                let _ = write_number(&mut text, number);
                text.append_value("");
            }
            None => text.append_null(),
        }
    }
    Arc::new(text.finish())
}

/// The shortest text that reads back as the same number, in the form of `float8out`: an exponent below
/// 10⁻⁴ and from 10¹⁵ on, with a sign and at least two digits.
fn write_number(text: &mut impl std::fmt::Write, number: f64) -> std::fmt::Result {
    if number.is_nan() {
        return text.write_str("NaN");
    }
    if number.is_infinite() {
        return text.write_str(if number > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        });
    }
    let scientific = format!("{number:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return text.write_str(&scientific);
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..15).contains(&exponent) {
        write!(text, "{number}")
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(text, "{mantissa}e{sign}{:02}", exponent.abs())
    }
}

#[cfg(test)]
mod tests {
    use super::write_number;

    /// Each right side is what PostgreSQL 15 answers to `SELECT '…'::float8`.
    #[test]
    fn numbers_look_as_postgresql_writes_them() {
        for (number, expected) in [
            (60.0, "60"),
            (37.1, "37.1"),
            (0.0, "0"),
            (-0.0, "-0"),
            (-12.5, "-12.5"),
            (0.1 + 0.2, "0.30000000000000004"),
            (0.0001, "0.0001"),
            (0.000_012, "1.2e-05"),
            (123_456_789_012_345.0, "123456789012345"),
            (1e15, "1e+15"),
            (1.5e300, "1.5e+300"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            let mut text = String::new();
            write_number(&mut text, number).unwrap();
            assert_eq!(text, expected);
        }
    }
}
