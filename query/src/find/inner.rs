//! What the catalog holds of all objects together: which flows there are, newest first, and which
//! rows an id leads to. Objects come in any order and go, the oldest first, where there is no more
//! room. Plain data: who may look at it at the same time is the catalog's affair.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use flowtap_record::path::InboxName;
use flowtap_record::{Micros, Seq};

use super::catalog::{FlowEntry, Marks, Order, Snapshot};
use super::counts::Counts;
use super::lookup::Lookup;
use super::loose::Chains;
use super::object::{Bare, Beyond, Index, Part, Transaction};
use crate::store::InboxObject;

/// Rows without ids, and broker transactions, that wait for the object that they are about.
const WAITING: usize = 50_000;

/// Refused messages without a transaction id that may still turn out to be part of a flow.
const REFUSALS: usize = 1000;

/// An object and its index.
pub(super) struct Known {
    pub(super) object: InboxObject,
    pub(super) index: Index,
}

impl Known {
    /// Its last row's time, as far as is known.
    fn last_at(&self) -> i64 {
        self.object.at.map_or(self.object.uploaded_at.0, |(_, last)| last.0)
    }
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) objects: HashMap<u32, Arc<Known>>,
    by_name: BTreeMap<InboxName, u32>,
    by_age: BTreeSet<(i64, u32)>,
    next_place: u32,
    pub(super) lookup: Lookup,
    pub(super) flows: HashMap<u64, FlowEntry>,
    pub(super) by_start: BTreeSet<Order>,
    /// Messages without a transaction id.
    pub(super) chains: Chains,
    pub(super) counts: Counts,
    bare: VecDeque<(String, Bare)>,
    transactions: HashMap<u64, Taking>,
    loose_refused: VecDeque<Refusal>,
    /// Objects whose last row is not after this are not searched: there was no room.
    pub(super) floor: Option<Micros>,
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

/// A broker transaction that is in several objects.
#[derive(Default)]
struct Taking {
    flows: Vec<u64>,
    aborted: bool,
}

impl Inner {
    /// Adds an object. What it says beyond single flows is the keeper's.
    pub(super) fn add(&mut self, known: Known, beyond: &mut Beyond, room: usize) {
        let place = self.next_place;
        self.next_place += 1;
        self.marks.rows += known.object.rows;
        self.marks.index_bytes += known.index.bytes();
        let pairs = std::mem::take(&mut beyond.pairs);
        self.lookup.add(place, &pairs);
        for part in &known.index.parts {
            self.add_part(part);
        }
        for loose in &known.index.loose {
            self.chains.add(place, loose);
        }
        for (key, count) in std::mem::take(&mut beyond.map) {
            self.counts.add(key.0, key.1, count);
        }
        let agent = known.object.name.agent.clone();
        self.by_name.insert(known.object.name.clone(), place);
        self.by_age.insert((known.last_at(), place));
        self.objects.insert(place, Arc::new(known));
        self.bare
            .extend(std::mem::take(&mut beyond.bare).into_iter().map(|it| (agent.clone(), it)));
        for transaction in std::mem::take(&mut beyond.transactions) {
            self.transaction(transaction);
        }
        let refused = std::mem::take(&mut beyond.loose_refused).into_iter();
        self.loose_refused.extend(refused.map(|(event, as_cause)| Refusal {
            event,
            as_cause,
            neighbours: 0,
        }));
        while self.marks.index_bytes > room
            && self.objects.len() > 1
            && let Some((_, oldest)) = self.by_age.first().copied()
        {
            self.remove(oldest);
            self.marks.skipped += 1;
        }
    }

