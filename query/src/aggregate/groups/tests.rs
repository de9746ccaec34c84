//! What groups hold of the memory, and what does not become one.

use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::util::display::array_value_to_string;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool};
use jiff::Timestamp;
use vitalseal_crypto::MessageId;
use vitalseal_vitals::{Reading, signal};

use super::*;
use crate::decrypt::{since, undecodable};
use crate::table::instant;

/// Counts by the second.
fn by_second(pool: &Arc<dyn MemoryPool>) -> Groups {
    let shape = Shape {
        keys: vec![Key::Step(1_000_000)],
        folds: vec![Fold::Key(0)],
        schema: Arc::new(Schema::new(vec![
            Field::new("ts", instant(), false),
            Field::new("again", instant(), false),
        ])),
    };
    let memory = MemoryConsumer::new("groups").register(pool);
    Groups::new(Arc::new(shape), memory)
}

/// One reading a second.
fn seconds(seconds: std::ops::Range<i64>) -> MessagePiece {
    let reading = |second| Reading {
        signal: signal("8867-4").unwrap(),
        value: 60.0,
        at: Timestamp::from_second(second).unwrap(),
    };
    MessagePiece {
        patient: format!("p{}", "a".repeat(32)).parse().unwrap(),
        message: MessageId {
            device: "icu-1".parse().unwrap(),
            boot: 1,
            sequence: 1,
        },
        received_at_us: 0,
        readings: seconds.map(reading).collect(),
    }
}

/// Groups by this key, of which this is asked.
fn groups_of(pool: &Arc<dyn MemoryPool>, key: Vec<Key>, folds: Vec<Fold>) -> Groups {
    let at = |fold: &Fold| matches!(fold, Fold::First | Fold::Last);
    let fields = folds.iter().enumerate().map(|(n, fold)| {
        let of = match fold {
            Fold::Count => DataType::Int64,
            fold if at(fold) => instant(),
            _ => DataType::Float64,
        };
        Field::new(n.to_string(), of, true)
    });
    let keys = key.iter().map(|_| Field::new("ts", instant(), true));
    let shape = Shape {
        schema: Arc::new(Schema::new(keys.chain(fields).collect::<Vec<_>>())),
        keys: key,
        folds,
    };
    let memory = MemoryConsumer::new("groups").register(pool);
    Groups::new(Arc::new(shape), memory)
}

/// Of 600 heart rates from 60 on, a second each, whose values do not decode.
#[test]
fn what_the_statistics_say_is_answered_without_decoding_a_value() {
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(64 << 20));
    let answer = |key: &[Key], folds: &[Fold], rest: Test| {
        let mut groups = groups_of(&pool, key.to_vec(), folds.to_vec());
        groups.series(&undecodable(600, rest))?;
        let batches: Result<Vec<_>> = groups.finish().collect();
        let batch = batches.unwrap().remove(0);
        let cells = batch.columns().iter();
        let cells = cells.map(|column| array_value_to_string(column, 0).unwrap());
        Ok::<_, QueryError>(cells.collect::<Vec<_>>().join("|"))
    };
    let whole = [
        Fold::Count,
        Fold::Min,
        Fold::Max,
        Fold::Sum,
        Fold::Average,
        Fold::First,
        Fold::Last,
        Fold::LastValue,
    ];
    let hour = [Key::Step(3_600_000_000)];
    let minute = [Key::Step(60_000_000)];
    let said = "600|60.0|659.0|215700.0|359.5|1970-01-01T00:00:00Z|1970-01-01T00:09:59Z|659.0";
    assert_eq!(answer(&[], &whole, Test::Always).unwrap(), said);
    let of_an_hour = answer(&hour, &whole, Test::Always).unwrap();
    assert_eq!(of_an_hour, format!("1970-01-01T00:00:00Z|{said}"));
    // Times are asked, and no value.
    assert_eq!(answer(&[], &whole[..1], since(300)).unwrap(), "300");
    // A part of it says nothing of its values.
    for (key, rest) in [(&[][..], since(300)), (&minute, Test::Always)] {
        let refused = answer(key, &whole, rest).unwrap_err();
        assert!(matches!(refused, QueryError::Malformed(_)), "{refused}");
    }
}

#[test]
fn one_piece_cannot_make_more_groups_than_there_is_memory_for() {
    let limit = 1 << 20;
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(limit));
    let mut groups = by_second(&pool);
    let refused = groups.message(&seconds(0..100_000)).unwrap_err();
    let DataFusionError::ResourcesExhausted(_) = DataFusionError::from(refused) else {
        panic!("another error");
    };
    let made: usize = groups.groups.values().map(HashMap::len).sum();
    assert!((1_000..=limit / GROUP_BYTES).contains(&made), "{made}");
}

#[tokio::test]
async fn groups_are_accounted_for_until_the_last_is_laid_out() {
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(64 << 20));
    let (mut groups, mut other) = (by_second(&pool), by_second(&pool));
    groups.message(&seconds(0..10_000)).unwrap();
    other.message(&seconds(5_000..20_000)).unwrap();
    assert!(pool.reserved() >= 25_000 * GROUP_BYTES);
    let mut merging = Box::pin(groups.merge(other));
    assert!(futures::poll!(&mut merging).is_pending(), "no word in");
    merging.await.unwrap();
    let held = pool.reserved();
    assert!((20_000 * GROUP_BYTES..25_000 * GROUP_BYTES).contains(&held));
    let mut batches = groups.finish();
    let mut rows = 0;
    for batch in batches.by_ref() {
        rows += batch.unwrap().num_rows();
        assert_eq!(pool.reserved(), held);
    }
    assert_eq!(rows, 20_000);
    drop(batches);
    assert_eq!(pool.reserved(), 0);
}
