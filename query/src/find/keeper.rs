//! Keeps the catalog up with the store. One at a time: lists, reads what is new, learns what is not
//! about single flows, and puts together what answers are judged by.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use flowtap_record::Micros;
use flowtap_record::path::{HISTORY, InboxName};
use futures::{StreamExt, stream};
use object_store::ObjectMeta;
use tracing::{Instrument as _, info, info_span, warn};

use super::building::Building;
use super::catalog::{Catalog, Snapshot};
use super::inner::Why;
use super::known::{Known, Prepared, Source};
use super::learnt::{Learnt, Ranges};
use super::lookup::Run;
use super::object::Beyond;
use super::pending::Pending;
use super::read::Opened;
use super::shown::{Holes, gaps_of_file, missing_file};
use super::status::Statuses;
use super::table::Table;
use super::twin::{Lesson, Twin};
use super::unread::{Shelf, began};
use crate::flow::{Coverage, Gap, Habits};
use crate::store::directory::Directories;
use crate::store::{History, InboxObject, Progress, StoreError, Trouble, decode};

/// Objects whose bytes are in memory at the same time while indexes are made.
const AT_ONCE: usize = 8;
/// Time between two looks for directories, while the table stays as it is.
const DIRECTORIES_EVERY: Duration = Duration::from_secs(30);
/// After so many objects in a row that the store did not give, it is left alone for a while.
const MANY_FAILED: usize = 3 * AT_ONCE;

/// The table before its first commit.
pub(super) static NO_TABLE: LazyLock<Arc<History>> = LazyLock::new(|| {
    Arc::new(History { version: 0, progress: Progress::default(), files: Vec::new() })
});

/// What only the one who keeps the catalog up needs.
pub(super) struct Keeper {
    /// In the index, or dropped from it because there was no room.
    pub(super) taken: HashSet<InboxName>,
    pub(super) shelf: Shelf,
    pub(super) statuses: Statuses,
    over: HashMap<String, Micros>,
    /// The newest watermark by boot, among its objects and in the table.
    pub(super) watermarks: HashMap<String, Micros>,
    gaps: Vec<Gap>,
    world: Twin,
    habits: Habits,
    pending: Pending,
    /// The version of the table whose files are in the index. Inbox objects are seen as far as they
    /// go beyond it.
    pub(super) shown: Arc<History>,
    pub(super) table: Table,
    pub(super) learnt: Arc<Learnt>,
    pub(super) holes: Holes,
    directories: Directories,
    /// The version of the table that they were listed for last, and when.
    directories_of: Option<(u64, Instant)>,
    pub(super) refreshed: Option<Instant>,
    pub(super) listing: Duration,
}

impl Default for Keeper {
    fn default() -> Self {
        Self {
            taken: HashSet::new(),
            shelf: Shelf::default(),
            statuses: Statuses::default(),
            over: HashMap::new(),
            watermarks: HashMap::new(),
            gaps: Vec::new(),
            world: Twin::default(),
            habits: Habits::default(),
            pending: Pending::default(),
            shown: NO_TABLE.clone(),
            table: Table::default(),
            learnt: Arc::default(),
            holes: Holes::default(),
            directories: Directories::default(),
            directories_of: None,
            refreshed: None,
            listing: Duration::ZERO,
        }
    }
}

/// An inbox object that is to be read.
struct Arrival {
    name: InboxName,
    meta: ObjectMeta,
    /// The first row that is to be seen.
    from: i64,
    /// Rows up to here are learnt from the table.
    above: i64,
    learnt: Ranges,
}

impl Keeper {
    /// Brings `catalog` up to `now`. Each object is taken whole or not at all, and what moved into
    /// the table, or within it, all at once, so this may be dropped at any time.
    pub(super) async fn look(&mut self, catalog: &Catalog, now: Micros) -> Result<(), StoreError> {
        let started = Instant::now();
        // Statuses first: what one of them says is uploaded is then in the list.
        let statuses =
            self.statuses.refresh(catalog.store(), now).instrument(info_span!("statuses"));
        statuses.await?;
        let listed = catalog.store().list_inbox(HISTORY).instrument(info_span!("list")).await?;
        // The table last: what is gone from the inbox is then in it.
        let table = catalog.store().history().instrument(info_span!("table")).await?;
        let table = table.unwrap_or_else(|| NO_TABLE.clone());
        self.listing = started.elapsed();
        catalog.touch();
        let names: HashSet<&InboxName> = listed.iter().map(|(name, _)| name).collect();
        self.forget_gone(catalog, &names, &table);
        let unreadable = std::mem::take(&mut catalog.write().unreadable);
        for (file, why) in unreadable {
            self.table.give_up(&file, why);
        }
        self.follow(catalog, &names, &table).await;
        self.look_up_directories(catalog).await;
        let mut new = self.arrivals(listed, &table);
        if !new.is_empty() {
            // By boot and number, and boots by their start: causes come before what they caused.
            new.sort_by(|Arrival { name: a, .. }, Arrival { name: b, .. }| {
                (&a.boot, a.first.0, &a.agent).cmp(&(&b.boot, b.first.0, &b.agent))
            });
            let span = info_span!("index", objects = new.len());
            self.take(catalog, new).instrument(span).await;
        }
        self.finish(catalog, now);
        Ok(())
    }

