//! One sealed segment as one Parquet object. Frames are read and decoded in a stream, in batches
//! that are bounded in rows and in bytes: memory holds one row group and the finished object.

use std::path::Path;
use std::time::{Duration, Instant};

use flowtap_record::{HistoryBuilder, Micros, SCHEMA_VERSION, Seq, footer, history_schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::spool::{Segment, SegmentReader};

const BATCH_ROWS: usize = 2048;
/// A batch of rows with payloads ends here.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Each column of an open row group keeps its values and a dictionary in memory.
const ROW_GROUP_ROWS: usize = 16 * 1024;
/// A column whose dictionary gets larger has few repetitions: the rest is written plain.
const DICTIONARY_BYTES: usize = 256 * 1024;
const ROW_GROUP_BYTES: usize = 16 * 1024 * 1024;
/// A segment that a crash left open has no watermark of its own: its last row's time, less what
/// taps may still have held.
const MARGIN_US: i64 = 500_000;

/// Why a segment could not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The file can't be read.
    #[error("can't read the segment: {0}")]
    Read(#[from] std::io::Error),
    /// The rows make no batch.
    #[error("can't build a batch: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// The batches make no file.
    #[error("can't write Parquet: {0}")]
    Parquet(#[from] ParquetError),
}

/// An inbox object, ready to be put.
#[derive(Debug)]
pub struct Encoded {
    /// The Parquet file.
    pub bytes: Vec<u8>,
    /// Rows in it.
    pub rows: u64,
    /// Rows of the segment's range that could not be read.
    pub lost: Vec<Lost>,
    /// `at` of the last row.
    pub last_at: Option<Micros>,
    /// "All I saw up to then is uploaded", once this object is put.
    pub watermark: Micros,
}

/// Rows that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The first.
    pub first: Seq,
    /// The last.
    pub last: Seq,
    /// `at` of the row before them, if the segment has one.
    pub from: Option<Micros>,
    /// `at` of the row behind them, if the segment has one.
    pub to: Option<Micros>,
}

/// Columns of numbers that rarely repeat and mostly rise: differences are smaller than a dictionary.
const RISING_COLUMNS: [&str; 5] = ["seq", "ref_seq", "at", "delivery_tag", "took_us"];

/// Encodes a segment. What can't be read of it is named in [`Encoded::lost`].
pub fn encode_segment(segment: &Segment, uploaded_at: Micros) -> Result<Encoded, EncodeError> {
    encode_at_ease(segment, uploaded_at, |_| {})
}

/// The same, with a rest after each batch of rows, which is told how long the batch took.
pub(crate) fn encode_at_ease(
    segment: &Segment,
    uploaded_at: Micros,
    rest: impl Fn(Duration),
) -> Result<Encoded, EncodeError> {
    let mut reader = SegmentReader::open(&segment.path, segment.first)?;
    let mut object = Object::begin(segment)?;
    let mut begun = Instant::now();
    while let Some(frame) = reader.next_frame()? {
        if frame.first > segment.last.0 {
            // Behind the range that the name fixed: the torn end of an abandoned segment.
            break;
        }
        let row_bytes = frame.bytes() / (frame.count as usize).max(1);
        for (seq, row) in frame.rows().filter(|(seq, _)| *seq <= segment.last) {
            if let Some(row) = row {
                object.lost_until(seq, Some(row.at));
                object.next = seq.0 + 1;
                object.last_at = Some(row.at);
                object.builder.append(seq, &row);
                object.rows += 1;
                object.batch_bytes += row_bytes;
                if object.builder.len() >= BATCH_ROWS || object.batch_bytes >= BATCH_BYTES {
                    object.flush()?;
                    rest(begun.elapsed());
                    begun = Instant::now();
                }
            }
        }
    }
    object.lost_until(Seq(segment.last.0 + 1), None);
    let watermark =
        reader.watermark().or(object.last_at.map(|at| at.plus(-MARGIN_US))).unwrap_or_default();
    object.finish(segment, watermark, uploaded_at)
}

/// The object for a segment of which nothing can be read: no rows, all of its range lost.
pub(crate) fn encode_lost(segment: &Segment, uploaded_at: Micros) -> Result<Encoded, EncodeError> {
    let mut object = Object::begin(segment)?;
    object.lost_until(Seq(segment.last.0 + 1), None);
    object.finish(segment, Micros::default(), uploaded_at)
}

struct Object {
    writer: ArrowWriter<Vec<u8>>,
    builder: HistoryBuilder,
    batch_bytes: usize,
    rows: u64,
    /// Number of the row that comes next, if none is lost.
    next: i64,
    lost: Vec<Lost>,
    last_at: Option<Micros>,
}

impl Object {
    fn begin(segment: &Segment) -> Result<Self, ParquetError> {
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            .set_statistics_enabled(EnabledStatistics::Page)
            .set_dictionary_page_size_limit(DICTIONARY_BYTES)
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_created_by(concat!("flowtap-agent ", env!("CARGO_PKG_VERSION")).to_owned());
        for name in RISING_COLUMNS {
            let column = ColumnPath::from(name);
            properties = properties
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
        }
        let properties = properties.build();
        Ok(Self {
            writer: ArrowWriter::try_new(Vec::new(), history_schema(), Some(properties))?,
            builder: HistoryBuilder::new(&segment.agent, &segment.boot),
            batch_bytes: 0,
            rows: 0,
            next: segment.first.0,
            lost: Vec::new(),
            last_at: None,
        })
    }

    /// Rows between the last one taken and `seq`, which is from `to`, are lost.
    fn lost_until(&mut self, seq: Seq, to: Option<Micros>) {
        if seq.0 > self.next {
            let (first, last) = (Seq(self.next), Seq(seq.0 - 1));
            self.lost.push(Lost { first, last, from: self.last_at, to });
        }
    }

    fn flush(&mut self) -> Result<(), EncodeError> {
        self.batch_bytes = 0;
        if !self.builder.is_empty() {
            self.writer.write(&self.builder.finish()?)?;
            if self.writer.in_progress_size() >= ROW_GROUP_BYTES {
                self.writer.flush()?;
            }
        }
        Ok(())
    }

    fn finish(
        mut self,
        segment: &Segment,
        watermark: Micros,
        uploaded_at: Micros,
    ) -> Result<Encoded, EncodeError> {
        self.flush()?;
        for (key, value) in [
            (footer::AGENT, segment.agent.clone()),
            (footer::BOOT, segment.boot.clone()),
            (footer::FIRST, segment.first.0.to_string()),
            (footer::LAST, segment.last.0.to_string()),
            (footer::SCHEMA, SCHEMA_VERSION.to_owned()),
            (footer::WATERMARK, watermark.0.to_string()),
            (footer::UPLOADED_AT, uploaded_at.0.to_string()),
        ] {
            self.writer.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
        Ok(Encoded {
            bytes: self.writer.into_inner()?,
            rows: self.rows,
            lost: self.lost,
            last_at: self.last_at,
            watermark,
        })
    }
}

/// A segment file by itself, for tools and benchmarks: its range is in its name, its agent and
/// boot are the caller's.
pub fn segment_at(path: &Path, agent: &str, boot: &str, first: Seq, last: Seq) -> Segment {
    let bytes = std::fs::metadata(path).map_or(0, |meta| meta.len());
    Segment {
        boot: boot.to_owned(),
        agent: agent.to_owned(),
        first,
        last,
        path: path.to_owned(),
        bytes,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use flowtap_record::{Kind, Observation};

    use super::*;
    use crate::spool::{Spool, SpoolOptions};

    #[tokio::test(flavor = "multi_thread")]
    async fn an_encoder_rests_after_each_batch_of_rows_and_makes_the_same_object() {
        let folder = tempfile::tempdir().unwrap();
        let (recorder, handle, _) = Spool::open(SpoolOptions::new(folder.path(), "shop")).unwrap();
        for _ in 0..=3 * BATCH_ROWS {
            recorder.record(&Observation::new(Kind::Publish, handle.now())).unwrap();
        }
        assert!(handle.close(Duration::from_secs(20)).await);
        let segment = handle.next_sealed().unwrap();
        let rests = Cell::new(0);
        let at_ease = encode_at_ease(&segment, Micros(0), |_| rests.set(rests.get() + 1)).unwrap();
        assert_eq!(rests.get(), 3);
        assert_eq!(at_ease.bytes, encode_segment(&segment, Micros(0)).unwrap().bytes);
        handle.abandon();
    }
}
