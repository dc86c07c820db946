//! Decodes chosen rows of an inbox object, or of one row group of a file of the table, whose bytes
//! are at hand.

use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::file::metadata::ParquetMetaData;

use super::building::{Building, COLUMNS};
use super::chunks::Chunks;
use super::columns::Cells;
use super::ids::{self, Ids};
use super::known::Source;
use crate::flow::Row;
use crate::store::Trouble;

/// How much of each row is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// What the rules need.
    Rules,
    /// Every column.
    All,
}

impl Wanted {
    /// By name; none: all.
    pub(super) fn columns(self) -> Option<&'static [&'static str]> {
        (self == Self::Rules).then_some(&RULES[..])
    }
}

/// Columns that the rules need.
const RULES: [&str; 42] = [
    "agent",
    "boot",
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
    "command_id",
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

/// Why rows could not be read.
#[derive(Clone, Debug)]
pub(super) enum ReadError {
    /// What they lay in is gone: they may lie elsewhere now.
    Gone(String),
    /// The store did not give them.
    Store(String),
    /// They cannot be decoded.
    Broken(String),
}

impl ReadError {
    pub(super) fn of(error: &object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::Gone(error.to_string()),
            _ => Self::Store(error.to_string()),
        }
    }

    pub(super) fn why(self) -> String {
        match self {
            Self::Gone(why) | Self::Store(why) | Self::Broken(why) => why,
        }
    }
}

impl From<ReadError> for Trouble {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Gone(why) | ReadError::Store(why) => Self::Read(why),
            ReadError::Broken(why) => Self::Unbelievable(why),
        }
    }
}

/// Bytes of an inbox object, or of one row group of a file, with the footer decoded.
#[derive(Clone)]
pub(super) struct Opened {
    bytes: Chunks,
    footer: ArrowReaderMetadata,
    group: Option<usize>,
}

impl Opened {
    /// Decodes the footer.
    pub(super) fn of(bytes: Bytes) -> Result<Self, String> {
        let footer = ArrowReaderMetadata::load(&bytes, ArrowReaderOptions::new())
            .map_err(|error| format!("not readable as Parquet: {error}"))?;
        Ok(Self { bytes: Chunks::whole(bytes), footer, group: None })
    }

    /// One row group, of which the wanted columns are at hand.
    pub(super) fn group(bytes: Chunks, footer: ArrowReaderMetadata, group: usize) -> Self {
        Self { bytes, footer, group: Some(group) }
    }

    pub(super) fn footer(&self) -> &Arc<ParquetMetaData> {
        self.footer.metadata()
    }

    /// Bytes that it holds.
    pub(super) fn held(&self) -> usize {
        // A footer of eighty columns takes about so much, decoded; that of a file is shared.
        self.bytes.held() + if self.group.is_none() { 64 << 10 } else { 0 }
    }

    fn total(&self) -> usize {
        let footer = self.footer();
        let rows = match self.group {
            Some(group) => footer.row_group(group).num_rows(),
            None => footer.file_metadata().num_rows(),
        };
        usize::try_from(rows).unwrap_or_default()
    }

    fn builder(&self, columns: Option<&[&str]>) -> ParquetRecordBatchReaderBuilder<Chunks> {
        let (bytes, footer) = (self.bytes.clone(), self.footer.clone());
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, footer)
            .with_batch_size(ROWS_AT_ONCE);
        let builder = match self.group {
            Some(group) => builder.with_row_groups(vec![group]),
            None => builder,
        };
        match columns {
            Some(columns) => builder.with_projection(mask(&self.footer, columns)),
            None => builder,
        }
    }

    /// Gives some columns of all rows.
    pub(super) fn batches(
        &self,
        columns: &[&str],
        mut give: impl FnMut(&RecordBatch),
    ) -> Result<(), String> {
        let reader = self.builder(Some(columns)).build().map_err(|error| error.to_string())?;
        for batch in reader {
            give(&batch.map_err(|error| error.to_string())?);
        }
        Ok(())
    }

    /// Takes all rows into an index.
    pub(super) fn index(&self, building: &mut Building) -> Result<(), String> {
        self.batches(&COLUMNS, |batch| building.batch(batch))
    }

    /// What its rows can be found by.
    pub(super) fn ids(&self) -> Result<Ids, String> {
        let mut ids = Ids::default();
        self.batches(&ids::COLUMNS, |batch| ids.batch(batch))?;
        ids.sort();
        Ok(ids)
    }

    /// The rows of these numbers, which rise. Of a file the rows themselves say whose they are.
    pub(super) fn rows(
        &self,
        source: &Source,
        numbers: &[u32],
        wanted: Wanted,
    ) -> Result<Vec<Row>, String> {
        let ranges = numbers.iter().map(|&row| row as usize..row as usize + 1);
        let selection = RowSelection::from_consecutive_ranges(ranges, self.total());
        let reader = self.builder(wanted.columns()).with_row_selection(selection).build();
        let mut rows = Vec::with_capacity(numbers.len());
        for batch in reader.map_err(|error| error.to_string())? {
            let batch = batch.map_err(|error| error.to_string())?;
            let cells = Cells::new(&batch);
            for row in 0..batch.num_rows() {
                let Some(mut made) = cells.row_of(source, row) else { continue };
                if wanted == Wanted::All {
                    made.rest = cells.rest(row);
                }
                rows.push(made);
            }
        }
        Ok(rows)
    }
}

/// The columns of these names.
pub(super) fn mask(footer: &ArrowReaderMetadata, columns: &[&str]) -> ProjectionMask {
    let fields = footer.schema().fields().iter().enumerate();
    let wanted = fields.filter(|(_, field)| columns.contains(&field.name().as_str()));
    ProjectionMask::roots(footer.parquet_schema(), wanted.map(|(index, _)| index))
}
