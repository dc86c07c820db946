//! All objects' indexes together, kept up with the store: which flows there are, newest first, and
//! which rows an id leads to.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use flowtap_record::Micros;
use flowtap_record::path::{HISTORY, InboxName};
use futures::{StreamExt, stream};
use tracing::{info, warn};

use super::object::{Beyond, Index, Loose, MapKey, Part, Step};
use super::read::{Cache, Opened, Wanted};
use super::status::Statuses;
use crate::flow::{Coverage, Gap, Habits, Name, Row, World};
use crate::store::{InboxObject, Store, StoreError};

/// Bytes of objects that stay in memory for the next question.
const CACHE_BYTES: usize = 256 << 20;
/// Bytes that indexes may take: beyond, the oldest objects are not searched.
const INDEX_BYTES: usize = 1 << 30;
/// Objects whose bytes are in memory at the same time while indexes are made.
const AT_ONCE: usize = 8;
/// Deliveries that wait for what they cause.
const PENDING: usize = 200_000;
/// Messages an hour from which on an id is no flow's id.
const TOO_MANY_AN_HOUR: i64 = 10_000;
const HOUR_US: i64 = 3_600_000_000;

/// An object and its index.
pub(super) struct Known {
    pub(super) object: InboxObject,
    pub(super) index: Index,
}

/// When a flow started, and the hash of its id: the order of lists.
pub type Order = (i64, u64);

/// A flow, as far as it is known without reading its rows.
#[derive(Clone, Debug, Default)]
pub struct FlowEntry {
    /// Its first row.
    pub first: i64,
    /// Its last row.
    pub last: i64,
    /// How many rows.
    pub rows: u64,
    /// How many publishes.
    pub messages: u64,
    /// Somebody said no in it: only then it can be broken.
    pub refused: bool,
    /// Places of the objects that hold its rows.
    pub(super) objects: Vec<u32>,
}

impl FlowEntry {
    /// Too many messages for one flow: the id is something else.
    pub fn is_no_flow(&self) -> bool {
        let hours = (self.last - self.first).max(0) / HOUR_US + 1;
        self.messages as i64 / hours > TOO_MANY_AN_HOUR
    }
}

/// Numbers about the catalog, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Objects searched.
    pub objects: usize,
    /// Rows in them.
    pub rows: usize,
    /// Bytes that the indexes take.
    pub index_bytes: usize,
    /// Flows.
    pub flows: usize,
    /// Objects that could not be read.
    pub refused: usize,
    /// Objects too old to be searched.
    pub skipped: usize,
}

/// What the rules need besides rows, as it was at one moment.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// Brokers.
    pub world: Arc<World>,
    /// Who sees.
    pub coverage: Arc<Coverage>,
    /// What usually follows.
    pub habits: Arc<Habits>,
}

/// The catalog of one store.
pub struct Catalog {
    pub(super) store: Store,
    pub(super) cache: Cache,
    inner: RwLock<Inner>,
    keeper: tokio::sync::Mutex<Keeper>,
    /// Rows of flows that were read for a list, by flow and number of rows.
    pub(super) lately: Mutex<Lately>,
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) objects: Vec<Arc<Known>>,
    pub(super) flows: HashMap<u64, FlowEntry>,
    by_start: BTreeSet<Order>,
    /// Messages without a transaction id, by event id.
    loose: HashMap<u64, LooseEvent>,
    loose_order: BTreeMap<Order, (u32, u32)>,
    loose_changed: bool,
    bare: bool,
    map: HashMap<(MapKey, i64), u64>,
    gaps: Vec<Gap>,
    watermarks: HashMap<String, Micros>,
    snapshot: Snapshot,
    marks: Marks,
}

#[derive(Clone, Copy, Debug)]
struct LooseEvent {
    cause: u64,
    at: i64,
    place: (u32, u32),
}

/// What only the one who keeps the catalog up needs.
#[derive(Default)]
struct Keeper {
    seen: HashSet<InboxName>,
    statuses: Statuses,
    pending: Pending,
    refreshed: Option<Instant>,
    listing: Duration,
}

#[derive(Default)]
struct Pending {
    by_event: HashMap<(String, u64), (String, bool)>,
    by_transaction: HashMap<(String, u64), u64>,
    order: VecDeque<(String, u64, Option<u64>)>,
}

/// Rows that were read for a list.
#[derive(Default)]
pub(super) struct Lately {
    rows: HashMap<u64, (u64, Arc<Vec<Row>>)>,
    order: VecDeque<u64>,
    held: usize,
}

/// Rows kept for lists.
const LATELY_ROWS: usize = 200_000;

