//! Moves what agents put into the inbox into the Delta table `history`, each row exactly once,
//! whatever dies on the way.
//!
//! One pass: look at what is committed, list the inbox, plan ([`plan`]), read and check rows
//! ([`rows`]), put sorted files ([`files`]), claim a progress object, commit files and progress
//! together ([`table`]). Only the commit counts: what was put for one that never came is not seen by
//! anybody. Who loses a race begins again with what the winner left. Objects are taken out of the
//! inbox later ([`sweep`]).

mod compact;
mod directory;
mod files;
mod plan;
mod probe;
mod retention;
mod rows;
mod sweep;
mod table;
mod uploads;

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use deltalake_core::kernel::Action;
use deltalake_core::{DeltaTable, DeltaTableError};
use flowtap_record::path::{self, HISTORY, InboxName};
use flowtap_record::{AgentState, DAY_US, Micros};
use futures::{StreamExt as _, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt as _, PutPayload};
use prometheus_client::metrics::counter::Counter;
use tracing::{info, warn};

use self::files::SortedBy;
use self::plan::Take;
pub use self::retention::{Day, Keep};
use crate::find::Statuses;
use crate::store::directory::Directories;
use crate::store::{
    History, INGEST, Progress, Quarantined, Store, StoreError, Taken, Trouble, decode,
};

/// Bytes of inbox objects that one commit takes.
const COMMIT_BYTES: u64 = 64 << 20;
/// Rows that one commit takes: they are in memory together.
const COMMIT_ROWS: usize = 500_000;
/// Objects that are read at the same time.
const AT_ONCE: usize = 8;
/// Races lost in a row before the pass is given up.
const RACES: usize = 10;
/// Quarantined objects and lost ranges that are told of.
const MAX_TOLD: usize = 10_000;
/// Time between two looks at what is past retention.
const TIDY_EVERY: Duration = Duration::from_hours(1);
/// How `history` is clustered.
const SORTED_BY: SortedBy = SortedBy { key: "cluster_key", time: "at" };

/// Why nothing was taken.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The store, or what lies in it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Rows could not be made a file.
    #[error("{0}")]
    Encode(String),
    /// The store does not keep two writers apart.
    #[error(
        "store {0} accepts a second create of the same object: writing the history there would not \
         be safe. Use a store with conditional puts (If-None-Match), or a folder"
    )]
    Unsafe(String),
    /// Others were quicker, again and again.
    #[error("other ingesters commit all the time")]
    Races,
}

/// How it is done.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Inbox objects stay for so long after their rows are committed.
    pub grace: Duration,
    /// What goes when it is too old or too much.
    pub keep: Keep,
}

impl Default for Options {
    fn default() -> Self {
        Self { grace: Duration::from_mins(10), keep: Keep::default() }
    }
}

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Objects taken.
    pub objects: usize,
    /// Rows taken.
    pub rows: usize,
    /// Objects put into quarantine.
    pub quarantined: usize,
    /// Objects that wait behind one that is missing.
    pub waiting: usize,
    /// Objects deleted from the inbox.
    pub swept: usize,
    /// There is more to be taken at once.
    pub more: bool,
    /// The version of the table afterwards.
    pub version: u64,
}

/// What was done since the start, for metrics. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Rows committed.
    pub rows: Counter,
    /// Objects whose rows were committed.
    pub objects: Counter,
    /// Objects put into quarantine.
    pub quarantined: Counter,
    /// Files made of small ones.
    pub merged: Counter,
    /// Directories written.
    pub directories: Counter,
    /// Rounds that failed; what they left is taken by the next one.
    pub failures: Counter,
}

/// Moves rows of one store.
pub struct Ingester {
    counts: Counts,
    store: Store,
    options: Options,
    probed: bool,
    statuses: Statuses,
    /// The number up to which `uploads` is complete.
    uploads: u64,
    chain: sweep::Chain,
    passes: u64,
    directories: Directories,
    /// The version of the table that had no use for new directories, and when that was seen.
    covered: Option<(u64, Instant)>,
}

