//! Writes the rows of an answer: as a table for people, as JSON, as CSV. JSON and CSV are written
//! batch by batch, so that a large answer takes no memory; the table is bounded.

use std::collections::HashSet;
use std::io::{self, Write};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringBuilder};
use arrow::csv;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use comfy_table::{ContentArrangement, Table};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;

use super::SqlError;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A table. With the width of a terminal: long texts are wrapped to it, and what has too many
    /// columns for it is written as [`Format::Expanded`].
    Table {
        /// Columns of the terminal, if it is one.
        width: Option<usize>,
    },
    /// A line for each column that is not null.
    Expanded,
    /// An array of objects, one a row, keys as selected, nulls included.
    Json,
    /// RFC 4180 with a header; a null is empty, a list is JSON.
    Csv,
    /// What `POST /api/v1/sql` answers: columns, rows as objects, whether there are more.
    Answer,
    /// An Arrow IPC stream.
    Arrow,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Rows.
    pub rows: usize,
    /// Whether there were more.
    pub cut: bool,
}

/// Why writing ended early.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The query failed on its way.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// The reader went away, or the disk is full.
    #[error("the answer cannot be written: {0}")]
    Io(#[from] io::Error),
    /// A column of a type that the format does not have.
    #[error("the answer cannot be written in this format: {0}; cast the column to VARCHAR")]
    Format(#[from] ArrowError),
    /// An object cannot have a key twice.
    #[error("two columns are called {0:?}; name one of them with AS")]
    SameName(String),
}

/// The table is laid out in memory; more text than this is for a file, not for a person.
const MAX_TABLE_BYTES: usize = 32 << 20;

/// Fewer characters than this a column, and a table is harder to read than lines.
const MIN_COLUMN_WIDTH: usize = 14;

/// Writes at most `max_rows` rows of `rows`, the answer to `query`.
pub async fn write(
    query: &str,
    mut rows: SendableRecordBatchStream,
    format: Format,
    max_rows: usize,
    out: &mut (impl Write + Send),
) -> Result<Written, OutputError> {
    let schema = rows.schema();
    let mut writer = Writer::new(format, &schema, out)?;
    let mut written = Written::default();
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(|error| SqlError::new(query, &error))?;
        let batch = if batch.num_rows() > max_rows - written.rows {
            written.cut = true;
            batch.slice(0, max_rows - written.rows)
        } else {
            batch
        };
        if batch.num_rows() > 0 {
            written.rows += batch.num_rows();
            written.cut |= !writer.write(&batch)?;
        }
        if written.cut {
            break;
        }
    }
    writer.finish(written.cut)?;
    Ok(written)
}

