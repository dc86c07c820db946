//! All indexes together, kept up with the store: which flows there are, newest first, and which rows
//! an id leads to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use flowtap_record::Micros;
use tracing::{Instrument as _, info_span};

use super::cache::Cache;
use super::inner::Inner;
use super::keeper::Keeper;
use super::lately::Lately;
use super::object::{MapKey, hash};
use super::unread::Missing;
use crate::flow::{Coverage, Habits, Row, World};
use crate::store::{Store, StoreError};

/// Bytes of objects that stay in memory for the next question.
const CACHE_BYTES: usize = 256 << 20;
/// Bytes that the index may take: beyond, the oldest are found by their ids only.
const INDEX_BYTES: usize = 1 << 30;
/// Messages an hour from which on an id is no flow's id.
const TOO_MANY_AN_HOUR: i64 = 10_000;
const HOUR_US: i64 = 3_600_000_000;
/// Clocks of two machines may differ by so much.
const SKEW_US: i64 = 5_000_000;

/// When a flow started, and the hash of its id: the order of lists.
pub type Order = (i64, u64);

/// Rows by source: places of sources, each with numbers of rows.
pub(super) type Places = BTreeMap<u32, Vec<u32>>;

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
    /// Somebody may have said no in it: only then it can be broken.
    pub refused: bool,
    /// Rows that bear no id conclude some of its rows.
    pub(super) bare: bool,
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
    /// Inbox objects and files of the table that are searched.
    pub objects: usize,
    /// Rows in them.
    pub rows: usize,
    /// Bytes that the index takes.
    pub index_bytes: usize,
    /// Flows.
    pub flows: usize,
    /// Objects that cannot be believed.
    pub refused: usize,
    /// Objects that could not be read yet.
    pub unread: usize,
    /// Objects and files that are not in the index because it was full: the oldest.
    pub skipped: usize,
    /// Directories that cannot be believed: what they cover is searched without.
    pub directories_refused: usize,
    /// Agents' statuses that cannot be read or believed.
    pub statuses_refused: usize,
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
    /// What is in the store and could not be read.
    pub missing: Arc<Vec<Missing>>,
    /// Rows before this are not found by any id: they are gone from the store, or there was no room
    /// for them while they lay in the inbox.
    pub searched_from: Option<Micros>,
    /// Rows before this are not in lists and on the map either: the index is full.
    pub listed_from: Option<Micros>,
    /// When the store was looked at; never yet: nothing.
    pub read_at: Option<Micros>,
}

impl Snapshot {
    /// The same for lists and the map, which see what has a place in the index only.
    #[must_use]
    pub fn for_lists(mut self) -> Self {
        self.searched_from = self.listed_from;
        self
    }

    /// Whether a flow may have rows that are not among these: in objects that could not be read, or
    /// in such that are not searched any more.
    pub fn may_miss(&self, rows: &[Row]) -> bool {
        let first = rows.iter().map(|row| row.at).min();
        let older = |from: Micros| first.is_some_and(|first| first <= from.plus(SKEW_US));
        self.searched_from.is_some_and(older)
            || self.missing.iter().any(|missing| missing.touches(rows))
    }
}

/// How it stands with the store.
#[derive(Clone, Debug)]
pub struct Health {
    /// When the store, or one of its objects, was read last.
    pub touched: Instant,
    /// When it could not be read, since it was read last, and why.
    pub trouble: Option<(Instant, String)>,
}

/// The catalog of one store.
pub struct Catalog {
    pub(super) store: Store,
    pub(super) cache: Cache,
    pub(super) room: usize,
    inner: RwLock<Inner>,
    keeper: tokio::sync::Mutex<Keeper>,
    health: Mutex<Health>,
    places: AtomicU32,
    /// What is shown is not in the store any more: the next look waits for what took its place.
    pub(super) is_gone: AtomicBool,
    /// When somebody asked for a look last, by both clocks.
    asked: Mutex<(Instant, Micros)>,
    /// Rows of flows that were read for a list.
    pub(super) lately: Mutex<Lately>,
}

