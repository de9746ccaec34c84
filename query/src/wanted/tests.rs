//! The engine itself says what a filter means; a [`Test`] has to agree with it on every row.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringViewArray,
    TimestampMicrosecondArray,
};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::Operator::{self, Eq, Gt, GtEq, Lt, LtEq, NotEq};
use datafusion::logical_expr::{Expr, binary_expr};
use datafusion::prelude::{SessionContext, cast, col, lit};
use jiff::Timestamp;
use proptest::prelude::*;
use vitalseal_vitals::{Reading, signal, signals};

use super::*;
use crate::table::instant;
use crate::table::vitals_schema;

const PATIENTS: [&str; 3] = ["p-one", "p-two", "p-three"];
const DEVICES: [&str; 2] = ["d-one", "d-two"];
const TIMES: [i64; 6] = [-1_500, -1, 0, 1, 999, 5_000_000];
const VALUES: [f64; 7] = [-0.0, 0.0, 1.5, 60.0, 250.0, f64::MAX, f64::MIN_POSITIVE];

#[derive(Clone, Debug)]
struct Point {
    patient: &'static str,
    device: &'static str,
    reading: Reading,
}

fn points() -> impl Strategy<Value = Vec<Point>> {
    let point = (0..3_usize, 0..2_usize, 0..4_usize, 0..6_usize, 0..7_usize);
    let point = point.prop_map(|(patient, device, signal, at, value)| Point {
        patient: PATIENTS[patient],
        device: DEVICES[device],
        reading: Reading {
            signal: &signals()[signal],
            value: VALUES[value],
            at: Timestamp::from_microsecond(TIMES[at]).unwrap(),
        },
    });
    prop::collection::vec(point, 1..40)
}

fn operator() -> impl Strategy<Value = Operator> {
    prop::sample::select(vec![Eq, NotEq, Lt, LtEq, Gt, GtEq])
}

/// A comparison, one way round or the other; a part of them is not understood, and must then exclude nothing.
fn comparison() -> impl Strategy<Value = Expr> {
    let text = |column: &'static str, values: Vec<&'static str>| {
        let one = prop::sample::select(values.clone());
        let some = prop::collection::vec(prop::sample::select(values), 0..4);
        prop_oneof![
            (one, any::<bool>()).prop_map(move |(value, same)| {
                let value = Expr::Literal(ScalarValue::Utf8View(Some(value.to_owned())), None);
                if same {
                    col(column).eq(value)
                } else {
                    value.not_eq(col(column))
                }
            }),
            (some, any::<bool>()).prop_map(move |(values, negated)| {
                let values = values.iter().map(|value| {
                    Expr::Literal(ScalarValue::Utf8View(Some((*value).to_owned())), None)
                });
                col(column).in_list(values.collect(), negated)
            }),
        ]
    };
    let micros = prop::sample::select(TIMES.to_vec());
    let time = (micros, operator(), any::<bool>()).prop_map(|(at, op, turned)| {
        let literal = ScalarValue::TimestampMicrosecond(Some(at), Some("UTC".into()));
        let (ts, literal) = (col("ts"), Expr::Literal(literal, None));
        if turned {
            binary_expr(literal, op, ts)
        } else {
            binary_expr(ts, op, literal)
        }
    });
    let nanos = (-2_000_i64..2_000).prop_map(|at| at * 500);
    let nanos = (nanos, operator()).prop_map(|(at, op)| {
        let unit = datafusion::arrow::datatypes::TimeUnit::Nanosecond;
        let kind = datafusion::arrow::datatypes::DataType::Timestamp(unit, Some("UTC".into()));
        let literal = ScalarValue::TimestampNanosecond(Some(at), Some("UTC".into()));
        binary_expr(cast(col("ts"), kind), op, Expr::Literal(literal, None))
    });
    let value = (
        prop::sample::select(VALUES.to_vec()),
        operator(),
        any::<bool>(),
    );
    let value = value.prop_map(|(value, op, turned)| {
        let (column, literal) = (col("value"), lit(value));
        if turned {
            binary_expr(literal, op, column)
        } else {
            binary_expr(column, op, literal)
        }
    });
    let between = prop::sample::select(VALUES.to_vec());
    let between = (between.clone(), between)
        .prop_map(|(low, high)| col("value").between(lit(low), lit(high)));
    // The engine's `=` takes −0 for 0, as is done here; its lists do not.
    let one_of = prop::collection::vec(prop::sample::select(VALUES[2..].to_vec()), 1..5);
    let one_of = (one_of, any::<bool>()).prop_map(|(values, negated)| {
        let values = values.into_iter().map(lit).collect();
        col("value").in_list(values, negated)
    });
    let foreign = prop_oneof![
        Just(col("boot").gt(lit(1_i64))),
        Just((col("value") + lit(1.0)).gt(lit(61.0))),
        Just(col("patient").lt(Expr::Literal(
            ScalarValue::Utf8View(Some("p-t".into())),
            None
        ))),
        Just(col("value").is_null()),
        Just(col("ts").is_not_null()),
    ];
    prop_oneof![
        text("patient", vec!["p-one", "p-two", "nobody"]),
        text("device", vec!["d-one", "d-two"]),
        text("code", vec!["8867-4", "59408-5", "none"]),
        text("quality", vec!["ok", "flagged", "none"]),
        text("unit", vec!["/min", "%"]),
        time,
        nanos,
        value,
        between,
        one_of,
        foreign,
    ]
}

