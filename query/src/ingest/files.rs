//! Rows as files of the Delta table: sorted so that a flow lies together, one file a day, with the
//! statistics by which readers leave files out.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Date32Array, RecordBatch};
use arrow::compute::{self, interleave_record_batch};
use arrow::datatypes::{DataType, Date32Type, Field, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use deltalake_core::kernel::Add;
use flowtap_record::{Micros, SCHEMA_VERSION, footer};
use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutPayload};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;
use serde_json::json;

use crate::store::{Store, day_text};

/// About a megabyte, compressed: one request reads it, whatever the columns.
pub(crate) const ROW_GROUP_ROWS: usize = 32 * 1024;
/// What one page holds: a lookup decodes a few of them.
const PAGE_ROWS: usize = 4 * 1024;
/// Rows that are put in order at a time.
pub(super) const CHUNK_ROWS: usize = 8 * 1024;
/// A column whose dictionary gets larger has few repetitions: the rest is written plain.
const DICTIONARY_BYTES: usize = 256 * 1024;
/// Columns of numbers that rarely repeat: differences are smaller than a dictionary.
const RISING_COLUMNS: [&str; 5] = ["seq", "ref_seq", "at", "delivery_tag", "took_us"];
/// A longer key has no place in statistics.
const MAX_KEY: usize = 256;

/// By which columns the rows of a table are sorted within a day, and what statistics tell of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SortedBy {
    /// A text; rows without it go last.
    pub(crate) key: &'static str,
    /// A time.
    pub(crate) time: &'static str,
}

/// A file, ready to be put.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) day: i32,
    pub(crate) bytes: Vec<u8>,
    pub(crate) rows: usize,
    stats: String,
}

/// What a row is sorted by, day first and rows without a key last; then its batch and its place there.
type Placed<'a> = (i32, bool, Option<&'a str>, i64, usize, usize);

/// Sorts rows and makes one file for each `day` that they have. Of rows that are equal in what sorts,
/// the order given stays.
pub(crate) fn encode(batches: &[RecordBatch], by: SortedBy) -> Result<Vec<File>, String> {
    let mut order = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
    for (batch, rows) in batches.iter().enumerate() {
        let column = |name: &str| rows.column_by_name(name).ok_or_else(|| format!("no {name}"));
        let days = column("day")?.as_primitive::<Date32Type>();
        let times = column(by.time)?.as_primitive::<TimestampMicrosecondType>();
        let keys = column(by.key)?.as_string::<i32>();
        for row in 0..rows.num_rows() {
            let key = keys.is_valid(row).then(|| keys.value(row));
            // Rows without a key go last.
            order.push((days.value(row), key.is_none(), key, times.value(row), batch, row));
        }
    }
    order.sort_unstable();
    let batches: Vec<&RecordBatch> = batches.iter().collect();
    let one_day = |rows: &[Placed<'_>]| {
        let schema = columns(&batches[0].schema()).map_err(|error| error.to_string())?;
        let mut writer = FileWriter::new(rows[0].0, schema, by)?;
        for chunk in rows.chunks(CHUNK_ROWS) {
            let places: Vec<(usize, usize)> = chunk.iter().map(|it| (it.4, it.5)).collect();
            let sorted = interleave_record_batch(&batches, &places);
            writer.write(&without_day(&sorted.map_err(|error| error.to_string())?)?)?;
        }
        writer.finish()
    };
    order.chunk_by(|a, b| a.0 == b.0).map(one_day).collect()
}

/// Rows of a file with the day that it lies in, as their last column.
pub(crate) fn with_day(rows: &RecordBatch, day: i32) -> Result<RecordBatch, String> {
    let mut fields = rows.schema().fields().to_vec();
    fields.push(Arc::new(Field::new("day", DataType::Date32, false)));
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(Date32Array::from_value(day, rows.num_rows())));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|error| error.to_string())
}

/// The columns of a file of a table: all but the day, by which the table is partitioned.
pub(crate) fn columns(table: &Schema) -> Result<SchemaRef, ArrowError> {
    let inside = (0..table.fields().len()).filter(|it| table.field(*it).name() != "day");
    Ok(Arc::new(table.project(&inside.collect::<Vec<_>>())?))
}

/// Rows without the day, which is their last column: as they lie in a file.
pub(crate) fn without_day(rows: &RecordBatch) -> Result<RecordBatch, String> {
    let columns: Vec<usize> = (0..rows.num_columns().saturating_sub(1)).collect();
    rows.project(&columns).map_err(|error| error.to_string())
}

/// Makes one file of rows that come sorted.
pub(crate) struct FileWriter {
    day: i32,
    by: SortedBy,
    writer: ArrowWriter<Vec<u8>>,
    rows: usize,
    at: Option<(i64, i64)>,
    /// Least and greatest key.
    keys: Option<(String, String)>,
    without_key: u64,
}

