//! Summaries of flows: what `history` has of each transaction id, day by day. Only what adds up, so that
//! it can be made of rows in any order; a verdict is never stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Int64Array, ListArray, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use datafusion::functions_nested::expr_fn::make_array;
use datafusion::prelude::{Expr, cast, col, lit, when};
use flowtap_record::history_schema;

use super::lists::Least;
use super::{Derived, Fold};
use crate::ingest::files::SortedBy;

/// The table of flow summaries.
pub(crate) static FLOWS: Derived = Derived {
    name: "flows",
    version: 1,
    sorted_by: SortedBy { key: "flow", time: "first_at" },
    schema,
    of_rows: || col("transaction_id").is_not_null(),
    part,
    fold: || Box::new(Flows::default()),
};

/// What is counted, and the rows that count: of which kind, with which outcomes. None: all.
const COUNTS: [(&str, Option<&str>, &[&str]); 11] = [
    ("rows", None, &[]),
    ("publishes", Some("publish"), &[]),
    ("delivers", Some("deliver"), &[]),
    ("settled", Some("settle"), &["acked", "committed", "auto"]),
    ("rejected", Some("settle"), &["rejected"]),
    ("requeued", Some("settle"), &["requeued"]),
    ("abandoned", Some("settle"), &["abandoned"]),
    (CONFIRMS_EXPECTED, Some("publish"), &[]),
    ("confirmed", Some("confirm"), &["confirmed"]),
    ("refused", Some("confirm"), &["refused"]),
    ("unroutable", Some("return"), &[]),
];
/// Counts the publishes that say so.
const CONFIRMS_EXPECTED: &str = "confirms_expected";

/// Lists, each of one column of `history`.
const LISTS: [(&str, &str); 3] =
    [("services", "service"), ("types", "event_type"), ("systems", "system")];

/// The type of [`LISTS`].
pub(crate) fn texts() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)))
}

/// The type of `keys`, that of `history`.
pub(crate) fn keys() -> DataType {
    let history = history_schema();
    let keys = history.fields().find("keys").map(|(_, field)| field.data_type().clone());
    keys.unwrap_or(DataType::Null)
}

fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let mut fields = vec![
        Field::new("flow", DataType::Utf8, false),
        Field::new("first_at", time.clone(), false),
        Field::new("last_at", time, false),
    ];
    fields.extend(COUNTS.map(|(name, ..)| Field::new(name, DataType::Int64, false)));
    fields.push(Field::new("command", DataType::Utf8, true));
    fields.extend(LISTS.map(|(name, _)| Field::new(name, texts(), true)));
    fields.push(Field::new("keys", keys(), true));
    fields.push(Field::new("day", DataType::Date32, false));
    Arc::new(Schema::new(fields))
}

/// What one row of `history` tells of its flow.
fn part() -> Vec<Expr> {
    // A row with a transaction id has it as its cluster key, too, and by that files are left out.
    let mut columns = vec![
        col("cluster_key").alias("flow"),
        col("at").alias("first_at"),
        col("at").alias("last_at"),
    ];
    columns.extend(COUNTS.map(|(name, kind, outcomes)| {
        let mut counts = kind.map_or(lit(true), |kind| col("kind").eq(lit(kind)));
        if !outcomes.is_empty() {
            let outcomes = outcomes.iter().map(|outcome| lit(*outcome)).collect();
            counts = counts.and(col("outcome").in_list(outcomes, false));
        }
        if name == CONFIRMS_EXPECTED {
            counts = counts.and(col("confirm_expected").is_true());
        }
        one_if(counts).alias(name)
    }));
    columns.push(col("command"));
    columns.extend(LISTS.map(|(name, column)| {
        let list = cast(make_array(vec![col(column)]), texts());
        none_unless(col(column).is_not_null(), list).alias(name)
    }));
    columns.extend([col("keys"), col("day")]);
    columns
}

fn one_if(condition: Expr) -> Expr {
    cast(condition.is_true(), DataType::Int64)
}

fn none_unless(condition: Expr, value: Expr) -> Expr {
    when(condition, value).end().expect("it has a branch")
}

/// Flows by day and id.
#[derive(Default)]
struct Flows {
    days: BTreeMap<i32, BTreeMap<String, Summary>>,
    len: usize,
}

#[derive(Clone, Default)]
struct Summary {
    first_at: i64,
    last_at: i64,
    counts: [i64; COUNTS.len()],
    /// The least, should there be more than one.
    command: Option<String>,
    lists: [Least<1>; LISTS.len()],
    keys: Least<3>,
}

