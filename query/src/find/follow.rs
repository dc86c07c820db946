//! Rows move from the inbox into the table, and there from file to file. This brings what is shown
//! from one version of the table to a newer one, in one step, so that no answer sees a row twice or
//! not at all: what is shown is always a version of the table with the inbox beyond it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use flowtap_record::Micros;
use flowtap_record::path::InboxName;
use object_store::ObjectMeta;
use object_store::path::Path;
use tracing::debug;

use super::catalog::Catalog;
use super::inner::{Inner, Why};
use super::keeper::{Keeper, narrow};
use super::known::{Prepared, Source};
use super::object::Beyond;
use crate::store::{History, Trouble};

/// A look at the store waits so long for indexes of new files. Where they take longer, what was
/// shown is shown on.
const PATIENCE: Duration = Duration::from_millis(700);
/// Until a file that could not be read is tried again, where everything waits for it.
const PAUSE: Duration = Duration::from_millis(100);

/// An inbox object of which less is to be seen, made anew, or why it could not be.
struct Narrowed {
    name: InboxName,
    put_at: Micros,
    made: Result<Prepared, Trouble>,
}

impl Keeper {
    /// Shows `table` as soon as its files are indexed.
    pub(super) async fn follow(
        &mut self,
        catalog: &Catalog,
        names: &HashSet<&InboxName>,
        table: &Arc<History>,
    ) {
        let is_gone = catalog.is_gone.swap(false, Relaxed);
        if Arc::ptr_eq(&self.shown, table) && !self.table.wants(table) {
            return;
        }
        // Without these rows nothing may be said: statuses tell of them already.
        let first = catalog.read().snapshot.read_at.is_none();
        let insists = first || is_gone || !self.holds(names, table);
        if insists {
            self.table.hurry();
        }
        let patience = (!insists).then_some(PATIENCE);
        while !self.table.prepare(catalog, table, &self.learnt, patience).await {
            if !insists {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        let narrowed = self.narrow(catalog, table).await;
        self.show(catalog, table, narrowed);
    }

    /// Whether what is shown, with the inbox, holds all rows that a newer version of the table
    /// holds: those that moved since are in the inbox for a while.
    fn holds(&self, names: &HashSet<&InboxName>, table: &History) -> bool {
        let mut moved: HashMap<(&str, &str), Vec<(i64, i64)>> = HashMap::new();
        let shown = &self.shown.progress;
        for name in names.iter().copied().chain(&self.taken) {
            if table.progress.covers(name) && !shown.covers(name) {
                let ranges = moved.entry((&name.agent, &name.boot)).or_default();
                ranges.push((name.first.0, name.last.0));
            }
        }
        for ranges in moved.values_mut() {
            ranges.sort_unstable();
        }
        let boots = table.progress.boots.iter();
        let mut boots = boots.flat_map(|(agent, boots)| boots.iter().map(move |it| (agent, it)));
        boots.all(|(agent, (boot, at))| {
            let mut next = shown.last_of(agent, boot) + 1;
            let ranges = moved.get(&(agent.as_str(), boot.as_str()));
            for &(first, last) in ranges.into_iter().flatten() {
                if first <= next {
                    next = next.max(last + 1);
                }
            }
            next > at.last
        })
    }

    /// Makes inbox objects anew that the table covers in part.
    async fn narrow(&self, catalog: &Catalog, table: &History) -> Vec<Narrowed> {
        let progress = &table.progress;
        let partly: Vec<(InboxName, ObjectMeta, i64)> = {
            let inner = catalog.read();
            let objects = inner.objects().filter(|(name, _)| !progress.covers(name));
            let partly = objects.filter_map(|(name, place)| {
                let Source::Inbox(object) = &inner.sources.get(&place)?.source else { return None };
                let from = progress.visible_from(name).0;
                (from > object.visible.0).then(|| (name.clone(), object.meta.clone(), from))
            });
            partly.collect()
        };
        let mut narrowed = Vec::new();
        for (name, meta, from) in partly {
            let put_at = Micros(meta.last_modified.timestamp_micros());
            let made = narrow(catalog, name.clone(), meta, from).await;
            narrowed.push(Narrowed { name, put_at, made });
        }
        narrowed
    }

    /// From now on `table` is shown, with what of the inbox goes beyond it.
    fn show(&mut self, catalog: &Catalog, table: &Arc<History>, narrowed: Vec<Narrowed>) {
        let (mut made, left_out) = self.table.take(table);
        if made.is_empty() && left_out.is_empty() && Arc::ptr_eq(&self.shown, table) {
            return;
        }
        let mut beyond = Beyond::default();
        for prepared in &mut made {
            beyond.extend(std::mem::take(&mut prepared.beyond));
        }
        beyond.sort();
        self.note_learnt(table, &made);
        let again = self.teach(&mut beyond);
        for (boot, at) in table.progress.boots.values().flatten() {
            let watermark = self.watermarks.entry(boot.clone()).or_default();
            *watermark = at.watermark.max(*watermark);
        }
        let (files, partly) = (made.len(), narrowed.len());
        let mut shelved = Vec::new();
        {
            let mut inner = catalog.write();
            let mut old = outdated(&inner, table);
            for prepared in made {
                inner.add(prepared);
            }
            for Narrowed { name, put_at, made } in narrowed {
                old.extend(inner.object(&name).map(|place| (place, Why::Moved)));
                match made {
                    Ok(prepared) => inner.add(prepared),
                    Err(trouble) => shelved.push((name, trouble, put_at)),
                }
            }
            debug!(version = table.version, files, partly, old = old.len(), "the table moved on");
            for (place, why) in old {
                inner.remove(place, why);
            }
            inner.absorb(beyond);
            for flow in again {
                inner.given_up(flow);
            }
            inner.follow(table);
            for file in left_out {
                inner.leave_out(&Source::File(file.clone()), file.last_at());
            }
            inner.make_room(catalog.room);
            inner.moves += 1;
        }
        self.taken.retain(|name| !table.progress.covers(name));
        self.shelf.retain(|name| !table.progress.covers(name));
        for (name, trouble, put_at) in shelved {
            self.taken.remove(&name);
            self.shelve(catalog, name, trouble, put_at);
        }
        let inner = catalog.read();
        let seen_before = |agent: &str, boot: &str, seq| inner.seen_before(agent, boot, seq);
        self.holes.follow(&table.progress, seen_before, |at| self.statuses.here(at));
        self.shown = Arc::clone(table);
    }

    /// All rows of the table are learnt; but for those in files that could not be read.
    fn note_learnt(&mut self, table: &History, made: &[Prepared]) {
        let learnt = Arc::make_mut(&mut self.learnt);
        if self.table.misses() {
            for own in made.iter().flat_map(|it| it.known.index.boots.iter().flatten()) {
                learnt.of_mut(&own.agent, &own.boot).add_all(&own.seqs);
            }
            return;
        }
        for (agent, boots) in &table.progress.boots {
            for (boot, at) in boots {
                learnt.of_mut(agent, boot).add(1, at.last);
            }
        }
    }
}

/// What is in the index and not to be seen any more.
fn outdated(inner: &Inner, table: &History) -> Vec<(u32, Why)> {
    let there: HashSet<&Path> = table.files.iter().map(|file| &file.meta.location).collect();
    let days: HashSet<i32> = table.files.iter().map(|file| file.day).collect();
    let objects = inner.objects().filter(|(name, _)| table.progress.covers(name));
    let files = inner.files().filter(|(path, _)| !there.contains(path));
    let files = files.filter_map(|(_, place)| {
        let Source::File(file) = &inner.sources.get(&place)?.source else { return None };
        // Files become others of the same day. A day that is not there any more is gone.
        let why = if days.contains(&file.day) { Why::Moved } else { Why::Gone };
        Some((place, why))
    });
    objects.map(|(_, place)| (place, Why::Moved)).chain(files).collect()
}
