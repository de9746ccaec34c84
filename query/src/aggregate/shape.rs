//! Which aggregates can be folded, and what each of their columns is.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column as ColumnExpr, Literal};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr, ScalarFunctionExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::projection::ProjectionExec;

use crate::decrypt::Column;
use crate::table::instant;

/// What a group is told from others by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// A text that is one for a whole series.
    Text(Column),
    /// `ts`, cut off to a multiple of so many microseconds since the Unix epoch.
    Step(i64),
}

/// What is asked of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fold {
    Count,
    Min,
    Max,
    Sum,
    Average,
    First,
    Last,
    LastValue,
    /// The group's own key of this place.
    Key(usize),
}

/// An aggregate that can be folded.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) keys: Vec<Key>,
    pub(crate) folds: Vec<Fold>,
    /// Of the rows that come out: the keys, then the folds.
    pub(crate) schema: SchemaRef,
}

impl Shape {
    /// The shape of `plan`, and the `leaf` that it stands on; `None` unless every part of it is understood.
    pub(crate) fn of<L>(
        plan: &Arc<dyn ExecutionPlan>,
        leaf: fn(&Arc<dyn ExecutionPlan>) -> Option<L>,
    ) -> Option<(Self, L)> {
        let last = plan.downcast_ref::<AggregateExec>()?;
        let first = match last.mode() {
            AggregateMode::Single | AggregateMode::SinglePartitioned => last,
            AggregateMode::Final | AggregateMode::FinalPartitioned => {
                let first = last.input().downcast_ref::<AggregateExec>()?;
                (*first.mode() == AggregateMode::Partial).then_some(first)?
            }
            _ => return None,
        };
        let plain = last.limit_options().is_none()
            && first.limit_options().is_none()
            && first.filter_expr().iter().all(Option::is_none)
            && !first.group_expr().has_grouping_set();
        let (input, leaf) = plain.then(|| Input::of(first.input(), leaf))??;
        let keys = first.group_expr().expr().iter();
        let keys: Vec<Key> = keys
            .map(|(expr, _)| input.key(expr))
            .collect::<Option<_>>()?;
        if keys
            .iter()
            .filter(|key| matches!(key, Key::Step(_)))
            .count()
            > 1
        {
            return None;
        }
        let folds = first.aggr_expr().iter();
        let folds: Vec<Fold> = folds
            .map(|asked| input.fold(asked, &keys))
            .collect::<Option<_>>()?;
        let schema = plan.schema();
        let mut found = schema.fields().iter().map(|field| field.data_type());
        let as_expected = keys
            .iter()
            .all(|key| found.next().is_some_and(|t| key.is(t)))
            && folds
                .iter()
                .all(|fold| found.next().is_some_and(|t| fold.is(&keys, t)))
            && found.next().is_none();
        let shape = Self {
            keys,
            folds,
            schema: Arc::clone(&schema),
        };
        as_expected.then_some((shape, leaf))
    }
}

impl Key {
    /// Whether its column is of this type. A function may have made a step finer than it is.
    fn is(&self, found: &DataType) -> bool {
        match self {
            Self::Text(_) => *found == DataType::Utf8View,
            Self::Step(_) => matches!(
                found,
                DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, _)
            ),
        }
    }
}

impl Fold {
    fn is(self, keys: &[Key], found: &DataType) -> bool {
        match self {
            Self::Count => *found == DataType::Int64,
            Self::First | Self::Last => *found == instant(),
            Self::Key(at) => keys.get(at).is_some_and(|key| key.is(found)),
            _ => *found == DataType::Float64,
        }
    }
}

/// What the columns that reach an aggregate are in the table.
struct Input(Vec<Column>);

