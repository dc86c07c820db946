//! `history`: the rows of the Delta table's files, and those of the inbox objects that it does not
//! cover, with the columns `day` and `cluster_key` that the ingester will set. Scans Parquet by
//! DataFusion's own source over an exact list of files.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::view::ViewTable;
use datafusion::common::Result;
use datafusion::datasource::memory::MemTable;
use datafusion::datasource::provider_as_source;
use datafusion::functions::expr_fn::coalesce;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder};
use datafusion::prelude::col;
use flowtap_record::history_schema;

use super::files::{FIRST, LAST, UPLOADED_AT, of_inbox, of_table};
use super::functions::{self, timestamp};
use crate::store::{HistoryFile, Hole, Inbox, InboxObject, Refused};

/// The table `history`.
pub(super) fn view(inbox: &Inbox) -> Result<ViewTable> {
    let fresh = fresh(inbox)?;
    let plan = match inbox.history.as_ref().filter(|history| !history.files.is_empty()) {
        Some(history) => settled(&history.files)?.union(fresh.build()?)?,
        None => fresh,
    };
    Ok(ViewTable::new(plan.build()?, None))
}

/// The rows that files of the Delta table hold.
pub(super) fn settled(files: &[HistoryFile]) -> Result<LogicalPlanBuilder> {
    let files = of_table(files);
    let plan = LogicalPlanBuilder::scan("files", provider_as_source(Arc::new(files)), None)?;
    let columns = history_schema();
    let columns = columns.fields().iter().map(|field| field.name().as_str());
    plan.project(columns.chain(["day", "cluster_key"]).map(col))
}

/// The rows that lie in the inbox only.
pub(super) fn fresh(inbox: &Inbox) -> Result<LogicalPlanBuilder> {
    let files = of_inbox(&inbox.objects);
    let mut plan = LogicalPlanBuilder::scan("inbox", provider_as_source(Arc::new(files)), None)?;
    // Always: that all rows of an object are within its range is only the object's own word.
    plan = plan.filter(col("seq").between(col(FIRST), col(LAST)))?;
    let mut columns: Vec<Expr> =
        history_schema().fields().iter().map(|field| col(field.name())).collect();
    columns.push(functions::day_of(col("at"), col(UPLOADED_AT)).alias("day"));
    // The order of `flowtap_record::cluster_key`; a test holds the two together.
    let key = coalesce(vec![col("transaction_id"), col("trace_id"), col("message")]);
    columns.push(key.alias("cluster_key"));
    plan.project(columns)
}

/// Rows that are not to be had, for the view `gaps`: of objects that cannot be believed, in the inbox
/// or in quarantine, and of such that never came. And objects of which columns are not seen.
pub(super) fn refused(inbox: &Inbox) -> Result<MemTable> {
    let mut refused: Vec<Hole> = inbox.refused.iter().map(Refused::hole).collect();
    refused.extend(inbox.objects.iter().filter_map(InboxObject::columns_unseen));
    if let Some(history) = &inbox.history {
        refused.extend(history.progress.holes());
    }
    let schema = Arc::new(Schema::new(vec![
        Field::new("agent", DataType::Utf8, false),
        Field::new("boot", DataType::Utf8, false),
        Field::new("at", timestamp(), false),
        Field::new("first_seq", DataType::Int64, false),
        Field::new("last_seq", DataType::Int64, false),
        Field::new("reason", DataType::Utf8, false),
        Field::new("object", DataType::Utf8, true),
        Field::new("why", DataType::Utf8, false),
    ]));
    let text = |value: fn(&Hole) -> &str| -> Arc<StringArray> {
        Arc::new(StringArray::from_iter_values(refused.iter().map(value)))
    };
    let number = |value: fn(&Hole) -> i64| Int64Array::from_iter_values(refused.iter().map(value));
    let at = TimestampMicrosecondArray::from_iter_values(refused.iter().map(|it| it.at.0));
    let objects: StringArray = refused.iter().map(|it| it.object.as_deref()).collect();
    let batch = RecordBatch::try_new(
        Arc::clone(&schema),
        vec![
            text(|it| &it.agent),
            text(|it| &it.boot),
            Arc::new(at.with_timezone("UTC")),
            Arc::new(number(|it| it.first)),
            Arc::new(number(|it| it.last)),
            text(|it| it.reason),
            Arc::new(objects),
            text(|it| &it.why),
        ],
    )?;
    MemTable::try_new(schema, vec![vec![batch]])
}
