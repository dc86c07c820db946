//! From rows to a flow: which rows are one message, which message caused which. Rows come in any
//! order; the result depends only on what they say.
//!
//! Rows are one message when they share the event id, or, where no id is known, the fingerprint.
//! Within one flow a fingerprint is proof enough: the flow's own id joins them already. In Kafka the
//! place in the log is the message; its publish learns it from the confirm.

use std::collections::{BTreeSet, HashMap};

use flowtap_record::{Kind, Micros, Outcome, Tap};

use super::coverage::Coverage;
use super::groups::Groups;
use super::row::{Broker, KeyValue, Row, RowId};

/// In flows of more messages than this, causes are not looked for by what was at hand: each message
/// would be held against each other.
const FEW: usize = 1000;

/// All that hangs together, put in order.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    /// By time.
    pub rows: Vec<Row>,
    /// In the order of their first row; causes before what they caused where times agree.
    pub messages: Vec<Message>,
    /// Who caused what.
    pub edges: Vec<Edge>,
    /// There are more rows than these: whatever they seem to say may be undone by one of the others.
    pub truncated: bool,
}

/// One message: its publishes and all its deliveries.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// Rows of this message, by time: indexes into [`Flow::rows`].
    pub rows: Vec<usize>,
    /// The times that it was handed to the broker. More than one: it was published again.
    pub publishes: Vec<Publish>,
    /// The times that it was handed to a service, by time.
    pub handlings: Vec<Handling>,
    /// Its ids, as any of its rows has them.
    pub fingerprint: Option<String>,
    /// The message's own id.
    pub event_id: Option<String>,
    /// Its type.
    pub event_type: Option<String>,
    /// The flow's id.
    pub transaction_id: Option<String>,
    /// The event that caused it.
    pub causation_id: Option<String>,
    /// The command at the start.
    pub command: Option<String>,
    /// Business keys.
    pub keys: Vec<KeyValue>,
    /// Bytes of the body.
    pub size: Option<i64>,
    /// Steps from the root.
    pub depth: usize,
}

/// One publish and the broker's answer.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The publish's row.
    pub row: usize,
    /// The row that brought the answer.
    pub answer: Option<usize>,
    /// `unroutable` whatever the confirm said; `aborted` and `committed` of its broker transaction.
    pub outcome: Option<Outcome>,
    /// Why it was refused or returned.
    pub reason: Option<String>,
    /// Part of a broker transaction of which it is not known how it ended.
    pub in_transaction: bool,
    /// The row that ended its broker transaction; one without an outcome tells that the broker's
    /// word on it did not come.
    pub end: Option<usize>,
}

/// One delivery and its end.
#[derive(Clone, Debug)]
pub struct Handling {
    /// The deliver row; the settle row where the delivery itself was not seen.
    pub deliver: Option<usize>,
    /// The settle row.
    pub settle: Option<usize>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Nobody saw how it ended, and why not.
    pub lost: Option<Lost>,
    /// Nothing will settle it: a broker tap, or no group.
    pub settles: bool,
    /// Its end was not seen, but its group was: past it.
    pub passed: bool,
}

/// Why nobody saw how a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Its agent died with it open.
    AgentDied,
    /// Its connection was passed on without being understood from some time on.
    OutOfSight,
}

impl Lost {
    /// The word that people and programs read; the view `consumes` says the same.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AgentDied => "agent_died",
            Self::OutOfSight => "out of sight",
        }
    }
}

/// `from` caused `to`, both messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The cause.
    pub from: usize,
    /// What it caused.
    pub to: usize,
    /// How it is known.
    pub how: How,
    /// The service whose handling did it.
    pub by: Option<String>,
}

/// How an edge is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// The message says so.
    Causation,
    /// Same transaction, and the service had only this one at hand when it published.
    Transaction,
}

impl Flow {
    /// Puts rows together. `coverage` knows which deliveries ended unseen, `groups` how far Kafka's
    /// groups came.
    pub fn assemble(rows: Vec<Row>, coverage: &Coverage, groups: &Groups) -> Self {
        let mut flow = Self { rows, ..Self::default() };
        flow.rows.sort_by(|a, b| (a.at, order(a.kind), &a.id).cmp(&(b.at, order(b.kind), &b.id)));
        flow.rows.dedup_by(|a, b| a.id == b.id);
        flow.place();
        flow.group();
        flow.publishes();
        flow.deliveries(coverage, groups);
        flow.link();
        flow
    }

