//! What the filters of a scan say about sealed rows, before any is opened.
//!
//! Only what a filter certainly excludes is pruned; everything that is left is filtered again above the
//! scan, so not understanding a filter costs time and never a row.

use std::collections::BTreeSet;

use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::datatypes::TimeUnit;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

/// Bounds on the rows that a query can still want. `None` is "no bound".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prune {
    /// Pseudonyms that the filters leave.
    pub(crate) patients: Option<BTreeSet<String>>,
    /// Signal codes that the filters leave.
    pub(crate) codes: Option<BTreeSet<String>>,
    /// Earliest instant wanted, microseconds, inclusive.
    pub(crate) from_us: Option<i64>,
    /// Latest instant wanted, microseconds, inclusive.
    pub(crate) to_us: Option<i64>,
}

impl Prune {
    /// Reads the conjunction of `filters`, as they arrive at a scan of `vitals`.
    pub(crate) fn of(filters: &[Expr]) -> Self {
        let mut prune = Self::default();
        for filter in filters {
            prune.patients = both(prune.patients.take(), values_of(filter, "patient"));
            prune.codes = both(prune.codes.take(), values_of(filter, "code"));
            let (from, to) = span_of(filter);
            prune.from_us = later(prune.from_us, from);
            prune.to_us = earlier(prune.to_us, to);
        }
        prune
    }

    /// Whether rows that span `first_us..=last_us` can hold a wanted reading.
    pub(crate) fn overlaps(&self, first_us: i64, last_us: i64) -> bool {
        self.from_us.is_none_or(|from| last_us >= from)
            && self.to_us.is_none_or(|to| first_us <= to)
    }

    /// Whether a single reading can be wanted.
    pub(crate) fn wants(&self, code: &str, at_us: i64) -> bool {
        self.overlaps(at_us, at_us) && self.codes.as_ref().is_none_or(|codes| codes.contains(code))
    }
}

/// The only values of `column` for which `filter` can hold, if it limits them.
fn values_of(filter: &Expr, column: &str) -> Option<BTreeSet<String>> {
    match filter {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::And,
            right,
        }) => both(values_of(left, column), values_of(right, column)),
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Or,
            right,
        }) => {
            let (mut left, right) = (values_of(left, column)?, values_of(right, column)?);
            left.extend(right);
            Some(left)
        }
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Eq,
            right,
        }) => {
            let value = match (is(left, column), is(right, column)) {
                (true, false) => text(right)?,
                (false, true) => text(left)?,
                _ => return None,
            };
            Some(BTreeSet::from([value]))
        }
        Expr::InList(list) if !list.negated && is(&list.expr, column) => {
            list.list.iter().map(text).collect()
        }
        _ => None,
    }
}

/// The bounds that `filter` puts on `ts`.
fn span_of(filter: &Expr) -> (Option<i64>, Option<i64>) {
    match filter {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::And,
            right,
        }) => {
            let (left, right) = (span_of(left), span_of(right));
            (later(left.0, right.0), earlier(left.1, right.1))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (op, literal) = if is_instant(left) {
                (Some(*op), right)
            } else if is_instant(right) {
                (op.swap(), left)
            } else {
                return (None, None);
            };
            let Some((floor, ceiling)) = micros(literal) else {
                return (None, None);
            };
            match op {
                Some(Operator::Eq) => (Some(floor), Some(ceiling)),
                Some(Operator::Gt | Operator::GtEq) => (Some(floor), None),
                Some(Operator::Lt | Operator::LtEq) => (None, Some(ceiling)),
                _ => (None, None),
            }
        }
        Expr::Between(between) if !between.negated && is_instant(&between.expr) => (
            micros(&between.low).map(|low| low.0),
            micros(&between.high).map(|high| high.1),
        ),
        _ => (None, None),
    }
}

fn is(expr: &Expr, column: &str) -> bool {
    matches!(expr, Expr::Column(named) if named.name == column)
}

