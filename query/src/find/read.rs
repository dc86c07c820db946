//! Reads chosen rows of one inbox object. The bytes of objects that were read lately stay in
//! memory.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt as _};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::file::metadata::ParquetMetaData;

use super::columns::Cells;
use crate::flow::Row;
use crate::store::{InboxObject, Store};

/// How much of each row is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// What the rules need.
    Rules,
    /// Every column.
    All,
}

/// Columns that the rules need.
const RULES: [&str; 39] = [
    "seq",
    "ref_boot",
    "ref_seq",
    "at",
    "kind",
    "outcome",
    "reason",
    "details",
    "tap",
    "system",
    "cluster",
    "vhost",
    "destination",
    "routing_key",
    "subscription",
    "service",
    "instance",
    "connection",
    "channel",
    "consumer",
    "message",
    "event_id",
    "event_type",
    "transaction_id",
    "causation_id",
    "command",
    "trace_id",
    "keys",
    "redelivered",
    "attempt",
    "took_us",
    "confirm_expected",
    "broker_txn",
    "gap_from",
    "gap_to",
    "gap_count",
    "size",
    "partition",
    "log_offset",
];

const ROWS_AT_ONCE: usize = 8192;

/// An object's bytes with its footer decoded.
#[derive(Clone)]
pub(super) struct Opened {
    bytes: Bytes,
    footer: ArrowReaderMetadata,
}

impl Opened {
    /// The bytes of an object, all of them.
    pub(super) async fn fetch(store: &Store, meta: &ObjectMeta) -> Result<Bytes, String> {
        let got = store.objects().get(&meta.location).await.map_err(|error| error.to_string())?;
        let bytes = got.bytes().await.map_err(|error| error.to_string())?;
        if bytes.len() as u64 != meta.size {
            return Err(format!("{} bytes came of {}", bytes.len(), meta.size));
        }
        Ok(bytes)
    }

    /// Decodes the footer.
    pub(super) fn of(bytes: Bytes) -> Result<Self, String> {
        let footer = ArrowReaderMetadata::load(&bytes, ArrowReaderOptions::new())
            .map_err(|error| format!("not readable as Parquet: {error}"))?;
        Ok(Self { bytes, footer })
    }

    pub(super) fn footer(&self) -> &Arc<ParquetMetaData> {
        self.footer.metadata()
    }

    pub(super) fn builder(
        &self,
        columns: Option<&[&str]>,
    ) -> ParquetRecordBatchReaderBuilder<Bytes> {
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(
            self.bytes.clone(),
            self.footer.clone(),
        );
        let builder = builder.with_batch_size(ROWS_AT_ONCE);
        let Some(columns) = columns else { return builder };
        let fields = self.footer.schema().fields().iter().enumerate();
        let wanted = fields.filter(|(_, field)| columns.contains(&field.name().as_str()));
        let wanted: Vec<usize> = wanted.map(|(index, _)| index).collect();
        let mask = ProjectionMask::roots(self.footer.parquet_schema(), wanted);
        builder.with_projection(mask)
    }

    /// The rows of these numbers, which rise.
    pub(super) fn rows(
        &self,
        object: &InboxObject,
        numbers: &[u32],
        wanted: Wanted,
    ) -> Result<Vec<Row>, String> {
        let total = self.footer.metadata().file_metadata().num_rows() as usize;
        let ranges = numbers.iter().map(|&row| row as usize..row as usize + 1);
        let selection = RowSelection::from_consecutive_ranges(ranges, total);
        let columns = if wanted == Wanted::Rules { Some(&RULES[..]) } else { None };
        let reader = self.builder(columns).with_row_selection(selection).build();
        let mut rows = Vec::with_capacity(numbers.len());
        for batch in reader.map_err(|error| error.to_string())? {
            let batch = batch.map_err(|error| error.to_string())?;
            let cells = Cells::new(&batch);
            for row in 0..batch.num_rows() {
                let made = cells.row(&object.name.agent, &object.name.boot, row);
                let Some(mut made) = made else { continue };
                if wanted == Wanted::All {
                    made.rest = cells.rest(row);
                }
                let seen = object.visible.0..=object.visible.1;
                if seen.contains(&made.id.seq) {
                    rows.push(made);
                }
            }
        }
        Ok(rows)
    }
}

/// Objects that were opened lately.
pub(super) struct Cache {
    inner: Mutex<Inner>,
    max_bytes: usize,
}

#[derive(Default)]
struct Inner {
    opened: HashMap<Path, Opened>,
    /// Oldest first.
    order: VecDeque<Path>,
    bytes: usize,
}

/// A footer of eighty columns takes about so much, decoded.
const FOOTER_BYTES: usize = 64 << 10;

impl Cache {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { inner: Mutex::default(), max_bytes }
    }

    pub(super) async fn open(
        &self,
        store: &Store,
        object: &InboxObject,
    ) -> Result<Arc<Opened>, String> {
        let path = &object.meta.location;
        let known = self.lock().opened.get(path).cloned();
        if let Some(known) = known {
            return Ok(Arc::new(known));
        }
        let opened = Opened::of(Opened::fetch(store, &object.meta).await?)?;
        let mut inner = self.lock();
        if inner.opened.insert(path.clone(), opened.clone()).is_none() {
            inner.bytes += opened.bytes.len() + FOOTER_BYTES;
            inner.order.push_back(path.clone());
        }
        while inner.bytes > self.max_bytes
            && let Some(oldest) = inner.order.pop_front()
        {
            if let Some(gone) = inner.opened.remove(&oldest) {
                inner.bytes -= gone.bytes.len() + FOOTER_BYTES;
            }
        }
        Ok(Arc::new(opened))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
