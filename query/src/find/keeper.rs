//! Keeps the catalog up with the store. One at a time: lists, reads what is new, learns what is not
//! about single flows, and puts together what answers are judged by.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use flowtap_record::Micros;
use flowtap_record::path::{HISTORY, InboxName};
use futures::{StreamExt, stream};
use object_store::ObjectMeta;
use tracing::{Instrument as _, info, info_span};

use super::catalog::{Catalog, Snapshot};
use super::inner::Known;
use super::object::{Beyond, Index};
use super::pending::Pending;
use super::read::Opened;
use super::status::Statuses;
use super::twin::{Lesson, Twin};
use super::unread::{Shelf, Trouble, began};
use crate::flow::{Coverage, Gap, Habits};
use crate::store::StoreError;

/// Objects whose bytes are in memory at the same time while indexes are made.
const AT_ONCE: usize = 8;
/// After so many objects in a row that the store did not give, it is left alone for a while.
const MANY_FAILED: usize = 3 * AT_ONCE;

/// What only the one who keeps the catalog up needs.
#[derive(Default)]
pub(super) struct Keeper {
    /// In the index, or dropped from it because there was no room.
    taken: HashSet<InboxName>,
    shelf: Shelf,
    statuses: Statuses,
    over: HashMap<String, Micros>,
    /// The newest watermark by boot, among its objects.
    watermarks: HashMap<String, Micros>,
    gaps: Vec<Gap>,
    world: Twin,
    habits: Habits,
    pending: Pending,
    pub(super) refreshed: Option<Instant>,
    pub(super) listing: Duration,
}

impl Keeper {
    /// Brings `catalog` up to `now`. Each object is taken whole or not at all, so this may be
    /// dropped at any time.
    pub(super) async fn look(&mut self, catalog: &Catalog, now: Micros) -> Result<(), StoreError> {
        let started = Instant::now();
        // Statuses first: what one of them says is uploaded is then in the list.
        let statuses =
            self.statuses.refresh(catalog.store(), now).instrument(info_span!("statuses"));
        statuses.await?;
        let listed = catalog.store().list_inbox(HISTORY).instrument(info_span!("list")).await?;
        self.listing = started.elapsed();
        catalog.touch();
        let names: HashSet<&InboxName> = listed.iter().map(|(name, _)| name).collect();
        self.taken.retain(|name| names.contains(name));
        self.shelf.retain(|name| names.contains(name));
        let gone = catalog.write().retain(|name| names.contains(name));
        if gone > 0 {
            info!(objects = gone, "objects are gone from the store");
        }
        let clock = Instant::now();
        let mut new: Vec<_> = listed
            .into_iter()
            .filter(|(name, _)| !self.taken.contains(name) && !self.shelf.rests(name, clock))
            .collect();
        if !new.is_empty() {
            // By boot and number, and boots by their start: causes come before what they caused.
            new.sort_by(|(a, _), (b, _)| {
                (&a.boot, a.first.0, &a.agent).cmp(&(&b.boot, b.first.0, &b.agent))
            });
            let span = info_span!("index", objects = new.len());
            self.take(catalog, new).instrument(span).await;
        }
        self.finish(catalog, now);
        Ok(())
    }

    /// Reads and learns objects, in order.
    async fn take(&mut self, catalog: &Catalog, new: Vec<(InboxName, ObjectMeta)>) {
        let started = Instant::now();
        let (count, mut failed) = (new.len(), 0);
        let left_alone = AtomicBool::new(false);
        let left_alone = &left_alone;
        let mut made = stream::iter(new)
            .map(|(name, meta)| async move {
                let put_at = Micros(meta.last_modified.timestamp_micros());
                let made = if left_alone.load(Relaxed) {
                    Err(Trouble::Read("the store gave none of those before".to_owned()))
                } else {
                    make(catalog, &name, meta).await
                };
                (name, put_at, made)
            })
            .buffered(AT_ONCE);
        while let Some((name, put_at, made)) = made.next().await {
            match made {
                Ok((known, beyond)) => {
                    failed = 0;
                    catalog.touch();
                    self.shelf.took(&name);
                    self.learn(catalog, known, beyond);
                    self.taken.insert(name);
                }
                Err(trouble) => {
                    failed = if matches!(trouble, Trouble::Read(_)) { failed + 1 } else { 0 };
                    let from = began(&name.boot).max(seen_before(catalog, &name));
                    self.shelf.put(name, trouble, from, self.statuses.here(put_at));
                    left_alone.fetch_or(failed >= MANY_FAILED, Relaxed);
                }
            }
        }
        if count > 500 {
            info!(objects = count, seconds = started.elapsed().as_secs_f64(), "inbox is indexed");
        }
    }

