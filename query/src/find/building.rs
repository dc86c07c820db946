//! Makes the index of one source, row by row.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use flowtap_record::{Kind, Micros, Outcome};

use super::columns::Cells;
use super::ids;
use super::known::BootRows;
use super::learnt::{Learnt, Ranges};
use super::lookup::ENTRY_BYTES;
use super::loose::EVENT_BYTES;
use super::moved::Moved;
use super::object::{Bare, Beyond, Index, Loose, LooseRefused, NO_PART, Part, Transaction, hash};
use crate::flow::{Gap, World, sounds_dead};
use crate::store::InboxObject;

/// Columns that an index is made of.
pub(super) const COLUMNS: [&str; 36] = [
    "agent",
    "boot",
    "seq",
    "ref_boot",
    "ref_seq",
    "at",
    "kind",
    "outcome",
    "reason",
    "details",
    "system",
    "cluster",
    "vhost",
    "destination",
    "routing_key",
    "subscription",
    "service",
    "connection",
    "channel",
    "consumer",
    "message",
    "event_id",
    "event_type",
    "transaction_id",
    "causation_id",
    "command_id",
    "trace_id",
    "keys",
    "broker_txn",
    "partition",
    "log_offset",
    "redelivered",
    "attempt",
    "gap_from",
    "gap_to",
    "gap_count",
];

/// What a part takes, here and as a flow in the catalog, about.
const PART_BYTES: usize = size_of::<Part>() + 200;

/// A boot with rows in the source.
struct Boot {
    agent: Arc<str>,
    id: Arc<str>,
    learnt: Ranges,
    rows: Vec<(i64, u32)>,
}

/// What may be concluded by a row without ids is looked for when all rows are known.
struct Concluding {
    boot: u32,
    seq: i64,
    refused: bool,
    again: bool,
}

pub(super) struct Building {
    /// The one inbox object; none: a file of the table, whose rows name their boot.
    object: Option<InboxObject>,
    learnt: Arc<Learnt>,
    /// Rows of an inbox object up to here are learnt from the table.
    above: i64,
    next: u32,
    boots: Vec<Boot>,
    by_name: HashMap<Arc<str>, HashMap<Arc<str>, u32>>,
    last_boot: u32,
    parts: Vec<Part>,
    by_flow: HashMap<u64, u32>,
    part_of: Vec<u32>,
    /// Times of a file's rows.
    times: Vec<i64>,
    at: Option<(i64, i64)>,
    loose: Vec<Loose>,
    concluding: Vec<Concluding>,
    /// Flows that take part in broker transactions, and whether that was met before.
    taking_part: HashMap<(u64, u64), bool>,
    /// Broker transactions that ended, whether they were aborted, and whether that was met before.
    ended: HashMap<u64, (bool, bool)>,
    pairs: Vec<(u64, u32)>,
    moved: Moved,
    beyond: Beyond,
}

/// An index, hashes with the rows that carry them, and what goes beyond single flows.
pub(super) type Built = (Index, Vec<(u64, u32)>, Beyond);

impl Building {
    /// Of an inbox object. What `learnt` has, and rows up to `above`, are not learnt.
    pub(super) fn of_object(object: InboxObject, learnt: Ranges, above: i64) -> Self {
        let (agent, id) = (object.name.agent.as_str().into(), object.name.boot.as_str().into());
        let mut building = Self::new(Some(object), Arc::default(), above);
        building.boots.push(Boot { agent, id, learnt, rows: Vec::new() });
        building
    }

    /// Of a file of the table. What `learnt` has is not learnt.
    pub(super) fn of_file(learnt: Arc<Learnt>) -> Self {
        Self::new(None, learnt, 0)
    }

    fn new(object: Option<InboxObject>, learnt: Arc<Learnt>, above: i64) -> Self {
        Self {
            object,
            learnt,
            above,
            next: 0,
            boots: Vec::new(),
            by_name: HashMap::new(),
            last_boot: 0,
            parts: Vec::new(),
            by_flow: HashMap::new(),
            part_of: Vec::new(),
            times: Vec::new(),
            at: None,
            loose: Vec::new(),
            concluding: Vec::new(),
            taking_part: HashMap::new(),
            ended: HashMap::new(),
            pairs: Vec::new(),
            moved: Moved::default(),
            beyond: Beyond::default(),
        }
    }

