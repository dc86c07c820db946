//! Keeps a derived table up: what came to `history` since is put together and added, days that are gone
//! from it are taken out, all in one commit that bears the number of the [`State`] which says so.

use std::convert::Infallible;
use std::time::Duration;

use deltalake_core::DeltaTable;
use deltalake_core::kernel::Action;
use deltalake_core::protocol::DeltaOperation;
use flowtap_record::Micros;
use flowtap_record::path::HISTORY;
use futures::TryStreamExt as _;
use prometheus_client::metrics::counter::Counter;
use tracing::{info, warn};

use super::covered::{APP, Covered, Split};
use super::flows::FLOWS;
use super::lease::{self, Held};
use super::state::{self, Boots, State};
use super::{Derived, Fold, merge};
use crate::ingest::retention::RETENTION;
use crate::ingest::table;
use crate::ingest::{IngestError, compact, files, is_conflict, retention};
use crate::store::{Store, now};
use crate::tables;

/// Rows that are put together in memory before they are written.
const ROWS_IN_MEMORY: usize = 100_000;
/// Times that a merge follows upon another at once.
const MERGES: usize = 8;

/// The one who writes a derived table.
#[derive(Clone)]
pub(crate) struct Keeper {
    store: Store,
    of: &'static Derived,
    /// Its name among those who want the lease.
    owner: String,
    commits: Counter,
}

/// Rows of `history` put together and written to files that nobody sees yet.
#[derive(Default)]
struct Put {
    actions: Vec<Action>,
    boots: Boots,
    rows: usize,
}

impl Keeper {
    /// The one of the flow summaries, which counts its commits.
    pub(crate) fn flows(store: Store, commits: Counter) -> Self {
        Self { store, of: &FLOWS, owner: uuid::Uuid::now_v7().to_string(), commits }
    }

    /// Keeps the table up, again and again. Trouble is told, counted, and tried again.
    pub(crate) async fn run(self, every: Duration, failures: &Counter) -> Infallible {
        loop {
            tokio::time::sleep(every).await;
            if let Err(error) = self.catch_up().await {
                failures.inc();
                let table = self.of.name;
                warn!(table, %error, "not kept up, tried again in {every:?}");
            }
        }
    }

    /// Brings the table up to `history` and merges its small files. Says whether anything was done;
    /// not, if somebody else is at it.
    pub(crate) async fn catch_up(&self) -> Result<bool, IngestError> {
        if !self.is_behind().await? {
            return Ok(false);
        }
        let Some(mut lease) = lease::take(&self.store, self.of, &self.owner).await? else {
            return Ok(false);
        };
        let work = async {
            let done = self.add(false).await?.is_some();
            for _ in 0..MERGES {
                if !self.merge().await? {
                    break;
                }
            }
            Ok(done)
        };
        match lease.hold(work).await {
            Held::Done(done) => {
                lease.release().await;
                done
            }
            Held::Lost => Ok(false),
        }
    }

    /// Makes the table again, of all that is in `history`. Returns how many rows are in it; none:
    /// somebody else is at it.
    pub(crate) async fn rebuild(&self) -> Result<Option<usize>, IngestError> {
        if self.store.history().await?.is_none() {
            return Ok(Some(0));
        }
        let Some(mut lease) = lease::take(&self.store, self.of, &self.owner).await? else {
            return Ok(None);
        };
        match lease.hold(self.add(true)).await {
            Held::Done(rows) => {
                lease.release().await;
                rows
            }
            Held::Lost => Ok(None),
        }
    }

    /// A look without the lease: most often there is nothing to do.
    async fn is_behind(&self) -> Result<bool, IngestError> {
        let covered = self.of.covered(&self.store).await?;
        let Some(history) = self.store.history().await? else { return Ok(false) };
        Ok(covered.is_none_or(|covered| covered.state.history != history.version))
    }

    /// Adds what is missing, or makes all of it `anew`. Returns how many rows were added; none: there
    /// is no `history`, or somebody else was quicker.
    async fn add(&self, anew: bool) -> Result<Option<usize>, IngestError> {
        let table = self.opened().await?;
        let covered = if anew {
            self.of.emptied(&self.store, table).await?
        } else {
            self.of.covered_at(&self.store, table).await?
        };
        let Some((history_table, history)) = self.store.history_table().await? else {
            return Ok(None);
        };
        let retention = table::number(&history_table, RETENTION).await;
        let retention = retention.map_err(|error| self.store.table_trouble(HISTORY, error))?;
        let split = covered.split(&history, Some(retention));
        let mut put = self.put(&split).await?;
        let void = split.void.iter().map(|file| compact::remove(&self.of.table(), file, true));
        put.actions.extend(void);
        let next = covered.state.next(&history, retention, put.boots);
        let made = self.commit(&covered, next, put.actions, table::append()).await?;
        if made {
            let (table, version) = (self.of.name, history.version);
            info!(table, rows = put.rows, history = version, "kept up");
        }
        Ok(made.then_some(put.rows))
    }