/// What one commit makes true.
struct Step {
    progress: Progress,
    batches: Vec<RecordBatch>,
    rows: usize,
    quarantined: usize,
    more: bool,
}

impl Ingester {
    /// An ingester of `store`.
    pub fn new(store: Store, options: Options) -> Self {
        Self {
            counts: Counts::default(),
            store,
            options,
            probed: false,
            statuses: Statuses::default(),
            uploads: 0,
            chain: sweep::Chain::default(),
            passes: 0,
            directories: Directories::default(),
            covered: None,
        }
    }

    /// What it does, as it does it.
    pub fn counts(&self) -> Counts {
        self.counts.clone()
    }

    /// Takes what is there, merges small files and lets old days go, again and again. Trouble with the
    /// store is told and waited out; ends only with a store that is not fit for it.
    pub async fn run(mut self, every: Duration) -> Result<Infallible, IngestError> {
        let mut tidied: Option<Instant> = None;
        loop {
            match self.round(&mut tidied).await {
                Ok(true) => {}
                Ok(false) => tokio::time::sleep(every).await,
                Err(error @ IngestError::Unsafe(_)) => return Err(error),
                Err(error) => {
                    self.counts.failures.inc();
                    warn!(%error, "history is not brought up to date, tried again in {every:?}");
                    tokio::time::sleep(every).await;
                }
            }
        }
    }

    /// Says whether there is more to be done at once.
    async fn round(&mut self, tidied: &mut Option<Instant>) -> Result<bool, IngestError> {
        let now = crate::store::now;
        if self.pass(now()).await?.more {
            return Ok(true);
        }
        if tidied.is_none_or(|at| at.elapsed() >= TIDY_EVERY) {
            *tidied = Some(Instant::now());
            self.retain(now()).await?;
            self.vacuum(now()).await?;
        }
        Ok(self.compact(now()).await? || self.cover(now()).await?)
    }

    /// Writes the directory of a day whose files are in none, where that is worth it. Says whether it
    /// did: there may be more. Looks for nothing where the table is as it was a while ago.
    pub async fn cover(&mut self, now: Micros) -> Result<bool, IngestError> {
        let Some(history) = self.store.history().await? else { return Ok(false) };
        let looked = self.covered.filter(|(version, _)| *version == history.version);
        if looked.is_some_and(|(_, at)| at.elapsed() < TIDY_EVERY) {
            return Ok(false);
        }
        let wrote = directory::cover(&self.store, &history, &mut self.directories, now).await?;
        self.covered = (!wrote).then(|| (history.version, Instant::now()));
        self.counts.directories.inc_by(u64::from(wrote));
        Ok(wrote)
    }

    /// Makes the directories of all days anew, from the table. Returns how many.
    pub async fn rebuild_directories(&mut self) -> Result<usize, IngestError> {
        let Some(history) = self.store.history().await? else { return Ok(0) };
        Ok(directory::rebuild(&self.store, &history, &mut self.directories).await?)
    }

    /// Merges small files of one day where that is worth it. Says whether it did: there may be more.
    pub async fn compact(&mut self, now: Micros) -> Result<bool, IngestError> {
        // The files of this very version: who commits finds out whether they still are there.
        let Some((table, history)) = self.store.history_table().await? else { return Ok(false) };
        let Some(job) = compact::plan(&history.files, now) else { return Ok(false) };
        let merged = compact::run(&self.store, &table, &job).await?;
        self.counts.merged.inc_by(u64::from(merged));
        Ok(merged)
    }

    /// The days that are past retention, oldest first.
    pub async fn past_retention(&self, now: Micros) -> Result<Vec<Day>, IngestError> {
        let history = self.store.history().await?;
        let files = history.as_ref().map_or(&[][..], |history| &history.files);
        Ok(retention::plan(files, self.options.keep, now))
    }