fn filter() -> impl Strategy<Value = Expr> {
    comparison().prop_recursive(4, 16, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a.and(b)),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a.or(b)),
            inner.prop_map(|a| !a),
        ]
    })
}

fn batch(points: &[Point]) -> RecordBatch {
    let text = |of: fn(&Point) -> &str| -> ArrayRef {
        Arc::new(StringViewArray::from_iter_values(points.iter().map(of)))
    };
    let times = points.iter().map(|p| p.reading.at.as_microsecond());
    let times: ArrayRef =
        Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"));
    assert_eq!(*times.data_type(), instant());
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1; points.len()]));
    let values = points.iter().map(|p| p.reading.value);
    let columns = vec![
        text(|p| p.patient),
        text(|p| p.device),
        text(|p| p.reading.signal.code),
        text(|p| p.reading.signal.display),
        Arc::new(Float64Array::from_iter_values(values)),
        text(|p| p.reading.signal.unit),
        Arc::clone(&times),
        times,
        text(|p| p.reading.quality().as_str()),
        Arc::clone(&numbers),
        numbers,
    ];
    RecordBatch::try_new(vitals_schema(), columns).unwrap()
}

/// What the engine says.
fn answers(filter: &Expr, batch: &RecordBatch) -> Vec<bool> {
    let schema = DFSchema::try_from(batch.schema()).unwrap();
    let filter = SessionContext::new()
        .create_physical_expr(filter.clone(), &schema)
        .unwrap();
    let answers = filter.evaluate(batch).unwrap();
    let answers = answers.into_array(batch.num_rows()).unwrap();
    let answers = answers.as_any().downcast_ref::<BooleanArray>().unwrap();
    answers.iter().map(|answer| answer == Some(true)).collect()
}

