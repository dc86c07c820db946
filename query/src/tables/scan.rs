//! Scans a list of Parquet files of the store by DataFusion's own source.

use std::sync::{Arc, LazyLock};

use datafusion::catalog::Session;
use datafusion::common::stats::Precision;
use datafusion::common::{Result, Statistics};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;

/// By this name the objects of the store are registered with DataFusion.
pub(super) static STORE_URL: LazyLock<ObjectStoreUrl> =
    LazyLock::new(|| ObjectStoreUrl::parse("flowtap://store").expect("a constant"));

/// The plan that reads `files`, which hold about `rows` rows.
pub(super) fn scan(
    session: &dyn Session,
    schema: &TableSchema,
    files: Vec<PartitionedFile>,
    rows: usize,
    projection: Option<&Vec<usize>>,
    limit: Option<usize>,
) -> Result<Arc<dyn ExecutionPlan>> {
    if files.is_empty() {
        let schema = match projection {
            Some(columns) => Arc::new(schema.table_schema().project(columns)?),
            None => Arc::clone(schema.table_schema()),
        };
        return Ok(Arc::new(EmptyExec::new(schema)));
    }
    let runtime = session.runtime_env();
    let store = runtime.object_store(&*STORE_URL)?;
    let footers = runtime.cache_manager.get_file_metadata_cache();
    let mut options = TableParquetOptions::new();
    options.global = session.config_options().execution.parquet.clone();
    let source = ParquetSource::new(schema.clone())
        .with_table_parquet_options(options)
        .with_parquet_file_reader_factory(Arc::new(CachedParquetFileReaderFactory::new(
            store, footers,
        )));
    let groups = FileGroup::new(files).split_files(session.config().target_partitions());
    let statistics = Statistics {
        num_rows: Precision::Inexact(rows),
        ..Statistics::new_unknown(schema.table_schema())
    };
    let scan = FileScanConfigBuilder::new(STORE_URL.clone(), Arc::new(source))
        .with_file_groups(groups)
        .with_statistics(statistics)
        .with_projection_indices(projection.cloned())?
        .with_limit(limit)
        .build();
    Ok(DataSourceExec::from_data_source(scan))
}
