//! Whether a message is new, a repetition, after a gap, out of its time, or the proof of a clone: decided
//! inside the transaction that stores it, with a handful of statements a batch.

use std::collections::{HashMap, HashSet};

use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};
use vitalseal_crypto::{CloneKind, Link};

use super::boots::Boots;
use super::{Admission, Fork, Judgement};
use crate::database::{count, damaged, number, us};

/// Device, boot, sequence.
type Counters<'a> = (&'a str, i64, i64);

/// What `seen` holds of a message.
struct Known {
    signed_hash: [u8; 32],
    /// The predecessor that it names and that was not here when it came.
    awaits: Option<[u8; 32]>,
}

/// Judges each admission against what was seen before it, in this batch too, and stores what is new.
pub(super) async fn admit(
    conn: &mut SqliteConnection,
    admissions: &[&Admission],
) -> Result<Vec<Judgement>, sqlx::Error> {
    if admissions.is_empty() {
        return Ok(Vec::new());
    }
    let mut keys: Vec<Counters<'_>> = Vec::with_capacity(admissions.len());
    for admission in admissions {
        let message = &admission.message;
        let (boot, sequence) = (number(message.boot)?, number(message.sequence)?);
        keys.push((message.device.as_str(), boot, sequence));
    }
    let mut known = neighbours(conn, &keys).await?;
    let aside = kept_aside(conn, admissions, &keys).await?;
    let mut boots = Boots::load(conn, &keys).await?;
    let mut judgements = Vec::with_capacity(admissions.len());
    let mut new = Vec::with_capacity(admissions.len());
    for (at, (admission, key)) in admissions.iter().zip(&keys).enumerate() {
        let judgement = judge(admission, *key, &known, &aside, &boots)?;
        if judgement.is_stored() {
            boots.extend(key.0, key.1, admission);
            let awaits = admission.previous;
            known.insert(
                *key,
                Known {
                    signed_hash: admission.signed_hash,
                    awaits: awaits.filter(|_| judgement == Judgement::StoredAfterGap),
                },
            );
            new.push(at);
        }
        judgements.push(judgement);
    }
    if !new.is_empty() {
        insert(conn, admissions, &keys, &known, &new).await?;
        boots.save(conn).await?;
    }
    Ok(judgements)
}

/// A clone first: a message that proves one is neither old nor late.
fn judge<'a>(
    admission: &Admission,
    (device, boot, sequence): Counters<'a>,
    known: &HashMap<Counters<'a>, Known>,
    aside: &HashSet<(Counters<'a>, [u8; 32])>,
    boots: &Boots<'a>,
) -> Result<Judgement, sqlx::Error> {
    let hash = &admission.signed_hash;
    let fork = |kind, other| {
        let other = count(other)?;
        Ok(Judgement::Fork(Fork { kind, other }))
    };
    match known.get(&(device, boot, sequence)) {
        Some(same) if same.signed_hash == *hash => return Ok(Judgement::Duplicate),
        Some(_) => return fork(CloneKind::SameCounters, sequence),
        None => {}
    }
    let neighbour = |sequence| known.get(&(device, boot, sequence));
    let awaited = neighbour(sequence + 1).and_then(|after| after.awaits);
    if awaited.is_some_and(|awaited| awaited != *hash) {
        return fork(CloneKind::BrokenLink, sequence + 1);
    }
    let before = neighbour(sequence - 1).map(|before| &before.signed_hash);
    let previous = admission.previous.as_ref();
    let link = Link::judge(count(sequence)?, previous, before);
    if link == Link::Fork {
        return fork(CloneKind::BrokenLink, sequence - 1);
    }
    if let Some(other) = boots.contradicted(device, boot, admission) {
        let other = count(other)?;
        return Ok(Judgement::BootsOverlap { other });
    }
    // Named by the message after it is as good as naming the one before it.
    let linked = matches!(link, Link::First | Link::Holds)
        || awaited.is_some()
        || previous.is_some_and(|hash| aside.contains(&((device, boot, sequence - 1), *hash)));
    Ok(match link {
        _ if admission.required.link && !linked => Judgement::Stale,
        Link::Gap => Judgement::StoredAfterGap,
        _ => Judgement::Stored,
    })
}