    /// The row of a message that says where it was published, if that was seen.
    pub fn published(&self, message: usize) -> Option<&Row> {
        self.messages[message].publishes.first().map(|publish| &self.rows[publish.row])
    }

    /// The row that stands for a handling.
    pub fn handled(&self, handling: &Handling) -> &Row {
        &self.rows[handling.deliver.or(handling.settle).unwrap_or(0)]
    }

    /// A Kafka publish takes its place in the log from the broker's answer.
    fn place(&mut self) {
        let mut places: HashMap<RowId, (String, Option<i32>, Option<i64>)> = HashMap::new();
        for row in &self.rows {
            if let (Kind::Confirm, true, Some(publish), Some(message)) =
                (row.kind, row.is_kafka(), &row.concludes, &row.message)
            {
                places.insert(publish.clone(), (message.clone(), row.partition, row.log_offset));
            }
        }
        for row in &mut self.rows {
            if row.kind == Kind::Publish
                && row.message.is_none()
                && let Some((message, partition, log_offset)) = places.remove(&row.id)
            {
                row.message = Some(message);
                row.partition = partition.or(row.partition);
                row.log_offset = log_offset;
            }
        }
    }

    /// Cuts the rows into messages.
    fn group(&mut self) {
        let mut by_event: HashMap<&str, usize> = HashMap::new();
        let mut by_fingerprint: HashMap<(Broker, &str), usize> = HashMap::new();
        let mut by_row: HashMap<&RowId, usize> = HashMap::new();
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (index, row) in self.rows.iter().enumerate() {
            if !matches!(
                row.kind,
                Kind::Publish | Kind::Confirm | Kind::Return | Kind::Deliver | Kind::Settle
            ) {
                continue;
            }
            let fingerprint = row.message.as_deref().map(|message| (row.broker(), message));
            let in_log = fingerprint.as_ref().filter(|_| row.is_kafka());
            let known = row
                .concludes
                .as_ref()
                .and_then(|concluded| by_row.get(concluded))
                .or_else(|| by_fingerprint.get(in_log?))
                .or_else(|| row.event_id.as_deref().and_then(|event| by_event.get(event)))
                .or_else(|| {
                    // Two ids over one body are two messages.
                    let group = by_fingerprint.get(fingerprint.as_ref()?)?;
                    let other = self.rows[groups[*group][0]].event_id.as_deref();
                    let same = other.is_none()
                        || row.event_id.is_none()
                        || row.event_id.as_deref() == other;
                    same.then_some(group)
                })
                .copied();
            let group = known.unwrap_or_else(|| {
                groups.push(Vec::new());
                groups.len() - 1
            });
            groups[group].push(index);
            by_row.insert(&row.id, group);
            if let Some(event) = row.event_id.as_deref() {
                by_event.entry(event).or_insert(group);
            }
            if let Some(fingerprint) = fingerprint {
                by_fingerprint.entry(fingerprint).or_insert(group);
            }
        }
        self.messages = groups.into_iter().map(|rows| self.message(rows)).collect();
    }

    fn message(&self, rows: Vec<usize>) -> Message {
        let first = |value: fn(&Row) -> &Option<String>| {
            rows.iter().find_map(|&row| value(&self.rows[row]).clone())
        };
        let keys: BTreeSet<KeyValue> =
            rows.iter().flat_map(|&row| self.rows[row].keys.iter().cloned()).collect();
        Message {
            fingerprint: first(|row| &row.message),
            event_id: first(|row| &row.event_id),
            event_type: first(|row| &row.event_type),
            transaction_id: first(|row| &row.transaction_id),
            causation_id: first(|row| &row.causation_id),
            command: first(|row| &row.command),
            size: rows.iter().find_map(|&row| self.rows[row].size),
            keys: keys.into_iter().collect(),
            rows,
            ..Message::default()
        }
    }