    /// Forgets an object: there is no room for it, or it is gone from the store.
    fn remove(&mut self, place: u32) {
        let Some(known) = self.objects.remove(&place) else { return };
        let last_at = known.last_at();
        self.by_age.remove(&(last_at, place));
        self.by_name.remove(&known.object.name);
        self.floor = self.floor.max(Some(Micros(last_at)));
        self.marks.rows -= known.object.rows;
        self.marks.index_bytes -= known.index.bytes();
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

    /// Forgets what is not in the store any more.
    pub(super) fn retain(&mut self, is_there: impl Fn(&InboxName) -> bool) -> usize {
        let gone: Vec<u32> =
            self.by_name.iter().filter(|(name, _)| !is_there(name)).map(|(_, it)| *it).collect();
        for place in &gone {
            self.remove(*place);
        }
        gone.len()
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

    fn transaction(&mut self, transaction: Transaction) {
        match transaction {
            Transaction::Open { name, flow } => {
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
            Transaction::Ended { name, aborted } => {
                let taking = self.transactions.remove(&name);
                if !aborted {
                    return;
                }
                self.refuse(taking.map(|taking| taking.flows).unwrap_or_default());
                // Parts of it may come from an object that is read late.
                if self.transactions.len() < WAITING {
                    self.transactions.insert(name, Taking { flows: Vec::new(), aborted });
                }
            }
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
        let mut by_place: HashMap<u32, HashMap<u32, bool>> = HashMap::new();
        let mut gaps: HashMap<u32, bool> = HashMap::new();
        let waiting = std::mem::take(&mut self.bare);
        for (agent, bare) in waiting {
            let Some((place, known)) = self.object_of(&agent, &bare.boot, bare.seq) else {
                if self.bare.len() < WAITING {
                    self.bare.push_back((agent, bare));
                }
                continue;
            };
            match number_of(&known.object, bare.seq) {
                Some(number) => {
                    *by_place.entry(place).or_default().entry(number).or_default() |= bare.refused;
                }
                // Rows are missing in it: any of its flows may be meant.
                None => *gaps.entry(place).or_default() |= bare.refused,
            }
        }
        let mut found: HashMap<u64, bool> = HashMap::new();
        for (place, numbers) in by_place {
            let Some(known) = self.objects.get(&place) else { continue };
            for part in &known.index.parts {
                for (at, row) in self.lookup.rows_of(part.transaction) {
                    if let Some(refused) = numbers.get(&row).filter(|_| at == place) {
                        *found.entry(part.transaction).or_default() |= refused;
                    }
                }
            }
        }
        for (place, refused) in gaps {
            let parts = self.objects.get(&place).map(|known| known.index.parts.iter());
            for part in parts.into_iter().flatten() {
                *found.entry(part.transaction).or_default() |= refused;
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
        let mut places: HashMap<u32, Vec<u32>> = HashMap::new();
        for refusal in &mut self.loose_refused {
            let above = self.chains.cause_of_chain(refusal.event);
            let hashes = above.into_iter().chain([refusal.as_cause]);
            let rows: Vec<_> = hashes.flat_map(|hash| self.lookup.rows_of(hash)).collect();
            if rows.len() != refusal.neighbours {
                refusal.neighbours = rows.len();
                for (place, row) in rows {
                    places.entry(place).or_default().push(row);
                }
            }
        }
        self.loose_refused.drain(..newest);
        let mut found = Vec::new();
        for (place, rows) in places {
            let Some(known) = self.objects.get(&place) else { continue };
            for part in &known.index.parts {
                let mut of_flow = self.lookup.rows_of(part.transaction);
                if of_flow.any(|(at, row)| at == place && rows.contains(&row)) {
                    found.push(part.transaction);
                }
            }
        }
        self.refuse(found);
    }

    /// The object that holds a row.
    pub(super) fn object_of(
        &self,
        agent: &str,
        boot: &str,
        seq: i64,
    ) -> Option<(u32, &Arc<Known>)> {
        let name = |first, last| InboxName {
            table: flowtap_record::path::HISTORY.to_owned(),
            agent: agent.to_owned(),
            boot: boot.to_owned(),
            first: Seq(first),
            last: Seq(last),
        };
        let (found, place) = self.by_name.range(name(0, 0)..=name(seq, i64::MAX)).next_back()?;
        let known = self.objects.get(place)?;
        (found.last.0 >= seq).then_some((*place, known))
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

/// Which row of an object has this number, where none is missing.
fn number_of(object: &InboxObject, seq: i64) -> Option<u32> {
    let name = &object.name;
    let whole = object.rows as i64 == name.last.0 - name.first.0 + 1;
    whole.then(|| u32::try_from(seq - name.first.0).ok()).flatten()
}
