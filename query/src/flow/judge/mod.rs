//! The verdict, from facts of presence. `broken` only where a broker or a service said no and
//! nothing undid it; absence is `late` where everybody who could have seen the missing thing looked,
//! else `unknown`. A false accusation is the worst that can happen here: in doubt it is weaker.

mod absence;
mod handle;
mod kafka;
mod publish;

use std::collections::BTreeMap;

use flowtap_record::{Kind, Micros};
use serde_json::Value;

use super::assemble::{Flow, Handling, Message, Publish};
use super::coverage::Coverage;
use super::habits::Habits;
use super::row::{Row, RowId};
use super::say;
use super::world::{Name, World};

/// Flowtap's answer on a flow, worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// All that was published was handled, and what usually follows did.
    Healthy,
    /// Something is under way.
    Running,
    /// Flowtap was blind where it matters.
    Unknown,
    /// Something is missing for longer than it should be, and everybody looked.
    Late,
    /// Something expected did not come; too little evidence to accuse.
    Suspect,
    /// Somebody said no, and nothing undid it.
    Broken,
}

impl State {
    /// The word that people and programs read.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Running => "running",
            Self::Unknown => "unknown",
            Self::Late => "late",
            Self::Suspect => "suspect",
            Self::Broken => "broken",
        }
    }
}

/// Where on the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// `rabbitmq` or `kafka`.
    pub system: Option<String>,
    /// Exchange or topic.
    pub destination: Option<String>,
    /// Key.
    pub routing_key: Option<String>,
    /// Queue or group.
    pub subscription: Option<String>,
    /// Kafka's partition.
    pub partition: Option<i32>,
    /// Kafka's offset.
    pub log_offset: Option<i64>,
}

/// A row that proves something, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The row.
    pub row: RowId,
    /// Its time.
    pub at: Micros,
    /// What it says, in words.
    pub text: String,
}

/// What is wrong, or under way, with one message.
#[derive(Clone, Debug)]
pub struct Finding {
    /// How bad it is.
    pub state: State,
    /// The message: an index into the flow's.
    pub message: usize,
    /// `rejected`, `refused`, `aborted`, `unroutable`, `waiting`, ...
    pub reason: &'static str,
    /// The service that the facts name.
    pub service: Option<String>,
    /// Where.
    pub place: Place,
    /// Since when.
    pub since: Micros,
    /// What stands behind the state: "at factory".
    pub headline: String,
    /// What happened, then the rest.
    pub sentences: Vec<String>,
    /// Rows that prove it.
    pub evidence: Vec<Evidence>,
}

/// The answer on a flow.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The state.
    pub state: State,
    /// "BROKEN at factory".
    pub headline: String,
    /// Plain sentences, the first says what happened.
    pub sentences: Vec<String>,
    /// What decided it; nothing where all is well.
    pub finding: Option<Finding>,
    /// Remarks: "nobody listens at exchange x, key y".
    pub notes: Vec<String>,
    /// State and remark by message.
    pub messages: Vec<(State, Option<String>)>,
}

/// What the rules know besides the flow's rows.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Brokers.
    pub world: &'a World,
    /// Who sees.
    pub coverage: &'a Coverage,
    /// What usually follows.
    pub habits: &'a Habits,
    /// The time of asking.
    pub now: Micros,
    /// How long something may take before it is called late.
    pub patience_us: i64,
}

/// Clocks of two machines may differ by so much.
const SKEW_US: i64 = 5_000_000;
/// A service that gives up a message publishes its copy around the time that it settles it.
const AROUND_US: i64 = 1_000_000;
/// How long a retry may rest where its delay is not known.
const UNKNOWN_DELAY_US: i64 = 60_000_000;

/// A transaction may stay open so long. Kafka's broker then aborts it, unless it was told otherwise.
const TRANSACTION_US: i64 = 60_000_000;