    /// Pairs publishes with what the broker said of them.
    fn publishes(&mut self) {
        let mut ends: HashMap<(&str, &str), (Option<Outcome>, usize)> = HashMap::new();
        for (index, row) in self.rows.iter().enumerate() {
            if let (Kind::Transaction, Some(name)) = (row.kind, row.broker_txn.as_deref()) {
                let end = ends.entry((row.id.boot.as_str(), name)).or_insert((None, index));
                if row.outcome.is_some() {
                    *end = (row.outcome, index);
                }
            }
        }
        let mut answers: HashMap<&RowId, Vec<usize>> = HashMap::new();
        for (index, row) in self.rows.iter().enumerate() {
            if matches!(row.kind, Kind::Confirm | Kind::Return)
                && let Some(publish) = &row.concludes
            {
                answers.entry(publish).or_default().push(index);
            }
        }
        let mut found: Vec<Vec<Publish>> = Vec::with_capacity(self.messages.len());
        for message in &self.messages {
            let mut publishes = Vec::new();
            for &index in &message.rows {
                let row = &self.rows[index];
                if row.kind != Kind::Publish {
                    continue;
                }
                let answers = answers.get(&row.id).map_or(&[][..], Vec::as_slice);
                // A return counts more than the confirm, which the broker sends all the same.
                let answer = answers
                    .iter()
                    .copied()
                    .find(|&answer| self.rows[answer].kind == Kind::Return)
                    .or_else(|| answers.first().copied());
                let mut publish = Publish {
                    row: index,
                    answer,
                    outcome: answer.and_then(|answer| self.rows[answer].outcome),
                    reason: answer.and_then(|answer| self.rows[answer].reason.clone()),
                    in_transaction: false,
                    end: None,
                };
                if let Some(name) = row.broker_txn.as_deref() {
                    let end = ends.get(&(row.id.boot.as_str(), name));
                    publish.end = end.map(|(_, row)| *row);
                    match (end.and_then(|(outcome, _)| *outcome), publish.outcome) {
                        // What was refused is no part of what was rolled back.
                        (Some(Outcome::Aborted), Some(Outcome::Refused)) => {}
                        (Some(Outcome::Aborted), _) => publish.outcome = Some(Outcome::Aborted),
                        (end @ Some(_), None) => publish.outcome = end,
                        (Some(_), Some(_)) => {}
                        (None, _) => publish.in_transaction = true,
                    }
                }
                publishes.push(publish);
            }
            found.push(publishes);
        }
        for (message, publishes) in self.messages.iter_mut().zip(found) {
            message.publishes = publishes;
        }
    }

    /// Pairs deliveries with their ends.
    fn deliveries(&mut self, coverage: &Coverage, groups: &Groups) {
        let mut settles: HashMap<&RowId, usize> = HashMap::new();
        for (index, row) in self.rows.iter().enumerate() {
            if row.kind == Kind::Settle
                && let Some(deliver) = &row.concludes
            {
                settles.insert(deliver, index);
            }
        }
        let mut found: Vec<Vec<Handling>> = Vec::with_capacity(self.messages.len());
        for message in &self.messages {
            let mut handlings = Vec::new();
            let mut paired: BTreeSet<usize> = BTreeSet::new();
            for &index in &message.rows {
                let row = &self.rows[index];
                if row.kind != Kind::Deliver {
                    continue;
                }
                let settle = settles.get(&row.id).copied();
                paired.extend(settle);
                let settles = row.tap.is_none_or(|tap| tap == Tap::Proxy)
                    && !(row.is_kafka() && row.subscription.is_none());
                let passed = settle.is_none() && settles && is_passed(row, row.at, groups);
                let outcome = settle.and_then(|settle| self.rows[settle].outcome);
                let open = settle.is_none() && settles && !passed;
                handlings.push(Handling {
                    deliver: Some(index),
                    settle,
                    outcome: outcome.or_else(|| passed.then_some(Outcome::Committed)),
                    lost: open.then(|| lost(row, coverage)).flatten(),
                    settles,
                    passed,
                });
            }
            // A settle whose delivery was shed: it says what it concludes by itself.
            for &index in &message.rows {
                let row = &self.rows[index];
                if row.kind == Kind::Settle && !paired.contains(&index) {
                    handlings.push(Handling {
                        deliver: None,
                        settle: Some(index),
                        outcome: row.outcome,
                        lost: None,
                        settles: true,
                        passed: false,
                    });
                }
            }
            handlings.sort_by_key(|handling| handling.deliver.or(handling.settle));
            found.push(handlings);
        }
        for (message, handlings) in self.messages.iter_mut().zip(found) {
            message.handlings = handlings;
        }
    }

