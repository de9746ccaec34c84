//! From the engine's expressions to a [`Test`].
//!
//! What is understood completely can be decided here alone; of the rest, what it certainly excludes is kept. The grammar is
//! closed under what the optimizer does to it (lists to disjunctions and back, negations pushed down, casts unwrapped), so
//! that a filter which was understood when it was offered still is when it arrives.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema, TimeUnit};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::expr_rewriter::unnormalize_col;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, Operator};
use datafusion::physical_expr::expressions::{
    BinaryExpr, CastExpr, Column, DynamicFilterPhysicalExpr, InListExpr, IsNotNullExpr, IsNullExpr,
    Literal, NotExpr,
};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};

use super::{Test, Text, ordinal};

/// A filter, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parsed {
    /// Holds wherever the filter holds.
    pub(crate) test: Test,
    /// Whether it holds nowhere else.
    pub(crate) exact: bool,
}

impl Parsed {
    const UNKNOWN: Self = Self {
        test: Test::Always,
        exact: false,
    };

    /// Reads a filter as a table of `schema` is offered it.
    pub(crate) fn of(filter: &Expr, schema: &Schema) -> Self {
        let physical = || {
            let columns = DFSchema::try_from(schema.clone()).ok()?;
            create_physical_expr(
                &unnormalize_col(filter.clone()),
                &columns,
                &ExecutionProps::new(),
                &PhysicalPlanningContext::default(),
            )
            .ok()
        };
        physical().map_or(Self::UNKNOWN, |filter| Self::of_physical(&filter, schema))
    }

