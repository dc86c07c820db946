//! What the catalog holds of all sources together: which flows there are, newest first, and which
//! rows an id leads to. Sources come in any order and go, the oldest first, where there is no more
//! room. Plain data: who may look at it at the same time is the catalog's affair.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use flowtap_record::path::InboxName;
use flowtap_record::{Micros, Seq};
use object_store::path::Path;

use super::catalog::{FlowEntry, Marks, Order, Snapshot};
use super::counts::Counts;
use super::known::{Known, Prepared, Source};
use super::lookup::Lookup;
use super::loose::Chains;
use super::object::{Bare, Beyond, LooseRefused, Part, Transaction};
use crate::store::directory::Directory;
use crate::store::{History, HistoryFile};

/// Rows without ids, and broker transactions, that wait for the source that they are about.
const WAITING: usize = 50_000;

/// Refused messages without a transaction id that may still turn out to be part of a flow.
const REFUSALS: usize = 1000;

/// Rows of a boot in a file of the table.
struct Span {
    first: i64,
    last: i64,
    place: u32,
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) sources: HashMap<u32, Arc<Known>>,
    by_name: BTreeMap<InboxName, u32>,
    by_path: HashMap<Path, u32>,
    /// Rows in files, by agent and boot.
    spans: HashMap<Arc<str>, HashMap<Arc<str>, Vec<Span>>>,
    by_age: BTreeSet<(i64, u32)>,
    pub(super) lookup: Lookup,
    pub(super) flows: HashMap<u64, FlowEntry>,
    pub(super) by_start: BTreeSet<Order>,
    /// Messages without a transaction id.
    pub(super) chains: Chains,
    pub(super) counts: Counts,
    bare: VecDeque<Bare>,
    transactions: HashMap<u64, Taking>,
    loose_refused: VecDeque<Refusal>,
    /// Files of what is shown that have no place in the index: rows are found without it.
    pub(super) far: HashMap<Path, HistoryFile>,
    /// What tells where in them, the newest of each day first.
    pub(super) directories: Vec<Arc<Directory>>,
    /// Those of which a page is broken.
    pub(super) distrusted: HashSet<Path>,
    /// Files that turned out not to be readable, until the keeper notes it.
    pub(super) unreadable: Vec<(HistoryFile, String)>,
    /// Rows up to then may be gone from the store.
    gone: Option<Micros>,
    /// Objects of the inbox that there was no room for, with their last rows: nobody finds them until
    /// they are in the table.
    dropped: HashMap<InboxName, Micros>,
    /// Rows up to then may be missing from lists: there was no room for them.
    pub(super) full: Option<Micros>,
    /// How often sources took the place of others.
    pub(super) moves: u64,
    pub(super) snapshot: Snapshot,
    pub(super) marks: Marks,
}

/// A message without a transaction id that was refused.
struct Refusal {
    event: u64,
    as_cause: u64,
    /// Rows on both sides of its chain, when it was looked at last.
    neighbours: usize,
}

/// A broker transaction that is in several sources.
#[derive(Default)]
struct Taking {
    flows: Vec<u64>,
    aborted: bool,
}

/// Why a source is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Its rows are in other sources now.
    Moved,
    /// It is gone from the store.
    Gone,
    /// There is no room for it.
    Full,
}

impl Inner {
    /// Adds a source.
    pub(super) fn add(&mut self, prepared: Prepared) {
        let Prepared { place, known, run, .. } = prepared;
        self.marks.rows += known.source.rows();
        self.marks.index_bytes += known.index.bytes;
        self.lookup.add(run);
        for part in &known.index.parts {
            self.add_part(part);
        }
        for loose in &known.index.loose {
            self.chains.add(place, loose);
        }
        self.by_age.insert((known.last_at(), place));
        match &known.source {
            Source::Inbox(object) => drop(self.by_name.insert(object.name.clone(), place)),
            Source::File(file) => {
                self.by_path.insert(file.meta.location.clone(), place);
                for boot in known.index.boots.iter().flatten() {
                    let (first, last) = boot.span();
                    let boots = self.spans.entry(boot.agent.clone()).or_default();
                    let spans = boots.entry(boot.boot.clone()).or_default();
                    spans.push(Span { first, last, place });
                }
            }
        }
        self.sources.insert(place, Arc::new(known));
    }

    /// Takes what sources say beyond single flows; the rest of it is the keeper's.
    pub(super) fn absorb(&mut self, beyond: Beyond) {
        for (key, count) in beyond.map {
            self.counts.add(key.0, key.1, count);
        }
        self.bare.extend(beyond.bare);
        self.take_transactions(&beyond.transactions);
        self.loose_refused.extend(beyond.loose_refused.into_iter().map(|refused| {
            let LooseRefused { event, as_cause, .. } = refused;
            Refusal { event, as_cause, neighbours: 0 }
        }));
    }