/// `ts`, or `ts` cast to another resolution of the same instant.
fn is_instant(expr: &Expr) -> bool {
    match expr {
        Expr::Cast(cast) => {
            matches!(
                cast.field.data_type(),
                DataType::Timestamp(TimeUnit::Nanosecond, _)
            ) && is(&cast.expr, "ts")
        }
        other => is(other, "ts"),
    }
}

fn text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Literal(
            ScalarValue::Utf8(Some(value))
            | ScalarValue::LargeUtf8(Some(value))
            | ScalarValue::Utf8View(Some(value)),
            _,
        ) => Some(value.clone()),
        _ => None,
    }
}

/// A literal instant in microseconds, rounded down and rounded up.
fn micros(expr: &Expr) -> Option<(i64, i64)> {
    match expr {
        Expr::Literal(ScalarValue::TimestampMicrosecond(Some(at), _), _) => Some((*at, *at)),
        Expr::Literal(ScalarValue::TimestampNanosecond(Some(at), _), _) => {
            let floor = at.div_euclid(1_000);
            Some((floor, floor.saturating_add(1)))
        }
        _ => None,
    }
}

fn both(a: Option<BTreeSet<String>>, b: Option<BTreeSet<String>>) -> Option<BTreeSet<String>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.intersection(&b).cloned().collect()),
        (a, None) => a,
        (None, b) => b,
    }
}

fn later(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    a.max(b)
}

fn earlier(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, None) => a,
        (None, b) => b,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{col, lit};

    use super::*;

    fn at(us: i64) -> Expr {
        Expr::Literal(
            ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into())),
            None,
        )
    }

    #[test]
    fn conjunctions_narrow_and_disjunctions_widen() {
        let filter = col("patient").eq(lit("a")).or(col("patient").eq(lit("b")));
        let prune = Prune::of(&[filter, col("code").in_list(vec![lit("x"), lit("y")], false)]);
        assert_eq!(
            prune.patients,
            Some(["a".to_owned(), "b".to_owned()].into())
        );
        assert_eq!(prune.codes, Some(["x".to_owned(), "y".to_owned()].into()));
        let prune = Prune::of(&[col("patient").eq(lit("a")), col("patient").eq(lit("b"))]);
        assert_eq!(prune.patients, Some(BTreeSet::new()));
    }

    #[test]
    fn what_is_not_understood_prunes_nothing() {
        for filter in [
            col("patient").not_eq(lit("a")),
            col("patient").eq(lit("a")).or(col("value").gt(lit(1.0))),
            col("patient").in_list(vec![lit("a")], true),
            col("patient").eq(col("device")),
            col("patient").in_list(vec![lit("a"), col("device")], false),
            !col("patient").eq(lit("a")),
            col("ts").gt(at(5)).or(col("ts").lt(at(1))),
        ] {
            assert_eq!(
                Prune::of(std::slice::from_ref(&filter)),
                Prune::default(),
                "{filter}"
            );
        }
    }

    #[test]
    fn times_are_bounded_from_either_side() {
        let prune = Prune::of(&[col("ts").gt_eq(at(10)), at(20).gt(col("ts"))]);
        assert_eq!((prune.from_us, prune.to_us), (Some(10), Some(20)));
        assert!(prune.overlaps(0, 10) && prune.overlaps(20, 30) && prune.overlaps(0, 100));
        assert!(!prune.overlaps(0, 9) && !prune.overlaps(21, 30));
        let prune = Prune::of(&[col("ts").between(at(-5), at(5))]);
        assert_eq!((prune.from_us, prune.to_us), (Some(-5), Some(5)));
        let nanos = Expr::Literal(ScalarValue::TimestampNanosecond(Some(-1_500), None), None);
        let prune = Prune::of(&[col("ts").eq(nanos)]);
        assert_eq!((prune.from_us, prune.to_us), (Some(-2), Some(-1)));
    }
}
