//! Moves what agents put into the inbox into the Delta table `history`, each row exactly once,
//! whatever dies on the way.
//!
//! One pass: look at what is committed, list the inbox, plan ([`plan`]), read and check rows
//! ([`take`], [`rows`]; what is [`newer`] waits), put sorted files ([`files`]), claim a progress object,
//! commit files and progress together ([`table`]). Only the commit counts: what was put for one that
//! never came is not seen by anybody. Who loses a race begins again with what the winner left. Objects
//! are taken out of the inbox later ([`sweep`]). What is made of `history` is kept up beside it
//! ([`crate::derived`]).

pub(crate) mod compact;
mod directory;
pub(crate) mod files;
mod newer;
mod plan;
mod probe;
pub(crate) mod retention;
mod rows;
pub(crate) mod sweep;
pub(crate) mod table;
mod take;
mod types;
mod uploads;

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use deltalake_core::kernel::Action;
use deltalake_core::{DeltaTable, DeltaTableError};
use flowtap_record::path::{HISTORY, InboxName};
use flowtap_record::{AgentState, DAY_US, Micros};
use futures::{StreamExt as _, stream};
use object_store::ObjectMeta;
use tracing::{info, warn};

use self::files::SortedBy;
use self::plan::Take;
pub use self::retention::{Day, Keep};
use self::rows::Decoded;
pub use self::types::{Counts, IngestError, Options, Passed};
use crate::derived::Keeper;
use crate::find::Statuses;
use crate::store::directory::Directories;
use crate::store::{History, INGEST, Progress, Store, Trouble};

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

/// Moves rows of one store.
pub struct Ingester {
    counts: Counts,
    store: Store,
    options: Options,
    probed: bool,
    statuses: Statuses,
    newer: newer::Newer,
    /// The number up to which `uploads` is complete.
    uploads: u64,
    chain: sweep::Chain,
    passes: u64,
    keeper: Keeper,
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
        let counts = Counts::default();
        Self {
            keeper: Keeper::flows(store.clone(), counts.derived.clone()),
            counts,
            store,
            options,
            probed: false,
            statuses: Statuses::default(),
            newer: newer::Newer::default(),
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

    /// Takes what is there, merges small files and lets old days go, again and again; beside it keeps
    /// derived tables up, which may take longer and holds up nothing. Trouble with the store is told and
    /// waited out; ends only with a store that is not fit for it.
    pub async fn run(self, every: Duration) -> Result<Infallible, IngestError> {
        let keeper = self.keeper.clone();
        let failures = self.counts.derived_failures.clone();
        tokio::select! {
            ended = self.rounds(every) => ended,
            never = keeper.run(every, &failures) => match never {},
        }
    }

    async fn rounds(mut self, every: Duration) -> Result<Infallible, IngestError> {
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
        let Some((table, history)) = self.fitting().await? else { return Ok(false) };
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
        let deleted = match self.store.history_table().await? {
            Some((table, _)) => retention::vacuum(&self.store, HISTORY, &table, now).await?,
            None => 0,
        };
        Ok(deleted + self.keeper.vacuum(now).await?)
    }

    /// Brings derived tables up to what is committed, unless somebody else is at it. Says whether there
    /// was something to do. May be dropped at any time.
    pub async fn derive(&mut self) -> Result<bool, IngestError> {
        self.keeper.catch_up().await
    }

    /// Makes derived tables again from the rows of `history`. Returns how many of its rows are in
    /// them; none: somebody else is at work on them.
    pub async fn rebuild_flows(&mut self) -> Result<Option<usize>, IngestError> {
        self.probe().await?;
        self.keeper.rebuild().await
    }

    /// One pass, as of `now`. May be dropped at any time.
    pub async fn pass(&mut self, now: Micros) -> Result<Passed, IngestError> {
        self.probe().await?;
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

    /// Makes sure that the store keeps two writers apart.
    async fn probe(&mut self) -> Result<(), IngestError> {
        if !self.probed {
            let honours = probe::honours_create(&self.store).await;
            if !honours.map_err(|error| self.store.unreadable(error))? {
                return Err(IngestError::Unsafe(self.store.url().to_owned()));
            }
            self.probed = true;
        }
        Ok(())
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
        let mut plan = plan::plan(&listed, progress, now);
        self.newer.hold_back(&mut plan, &listed, progress);
        let waiting = plan.waiting;
        let mut step = self.read(plan.takes.into(), progress.clone(), now).await?;
        let left = self.let_go(&mut step.progress, &listed, now);
        let mut passed = Passed {
            objects: step.progress.taken.len(),
            rows: step.rows,
            quarantined: step.quarantined,
            waiting,
            newer: self.newer.count(&listed, &step.progress, &self.counts.newer),
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
        if let Some(found) = self.fitting().await? {
            return Ok(found);
        }
        table::open(&self.store, HISTORY, &rows::table_schema(), SORTED_BY).await?;
        let made = self.store.history_table().await?;
        made.ok_or_else(|| self.store.away("history was made and is not there".to_owned()).into())
    }

    /// The table as it is now. Columns that an older Flowtap made it without are added first.
    async fn fitting(&self) -> Result<Option<(DeltaTable, Arc<History>)>, IngestError> {
        for _ in 0..RACES {
            let Some((table, history)) = self.store.history_table().await? else { return Ok(None) };
            if table::fits(&self.store, HISTORY, &table, &rows::table_schema()).await? {
                return Ok(Some((table, history)));
            }
        }
        Err(IngestError::Races)
    }

    /// Reads and checks what is to be taken, as much as one commit holds.
    async fn read(
        &mut self,
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
        // Boots of which an object could not be read, or waits: nothing behind it is taken.
        let mut stopped: Vec<(String, String)> = Vec::new();
        let store = self.store.clone();
        let mut read = stream::iter(takes)
            .map(|take| async {
                let read = take::read(&store, &take).await;
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
                Ok(Decoded::Rows(rows)) => take::take_in(&mut step, &take, rows),
                Ok(Decoded::Newer(schema)) => {
                    self.newer.found(&take, schema);
                    stopped.push(boot);
                }
                Err(Trouble::Unbelievable(why)) => {
                    take::quarantine(&self.store, &mut step, &take, why).await?;
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
        let done =
            table::commit(opened, actions, &[(INGEST, progress.number)], table::append()).await;
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

pub(crate) fn is_conflict(error: &DeltaTableError) -> bool {
    use deltalake_core::kernel::transaction::TransactionError as E;
    matches!(
        error,
        DeltaTableError::Transaction {
            source: E::CommitConflict(_) | E::MaxCommitAttempts(_) | E::VersionAlreadyExists(_)
        }
    )
}
