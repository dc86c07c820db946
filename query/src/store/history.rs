//! The Delta table `history` as it is now: which files hold its rows, and how far each boot is in
//! it. Read only; [`crate::ingest`] writes it.

use std::sync::Arc;

use deltalake_core::kernel::LogicalFileView;
use deltalake_core::logstore::{LogStoreRef, StorageConfig, logstore_with};
use deltalake_core::{DeltaTable, DeltaTableError};
use flowtap_record::path::HISTORY;
use flowtap_record::{DAY_US, Micros};
use object_store::ObjectMeta;
use object_store::path::Path;
use serde::Deserialize;
use url::Url;

use super::in_order::InOrder;
use super::progress::Progress;
use super::{Store, StoreError};

/// The application id whose version is the number of the progress object that a commit made true.
pub(crate) const INGEST: &str = "flowtap-ingest";

/// A file of the table, or of another that is laid out like it.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryFile {
    /// Its place in the store, its size and when it was made. Its content never changes.
    pub meta: ObjectMeta,
    /// The partition: days since 1970-01-01.
    pub day: i32,
    /// Rows in it.
    pub rows: usize,
    /// Earliest and latest `at` in it.
    pub at: Option<(Micros, Micros)>,
    /// Least and greatest `cluster_key` in it; the greatest may be cut off and stands for all that
    /// begin with it.
    pub cluster: Option<(String, String)>,
}

impl HistoryFile {
    /// When its last row was, at the latest.
    pub(crate) fn last_at(&self) -> Micros {
        let end_of_day = Micros((i64::from(self.day) + 1) * DAY_US);
        self.at.map_or(end_of_day, |(_, last)| last)
    }
}

/// The table at one version.
#[derive(Clone, Debug)]
pub struct History {
    /// The version of the Delta table.
    pub version: u64,
    /// How far each boot is in it.
    pub progress: Progress,
    /// Its files, in no order.
    pub files: Vec<HistoryFile>,
}

/// What is kept between two looks at the table.
#[derive(Default)]
pub(super) struct Reader {
    table: Option<DeltaTable>,
    last: Option<Arc<History>>,
}

impl Store {
    /// The table as it is now; none before the first commit. Between two commits this costs one
    /// listing of the log's end.
    ///
    /// What of the inbox is not covered by it must have been listed before: then each row is in
    /// the one or in the other.
    pub async fn history(&self) -> Result<Option<Arc<History>>, StoreError> {
        Ok(self.history_table().await?.map(|(_, history)| history))
    }

    /// The same together with the table as it was loaded at that version, for who commits to it.
    pub(crate) async fn history_table(
        &self,
    ) -> Result<Option<(DeltaTable, Arc<History>)>, StoreError> {
        let mut reader = self.reader().lock().await;
        if let Some(table) = &mut reader.table {
            table.update_state().await.map_err(|error| self.table_trouble(HISTORY, error))?;
        } else {
            reader.table = self.delta(HISTORY).await?;
        }
        let Some(table) = &reader.table else { return Ok(None) };
        let version = table.version().unwrap_or_default();
        if let Some(last) = reader.last.as_ref().filter(|last| last.version == version) {
            return Ok(Some((table.clone(), Arc::clone(last))));
        }
        let (table, history) = (table.clone(), Arc::new(read(self, table).await?));
        reader.last = Some(Arc::clone(&history));
        Ok(Some((table, history)))
    }

    /// A Delta table of this store, loaded; none if it was never made.
    pub(crate) async fn delta(&self, name: &str) -> Result<Option<DeltaTable>, StoreError> {
        let trouble = |error| self.table_trouble(name, error);
        let mut table = DeltaTable::new(self.delta_log(name).map_err(trouble)?);
        if !table.verify_deltatable_existence().await.map_err(trouble)? {
            return Ok(None);
        }
        table.load().await.map_err(trouble)?;
        Ok(Some(table))
    }

    /// The log of a Delta table of this store.
    pub(crate) fn delta_log(&self, name: &str) -> Result<LogStoreRef, DeltaTableError> {
        // Paths in the store are those of the contract wherever it lies; the scheme only says that
        // the log is kept by conditional puts and listed in order.
        let url = Url::parse(&format!("memory:///{name}/"))
            .map_err(|error| DeltaTableError::Generic(error.to_string()))?;
        logstore_with(Arc::new(InOrder(Arc::clone(self.objects()))), &url, StorageConfig::default())
    }