    /// Who caused what: as the messages say; else, within one transaction, the only message that
    /// the publishing service had at hand.
    fn link(&mut self) {
        let by_event: HashMap<&str, usize> = self
            .messages
            .iter()
            .enumerate()
            .rev()
            .filter_map(|(index, message)| Some((message.event_id.as_deref()?, index)))
            .collect();
        let mut edges = Vec::new();
        let few = self.messages.len() <= FEW;
        for (index, message) in self.messages.iter().enumerate() {
            let publisher = self.published(index).and_then(|row| row.service.clone());
            if let Some(cause) = message.causation_id.as_deref() {
                if let Some(&from) = by_event.get(cause)
                    && from != index
                {
                    edges.push(Edge { from, to: index, how: How::Causation, by: publisher });
                }
                continue;
            }
            if few && let Some(from) = self.only_one_at_hand(index) {
                edges.push(Edge { from, to: index, how: How::Transaction, by: publisher });
            }
        }
        self.edges = edges;
        self.depths();
    }

    fn only_one_at_hand(&self, message: usize) -> Option<usize> {
        let publish = self.published(message)?;
        let service = publish.service.as_deref()?;
        if let Some(cause) = self.same_transaction(message, publish) {
            return Some(cause);
        }
        let mut found = None;
        for (index, other) in self.messages.iter().enumerate() {
            let handled = other.handlings.iter().any(|handling| {
                let row = self.handled(handling);
                row.at <= publish.at && row.service.as_deref() == Some(service)
            });
            if index != message && handled && found.replace(index).is_some() {
                return None;
            }
        }
        found
    }

    /// The only message whose offset was committed in the broker transaction of a publish.
    fn same_transaction(&self, message: usize, publish: &Row) -> Option<usize> {
        let name = publish.broker_txn.as_ref()?;
        let mut found = None;
        for (index, other) in self.messages.iter().enumerate() {
            let settled =
                other.handlings.iter().filter_map(|handling| handling.settle).any(|row| {
                    let row = &self.rows[row];
                    row.id.boot == publish.id.boot && row.broker_txn.as_ref() == Some(name)
                });
            if index != message && settled && found.replace(index).is_some() {
                return None;
            }
        }
        found
    }

    fn depths(&mut self) {
        // Each round settles one step; a circle, which only wrong ids make, ends with the rounds.
        for _ in 0..self.messages.len() {
            let mut changed = false;
            for edge in &self.edges {
                let depth = self.messages[edge.from].depth + 1;
                if self.messages[edge.to].depth < depth && depth < self.messages.len() {
                    self.messages[edge.to].depth = depth;
                    changed = true;
                }
            }
            if !changed {
                break;
            }
        }
    }
}

/// Whether the group of a Kafka delivery was seen to be past it since `since`.
pub(super) fn is_passed(delivery: &Row, since: Micros, groups: &Groups) -> bool {
    let slot = delivery.is_kafka().then(|| delivery.slot()).flatten();
    slot.zip(delivery.log_offset)
        .is_some_and(|(slot, offset)| groups.passed(&slot, offset, since, &delivery.agent))
}

fn lost(delivery: &Row, coverage: &Coverage) -> Option<Lost> {
    if coverage.died.contains_key(&delivery.id.boot) {
        Some(Lost::AgentDied)
    } else {
        // Kafka's deliveries are settled on whatever connection.
        let opaque = !delivery.is_kafka() && coverage.turned_opaque(delivery);
        opaque.then_some(Lost::OutOfSight)
    }
}

/// Rows of one moment: what concludes comes after what it concludes.
fn order(kind: Kind) -> u8 {
    match kind {
        Kind::Publish => 0,
        Kind::Deliver => 1,
        _ => 2,
    }
}
