//! Columns of a batch by name, with the type that the schema gives them.

use arrow::array::{
    Array, ArrayRef, AsArray as _, BinaryArray, PrimitiveArray, RecordBatch, StringArray,
};
use arrow::datatypes::ArrowPrimitiveType;
use arrow::error::ArrowError;

/// A column of text.
pub(crate) fn text<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringArray, ArrowError> {
    typed(batch, name, |column| column.as_string_opt())
}

/// A column of bytes.
pub(crate) fn bytes<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a BinaryArray, ArrowError> {
    typed(batch, name, |column| column.as_binary_opt())
}

/// A column of numbers or instants.
pub(crate) fn numbers<'a, T: ArrowPrimitiveType>(
    batch: &'a RecordBatch,
    name: &str,
) -> Result<&'a PrimitiveArray<T>, ArrowError> {
    typed(batch, name, |column| column.as_primitive_opt())
}

fn typed<'a, A: Array>(
    batch: &'a RecordBatch,
    name: &str,
    of: impl Fn(&'a ArrayRef) -> Option<&'a A>,
) -> Result<&'a A, ArrowError> {
    let wrong = |what: &str| ArrowError::SchemaError(format!("{what} {name}"));
    let column = batch.column_by_name(name);
    let column = of(column.ok_or_else(|| wrong("there is no column"))?);
    let column = column.ok_or_else(|| wrong("another type than the schema says has column"))?;
    if column.null_count() > 0 {
        return Err(wrong("a value is missing in column"));
    }
    Ok(column)
}
