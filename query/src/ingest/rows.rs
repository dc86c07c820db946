//! The rows of one inbox object, checked one by one before they are believed, with the columns that
//! are set when a row is taken in.

use std::sync::Arc;

use arrow::array::{
    AsArray, Date32Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use bytes::Bytes;
use flowtap_record::path::InboxName;
use flowtap_record::{Micros, SchemaVersion, cluster_key, day_of, history_schema};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};

use crate::store::check_footer;

/// An object whose rows take more memory than this was not made by an agent.
const MAX_DECODED: usize = 2 << 30;
const ROWS_AT_ONCE: usize = 8192;

/// What is taken of an object.
#[derive(Debug)]
pub(super) struct Rows {
    /// Columns of [`table_schema`].
    pub(super) batches: Vec<RecordBatch>,
    pub(super) count: usize,
    pub(super) uploaded_at: Micros,
    pub(super) watermark: Micros,
}

/// What became of an object.
#[derive(Debug)]
pub(super) enum Decoded {
    Rows(Rows),
    /// It has columns that are not known here.
    Newer(SchemaVersion),
}

/// The columns of the table `history`: those of an inbox object, then what is set at ingest. The
/// last, `day`, is the partition.
pub(super) fn table_schema() -> SchemaRef {
    let mut fields: Vec<_> = history_schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("cluster_key", DataType::Utf8, true)));
    fields.push(Arc::new(Field::new("day", DataType::Date32, false)));
    Arc::new(Schema::new(fields))
}

/// Decodes the rows of an object from number `from` on. The error is a sentence that says why it
/// cannot be believed.
pub(super) fn decode(name: &InboxName, bytes: Bytes, from: i64) -> Result<Decoded, String> {
    let footer = ArrowReaderMetadata::load(&bytes, ArrowReaderOptions::new())
        .map_err(|error| format!("not readable as Parquet: {error}"))?;
    let checked = check_footer(name, footer.metadata())?;
    if let Some(schema) = checked.newer {
        return Ok(Decoded::Newer(schema));
    }
    let wanted = history_schema();
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, footer)
        .with_batch_size(ROWS_AT_ONCE)
        .build()
        .map_err(|error| error.to_string())?;
    let mut rows = Rows {
        batches: Vec::new(),
        count: 0,
        uploaded_at: checked.uploaded_at,
        watermark: checked.watermark,
    };
    let mut before = name.first.0 - 1;
    let mut decoded = 0;
    for batch in reader {
        let batch = batch.map_err(|error| format!("its rows are not readable: {error}"))?;
        decoded += batch.get_array_memory_size();
        if decoded > MAX_DECODED {
            return Err(format!("its rows take more than {MAX_DECODED} bytes"));
        }
        let batch = conform(&wanted, &batch)?;
        before = check(name, &batch, before)?;
        let kept = not_before(&batch, from);
        if kept.num_rows() > 0 {
            rows.count += kept.num_rows();
            rows.batches.push(complete(&kept, checked.uploaded_at)?);
        }
    }
    Ok(Decoded::Rows(rows))
}

/// Exactly the columns of `wanted`, in its order. What an older Flowtap did not write yet is null.
pub(super) fn conform(wanted: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, String> {
    let column = |field: &Arc<Field>| match batch.column_by_name(field.name()) {
        Some(column) => column.clone(),
        None => new_null_array(field.data_type(), batch.num_rows()),
    };
    let columns = wanted.fields().iter().map(column).collect();
    RecordBatch::try_new(Arc::clone(wanted), columns)
        .map_err(|error| format!("its columns are not those of a row: {error}"))
}

/// Each row is of this agent and boot, within the range of the name, and behind the one before.
/// Returns the last number.
fn check(name: &InboxName, batch: &RecordBatch, mut before: i64) -> Result<i64, String> {
    for (column, want) in [("agent", &name.agent), ("boot", &name.boot)] {
        let texts = batch.column_by_name(column).and_then(|it| it.as_string_opt::<i32>());
        let mut texts = texts.ok_or_else(|| format!("it has no {column}"))?.iter();
        if let Some(other) = texts.find(|text| *text != Some(want)) {
            return Err(format!("it holds a row of {column} {:?}", other.unwrap_or_default()));
        }
    }
    let seqs = batch.column_by_name("seq").and_then(|it| it.as_primitive_opt::<Int64Type>());
    for seq in seqs.ok_or("it has no seq")?.values() {
        if *seq <= before {
            return Err(format!("its row {seq} does not come behind row {before}"));
        }
        before = *seq;
    }
    if before > name.last.0 {
        return Err(format!("it holds row {before}, outside the range of its name"));
    }
    Ok(before)
}

/// The rows from a number on. Numbers rise.
fn not_before(batch: &RecordBatch, from: i64) -> RecordBatch {
    let seqs = batch.column_by_name("seq").and_then(|it| it.as_primitive_opt::<Int64Type>());
    let skip = seqs.map_or(0, |seqs| seqs.values().partition_point(|seq| *seq < from));
    batch.slice(skip, batch.num_rows() - skip)
}

/// Adds `cluster_key` and `day`.
fn complete(batch: &RecordBatch, uploaded_at: Micros) -> Result<RecordBatch, String> {
    let text = |name: &str| batch.column_by_name(name).and_then(|it| it.as_string_opt::<i32>());
    let ids = [text("transaction_id"), text("trace_id"), text("message")];
    let [Some(transaction), Some(trace), Some(message)] = ids else {
        return Err("it lacks a column".to_owned());
    };
    let ids = transaction.iter().zip(trace).zip(message);
    let keys: StringArray = ids
        .map(|((transaction, trace), message)| cluster_key(transaction, trace, message))
        .collect();
    let times: &TimestampMicrosecondArray = batch
        .column_by_name("at")
        .and_then(|it| it.as_primitive_opt::<TimestampMicrosecondType>())
        .ok_or("it has no at")?;
    let days: Date32Array =
        times.values().iter().map(|at| Some(day_of(Micros(*at), uploaded_at))).collect();
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(keys));
    columns.push(Arc::new(days));
    RecordBatch::try_new(table_schema(), columns).map_err(|error| error.to_string())
}
