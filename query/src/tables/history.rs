//! `history`: the rows of the Delta table's files, and those of the inbox objects that it does not
//! cover, with the columns `day` and `cluster_key` that the ingester will set. Scans Parquet by
//! DataFusion's own source over an exact list of files.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::catalog::view::ViewTable;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, Result, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemTable;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::datasource::{TableProvider, TableType, provider_as_source};
use datafusion::functions::expr_fn::coalesce;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::col;

use flowtap_record::path::InboxName;
use flowtap_record::{Micros, history_schema};

use super::files::FilesTable;
use super::functions::{self, timestamp};
use super::scan::scan;
use crate::store::{History, Inbox, InboxObject, Lost, Quarantined, Refused};

/// Columns that are one constant an object. Agent and boot come from the name, so that no object
/// can hold rows in another's name; the rest serves the columns and the filter made below.
const CONSTANTS: [&str; 5] = ["agent", "boot", FIRST, LAST, UPLOADED_AT];
const FIRST: &str = "__first";
const LAST: &str = "__last";
const UPLOADED_AT: &str = "__uploaded_at";

/// The table `history`.
pub(super) fn view(inbox: &Inbox) -> Result<ViewTable> {
    let fresh = fresh(inbox)?;
    let plan = match inbox.history.as_ref().filter(|history| !history.files.is_empty()) {
        Some(history) => settled(history)?.union(fresh.build()?)?,
        None => fresh,
    };
    Ok(ViewTable::new(plan.build()?, None))
}

/// The rows that the Delta table holds.
fn settled(history: &History) -> Result<LogicalPlanBuilder> {
    let files = FilesTable::new(history);
    let plan = LogicalPlanBuilder::scan("files", provider_as_source(Arc::new(files)), None)?;
    let columns = history_schema();
    let columns = columns.fields().iter().map(|field| field.name().as_str());
    plan.project(columns.chain(["day", "cluster_key"]).map(col))
}

/// The rows that lie in the inbox only.
fn fresh(inbox: &Inbox) -> Result<LogicalPlanBuilder> {
    let files = InboxTable::new(inbox.objects.clone());
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
/// or in quarantine, and of such that never came.
pub(super) fn refused(inbox: &Inbox) -> Result<MemTable> {
    let mut refused: Vec<Missing> = inbox.refused.iter().map(Missing::refused).collect();
    if let Some(history) = &inbox.history {
        refused.extend(history.progress.quarantined.iter().filter_map(Missing::quarantined));
        refused.extend(history.progress.lost.iter().map(Missing::lost));
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
    let text = |value: fn(&Missing) -> &str| -> Arc<StringArray> {
        Arc::new(StringArray::from_iter_values(refused.iter().map(value)))
    };
    let number =
        |value: fn(&Missing) -> i64| Int64Array::from_iter_values(refused.iter().map(value));
    let at = TimestampMicrosecondArray::from_iter_values(refused.iter().map(|it| it.at.0));
    let objects: StringArray = refused.iter().map(|it| it.object.as_deref()).collect();
    let batch = RecordBatch::try_new(
        Arc::clone(&schema),
        vec![
            text(|it| &it.agent),
            text(|it| &it.boot),
            Arc::new(at.with_timezone("UTC")),
            Arc::new(number(|it| it.range.0)),
            Arc::new(number(|it| it.range.1)),
            text(|it| it.reason),
            Arc::new(objects),
            text(|it| &it.why),
        ],
    )?;
    MemTable::try_new(schema, vec![vec![batch]])
}

/// Rows of one boot that are not to be had.
struct Missing {
    agent: String,
    boot: String,
    at: Micros,
    range: (i64, i64),
    reason: &'static str,
    object: Option<String>,
    why: String,
}

impl Missing {
    fn of(name: &InboxName, at: Micros, why: &str) -> Self {
        Self {
            agent: name.agent.clone(),
            boot: name.boot.clone(),
            at,
            range: (name.first.0, name.last.0),
            reason: "object_refused",
            object: Some(name.path()),
            why: why.to_owned(),
        }
    }

    fn refused(refused: &Refused) -> Self {
        Self::of(&refused.name, refused.last_modified, &refused.why)
    }

    fn quarantined(quarantined: &Quarantined) -> Option<Self> {
        let name = InboxName::parse(&quarantined.object).ok()?;
        Some(Self::of(&name, quarantined.last_modified, &quarantined.why))
    }

    fn lost(lost: &Lost) -> Self {
        Self {
            agent: lost.agent.clone(),
            boot: lost.boot.clone(),
            at: lost.since,
            range: (lost.first, lost.last),
            reason: "rows_lost",
            object: None,
            why: "what lies behind these rows is there, they never came".to_owned(),
        }
    }
}

/// The listed objects as one table: the columns of the files, then [`CONSTANTS`].
#[derive(Debug)]
struct InboxTable {
    schema: TableSchema,
    objects: Vec<InboxObject>,
}

impl InboxTable {
    fn new(objects: Vec<InboxObject>) -> Self {
        let in_files = history_schema()
            .fields()
            .iter()
            .filter(|field| !CONSTANTS.contains(&field.name().as_str()))
            .cloned()
            .collect::<Vec<_>>();
        let constants = CONSTANTS.map(|name| {
            let data_type = match name {
                FIRST | LAST => DataType::Int64,
                UPLOADED_AT => timestamp(),
                _ => DataType::Utf8,
            };
            Arc::new(Field::new(name, data_type, false))
        });
        let schema = TableSchema::builder(Arc::new(Schema::new(in_files)))
            .with_table_partition_cols(constants.to_vec())
            .build();
        Self { schema, objects }
    }

    fn file(&self, object: &InboxObject) -> PartitionedFile {
        let time = |at: Micros| ScalarValue::TimestampMicrosecond(Some(at.0), Some("UTC".into()));
        let mut columns =
            vec![ColumnStatistics::new_unknown(); self.schema.file_schema().fields().len()];
        if let (Some((low, high)), Ok(at)) = (object.at, self.schema.file_schema().index_of("at")) {
            columns[at].min_value = Precision::Exact(time(low));
            columns[at].max_value = Precision::Exact(time(high));
            columns[at].null_count = Precision::Exact(0);
        }
        let statistics = Statistics {
            // Rows may be filtered away by what is visible.
            num_rows: Precision::Inexact(object.rows),
            total_byte_size: Precision::Absent,
            column_statistics: columns,
        };
        PartitionedFile::new_from_meta(object.meta.clone())
            .with_partition_values(vec![
                ScalarValue::from(object.name.agent.as_str()),
                ScalarValue::from(object.name.boot.as_str()),
                ScalarValue::from(object.visible.0),
                ScalarValue::from(object.visible.1),
                time(object.uploaded_at),
            ])
            .with_statistics(Arc::new(statistics))
    }
}

#[async_trait]
impl TableProvider for InboxTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.schema.table_schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Inexact: the source prunes by statistics and filters rows while it decodes, and the
    /// physical optimizer takes away the filter above it where that is exact.
    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let files = self.objects.iter().map(|object| self.file(object)).collect();
        let rows = self.objects.iter().map(|object| object.rows).sum();
        scan(session, &self.schema, files, rows, projection, limit)
    }
}
