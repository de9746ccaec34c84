//! Checking a log from the ground up: every record is hashed again, the tree is built again, and the result is held against
//! what is stored and signed.

use std::fmt;

use serde::Serialize;
use sqlx::sqlite::SqliteConnection;
use tlog_tiles::tlog::stored_hash_count;

use super::identity::AuditKey;
use super::tree::{Frontier, KnownHashes};
use super::{AuditEntry, AuditLogError, SignedCheckpoint, database};

/// Rows at a time: a few megabytes at most.
const PAGE: u32 = 1000;

/// What a check of the whole log found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditVerification {
    /// Number of records read.
    pub size: u64,
    /// Root hash recomputed from them, in hexadecimal.
    pub root_hash: String,
    /// The stored head is signed by the log's key and describes exactly these records.
    pub checkpoint_ok: bool,
    /// The checkpoint that was kept elsewhere agrees with these records; `None` if none was given.
    pub outside_ok: Option<bool>,
    /// Records whose time lies before that of the record in front of them. Not a fault: callers race and clocks are set. Their
    /// order in the log is the order in which they became durable.
    pub clock_steps_back: u64,
    /// The first record that is not what was written, where one can be named.
    pub first_bad_seq: Option<u64>,
    /// Everything that is wrong, in the order found.
    pub faults: Vec<AuditFault>,
}

impl AuditVerification {
    /// Nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }
}

/// One thing that is wrong with a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
#[non_exhaustive]
pub enum AuditFault {
    /// A record is gone; everything behind it has moved.
    Missing {
        /// Its number.
        seq: u64,
    },
    /// A record's text is not what was hashed when it was written.
    Altered {
        /// Its number.
        seq: u64,
    },
    /// A record's text is no audit record.
    Unreadable {
        /// Its number.
        seq: u64,
    },
    /// A record's time column is not the record's time.
    TimeColumn {
        /// Its number.
        seq: u64,
    },
    /// There are more or fewer stored hashes than the records call for.
    HashCount {
        /// How many there are.
        stored: u64,
        /// How many there must be.
        expected: u64,
    },
    /// The stored head is not signed by the log's key.
    HeadSignature,
    /// The stored head speaks of another number of records.
    HeadSize {
        /// Records that the head speaks of.
        signed: u64,
        /// Records that are there.
        stored: u64,
    },
    /// The records do not hash to the signed root: history was rewritten.
    HeadRoot,
    /// The checkpoint kept elsewhere is not one of this log.
    OutsideForeign,
    /// The checkpoint kept elsewhere speaks of more records than there are: the log was cut.
    Truncated {
        /// Records that the outside checkpoint speaks of.
        signed: u64,
        /// Records that are there.
        stored: u64,
    },
    /// The first records do not hash to what the outside checkpoint signed: history below it was rewritten.
    Rewritten {
        /// Number of records below the outside checkpoint.
        signed: u64,
    },
}

impl AuditFault {
    fn seq(&self) -> Option<u64> {
        match *self {
            Self::Missing { seq }
            | Self::Altered { seq }
            | Self::Unreadable { seq }
            | Self::TimeColumn { seq } => Some(seq),
            Self::HeadSize { signed, stored } | Self::Truncated { signed, stored } => {
                Some(signed.min(stored))
            }
            _ => None,
        }
    }
}

impl fmt::Display for AuditFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { seq } => write!(f, "record {seq} is missing"),
            Self::Altered { seq } => write!(f, "record {seq} was altered"),
            Self::Unreadable { seq } => write!(f, "record {seq} can not be read"),
            Self::TimeColumn { seq } => write!(f, "record {seq} is filed under another time"),
            Self::HashCount { stored, expected } => {
                write!(f, "{stored} hashes are stored where {expected} belong")
            }
            Self::HeadSignature => f.write_str("the head is not signed by this log's key"),
            Self::HeadSize { signed, stored } => {
                write!(
                    f,
                    "the head speaks of {signed} records, {stored} are stored"
                )
            }
            Self::HeadRoot => f.write_str("the records do not hash to the signed root"),
            Self::OutsideForeign => {
                f.write_str("the checkpoint kept elsewhere is not one of this log")
            }
            Self::Truncated { signed, stored } => write!(
                f,
                "cut: the checkpoint kept elsewhere speaks of {signed} records, {stored} are stored"
            ),
            Self::Rewritten { signed } => write!(
                f,
                "rewritten: the first {signed} records are not those that the checkpoint kept elsewhere signed"
            ),
        }
    }
}

