//! The Delta table `uploads`: each inbox object that was taken, with the times of its upload by the
//! agent's and by the store's clock. It outlives the objects.

use std::sync::Arc;

use arrow::array::{Date32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use deltalake_core::kernel::Action;
use flowtap_record::path::InboxName;
use flowtap_record::{Micros, day_of};
use tracing::warn;

use super::files::{self, SortedBy};
use super::{IngestError, is_conflict, table};
use crate::store::{Progress, Store, Taken};

/// Its name.
const UPLOADS: &str = "uploads";
const SORTED_BY: SortedBy = SortedBy { key: "agent", time: "last_modified" };
/// The application id whose version is the number of the last progress that it has.
const APP: &str = "flowtap-uploads";

/// Its columns; the last is the partition.
fn schema() -> SchemaRef {
    let time = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let field = |name: &str, data_type| Field::new(name, data_type, false);
    Arc::new(Schema::new(vec![
        field("agent", DataType::Utf8),
        field("boot", DataType::Utf8),
        field("table", DataType::Utf8),
        field("first_seq", DataType::Int64),
        field("last_seq", DataType::Int64),
        field("rows", DataType::Int64),
        field("bytes", DataType::Int64),
        field("uploaded_at", time()),
        field("watermark", time()),
        field("last_modified", time()),
        field("ingest", DataType::Int64),
        field("day", DataType::Date32),
    ]))
}

/// Brings the table up to `progress`, which is committed. Returns the number up to which it is
/// complete.
pub(super) async fn catch_up(store: &Store, progress: &Progress) -> Result<u64, IngestError> {
    if progress.number == 0 {
        return Ok(0);
    }
    let opened = table::open(store, UPLOADS, &schema(), SORTED_BY).await?;
    let trouble = |error| IngestError::from(store.table_trouble(UPLOADS, error));
    let known = table::number(&opened, APP).await.map_err(trouble)?;
    let mut missing: Vec<(u64, Vec<Taken>)> = Vec::new();
    let mut next = progress.clone();
    while next.number > known {
        let previous = next.previous;
        missing.push((next.number, next.taken));
        next = Progress::read(store, previous).await?;
    }
    if missing.is_empty() {
        return Ok(known);
    }
    missing.reverse();
    let mut actions = Vec::new();
    if let Some(rows) = rows(&missing)? {
        for file in files::encode(&[rows], SORTED_BY).map_err(IngestError::Encode)? {
            let add = files::put(store, UPLOADS, file, true);
            actions.push(Action::Add(add.await.map_err(|error| store.unreadable(error))?));
        }
    }
    let done = table::commit(&opened, actions, &[(APP, progress.number)], table::append()).await;
    match done {
        Ok(_) => Ok(progress.number),
        // Another ingester was quicker: the next pass sees how far it came.
        Err(error) if is_conflict(&error) => Ok(known),
        Err(error) => Err(trouble(error)),
    }
}

fn rows(missing: &[(u64, Vec<Taken>)]) -> Result<Option<RecordBatch>, IngestError> {
    let all: Vec<(u64, InboxName, &Taken)> = missing
        .iter()
        .flat_map(|(number, taken)| taken.iter().map(move |taken| (*number, taken)))
        .filter_map(|(number, taken)| match InboxName::parse(&taken.object) {
            Ok(name) => Some((number, name, taken)),
            Err(error) => {
                warn!(%error, "an object that was taken has no proper name");
                None
            }
        })
        .collect();
    if all.is_empty() {
        return Ok(None);
    }
    let text = |of: fn(&InboxName) -> &str| -> Arc<StringArray> {
        Arc::new(all.iter().map(|(_, name, _)| Some(of(name))).collect())
    };
    let number = |of: &dyn Fn(&(u64, InboxName, &Taken)) -> i64| -> Arc<Int64Array> {
        Arc::new(all.iter().map(|it| Some(of(it))).collect())
    };
    let time = |of: fn(&Taken) -> Micros| -> Arc<TimestampMicrosecondArray> {
        let times = TimestampMicrosecondArray::from_iter_values(
            all.iter().map(|(_, _, taken)| of(taken).0),
        );
        Arc::new(times.with_timezone("UTC"))
    };
    let days = all.iter().map(|(_, _, it)| day_of(it.last_modified, it.last_modified));
    let columns: Vec<arrow::array::ArrayRef> = vec![
        text(|name| &name.agent),
        text(|name| &name.boot),
        text(|name| &name.table),
        number(&|(_, name, _)| name.first.0),
        number(&|(_, name, _)| name.last.0),
        number(&|(_, _, taken)| taken.rows as i64),
        number(&|(_, _, taken)| taken.bytes as i64),
        time(|taken| taken.uploaded_at),
        time(|taken| taken.watermark),
        time(|taken| taken.last_modified),
        number(&|(number, _, _)| *number as i64),
        Arc::new(Date32Array::from_iter_values(days)),
    ];
    let batch = RecordBatch::try_new(schema(), columns);
    batch.map(Some).map_err(|error| IngestError::Encode(error.to_string()))
}
