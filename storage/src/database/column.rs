//! How instants, counters and names are stored. Instants are i64 microseconds since the Unix epoch.

use std::error::Error;
use std::str::FromStr;

use jiff::Timestamp;

/// Instant to column.
pub(crate) fn us(at: Timestamp) -> i64 {
    at.as_microsecond()
}

/// Column to instant.
pub(crate) fn at(us: i64) -> Result<Timestamp, sqlx::Error> {
    Timestamp::from_microsecond(us).map_err(damaged)
}

/// Nullable column to instant.
pub(crate) fn at_opt(us: Option<i64>) -> Result<Option<Timestamp>, sqlx::Error> {
    us.map(at).transpose()
}

/// Column to count.
pub(crate) fn count(value: i64) -> Result<u64, sqlx::Error> {
    u64::try_from(value).map_err(damaged)
}

/// Count to column. Nothing counted here comes near 2^63.
pub(crate) fn number(value: u64) -> Result<i64, sqlx::Error> {
    i64::try_from(value).map_err(|e| sqlx::Error::Encode(Box::new(e)))
}

/// Text column to a type of ours.
pub(crate) fn parsed<T>(text: &str) -> Result<T, sqlx::Error>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    text.parse().map_err(damaged)
}

/// A stored value that no version of this program wrote.
pub(crate) fn damaged(cause: impl Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(cause))
}
