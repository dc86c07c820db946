//! Small files of a day of a derived table become one, and rows in them that belong together one row.

use deltalake_core::kernel::Action;
use flowtap_record::Micros;
use tracing::info;

use super::Derived;
use crate::ingest::{IngestError, compact, files};
use crate::store::{HistoryFile, Store, day_text};

/// Writes the file that takes the place of those most worth merging. Returns what a commit has to do
/// for it; none: nothing is worth it.
pub(super) async fn small(
    store: &Store,
    of: &Derived,
    all: &[HistoryFile],
    now: Micros,
) -> Result<Option<Vec<Action>>, IngestError> {
    let Some(job) = compact::plan(all, now) else { return Ok(None) };
    let (merged, read) =
        compact::merge(store, &job, &(of.schema)(), of.sorted_by, Some((of.fold)())).await?;
    if read != job.rows() {
        let rows = job.rows();
        let why = format!("{read} rows of {rows} were read: nothing is replaced");
        return Err(IngestError::Encode(why));
    }
    let table = of.table();
    let add = files::put(store, &table, merged, false).await;
    let add = add.map_err(|error| store.unreadable(error))?;
    let (day, count, size) = (day_text(job.day), job.files.len(), add.size);
    info!(table = of.name, day, files = count, rows = read, size, "merged");
    let remove = job.files.iter().map(|file| compact::remove(&table, file, false));
    Ok(Some(remove.chain([Action::Add(add)]).collect()))
}