    /// The files of a table of that name, with what its statistics say of the columns of a time and of
    /// a key.
    pub(crate) fn files_of(
        &self,
        table: &DeltaTable,
        name: &str,
        columns: (&str, &str),
    ) -> Result<Vec<HistoryFile>, StoreError> {
        let snapshot = table.snapshot().map_err(|error| self.table_trouble(name, error))?;
        let files = snapshot.log_data().into_iter().map(|view| file(&view, name, columns));
        files.collect::<Result<_, _>>().map_err(|why| StoreError::Table {
            url: self.url().to_owned(),
            table: name.to_owned(),
            why,
        })
    }

    pub(crate) fn table_trouble(&self, table: &str, error: DeltaTableError) -> StoreError {
        match error {
            DeltaTableError::ObjectStore { source } => self.unreadable(source),
            error => StoreError::Table {
                url: self.url().to_owned(),
                table: table.to_owned(),
                why: error.to_string(),
            },
        }
    }
}

async fn read(store: &Store, table: &DeltaTable) -> Result<History, StoreError> {
    let trouble = |error| store.table_trouble(HISTORY, error);
    let snapshot = table.snapshot().map_err(trouble)?;
    let log = table.log_store();
    let number = snapshot.transaction_version(log.as_ref(), INGEST).await.map_err(trouble)?;
    let number = number.and_then(|number| u64::try_from(number).ok()).unwrap_or_default();
    let files = store.files_of(table, HISTORY, ("at", "cluster_key"))?;
    let progress = Progress::read(store, number).await?;
    Ok(History { version: snapshot.version(), progress, files })
}

fn file(
    view: &LogicalFileView,
    table: &str,
    (time_column, key_column): (&str, &str),
) -> Result<HistoryFile, String> {
    let path = view.object_store_path();
    let wrong = |what: &str| format!("{path}: {what}");
    let partition = view.partition_values_map();
    let day = partition.get("day").and_then(Option::as_deref).and_then(day_number);
    let day = day.ok_or_else(|| wrong("it lies in no day"))?;
    let size = u64::try_from(view.size()).map_err(|_| wrong("its size is negative"))?;
    let rows = view.num_records().ok_or_else(|| wrong("it does not say how many rows it has"))?;
    let modified = view.modification_datetime().map_err(|error| wrong(&error.to_string()))?;
    // Without statistics a file is read where it might be left out, no more.
    let stats: Stats =
        view.stats().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let text = |values: &Values, column: &str| Some(values.get(column)?.as_str()?.to_owned());
    let time = |values: &Values| -> Option<Micros> {
        let at: jiff::Timestamp = text(values, time_column)?.parse().ok()?;
        Some(Micros(at.as_microsecond()))
    };
    Ok(HistoryFile {
        meta: ObjectMeta {
            location: Path::from(table).parts().chain(path.parts()).collect(),
            last_modified: modified,
            size,
            e_tag: None,
            version: None,
        },
        day,
        rows,
        // Checkpoints may keep milliseconds only.
        at: time(&stats.min_values)
            .zip(time(&stats.max_values))
            .map(|(low, high)| (low, high.plus(999))),
        cluster: text(&stats.min_values, key_column).zip(text(&stats.max_values, key_column)),
    })
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Stats {
    min_values: Values,
    max_values: Values,
}

type Values = serde_json::Map<String, serde_json::Value>;

/// Days since 1970-01-01 of a date as partitions bear it.
fn day_number(text: &str) -> Option<i32> {
    let date: jiff::civil::Date = text.parse().ok()?;
    let epoch = jiff::civil::date(1970, 1, 1);
    Some(epoch.until(date).ok()?.get_days())
}

/// The date of a number of days since 1970-01-01, as partitions bear it.
pub(crate) fn day_text(day: i32) -> String {
    let date = jiff::civil::date(1970, 1, 1).saturating_add(jiff::Span::new().days(day));
    date.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_written_as_dates_and_read_back() {
        for (day, text) in [(0, "1970-01-01"), (-1, "1969-12-31"), (20_784, "2026-11-27")] {
            assert_eq!(day_text(day), text);
            assert_eq!(day_number(text), Some(day));
        }
        assert_eq!(day_number("__HIVE_DEFAULT_PARTITION__"), None);
    }
}
