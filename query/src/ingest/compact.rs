//! Small files of a day become large ones, sorted as before, with the same rows. Readers never
//! notice: the commit says that no data changed, and the old files stay until they are vacuumed.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{Schema, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use deltalake_core::DeltaTable;
use deltalake_core::kernel::{Action, Remove};
use deltalake_core::protocol::DeltaOperation;
use flowtap_record::path::HISTORY;
use flowtap_record::{DAY_US, Micros};
use futures::TryStreamExt as _;
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStream};
use tracing::info;

use super::files::{self, File, FileWriter, SortedBy};
use super::{IngestError, SORTED_BY, rows, table};
use crate::derived::Fold;
use crate::store::{HistoryFile, Store, day_text};

/// A file of this size is left alone.
const LARGE: u64 = 64 << 20;
/// What is merged makes a file of about this size at most. It is in memory when it is put.
const TARGET: u64 = 128 << 20;
/// Files that are merged at once: a few thousand rows of each are in memory.
const INPUTS: usize = 32;
/// While a day goes on, so many files of about one size are worth merging.
const WORTH: usize = 8;
/// A day counts as over so long after its end: most late rows are there.
const LATE_US: i64 = 3_600_000_000;
/// Rows of each input that are decoded at a time.
const ROWS_AT_ONCE: usize = 2048;

/// Files that become one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Job {
    pub(crate) day: i32,
    pub(crate) files: Vec<HistoryFile>,
}

impl Job {
    /// Rows of all its files.
    pub(crate) fn rows(&self) -> usize {
        self.files.iter().map(|file| file.rows).sum()
    }
}

/// What is most worth doing now; none if nothing is. Each row is rewritten a few times at most: while
/// a day goes on, files are merged with those of their own size only.
pub(crate) fn plan(files: &[HistoryFile], now: Micros) -> Option<Job> {
    let mut days: BTreeMap<i32, Vec<&HistoryFile>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.meta.size < LARGE) {
        days.entry(file.day).or_default().push(file);
    }
    // The newest day first: most questions are about it.
    days.into_iter().rev().find_map(|(day, mut small)| {
        small.sort_by_key(|file| (file.meta.size, file.meta.location.clone()));
        let chosen = if is_over(day, now) { small } else { of_one_size(&small)? };
        let mut size = 0;
        let files: Vec<HistoryFile> = chosen
            .into_iter()
            .take(INPUTS)
            .take_while(|file| {
                size += file.meta.size;
                size <= TARGET
            })
            .cloned()
            .collect();
        (files.len() > 1).then_some(Job { day, files })
    })
}

/// Whether most late rows of a day are there.
fn is_over(day: i32, now: Micros) -> bool {
    (i64::from(day) + 1) * DAY_US + LATE_US < now.0
}

/// Whether a file stays as it is for long, where nothing is left to be merged.
pub(super) fn stays(file: &HistoryFile, now: Micros) -> bool {
    file.meta.size >= LARGE || is_over(file.day, now)
}

/// The smallest files that are many of about one size: none is eight times as large as the smallest
/// of its kind.
fn of_one_size<'a>(sorted: &[&'a HistoryFile]) -> Option<Vec<&'a HistoryFile>> {
    let kind = |file: &HistoryFile| file.meta.size.max(1 << 20).ilog2() / 3;
    let groups = sorted.chunk_by(|a, b| kind(a) == kind(b));
    groups.into_iter().find(|group| group.len() >= WORTH).map(<[_]>::to_vec)
}

/// Merges the files of a job and puts the new one in their place. False: somebody else changed one of
/// them meanwhile; nothing is done then.
pub(super) async fn run(store: &Store, table: &DeltaTable, job: &Job) -> Result<bool, IngestError> {
    let schema = rows::table_schema();
    let (actions, size) = replace(store, HISTORY, job, &schema, SORTED_BY, None).await?;
    let operation = DeltaOperation::Optimize { predicate: None, target_size: TARGET as i64 };
    let done = table::tidy(store, HISTORY, table, actions, operation).await?;
    if done {
        let (day, rows) = (day_text(job.day), job.rows());
        info!(day, files = job.files.len(), rows, size, "compacted");
    }
    Ok(done)
}

/// Writes the file that takes the place of those of a job, with rows put together where there is a
/// `fold`. Returns what a commit has to do for it, and the file's size.
pub(crate) async fn replace(
    store: &Store,
    table: &str,
    job: &Job,
    schema: &Schema,
    by: SortedBy,
    fold: Option<Box<dyn Fold>>,
) -> Result<(Vec<Action>, i64), IngestError> {
    let folds = fold.is_some();
    let (merged, read) = merge(store, job, schema, by, fold).await?;
    let (came, rows) = (if folds { read } else { merged.rows }, job.rows());
    if came != rows {
        let why = format!("{came} rows came of {rows}: nothing is replaced");
        return Err(IngestError::Encode(why));
    }
    let add = files::put(store, table, merged, false).await;
    let add = add.map_err(|error| store.unreadable(error))?;
    let size = add.size;
    let removed = job.files.iter().map(|file| remove(table, file, false));
    Ok((removed.chain([Action::Add(add)]).collect(), size))
}

