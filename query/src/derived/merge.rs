//! Small files of a day of a derived table become one, and rows in them that belong together one row.

use deltalake_core::kernel::Action;
use flowtap_record::Micros;
use tracing::info;

use super::Derived;
use crate::ingest::{IngestError, compact};
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
    let (table, schema, fold) = (of.table(), (of.schema)(), (of.fold)());
    let (actions, size) =
        compact::replace(store, &table, &job, &schema, of.sorted_by, Some(fold)).await?;
    let (day, rows) = (day_text(job.day), job.rows());
    info!(table = of.name, day, files = job.files.len(), rows, size, "merged");
    Ok(Some(actions))
}
