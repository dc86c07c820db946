//! The files of the Delta table `history` as one DataFusion table.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::pruning::PrunableStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, DFSchema, Result, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::datasource::{TableProvider, TableType};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use flowtap_record::{Micros, history_schema};

use super::scan::scan;
use crate::store::{History, HistoryFile};

/// The table at one version: the columns of the files, then `day`.
#[derive(Debug)]
pub(super) struct FilesTable {
    schema: TableSchema,
    files: Vec<HistoryFile>,
}

impl FilesTable {
    pub(super) fn new(history: &History) -> Self {
        let mut in_files: Vec<_> = history_schema().fields().iter().cloned().collect();
        in_files.push(Arc::new(Field::new("cluster_key", DataType::Utf8, true)));
        let day = Arc::new(Field::new("day", DataType::Date32, false));
        let schema = TableSchema::builder(Arc::new(Schema::new(in_files)))
            .with_table_partition_cols(vec![day])
            .build();
        Self { schema, files: history.files.clone() }
    }

    /// Which files may hold rows that pass: told by days, times and keys, before any footer is read.
    fn wanted(&self, session: &dyn Session, filters: &[Expr]) -> Result<Vec<bool>> {
        let Some(predicate) = conjunction(filters.iter().cloned()) else {
            return Ok(vec![true; self.files.len()]);
        };
        let schema = self.schema.table_schema();
        let columns = DFSchema::try_from(Arc::clone(schema))?;
        let predicate = session.create_physical_expr(predicate, &columns)?;
        let predicate = PruningPredicateBuilder::new()
            .with_file_schema(Arc::clone(schema))
            .try_build(predicate)?;
        let statistics = self.files.iter().map(|file| {
            let day = Precision::Exact(ScalarValue::Date32(Some(file.day)));
            let mut statistics = self.statistics(file);
            statistics.column_statistics.push(ColumnStatistics {
                min_value: day.clone(),
                max_value: day,
                null_count: Precision::Exact(0),
                ..ColumnStatistics::new_unknown()
            });
            Arc::new(statistics)
        });
        predicate.prune(&PrunableStatistics::new(statistics.collect(), Arc::clone(schema)))
    }

    fn file(&self, file: &HistoryFile) -> PartitionedFile {
        PartitionedFile::new_from_meta(file.meta.clone())
            .with_partition_values(vec![ScalarValue::Date32(Some(file.day))])
            .with_statistics(Arc::new(self.statistics(file)))
    }

    fn statistics(&self, file: &HistoryFile) -> Statistics {
        let in_file = self.schema.file_schema();
        let mut columns = vec![ColumnStatistics::new_unknown(); in_file.fields().len()];
        let mut bounds = |name: &str, low: ScalarValue, high: ScalarValue| {
            if let Ok(index) = in_file.index_of(name) {
                // Perhaps wider than the truth, where the log keeps them short. Said to be exact, or
                // files would not be left out by them; nothing else looks at them.
                columns[index].min_value = Precision::Exact(low);
                columns[index].max_value = Precision::Exact(high);
            }
        };
        let time = |at: Micros| ScalarValue::TimestampMicrosecond(Some(at.0), Some("UTC".into()));
        if let Some((low, high)) = file.at {
            bounds("at", time(low), time(high));
        }
        if let Some((low, high)) = &file.cluster {
            bounds("cluster_key", low.as_str().into(), high.as_str().into());
        }
        Statistics {
            num_rows: Precision::Exact(file.rows),
            total_byte_size: Precision::Absent,
            column_statistics: columns,
        }
    }
}

#[async_trait]
impl TableProvider for FilesTable {
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
        let wanted = self.wanted(session, filters)?;
        let wanted: Vec<&HistoryFile> = self
            .files
            .iter()
            .zip(wanted)
            .filter_map(|(file, wanted)| wanted.then_some(file))
            .collect();
        let files = wanted.iter().map(|file| self.file(file)).collect();
        let rows = wanted.iter().map(|file| file.rows).sum();
        scan(session, &self.schema, files, rows, projection, limit)
    }
}