impl Input {
    fn of<L>(
        plan: &Arc<dyn ExecutionPlan>,
        leaf: fn(&Arc<dyn ExecutionPlan>) -> Option<L>,
    ) -> Option<(Self, L)> {
        if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
            let (below, leaf) = Self::of(projection.input(), leaf)?;
            let columns = projection.expr().iter().map(|p| below.column(&p.expr));
            return Some((Self(columns.collect::<Option<_>>()?), leaf));
        }
        let leaf = leaf(plan)?;
        let schema = plan.schema();
        let columns = schema.fields().iter().map(|f| Column::named(f.name()));
        Some((Self(columns.collect::<Option<_>>()?), leaf))
    }

    fn column(&self, expr: &Arc<dyn PhysicalExpr>) -> Option<Column> {
        let column = expr.downcast_ref::<ColumnExpr>()?;
        self.0.get(column.index()).copied()
    }

    fn key(&self, expr: &Arc<dyn PhysicalExpr>) -> Option<Key> {
        if let Some(column) = self.column(expr) {
            return match column {
                Column::Patient
                | Column::Device
                | Column::Code
                | Column::Display
                | Column::Unit => Some(Key::Text(column)),
                _ => None,
            };
        }
        let call = expr.downcast_ref::<ScalarFunctionExpr>()?;
        let [step, of] = call.args() else { return None };
        let step = step.downcast_ref::<Literal>()?.value();
        // The functions are not for every unit of time.
        let of = match of.downcast_ref::<CastExpr>() {
            Some(cast) if Key::Step(1).is(cast.cast_type()) => cast.expr(),
            _ => of,
        };
        (self.column(of)? == Column::At).then_some(())?;
        let width = match (call.name(), step) {
            ("date_trunc", ScalarValue::Utf8(Some(unit)) | ScalarValue::Utf8View(Some(unit))) => {
                match unit.to_lowercase().as_str() {
                    "second" => 1_000_000,
                    "minute" => 60_000_000,
                    "hour" => 3_600_000_000,
                    "day" => 86_400_000_000,
                    _ => return None,
                }
            }
            ("date_bin", ScalarValue::IntervalMonthDayNano(Some(step))) => {
                let whole = step.months == 0 && step.nanoseconds % 1_000 == 0;
                let days = i64::from(step.days).checked_mul(86_400_000_000);
                let width = days.and_then(|days| days.checked_add(step.nanoseconds / 1_000));
                width.filter(|width| whole && *width > 0)?
            }
            _ => return None,
        };
        Some(Key::Step(width))
    }

    fn fold(&self, asked: &AggregateFunctionExpr, keys: &[Key]) -> Option<Fold> {
        let arguments = asked.expressions();
        let [argument] = arguments.as_slice() else {
            return None;
        };
        if asked.is_distinct() {
            return None;
        }
        let column = self.column(argument);
        match asked.fun().name() {
            "count" => {
                let constant = argument.downcast_ref::<Literal>();
                let never_null = constant.map_or(column.is_some(), |it| !it.value().is_null());
                never_null.then_some(Fold::Count)
            }
            "min" => match column? {
                Column::Value => Some(Fold::Min),
                Column::At => Some(Fold::First),
                _ => None,
            },
            "max" => match column? {
                Column::Value => Some(Fold::Max),
                Column::At => Some(Fold::Last),
                _ => None,
            },
            "sum" => (column? == Column::Value).then_some(Fold::Sum),
            "avg" => (column? == Column::Value).then_some(Fold::Average),
            "first_value" => self.latest(column?, asked.order_bys(), true, keys),
            "last_value" => self.latest(column?, asked.order_bys(), false, keys),
            _ => None,
        }
    }

    /// Of the reading with the greatest `ts`, when that is what the order (falling, or else rising) comes to. Keys are the
    /// same within a group, so they order nothing.
    fn latest(
        &self,
        column: Column,
        order: &[PhysicalSortExpr],
        falling: bool,
        keys: &[Key],
    ) -> Option<Fold> {
        let at = keys.iter().position(|key| *key == Key::Text(column));
        if let Some(at) = at {
            return Some(Fold::Key(at));
        }
        let mut order = order.iter().filter(|by| {
            let key = self.key(&by.expr);
            key.is_none_or(|key| !keys.contains(&key))
        });
        let (by, None) = (order.next()?, order.next()) else {
            return None;
        };
        let latest = self.column(&by.expr)? == Column::At && by.options.descending == falling;
        match column {
            Column::Value if latest => Some(Fold::LastValue),
            Column::At if latest => Some(Fold::Last),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::datasource::MemTable;
    use datafusion::execution::session_state::SessionStateBuilder;
    use datafusion::prelude::SessionContext;

    use super::*;
    use crate::table::vitals_schema;

    /// The first shape in the plan that the engine makes of `sql` before it optimizes it.
    async fn shape(sql: &str) -> Option<Shape> {
        let state = SessionStateBuilder::new_with_default_features()
            .with_physical_optimizer_rules(Vec::new())
            .build();
        let context = SessionContext::new_with_state(state);
        let table = MemTable::try_new(vitals_schema(), vec![vec![]]).unwrap();
        context.register_table("vitals", Arc::new(table)).unwrap();
        let plan = context.sql(sql).await.unwrap();
        let mut nodes = vec![plan.create_physical_plan().await.unwrap()];
        while let Some(node) = nodes.pop() {
            if let Some((shape, ())) =
                Shape::of(&node, |plan| plan.children().is_empty().then_some(()))
            {
                return Some(shape);
            }
            nodes.extend(node.children().into_iter().cloned());
        }
        None
    }

    #[tokio::test]
    async fn the_aggregates_that_people_ask_for_are_folded() {
        for (sql, keys, folds) in [
            ("SELECT count(*) FROM vitals", 0, 1),
            (
                "SELECT code, count(*), avg(value), min(value), max(value), sum(value) FROM vitals GROUP BY code",
                1,
                5,
            ),
            ("SELECT DISTINCT patient, unit FROM vitals", 2, 0),
            ("SELECT min(ts), max(ts), count(ts) FROM vitals", 0, 3),
            (
                "SELECT patient, code, last_value(value ORDER BY ts), max(ts) FROM vitals GROUP BY patient, code",
                2,
                2,
            ),
            (
                "SELECT DISTINCT ON (patient, code) patient, code, value, ts FROM vitals ORDER BY patient, code, ts DESC",
                2,
                4,
            ),
            (
                "SELECT date_trunc('minute', ts) AS minute, code, avg(value) FROM vitals GROUP BY minute, code",
                2,
                1,
            ),
            (
                "SELECT date_bin(INTERVAL '1 minute', ts), avg(value) FROM vitals GROUP BY 1",
                1,
                1,
            ),
        ] {
            let shape = shape(sql).await;
            let shape = shape.unwrap_or_else(|| panic!("not folded: {sql}"));
            assert_eq!(
                (shape.keys.len(), shape.folds.len()),
                (keys, folds),
                "{sql}"
            );
        }
    }

    #[tokio::test]
    async fn whatever_is_not_understood_completely_is_left_to_the_engine() {
        for sql in [
            "SELECT value, count(*) FROM vitals GROUP BY value",
            "SELECT count(*) FROM vitals WHERE value > 1",
            "SELECT count(*) FILTER (WHERE code = 'x') FROM vitals",
            "SELECT max(code) FROM vitals",
            "SELECT sum(value + 1) FROM vitals",
            "SELECT stddev(value) FROM vitals",
            "SELECT count(NULL) FROM vitals",
            "SELECT last_value(value ORDER BY ts DESC) FROM vitals",
            "SELECT first_value(value ORDER BY value DESC) FROM vitals",
            "SELECT last_value(value) FROM vitals",
            "SELECT date_trunc('month', ts), count(*) FROM vitals GROUP BY 1",
            "SELECT date_bin(INTERVAL '1 month', ts), count(*) FROM vitals GROUP BY 1",
            "SELECT patient, count(*) FROM vitals GROUP BY ROLLUP (patient)",
            "SELECT count(*) FROM vitals a JOIN vitals b ON a.ts = b.ts",
            "SELECT count(*) FROM (SELECT ts FROM vitals LIMIT 5)",
        ] {
            assert!(shape(sql).await.is_none(), "{sql}");
        }
    }
}
