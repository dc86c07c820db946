//! `history`: the rows of all inbox objects, with the columns `day` and `cluster_key` that the
//! ingester will set later. Scans Parquet by DataFusion's own source over an exact list of files.

use std::sync::{Arc, LazyLock};

use arrow::array::{Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::catalog::view::ViewTable;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, Result, ScalarValue, Statistics};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemTable;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::datasource::{TableProvider, TableType, provider_as_source};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::functions::expr_fn::coalesce;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::prelude::col;

use flowtap_record::{Micros, history_schema};

use super::functions::{self, timestamp};
use crate::store::{Inbox, InboxObject};

/// By this name the objects of the store are registered with DataFusion.
pub(super) static STORE_URL: LazyLock<ObjectStoreUrl> =
    LazyLock::new(|| ObjectStoreUrl::parse("flowtap://store").expect("a constant"));

/// Columns that are one constant an object. Agent and boot come from the name, so that no object
/// can hold rows in another's name; the rest serves the columns and the filter made below.
const CONSTANTS: [&str; 5] = ["agent", "boot", FIRST, LAST, UPLOADED_AT];
const FIRST: &str = "__first";
const LAST: &str = "__last";
const UPLOADED_AT: &str = "__uploaded_at";

/// The table `history`.
pub(super) fn view(inbox: &Inbox) -> Result<ViewTable> {
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
    Ok(ViewTable::new(plan.project(columns)?.build()?, None))
}

/// The objects that were left out, for the view `gaps`.
pub(super) fn refused(inbox: &Inbox) -> Result<MemTable> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("agent", DataType::Utf8, false),
        Field::new("boot", DataType::Utf8, false),
        Field::new("at", timestamp(), false),
        Field::new("first_seq", DataType::Int64, false),
        Field::new("last_seq", DataType::Int64, false),
        Field::new("object", DataType::Utf8, false),
        Field::new("why", DataType::Utf8, false),
    ]));
    let refused = &inbox.refused;
    let text = |value: fn(&crate::store::Refused) -> String| -> Arc<StringArray> {
        Arc::new(StringArray::from_iter_values(refused.iter().map(value)))
    };
    let number = |value: fn(&crate::store::Refused) -> i64| {
        Int64Array::from_iter_values(refused.iter().map(value))
    };
    let at = TimestampMicrosecondArray::from_iter_values(refused.iter().map(|r| r.last_modified.0));
    let batch = RecordBatch::try_new(
        Arc::clone(&schema),
        vec![
            text(|r| r.name.agent.clone()),
            text(|r| r.name.boot.clone()),
            Arc::new(at.with_timezone("UTC")),
            Arc::new(number(|r| r.name.first.0)),
            Arc::new(number(|r| r.name.last.0)),
            text(|r| r.name.path()),
            text(|r| r.why.clone()),
        ],
    )?;
    MemTable::try_new(schema, vec![vec![batch]])
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
        if self.objects.is_empty() {
            let schema = match projection {
                Some(columns) => Arc::new(self.schema.table_schema().project(columns)?),
                None => self.schema(),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let runtime = session.runtime_env();
        let store = runtime.object_store(&*STORE_URL)?;
        let footers = runtime.cache_manager.get_file_metadata_cache();
        let mut options = TableParquetOptions::new();
        options.global = session.config_options().execution.parquet.clone();
        let source = ParquetSource::new(self.schema.clone())
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::new(CachedParquetFileReaderFactory::new(
                store, footers,
            )));

        let files = self.objects.iter().map(|object| self.file(object)).collect();
        let groups = FileGroup::new(files).split_files(session.config().target_partitions());
        let rows = self.objects.iter().map(|object| object.rows).sum();
        let statistics = Statistics {
            num_rows: Precision::Inexact(rows),
            ..Statistics::new_unknown(self.schema.table_schema())
        };
        let scan = FileScanConfigBuilder::new(STORE_URL.clone(), Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(scan))
    }
}