    fn learn(&mut self, catalog: &Catalog, known: Known, mut beyond: Beyond) {
        let watermark = self.watermarks.entry(known.object.name.boot.clone()).or_default();
        *watermark = (*watermark).max(known.object.watermark);
        self.world.learn(Lesson {
            rows: beyond.world.drain(..).collect(),
            routes: std::mem::take(&mut beyond.routes),
            returns: std::mem::take(&mut beyond.returns),
            deliveries: std::mem::take(&mut beyond.deliveries),
            progress: std::mem::take(&mut beyond.progress),
            over: None,
        });
        self.gaps.append(&mut beyond.gaps);
        let steps = std::mem::take(&mut beyond.steps);
        let again: Vec<u64> = steps
            .into_iter()
            .filter_map(|step| self.pending.step(step, &mut self.habits))
            .collect();
        let mut inner = catalog.write();
        inner.add(known, &mut beyond, catalog.room);
        for flow in again {
            inner.given_up(flow);
        }
    }

    /// Puts together what answers are judged by.
    fn finish(&mut self, catalog: &Catalog, now: Micros) {
        let said = self.statuses.said(&self.watermarks);
        let services: HashMap<String, String> =
            said.iter().map(|it| (it.status.agent.clone(), it.status.service.clone())).collect();
        let mut gaps = self.gaps.clone();
        gaps.extend(self.shelf.gaps(&services));
        let mut coverage = Coverage::new(said, gaps, now);
        if coverage.over != self.over {
            self.over.clone_from(&coverage.over);
            self.world.learn(Lesson { over: Some(self.over.clone()), ..Lesson::default() });
        }
        let world = self.world.show();
        coverage.learn_closed(|boot| world.last_closed(boot));
        let (refused, unread) = self.shelf.counts();
        let mut inner = catalog.write();
        inner.settle();
        inner.marks.refused = refused;
        inner.marks.unread = unread;
        inner.marks.statuses_refused = self.statuses.refused();
        inner.snapshot = Snapshot {
            world,
            coverage: Arc::new(coverage),
            habits: Arc::new(self.habits.clone()),
            missing: Arc::new(self.shelf.missing()),
            searched_from: inner.floor,
            read_at: Some(now),
        };
    }
}

/// All that an agent saw up to then lies in objects before this one.
fn seen_before(catalog: &Catalog, name: &InboxName) -> Micros {
    let inner = catalog.read();
    let before = inner.object_of(&name.agent, &name.boot, name.first.0 - 1);
    before.map_or(Micros(0), |(_, known)| known.object.watermark)
}

async fn make(
    catalog: &Catalog,
    name: &InboxName,
    meta: ObjectMeta,
) -> Result<(Known, Beyond), Trouble> {
    let store = catalog.store();
    store.check_size(&meta).map_err(Trouble::Unbelievable)?;
    let bytes = Opened::fetch(store, &meta).await.map_err(Trouble::Read)?;
    let name = name.clone();
    let made = tokio::task::spawn_blocking(move || {
        let opened = Opened::of(bytes)?;
        let object = crate::store::InboxObject::believed(name, meta, opened.footer())?;
        let (index, beyond) = Index::build(&opened, &object)?;
        Ok((Known { object, index }, beyond))
    });
    let made = made.await.unwrap_or_else(|_| Err("its rows broke the decoder".to_owned()));
    made.map_err(Trouble::Unbelievable)
}
