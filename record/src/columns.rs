//! `history` as Arrow: the schema, and the builder that turns observations into batches.
//!
//! One list, [`history_schema`], fixes names, types and order. [`HistoryBuilder`] appends in the
//! same order; a test holds the two together.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Float64Builder, Int32Builder, Int64Builder, ListArray,
    RecordBatch, StringBuilder, StructArray, TimestampMicrosecondBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field as ArrowField, Fields, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;

use crate::observation::{Field, Id, Observation, RowRef, Seq};
use crate::time::Micros;

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn field_struct() -> Fields {
    Fields::from(vec![
        ArrowField::new("name", DataType::Utf8, false),
        ArrowField::new("value", DataType::Utf8, false),
        ArrowField::new("encoding", DataType::Utf8, false),
    ])
}

fn cause_struct() -> Fields {
    Fields::from(vec![
        ArrowField::new("boot", DataType::Utf8, false),
        ArrowField::new("seq", DataType::Int64, false),
    ])
}

fn list_of(fields: Fields) -> DataType {
    DataType::List(Arc::new(ArrowField::new("item", DataType::Struct(fields), false)))
}

/// The columns of an inbox object of `history`, in order. The ingester adds `day` and
/// `cluster_key`; a reader of the inbox adds them by the same rule.
///
/// A new column goes to the end, may be null, and raises the minor of [`crate::SCHEMA_VERSION`].
pub fn history_schema() -> SchemaRef {
    let mut fields = Vec::with_capacity(80);
    let mut column = |name: &str, data_type: DataType, nullable: bool| {
        fields.push(ArrowField::new(name, data_type, nullable));
    };
    column("agent", DataType::Utf8, false);
    column("boot", DataType::Utf8, false);
    column("seq", DataType::Int64, false);
    column("ref_boot", DataType::Utf8, true);
    column("ref_seq", DataType::Int64, true);
    column("at", timestamp(), false);
    column("broker_at", timestamp(), true);
    column("kind", DataType::Utf8, false);
    for name in ["outcome", "reason", "details", "tap", "system", "cluster", "vhost", "destination"]
    {
        column(name, DataType::Utf8, true);
    }
    column("routing_key", DataType::Utf8, true);
    column("subscription", DataType::Utf8, true);
    column("partition", DataType::Int32, true);
    column("log_offset", DataType::Int64, true);
    for name in ["service", "instance", "client", "principal"] {
        column(name, DataType::Utf8, true);
    }
    column("connection", DataType::Int64, true);
    column("channel", DataType::Int32, true);
    column("consumer", DataType::Utf8, true);
    column("delivery_tag", DataType::Int64, true);
    column("message", DataType::Utf8, true);
    for name in ID_COLUMNS {
        column(name, DataType::Utf8, true);
        column(&format!("{name}_from"), DataType::Utf8, true);
    }
    column("keys", list_of(field_struct()), true);
    column("headers", list_of(field_struct()), true);
    column("redelivered", DataType::Boolean, true);
    column("attempt", DataType::Int32, true);
    column("took_us", DataType::Int64, true);
    column("confirm_expected", DataType::Boolean, true);
    column("broker_txn", DataType::Utf8, true);
    column("causes", list_of(cause_struct()), true);
    column("rung", DataType::Utf8, true);
    column("rule_version", DataType::Utf8, true);
    column("confidence", DataType::Float64, true);
    column("gap_from", timestamp(), true);
    column("gap_to", timestamp(), true);
    column("gap_count", DataType::Int64, true);
    column("size", DataType::Int64, true);
    column("content_type", DataType::Utf8, true);
    column("payload", DataType::Binary, true);
    Arc::new(Schema::new(fields))
}

const ID_COLUMNS: [&str; 8] = [
    "event_id",
    "event_type",
    "transaction_id",
    "causation_id",
    "command",
    "command_id",
    "trace_id",
    "span_id",
];

/// Collects rows of one boot of one agent into a batch.
pub struct HistoryBuilder {
    schema: SchemaRef,
    agent: String,
    boot: String,
    rows: usize,
    seq: Int64Builder,
    text: [StringBuilder; TEXTS],
    ref_seq: Int64Builder,
    at: TimestampMicrosecondBuilder,
    broker_at: TimestampMicrosecondBuilder,
    partition: Int32Builder,
    log_offset: Int64Builder,
    connection: Int64Builder,
    channel: Int32Builder,
    delivery_tag: Int64Builder,
    ids: [(StringBuilder, StringBuilder); 8],
    keys: FieldsBuilder,
    headers: FieldsBuilder,
    redelivered: BooleanBuilder,
    attempt: Int32Builder,
    took_us: Int64Builder,
    confirm_expected: BooleanBuilder,
    causes: CausesBuilder,
    confidence: Float64Builder,
    gap_from: TimestampMicrosecondBuilder,
    gap_to: TimestampMicrosecondBuilder,
    gap_count: Int64Builder,
    size: Int64Builder,
    payload: BinaryBuilder,
}