    /// Reads a filter over the columns of `schema`.
    pub(crate) fn of_physical(filter: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Self {
        let read = |filter| Self::of_physical(filter, schema);
        if let Some(dynamic) = filter.downcast_ref::<DynamicFilterPhysicalExpr>() {
            return dynamic
                .current()
                .map_or(Self::UNKNOWN, |current| Self::of_physical(&current, schema));
        }
        if let Some(not) = filter.downcast_ref::<NotExpr>() {
            return read(not.arg()).negated();
        }
        if let Some(literal) = filter.downcast_ref::<Literal>() {
            return match literal.value() {
                ScalarValue::Boolean(Some(true)) => Self::exactly(Test::Always),
                ScalarValue::Boolean(Some(false)) => Self::exactly(Test::Never),
                _ => Self::UNKNOWN,
            };
        }
        if let Some(null) = filter.downcast_ref::<IsNullExpr>() {
            return Self::null(null.arg(), Test::Never);
        }
        if let Some(null) = filter.downcast_ref::<IsNotNullExpr>() {
            return Self::null(null.arg(), Test::Always);
        }
        if let Some(list) = filter.downcast_ref::<InListExpr>() {
            let column = Subject::of(list.expr(), schema);
            let equal = |item| match (column, literal(item)) {
                (Some(column), Some(item)) => column.compare(Operator::Eq, item),
                _ => None,
            };
            let tests: Option<Vec<Test>> = list.list().iter().map(equal).collect();
            let read = tests.map_or(Self::UNKNOWN, |tests| Self::exactly(joined(tests)));
            return if list.negated() { read.negated() } else { read };
        }
        let Some(binary) = filter.downcast_ref::<BinaryExpr>() else {
            return Self::UNKNOWN;
        };
        match binary.op() {
            Operator::And => {
                let (left, right) = (read(binary.left()), read(binary.right()));
                Self {
                    test: Test::all([left.test, right.test]),
                    exact: left.exact && right.exact,
                }
            }
            Operator::Or => {
                let (left, right) = (read(binary.left()), read(binary.right()));
                Self {
                    test: joined(vec![left.test, right.test]),
                    exact: left.exact && right.exact,
                }
            }
            op => Self::comparison(binary.left(), *op, binary.right(), schema),
        }
    }

    fn comparison(
        left: &Arc<dyn PhysicalExpr>,
        op: Operator,
        right: &Arc<dyn PhysicalExpr>,
        schema: &Schema,
    ) -> Self {
        let sides = match (Subject::of(left, schema), literal(right)) {
            (Some(column), Some(value)) => Some((column, op, value)),
            _ => match (Subject::of(right, schema), op.swap(), literal(left)) {
                (Some(column), Some(op), Some(value)) => Some((column, op, value)),
                _ => None,
            },
        };
        sides
            .and_then(|(column, op, value)| column.compare(op, value))
            .map_or(Self::UNKNOWN, Self::exactly)
    }

    fn exactly(test: Test) -> Self {
        Self { test, exact: true }
    }

    /// No column is ever null.
    fn null(of: &Arc<dyn PhysicalExpr>, answer: Test) -> Self {
        if of.downcast_ref::<Column>().is_some() {
            Self::exactly(answer)
        } else {
            Self::UNKNOWN
        }
    }

    /// Not understood within is not understood without: what it excludes is what the negation wants.
    fn negated(self) -> Self {
        if self.exact {
            Self::exactly(match self.test {
                Test::Always => Test::Never,
                Test::Never => Test::Always,
                Test::Not(test) => *test,
                test => Test::Not(Box::new(test)),
            })
        } else {
            Self::UNKNOWN
        }
    }
}

/// What a comparison is about.
#[derive(Clone, Copy, Debug)]
enum Subject {
    Text(Text),
    Value,
    /// `ts`; the number is how many of the literal's units are a microsecond.
    Time(i64),
}

impl Subject {
    fn of(expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Option<Self> {
        if let Some(cast) = expr.downcast_ref::<CastExpr>() {
            let finer = matches!(
                cast.cast_type(),
                DataType::Timestamp(TimeUnit::Nanosecond, _)
            );
            return match Self::of(cast.expr(), schema)? {
                Self::Time(1) if finer => Some(Self::Time(1_000)),
                Self::Text(text) if cast.cast_type().is_string() => Some(Self::Text(text)),
                _ => None,
            };
        }
        let column = expr.downcast_ref::<Column>()?;
        // By place, not by the name that the expression carries: that may be an alias.
        match schema.fields().get(column.index())?.name().as_str() {
            "patient" => Some(Self::Text(Text::Patient)),
            "device" => Some(Self::Text(Text::Device)),
            "code" => Some(Self::Text(Text::Code)),
            "display" => Some(Self::Text(Text::Display)),
            "unit" => Some(Self::Text(Text::Unit)),
            "quality" => Some(Self::Text(Text::Quality)),
            "value" => Some(Self::Value),
            // A waveform is wanted by its first sample.
            "ts" | "start" => Some(Self::Time(1)),
            _ => None,
        }
    }

    fn compare(self, op: Operator, literal: &ScalarValue) -> Option<Test> {
        match (self, literal) {
            (
                Self::Text(text),
                ScalarValue::Utf8(Some(value))
                | ScalarValue::LargeUtf8(Some(value))
                | ScalarValue::Utf8View(Some(value)),
            ) => {
                let equal = Test::Text(text, BTreeSet::from([value.clone()]));
                match op {
                    Operator::Eq => Some(equal),
                    Operator::NotEq => Some(Test::Not(Box::new(equal))),
                    _ => None,
                }
            }
            (Self::Value, ScalarValue::Float64(Some(value))) => {
                let at = ordinal(*value);
                between(op, Some(at), at, at, Test::Value)
            }
            (Self::Time(1), ScalarValue::TimestampMicrosecond(Some(at), _)) => {
                between(op, Some(*at), *at, *at, Test::Time)
            }
            (Self::Time(units @ 1_000), ScalarValue::TimestampNanosecond(Some(at), _)) => {
                let floor = at.div_euclid(units);
                let whole = at.rem_euclid(units) == 0;
                let ceiling = if whole { floor } else { floor + 1 };
                between(op, whole.then_some(floor), floor, ceiling, Test::Time)
            }
            _ => None,
        }
    }
}

/// The test of `op` against a literal between the integers `floor` and `ceiling`; it is `equal` if both are the same.
fn between(
    op: Operator,
    equal: Option<i64>,
    floor: i64,
    ceiling: i64,
    test: fn(Vec<(i64, i64)>) -> Test,
) -> Option<Test> {
    let test = |low, high| test(vec![(low, high)]);
    let point = equal.map_or(Test::Never, |at| test(at, at));
    Some(match op {
        Operator::Eq => point,
        Operator::NotEq => match point {
            Test::Never => Test::Always,
            point => Test::Not(Box::new(point)),
        },
        Operator::Lt => ceiling
            .checked_sub(1)
            .map_or(Test::Never, |high| test(i64::MIN, high)),
        Operator::LtEq => test(i64::MIN, floor),
        Operator::Gt => floor
            .checked_add(1)
            .map_or(Test::Never, |low| test(low, i64::MAX)),
        Operator::GtEq => test(ceiling, i64::MAX),
        _ => return None,
    })
}

/// A disjunction; tests of the same column become one set.
fn joined(tests: Vec<Test>) -> Test {
    let mut sets: Vec<(Text, BTreeSet<String>)> = Vec::new();
    let (mut times, mut values) = (Vec::new(), Vec::new());
    let mut others = Vec::new();
    let members = tests.into_iter().flat_map(|test| match test {
        Test::Any(inner) => inner,
        other => vec![other],
    });
    for test in members {
        match test {
            Test::Text(column, values) => {
                match sets.iter_mut().find(|(known, _)| *known == column) {
                    Some((_, set)) => set.extend(values),
                    None => sets.push((column, values)),
                }
            }
            Test::Time(ranges) => times.extend(ranges),
            Test::Value(ranges) => values.extend(ranges),
            other => others.push(other),
        }
    }
    let sets = sets
        .into_iter()
        .map(|(column, values)| Test::Text(column, values));
    let numbers = [(times, Test::Time as fn(_) -> _), (values, Test::Value)];
    let numbers = numbers
        .into_iter()
        .filter(|(ranges, _)| !ranges.is_empty())
        .map(|(ranges, test)| test(united(ranges)));
    Test::any(others.into_iter().chain(sets).chain(numbers))
}

/// The same numbers in ranges that rise and lie apart.
fn united(mut ranges: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| {
        let meets = next.0 <= last.1;
        if meets {
            last.1 = last.1.max(next.1);
        }
        meets
    });
    ranges
}

fn literal(expr: &Arc<dyn PhysicalExpr>) -> Option<&ScalarValue> {
    expr.downcast_ref::<Literal>().map(Literal::value)
}
