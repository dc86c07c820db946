//! Reads cells out of record batches, by column name. A column that was not asked for reads as
//! null.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, StringArray};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use flowtap_record::{Kind, Micros, Outcome, Tap};
use serde_json::{Map, Value, json};

use super::known::Source;
use crate::flow::{KeyValue, Row, RowId};

/// The columns of one batch.
pub(super) struct Cells<'a> {
    by_name: HashMap<&'a str, &'a ArrayRef>,
}

impl<'a> Cells<'a> {
    pub(super) fn new(batch: &'a RecordBatch) -> Self {
        let schema = batch.schema_ref();
        let by_name =
            schema.fields().iter().map(|field| field.name().as_str()).zip(batch.columns());
        Self { by_name: by_name.collect() }
    }

    fn column(&self, name: &str, row: usize) -> Option<&'a ArrayRef> {
        self.by_name.get(name).copied().filter(|column| column.is_valid(row))
    }

    pub(super) fn text(&self, name: &str, row: usize) -> Option<&'a str> {
        Some(self.column(name, row)?.as_string_opt::<i32>()?.value(row))
    }

    fn owned(&self, name: &str, row: usize) -> Option<String> {
        self.text(name, row).map(str::to_owned)
    }

    pub(super) fn long(&self, name: &str, row: usize) -> Option<i64> {
        Some(self.column(name, row)?.as_primitive_opt::<Int64Type>()?.value(row))
    }

    pub(super) fn int(&self, name: &str, row: usize) -> Option<i32> {
        Some(self.column(name, row)?.as_primitive_opt::<Int32Type>()?.value(row))
    }

    pub(super) fn time(&self, name: &str, row: usize) -> Option<Micros> {
        let column = self.column(name, row)?.as_primitive_opt::<TimestampMicrosecondType>()?;
        Some(Micros(column.value(row)))
    }

    pub(super) fn flag(&self, name: &str, row: usize) -> Option<bool> {
        Some(self.column(name, row)?.as_boolean_opt()?.value(row))
    }

    pub(super) fn kind(&self, row: usize) -> Option<Kind> {
        let word = self.text("kind", row)?;
        Kind::ALL.iter().copied().find(|kind| kind.as_str() == word)
    }

    pub(super) fn outcome(&self, row: usize) -> Option<Outcome> {
        let word = self.text("outcome", row)?;
        Outcome::ALL.iter().copied().find(|outcome| outcome.as_str() == word)
    }

    /// Name and value of each of `keys` or `headers`.
    pub(super) fn fields(&self, name: &str, row: usize) -> Vec<(&'a str, &'a str)> {
        let parts = || -> Option<(&'a ListArray, &'a StringArray, &'a StringArray)> {
            let lists = self.column(name, row)?.as_list_opt::<i32>()?;
            let fields = lists.values().as_struct_opt()?;
            let part = |name| fields.column_by_name(name)?.as_string_opt::<i32>();
            Some((lists, part("name")?, part("value")?))
        };
        let Some((lists, names, values)) = parts() else { return Vec::new() };
        let range = lists.value_offsets()[row] as usize..lists.value_offsets()[row + 1] as usize;
        range.map(|item| (names.value(item), values.value(item))).collect()
    }

    /// A row of a source, if it is to be seen. Agent and boot of an inbox object come from its name,
    /// not from what it holds; those of a file of the table were checked when it was made.
    pub(super) fn row_of(&self, source: &Source, row: usize) -> Option<Row> {
        match source {
            Source::Inbox(object) => {
                let made = self.row(&object.name.agent, &object.name.boot, row)?;
                (object.visible.0..=object.visible.1).contains(&made.id.seq).then_some(made)
            }
            Source::File(_) => self.row(self.text("agent", row)?, self.text("boot", row)?, row),
        }
    }

    /// The whole row.
    pub(super) fn row(&self, agent: &str, boot: &str, row: usize) -> Option<Row> {
        let kind = self.kind(row)?;
        let details = self.text("details", row).and_then(|text| serde_json::from_str(text).ok());
        let concludes = self.long("ref_seq", row).map(|seq| RowId {
            agent: agent.to_owned(),
            boot: self.owned("ref_boot", row).unwrap_or_else(|| boot.to_owned()),
            seq,
        });
        let keys = self.fields("keys", row).into_iter();
        let tap = self.text("tap", row);
        Some(Row {
            id: RowId {
                agent: agent.to_owned(),
                boot: boot.to_owned(),
                seq: self.long("seq", row)?,
            },
            agent: agent.to_owned(),
            outcome: self.outcome(row),
            reason: self.owned("reason", row),
            details: details.unwrap_or(Value::Null),
            tap: tap.and_then(|word| Tap::ALL.iter().copied().find(|tap| tap.as_str() == word)),
            concludes,
            system: self.owned("system", row),
            cluster: self.owned("cluster", row),
            vhost: self.owned("vhost", row),
            destination: self.owned("destination", row),
            routing_key: self.owned("routing_key", row),
            subscription: self.owned("subscription", row),
            partition: self.int("partition", row),
            log_offset: self.long("log_offset", row),
            service: self.owned("service", row),
            instance: self.owned("instance", row),
            connection: self.long("connection", row),
            channel: self.int("channel", row),
            consumer: self.owned("consumer", row),
            message: self.owned("message", row),
            event_id: self.owned("event_id", row),
            event_type: self.owned("event_type", row),
            transaction_id: self.owned("transaction_id", row),
            causation_id: self.owned("causation_id", row),
            command: self.owned("command", row),
            command_id: self.owned("command_id", row),
            trace_id: self.owned("trace_id", row),
            keys: keys
                .map(|(name, value)| KeyValue { name: name.to_owned(), value: value.to_owned() })
                .collect(),
            redelivered: self.flag("redelivered", row),
            attempt: self.int("attempt", row),
            took_us: self.long("took_us", row),
            confirm_expected: self.flag("confirm_expected", row),
            broker_txn: self.owned("broker_txn", row),
            gap_from: self.time("gap_from", row),
            gap_to: self.time("gap_to", row),
            gap_count: self.long("gap_count", row),
            size: self.long("size", row),
            rest: Map::new(),
            ..Row::new(kind, self.time("at", row)?)
        })
    }

    /// Every column that is not null, as JSON, but for those that have a place of their own.
    pub(super) fn rest(&self, row: usize) -> Map<String, Value> {
        // The last is of the table, not of the row.
        const OWN: [&str; 9] =
            ["agent", "boot", "seq", "at", "kind", "service", "outcome", "reason", "cluster_key"];
        let mut rest = Map::new();
        for (&name, column) in &self.by_name {
            if OWN.contains(&name) || column.is_null(row) {
                continue;
            }
            let value = match name {
                "keys" | "headers" | "causes" => self.list(name, row),
                "details" => self
                    .text(name, row)
                    .map(|text| serde_json::from_str(text).unwrap_or_else(|_| text.into())),
                "payload" => column.as_binary_opt::<i32>().map(|bytes| payload(bytes.value(row))),
                _ => self.scalar(name, row),
            };
            rest.extend(value.map(|value| (name.to_owned(), value)));
        }
        rest
    }

    fn scalar(&self, name: &str, row: usize) -> Option<Value> {
        if let Some(text) = self.text(name, row) {
            return Some(text.into());
        }
        if let Some(number) = self.long(name, row) {
            return Some(number.into());
        }
        if let Some(number) = self.int(name, row) {
            return Some(number.into());
        }
        if let Some(at) = self.time(name, row) {
            return Some(at.to_string().into());
        }
        if let Some(flag) = self.flag(name, row) {
            return Some(flag.into());
        }
        Some(self.column(name, row)?.as_primitive_opt::<Float64Type>()?.value(row).into())
    }

    fn list(&self, name: &str, row: usize) -> Option<Value> {
        let lists = self.column(name, row)?.as_list_opt::<i32>()?;
        let fields = lists.values().as_struct_opt()?;
        let range = lists.value_offsets()[row] as usize..lists.value_offsets()[row + 1] as usize;
        let items = range.map(|item| {
            let mut object = Map::new();
            for (field, column) in fields.fields().iter().zip(fields.columns()) {
                let value = column
                    .as_string_opt::<i32>()
                    .map(|texts| Value::from(texts.value(item)))
                    .or_else(|| Some(column.as_primitive_opt::<Int64Type>()?.value(item).into()));
                object.extend(value.map(|value| (field.name().clone(), value)));
            }
            Value::Object(object)
        });
        Some(items.collect())
    }
}

/// A payload as text where it is text, else as hexadecimal digits.
fn payload(bytes: &[u8]) -> Value {
    use std::fmt::Write as _;
    if let Ok(text) = std::str::from_utf8(bytes) {
        return json!({"encoding": "text", "value": text});
    }
    let mut hex = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(hex, "{byte:02x}");
    }
    json!({"encoding": "hex", "value": hex})
}