    /// Takes the days out of the table that are past retention. Returns them.
    pub async fn retain(&mut self, now: Micros) -> Result<Vec<Day>, IngestError> {
        let Some((table, history)) = self.store.history_table().await? else {
            return Ok(Vec::new());
        };
        let gone = retention::plan(&history.files, self.options.keep, now);
        if !gone.is_empty() && !retention::run(&self.store, &table, &history.files, &gone).await? {
            return Ok(Vec::new());
        }
        Ok(gone)
    }

    /// Deletes files that no version of the table needs any more. Returns how many.
    pub async fn vacuum(&mut self, now: Micros) -> Result<usize, IngestError> {
        match self.store.history_table().await? {
            Some((table, _)) => retention::vacuum(&self.store, &table, now).await,
            None => Ok(0),
        }
    }

    /// One pass, as of `now`. May be dropped at any time.
    pub async fn pass(&mut self, now: Micros) -> Result<Passed, IngestError> {
        if !self.probed {
            let honours = probe::honours_create(&self.store).await;
            if !honours.map_err(|error| self.store.unreadable(error))? {
                return Err(IngestError::Unsafe(self.store.url().to_owned()));
            }
            self.probed = true;
        }
        for _ in 0..RACES {
            if let Some(passed) = self.attempt(now).await? {
                self.passes += 1;
                self.counts.rows.inc_by(passed.rows as u64);
                self.counts.objects.inc_by(passed.objects as u64);
                self.counts.quarantined.inc_by(passed.quarantined as u64);
                return Ok(passed);
            }
        }
        Err(IngestError::Races)
    }

    /// None: somebody else committed meanwhile.
    async fn attempt(&mut self, now: Micros) -> Result<Option<Passed>, IngestError> {
        let (opened, history) = self.opened().await?;
        let progress = &history.progress;
        if self.uploads < progress.number {
            self.uploads = uploads::catch_up(&self.store, progress).await?;
        }
        // Statuses first: a boot that has ended put all its objects before.
        self.statuses.refresh(&self.store, now).await?;
        let listed = self.store.list_inbox(HISTORY).await?;
        let plan = plan::plan(&listed, progress, now);
        let waiting = plan.waiting;
        let mut step = self.read(plan.takes.into(), progress.clone(), now).await?;
        let left = self.let_go(&mut step.progress, &listed, now);
        let mut passed = Passed {
            objects: step.progress.taken.len(),
            rows: step.rows,
            quarantined: step.quarantined,
            waiting,
            more: step.more,
            version: history.version,
            swept: 0,
        };
        // What is lost is given up with what lies behind it.
        if !step.progress.taken.is_empty() || step.quarantined > 0 || left > 0 {
            match self.commit(&opened, step).await? {
                Some(version) => passed.version = version,
                None => return Ok(None),
            }
        }
        passed.swept = self.sweep(progress, &listed, now).await?;
        Ok(Some(passed))
    }

    /// The table, made if it isn't there.
    async fn opened(&self) -> Result<(DeltaTable, Arc<History>), IngestError> {
        if let Some(found) = self.store.history_table().await? {
            return Ok(found);
        }
        table::open(&self.store, HISTORY, &rows::table_schema(), SORTED_BY).await?;
        let made = self.store.history_table().await?;
        made.ok_or_else(|| self.store.away("history was made and is not there".to_owned()).into())
    }

