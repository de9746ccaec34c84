//! What can be wrong with a chunk. Without a value in the text: a chunk's plaintext is health data.

/// Why a chunk could not be written or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// The bytes begin with another version than this program writes.
    #[error("the chunk is of a version that this program does not read; use a newer one")]
    Version,
    /// The bytes are not such a chunk: `0` says what was expected.
    #[error("the chunk is damaged: {0}")]
    Damaged(&'static str),
    /// More messages or readings than one chunk may hold.
    #[error(
        "a chunk holds at most {MAX_READINGS} readings of {MAX_MESSAGES} messages: shorten its bucket"
    )]
    TooMany,
    /// A reading was given for a message that the chunk does not have.
    #[error("a reading's message is not in the chunk: name the message before its readings")]
    NoSuchMessage,
}

/// The most readings, or samples, of one chunk: a day of twenty signals at 10 Hz. Bounds what a damaged chunk can make
/// its reader allocate to 128 MiB a column.
pub const MAX_READINGS: usize = 1 << 24;

/// The most messages of one chunk: a day of twelve a second.
pub const MAX_MESSAGES: usize = 1 << 20;