    /// Drops the oldest sources until the rest fits.
    pub(super) fn make_room(&mut self, room: usize) {
        while self.marks.index_bytes > room
            && self.sources.len() > 1
            && let Some((_, oldest)) = self.by_age.first().copied()
        {
            self.remove(oldest, Why::Full);
        }
    }

    /// A source that there is no room for, with rows up to `last`.
    pub(super) fn leave_out(&mut self, source: &Source, last: Micros) {
        self.marks.skipped += 1;
        self.full = self.full.max(Some(last));
        match source {
            Source::Inbox(object) => drop(self.dropped.insert(object.name.clone(), last)),
            Source::File(file) => {
                self.far.insert(file.meta.location.clone(), file.clone());
            }
        }
    }

    /// Rows up to then may be missing, whatever is asked.
    pub(super) fn floor(&self) -> Option<Micros> {
        self.gone.max(self.dropped.values().max().copied())
    }

    /// What is left out follows what is shown. Files become others of the same day: where that is not
    /// there any more, they are gone.
    pub(super) fn follow(&mut self, table: &History) {
        let there: HashSet<&Path> = table.files.iter().map(|file| &file.meta.location).collect();
        let days: HashSet<i32> = table.files.iter().map(|file| file.day).collect();
        for file in self.far.values().filter(|file| !days.contains(&file.day)) {
            self.gone = self.gone.max(Some(file.last_at()));
        }
        self.far.retain(|path, _| there.contains(path));
        self.dropped.retain(|name, _| !table.progress.covers(name));
    }

    /// Forgets a source. What takes its place is there already, so that no flow is ever without rows.
    pub(super) fn remove(&mut self, place: u32, why: Why) {
        let Some(known) = self.sources.remove(&place) else { return };
        let last_at = known.last_at();
        self.by_age.remove(&(last_at, place));
        match why {
            Why::Moved => {}
            Why::Gone => self.gone = self.gone.max(Some(Micros(last_at))),
            Why::Full => self.leave_out(&known.source, Micros(last_at)),
        }
        self.forget_names(place, &known);
        self.marks.rows -= known.source.rows();
        self.marks.index_bytes -= known.index.bytes;
        self.lookup.remove(place);
        self.chains.remove(place, &known.index.loose);
        for part in &known.index.parts {
            let Some(flow) = self.flows.get_mut(&part.transaction) else { continue };
            flow.rows -= u64::from(part.rows);
            flow.messages -= u64::from(part.messages);
            if flow.rows == 0 {
                self.by_start.remove(&(flow.first, part.transaction));
                self.flows.remove(&part.transaction);
            }
        }
    }

    fn forget_names(&mut self, place: u32, known: &Known) {
        match &known.source {
            Source::Inbox(object) => {
                // The same object may be here anew, with less of it to be seen.
                if self.by_name.get(&object.name) == Some(&place) {
                    self.by_name.remove(&object.name);
                }
            }
            Source::File(file) => {
                self.by_path.remove(&file.meta.location);
                for boot in known.index.boots.iter().flatten() {
                    let Some(boots) = self.spans.get_mut(&boot.agent) else { continue };
                    if let Some(spans) = boots.get_mut(&boot.boot) {
                        spans.retain(|span| span.place != place);
                        if spans.is_empty() {
                            boots.remove(&boot.boot);
                        }
                    }
                    if boots.is_empty() {
                        self.spans.remove(&boot.agent);
                    }
                }
            }
        }
    }

    /// Inbox objects, each with its place.
    pub(super) fn objects(&self) -> impl Iterator<Item = (&InboxName, u32)> {
        self.by_name.iter().map(|(name, place)| (name, *place))
    }

    /// The place of an inbox object.
    pub(super) fn object(&self, name: &InboxName) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// Files of the table, each with its place.
    pub(super) fn files(&self) -> impl Iterator<Item = (&Path, u32)> {
        self.by_path.iter().map(|(path, place)| (path, *place))
    }

    fn add_part(&mut self, part: &Part) {
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
        flow.bare |= part.bare;
    }

    /// Those whose end is told by the same sources are settled by it, in whatever order they come;
    /// the others wait, but for those that were met before.
    fn take_transactions(&mut self, all: &[Transaction]) {
        let mut over: HashMap<u64, bool> = HashMap::new();
        for transaction in all {
            if let Transaction::Ended { name, aborted, .. } = *transaction {
                over.insert(name, aborted);
            }
        }
        for transaction in all {
            if let Transaction::Open { name, flow, again } = *transaction {
                match over.get(&name) {
                    Some(true) => self.refuse([flow]),
                    Some(false) => {}
                    None if again => {}
                    None => self.transaction_open(name, flow),
                }
            }
        }
        for transaction in all {
            if let Transaction::Ended { name, aborted, again: false } = *transaction {
                self.transaction_ended(name, aborted);
            }
        }
    }