    /// Puts the rows together that are not in the table, and writes them.
    async fn put(&self, split: &Split) -> Result<Put, IngestError> {
        let mut put = Put { boots: split.boots.clone(), ..Put::default() };
        let mut fold = (self.of.fold)();
        let trouble = |error: tables::TablesError| IngestError::Encode(error.to_string());
        let mut rows = tables::parts_beside(&self.store, self.of, split).await.map_err(trouble)?;
        let unreadable = |error| trouble(tables::TablesError::DataFusion(error));
        while let Some(batch) = rows.try_next().await.map_err(unreadable)? {
            put.rows += batch.num_rows();
            let parts = tables::reached(&batch, &mut put.boots);
            parts.and_then(|parts| fold.add(&parts)).map_err(IngestError::Encode)?;
            if fold.len() >= ROWS_IN_MEMORY {
                self.write(&mut *fold, &mut put).await?;
            }
        }
        self.write(&mut *fold, &mut put).await?;
        Ok(put)
    }

    async fn write(&self, fold: &mut dyn Fold, put: &mut Put) -> Result<(), IngestError> {
        let rows = fold.take(false).map_err(IngestError::Encode)?;
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let by = self.of.sorted_by;
        let made = tokio::task::spawn_blocking(move || files::encode(&[rows], by)).await;
        let made = made.unwrap_or_else(|error| Err(error.to_string()));
        for file in made.map_err(IngestError::Encode)? {
            let add = files::put(&self.store, &self.of.table(), file, true).await;
            put.actions.push(Action::Add(add.map_err(|error| self.store.unreadable(error))?));
        }
        Ok(())
    }

    /// Merges small files of one day. Says whether it did: there may be more.
    async fn merge(&self) -> Result<bool, IngestError> {
        let Some(covered) = self.of.covered(&self.store).await? else { return Ok(false) };
        let Some(actions) = merge::small(&self.store, self.of, &covered.files, now()).await? else {
            return Ok(false);
        };
        // What is covered stays as it is.
        let state = covered.state.clone();
        let next = State { previous: state.number, at: now(), ..state };
        let operation = DeltaOperation::Optimize { predicate: None, target_size: 0 };
        self.commit(&covered, next, actions, operation).await
    }

    /// Commits what is put. False: somebody else was quicker.
    async fn commit(
        &self,
        covered: &Covered,
        next: State,
        actions: Vec<Action>,
        operation: DeltaOperation,
    ) -> Result<bool, IngestError> {
        let next = next.claim(&self.store, self.of).await?;
        let done = table::commit(&covered.table, actions, &[(APP, next.number)], operation).await;
        let Err(error) = done else {
            self.commits.inc();
            return Ok(true);
        };
        // It may have been made all the same. What was put for it stays: it may still arrive.
        let table = self.opened().await?;
        let committed = self.of.number(&self.store, &table).await?;
        if committed == next.number {
            self.commits.inc();
            return Ok(true);
        }
        if committed > next.number || is_conflict(&error) {
            info!(table = self.of.name, committed, "another writer was quicker");
            return Ok(false);
        }
        Err(self.store.table_trouble(&self.of.table(), error).into())
    }

    /// The table, made if it isn't there.
    async fn opened(&self) -> Result<DeltaTable, IngestError> {
        let (schema, by) = ((self.of.schema)(), self.of.sorted_by);
        table::open(&self.store, &self.of.table(), &schema, by).await
    }

    /// Deletes what nobody needs any more: files that were replaced, old states, and tables of
    /// versions before this one. Returns how many.
    pub(crate) async fn vacuum(&self, now: Micros) -> Result<usize, IngestError> {
        let Some(covered) = self.of.covered(&self.store).await? else { return Ok(0) };
        let files = retention::vacuum(&self.store, &self.of.table(), &covered.table, now).await?;
        Ok(files + state::sweep(&self.store, self.of, &covered.state, now).await?)
    }
}