/// The columns of parts.
struct Columns<'a> {
    flow: &'a StringArray,
    first_at: &'a TimestampMicrosecondArray,
    last_at: &'a TimestampMicrosecondArray,
    counts: Vec<&'a Int64Array>,
    command: &'a StringArray,
    lists: Vec<&'a ListArray>,
    keys: &'a ListArray,
    day: &'a Date32Array,
}

impl<'a> Columns<'a> {
    fn of(parts: &'a RecordBatch) -> Option<Self> {
        let column = |name: &str| parts.column_by_name(name);
        let text = |name| column(name)?.as_string_opt::<i32>();
        let time = |name| column(name)?.as_primitive_opt::<TimestampMicrosecondType>();
        let number = |name| column(name)?.as_primitive_opt::<Int64Type>();
        let list = |name| column(name)?.as_list_opt::<i32>();
        Some(Self {
            flow: text("flow")?,
            first_at: time("first_at")?,
            last_at: time("last_at")?,
            counts: COUNTS.iter().map(|(name, ..)| number(name)).collect::<Option<_>>()?,
            command: text("command")?,
            lists: LISTS.iter().map(|(name, _)| list(name)).collect::<Option<_>>()?,
            keys: list("keys")?,
            day: column("day")?.as_primitive_opt::<Date32Type>()?,
        })
    }
}

impl Summary {
    fn begin(columns: &Columns<'_>, row: usize) -> Self {
        let (first_at, last_at) = (columns.first_at.value(row), columns.last_at.value(row));
        Self { first_at, last_at, ..Self::default() }
    }

    fn add(&mut self, columns: &Columns<'_>, row: usize) -> Result<(), String> {
        self.first_at = self.first_at.min(columns.first_at.value(row));
        self.last_at = self.last_at.max(columns.last_at.value(row));
        for (sum, counts) in self.counts.iter_mut().zip(&columns.counts) {
            *sum += counts.value(row);
        }
        if columns.command.is_valid(row) {
            let command = columns.command.value(row);
            if self.command.as_deref().is_none_or(|known| command < known) {
                self.command = Some(command.to_owned());
            }
        }
        for (list, lists) in self.lists.iter_mut().zip(&columns.lists) {
            list.add(lists, row)?;
        }
        self.keys.add(columns.keys, row)
    }
}

impl Fold for Flows {
    fn add(&mut self, parts: &RecordBatch) -> Result<(), String> {
        let columns = Columns::of(parts).ok_or("parts of flows lack a column")?;
        for row in 0..parts.num_rows() {
            let flows = self.days.entry(columns.day.value(row)).or_default();
            let flow = columns.flow.value(row);
            if let Some(known) = flows.get_mut(flow) {
                known.add(&columns, row)?;
            } else {
                let mut new = Summary::begin(&columns, row);
                new.add(&columns, row)?;
                flows.insert(flow.to_owned(), new);
                self.len += 1;
            }
        }
        Ok(())
    }

    fn len(&self) -> usize {
        self.len
    }

    fn take(&mut self, but_the_last: bool) -> Result<RecordBatch, String> {
        let mut out = std::mem::take(self);
        if but_the_last
            && let Some((day, mut flows)) = out.days.pop_last()
            && let Some((flow, last)) = flows.pop_last()
        {
            out.days.insert(day, flows);
            self.days.entry(day).or_default().insert(flow, last);
            self.len = 1;
        }
        out.write()
    }
}

impl Flows {
    fn write(&self) -> Result<RecordBatch, String> {
        let all: Vec<(i32, &String, &Summary)> = self
            .days
            .iter()
            .flat_map(|(day, flows)| flows.iter().map(|(flow, it)| (*day, flow, it)))
            .collect();
        let time = |of: fn(&Summary) -> i64| -> ArrayRef {
            let times = all.iter().map(|(_, _, it)| of(it));
            Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
        };
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(all.iter().map(|(_, flow, _)| flow))),
            time(|it| it.first_at),
            time(|it| it.last_at),
        ];
        for index in 0..COUNTS.len() {
            let counts = all.iter().map(|(_, _, it)| it.counts[index]);
            columns.push(Arc::new(Int64Array::from_iter_values(counts)));
        }
        let commands = all.iter().map(|(_, _, it)| it.command.as_deref());
        columns.push(Arc::new(commands.collect::<StringArray>()));
        for index in 0..LISTS.len() {
            let lists = all.iter().map(|(_, _, it)| &it.lists[index]);
            columns.push(Least::write(lists, &texts())?);
        }
        columns.push(Least::write(all.iter().map(|(_, _, it)| &it.keys), &keys())?);
        let days = all.iter().map(|(day, ..)| *day);
        columns.push(Arc::new(Date32Array::from_iter_values(days)));
        RecordBatch::try_new(schema(), columns).map_err(|error| error.to_string())
    }
}