    /// Reads and checks what is to be taken, as much as one commit holds.
    async fn read(
        &self,
        takes: Vec<Take>,
        before: Progress,
        now: Micros,
    ) -> Result<Step, IngestError> {
        let mut step = Step {
            progress: Progress { previous: before.number, at: now, taken: Vec::new(), ..before },
            batches: Vec::new(),
            rows: 0,
            quarantined: 0,
            more: false,
        };
        let mut bytes = 0;
        // Boots of which an object could not be read: nothing behind it is taken.
        let mut stopped: Vec<(String, String)> = Vec::new();
        let mut read = stream::iter(takes)
            .map(|take| async move {
                let read = read(&self.store, &take).await;
                (take, read)
            })
            .buffered(AT_ONCE);
        while let Some((take, read)) = read.next().await {
            let boot = (take.name.agent.clone(), take.name.boot.clone());
            if stopped.contains(&boot) {
                continue;
            }
            if bytes > 0 && (bytes + take.meta.size > COMMIT_BYTES || step.rows > COMMIT_ROWS) {
                step.more = true;
                break;
            }
            bytes += take.meta.size;
            match read {
                Ok(rows) => take_in(&mut step, &take, rows),
                Err(Trouble::Unbelievable(why)) => {
                    quarantine(&self.store, &take, &why).await?;
                    step.quarantined += 1;
                    let told = &mut step.progress.quarantined;
                    told.push(Quarantined {
                        object: take.name.path(),
                        last_modified: Micros(take.meta.last_modified.timestamp_micros()),
                        why,
                    });
                    told.drain(..told.len().saturating_sub(MAX_TOLD));
                    advance(&mut step.progress, &take, Micros(0), Micros(0));
                }
                Err(Trouble::Read(why)) => {
                    warn!(object = %take.meta.location, why, "not read, tried again later");
                    stopped.push(boot);
                }
            }
        }
        Ok(step)
    }

    /// Takes boots off the list of which nothing more can come and nothing is in the inbox: they said
    /// so when they ended, or all that they had is past retention.
    fn let_go(
        &self,
        progress: &mut Progress,
        listed: &[(InboxName, ObjectMeta)],
        now: Micros,
    ) -> usize {
        let said = self.statuses.said(&HashMap::new());
        let drained: HashMap<(&str, &str), i64> = said
            .iter()
            .map(|said| &said.status)
            .filter(|it| it.state == AgentState::Ended && it.spool.segments == 0)
            .map(|it| {
                let all = it.tables.get(HISTORY).map_or(0, |table| table.last_seq);
                ((it.agent.as_str(), it.boot.as_str()), all)
            })
            .collect();
        let there: HashSet<(&str, &str)> =
            listed.iter().map(|(name, _)| (name.agent.as_str(), name.boot.as_str())).collect();
        let age = self.options.keep.age.and_then(|age| i64::try_from(age.as_micros()).ok());
        let mut gone = 0;
        for (agent, boots) in &mut progress.boots {
            boots.retain(|boot, at| {
                let key = (agent.as_str(), boot.as_str());
                let ended = drained.get(&key).is_some_and(|all| at.last >= *all);
                let past = age.is_some_and(|age| now.since(at.uploaded_at) > age + DAY_US);
                let stays = there.contains(&key) || !(ended || past);
                gone += usize::from(!stays);
                stays
            });
        }
        progress.boots.retain(|_, boots| !boots.is_empty());
        gone
    }

    /// Puts files and progress and commits them. None: somebody else was quicker.
    async fn commit(&self, opened: &DeltaTable, step: Step) -> Result<Option<u64>, IngestError> {
        let batches = step.batches;
        let made = tokio::task::spawn_blocking(move || files::encode(&batches, SORTED_BY));
        let made = made.await.unwrap_or_else(|error| Err(error.to_string()));
        let mut actions = Vec::new();
        for file in made.map_err(IngestError::Encode)? {
            let add = files::put(&self.store, HISTORY, file, true).await;
            actions.push(Action::Add(add.map_err(|error| self.store.unreadable(error))?));
        }
        let progress = step.progress.claim(&self.store).await;
        let progress = progress.map_err(|error| self.store.unreadable(error))?;
        let done = table::commit(opened, actions, (INGEST, progress.number), table::append()).await;
        match done {
            Ok(version) => {
                info!(version, rows = step.rows, objects = progress.taken.len(), "committed");
                Ok(Some(version))
            }
            Err(error) => self.was_it_made(progress.number, error).await,
        }
    }