    /// Takes all rows of a batch.
    pub(super) fn batch(&mut self, batch: &RecordBatch) {
        let cells = Cells::new(batch);
        for row in 0..batch.num_rows() {
            self.row(&cells, row);
        }
    }

    fn boot_index(&mut self, agent: &str, boot: &str) -> u32 {
        if let Some(last) = self.boots.get(self.last_boot as usize)
            && *last.id == *boot
            && *last.agent == *agent
        {
            return self.last_boot;
        }
        let known = self.by_name.get(agent).and_then(|boots| boots.get(boot)).copied();
        let index = known.unwrap_or_else(|| {
            let index = self.boots.len() as u32;
            let learnt = self.learnt.of(agent, boot).cloned().unwrap_or_default();
            let (agent, id): (Arc<str>, Arc<str>) = (agent.into(), boot.into());
            self.by_name.entry(agent.clone()).or_default().insert(id.clone(), index);
            self.boots.push(Boot { agent, id, learnt, rows: Vec::new() });
            index
        });
        self.last_boot = index;
        index
    }

    /// The boot and number of a row that is to be seen. In an inbox object what lies outside the
    /// range of the name is nobody's row.
    fn identify(&mut self, cells: &Cells<'_>, row: usize) -> Option<(u32, i64)> {
        let seq = cells.long("seq", row)?;
        match &self.object {
            Some(object) => {
                (object.visible.0..=object.visible.1).contains(&seq).then_some((0, seq))
            }
            None => {
                Some((self.boot_index(cells.text("agent", row)?, cells.text("boot", row)?), seq))
            }
        }
    }