impl Catalog {
    /// A catalog of `store` that knows nothing yet.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            cache: Cache::new(CACHE_BYTES),
            room: INDEX_BYTES,
            inner: RwLock::default(),
            keeper: tokio::sync::Mutex::default(),
            health: Mutex::new(Health { touched: Instant::now(), trouble: None }),
            places: AtomicU32::new(0),
            is_gone: AtomicBool::new(false),
            asked: Mutex::new((Instant::now(), Micros(0))),
            lately: Mutex::default(),
        }
    }

    /// Lets the index take so many bytes.
    #[must_use]
    pub fn with_room(self, bytes: usize) -> Self {
        Self { room: bytes, ..self }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Brings the catalog up to `now`, unless that was done within `age`; zero: always. A store that cannot be
    /// listed leaves it as it was. May be dropped at any time: what was read is kept.
    pub async fn refresh(&self, age: Duration, now: Micros) -> Result<(), StoreError> {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), now);
        let mut keeper = self.keeper.lock().await;
        // Listing a large inbox takes its time: it is not done over and over.
        let enough = age.max(keeper.listing * 4);
        if keeper.refreshed.is_some_and(|at| at.elapsed() < enough) && !age.is_zero() {
            return Ok(());
        }
        // Who waited while somebody else found the store away does not wait for that again.
        let trouble = self.health().trouble.clone();
        if let Some((_, why)) = trouble.filter(|(at, _)| at.elapsed() < age) {
            return Err(self.store.away(why));
        }
        let looked = keeper.look(self, now).instrument(info_span!("refresh")).await;
        match &looked {
            Ok(()) => {
                keeper.refreshed = Some(Instant::now());
                self.health().trouble = None;
            }
            Err(StoreError::Unreadable { source, .. }) => {
                self.health().trouble = Some((Instant::now(), source.to_string()));
            }
            Err(error) => self.health().trouble = Some((Instant::now(), error.to_string())),
        }
        looked
    }

    /// Looks at the store at once, because what is shown is not there any more.
    pub(super) async fn look_again(&self) -> Result<(), StoreError> {
        let (at, now) = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let since = i64::try_from(at.elapsed().as_micros()).unwrap_or_default();
        self.is_gone.store(true, Relaxed);
        self.refresh(Duration::ZERO, now.plus(since)).await
    }

    /// A place for one more source.
    pub(super) fn next_place(&self) -> u32 {
        self.places.fetch_add(1, Relaxed)
    }

    /// How it stands with the store.
    pub fn store_health(&self) -> Health {
        self.health().clone()
    }

    /// The store gave something.
    pub(super) fn touch(&self) {
        self.health().touched = Instant::now();
    }

    fn health(&self) -> std::sync::MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the rules need, as of the last refresh.
    pub fn snapshot(&self) -> Snapshot {
        self.read().snapshot.clone()
    }

    /// Numbers for metrics.
    pub fn marks(&self) -> Marks {
        let inner = self.read();
        Marks { flows: inner.flows.len(), objects: inner.sources.len(), ..inner.marks }
    }

    /// A flow by the hash of its id.
    pub fn flow(&self, transaction: u64) -> Option<FlowEntry> {
        self.read().flows.get(&transaction).cloned()
    }

    /// Flows that started before `before` and may be wanted, newest first, at most `count`. What the
    /// index cannot tell of, chains of messages without a transaction id, may always be.
    pub fn newest(
        &self,
        before: Order,
        count: usize,
        may_want: impl Fn(&FlowEntry) -> bool,
    ) -> Vec<(Order, Option<FlowEntry>)> {
        let inner = self.read();
        let flows = inner.by_start.range(..before).rev();
        let flows = flows.filter_map(|order| Some((*order, inner.flows.get(&order.1)?)));
        let mut found: Vec<(Order, Option<FlowEntry>)> = flows
            .filter(|(_, entry)| may_want(entry))
            .take(count)
            .map(|(order, entry)| (order, Some(entry.clone())))
            .collect();
        found.extend(inner.newest_chains(before).take(count).map(|order| (order, None)));
        found.sort_by(|(a, _), (b, _)| b.cmp(a));
        found.truncate(count);
        found
    }

    /// Where the first row of a flow without any transaction id lies.
    pub(super) fn loose_root(&self, order: Order) -> Option<(u32, u32)> {
        self.read().chains.place(order)
    }

    /// Whether there may be messages without a transaction id at all.
    pub fn has_loose(&self) -> bool {
        let inner = self.read();
        !inner.chains.is_empty() || !inner.far.is_empty()
    }

    /// Whether messages without a transaction id hang on these rows.
    pub(super) fn are_tied(&self, rows: &[Row]) -> bool {
        let inner = self.read();
        let chains = &inner.chains;
        !chains.is_empty()
            && rows.iter().any(|row| {
                let cause = row.causation_id.as_deref();
                let event = row.event_id.as_deref();
                cause.is_some_and(|cause| chains.has(hash::event(cause)))
                    || event.is_some_and(|event| chains.has_caused(hash::event(event)))
            })
    }

    /// Counts by minute for the map, from minute to minute.
    pub fn map(&self, from: i64, to: i64) -> BTreeMap<MapKey, (u64, i64)> {
        self.read().counts.sums(from, to)
    }

    pub(super) fn read(&self) -> std::sync::RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> std::sync::RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}