    /// Forgets objects that are neither in the inbox nor in the table. What is in the table stays
    /// until that is shown.
    fn forget_gone(&mut self, catalog: &Catalog, names: &HashSet<&InboxName>, table: &History) {
        let is_there = |name: &InboxName| names.contains(name) || table.progress.covers(name);
        self.taken.retain(is_there);
        self.shelf.retain(is_there);
        let gone: Vec<u32> = {
            let inner = catalog.read();
            let gone = inner.objects().filter(|(name, _)| !is_there(name));
            gone.map(|(_, place)| place).collect()
        };
        if gone.is_empty() {
            return;
        }
        info!(objects = gone.len(), "objects are gone from the store");
        let mut inner = catalog.write();
        for place in gone {
            inner.remove(place, Why::Gone);
        }
    }

    /// Looks for directories of the files that have no place in the index, where there may be new
    /// ones: with each version of the table, and once in a while for files that have none yet.
    async fn look_up_directories(&mut self, catalog: &Catalog) {
        let wants = {
            let inner = catalog.read();
            let known = self.directories_of.filter(|(version, _)| *version == self.shown.version);
            let old = known.is_none_or(|(_, at)| at.elapsed() > DIRECTORIES_EVERY);
            !inner.far.is_empty() && (known.is_none() || old && inner.has_uncovered())
        };
        if !wants {
            return;
        }
        self.directories_of = Some((self.shown.version, Instant::now()));
        // What cannot be listed is done without.
        let looked = self.directories.refresh(catalog.store());
        if let Err(error) = looked.instrument(info_span!("directories")).await {
            warn!(%error, "directories cannot be listed");
            return;
        }
        let mut inner = catalog.write();
        let all = self.directories.newest_first();
        let all = all.filter(|it| !inner.distrusted.contains(&it.meta.location));
        inner.directories = all.cloned().collect();
    }

    /// Objects that are to be read now, as far as they go beyond what is shown of the table. What
    /// is in a version of the table that is not shown yet will be learnt from there.
    fn arrivals(&self, listed: Vec<(InboxName, ObjectMeta)>, table: &History) -> Vec<Arrival> {
        let clock = Instant::now();
        let shown = &self.shown.progress;
        let wanted = |(name, _): &(InboxName, ObjectMeta)| {
            !shown.covers(name) && !self.taken.contains(name) && !self.shelf.rests(name, clock)
        };
        let new = listed.into_iter().filter(wanted).map(|(name, meta)| Arrival {
            from: shown.visible_from(&name).0,
            above: table.progress.last_of(&name.agent, &name.boot),
            learnt: self.learnt.of(&name.agent, &name.boot).cloned().unwrap_or_default(),
            name,
            meta,
        });
        new.collect()
    }

    /// Reads and learns objects, in order.
    async fn take(&mut self, catalog: &Catalog, new: Vec<Arrival>) {
        let started = Instant::now();
        let (count, mut failed) = (new.len(), 0);
        let left_alone = AtomicBool::new(false);
        let left_alone = &left_alone;
        let mut made = stream::iter(new)
            .map(|new| async move {
                let put_at = Micros(new.meta.last_modified.timestamp_micros());
                let (name, above) = (new.name.clone(), new.above);
                let made = if left_alone.load(Relaxed) {
                    Err(Trouble::Read("the store gave none of those before".to_owned()))
                } else {
                    make(catalog, new).await
                };
                (name, above, put_at, made)
            })
            .buffered(AT_ONCE);
        while let Some((name, above, put_at, made)) = made.next().await {
            match made {
                Ok(prepared) => {
                    failed = 0;
                    catalog.touch();
                    self.shelf.took(&name);
                    self.learn(catalog, prepared, above);
                    self.taken.insert(name);
                }
                Err(trouble) => {
                    failed = if matches!(trouble, Trouble::Read(_)) { failed + 1 } else { 0 };
                    self.shelve(catalog, name, trouble, put_at);
                    left_alone.fetch_or(failed >= MANY_FAILED, Relaxed);
                }
            }
        }
        if count > 500 {
            info!(objects = count, seconds = started.elapsed().as_secs_f64(), "inbox is indexed");
        }
    }

    /// An object is in the store and not in the index.
    pub(super) fn shelve(
        &mut self,
        catalog: &Catalog,
        name: InboxName,
        trouble: Trouble,
        put_at: Micros,
    ) {
        let seen = catalog.read().seen_before(&name.agent, &name.boot, name.first.0);
        let from = began(&name.boot).max(seen);
        self.shelf.put(name, trouble, from, self.statuses.here(put_at));
    }

