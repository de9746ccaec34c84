//! The boots of a device, in time: a counter that only grows and a clock that only goes forward agree,
//! so what was sealed in one boot was not sealed while the next one ran.
//!
//! Judged against the nearest boots on either side, by the device's own clock, with room for a clock
//! that is set while a device runs. Only what is stored counts: what was refused says nothing.

use std::collections::BTreeMap;

use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};

use super::Admission;
use crate::database::us;

/// First and last instant of a boot at which a stored message was sealed, in microseconds.
#[derive(Clone, Copy)]
struct Span {
    first: i64,
    last: i64,
    changed: bool,
}

/// The boots that a batch touches, and their neighbours.
#[derive(Default)]
pub(super) struct Boots<'a>(BTreeMap<(&'a str, i64), Span>);

impl<'a> Boots<'a> {
    /// Reads the boots of these messages, and the nearest before and after each.
    pub(super) async fn load(
        conn: &mut SqliteConnection,
        keys: &[(&'a str, i64, i64)],
    ) -> Result<Self, sqlx::Error> {
        let list = serde_json::to_string(keys).map_err(|e| sqlx::Error::Encode(Box::new(e)))?;
        let rows = sqlx::query(
            "WITH k (device, boot) AS MATERIALIZED \
             (SELECT DISTINCT value ->> 0, value ->> 1 FROM json_each($1)) \
             SELECT b.* FROM k CROSS JOIN boots b ON b.device = k.device AND b.boot IN (k.boot, \
             (SELECT MAX(boot) FROM boots WHERE device = k.device AND boot < k.boot), \
             (SELECT MIN(boot) FROM boots WHERE device = k.device AND boot > k.boot))",
        )
        .bind(list)
        .fetch_all(conn)
        .await?;
        let mut names: Vec<&'a str> = keys.iter().map(|(device, ..)| *device).collect();
        names.sort_unstable();
        let mut boots = Self::default();
        for row in rows {
            let device: &str = row.try_get("device")?;
            let Ok(at) = names.binary_search(&device) else {
                continue;
            };
            let span = Span {
                first: row.try_get("first_iat_us")?,
                last: row.try_get("last_iat_us")?,
                changed: false,
            };
            boots.0.insert((names[at], row.try_get("boot")?), span);
        }
        Ok(boots)
    }

    /// The boot beside this message's that ran, by the device's clock, on the wrong side of it.
    pub(super) fn contradicted(
        &self,
        device: &'a str,
        boot: i64,
        admission: &Admission,
    ) -> Option<i64> {
        let tolerance = admission.required.boot_overlap?.as_micros();
        let issued_at = i128::from(us(admission.issued_at));
        let mut before = self.0.range((device, i64::MIN)..(device, boot));
        let mut after = self.0.range((device, boot + 1)..=(device, i64::MAX));
        match (before.next_back(), after.next()) {
            (Some(((_, other), span)), _) if i128::from(span.last) > issued_at + tolerance => {
                Some(*other)
            }
            (_, Some(((_, other), span))) if issued_at > i128::from(span.first) + tolerance => {
                Some(*other)
            }
            _ => None,
        }
    }

    /// Takes a message that is stored into account.
    pub(super) fn extend(&mut self, device: &'a str, boot: i64, admission: &Admission) {
        if admission.required.boot_overlap.is_none() {
            return;
        }
        let issued_at = us(admission.issued_at);
        let span = self.0.entry((device, boot)).or_insert(Span {
            first: issued_at,
            last: issued_at,
            changed: true,
        });
        if !(span.first..=span.last).contains(&issued_at) {
            span.first = span.first.min(issued_at);
            span.last = span.last.max(issued_at);
            span.changed = true;
        }
    }

    /// Writes what changed.
    pub(super) async fn save(&self, conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let changed: Vec<_> = self.0.iter().filter(|(_, span)| span.changed).collect();
        if changed.is_empty() {
            return Ok(());
        }
        let mut insert: QueryBuilder<Sqlite> =
            QueryBuilder::new("INSERT INTO boots (device, boot, first_iat_us, last_iat_us) ");
        insert.push_values(changed, |mut row, ((device, boot), span)| {
            row.push_bind((*device).to_owned())
                .push_bind(*boot)
                .push_bind(span.first)
                .push_bind(span.last);
        });
        insert.push(
            " ON CONFLICT (device, boot) DO UPDATE SET first_iat_us = excluded.first_iat_us, \
             last_iat_us = excluded.last_iat_us",
        );
        insert.build().persistent(false).execute(conn).await?;
        Ok(())
    }
}