/// Number of plain text columns that [`HistoryBuilder::append`] fills by position.
const TEXTS: usize = 22;

impl HistoryBuilder {
    /// A builder for rows of `boot` of `agent`.
    pub fn new(agent: &str, boot: &str) -> Self {
        let time = || TimestampMicrosecondBuilder::new().with_timezone("UTC");
        Self {
            schema: history_schema(),
            agent: agent.to_owned(),
            boot: boot.to_owned(),
            rows: 0,
            seq: Int64Builder::new(),
            text: std::array::from_fn(|_| StringBuilder::new()),
            ref_seq: Int64Builder::new(),
            at: time(),
            broker_at: time(),
            partition: Int32Builder::new(),
            log_offset: Int64Builder::new(),
            connection: Int64Builder::new(),
            channel: Int32Builder::new(),
            delivery_tag: Int64Builder::new(),
            ids: std::array::from_fn(|_| (StringBuilder::new(), StringBuilder::new())),
            keys: FieldsBuilder::default(),
            headers: FieldsBuilder::default(),
            redelivered: BooleanBuilder::new(),
            attempt: Int32Builder::new(),
            took_us: Int64Builder::new(),
            confirm_expected: BooleanBuilder::new(),
            causes: CausesBuilder::default(),
            confidence: Float64Builder::new(),
            gap_from: time(),
            gap_to: time(),
            gap_count: Int64Builder::new(),
            size: Int64Builder::new(),
            payload: BinaryBuilder::new(),
        }
    }

    /// Rows appended since the last [`Self::finish`].
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether nothing was appended.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Appends one row.
    pub fn append(&mut self, seq: Seq, row: &Observation<'_>) {
        self.rows += 1;
        self.seq.append_value(seq.0);
        let texts: [Option<&str>; TEXTS] = [
            row.concludes.map(|row| row.boot.unwrap_or(&self.boot)),
            Some(row.kind.as_str()),
            row.outcome.map(crate::Outcome::as_str),
            row.reason,
            row.details,
            row.tap.map(crate::Tap::as_str),
            row.place.system,
            row.place.cluster,
            row.place.vhost,
            row.place.destination,
            row.place.routing_key,
            row.place.subscription,
            row.who.service,
            row.who.instance,
            row.who.client,
            row.who.principal,
            row.who.consumer,
            row.message.message,
            row.session.broker_txn,
            row.rung,
            row.rule_version,
            row.message.content_type,
        ];
        for (builder, text) in self.text.iter_mut().zip(texts) {
            builder.append_option(text);
        }
        self.ref_seq.append_option(row.concludes.map(|row| row.seq.0));
        self.at.append_value(row.at.0);
        self.broker_at.append_option(row.broker_at.map(micros));
        self.partition.append_option(row.place.partition);
        self.log_offset.append_option(row.place.log_offset);
        self.connection.append_option(row.who.connection);
        self.channel.append_option(row.who.channel);
        self.delivery_tag.append_option(row.who.delivery_tag);
        let ids = &row.message.ids;
        let ids: [Option<Id<'_>>; 8] = [
            ids.event_id,
            ids.event_type,
            ids.transaction_id,
            ids.causation_id,
            ids.command,
            ids.command_id,
            ids.trace_id,
            ids.span_id,
        ];
        for ((value, from), id) in self.ids.iter_mut().zip(ids) {
            value.append_option(id.map(|id| id.value));
            from.append_option(id.map(|id| id.from));
        }
        self.keys.append(&row.message.keys);
        self.headers.append(&row.message.headers);
        self.redelivered.append_option(row.session.redelivered);
        self.attempt.append_option(row.session.attempt);
        self.took_us.append_option(row.session.took_us);
        self.confirm_expected.append_option(row.session.confirm_expected);
        self.causes.append(&row.causes, &self.boot);
        self.confidence.append_option(row.confidence);
        self.gap_from.append_option(row.gap.from.map(micros));
        self.gap_to.append_option(row.gap.to.map(micros));
        self.gap_count.append_option(row.gap.count);
        self.size.append_option(row.message.size);
        self.payload.append_option(row.message.payload);
    }