/// What was seen with these counters, and directly before and after them. One bound JSON array: parameters have a limit.
async fn neighbours<'a>(
    conn: &mut SqliteConnection,
    keys: &[Counters<'a>],
) -> Result<HashMap<Counters<'a>, Known>, sqlx::Error> {
    let list = serde_json::to_string(keys).map_err(|e| sqlx::Error::Encode(Box::new(e)))?;
    let rows = sqlx::query(
        // Materialized, so that each element of the array is parsed once.
        "WITH k (at, device, boot, sequence) AS MATERIALIZED \
         (SELECT key, value ->> 0, value ->> 1, value ->> 2 FROM json_each($1)) \
         SELECT k.at, s.sequence, s.signed_hash, s.awaits FROM k CROSS JOIN seen s \
         ON s.device = k.device AND s.boot = k.boot \
         AND s.sequence BETWEEN k.sequence - 1 AND k.sequence + 1",
    )
    .bind(list)
    .fetch_all(conn)
    .await?;
    let mut known = HashMap::with_capacity(rows.len() + keys.len());
    for row in rows {
        let at = usize::try_from(row.try_get::<i64, _>("at")?).map_err(damaged)?;
        let Some((device, boot, _)) = keys.get(at) else {
            continue;
        };
        let hash = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).map_err(damaged);
        let awaits: Option<&[u8]> = row.try_get("awaits")?;
        known.insert(
            (*device, *boot, row.try_get("sequence")?),
            Known {
                signed_hash: hash(row.try_get("signed_hash")?)?,
                awaits: awaits.map(hash).transpose()?,
            },
        );
    }
    Ok(known)
}

/// The messages directly before those that need a link, which were refused for another fault than their place in the
/// chain: their device sent them in order all the same.
async fn kept_aside<'a>(
    conn: &mut SqliteConnection,
    admissions: &[&Admission],
    keys: &[Counters<'a>],
) -> Result<HashSet<(Counters<'a>, [u8; 32])>, sqlx::Error> {
    let mut found = HashSet::new();
    // Seldom any: what is fresh needs no link.
    for (admission, (device, boot, sequence)) in admissions.iter().zip(keys) {
        let (true, Some(previous)) = (admission.required.link, admission.previous) else {
            continue;
        };
        let before = sequence - 1;
        let here: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM quarantine WHERE device = $1 AND boot = $2 \
             AND sequence = $3 AND signed_hash = $4)",
        )
        .bind(*device)
        .bind(boot)
        .bind(before)
        .bind(previous.as_slice())
        .fetch_one(&mut *conn)
        .await?;
        if here {
            found.insert(((*device, *boot, before), previous));
        }
    }
    Ok(found)
}

/// Stores the admissions at `new`, in the order of arrival, so that row numbers follow it.
async fn insert(
    conn: &mut SqliteConnection,
    admissions: &[&Admission],
    keys: &[Counters<'_>],
    known: &HashMap<Counters<'_>, Known>,
    new: &[usize],
) -> Result<(), sqlx::Error> {
    let mut seen: QueryBuilder<Sqlite> =
        QueryBuilder::new("INSERT INTO seen (device, boot, sequence, signed_hash, awaits) ");
    seen.push_values(new, |mut row, &at| {
        let (device, boot, sequence) = keys[at];
        let awaits = known.get(&keys[at]).and_then(|known| known.awaits);
        row.push_bind(device.to_owned())
            .push_bind(boot)
            .push_bind(sequence)
            .push_bind(admissions[at].signed_hash.to_vec())
            .push_bind(awaits.map(|hash| hash.to_vec()));
    });
    seen.build().persistent(false).execute(&mut *conn).await?;
    let mut inbox: QueryBuilder<Sqlite> = QueryBuilder::new(
        "INSERT INTO inbox (subject, device, boot, sequence, received_at_us, first_at_us, last_at_us, \
         readings, envelope) ",
    );
    inbox.push_values(new, |mut row, &at| {
        let admission = admissions[at];
        let (device, boot, sequence) = keys[at];
        row.push_bind(admission.subject.as_str().to_owned())
            .push_bind(device.to_owned())
            .push_bind(boot)
            .push_bind(sequence)
            .push_bind(us(admission.received_at))
            .push_bind(us(admission.first_at))
            .push_bind(us(admission.last_at))
            .push_bind(i64::from(admission.readings))
            .push_bind(admission.envelope.clone());
    });
    inbox.build().persistent(false).execute(conn).await?;
    Ok(())
}