enum Writer<'a, W: Write> {
    Table { cells: Cells, width: Option<usize>, expanded: bool, out: &'a mut W },
    Json(json::ArrayWriter<&'a mut W>),
    Answer(json::ArrayWriter<&'a mut W>),
    Arrow(Box<StreamWriter<&'a mut W>>),
    Csv { writer: Box<csv::Writer<&'a mut W>>, schema: SchemaRef },
}

impl<'a, W: Write> Writer<'a, W> {
    fn new(format: Format, schema: &SchemaRef, out: &'a mut W) -> Result<Self, OutputError> {
        let names = schema.fields().iter().map(|field| field.name().clone());
        Ok(match format {
            Format::Table { width } => {
                Self::Table { cells: Cells::new(names), width, expanded: false, out }
            }
            Format::Expanded => {
                Self::Table { cells: Cells::new(names), width: None, expanded: true, out }
            }
            Format::Json | Format::Answer => {
                let mut seen = HashSet::new();
                if let Some(twice) = names.into_iter().find(|name| !seen.insert(name.clone())) {
                    return Err(OutputError::SameName(twice));
                }
                if format == Format::Answer {
                    write!(out, "{{\"columns\":{},\"rows\":", columns(schema))?;
                }
                let writer = json::WriterBuilder::new().with_explicit_nulls(true).build(out);
                if format == Format::Json { Self::Json(writer) } else { Self::Answer(writer) }
            }
            Format::Arrow => Self::Arrow(Box::new(StreamWriter::try_new(out, schema)?)),
            Format::Csv => {
                let schema = flat_schema(schema);
                let mut writer = csv::WriterBuilder::new().with_header(true).build(out);
                // An answer without rows has its header, too.
                writer.write(&RecordBatch::new_empty(Arc::clone(&schema)))?;
                Self::Csv { writer: Box::new(writer), schema }
            }
        })
    }

    /// Whether there is room for more.
    fn write(&mut self, batch: &RecordBatch) -> Result<bool, OutputError> {
        match self {
            Self::Table { cells, .. } => return Ok(cells.add(batch)?),
            Self::Json(writer) | Self::Answer(writer) => writer.write(batch)?,
            Self::Arrow(writer) => writer.write(batch)?,
            Self::Csv { writer, schema } => writer.write(&flat(batch, schema)?)?,
        }
        Ok(true)
    }

    fn finish(self, cut: bool) -> Result<(), OutputError> {
        match self {
            Self::Table { cells, width, expanded, out } => {
                let crowded =
                    width.is_some_and(|width| cells.names.len() * MIN_COLUMN_WIDTH > width);
                if expanded || crowded {
                    cells.write_expanded(out)?;
                } else {
                    cells.write_table(width, out)?;
                }
                out.flush()?;
            }
            Self::Json(mut writer) => {
                writer.finish()?;
                let out = writer.into_inner();
                out.write_all(b"\n")?;
                out.flush()?;
            }
            Self::Answer(mut writer) => {
                writer.finish()?;
                let out = writer.into_inner();
                write!(out, ",\"truncated\":{cut}}}")?;
                out.flush()?;
            }
            Self::Arrow(mut writer) => {
                writer.finish()?;
                writer.get_mut().flush()?;
            }
            Self::Csv { writer, .. } => writer.into_inner().flush()?,
        }
        Ok(())
    }
}

/// Names and types of the columns as JSON.
fn columns(schema: &SchemaRef) -> serde_json::Value {
    let fields = schema.fields().iter();
    fields
        .map(|field| {
            serde_json::json!({"name": field.name(), "type": field.data_type().to_string()})
        })
        .collect()
}

/// The texts of a table.
struct Cells {
    names: Vec<String>,
    rows: Vec<Vec<Option<String>>>,
    bytes: usize,
}

impl Cells {
    fn new(names: impl Iterator<Item = String>) -> Self {
        let names = names.map(|name| printable(&name)).collect();
        Self { names, rows: Vec::new(), bytes: 0 }
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<bool, ArrowError> {
        let options = FormatOptions::default().with_display_error(true);
        let formatters = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options))
            .collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let cells: Vec<Option<String>> = formatters
                .iter()
                .zip(batch.columns())
                .map(|(formatter, column)| {
                    column.is_valid(row).then(|| printable(&formatter.value(row).to_string()))
                })
                .collect();
            self.bytes +=
                cells.iter().map(|cell| 24 + cell.as_ref().map_or(0, String::len)).sum::<usize>();
            self.rows.push(cells);
            if self.bytes > MAX_TABLE_BYTES {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn write_table(self, width: Option<usize>, out: &mut impl Write) -> io::Result<()> {
        let mut table = Table::new();
        table.load_preset("||--+-++|    ++++++");
        if let Some(width) = width.and_then(|width| u16::try_from(width).ok()) {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        table.set_header(self.names);
        for row in self.rows {
            table.add_row(row.into_iter().map(Option::unwrap_or_default));
        }
        writeln!(out, "{table}")
    }

    fn write_expanded(self, out: &mut impl Write) -> io::Result<()> {
        let width = self.names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        for (number, row) in self.rows.into_iter().enumerate() {
            writeln!(out, "-- row {} {}", number + 1, "-".repeat(width.max(20)))?;
            for (name, cell) in self.names.iter().zip(row) {
                if let Some(cell) = cell {
                    writeln!(out, "{name:width$} | {cell}")?;
                }
            }
        }
        Ok(())
    }
}

/// What services wrote must not steer the terminal that shows it.
fn printable(text: &str) -> String {
    if !text.chars().any(|c| c.is_control() && c != '\n') {
        return text.to_owned();
    }
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' { c.escape_default().to_string() } else { c.to_string() }
        })
        .collect()
}

fn is_nested(data_type: &DataType) -> bool {
    data_type.is_nested() && !matches!(data_type, DataType::Dictionary(..))
}

/// The schema with lists and structs as text: CSV has none.
fn flat_schema(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| {
            if is_nested(field.data_type()) {
                Arc::new(Field::new(field.name(), DataType::Utf8, true))
            } else {
                Arc::clone(field)
            }
        })
        .collect();
    Arc::new(Schema::new(fields))
}

fn flat(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let options = json::writer::EncoderOptions::default().with_explicit_nulls(true);
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if !is_nested(field.data_type()) {
            columns.push(Arc::clone(column));
            continue;
        }
        let mut encoder = json::writer::make_encoder(field, column, &options)?;
        let mut texts = StringBuilder::new();
        let mut bytes = Vec::new();
        for row in 0..column.len() {
            if column.is_null(row) {
                texts.append_null();
                continue;
            }
            bytes.clear();
            encoder.encode(row, &mut bytes);
            texts.append_value(String::from_utf8_lossy(&bytes));
        }
        let texts: ArrayRef = Arc::new(texts.finish());
        columns.push(texts);
    }
    RecordBatch::try_new(Arc::clone(schema), columns)
}