impl FileWriter {
    /// A file of a day, with all columns but the day.
    pub(crate) fn new(day: i32, schema: SchemaRef, by: SortedBy) -> Result<Self, String> {
        let properties = properties(&schema, by).map_err(|error| failed(&error))?;
        let writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties));
        let writer = writer.map_err(|error| failed(&error))?;
        Ok(Self { day, by, writer, rows: 0, at: None, keys: None, without_key: 0 })
    }

    pub(crate) fn write(&mut self, rows: &RecordBatch) -> Result<(), String> {
        let column = |name: &str| rows.column_by_name(name).ok_or_else(|| format!("no {name}"));
        let times = column(self.by.time)?.as_primitive::<TimestampMicrosecondType>();
        let keys = column(self.by.key)?.as_string::<i32>();
        if let (Some(low), Some(high)) = (compute::min(times), compute::max(times)) {
            let (least, greatest) = self.at.unwrap_or((low, high));
            self.at = Some((least.min(low), greatest.max(high)));
        }
        self.without_key += keys.null_count() as u64;
        if let (Some(low), Some(high)) = (compute::min_string(keys), compute::max_string(keys)) {
            let (least, greatest) =
                self.keys.take().unwrap_or_else(|| (low.to_owned(), high.to_owned()));
            self.keys = Some((least.min(low.to_owned()), greatest.max(high.to_owned())));
        }
        self.rows += rows.num_rows();
        self.writer.write(rows).map_err(|error| failed(&error))
    }

    pub(crate) fn finish(mut self) -> Result<File, String> {
        self.writer.append_key_value_metadata(KeyValue::new(
            footer::SCHEMA.to_owned(),
            SCHEMA_VERSION.to_owned(),
        ));
        let stats = self.stats();
        let bytes = self.writer.into_inner().map_err(|error| failed(&error))?;
        Ok(File { day: self.day, bytes, rows: self.rows, stats })
    }

    /// As the Delta protocol has them ("Per-file Statistics").
    fn stats(&self) -> String {
        let by = self.by;
        let mut stats = json!({
            "numRecords": self.rows,
            "minValues": {},
            "maxValues": {},
            "nullCount": {by.time: 0, by.key: self.without_key},
        });
        if let Some((low, high)) = self.at {
            stats["minValues"][by.time] = Micros(low).to_string().into();
            stats["maxValues"][by.time] = Micros(high).to_string().into();
        }
        if let Some((low, high)) = &self.keys
            && low.len().max(high.len()) <= MAX_KEY
        {
            stats["minValues"][by.key] = low.as_str().into();
            stats["maxValues"][by.key] = high.as_str().into();
        }
        stats.to_string()
    }
}

fn failed(error: &dyn std::fmt::Display) -> String {
    format!("can't write Parquet: {error}")
}

fn properties(
    schema: &Schema,
    by: SortedBy,
) -> Result<WriterProperties, parquet::errors::ParquetError> {
    let sorted_by = [by.key, by.time].into_iter().filter_map(|name| {
        let index = schema.index_of(name).ok()?;
        Some(SortingColumn {
            column_idx: leaf(schema, index),
            descending: false,
            nulls_first: false,
        })
    });
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES)
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_sorting_columns(Some(sorted_by.collect()))
        .set_created_by(concat!("flowtap ", env!("CARGO_PKG_VERSION")).to_owned());
    for name in RISING_COLUMNS {
        let column = ColumnPath::from(name);
        properties = properties
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
    }
    Ok(properties.build())
}

/// The number of a plain column among Parquet's columns, where lists of structs count as many.
fn leaf(schema: &Schema, index: usize) -> i32 {
    use arrow::datatypes::DataType;
    fn leaves(data_type: &DataType) -> usize {
        match data_type {
            DataType::List(item) => leaves(item.data_type()),
            DataType::Struct(fields) => fields.iter().map(|field| leaves(field.data_type())).sum(),
            _ => 1,
        }
    }
    let before = schema.fields().iter().take(index).map(|field| leaves(field.data_type()));
    i32::try_from(before.sum::<usize>()).unwrap_or(i32::MAX)
}

/// Puts a file below `table` and makes the action that adds it. Nobody sees it before that action
/// is committed; if it never is, vacuuming takes the file away.
pub(crate) async fn put(
    store: &Store,
    table: &str,
    file: File,
    data_change: bool,
) -> Result<Add, object_store::Error> {
    let day = day_text(file.day);
    let name = format!("day={day}/{}.parquet", uuid::Uuid::now_v7());
    let size = file.bytes.len() as i64;
    let location = Path::from(format!("{table}/{name}"));
    store.objects().put(&location, PutPayload::from(file.bytes)).await?;
    Ok(Add {
        path: name,
        partition_values: HashMap::from([("day".to_owned(), Some(day))]),
        size,
        modification_time: jiff::Timestamp::now().as_millisecond(),
        data_change,
        stats: Some(file.stats),
        ..Add::default()
    })
}