/// What is known of all of `points` together.
fn known<'a>(points: &'a [Point], of: &'a Point) -> Known<'a> {
    let same = |what: fn(&Point) -> &str| points.iter().all(|p| what(p) == what(of));
    let times = || points.iter().map(|p| p.reading.at.as_microsecond());
    let values = || points.iter().map(|p| p.reading.value);
    let flagged = || {
        points
            .iter()
            .map(|p| p.reading.quality() == Quality::Flagged)
    };
    Known {
        patient: same(|p| p.patient).then_some(of.patient),
        device: same(|p| p.device).then_some(of.device),
        signal: same(|p| p.reading.signal.code).then_some(of.reading.signal),
        times: (times().min().unwrap(), times().max().unwrap()),
        values: (
            ordinal(values().fold(f64::INFINITY, f64::min)),
            ordinal(values().fold(f64::NEG_INFINITY, f64::max)),
        ),
        flagged: match (flagged().any(|f| f), flagged().all(|f| f)) {
            (false, _) => Some(false),
            (_, true) => Some(true),
            _ => None,
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_test_wants_every_row_that_the_engine_wants_and_no_other_when_it_is_exact(
        points in points(),
        filter in filter(),
    ) {
        let parsed = Parsed::of(&filter, &vitals_schema());
        let answers = answers(&filter, &batch(&points));
        for (point, answer) in points.iter().zip(&answers) {
            let wants = parsed.test.wants(point.patient, point.device, &point.reading);
            prop_assert!(wants || !answer, "{filter} drops {point:?}: {parsed:?}");
            prop_assert!(!wants || *answer || !parsed.exact, "{filter} keeps {point:?}: {parsed:?}");
        }
        let (low, high) = parsed.test.span();
        for (point, answer) in points.iter().zip(&answers) {
            prop_assert!(!answer || (low..=high).contains(&point.reading.at.as_microsecond()));
        }
    }

    #[test]
    fn a_test_that_was_reduced_decides_as_the_whole_one(points in points(), filter in filter()) {
        let test = Parsed::of(&filter, &vitals_schema()).test;
        // A series has one patient, device and signal.
        let of = points[0].clone();
        let series: Vec<Point> = points
            .into_iter()
            .map(|p| Point {
                patient: of.patient,
                device: of.device,
                reading: Reading { signal: of.reading.signal, ..p.reading },
            })
            .collect();
        let rest = test.given(&known(&series, &of));
        let (asks_times, asks_values) = rest.needs();
        let times: Vec<i64> = series.iter().map(|p| p.reading.at.as_microsecond()).collect();
        let values: Vec<f64> = series.iter().map(|p| p.reading.value).collect();
        let mut rows: Vec<u32> = (0..u32::try_from(series.len()).unwrap()).collect();
        rest.retain(
            of.reading.signal,
            if asks_times { &times } else { &[] },
            if asks_values { &values } else { &[] },
            &mut rows,
        );
        let expected: Vec<u32> = (0_u32..)
            .zip(&series)
            .filter(|(_, p)| test.wants(p.patient, p.device, &p.reading))
            .map(|(row, _)| row)
            .collect();
        prop_assert_eq!(&rows, &expected, "{} left {:?}", filter, rest);
        if rest == Test::Never {
            prop_assert!(expected.is_empty());
        }
    }
}

#[test]
fn the_usual_filters_are_decided_here_alone() {
    let at = |us| {
        let literal = ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into()));
        Expr::Literal(literal, None)
    };
    for filter in [
        col("patient").eq(lit("a")).or(col("patient").eq(lit("b"))),
        col("code").in_list(vec![lit("x"), lit("y")], false),
        col("ts").gt_eq(at(5)).and(at(9).gt(col("ts"))),
        col("ts").between(at(5), at(9)),
        col("value").gt(lit(100.0)),
        col("quality").not_eq(lit("ok")),
        !(col("device").eq(lit("d")).and(col("value").lt(lit(1.0)))),
    ] {
        assert!(Parsed::of(&filter, &vitals_schema()).exact, "{filter}");
    }
    for filter in [
        col("patient").eq(col("device")),
        col("patient").like(lit("a%")),
        col("value").gt(lit(ScalarValue::Float64(None))),
        col("boot").eq(lit(1_i64)),
    ] {
        let parsed = Parsed::of(&filter, &vitals_schema());
        assert_eq!(
            (parsed.exact, parsed.test),
            (false, Test::Always),
            "{filter}"
        );
    }
    let half = col("code").eq(lit("x")).and(col("boot").eq(lit(1_i64)));
    let parsed = Parsed::of(&half, &vitals_schema());
    let known = Known {
        signal: signal("8867-4"),
        ..Known::NOTHING
    };
    assert!(!parsed.exact && !parsed.test.allows(&known));
}

#[test]
fn a_long_list_of_numbers_is_one_sorted_set() {
    let at = |us: i64| {
        let literal = ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into()));
        Expr::Literal(literal, None)
    };
    let odd = || (0..5_000_i32).rev().map(|number| number * 2 + 1);
    let times = odd().map(i64::from).map(at).collect();
    let values = odd().map(|number| lit(f64::from(number))).collect();
    for (filter, known) in [
        (
            col("ts").in_list(times, false),
            Known {
                times: (100, 102),
                ..Known::NOTHING
            },
        ),
        (
            col("value").in_list(values, false),
            Known {
                values: (ordinal(100.0), ordinal(102.0)),
                ..Known::NOTHING
            },
        ),
    ] {
        let parsed = Parsed::of(&filter, &vitals_schema());
        assert_eq!((parsed.exact, parsed.test.size()), (true, 1));
        let (Test::Time(ranges) | Test::Value(ranges)) = parsed.test.given(&known) else {
            panic!("{known:?}");
        };
        assert_eq!(ranges.len(), 1, "only 101 lies between");
    }
}
