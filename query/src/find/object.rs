//! The index of one source of rows: hashes of ids with the rows that carry them, the parts of flows
//! that lie in it, and what it says beyond single flows.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::known::BootRows;
use crate::flow::{Broker, Gap, Row, Slot};
use crate::progress::Progress;

/// Hashes of ids. The lowest bits say what it is an id of, so that equal texts of two kinds do not
/// meet in the index; the others are the text's, so that a directory tells of all kinds on one page.
pub mod hash {
    use super::xxh3_64;

    const TRANSACTION: u64 = 1;
    const EVENT: u64 = 2;
    const CAUSE: u64 = 3;
    const MESSAGE: u64 = 4;
    const KEY: u64 = 5;
    const TRACE: u64 = 6;
    const BROKER_TRANSACTION: u64 = 7;
    const CONCLUDED: u64 = 8;
    const ROW: u64 = 9;
    const COMMAND: u64 = 10;
    const KINDS: u64 = 15;

    /// A transaction id.
    pub fn transaction(id: &str) -> u64 {
        of(TRANSACTION, id)
    }

    /// An event id.
    pub fn event(id: &str) -> u64 {
        of(EVENT, id)
    }

    /// A causation id.
    pub fn cause(id: &str) -> u64 {
        of(CAUSE, id)
    }

    /// A fingerprint.
    pub fn message(id: &str) -> u64 {
        of(MESSAGE, id)
    }

    /// A business key's value.
    pub fn key(value: &str) -> u64 {
        of(KEY, value)
    }

    /// A trace id.
    pub fn trace(id: &str) -> u64 {
        of(TRACE, id)
    }

    /// The id of a command.
    pub fn command(id: &str) -> u64 {
        of(COMMAND, id)
    }

    /// A broker transaction of a boot.
    pub fn broker_transaction(boot: &str, name: &str) -> u64 {
        of(BROKER_TRANSACTION, &format!("{boot}/{name}"))
    }

    /// The row that another concludes.
    pub fn concluded(boot: &str, seq: i64) -> u64 {
        of(CONCLUDED, &format!("{boot}/{seq}"))
    }

    /// A row itself.
    pub fn row(boot: &str, seq: i64) -> u64 {
        of(ROW, &format!("{boot}/{seq}"))
    }

    /// Whether it ties a row to another, and is nothing that a person has in hand.
    pub(crate) fn is_tie(hash: u64) -> bool {
        matches!(hash & KINDS, CAUSE | BROKER_TRANSACTION | CONCLUDED)
    }

    /// Whether it is of a causation id.
    pub(crate) fn is_cause(hash: u64) -> bool {
        hash & KINDS == CAUSE
    }

    fn of(kind: u64, text: &str) -> u64 {
        xxh3_64(text.as_bytes()) & !KINDS | kind
    }
}

/// No flow: see [`Index::part_of`].
pub(super) const NO_PART: u32 = u32::MAX;

/// A part of a flow in one source.
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
    /// Which row it is, wherever that lies: of two rows at the same time one is always the first.
    pub(super) id: u64,
    pub(super) row: u32,
}

/// Something that tells what usually follows what.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Delivered {
        event: u64,
        transaction: Option<u64>,
        service: Arc<str>,
        event_type: Option<Arc<str>>,
    },
    Published {
        event: Option<u64>,
        cause: Option<u64>,
        transaction: Option<u64>,
        service: Arc<str>,
    },
}

/// A row that bears no id and concludes a row of another source.
#[derive(Clone, Debug)]
pub(super) struct Bare {
    pub(super) agent: Arc<str>,
    pub(super) boot: Arc<str>,
    pub(super) seq: i64,
    /// It says no.
    pub(super) refused: bool,
    /// It was met before, in another source, and waits already if it has to.
    pub(super) again: bool,
}

/// A broker transaction, as far as a source tells. What is told `again` was met in another source
/// before.
#[derive(Clone, Copy, Debug)]
pub(super) enum Transaction {
    /// A flow takes part in one whose end is not in this source.
    Open { name: u64, flow: u64, again: bool },
    /// One ended, which may have begun in another source.
    Ended { name: u64, aborted: bool, again: bool },
}

/// A refused message without a transaction id.
#[derive(Clone, Copy, Debug)]
pub(super) struct LooseRefused {
    pub(super) at: i64,
    /// Its event id.
    pub(super) event: u64,
    /// The same, as the cause of others.
    pub(super) as_cause: u64,
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

/// The index of one source: what stays in memory, but for hashes of ids, which go to the lookup of
/// all sources.
pub(super) struct Index {
    pub(super) parts: Box<[Part]>,
    /// By row: which of the parts it belongs to.
    pub(super) part_of: Box<[u32]>,
    pub(super) loose: Box<[Loose]>,
    /// Where rows lie, if not by their numbers.
    pub(super) boots: Option<Box<[BootRows]>>,
    /// By row, of a file: how many milliseconds after the first.
    pub(super) times: Box<[u32]>,
    /// Earliest and latest row.
    pub(super) at: Option<(i64, i64)>,
    pub(super) bytes: usize,
}

/// What a source says beyond single flows: folded into the catalog and dropped. Only what was not
/// learnt before from another source of the same rows, but for hashes.
#[derive(Default)]
pub(super) struct Beyond {
    pub(super) world: Vec<Row>,
    pub(super) gaps: Vec<Gap>,
    pub(super) routes: HashMap<(Broker, String, String), i64>,
    /// Queues that messages came back to after they had been given up there.
    pub(super) returns: HashSet<(Broker, String)>,
    /// The first delivery of each queue, and the first and last of each group at each topic.
    pub(super) deliveries: Vec<Row>,
    /// How far groups came.
    pub(super) progress: HashMap<Slot, Progress>,
    pub(super) map: HashMap<(MapKey, i64), u64>,
    /// With their times.
    pub(super) steps: Vec<(i64, Step)>,
    pub(super) bare: Vec<Bare>,
    pub(super) transactions: Vec<Transaction>,
    /// Messages without a transaction id that somebody said no to.
    pub(super) loose_refused: Vec<LooseRefused>,
}

impl Beyond {
    /// Adds what another source says.
    pub(super) fn extend(&mut self, mut other: Self) {
        self.world.append(&mut other.world);
        self.gaps.append(&mut other.gaps);
        for (route, at) in other.routes {
            let since = self.routes.entry(route).or_insert(at);
            *since = at.min(*since);
        }
        self.returns.extend(other.returns);
        self.deliveries.append(&mut other.deliveries);
        for (slot, progress) in other.progress {
            self.progress.entry(slot).or_default().merge(progress);
        }
        for (edge, count) in other.map {
            *self.map.entry(edge).or_default() += count;
        }
        self.steps.append(&mut other.steps);
        self.bare.append(&mut other.bare);
        self.transactions.append(&mut other.transactions);
        self.loose_refused.append(&mut other.loose_refused);
    }

    /// Brings all of it into the order in which it happened: causes before what they caused. Within
    /// an inbox object it is; files of the table are in another order.
    pub(super) fn sort(&mut self) {
        self.world.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
        self.gaps.sort_by_key(|gap| gap.from.or(gap.to));
        self.deliveries.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
        self.steps.sort_by_key(|(at, _)| *at);
        self.loose_refused.sort_by_key(|it| it.at);
    }
}