    fn row(&mut self, cells: &Cells<'_>, row: usize) {
        let number = self.next;
        self.next += 1;
        self.part_of.push(NO_PART);
        let at = cells.time("at", row);
        if self.object.is_none() {
            self.times.push(at.unwrap_or_default().0);
        }
        let (Some(kind), Some(at)) = (cells.kind(row), at) else { return };
        let Some((boot, seq)) = self.identify(cells, row) else { return };
        let own = &mut self.boots[boot as usize];
        own.rows.push((seq, number));
        let fresh = seq > self.above && !own.learnt.has(seq);
        let (first, last) = self.at.unwrap_or((at.0, at.0));
        self.at = Some((first.min(at.0), last.max(at.0)));
        match kind {
            Kind::Gap | Kind::Topology => return self.whole(cells, row, boot, fresh),
            Kind::Session => {
                // Most sessions are connections that open and close: their details tell.
                let details = cells.text("details", row).unwrap_or_default();
                if cells.text("consumer", row).is_some()
                    || details.contains(r#""what":"connection""#)
                        && cells.outcome(row) == Some(Outcome::Closed)
                {
                    self.whole(cells, row, boot, fresh);
                }
                return;
            }
            Kind::Position => {
                if fresh {
                    let agent = &self.boots[boot as usize].agent;
                    Moved::position(cells, row, at, agent, &mut self.beyond);
                }
                return;
            }
            _ => {}
        }
        self.message(cells, row, &Place { boot, seq, number, kind, at, fresh });
    }

    /// A row that is kept whole.
    fn whole(&mut self, cells: &Cells<'_>, row: usize, boot: u32, fresh: bool) {
        if !fresh {
            return;
        }
        let Boot { agent, id: boot, .. } = &self.boots[boot as usize];
        let Some(row) = cells.row(agent, boot, row) else { return };
        match row.kind {
            Kind::Gap => self.beyond.gaps.push(Gap {
                from: row.gap_from,
                // With a beginning and no end it goes on; with neither it lies before its row.
                to: row.gap_to.or_else(|| row.gap_from.is_none().then_some(row.at)),
                agent: row.agent,
                boot: row.id.boot,
                connection: row.connection,
                service: row.service,
                count: row.gap_count,
                reason: row.reason,
            }),
            _ if World::wants(&row) => self.beyond.world.push(row),
            _ => {}
        }
    }

    /// A row about a message.
    fn message(&mut self, cells: &Cells<'_>, row: usize, place: &Place) {
        let &Place { kind, number, at, fresh, .. } = place;
        let outcome = cells.outcome(row);
        let flow = cells.text("transaction_id", row).map(hash::transaction);
        self.broker_transaction(cells, row, place, outcome, flow);
        let boot = &self.boots[place.boot as usize].id;
        let add = |hash| self.pairs.push((hash, number));
        let bears_none = ids::of_row(cells, row, kind, boot, add);
        // Handed back too often, a message is given up: only the queue's arguments tell when.
        let refused = matches!(
            outcome,
            Some(
                Outcome::Rejected
                    | Outcome::Refused
                    | Outcome::Unroutable
                    | Outcome::Aborted
                    | Outcome::Requeued
            )
        );
        let refused = refused || kind == Kind::Publish && is_given_up(cells, row);
        if bears_none {
            self.conclude(cells, row, place, refused);
        }
        let moves = matches!(kind, Kind::Publish | Kind::Deliver);
        if let Some(flow) = flow {
            self.part(flow, place, refused);
        } else if let Some(event) = cells.text("event_id", row) {
            let (event, as_cause) = (hash::event(event), hash::cause(event));
            if refused && fresh {
                self.beyond.loose_refused.push(LooseRefused { at: at.0, event, as_cause });
            }
            if moves {
                let cause = cells.text("causation_id", row).map_or(0, hash::event);
                let id = hash::concluded(&self.boots[place.boot as usize].id, place.seq);
                self.loose.push(Loose { event, cause, at: at.0, id, row: number });
            }
        }
        if moves && fresh {
            let Boot { agent, id: boot, .. } = &self.boots[place.boot as usize];
            let who = (place.boot, &**agent, &**boot);
            self.moved.row(cells, row, kind, at, who, &mut self.beyond);
        }
    }

    fn broker_transaction(
        &mut self,
        cells: &Cells<'_>,
        row: usize,
        place: &Place,
        outcome: Option<Outcome>,
        flow: Option<u64>,
    ) {
        let Some(name) = cells.text("broker_txn", row) else { return };
        let boot = &self.boots[place.boot as usize].id;
        let name = hash::broker_transaction(boot, name);
        match (place.kind, flow) {
            // Without an outcome it only says that the broker's word did not come.
            (Kind::Transaction, _) if outcome.is_none() => {}
            (Kind::Transaction, _) => {
                let aborted = outcome == Some(Outcome::Aborted);
                self.ended.insert(name, (aborted, !place.fresh));
            }
            (_, Some(flow)) => {
                let again = self.taking_part.entry((name, flow)).or_insert(true);
                *again &= !place.fresh;
            }
            _ => {}
        }
    }

    /// A row without ids concludes another: of which flow, that one says.
    fn conclude(&mut self, cells: &Cells<'_>, row: usize, place: &Place, refused: bool) {
        let Some(seq) = cells.long("ref_seq", row) else { return };
        let again = !place.fresh;
        let Boot { agent, id: boot, .. } = &self.boots[place.boot as usize];
        match cells.text("ref_boot", row) {
            Some(other) if *other != **boot => {
                let (agent, boot) = (agent.clone(), other.into());
                self.beyond.bare.push(Bare { agent, boot, seq, refused, again });
            }
            _ => self.concluding.push(Concluding { boot: place.boot, seq, refused, again }),
        }
    }

    fn part(&mut self, transaction: u64, place: &Place, refused: bool) {
        let at = place.at.0;
        let next = self.parts.len() as u32;
        let index = *self.by_flow.entry(transaction).or_insert(next);
        if index == next {
            self.parts.push(Part {
                transaction,
                first: at,
                last: at,
                rows: 0,
                messages: 0,
                refused: false,
                bare: false,
            });
        }
        self.part_of[place.number as usize] = index;
        let part = &mut self.parts[index as usize];
        part.first = part.first.min(at);
        part.last = part.last.max(at);
        part.rows += 1;
        part.messages += u32::from(place.kind == Kind::Publish);
        part.refused |= refused;
    }

    /// All rows are there.
    pub(super) fn finish(mut self) -> Built {
        self.moved.finish(&mut self.beyond);
        self.settle_transactions();
        let boots: Box<[BootRows]> =
            std::mem::take(&mut self.boots).into_iter().map(Boot::sorted).collect();
        self.settle_conclusions(&boots);
        // Of an inbox object that is whole the number says where a row lies.
        let straight = self.object.as_ref().is_some_and(|object| {
            let name = &object.name;
            i64::from(self.next) == name.last.0 - name.first.0 + 1
                && boots.iter().all(|it| {
                    let from = |(seq, row): (&i64, &u32)| seq - i64::from(*row) == name.first.0;
                    it.seqs.iter().zip(&it.rows).all(from)
                })
        });
        let first = self.at.map_or(0, |(first, _)| first);
        let millis = |at: &i64| u32::try_from((at - first).max(0) / 1000).unwrap_or(u32::MAX);
        let index = Index {
            parts: self.parts.into(),
            part_of: self.part_of.into(),
            loose: self.loose.into(),
            boots: (!straight).then_some(boots),
            times: self.times.iter().map(millis).collect(),
            at: self.at,
            bytes: 0,
        };
        let bytes = index.own_bytes() + self.pairs.len() * ENTRY_BYTES;
        (Index { bytes, ..index }, self.pairs, self.beyond)
    }

    /// Tells the flows whose broker transactions were aborted; of those without an end here, and
    /// ends without a beginning, the catalog knows more.
    fn settle_transactions(&mut self) {
        for (&(name, flow), &again) in &self.taking_part {
            match self.ended.get(&name) {
                Some(&(aborted, _)) => {
                    if let Some(&part) = self.by_flow.get(&flow) {
                        self.parts[part as usize].refused |= aborted;
                    }
                }
                None => {
                    self.beyond.transactions.push(Transaction::Open { name, flow, again });
                }
            }
        }
        // Told even where all of it lies here: it may have begun in an object before.
        for (&name, &(aborted, again)) in &self.ended {
            self.beyond.transactions.push(Transaction::Ended { name, aborted, again });
        }
    }

    /// Tells the flows of rows that rows without ids conclude; of those that are not here the
    /// catalog knows more.
    fn settle_conclusions(&mut self, boots: &[BootRows]) {
        for &Concluding { boot, seq, refused, again } in &self.concluding {
            let own = &boots[boot as usize];
            let Some(row) = own.row(seq) else {
                let (agent, boot) = (own.agent.clone(), own.boot.clone());
                self.beyond.bare.push(Bare { agent, boot, seq, refused, again });
                continue;
            };
            // Else it is a message of no flow.
            if let Some(part) = self.parts.get_mut(self.part_of[row as usize] as usize) {
                part.refused |= refused;
                part.bare = true;
            }
        }
    }
}

/// Where a row lies, and what it is.
struct Place {
    boot: u32,
    seq: i64,
    number: u32,
    kind: Kind,
    at: Micros,
    /// It was not learnt yet.
    fresh: bool,
}

impl Boot {
    fn sorted(mut self) -> BootRows {
        self.rows.sort_unstable();
        let (seqs, rows): (Vec<i64>, Vec<u32>) = self.rows.into_iter().unzip();
        BootRows { agent: self.agent, boot: self.id, seqs: seqs.into(), rows: rows.into() }
    }
}

impl Index {
    /// Bytes that it takes, with what the catalog keeps of it but for hashes.
    fn own_bytes(&self) -> usize {
        let rows = |it: &BootRows| it.seqs.len() * size_of::<(i64, u32)>() + 100;
        self.parts.len() * PART_BYTES
            + self.loose.len() * EVENT_BYTES
            + (self.part_of.len() + self.times.len()) * size_of::<u32>()
            + self.boots.iter().flatten().map(rows).sum::<usize>()
    }
}

/// Whether a publish may be of a message that its service gave up.
fn is_given_up(cells: &Cells<'_>, row: usize) -> bool {
    let text = |name: &str| cells.text(name, row).unwrap_or_default();
    let to = text("destination");
    // The default exchange leads to the queue that its key names.
    sounds_dead(if to.is_empty() { text("routing_key") } else { to })
}
