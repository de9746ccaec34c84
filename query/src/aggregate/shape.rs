//! Which aggregates can be folded, and what each of their columns is.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::{Column as ColumnExpr, Literal};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr, ScalarFunctionExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::projection::ProjectionExec;

use crate::decrypt::{Column, DecryptExec};
use crate::table::{Scan, instant};

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
    /// The shape of `plan`, and what it stands on; `None` unless every part of it is understood.
    pub(crate) fn of(plan: &Arc<dyn ExecutionPlan>) -> Option<(Self, Scan)> {
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
        let (input, scan) = plain.then(|| Input::of(first.input()))??;
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
        let types = keys.iter().map(Key::data_type);
        let types: Vec<DataType> = types
            .chain(folds.iter().map(|fold| fold.data_type(&keys)))
            .collect();
        let found = schema.fields().iter().map(|field| field.data_type());
        let shape = Self {
            keys,
            folds,
            schema: Arc::clone(&schema),
        };
        types.iter().eq(found).then_some((shape, scan))
    }
}

impl Key {
    fn data_type(&self) -> DataType {
        match self {
            Self::Text(_) => DataType::Utf8View,
            Self::Step(_) => instant(),
        }
    }
}

impl Fold {
    fn data_type(self, keys: &[Key]) -> DataType {
        match self {
            Self::Count => DataType::Int64,
            Self::First | Self::Last => instant(),
            Self::Key(at) => keys.get(at).map_or(DataType::Null, Key::data_type),
            _ => DataType::Float64,
        }
    }
}

/// What the columns that reach an aggregate are in the table.
struct Input(Vec<Column>);

impl Input {
    fn of(plan: &Arc<dyn ExecutionPlan>) -> Option<(Self, Scan)> {
        if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
            let (below, scan) = Self::of(projection.input())?;
            let columns = projection.expr().iter().map(|p| below.column(&p.expr));
            return Some((Self(columns.collect::<Option<_>>()?), scan));
        }
        let decrypt = plan.downcast_ref::<DecryptExec>()?;
        let schema = decrypt.yields_all_readings().then(|| plan.schema())?;
        let columns = schema.fields().iter().map(|f| Column::named(f.name()));
        Some((
            Self(columns.collect::<Option<_>>()?),
            decrypt.scan().clone(),
        ))
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
