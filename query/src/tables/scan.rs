//! Parquet files of the store as one table, scanned by DataFusion's own source.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::pruning::PrunableStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{DFSchema, Result, Statistics};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::datasource::{TableProvider, TableType};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;

/// By this name the objects of the store are registered with DataFusion.
pub(super) static STORE_URL: LazyLock<ObjectStoreUrl> =
    LazyLock::new(|| ObjectStoreUrl::parse("flowtap://store").expect("a constant"));

/// An exact list of files: their columns, then those that are one constant a file.
#[derive(Debug)]
pub(super) struct FileTable {
    schema: TableSchema,
    /// Each with its constants, and with statistics of the columns in it.
    files: Vec<PartitionedFile>,
    /// All footers are at hand: it costs nothing to leave files out only as they are opened.
    opened: bool,
}

impl FileTable {
    pub(super) fn new(schema: TableSchema, files: Vec<PartitionedFile>, opened: bool) -> Self {
        Self { schema, files, opened }
    }

    /// The files that may hold rows that pass: told by constants and statistics, before any footer
    /// is read.
    fn wanted(&self, session: &dyn Session, filters: &[Expr]) -> Result<Vec<PartitionedFile>> {
        let predicate = conjunction(filters.iter().cloned());
        // Of no files there is nothing to be told, and DataFusion would warn of it.
        let tells = !self.opened && !self.files.is_empty();
        let Some(predicate) = predicate.filter(|_| tells) else {
            return Ok(self.files.clone());
        };
        let schema = self.schema.table_schema();
        let columns = DFSchema::try_from(Arc::clone(schema))?;
        let predicate = session.create_physical_expr(predicate, &columns)?;
        let predicate = PruningPredicateBuilder::new()
            .with_file_schema(Arc::clone(schema))
            .try_build(predicate)?;
        let unknown = || Arc::new(Statistics::new_unknown(schema));
        let statistics =
            self.files.iter().map(|file| file.statistics.clone().unwrap_or_else(unknown));
        let wanted = PrunableStatistics::new(statistics.collect(), Arc::clone(schema));
        let wanted = self.files.iter().zip(predicate.prune(&wanted)?);
        Ok(wanted.filter(|(_, wanted)| *wanted).map(|(file, _)| file.clone()).collect())
    }
}

#[async_trait]
impl TableProvider for FileTable {
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
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let files = self.wanted(session, filters)?;
        if files.is_empty() {
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
        let rows = |file: &PartitionedFile| file.statistics.as_ref()?.num_rows.get_value().copied();
        let rows = files.iter().filter_map(rows).sum();
        let statistics = Statistics {
            num_rows: Precision::Inexact(rows),
            ..Statistics::new_unknown(self.schema.table_schema())
        };
        let groups = FileGroup::new(files).split_files(session.config().target_partitions());
        let scan = FileScanConfigBuilder::new(STORE_URL.clone(), Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(scan))
    }
}