/// Judges a flow.
pub fn judge(flow: &Flow, known: &Known<'_>) -> Verdict {
    let mut findings = Vec::new();
    let mut notes = Vec::new();
    let mut messages = Vec::new();
    for index in 0..flow.messages.len() {
        let mut judge = Judge { flow, known, index, found: Vec::new(), notes: Vec::new() };
        judge.message();
        let worst = judge.found.iter().max_by_key(|finding| finding.state);
        let state = worst.map_or(State::Healthy, |finding| finding.state);
        let note = worst
            .and_then(|finding| finding.sentences.first().cloned())
            .or_else(|| judge.notes.first().cloned());
        messages.push((state, note));
        findings.append(&mut judge.found);
        notes.append(&mut judge.notes);
    }
    notes.dedup();
    findings.extend(settling(flow, known, &findings));
    if flow.truncated {
        return truncated(flow, notes, messages);
    }
    // The worst counts; of equals the one that was first.
    findings.sort_by(|a, b| b.state.cmp(&a.state).then(a.since.cmp(&b.since)));
    let mut rest = findings.into_iter();
    let Some(first) = rest.next() else { return healthy(flow, known, notes, messages) };
    let state = first.state;
    let mut sentences = first.sentences.clone();
    for other in rest.filter(|other| other.state == state && other.message != first.message).take(3)
    {
        sentences.push(format!("Also: {}", other.sentences.first().map_or("", String::as_str)));
    }
    let headline = match state {
        State::Unknown => format!("UNKNOWN: {}", first.headline),
        state => format!("{} {}", state.as_str().to_uppercase(), first.headline),
    };
    Verdict { state, headline, sentences, finding: Some(first), notes, messages }
}

/// Of what is not seen whole nothing is said for sure: the rest may undo whatever this part says.
fn truncated(flow: &Flow, notes: Vec<String>, messages: Vec<(State, Option<String>)>) -> Verdict {
    let count = flow.rows.len();
    let sentence = format!(
        "The flow has more than the {count} records that are read of one: it is not judged."
    );
    let finding = flow.rows.first().map(|row| Finding {
        state: State::Unknown,
        message: 0,
        reason: "truncated",
        service: None,
        place: Place::default(),
        since: row.at,
        headline: "too large to judge".to_owned(),
        sentences: vec![sentence.clone()],
        evidence: Vec::new(),
    });
    Verdict {
        state: State::Unknown,
        headline: "UNKNOWN: too large to judge".to_owned(),
        sentences: vec![sentence],
        finding,
        notes,
        messages: messages.into_iter().map(|(it, note)| (it.min(State::Unknown), note)).collect(),
    }
}

fn healthy(
    flow: &Flow,
    known: &Known<'_>,
    notes: Vec<String>,
    messages: Vec<(State, Option<String>)>,
) -> Verdict {
    let count = flow.messages.len();
    let what = if count == 1 { "message was" } else { "messages were" };
    let mut sentence = format!("{count} {what} published and handled");
    if let Some(last) = flow.rows.last() {
        let at = say::clock(last.at, known.now);
        sentence = format!("{sentence}, the last at {at}; nothing is open.");
    }
    Verdict {
        state: State::Healthy,
        headline: "HEALTHY".to_owned(),
        sentences: vec![sentence],
        finding: None,
        notes,
        messages,
    }
}

/// Nothing is open: more may follow until everybody has reported past a quiet time.
fn settling(flow: &Flow, known: &Known<'_>, findings: &[Finding]) -> Option<Finding> {
    if !findings.is_empty() {
        return None;
    }
    let (index, last) = flow
        .messages
        .iter()
        .enumerate()
        .filter_map(|(index, message)| Some((index, *message.rows.last()?)))
        .max_by_key(|(_, row)| *row)?;
    let row = &flow.rows[last];
    let quiet = row.at.plus(known.patience_us);
    let seen_to = known.coverage.complete_to().unwrap_or(known.now).min(known.now);
    // With no agent alive nothing more will come.
    if seen_to >= quiet || !known.coverage.anybody_lives() {
        return None;
    }
    let what = say::message(&flow.messages[index]);
    let at = say::clock(row.at, known.now);
    Some(Finding {
        state: State::Running,
        message: index,
        reason: "recent",
        service: None,
        place: place(row),
        since: row.at,
        headline: format!("last step {what}"),
        sentences: vec![format!("The last step is {what}, at {at}; more may follow.")],
        evidence: Vec::new(),
    })
}

fn place(row: &Row) -> Place {
    Place {
        system: row.system.clone(),
        destination: row.destination.clone(),
        routing_key: row.routing_key.clone(),
        subscription: row.subscription.clone(),
        partition: row.partition,
        log_offset: row.log_offset,
    }
}

/// Rules for one message.
struct Judge<'a> {
    flow: &'a Flow,
    known: &'a Known<'a>,
    index: usize,
    found: Vec<Finding>,
    notes: Vec<String>,
}

