//! What of a device's messages is here: per boot, and what is missing in between.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use sqlx::Row as _;
use sqlx::sqlite::SqlitePool;
use vitalseal_crypto::DeviceId;

use crate::database::count;

/// Ranges listed of one device. Whoever leaves more holes than this is told how many messages they make.
const MAX_RANGES: i64 = 1_000;

/// The messages of one boot of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootChain {
    /// Boot counter.
    pub boot: u64,
    /// Lowest sequence that is here.
    pub first: u64,
    /// Highest sequence that is here.
    pub last: u64,
    /// Messages that are here.
    pub messages: u64,
    /// Messages from sequence 0 to the highest that are not here: lost, late, or quarantined.
    pub missing: u64,
    /// Where they are missing, in order; of all boots together, the first thousand ranges.
    pub gaps: Vec<RangeInclusive<u64>>,
    /// Refused messages that contradict one that is here: a second holder of the device's key.
    pub forks: u64,
}

pub(super) async fn of(
    device: &DeviceId,
    pool: &SqlitePool,
) -> Result<Vec<BootChain>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT boot, MIN(sequence) AS first, MAX(sequence) AS last, COUNT(*) AS messages, \
         (SELECT COUNT(*) FROM quarantine q WHERE q.device = s.device AND q.boot = s.boot \
         AND q.reason = 'fork') AS forks FROM seen s WHERE device = $1 GROUP BY boot",
    )
    .bind(device.as_str())
    .fetch_all(pool)
    .await?;
    let mut boots = BTreeMap::new();
    for row in rows {
        let counted = |column| count(row.try_get(column)?);
        let (boot, last, messages) = (counted("boot")?, counted("last")?, counted("messages")?);
        boots.insert(
            boot,
            BootChain {
                boot,
                first: counted("first")?,
                last,
                messages,
                missing: (last + 1).saturating_sub(messages),
                gaps: Vec::new(),
                forks: counted("forks")?,
            },
        );
    }
    let gaps: Vec<(i64, i64, i64)> = sqlx::query_as(
        "SELECT boot, before + 1, sequence - 1 FROM (SELECT boot, sequence, \
         LAG(sequence, 1, -1) OVER (PARTITION BY boot ORDER BY sequence) AS before \
         FROM seen WHERE device = $1) WHERE sequence > before + 1 ORDER BY boot, sequence LIMIT $2",
    )
    .bind(device.as_str())
    .bind(MAX_RANGES)
    .fetch_all(pool)
    .await?;
    for (boot, from, to) in gaps {
        if let Some(chain) = boots.get_mut(&count(boot)?) {
            chain.gaps.push(count(from)?..=count(to)?);
        }
    }
    Ok(boots.into_values().collect())
}