/// Checks the log that `conn` sees; `conn` should be a transaction, so that the log stands still meanwhile.
pub(super) async fn verify(
    conn: &mut SqliteConnection,
    key: &AuditKey,
    outside: Option<&str>,
) -> Result<AuditVerification, AuditLogError> {
    let mut faults = Vec::new();
    let note = database::head(conn).await?;
    let head = SignedCheckpoint::open(&note, key).ok();
    let outside = outside.map(|note| SignedCheckpoint::open(note, key).ok());
    let mut walk = Walk::new(outside.flatten().map(|outside| outside.size));
    walk.run(conn).await?;
    faults.append(&mut walk.faults);

    let size = walk.tree.size();
    let root = walk.tree.root()?.0;
    let (_, stored) = database::counts(conn).await?;
    let expected = stored_hash_count(size);
    if stored != expected {
        faults.push(AuditFault::HashCount { stored, expected });
    }
    let checkpoint_ok = match head {
        None => {
            faults.push(AuditFault::HeadSignature);
            false
        }
        Some(head) if head.size != size => {
            faults.push(AuditFault::HeadSize {
                signed: head.size,
                stored: size,
            });
            false
        }
        Some(head) if head.root != root => {
            faults.push(AuditFault::HeadRoot);
            false
        }
        Some(_) => true,
    };
    let outside_ok = outside.map(|outside| {
        let fault = match outside {
            None => AuditFault::OutsideForeign,
            Some(outside) if outside.size > size => AuditFault::Truncated {
                signed: outside.size,
                stored: size,
            },
            Some(outside) if walk.root_at_mark != Some(outside.root) => AuditFault::Rewritten {
                signed: outside.size,
            },
            Some(_) => return true,
        };
        faults.push(fault);
        false
    });
    Ok(AuditVerification {
        size,
        root_hash: hex::encode(root),
        checkpoint_ok,
        outside_ok,
        clock_steps_back: walk.clock_steps_back,
        first_bad_seq: faults.iter().filter_map(AuditFault::seq).min(),
        faults,
    })
}

/// The pass over all rows.
struct Walk {
    tree: Frontier,
    /// Size at which the root is wanted, for the outside checkpoint.
    mark: Option<u64>,
    root_at_mark: Option<[u8; 32]>,
    last_at_us: i64,
    clock_steps_back: u64,
    faults: Vec<AuditFault>,
}

impl Walk {
    fn new(mark: Option<u64>) -> Self {
        Self {
            tree: Frontier::empty(),
            mark,
            root_at_mark: None,
            last_at_us: i64::MIN,
            clock_steps_back: 0,
            faults: Vec::new(),
        }
    }

    async fn run(&mut self, conn: &mut SqliteConnection) -> Result<(), AuditLogError> {
        self.note_mark()?;
        loop {
            let next = self.tree.size();
            let rows = database::rows(conn, next, u64::MAX, PAGE).await?;
            if rows.is_empty() {
                return Ok(());
            }
            let end = next + rows.len() as u64;
            let hashes =
                database::hash_range(conn, stored_hash_count(next), stored_hash_count(end)).await?;
            for row in rows {
                if row.seq != self.tree.size() {
                    // Behind a gap every number is off: nothing more can be said than where it begins.
                    self.faults.push(AuditFault::Missing {
                        seq: self.tree.size(),
                    });
                    return Ok(());
                }
                self.check(&row, &hashes)?;
            }
        }
    }

    fn check(
        &mut self,
        row: &database::StoredRecord,
        stored: &KnownHashes,
    ) -> Result<(), AuditLogError> {
        let seq = row.seq;
        let (first, hashes) = self.tree.append(row.leaf.as_bytes())?;
        if stored.0.get(&first) != hashes.first() {
            self.faults.push(AuditFault::Altered { seq });
        }
        match AuditEntry::decode(seq, &row.leaf) {
            Err(_) => self.faults.push(AuditFault::Unreadable { seq }),
            Ok(entry) if entry.at.as_microsecond() != row.at_us => {
                self.faults.push(AuditFault::TimeColumn { seq });
            }
            Ok(_) => {}
        }
        if row.at_us < self.last_at_us {
            self.clock_steps_back += 1;
        }
        self.last_at_us = row.at_us;
        self.note_mark()
    }

    fn note_mark(&mut self) -> Result<(), AuditLogError> {
        if self.mark == Some(self.tree.size()) {
            self.root_at_mark = Some(self.tree.root()?.0);
        }
        Ok(())
    }
}