    /// After a commit that failed, or whose answer was lost. What was put for it stays: it may still
    /// arrive.
    async fn was_it_made(
        &self,
        number: u64,
        error: DeltaTableError,
    ) -> Result<Option<u64>, IngestError> {
        let (_, history) = self.opened().await?;
        let committed = history.progress.number;
        if committed == number {
            return Ok(Some(history.version));
        }
        if committed > number || is_conflict(&error) {
            info!(number, committed, "another ingester was quicker");
            return Ok(None);
        }
        Err(self.store.table_trouble(HISTORY, error).into())
    }

    async fn sweep(
        &mut self,
        committed: &Progress,
        listed: &[(InboxName, ObjectMeta)],
        now: Micros,
    ) -> Result<usize, IngestError> {
        let grace = self.options.grace;
        let settled = self.chain.settled(&self.store, committed, self.uploads, grace, now).await?;
        let swept = sweep::inbox(&self.store, listed, &settled).await?;
        if self.passes.is_multiple_of(100) {
            sweep::progress(&self.store, &settled, now).await?;
        }
        Ok(swept)
    }
}

fn is_conflict(error: &DeltaTableError) -> bool {
    use deltalake_core::kernel::transaction::TransactionError as E;
    matches!(
        error,
        DeltaTableError::Transaction {
            source: E::CommitConflict(_) | E::MaxCommitAttempts(_) | E::VersionAlreadyExists(_)
        }
    )
}

fn take_in(step: &mut Step, take: &Take, rows: rows::Rows) {
    step.rows += rows.count;
    step.progress.taken.push(Taken {
        object: take.name.path(),
        bytes: take.meta.size,
        rows: rows.count as u64,
        uploaded_at: rows.uploaded_at,
        watermark: rows.watermark,
        last_modified: Micros(take.meta.last_modified.timestamp_micros()),
    });
    step.batches.extend(rows.batches);
    advance(&mut step.progress, take, rows.watermark, rows.uploaded_at);
}

fn advance(progress: &mut Progress, take: &Take, watermark: Micros, uploaded_at: Micros) {
    let lost = &mut progress.lost;
    lost.extend(take.lost.clone());
    lost.drain(..lost.len().saturating_sub(MAX_TOLD));
    let boots = progress.boots.entry(take.name.agent.clone()).or_default();
    let boot = boots.entry(take.name.boot.clone()).or_default();
    boot.last = take.name.last.0;
    boot.watermark = boot.watermark.max(watermark);
    boot.uploaded_at = boot.uploaded_at.max(uploaded_at);
}

async fn read(store: &Store, take: &Take) -> Result<rows::Rows, Trouble> {
    store.check_size(&take.meta).map_err(Trouble::Unbelievable)?;
    let bytes = store.fetch(&take.meta).await;
    let bytes = bytes.map_err(|error| Trouble::Read(error.to_string()))?;
    let (name, from) = (take.name.clone(), take.from);
    decode(move || rows::decode(&name, bytes, from)).await
}

/// Keeps what could not be taken, with the reason beside it.
async fn quarantine(store: &Store, take: &Take, why: &str) -> Result<(), IngestError> {
    warn!(object = %take.meta.location, why, "put into quarantine");
    let kept = path::quarantine(take.meta.location.as_ref());
    let failed = |error| IngestError::Store(store.unreadable(error));
    store.objects().copy(&take.meta.location, &Path::from(kept.as_str())).await.map_err(failed)?;
    let reason = PutPayload::from(format!("{why}\n"));
    let location = Path::from(format!("{kept}.reason.txt"));
    store.objects().put(&location, reason).await.map_err(failed)?;
    Ok(())
}