/// The action that takes a file out of a table. The file itself stays.
pub(crate) fn remove(table: &str, file: &HistoryFile, data_change: bool) -> Action {
    let path = file.meta.location.as_ref();
    let path = path.strip_prefix(table).map_or(path, |path| path.trim_start_matches('/'));
    Action::Remove(Remove {
        path: path.to_owned(),
        data_change,
        deletion_timestamp: Some(crate::store::now().0 / 1000),
        extended_file_metadata: Some(true),
        partition_values: Some([("day".to_owned(), Some(day_text(file.day)))].into()),
        size: Some(file.meta.size as i64),
        ..Remove::default()
    })
}

/// One of the files that are merged: the batch that it stands at, and where.
struct Cursor {
    stream: ParquetRecordBatchStream<Box<dyn AsyncFileReader>>,
    /// Place of the batch among those that are held.
    held: usize,
    row: usize,
    rows: usize,
}

/// Rows that are held, and the order in which they go out.
struct Merge {
    by: SortedBy,
    /// Columns of the new file. The old ones may be of older Flowtaps and lack some.
    schema: SchemaRef,
    held: Vec<RecordBatch>,
    places: Vec<(usize, usize)>,
}

/// Where sorted rows go.
struct Out {
    writer: FileWriter,
    /// Puts rows together that belong together.
    fold: Option<Box<dyn Fold>>,
    day: i32,
    rows: usize,
}

impl Out {
    fn write(&mut self, sorted: &RecordBatch) -> Result<(), String> {
        self.rows += sorted.num_rows();
        let Some(fold) = &mut self.fold else { return self.writer.write(sorted) };
        fold.add(&files::with_day(sorted, self.day)?)?;
        let whole = fold.take(true)?;
        self.writer.write(&files::without_day(&whole)?)
    }

    /// The file, and how many rows came.
    fn finish(mut self) -> Result<(File, usize), String> {
        if let Some(fold) = &mut self.fold {
            self.writer.write(&files::without_day(&fold.take(false)?)?)?;
        }
        Ok((self.writer.finish()?, self.rows))
    }
}

/// The rows of all files of a job as one file of a table of these columns, in order, and how many rows
/// were read for it. Files are read side by side: little of each is in memory.
async fn merge(
    store: &Store,
    job: &Job,
    table: &Schema,
    by: SortedBy,
    fold: Option<Box<dyn Fold>>,
) -> Result<(File, usize), IngestError> {
    let failed = |error: &dyn std::fmt::Display| IngestError::Encode(error.to_string());
    let schema = files::columns(table).map_err(|error| failed(&error))?;
    let writer = FileWriter::new(job.day, schema.clone(), by).map_err(IngestError::Encode)?;
    let mut out = Out { writer, fold, day: job.day, rows: 0 };
    let mut merge = Merge { by, schema, held: Vec::new(), places: Vec::new() };
    let mut cursors = Vec::new();
    for file in &job.files {
        let reader = store.parquet(&file.meta).map_err(|error| failed(&error))?;
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await;
        let stream = builder.and_then(|it| it.with_batch_size(ROWS_AT_ONCE).build());
        let stream = stream.map_err(|error| failed(&error))?;
        let mut cursor = Cursor { stream, held: 0, row: 0, rows: 0 };
        if merge.next_batch(&mut cursor).await? {
            cursors.push(cursor);
        }
    }
    loop {
        if merge.places.len() >= files::CHUNK_ROWS || cursors.is_empty() && !merge.places.is_empty()
        {
            let sorted = merge.sorted(&mut cursors).map_err(|error| failed(&error))?;
            out = aside(move || out.write(&sorted).map(|()| out)).await?;
        }
        if cursors.is_empty() {
            return aside(move || out.finish()).await;
        }
        let least = merge.least(&cursors);
        let until = merge.run_of(&cursors, least);
        let cursor = &mut cursors[least];
        merge.places.extend((cursor.row..until).map(|row| (cursor.held, row)));
        cursor.row = until;
        if cursor.row == cursor.rows && !merge.next_batch(cursor).await? {
            cursors.swap_remove(least);
        }
    }
}

/// Runs what encodes, a row group for a good part of a second, beside what answers questions.
async fn aside<T: Send + 'static>(
    encode: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, IngestError> {
    let done = tokio::task::spawn_blocking(encode).await;
    done.map_err(|error| error.to_string()).flatten().map_err(IngestError::Encode)
}

/// What rows are sorted by: those without a key last.
type Key<'a> = (bool, Option<&'a str>, i64);