impl Lately {
    pub(super) fn get(&self, flow: u64, rows: u64) -> Option<Arc<Vec<Row>>> {
        self.rows.get(&flow).filter(|(known, _)| *known == rows).map(|(_, found)| found.clone())
    }

    pub(super) fn put(&mut self, flow: u64, rows: u64, found: Arc<Vec<Row>>) {
        self.held += found.len();
        if let Some((_, old)) = self.rows.insert(flow, (rows, found)) {
            self.held -= old.len();
        } else {
            self.order.push_back(flow);
        }
        while self.held > LATELY_ROWS
            && let Some(oldest) = self.order.pop_front()
        {
            if let Some((_, gone)) = self.rows.remove(&oldest) {
                self.held -= gone.len();
            }
        }
    }
}

impl Catalog {
    /// A catalog of `store` that knows nothing yet.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            cache: Cache::new(CACHE_BYTES),
            inner: RwLock::default(),
            keeper: tokio::sync::Mutex::default(),
            lately: Mutex::default(),
        }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Brings the catalog up to `now`, unless that was done within `age`. A store that cannot be
    /// listed leaves it as it was.
    pub async fn refresh(&self, age: Duration, now: Micros) -> Result<(), StoreError> {
        let mut keeper = self.keeper.lock().await;
        // Listing a large inbox takes its time: it is not done over and over.
        let age = age.max(keeper.listing * 4);
        if keeper.refreshed.is_some_and(|at| at.elapsed() < age) && !age.is_zero() {
            return Ok(());
        }
        let started = Instant::now();
        let listed = self.store.list_inbox(HISTORY).await?;
        keeper.statuses.refresh(&self.store).await?;
        keeper.listing = started.elapsed();
        let mut new: Vec<_> =
            listed.into_iter().filter(|(name, _)| !keeper.seen.contains(name)).collect();
        // By boot and number, and boots by their start: causes come before what they caused.
        new.sort_by(|(a, _), (b, _)| {
            (&a.boot, a.first.0, &a.agent).cmp(&(&b.boot, b.first.0, &b.agent))
        });
        let many = new.len() > 500;
        let count = new.len();
        let mut made = stream::iter(new)
            .map(|(name, meta)| async move {
                let made = self.make(&name, meta).await;
                (name, made)
            })
            .buffered(AT_ONCE);
        while let Some((name, made)) = made.next().await {
            match made {
                Ok((known, beyond)) => {
                    let Keeper { pending, .. } = &mut *keeper;
                    self.write().add(known, beyond, pending);
                }
                Err(why) => {
                    warn!(object = name.path(), why, "object left out");
                    self.write().marks.refused += 1;
                }
            }
            keeper.seen.insert(name);
        }
        if many {
            info!(objects = count, seconds = started.elapsed().as_secs_f64(), "inbox is indexed");
        }
        let mut inner = self.write();
        let said = keeper.statuses.said(&inner.watermarks);
        inner.finish(said, now);
        keeper.refreshed = Some(Instant::now());
        Ok(())
    }

    async fn make(
        &self,
        name: &InboxName,
        meta: object_store::ObjectMeta,
    ) -> Result<(Known, Beyond), String> {
        let object = self.store.believed(name, meta).await?;
        let opened = Opened::new(&self.store, &object).await?;
        let made = tokio::task::spawn_blocking(move || {
            let (index, beyond) = Index::build(&opened, &object)?;
            Ok((Known { object, index }, beyond))
        });
        made.await.unwrap_or_else(|_| Err("its rows broke the decoder".to_owned()))
    }

    /// What the rules need, as of the last refresh.
    pub fn snapshot(&self) -> Snapshot {
        self.read().snapshot.clone()
    }

    /// Numbers for metrics.
    pub fn marks(&self) -> Marks {
        let inner = self.read();
        Marks { flows: inner.flows.len(), objects: inner.objects.len(), ..inner.marks }
    }

    /// A flow by the hash of its id.
    pub fn flow(&self, transaction: u64) -> Option<FlowEntry> {
        self.read().flows.get(&transaction).cloned()
    }

    /// Flows that started before `before`, newest first, at most `count`.
    pub fn newest(&self, before: Order, count: usize) -> Vec<(Order, Option<FlowEntry>)> {
        self.settle_loose();
        let inner = self.read();
        let flows = inner.by_start.range(..before).rev().take(count);
        let mut found: Vec<(Order, Option<FlowEntry>)> =
            flows.map(|order| (*order, inner.flows.get(&order.1).cloned())).collect();
        let loose = inner.loose_order.range(..before).rev().take(count);
        found.extend(loose.map(|(order, _)| (*order, None)));
        found.sort_by(|(a, _), (b, _)| b.cmp(a));
        found.truncate(count);
        found
    }

    /// Where the first row of a flow without any transaction id lies.
    pub(super) fn loose_root(&self, order: Order) -> Option<(u32, u32)> {
        self.read().loose_order.get(&order).copied()
    }

    /// Whether there are messages without a transaction id at all.
    pub fn has_loose(&self) -> bool {
        !self.read().loose.is_empty()
    }

    /// Whether there are rows that say no and bear no id.
    pub fn has_bare(&self) -> bool {
        self.read().bare
    }

    /// Counts by minute for the map, from minute to minute.
    pub fn map(&self, from: i64, to: i64) -> BTreeMap<MapKey, (u64, i64)> {
        let mut sums: BTreeMap<MapKey, (u64, i64)> = BTreeMap::new();
        for ((key, minute), count) in &self.read().map {
            if (from..to).contains(minute) {
                let sum = sums.entry(key.clone()).or_default();
                sum.0 += count;
                sum.1 = sum.1.max(*minute);
            }
        }
        sums
    }

    /// Rows that carry what was hashed: objects by place, with numbers of rows.
    pub(super) fn rows_of(&self, hashes: &[u64]) -> BTreeMap<u32, Vec<u32>> {
        let inner = self.read();
        let mut found: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (place, known) in inner.objects.iter().enumerate() {
            for &hash in hashes {
                let rows = known.index.rows_of(hash);
                if !rows.is_empty() {
                    found.entry(place as u32).or_default().extend(rows);
                }
            }
        }
        found
    }

    /// The same, in these objects only.
    pub(super) fn rows_in(&self, objects: &[u32], hash: u64) -> BTreeMap<u32, Vec<u32>> {
        let inner = self.read();
        let rows = |&place: &u32| {
            Some((place, inner.objects.get(place as usize)?.index.rows_of(hash).to_vec()))
        };
        objects.iter().filter_map(rows).collect()
    }

    /// The object that holds a row, and the row's likely neighbours there.
    pub(super) fn place_of(&self, row: &crate::flow::RowId) -> Option<(u32, Vec<u32>)> {
        let inner = self.read();
        let place = inner.objects.iter().position(|known| {
            let name = &known.object.name;
            name.agent == row.agent
                && name.boot == row.boot
                && (name.first.0..=name.last.0).contains(&row.seq)
        })?;
        let object = &inner.objects[place].object;
        // Without lost rows it lies where its number says; else a little before.
        let at = (row.seq - object.name.first.0).clamp(0, i64::from(u32::MAX)) as u32;
        let last = (object.rows as u32).saturating_sub(1);
        let rows = (at.saturating_sub(1000).min(last)..=at.min(last)).collect();
        Some((place as u32, rows))
    }

    /// Reads rows. An object that cannot be read any more is an error: part of an answer is none.
    pub(super) async fn rows(
        &self,
        places: BTreeMap<u32, Vec<u32>>,
        wanted: Wanted,
    ) -> Result<Vec<Row>, String> {
        let objects: Vec<(Arc<Known>, Vec<u32>)> = {
            let inner = self.read();
            let known = |(place, rows)| Some((inner.objects.get(place as usize)?.clone(), rows));
            places.into_iter().filter_map(known).collect()
        };
        let read = stream::iter(objects).map(|(known, mut rows)| async move {
            rows.sort_unstable();
            rows.dedup();
            let opened = self.cache.open(&self.store, &known.object).await?;
            let task =
                tokio::task::spawn_blocking(move || opened.rows(&known.object, &rows, wanted));
            task.await.map_err(|error| error.to_string())?
        });
        let mut read = read.buffer_unordered(AT_ONCE);
        let mut all = Vec::new();
        while let Some(rows) = read.next().await {
            all.extend(rows?);
        }
        Ok(all)
    }

    /// Finds out which messages without a transaction id hang together.
    fn settle_loose(&self) {
        if !self.read().loose_changed {
            return;
        }
        let mut inner = self.write();
        let mut starts: HashMap<u64, LooseEvent> = HashMap::new();
        for event in inner.loose.values() {
            // Up the chain, as far as it is loose; a circle ends after as many steps as are sane.
            let (mut root, mut steps) = (event.cause, 0);
            let Some(mut first) = inner.loose.get(&root).copied() else { continue };
            while let Some(next) = inner.loose.get(&first.cause)
                && steps < 1000
            {
                root = first.cause;
                first = *next;
                steps += 1;
            }
            // Caused by a message of a flow: it belongs there.
            if first.cause == 0
                || !inner.objects.iter().any(|known| !known.index.rows_of(first.cause).is_empty())
            {
                starts.insert(root, first);
            }
        }
        inner.loose_order =
            starts.into_iter().map(|(event, first)| ((first.at, event), first.place)).collect();
        inner.loose_changed = false;
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn add(&mut self, known: Known, beyond: Beyond, pending: &mut Pending) {
        let name = &known.object.name;
        let watermark = self.watermarks.entry(name.boot.clone()).or_default();
        *watermark = (*watermark).max(known.object.watermark);
        self.marks.rows += known.object.rows;
        if self.marks.index_bytes + known.index.bytes() > INDEX_BYTES {
            self.marks.skipped += 1;
            warn!(object = name.path(), "the index is full: this object is not searched");
        } else {
            self.marks.index_bytes += known.index.bytes();
            let place = self.objects.len() as u32;
            for part in &known.index.parts {
                self.add_part(place, part);
            }
            for loose in &beyond.loose {
                self.add_loose(place, loose);
            }
            self.objects.push(Arc::new(known));
        }
        self.learn(beyond, pending);
    }

    fn add_part(&mut self, place: u32, part: &Part) {
        let flow = self.flows.entry(part.transaction).or_insert_with(|| FlowEntry {
            first: i64::MAX,
            last: i64::MIN,
            ..FlowEntry::default()
        });
        if part.first < flow.first {
            self.by_start.remove(&(flow.first, part.transaction));
            self.by_start.insert((part.first, part.transaction));
            flow.first = part.first;
        }
        flow.last = flow.last.max(part.last);
        flow.rows += u64::from(part.rows);
        flow.messages += u64::from(part.messages);
        flow.refused |= part.refused;
        flow.objects.push(place);
    }

    fn add_loose(&mut self, place: u32, loose: &Loose) {
        self.loose_changed = true;
        let new = LooseEvent { cause: loose.cause, at: loose.at, place: (place, loose.row) };
        let event = self.loose.entry(loose.event).or_insert(new);
        if new.at < event.at {
            *event = new;
        }
    }

    fn learn(&mut self, beyond: Beyond, pending: &mut Pending) {
        let world = Arc::make_mut(&mut self.snapshot.world);
        for row in &beyond.world {
            world.learn(row);
        }
        for ((broker, exchange, key), at) in beyond.routes {
            world.learn_route(&broker, &exchange, &key, Micros(at));
        }
        for (broker, queue) in beyond.returns {
            world.learn_return(Name::new(&broker, &queue));
        }
        for row in &beyond.deliveries {
            world.learn_delivery(row);
        }
        for (slot, progress) in beyond.progress {
            world.groups.learn_progress(slot, progress);
        }
        self.gaps.extend(beyond.gaps);
        self.bare |= beyond.bare;
        for (key, count) in beyond.map {
            *self.map.entry(key).or_default() += count;
        }
        let habits = Arc::make_mut(&mut self.snapshot.habits);
        for step in beyond.steps {
            pending.step(step, habits);
        }
    }

    fn finish(&mut self, said: Vec<crate::flow::Said>, now: Micros) {
        let mut coverage = Coverage::new(said, self.gaps.clone(), now);
        let world = Arc::make_mut(&mut self.snapshot.world);
        world.learn_ends(&coverage.over);
        coverage.learn_closed(|boot| world.last_closed(boot));
        self.snapshot.coverage = Arc::new(coverage);
    }
}