impl Judge<'_> {
    fn message(&mut self) {
        let flow = self.flow;
        let message = &flow.messages[self.index];
        for publish in last_by_place(flow, message) {
            if flow.rows[publish.row].is_kafka() {
                self.publish_to_topic(message, publish);
            } else {
                self.publish(message, publish);
            }
        }
        for ((_, topic), handlings) in kafka::by_subscription(self, message) {
            match topic {
                Some(_) => self.read_by_group(message, &handlings),
                None => self.handlings(message, &handlings),
            }
        }
    }

    /// How long a message rests in delay queues on its way back.
    fn rest(&self, queue: &Name, key: &str, at: Micros) -> i64 {
        let world = self.known.world;
        let next = world.dead_letters(queue, key, at);
        let delays = next.iter().filter_map(|next| {
            world.argument(&Name::new(&queue.broker, next), "x-message-ttl")?.as_i64()
        });
        delays.max().map_or(UNKNOWN_DELAY_US, |ms| ms.saturating_mul(1000))
    }

    /// How often the message came out of a queue: as the broker counts, or as it was seen.
    fn attempts(&self, message: &Message, queue: Option<&str>) -> i32 {
        let here = message.handlings.iter().map(|handling| self.flow.handled(handling));
        let here: Vec<&Row> = here.filter(|row| row.subscription.as_deref() == queue).collect();
        let counted = here.iter().filter_map(|row| row.attempt).max().unwrap_or(1);
        counted.max(i32::try_from(here.len()).unwrap_or(i32::MAX))
    }

    fn settled_at(&self, handling: &Handling) -> Micros {
        self.flow.rows[handling.settle.or(handling.deliver).unwrap_or(0)].at
    }

    fn took(&self, handling: &Handling, row: &Row) -> String {
        let settle = handling.settle.map(|settle| &self.flow.rows[settle]);
        let took = settle.map(|settle| settle.took_us.unwrap_or(settle.at.since(row.at)));
        took.map(|took| format!(" after {}", say::took(took))).unwrap_or_default()
    }

    fn time(&self, at: Micros) -> String {
        say::clock(at, self.known.now)
    }

    fn add(
        &mut self,
        state: State,
        reason: &'static str,
        row: &Row,
        headline: String,
        sentences: Vec<String>,
    ) {
        self.found.push(Finding {
            state,
            message: self.index,
            reason,
            service: row.service.clone(),
            place: place(row),
            since: row.at,
            headline,
            sentences,
            evidence: Vec::new(),
        });
        let what = match row.kind {
            Kind::Publish => format!("{} published it to {}", service(row), say::destination(row)),
            Kind::Deliver => format!("{} received it from {}", service(row), say::source(row)),
            kind => format!("{} {}", service(row), kind.as_str()),
        };
        self.prove_row(row, &what);
    }

    /// Names a row as proof.
    fn prove(&mut self, row: Option<usize>, text: &str) {
        if let Some(row) = row {
            let row = &self.flow.rows[row];
            self.prove_row(row, text);
        }
    }

    fn prove_row(&mut self, row: &Row, text: &str) {
        let evidence = Evidence {
            row: row.id.clone(),
            at: row.at,
            text: format!("{} {text}", self.time(row.at)),
        };
        if let Some(finding) = self.found.last_mut() {
            finding.evidence.push(evidence);
        }
    }

    fn forget_service(&mut self) {
        if let Some(finding) = self.found.last_mut() {
            finding.service = None;
        }
    }
}

/// The last publish to each exchange and key.
fn last_by_place<'a>(flow: &'a Flow, message: &'a Message) -> Vec<&'a Publish> {
    let mut last: BTreeMap<(bool, Option<&str>, Option<&str>), &Publish> = BTreeMap::new();
    for publish in &message.publishes {
        let row = &flow.rows[publish.row];
        let place = (row.is_kafka(), row.destination.as_deref(), row.routing_key.as_deref());
        last.insert(place, publish);
    }
    last.into_values().collect()
}

fn service(row: &Row) -> String {
    row.service.clone().unwrap_or_else(|| "somebody".to_owned())
}

fn destination(row: &Row) -> Name {
    Name::new(&row.broker(), row.destination.as_deref().unwrap_or_default())
}

/// What the newest entry of `x-death` says.
fn death<'a>(row: &'a Row, what: &str) -> Option<&'a str> {
    row.details.get("death")?.get(what)?.as_str()
}

/// Whether the broker would have returned it.
fn mandatory(row: &Row) -> bool {
    matches!(row.details.get("mandatory").and_then(Value::as_str), Some("set" | "client"))
}

/// Names that people give to queues and topics for what failed.
pub fn sounds_dead(name: &str) -> bool {
    let name = name.to_lowercase();
    ["dead", "dlq", "dlt", "poison", "parking", "failed", "error", "hospital"]
        .iter()
        .any(|word| name.contains(word))
}

fn tries(attempts: i32) -> String {
    if attempts > 1 { format!(" in attempt {attempts}") } else { String::new() }
}
