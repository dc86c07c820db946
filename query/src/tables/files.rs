//! What [`FileTable`]s the history is made of: the files of the Delta table, and inbox objects.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::table_schema::TableSchema;
use flowtap_record::{Micros, history_schema};

use super::functions::timestamp;
use super::scan::FileTable;
use crate::derived::Derived;
use crate::store::{HistoryFile, InboxObject};

/// Columns that are one constant an object. Agent and boot come from the name, so that no object
/// can hold rows in another's name; the rest serves columns and a filter that are made above.
const CONSTANTS: [&str; 5] = ["agent", "boot", FIRST, LAST, UPLOADED_AT];
pub(super) const FIRST: &str = "__first";
pub(super) const LAST: &str = "__last";
pub(super) const UPLOADED_AT: &str = "__uploaded_at";

/// The files of the Delta table: their columns, then `day`.
pub(super) fn of_table(files: &[HistoryFile]) -> FileTable {
    let mut in_files: Vec<_> = history_schema().fields().iter().cloned().collect();
    in_files.push(Arc::new(Field::new("cluster_key", DataType::Utf8, true)));
    delta(Schema::new(in_files), files, "at", "cluster_key")
}

/// The files of a derived table: their columns, the last of which is `day`.
pub(super) fn of_derived(derived: &Derived, files: &[HistoryFile]) -> FileTable {
    let in_files = (derived.schema)();
    let in_files = in_files.fields().iter().filter(|field| field.name() != "day").cloned();
    let by = derived.sorted_by;
    delta(Schema::new(in_files.collect::<Vec<_>>()), files, by.time, by.key)
}

/// Files of a Delta table with these columns, then `day`. Of a time and of a key they have statistics.
fn delta(in_files: Schema, files: &[HistoryFile], at: &str, cluster_key: &str) -> FileTable {
    let files = files.iter().map(|file| {
        let key = |key: &String| ScalarValue::from(key.as_str());
        let bounds = [
            // Perhaps wider than the truth, where the log keeps times short.
            (at, file.at.map(|(low, high)| (time(low), time(high)))),
            (cluster_key, file.cluster.as_ref().map(|(low, high)| (key(low), key(high)))),
        ];
        PartitionedFile::new_from_meta(file.meta.clone())
            .with_partition_values(vec![ScalarValue::Date32(Some(file.day))])
            .with_statistics(statistics(&in_files, Precision::Exact(file.rows), bounds))
    });
    let files = files.collect();
    FileTable::new(schema(in_files, vec![("day", DataType::Date32)]), files, false)
}

/// Inbox objects: their columns, then [`CONSTANTS`]. Who listed them read their footers.
pub(super) fn of_inbox(objects: &[InboxObject]) -> FileTable {
    let in_files = history_schema();
    let in_files = in_files.fields().iter().filter(|it| !CONSTANTS.contains(&it.name().as_str()));
    let in_files = Schema::new(in_files.cloned().collect::<Vec<_>>());
    let files = objects.iter().map(|object| {
        let mut statistics = Arc::unwrap_or_clone(statistics(
            &in_files,
            // Rows may be filtered away by what is visible.
            Precision::Inexact(object.rows),
            [("at", object.at.map(|(low, high)| (time(low), time(high))))],
        ));
        if let (Some(_), Ok(at)) = (object.at, in_files.index_of("at")) {
            statistics.column_statistics[at].null_count = Precision::Exact(0);
        }
        PartitionedFile::new_from_meta(object.meta.clone())
            .with_partition_values(vec![
                ScalarValue::from(object.name.agent.as_str()),
                ScalarValue::from(object.name.boot.as_str()),
                ScalarValue::from(object.visible.0),
                ScalarValue::from(object.visible.1),
                time(object.uploaded_at),
            ])
            .with_statistics(Arc::new(statistics))
    });
    let files = files.collect();
    let constants = CONSTANTS.map(|name| {
        let data_type = match name {
            FIRST | LAST => DataType::Int64,
            UPLOADED_AT => timestamp(),
            _ => DataType::Utf8,
        };
        (name, data_type)
    });
    FileTable::new(schema(in_files, constants.to_vec()), files, true)
}

fn schema(in_files: Schema, constants: Vec<(&str, DataType)>) -> TableSchema {
    let constants = constants.into_iter();
    let constants = constants.map(|(name, of)| Arc::new(Field::new(name, of, false)));
    TableSchema::builder(Arc::new(in_files))
        .with_table_partition_cols(constants.collect::<Vec<_>>())
        .build()
}

fn time(at: Micros) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(Some(at.0), Some("UTC".into()))
}

/// Statistics of a file with least and greatest values of some of its columns. Said to be exact, or
/// files would not be left out by them; nothing else looks at them.
fn statistics<const N: usize>(
    in_files: &Schema,
    num_rows: Precision<usize>,
    bounds: [(&str, Option<(ScalarValue, ScalarValue)>); N],
) -> Arc<Statistics> {
    let mut columns = vec![ColumnStatistics::new_unknown(); in_files.fields().len()];
    for (name, bounds) in bounds {
        if let (Some((low, high)), Ok(index)) = (bounds, in_files.index_of(name)) {
            columns[index].min_value = Precision::Exact(low);
            columns[index].max_value = Precision::Exact(high);
        }
    }
    Arc::new(Statistics {
        num_rows,
        total_byte_size: Precision::Absent,
        column_statistics: columns,
    })
}
