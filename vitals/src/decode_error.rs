//! Why a payload was refused. Never with a value in the text: what was refused is still health data.

/// Why a payload is not a list of readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes are not CBOR, or end too early, or go on after the end.
    #[error("the payload is not well-formed CBOR: {0}")]
    Malformed(&'static str),
    /// The CBOR is not what this content type is made of.
    #[error("the payload does not have the shape of its content type: {0}")]
    Shape(&'static str),
    /// The payload says something that is valid, but that this store does not take.
    #[error("the payload uses what is not supported here: {0}")]
    Unsupported(&'static str),
    /// The name of a record is not in the table of signals. The name itself is not repeated: a peer chose it.
    #[error("record {record} names a signal that is not in the table; names are LOINC codes")]
    UnknownSignal {
        /// Position of the record, from 0.
        record: usize,
    },
    /// The unit of a record neither is its signal's nor converts to it.
    #[error("a record of {code} has a unit that does not convert to {unit}")]
    Unit {
        /// Code of the signal.
        code: &'static str,
        /// The UCUM unit that its values are stored in.
        unit: &'static str,
    },
    /// A value or time is NaN, infinite, or beyond what can be stored.
    #[error("a number of record {record} is not finite or out of range")]
    Number {
        /// Position of the record, from 0.
        record: usize,
    },
    /// A time lies below 2^28 seconds, which SenML takes as relative to the instant of reading it.
    #[error("record {record} has a relative time; a device gives the time of measurement")]
    RelativeTime {
        /// Position of the record, from 0.
        record: usize,
    },
    /// A record has a sum (RFC 8428 §4.2) and no value.
    #[error("record {record} has a sum and no value; an integral over time is not a reading")]
    OnlySum {
        /// Position of the record, from 0.
        record: usize,
    },
    /// More readings than [`MAX_READINGS`](crate::MAX_READINGS), or none.
    #[error("a payload holds 1 to {} readings", crate::MAX_READINGS)]
    Count,
}
