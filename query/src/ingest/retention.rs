//! What is too old, or too much, goes: whole days, the oldest first, never today.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use deltalake_core::DeltaTable;
use deltalake_core::operations::vacuum::{Clock, VacuumMode};
use deltalake_core::protocol::DeltaOperation;
use flowtap_record::path::HISTORY;
use flowtap_record::{DAY_US, Micros};
use tracing::info;

use super::{IngestError, compact, table};
use crate::store::{HistoryFile, Store, StoreError, day_text};

/// The application id whose version says how often days were taken out of `history`: who sees a day's
/// files replaced learns by it that they were merged.
pub(crate) const RETENTION: &str = "flowtap-retention";
/// The application id whose version is the first day that no day went after, as days since 1970-01-01.
const KEPT_FROM: &str = "flowtap-kept-from";

/// How much is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Days whose last moment is longer ago go.
    pub age: Option<Duration>,
    /// Bytes that all files may have together.
    pub bytes: Option<u64>,
}

/// A day that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Day {
    /// Days since 1970-01-01.
    pub day: i32,
    /// Its files.
    pub files: usize,
    /// Rows in them.
    pub rows: usize,
    /// Bytes of them.
    pub bytes: u64,
}

impl Day {
    /// As partitions bear it.
    pub fn date(&self) -> String {
        day_text(self.day)
    }
}

/// The days that go, oldest first.
pub(super) fn plan(files: &[HistoryFile], keep: Keep, now: Micros) -> Vec<Day> {
    let mut days: BTreeMap<i32, Day> = BTreeMap::new();
    for file in files {
        let day = days.entry(file.day);
        let day = day.or_insert(Day { day: file.day, files: 0, rows: 0, bytes: 0 });
        day.files += 1;
        day.rows += file.rows;
        day.bytes += file.meta.size;
    }
    let today = now.0.div_euclid(DAY_US);
    let age = keep.age.and_then(|age| i64::try_from(age.as_micros()).ok());
    let mut bytes: u64 = days.values().map(|day| day.bytes).sum();
    let mut gone = Vec::new();
    for (_, day) in days {
        let number = i64::from(day.day);
        let too_old = age.is_some_and(|age| now.since(Micros((number + 1) * DAY_US)) >= age);
        let too_much = keep.bytes.is_some_and(|most| bytes > most);
        if number >= today || !(too_old || too_much) {
            // Newer days are neither older nor is there more of them.
            break;
        }
        bytes -= day.bytes;
        gone.push(day);
    }
    gone
}

/// Takes days out of the table. Their files stay until they are vacuumed.
pub(super) async fn run(
    store: &Store,
    table: &DeltaTable,
    files: &[HistoryFile],
    gone: &[Day],
) -> Result<bool, IngestError> {
    let days: HashSet<i32> = gone.iter().map(|day| day.day).collect();
    let actions = files.iter().filter(|file| days.contains(&file.day));
    let actions = actions.map(|file| compact::remove(HISTORY, file, true)).collect();
    let dates: Vec<String> = gone.iter().map(|day| format!("'{}'", day.date())).collect();
    let operation =
        DeltaOperation::Delete { predicate: Some(format!("day IN ({})", dates.join(", "))) };
    let trouble = |error| store.table_trouble(HISTORY, error);
    let times = table::number(table, RETENTION).await.map_err(trouble)? + 1;
    let last = gone.iter().filter_map(|day| u64::try_from(day.day).ok()).max().unwrap_or_default();
    let from = table::number(table, KEPT_FROM).await.map_err(trouble)?.max(last + 1);
    let apps = vec![(RETENTION, times), (KEPT_FROM, from)];
    let done = table::tidy_with(store, HISTORY, table, actions, apps, operation).await?;
    if done {
        let rows: usize = gone.iter().map(|day| day.rows).sum();
        info!(days = gone.len(), rows, "past retention, taken out of history");
    }
    Ok(done)
}

/// From when on all days are kept; none: no day ever went. Rows before may be gone.
pub(crate) async fn kept_from(store: &Store) -> Result<Option<Micros>, StoreError> {
    let Some(table) = store.delta(HISTORY).await? else { return Ok(None) };
    let day = table::number(&table, KEPT_FROM).await;
    let day = day.map_err(|error| store.table_trouble(HISTORY, error))?;
    Ok(i64::try_from(day).ok().filter(|day| *day > 0).map(|day| Micros(day * DAY_US)))
}

/// Deletes files that no version of a table within its file retention needs: replaced ones, those of
/// days that went, and such whose commit never came. Returns how many.
pub(crate) async fn vacuum(
    store: &Store,
    name: &str,
    table: &DeltaTable,
    now: Micros,
) -> Result<usize, IngestError> {
    let vacuumed = table.clone().vacuum().with_mode(VacuumMode::Full);
    let vacuumed = vacuumed.with_clock(std::sync::Arc::new(Now(now.0 / 1000))).await;
    let (_, done) = vacuumed.map_err(|error| store.table_trouble(name, error))?;
    Ok(done.files_deleted.len())
}

#[derive(Debug)]
struct Now(i64);

impl Clock for Now {
    fn current_timestamp_millis(&self) -> i64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectMeta;
    use object_store::path::Path;

    use super::*;

    fn files(days: &[(i32, u64)]) -> Vec<HistoryFile> {
        let file = |&(day, size): &(i32, u64)| HistoryFile {
            meta: ObjectMeta {
                location: Path::from("history/x"),
                last_modified: "2026-11-21T12:00:00Z".parse().expect("a time"),
                size,
                e_tag: None,
                version: None,
            },
            day,
            rows: 10,
            at: None,
            cluster: None,
        };
        days.iter().map(file).collect()
    }

    fn gone(days: &[(i32, u64)], keep: Keep, now: Micros) -> Vec<i32> {
        plan(&files(days), keep, now).iter().map(|day| day.day).collect()
    }

    #[test]
    fn days_whose_end_is_longer_ago_go() {
        let days = [(5, 1), (5, 1), (7, 1), (9, 1)];
        let keep = Keep { age: Some(Duration::from_hours(48)), bytes: None };
        assert_eq!(gone(&days, keep, Micros(9 * DAY_US + 1)), [5]);
        assert_eq!(gone(&days, keep, Micros(10 * DAY_US - 1)), [5]);
        assert_eq!(gone(&days, keep, Micros(10 * DAY_US)), [5, 7]);
        assert_eq!(gone(&days, Keep::default(), Micros(100 * DAY_US)), [0; 0]);
    }

    #[test]
    fn the_oldest_go_where_there_is_too_much_but_never_today() {
        let days = [(7, 10), (5, 10), (6, 10), (9, 10)];
        let keep = |bytes| Keep { age: None, bytes: Some(bytes) };
        assert_eq!(gone(&days, keep(40), Micros(9 * DAY_US)), [0; 0]);
        assert_eq!(gone(&days, keep(25), Micros(9 * DAY_US)), [5, 6]);
        assert_eq!(gone(&days, keep(0), Micros(9 * DAY_US)), [5, 6, 7]);
    }
}
