//! Makes files and tables of what an older or a newer Flowtap would have written.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema};
use flowtap_record::footer;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};

/// Writes a Parquet file anew, with other columns and as of another schema.
pub(crate) fn rewrite(path: &Path, schema: &str, change: impl Fn(RecordBatch) -> RecordBatch) {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let pairs = reader.metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default();
    let pairs = pairs.into_iter().filter(|pair| pair.key != "ARROW:schema").map(|pair| {
        let of_schema = pair.key == footer::SCHEMA;
        KeyValue::new(pair.key, if of_schema { Some(schema.to_owned()) } else { pair.value })
    });
    let properties =
        WriterProperties::builder().set_key_value_metadata(Some(pairs.collect())).build();
    let columns = Arc::new(Schema::new(reader.schema().fields().clone()));
    let batches = reader.build().unwrap().map(|batch| {
        RecordBatch::try_new(columns.clone(), batch.unwrap().columns().to_vec()).unwrap()
    });
    let batch = change(concat_batches(&columns, &batches.collect::<Vec<_>>()).unwrap());
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties))
            .unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// The rows without some columns.
pub(crate) fn without(batch: &RecordBatch, names: &[&str]) -> RecordBatch {
    let schema = batch.schema();
    let kept =
        (0..schema.fields().len()).filter(|it| !names.contains(&schema.field(*it).name().as_str()));
    batch.project(&kept.collect::<Vec<_>>()).unwrap()
}

/// The rows with a text column more, in place of one of that name.
pub(crate) fn with(batch: &RecordBatch, name: &str) -> RecordBatch {
    let batch = without(batch, &[name]);
    let mut fields: Vec<_> = batch.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(name, DataType::Utf8, true)));
    let mut columns = batch.columns().to_vec();
    let texts =
        StringArray::from_iter_values((0..batch.num_rows()).map(|row| format!("new {row}")));
    columns.push(Arc::new(texts) as ArrayRef);
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// Changes the table of a store that has one file a commit: its columns as the log has them, and the
/// rows of its files.
pub(crate) fn reshape_table(
    store: &Path,
    columns: impl Fn(&mut Vec<Value>),
    rows: impl Fn(RecordBatch) -> RecordBatch,
) {
    let table = store.join("history");
    for entry in std::fs::read_dir(table.join("_delta_log")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|it| it != "json") {
            continue;
        }
        let lines: Vec<String> = std::fs::read_to_string(&path)
            .unwrap()
            .lines()
            .map(|line| {
                let mut action: Value = serde_json::from_str(line).unwrap();
                if let Some(text) = action["metaData"]["schemaString"].as_str() {
                    let mut schema: Value = serde_json::from_str(text).unwrap();
                    columns(schema["fields"].as_array_mut().unwrap());
                    action["metaData"]["schemaString"] = json!(schema.to_string());
                }
                if let Some(file) = action["add"]["path"].as_str() {
                    let file = table.join(file);
                    rewrite(&file, "1.0", &rows);
                    action["add"]["size"] = json!(std::fs::metadata(&file).unwrap().len());
                }
                action.to_string()
            })
            .collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
    }
}

/// Copies a folder with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}