    fn learn(&mut self, catalog: &Catalog, mut prepared: Prepared, above: i64) {
        if let Source::Inbox(object) = &prepared.known.source {
            let InboxObject { name, visible, .. } = object;
            let watermark = self.watermarks.entry(name.boot.clone()).or_default();
            *watermark = (*watermark).max(object.watermark);
            let learnt = Arc::make_mut(&mut self.learnt).of_mut(&name.agent, &name.boot);
            learnt.add(visible.0.max(above + 1), visible.1);
        }
        let mut beyond = std::mem::take(&mut prepared.beyond);
        let again = self.teach(&mut beyond);
        let mut inner = catalog.write();
        inner.add(prepared);
        inner.absorb(beyond);
        inner.make_room(catalog.room);
        for flow in again {
            inner.given_up(flow);
        }
    }

    /// Learns what goes beyond single flows. Says the flows of messages that their services had
    /// received and published again.
    pub(super) fn teach(&mut self, beyond: &mut Beyond) -> Vec<u64> {
        self.world.learn(Lesson {
            rows: std::mem::take(&mut beyond.world),
            routes: std::mem::take(&mut beyond.routes),
            returns: std::mem::take(&mut beyond.returns),
            deliveries: std::mem::take(&mut beyond.deliveries),
            progress: std::mem::take(&mut beyond.progress),
            over: None,
        });
        self.gaps.append(&mut beyond.gaps);
        let steps = std::mem::take(&mut beyond.steps).into_iter();
        steps.filter_map(|(_, step)| self.pending.step(step, &mut self.habits)).collect()
    }

    /// Puts together what answers are judged by.
    fn finish(&mut self, catalog: &Catalog, now: Micros) {
        let said = self.statuses.said(&self.watermarks);
        let services: HashMap<String, String> =
            said.iter().map(|it| (it.status.agent.clone(), it.status.service.clone())).collect();
        let mut gaps = self.gaps.clone();
        gaps.extend(self.shelf.gaps(&services));
        gaps.extend(self.holes.gaps(&services));
        let progress = &self.shown.progress;
        for (at, trouble) in self.table.missing() {
            gaps.extend(gaps_of_file(at, trouble, progress, &services));
        }
        let mut coverage = Coverage::new(said, gaps, now);
        if coverage.over != self.over {
            self.over.clone_from(&coverage.over);
            self.world.learn(Lesson { over: Some(self.over.clone()), ..Lesson::default() });
        }
        let world = self.world.show();
        coverage.learn_closed(|boot| world.last_closed(boot));
        let mut missing = self.shelf.missing();
        missing.extend(self.holes.missing());
        missing.extend(self.table.missing().map(|(at, _)| missing_file(at)));
        let (refused, unread) = self.shelf.counts();
        let mut inner = catalog.write();
        inner.settle();
        inner.marks.refused = refused + self.holes.len();
        inner.marks.unread = unread + self.table.missing().count();
        inner.marks.statuses_refused = self.statuses.refused();
        inner.marks.directories_refused = self.directories.refused() + inner.distrusted.len();
        inner.snapshot = Snapshot {
            world,
            coverage: Arc::new(coverage),
            habits: Arc::new(self.habits.clone()),
            missing: Arc::new(missing),
            searched_from: inner.floor(),
            listed_from: inner.floor().max(inner.full),
            read_at: Some(now),
        };
    }
}

async fn make(catalog: &Catalog, new: Arrival) -> Result<Prepared, Trouble> {
    let store = catalog.store();
    let Arrival { name, meta, from, above, learnt } = new;
    store.check_size(&meta).map_err(Trouble::Unbelievable)?;
    let bytes = store.fetch(&meta).await;
    let bytes = bytes.map_err(|error| Trouble::Read(error.to_string()))?;
    let place = catalog.next_place();
    decode(move || {
        let opened = Opened::of(bytes)?;
        let mut object = InboxObject::believed(name, meta, opened.footer())?;
        object.visible.0 = from;
        let mut building = Building::of_object(object.clone(), learnt, above);
        opened.index(&mut building)?;
        let (index, pairs, beyond) = building.finish();
        let known = Known { source: Source::Inbox(object), index };
        Ok(Prepared { place, known, run: Run::new(place, pairs), beyond })
    })
    .await
}

/// An object of which less is to be seen from now on. There is nothing in it to be learnt.
pub(super) async fn narrow(
    catalog: &Catalog,
    name: InboxName,
    meta: ObjectMeta,
    from: i64,
) -> Result<Prepared, Trouble> {
    make(catalog, Arrival { name, meta, from, above: i64::MAX, learnt: Ranges::default() }).await
}
