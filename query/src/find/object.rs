//! The index of one inbox object: hashes of ids with the rows that carry them, the parts of flows
//! that lie in it, and what it says beyond single flows.

use std::collections::{HashMap, HashSet};

use flowtap_record::path::InboxName;
use flowtap_record::{Kind, Micros, Outcome};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::columns::Cells;
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
    /// Somebody said no in it.
    pub(super) refused: bool,
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
    Delivered { event: u64, transaction: Option<u64>, service: String, event_type: String },
    Published { cause: Option<u64>, transaction: Option<u64>, service: String },
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

/// The index of one object: what stays in memory.
pub(super) struct Index {
    /// Hashes, rising, and beside each the number of a row that carries it.
    hashes: Box<[u64]>,
    rows: Box<[u32]>,
    pub(super) parts: Box<[Part]>,
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
    pub(super) loose: Vec<Loose>,
    pub(super) steps: Vec<Step>,
    /// Some rows say no and bear no id: they only name the row or transaction that they conclude.
    pub(super) bare: bool,
}

impl Index {
    pub(super) fn build(opened: &Opened, object: &InboxObject) -> Result<(Self, Beyond), String> {
        let mut building = Building::default();
        let reader = opened.builder(Some(&COLUMNS)).build().map_err(|error| error.to_string())?;
        for batch in reader {
            let batch = batch.map_err(|error| error.to_string())?;
            let cells = Cells::new(&batch);
            for row in 0..batch.num_rows() {
                building.row(&cells, row, &object.name);
            }
        }
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
        let mut pairs = building.pairs;
        pairs.sort_unstable();
        pairs.dedup();
        let (hashes, rows): (Vec<u64>, Vec<u32>) = pairs.into_iter().unzip();
        let index = Self {
            hashes: hashes.into(),
            rows: rows.into(),
            parts: building.parts.into_values().collect(),
        };
        Ok((index, beyond))
    }

    /// Numbers of the rows that carry what was hashed.
    pub(super) fn rows_of(&self, hash: u64) -> &[u32] {
        let from = self.hashes.partition_point(|&known| known < hash);
        let to = from + self.hashes[from..].partition_point(|&known| known == hash);
        &self.rows[from..to]
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.hashes.len() * 12 + self.parts.len() * size_of::<Part>()
    }
}

#[derive(Default)]
struct Building {
    next: u32,
    pairs: Vec<(u64, u32)>,
    parts: HashMap<u64, Part>,
    whole: Vec<u32>,
    queues: HashSet<(Option<String>, String)>,
    beyond: Beyond,
}

impl Building {
    fn row(&mut self, cells: &Cells<'_>, row: usize, name: &InboxName) {
        let boot = &name.boot;
        let number = self.next;
        self.next += 1;
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
            Kind::Position => return self.position(cells, row, at, &name.agent),
            Kind::Transaction => {
                self.beyond.bare |= cells.outcome(row) == Some(Outcome::Aborted);
                if let Some(name) = cells.text("broker_txn", row) {
                    self.pairs.push((hash::broker_transaction(boot, name), number));
                }
            }
            _ => {}
        }
        self.ids(cells, row, number, boot);
        if let Some(id) = cells.text("transaction_id", row) {
            let outcome = cells.outcome(row);
            let refused = matches!(
                outcome,
                Some(Outcome::Rejected | Outcome::Refused | Outcome::Unroutable | Outcome::Aborted)
            );
            let refused = refused || kind == Kind::Publish && is_given_up(cells, row);
            self.part(hash::transaction(id), kind, at, refused);
        } else if let (Some(event), Kind::Publish | Kind::Deliver) =
            (cells.text("event_id", row), kind)
        {
            let cause = cells.text("causation_id", row).map_or(0, hash::event);
            let event = hash::event(event);
            self.beyond.loose.push(Loose { event, cause, at: at.0, row: number });
        }
        if matches!(kind, Kind::Publish | Kind::Deliver) {
            self.moved(cells, row, kind, at, number);
        }
    }

    fn ids(&mut self, cells: &Cells<'_>, row: usize, number: u32, boot: &str) {
        let mut add = |hash: u64| self.pairs.push((hash, number));
        let (mut alone, mut bare) = (true, false);
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
        if alone {
            if let Some(id) = cells.text("message", row) {
                add(hash::message(id));
            }
            // What a row concludes says what it is about, where it says nothing itself.
            if let Some(seq) = cells.long("ref_seq", row) {
                let boot = cells.text("ref_boot", row).unwrap_or(boot);
                add(hash::concluded(boot, seq));
                bare = true;
            }
        }
        for (_, value) in cells.fields("keys", row) {
            add(hash::key(value));
        }
        self.beyond.bare |= bare;
    }

    fn part(&mut self, transaction: u64, kind: Kind, at: Micros, refused: bool) {
        let part = self.parts.entry(transaction).or_insert(Part {
            transaction,
            first: at.0,
            last: at.0,
            rows: 0,
            messages: 0,
            refused: false,
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
        if publish {
            let cause = cells.text("causation_id", row).map(hash::event);
            let step = Step::Published { cause, transaction, service: service.clone() };
            self.beyond.steps.push(step);
        } else if let (Some(event), Some(event_type)) =
            (cells.text("event_id", row), owned("event_type"))
        {
            let event = hash::event(event);
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
