//! The index of one inbox object: hashes of ids with the rows that carry them, the parts of flows
//! that lie in it, and what it says beyond single flows.

use std::collections::{HashMap, HashSet};

use flowtap_record::path::InboxName;
use flowtap_record::{Kind, Micros, Outcome};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::columns::Cells;
use super::lookup::ENTRY_BYTES;
use super::loose::EVENT_BYTES;
use super::read::{Opened, Wanted};
use crate::flow::{Broker, Gap, Row, Slot, World, sounds_dead};
use crate::progress::{Mark, Progress};
use crate::store::InboxObject;

/// What a hash is of: equal texts of two kinds do not meet.
pub mod hash {
    use super::xxh3_64_with_seed;

    /// A transaction id.
    pub fn transaction(id: &str) -> u64 {
        of(1, id)
    }

    /// An event id.
    pub fn event(id: &str) -> u64 {
        of(2, id)
    }

    /// A causation id.
    pub fn cause(id: &str) -> u64 {
        of(3, id)
    }

    /// A business key's value.
    pub fn key(value: &str) -> u64 {
        of(5, value)
    }

    /// A trace id.
    pub fn trace(id: &str) -> u64 {
        of(6, id)
    }

    /// A broker transaction of a boot.
    pub fn broker_transaction(boot: &str, name: &str) -> u64 {
        of(7, &format!("{boot}/{name}"))
    }

    /// The row that another concludes.
    pub fn concluded(boot: &str, seq: i64) -> u64 {
        of(8, &format!("{boot}/{seq}"))
    }

    /// A fingerprint.
    pub fn message(id: &str) -> u64 {
        of(4, id)
    }

    fn of(domain: u64, text: &str) -> u64 {
        xxh3_64_with_seed(text.as_bytes(), domain)
    }
}

const COLUMNS: [&str; 27] = [
    "seq",
    "ref_boot",
    "ref_seq",
    "at",
    "kind",
    "outcome",
    "details",
    "system",
    "cluster",
    "vhost",
    "destination",
    "routing_key",
    "subscription",
    "service",
    "message",
    "event_id",
    "event_type",
    "transaction_id",
    "causation_id",
    "trace_id",
    "keys",
    "broker_txn",
    "consumer",
    "partition",
    "log_offset",
    "redelivered",
    "attempt",
];

/// What a part takes, here and as a flow in the catalog, about.
const PART_BYTES: usize = size_of::<Part>() + 200;
/// Keys of more kinds than this an object are ids, and tell nothing about ways.
const MAX_ROUTES: usize = 1000;

/// A part of a flow in one object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) transaction: u64,
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) rows: u32,
    pub(super) messages: u32,
    /// Somebody may have said no in it.
    pub(super) refused: bool,
    /// Rows without any id conclude some of its rows.
    pub(super) bare: bool,
}

/// A message without a transaction id, by its event id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loose {
    pub(super) event: u64,
    /// 0: none.
    pub(super) cause: u64,
    pub(super) at: i64,
    pub(super) row: u32,
}

/// Something that tells what usually follows what.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Delivered { event: u64, transaction: Option<u64>, service: String, event_type: Option<String> },
    Published { event: Option<u64>, cause: Option<u64>, transaction: Option<u64>, service: String },
}

/// A row that bears no id and concludes a row of another object.
#[derive(Clone, Debug)]
pub(super) struct Bare {
    pub(super) boot: String,
    pub(super) seq: i64,
    /// It says no.
    pub(super) refused: bool,
}

/// A broker transaction, as far as an object tells.
#[derive(Clone, Copy, Debug)]
pub(super) enum Transaction {
    /// A flow takes part in one whose end is not in this object.
    Open { name: u64, flow: u64 },
    /// One ended that began in another object.
    Ended { name: u64, aborted: bool },
}

/// An edge of the map in one minute.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MapKey {
    /// Publish, else deliver.
    pub publish: bool,
    /// Where it happened.
    pub broker: Broker,
    /// The service.
    pub service: String,
    /// Exchange or topic.
    pub destination: String,
    /// Queue or group, of a delivery.
    pub subscription: Option<String>,
}