    fn transaction_open(&mut self, name: u64, flow: u64) {
        if self.transactions.len() >= WAITING {
            // Not known any more: it may have been aborted.
            self.refuse([flow]);
            return;
        }
        let taking = self.transactions.entry(name).or_default();
        if !taking.flows.contains(&flow) {
            taking.flows.push(flow);
        }
        if taking.aborted {
            self.refuse([flow]);
        }
    }

    fn transaction_ended(&mut self, name: u64, aborted: bool) {
        let taking = self.transactions.remove(&name);
        if !aborted {
            return;
        }
        self.refuse(taking.map(|taking| taking.flows).unwrap_or_default());
        // Parts of it may come from a source that is read late.
        if self.transactions.len() < WAITING {
            self.transactions.insert(name, Taking { flows: Vec::new(), aborted });
        }
    }

    fn refuse(&mut self, flows: impl IntoIterator<Item = u64>) {
        for flow in flows {
            if let Some(flow) = self.flows.get_mut(&flow) {
                flow.refused = true;
            }
        }
    }

    /// A service published again what it had received: perhaps it gave it up.
    pub(super) fn given_up(&mut self, flow: u64) {
        self.refuse([flow]);
    }

    /// Finds the flows of rows that were concluded, or refused, without their id being said.
    pub(super) fn settle(&mut self) {
        let mut found: HashMap<u64, bool> = HashMap::new();
        for bare in std::mem::take(&mut self.bare) {
            match self.row_of(&bare.agent, &bare.boot, bare.seq) {
                // Else it is a message of no flow.
                Some((_, known, row)) => {
                    if let Some(flow) = known.flow_of(row) {
                        *found.entry(flow).or_default() |= bare.refused;
                    }
                }
                None if bare.again || self.bare.len() >= WAITING => {}
                None => self.bare.push_back(bare),
            }
        }
        for (flow, refused) in found {
            if let Some(flow) = self.flows.get_mut(&flow) {
                flow.bare = true;
                flow.refused |= refused;
            }
        }
        self.settle_loose();
        self.counts.bound();
    }

    /// Messages without a transaction id that were refused: the flows on both sides of their chain.
    fn settle_loose(&mut self) {
        let newest = self.loose_refused.len().saturating_sub(REFUSALS);
        let mut found = Vec::new();
        for refusal in &mut self.loose_refused {
            let above = self.chains.cause_of_chain(refusal.event);
            let hashes = above.into_iter().chain([refusal.as_cause]);
            let rows: Vec<_> = hashes.flat_map(|hash| self.lookup.rows_of(hash)).collect();
            if rows.len() != refusal.neighbours {
                refusal.neighbours = rows.len();
                found.extend(rows.into_iter().filter_map(|(place, row)| {
                    self.sources.get(&place).and_then(|known| known.flow_of(row))
                }));
            }
        }
        self.loose_refused.drain(..newest);
        self.refuse(found);
    }

    /// Where the row of a boot lies.
    pub(super) fn row_of(
        &self,
        agent: &str,
        boot: &str,
        seq: i64,
    ) -> Option<(u32, &Arc<Known>, u32)> {
        let at = |place: u32| {
            let known = self.sources.get(&place)?;
            Some((place, known, known.row_of(agent, boot, seq)?))
        };
        let object = self.object_of(agent, boot, seq).and_then(|(place, _)| at(place));
        object.or_else(|| {
            let spans = self.spans.get(agent)?.get(boot)?.iter();
            let mut spans = spans.filter(|span| (span.first..=span.last).contains(&seq));
            spans.find_map(|span| at(span.place))
        })
    }

    /// The inbox object whose name says that it holds a row.
    fn object_of(&self, agent: &str, boot: &str, seq: i64) -> Option<(u32, &Arc<Known>)> {
        let name = |first, last| InboxName {
            table: flowtap_record::path::HISTORY.to_owned(),
            agent: agent.to_owned(),
            boot: boot.to_owned(),
            first: Seq(first),
            last: Seq(last),
        };
        let (found, place) = self.by_name.range(name(0, 0)..=name(seq, i64::MAX)).next_back()?;
        let known = self.sources.get(place)?;
        (found.last.0 >= seq).then_some((*place, known))
    }

    /// All that an agent saw up to then lies before a row of it.
    pub(super) fn seen_before(&self, agent: &str, boot: &str, seq: i64) -> Micros {
        let object = self.object_of(agent, boot, seq - 1).map(|(_, known)| &known.source);
        if let Some(Source::Inbox(object)) = object {
            return object.watermark;
        }
        let before = self.row_of(agent, boot, seq - 1);
        before.map_or(Micros(0), |(_, known, row)| Micros(known.time_of(row)))
    }

    /// Chains of messages without a transaction id that began before `before`, newest first. One
    /// that a flow's message caused is part of that flow.
    pub(super) fn newest_chains(&self, before: Order) -> impl Iterator<Item = Order> + '_ {
        self.chains
            .newest(before)
            .filter(|(_, cause)| *cause == 0 || !self.lookup.has(*cause))
            .map(|(order, _)| order)
    }
}
