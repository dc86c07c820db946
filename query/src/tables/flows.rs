//! `flow_parts`, of which the views `flows` and `flow_days` are made: what the derived table has, and
//! a part for each row that is not in it. It is looked for only when somebody asks.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Date32Type, Field, Int64Type, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::catalog::view::ViewTable;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::datasource::{TableProvider, TableType, provider_as_source};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{
    Accumulator, ColumnarValue, Expr, LogicalPlan, LogicalPlanBuilder, TableProviderFilterPushDown,
    Volatility, create_udaf, create_udf,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{SessionContext, col};
use tracing::warn;

use super::files::of_derived;
use super::{Limits, TablesError, empty_context, history};
use crate::derived::Derived;
use crate::derived::covered::Split;
use crate::derived::flows::{self, FLOWS};
use crate::derived::lists::Least;
use crate::derived::state::Boots;
use crate::store::{Inbox, Store};

/// Memory that a scan for a derived table may take besides what is put together.
const MEMORY: usize = 256 << 20;
/// Columns that say which row made a part.
const ROW: [&str; 3] = ["agent", "boot", "seq"];

/// Makes the functions known by which lists are put together.
pub(super) fn register(workshop: &SessionContext) {
    lists::<1>(workshop, "all_texts", &flows::texts());
    lists::<3>(workshop, "all_keys", &flows::keys());
}

fn lists<const N: usize>(workshop: &SessionContext, name: &str, of: &DataType) {
    let list = of.clone();
    workshop.register_udaf(create_udaf(
        name,
        vec![of.clone()],
        Arc::new(of.clone()),
        Volatility::Immutable,
        Arc::new(move |_| Ok(Box::new(Lists::<N> { items: Least::default(), of: list.clone() }))),
        Arc::new(vec![of.clone()]),
    ));
}

#[derive(Debug)]
struct Lists<const N: usize> {
    items: Least<N>,
    of: DataType,
}

impl<const N: usize> Accumulator for Lists<N> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let lists = values[0].as_list::<i32>();
        let mut rows = 0..lists.len();
        rows.try_for_each(|row| self.items.add(lists, row)).map_err(DataFusionError::Execution)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let written = Least::write(std::iter::once(&self.items), &self.of);
        ScalarValue::try_from_array(&written.map_err(DataFusionError::Execution)?, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.items.bytes()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }
}

/// The table `flow_parts`.
pub(super) struct Parts {
    store: Store,
    inbox: Arc<Inbox>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("store", &self.store.url()).finish_non_exhaustive()
    }
}

impl Parts {
    pub(super) fn new(store: &Store, inbox: &Arc<Inbox>) -> Self {
        Self { store: store.clone(), inbox: Arc::clone(inbox) }
    }

    /// Each row of `history` and of the inbox once.
    async fn plan(&self) -> Result<LogicalPlan> {
        let fresh = of_rows(&FLOWS, history::fresh(&self.inbox)?, false)?;
        let Some(history) = self.inbox.history.as_ref() else { return fresh.build() };
        let split = match FLOWS.covered(&self.store).await {
            Ok(Some(covered)) => covered.split(history, None),
            Ok(None) => Split::none(history),
            Err(error) => {
                // All of it can be made of `history`, which takes longer.
                warn!(%error, "the derived table is not used");
                Split::none(history)
            }
        };
        let parts = of_derived(&FLOWS, &split.parts);
        let parts = LogicalPlanBuilder::scan("parts", provider_as_source(Arc::new(parts)), None)?;
        parts.union(fresh.build()?)?.union(beside(&FLOWS, &split, false)?.build()?)?.build()
    }
}

#[async_trait]
impl TableProvider for Parts {
    fn schema(&self) -> SchemaRef {
        let fields = (FLOWS.schema)();
        let fields = fields.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        Arc::new(Schema::new(fields.collect::<Vec<Field>>()))
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Exact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let view = ViewTable::new(self.plan().await?, None);
        view.scan(session, projection, filters, limit).await
    }
}

/// A part for each row of `history` that is not in the parts of a split; `by_row`: with the columns
/// that say which row it was, behind the others.
fn beside(of: &Derived, split: &Split, by_row: bool) -> Result<LogicalPlanBuilder> {
    let beyond = history::settled(&split.beyond)?.filter(is_beyond(&split.boots))?;
    let whole = of_rows(of, history::settled(&split.whole)?, by_row)?.build()?;
    of_rows(of, beyond, by_row)?.union(whole)
}

/// A part for each row.
fn of_rows(of: &Derived, rows: LogicalPlanBuilder, by_row: bool) -> Result<LogicalPlanBuilder> {
    let mut columns = (of.part)();
    if by_row {
        columns.extend(ROW.map(col));
    }
    rows.filter((of.of_rows)())?.project(columns)
}

/// Whether a row lies beyond what is covered.
fn is_beyond(boots: &Boots) -> Expr {
    let boots = Arc::new(boots.clone());
    let types = vec![DataType::Utf8, DataType::Utf8, DataType::Int64];
    let function = move |args: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(args)?;
        let (agents, starts) = (arrays[0].as_string::<i32>(), arrays[1].as_string::<i32>());
        let seqs = arrays[2].as_primitive::<Int64Type>();
        let beyond = (0..seqs.len()).map(|row| {
            let reached = boots.get(agents.value(row)).and_then(|it| it.get(starts.value(row)));
            Some(reached.is_none_or(|reached| seqs.value(row) > reached.last))
        });
        Ok(ColumnarValue::Array(Arc::new(beyond.collect::<BooleanArray>())))
    };
    create_udf("is_beyond", types, DataType::Boolean, Volatility::Immutable, Arc::new(function))
        .call(ROW.map(col).to_vec())
}

/// The parts of all rows that are not in the parts of a split, with the columns that [`reached`] takes.
pub(crate) async fn parts_beside(
    store: &Store,
    of: &Derived,
    split: &Split,
) -> std::result::Result<SendableRecordBatchStream, TablesError> {
    let limits = Limits { memory_bytes: MEMORY, ..Limits::default() };
    let context = empty_context(store, &limits)?;
    let plan = beside(of, split, true)?.build()?;
    Ok(context.execute_logical_plan(plan).await?.execute_stream().await?)
}

/// Notes how far boots are, and takes the columns off that say it.
pub(crate) fn reached(
    batch: &RecordBatch,
    boots: &mut Boots,
) -> std::result::Result<RecordBatch, String> {
    let column = |name: &str| batch.column_by_name(name).ok_or_else(|| format!("no {name}"));
    let [agents, starts, seqs] = ROW.map(column);
    let (agents, starts) = (agents?.as_string::<i32>(), starts?.as_string::<i32>());
    let seqs = seqs?.as_primitive::<Int64Type>();
    let days = column("day")?.as_primitive::<Date32Type>();
    for row in 0..batch.num_rows() {
        let (agent, boot) = (agents.value(row), starts.value(row));
        if !boots.get(agent).is_some_and(|it| it.contains_key(boot)) {
            boots.entry(agent.to_owned()).or_default().entry(boot.to_owned()).or_default();
        }
        if let Some(reached) = boots.get_mut(agent).and_then(|it| it.get_mut(boot)) {
            reached.last = reached.last.max(seqs.value(row));
            reached.day = reached.day.max(days.value(row));
        }
    }
    let parts: Vec<usize> = (0..batch.num_columns() - ROW.len()).collect();
    batch.project(&parts).map_err(|error| error.to_string())
}