/// The index of one object: what stays in memory, but for hashes of ids, which go to the lookup of
/// all objects.
pub(super) struct Index {
    pub(super) parts: Box<[Part]>,
    pub(super) loose: Box<[Loose]>,
    bytes: usize,
}

/// What an object says beyond single flows: folded into the catalog and dropped.
#[derive(Default)]
pub(super) struct Beyond {
    pub(super) world: Vec<Row>,
    pub(super) gaps: Vec<Gap>,
    pub(super) routes: HashMap<(Broker, String, String), i64>,
    /// Queues that messages came back to after they had been given up there.
    pub(super) returns: HashSet<(Broker, String)>,
    /// One delivery of each queue, and of each group at each topic.
    pub(super) deliveries: Vec<Row>,
    /// How far groups came.
    pub(super) progress: HashMap<Slot, Progress>,
    pub(super) map: HashMap<(MapKey, i64), u64>,
    pub(super) steps: Vec<Step>,
    /// Hashes of ids, each with the number of a row that carries it.
    pub(super) pairs: Vec<(u64, u32)>,
    pub(super) bare: Vec<Bare>,
    pub(super) transactions: Vec<Transaction>,
    /// Messages without a transaction id that somebody said no to: by event id, as event and cause.
    pub(super) loose_refused: Vec<(u64, u64)>,
}