impl Pending {
    /// Deliveries wait for the publish that they cause; each counts once.
    fn step(&mut self, step: Step, habits: &mut Habits) {
        match step {
            Step::Delivered { event, transaction, service, event_type } => {
                let key = (service.clone(), event);
                if self.by_event.contains_key(&key) {
                    return;
                }
                habits.handled(&service, &event_type);
                self.by_event.insert(key, (event_type, false));
                if let Some(transaction) = transaction {
                    self.by_transaction.insert((service.clone(), transaction), event);
                }
                self.order.push_back((service, event, transaction));
                if self.order.len() > PENDING
                    && let Some((service, event, transaction)) = self.order.pop_front()
                {
                    self.by_event.remove(&(service.clone(), event));
                    if let Some(transaction) = transaction {
                        self.by_transaction.remove(&(service, transaction));
                    }
                }
            }
            Step::Published { cause, transaction, service } => {
                let by_transaction = || {
                    let transaction = transaction?;
                    self.by_transaction.get(&(service.clone(), transaction)).copied()
                };
                let Some(event) = cause.or_else(by_transaction) else { return };
                let waiting = self.by_event.get_mut(&(service.clone(), event));
                if let Some((event_type, followed @ false)) = waiting {
                    *followed = true;
                    let event_type = event_type.clone();
                    habits.followed(&service, &event_type);
                }
            }
        }
    }
}