impl Merge {
    /// Moves a cursor to its next batch. False: there is none.
    async fn next_batch(&mut self, cursor: &mut Cursor) -> Result<bool, IngestError> {
        loop {
            let next = cursor.stream.try_next().await;
            let Some(batch) = next.map_err(|error| IngestError::Encode(error.to_string()))? else {
                return Ok(false);
            };
            if batch.num_rows() > 0 {
                let batch = rows::conform(&self.schema, &batch).map_err(IngestError::Encode)?;
                (cursor.held, cursor.row, cursor.rows) = (self.held.len(), 0, batch.num_rows());
                self.held.push(batch);
                return Ok(true);
            }
        }
    }

    fn key(&self, held: usize, row: usize) -> Key<'_> {
        let batch = &self.held[held];
        let key = batch.column_by_name(self.by.key).map(AsArray::as_string::<i32>);
        let key = key.filter(|it| it.is_valid(row)).map(|it| it.value(row));
        let times = batch.column_by_name(self.by.time);
        let at = times.map_or(0, |it| it.as_primitive::<TimestampMicrosecondType>().value(row));
        (key.is_none(), key, at)
    }

    /// The cursor whose row goes out next.
    fn least(&self, cursors: &[Cursor]) -> usize {
        let key = |cursor: &Cursor| self.key(cursor.held, cursor.row);
        let by_key =
            |a: &(usize, &Cursor), b: &(usize, &Cursor)| -> Ordering { key(a.1).cmp(&key(b.1)) };
        cursors.iter().enumerate().min_by(by_key).map_or(0, |(index, _)| index)
    }

    /// The end of the rows of this cursor's batch that go out before any of another.
    fn run_of(&self, cursors: &[Cursor], least: usize) -> usize {
        let others = cursors.iter().enumerate().filter(|(index, _)| *index != least);
        let next = others.map(|(_, other)| self.key(other.held, other.row)).min();
        let cursor = &cursors[least];
        let Some(next) = next else { return cursor.rows };
        let first = cursor.row + 1;
        let stays = |row: &usize| self.key(cursor.held, *row) <= next;
        (first..cursor.rows).take_while(stays).last().map_or(first, |row| row + 1)
    }

    /// The rows that were put in order; lets go of batches that are used up.
    fn sorted(&mut self, cursors: &mut [Cursor]) -> Result<RecordBatch, ArrowError> {
        let held: Vec<&RecordBatch> = self.held.iter().collect();
        let sorted = interleave_record_batch(&held, &self.places)?;
        self.places.clear();
        let kept = cursors.iter_mut().enumerate().map(|(place, cursor)| {
            let batch = self.held[cursor.held].clone();
            cursor.held = place;
            batch
        });
        self.held = kept.collect();
        Ok(sorted)
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectMeta;
    use object_store::path::Path;

    use super::*;

    const MB: u64 = 1 << 20;

    fn files(day: i32, sizes: &[u64]) -> Vec<HistoryFile> {
        let file = |(number, size): (usize, &u64)| HistoryFile {
            meta: ObjectMeta {
                location: Path::from(format!("history/day={}/{number}", day_text(day))),
                last_modified: "2026-11-21T12:00:00Z".parse().expect("a time"),
                size: *size,
                e_tag: None,
                version: None,
            },
            day,
            rows: 1,
            at: None,
            cluster: None,
        };
        sizes.iter().enumerate().map(file).collect()
    }

    /// Noon of a day.
    fn noon(day: i32) -> Micros {
        Micros(i64::from(day) * DAY_US + DAY_US / 2)
    }

    fn sizes(job: Option<Job>) -> Vec<u64> {
        job.map_or_else(Vec::new, |job| job.files.iter().map(|file| file.meta.size / MB).collect())
    }

    #[test]
    fn while_a_day_goes_on_many_files_of_one_size_are_merged() {
        let seven = files(9, &[MB; 7]);
        assert_eq!(plan(&seven, noon(9)), None);
        let nine = files(9, &[MB, MB, MB, MB, MB, MB, MB, MB, 40 * MB]);
        assert_eq!(sizes(plan(&nine, noon(9))), [1; 8]);
        let large = files(9, &[40 * MB, 33 * MB, 34 * MB, MB]);
        assert_eq!(plan(&large, noon(9)), None);
    }

    #[test]
    fn when_a_day_is_over_all_small_files_are_merged() {
        let some = files(9, &[MB, 40 * MB, 70 * MB, 2 * MB]);
        assert_eq!(sizes(plan(&some, noon(10))), [1, 2, 40]);
        assert_eq!(plan(&files(9, &[MB, 70 * MB]), noon(10)), None);
        // Just after midnight late rows still come.
        assert_eq!(plan(&some, Micros(10 * DAY_US + 1)), None);
    }

    #[test]
    fn a_job_is_bounded_in_files_and_in_bytes() {
        let many = files(9, &[MB; 100]);
        assert_eq!(sizes(plan(&many, noon(10))).len(), INPUTS);
        let wide = files(9, &[60 * MB; 5]);
        assert_eq!(sizes(plan(&wide, noon(10))), [60, 60]);
    }
}
