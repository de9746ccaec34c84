//! Flush.
/// What a flush did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FlushReport {
    /// Rows that went to the file.
    pub messages: u64,
    /// Readings inside.
    pub readings: u64,
    /// The file; `None` when there was nothing to flush.
    pub file: Option<String>,
    /// More waits: flush again.
    pub more: bool,
}