    /// The rows appended so far as a batch; the builder is empty afterwards.
    pub fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let rows = std::mem::take(&mut self.rows);
        let repeat = |text: &str| -> ArrayRef {
            let mut builder = StringBuilder::with_capacity(rows, rows * text.len());
            (0..rows).for_each(|_| builder.append_value(text));
            Arc::new(builder.finish())
        };
        let mut texts =
            self.text.iter_mut().map(|builder| -> ArrayRef { Arc::new(builder.finish()) });
        let mut text = || -> ArrayRef {
            texts.next().unwrap_or_else(|| arrow::array::new_null_array(&DataType::Utf8, rows))
        };
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        columns.push(repeat(&self.agent));
        columns.push(repeat(&self.boot));
        columns.push(Arc::new(self.seq.finish()));
        columns.push(text()); // ref_boot
        columns.push(Arc::new(self.ref_seq.finish()));
        columns.push(Arc::new(self.at.finish()));
        columns.push(Arc::new(self.broker_at.finish()));
        columns.extend((0..11).map(|_| text())); // kind to subscription
        columns.push(Arc::new(self.partition.finish()));
        columns.push(Arc::new(self.log_offset.finish()));
        columns.extend((0..4).map(|_| text())); // service to principal
        columns.push(Arc::new(self.connection.finish()));
        columns.push(Arc::new(self.channel.finish()));
        columns.push(text()); // consumer
        columns.push(Arc::new(self.delivery_tag.finish()));
        columns.push(text()); // message
        for (value, from) in &mut self.ids {
            columns.push(Arc::new(value.finish()));
            columns.push(Arc::new(from.finish()));
        }
        columns.push(self.keys.finish()?);
        columns.push(self.headers.finish()?);
        columns.push(Arc::new(self.redelivered.finish()));
        columns.push(Arc::new(self.attempt.finish()));
        columns.push(Arc::new(self.took_us.finish()));
        columns.push(Arc::new(self.confirm_expected.finish()));
        columns.push(text()); // broker_txn
        columns.push(self.causes.finish()?);
        columns.push(text()); // rung
        columns.push(text()); // rule_version
        columns.push(Arc::new(self.confidence.finish()));
        columns.push(Arc::new(self.gap_from.finish()));
        columns.push(Arc::new(self.gap_to.finish()));
        columns.push(Arc::new(self.gap_count.finish()));
        columns.push(Arc::new(self.size.finish()));
        columns.push(text()); // content_type
        columns.push(Arc::new(self.payload.finish()));
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

fn micros(at: Micros) -> i64 {
    at.0
}

/// A column of lists: where each row's items end, and which rows have none.
struct ListParts {
    ends: Vec<i32>,
    present: Vec<bool>,
}

impl Default for ListParts {
    fn default() -> Self {
        Self { ends: vec![0], present: Vec::new() }
    }
}

impl ListParts {
    /// No item at all is null: the row says nothing, not "an empty list".
    fn push(&mut self, items: usize) {
        let end = self.ends.last().copied().unwrap_or(0) + items as i32;
        self.ends.push(end);
        self.present.push(items > 0);
    }

    fn finish(&mut self, fields: Fields, items: Vec<ArrayRef>) -> Result<ArrayRef, ArrowError> {
        let parts = std::mem::take(self);
        let values = StructArray::try_new(fields.clone(), items, None)?;
        let item = Arc::new(ArrowField::new("item", DataType::Struct(fields), false));
        let list = ListArray::try_new(
            item,
            OffsetBuffer::new(parts.ends.into()),
            Arc::new(values),
            Some(NullBuffer::from(parts.present)),
        )?;
        Ok(Arc::new(list))
    }
}

#[derive(Default)]
struct FieldsBuilder {
    list: ListParts,
    name: StringBuilder,
    value: StringBuilder,
    encoding: StringBuilder,
}

impl FieldsBuilder {
    fn append(&mut self, fields: &[Field<'_>]) {
        for field in fields {
            self.name.append_value(field.name);
            self.value.append_value(field.value);
            self.encoding.append_value(field.encoding.as_str());
        }
        self.list.push(fields.len());
    }

    fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let items: Vec<ArrayRef> = vec![
            Arc::new(self.name.finish()),
            Arc::new(self.value.finish()),
            Arc::new(self.encoding.finish()),
        ];
        self.list.finish(field_struct(), items)
    }
}

#[derive(Default)]
struct CausesBuilder {
    list: ListParts,
    boot: StringBuilder,
    seq: Int64Builder,
}

impl CausesBuilder {
    fn append(&mut self, causes: &[RowRef<'_>], this_boot: &str) {
        for cause in causes {
            self.boot.append_value(cause.boot.unwrap_or(this_boot));
            self.seq.append_value(cause.seq.0);
        }
        self.list.push(causes.len());
    }

    fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let items: Vec<ArrayRef> = vec![Arc::new(self.boot.finish()), Arc::new(self.seq.finish())];
        self.list.finish(cause_struct(), items)
    }
}

#[cfg(test)]
mod tests;