impl Index {
    pub(super) fn build(opened: &Opened, object: &InboxObject) -> Result<(Self, Beyond), String> {
        let mut building = Building::default();
        let reader = opened.builder(Some(&COLUMNS)).build().map_err(|error| error.to_string())?;
        for batch in reader {
            let batch = batch.map_err(|error| error.to_string())?;
            let cells = Cells::new(&batch);
            for row in 0..batch.num_rows() {
                building.row(&cells, row, object);
            }
        }
        building.settle_transactions();
        // The few rows that are kept whole.
        let mut beyond = building.beyond;
        let whole = opened.rows(object, &building.whole, Wanted::Rules)?;
        for row in whole {
            match row.kind {
                Kind::Gap => beyond.gaps.push(Gap {
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
                Kind::Deliver => beyond.deliveries.push(row),
                _ if World::wants(&row) => beyond.world.push(row),
                _ => {}
            }
        }
        let parts: Box<[Part]> = building.parts.into_values().collect();
        let loose: Box<[Loose]> = building.loose.into();
        let bytes =
            beyond.pairs.len() * ENTRY_BYTES + parts.len() * PART_BYTES + loose.len() * EVENT_BYTES;
        Ok((Self { parts, loose, bytes }, beyond))
    }

    /// Bytes that it takes, with what the catalog keeps of it.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[derive(Default)]
struct Building {
    next: u32,
    parts: HashMap<u64, Part>,
    loose: Vec<Loose>,
    /// What may be concluded by a row without ids, with its flow.
    concludable: HashMap<i64, Option<u64>>,
    /// Flows that take part in broker transactions.
    taking_part: HashSet<(u64, u64)>,
    /// Broker transactions that ended, and whether they were aborted.
    ended: HashMap<u64, bool>,
    whole: Vec<u32>,
    queues: HashSet<(Option<String>, String)>,
    beyond: Beyond,
}

impl Building {
    fn row(&mut self, cells: &Cells<'_>, row: usize, object: &InboxObject) {
        let InboxName { agent, boot, .. } = &object.name;
        let number = self.next;
        self.next += 1;
        let Some(seq) = cells.long("seq", row) else { return };
        // What lies outside the range of the name is nobody's row.
        if !(object.visible.0..=object.visible.1).contains(&seq) {
            return;
        }
        let (Some(kind), Some(at)) = (cells.kind(row), cells.time("at", row)) else { return };
        match kind {
            Kind::Gap | Kind::Topology => return self.whole.push(number),
            Kind::Session => {
                // Most sessions are connections that open and close: their details tell.
                let details = cells.text("details", row).unwrap_or_default();
                if cells.text("consumer", row).is_some()
                    || details.contains(r#""what":"connection""#)
                        && cells.outcome(row) == Some(Outcome::Closed)
                {
                    self.whole.push(number);
                }
                return;
            }
            Kind::Position => return self.position(cells, row, at, agent),
            _ => {}
        }
        let outcome = cells.outcome(row);
        let transaction = cells.text("transaction_id", row).map(hash::transaction);
        if let Some(name) = cells.text("broker_txn", row) {
            let name = hash::broker_transaction(boot, name);
            match (kind, transaction) {
                (Kind::Transaction, _) => {
                    self.beyond.pairs.push((name, number));
                    // Without an outcome it only says that the broker's word did not come.
                    if outcome.is_some() {
                        self.ended.insert(name, outcome == Some(Outcome::Aborted));
                    }
                }
                (_, Some(flow)) => drop(self.taking_part.insert((name, flow))),
                _ => {}
            }
        }
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
        if self.ids(cells, row, number, boot) {
            self.conclude(cells, row, boot, refused);
        }
        if matches!(kind, Kind::Publish | Kind::Deliver) {
            self.concludable.insert(seq, transaction);
        }
        if let Some(flow) = transaction {
            self.part(flow, kind, at, refused);
        } else if let Some(event) = cells.text("event_id", row) {
            if refused {
                self.beyond.loose_refused.push((hash::event(event), hash::cause(event)));
            }
            if matches!(kind, Kind::Publish | Kind::Deliver) {
                let cause = cells.text("causation_id", row).map_or(0, hash::event);
                let event = hash::event(event);
                self.loose.push(Loose { event, cause, at: at.0, row: number });
            }
        }
        if matches!(kind, Kind::Publish | Kind::Deliver) {
            self.moved(cells, row, kind, at, number);
        }
    }

    /// Notes the ids of a row. True: it bears none, and concludes another.
    fn ids(&mut self, cells: &Cells<'_>, row: usize, number: u32, boot: &str) -> bool {
        let mut add = |hash: u64| self.beyond.pairs.push((hash, number));
        let mut alone = true;
        if let Some(id) = cells.text("transaction_id", row) {
            add(hash::transaction(id));
            alone = false;
        }
        if let Some(id) = cells.text("event_id", row) {
            add(hash::event(id));
            alone = false;
        }
        if let Some(id) = cells.text("causation_id", row) {
            add(hash::cause(id));
        }
        if let Some(id) = cells.text("trace_id", row) {
            add(hash::trace(id));
        }
        for (_, value) in cells.fields("keys", row) {
            add(hash::key(value));
        }
        if !alone {
            return false;
        }
        if let Some(id) = cells.text("message", row) {
            add(hash::message(id));
        }
        // What a row concludes says what it is about, where it says nothing itself.
        let Some(seq) = cells.long("ref_seq", row) else { return false };
        add(hash::concluded(cells.text("ref_boot", row).unwrap_or(boot), seq));
        true
    }

    /// A row without ids concludes another: of which flow, that one says.
    fn conclude(&mut self, cells: &Cells<'_>, row: usize, boot: &str, refused: bool) {
        let Some(seq) = cells.long("ref_seq", row) else { return };
        let of = cells.text("ref_boot", row).unwrap_or(boot);
        match self.concludable.get(&seq).filter(|_| of == boot) {
            Some(Some(flow)) => {
                if let Some(part) = self.parts.get_mut(flow) {
                    part.refused |= refused;
                    part.bare = true;
                }
            }
            // A message of no flow.
            Some(None) => {}
            None => self.beyond.bare.push(Bare { boot: of.to_owned(), seq, refused }),
        }
    }

    /// Tells the flows whose broker transactions were aborted; of those without an end here, and
    /// ends without a beginning, the catalog knows more.
    fn settle_transactions(&mut self) {
        for &(name, flow) in &self.taking_part {
            match self.ended.get(&name) {
                Some(&aborted) => {
                    if let Some(part) = self.parts.get_mut(&flow) {
                        part.refused |= aborted;
                    }
                }
                None => self.beyond.transactions.push(Transaction::Open { name, flow }),
            }
        }
        // Told even where all of it lies here: it may have begun in an object before.
        for (&name, &aborted) in &self.ended {
            self.beyond.transactions.push(Transaction::Ended { name, aborted });
        }
    }

    fn part(&mut self, transaction: u64, kind: Kind, at: Micros, refused: bool) {
        let part = self.parts.entry(transaction).or_insert(Part {
            transaction,
            first: at.0,
            last: at.0,
            rows: 0,
            messages: 0,
            refused: false,
            bare: false,
        });
        part.first = part.first.min(at.0);
        part.last = part.last.max(at.0);
        part.rows += 1;
        part.messages += u32::from(kind == Kind::Publish);
        part.refused |= refused;
    }

    /// A group's position.
    fn position(&mut self, cells: &Cells<'_>, row: usize, at: Micros, agent: &str) {
        let owned = |name: &str| cells.text(name, row).map(str::to_owned);
        let (Some(group), Some(topic), Some(partition), Some(offset)) = (
            owned("subscription"),
            owned("destination"),
            cells.int("partition", row),
            cells.long("log_offset", row),
        ) else {
            return;
        };
        let slot = Slot { broker: broker(cells, row), group, topic, partition };
        let progress = self.beyond.progress.entry(slot).or_default();
        progress.learn(Mark { at, offset, agent: agent.to_owned() });
    }

    /// A message went to a broker or came from one.
    fn moved(&mut self, cells: &Cells<'_>, row: usize, kind: Kind, at: Micros, number: u32) {
        let owned = |name: &str| cells.text(name, row).map(str::to_owned);
        let broker = broker(cells, row);
        let is_kafka = broker.system.as_deref() == Some("kafka");
        let destination = owned("destination").unwrap_or_default();
        let subscription = owned("subscription");
        let service = owned("service").unwrap_or_default();
        let publish = kind == Kind::Publish;
        if let (false, Some(queue)) = (publish, &subscription) {
            let topic = is_kafka.then(|| destination.clone());
            if self.queues.insert((topic, queue.clone())) {
                self.whole.push(number);
            }
            if !is_kafka && came_back(cells, row, queue) {
                self.beyond.returns.insert((broker.clone(), queue.clone()));
            }
            if !is_kafka && self.beyond.routes.len() < MAX_ROUTES {
                let key = owned("routing_key").unwrap_or_default();
                let route = (broker.clone(), destination.clone(), key);
                let since = self.beyond.routes.entry(route).or_insert(at.0);
                *since = (*since).min(at.0);
            }
        }
        let transaction = cells.text("transaction_id", row).map(hash::transaction);
        // A copy of a message without an id of its own is the same message by its fingerprint.
        let event = cells.text("event_id", row).map(hash::event);
        let event = event.or_else(|| cells.text("message", row).map(hash::message));
        if publish {
            let cause = cells.text("causation_id", row).map(hash::event);
            let step = Step::Published { event, cause, transaction, service: service.clone() };
            self.beyond.steps.push(step);
        } else if let Some(event) = event {
            let event_type = owned("event_type");
            let step = Step::Delivered { event, transaction, service: service.clone(), event_type };
            self.beyond.steps.push(step);
        }
        let key = MapKey { publish, broker, service, destination, subscription };
        *self.beyond.map.entry((key, at.0.div_euclid(60_000_000))).or_default() += 1;
    }
}

fn broker(cells: &Cells<'_>, row: usize) -> Broker {
    let owned = |name: &str| cells.text(name, row).map(str::to_owned);
    Broker { system: owned("system"), cluster: owned("cluster"), vhost: owned("vhost") }
}

/// Whether a delivery is of a message that this queue had given up before, and that other queues
/// led back. What somebody took out of the last of them and published here by hand came from there
/// at once: its newest death is that in this queue.
fn came_back(cells: &Cells<'_>, row: usize, queue: &str) -> bool {
    let details = cells.text("details", row).filter(|details| details.contains(r#""death""#));
    let Some(details) = details else { return false };
    cells.int("attempt", row).is_some_and(|attempt| attempt > 1)
        && cells.flag("redelivered", row) == Some(false)
        && serde_json::from_str::<serde_json::Value>(details).is_ok_and(|details| {
            details["death"]["queue"].as_str().is_some_and(|died_in| died_in != queue)
        })
}

/// Whether a publish may be of a message that its service gave up.
fn is_given_up(cells: &Cells<'_>, row: usize) -> bool {
    let text = |name: &str| cells.text(name, row).unwrap_or_default();
    let to = text("destination");
    // The default exchange leads to the queue that its key names.
    sounds_dead(if to.is_empty() { text("routing_key") } else { to })
}
