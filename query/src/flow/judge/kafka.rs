//! Rules for Kafka. A record stays in its topic whoever reads it, so each group is judged by itself:
//! it took the record, went past it, or has it still before it. That nobody reads a topic is no
//! fault, and what is not there any more may have been compacted.

use std::collections::BTreeMap;

use flowtap_record::Outcome;
use serde_json::Value;

use super::super::assemble::{Handling, Message, Publish, is_passed};
use super::super::coverage::Sight;
use super::super::groups::Slot;
use super::super::row::Row;
use super::super::say;
use super::super::world::{Name, queue_of};
use super::absence::Spot;
use super::{AROUND_US, Judge, SKEW_US, State, destination, service, sounds_dead, tries};

/// Clients that commit by themselves do so every five seconds.
const COMMIT_US: i64 = 5_000_000;

impl Judge<'_> {
    /// What a producer handed to a topic.
    pub(super) fn publish_to_topic(&mut self, message: &Message, publish: &Publish) {
        let row = &self.flow.rows[publish.row];
        let taken =
            |other: &Publish| !matches!(other.outcome, Some(Outcome::Refused | Outcome::Aborted));
        let later = |other: &Publish| self.flow.rows[other.row].at > row.at;
        let again = message.publishes.iter().any(|other| later(other) && taken(other))
            || self.has_twin(message, publish, row);
        let came_out = message.handlings.iter().any(|handling| {
            let handled = self.flow.handled(handling);
            is_topic(handled, row) && handled.at.plus(SKEW_US) >= row.at
        });
        match publish.outcome {
            Some(Outcome::Refused) if !came_out && !again => {
                self.refused_unless_again(message, publish, row);
            }
            Some(Outcome::Aborted) if came_out => {
                let what = say::message(message);
                self.notes.push(format!(
                    "the transaction of {what} was aborted; it was read by who reads what is not committed"
                ));
            }
            Some(Outcome::Aborted) if !again => self.aborted(message, publish, row),
            Some(Outcome::Refused | Outcome::Aborted) => {}
            _ if publish.in_transaction && !came_out => {
                self.in_open_transaction(message, publish, row);
            }
            None if row.confirm_expected == Some(true) && !came_out && !again => {
                self.unanswered(message, row);
            }
            _ => self.arrival_in_topic(message, publish, row),
        }
    }

    /// A record in a topic: each group that reads the topic should get it.
    fn arrival_in_topic(&mut self, message: &Message, publish: &Publish, row: &Row) {
        let topic = destination(row);
        // Readers of committed data see it when its transaction ends.
        let since = publish.end.map_or(row.at, |end| self.flow.rows[end].at.max(row.at));
        let groups = self.known.world.groups.readers(&topic, row.at);
        if groups.is_empty() {
            let read = message.handlings.iter().any(|it| is_topic(self.flow.handled(it), row));
            if !read && !self.given_up(message, row, &topic) {
                self.notes.push(format!("nobody is seen to read topic {}", topic.name));
            }
            return;
        }
        if row.log_offset.is_none() && message.event_id.is_none() {
            // Nothing tells this record from others when it comes out.
            self.notes.push(format!(
                "where {} lies in topic {} is not known: its producer asked for no answer",
                say::message(message),
                topic.name
            ));
            return;
        }
        for group in groups {
            let took = message.handlings.iter().any(|handling| {
                let handled = self.flow.handled(handling);
                is_topic(handled, row)
                    && handled.subscription.as_deref() == Some(group)
                    && match (handled.log_offset, row.log_offset) {
                        (Some(this), Some(that)) => {
                            (handled.partition, this) == (row.partition, that)
                        }
                        _ => handled.at.plus(SKEW_US) >= row.at,
                    }
            });
            if !took && !self.is_past(message, row, &topic, group) {
                let what = say::message(message);
                let said = format!(
                    "{what} waits in {} for group {group} since {}",
                    say::destination(row),
                    self.time(since)
                );
                let spot = Spot::group(self.known.world, &topic, group);
                self.waiting_at(&spot, since, row, "waiting", &said);
            }
        }
    }

    /// Whether a group is past a record that was not seen to be delivered to it.
    fn is_past(&mut self, message: &Message, row: &Row, topic: &Name, group: &str) -> bool {
        let (Some(partition), Some(offset)) = (row.partition, row.log_offset) else { return false };
        let slot = Slot {
            broker: topic.broker.clone(),
            group: group.to_owned(),
            topic: topic.name.clone(),
            partition,
        };
        let groups = &self.known.world.groups;
        if !groups.passed(&slot, offset, row.at, "") {
            return false;
        }
        let Some(mark) = groups.moved_on(&slot, offset, row.at).cloned() else { return true };
        if self.known.coverage.sight(&mark.agent, row.at, mark.at) != Sight::Clear {
            return true;
        }
        let text = format!(
            "group {group} went past {} ({}) without taking it, and stood at offset {} at {}",
            say::message(message),
            say::destination(row),
            mark.offset,
            self.time(mark.at)
        );
        if groups.may_be_compacted(topic, row.routing_key.as_deref()) {
            self.notes.push(format!("{text}; it may have been compacted"));
            return true;
        }
        let headline = format!("at {}", say::subscription(&topic.name, group));
        let sentence = format!("{}{}.", text[..1].to_uppercase(), &text[1..]);
        self.add(State::Suspect, "skipped", row, headline, vec![sentence]);
        if let Some(finding) = self.found.last_mut() {
            finding.place.subscription = Some(group.to_owned());
            finding.service = None;
        }
        true
    }

    /// Whether the service that was handling the message put it into a topic for what failed, which
    /// nobody reads.
    fn given_up(&mut self, message: &Message, row: &Row, topic: &Name) -> bool {
        if !sounds_dead(&topic.name) {
            return false;
        }
        let handled = message.handlings.iter().rev().find(|handling| {
            let deliver = self.flow.handled(handling);
            let end = handling.settle.map_or(self.known.now, |settle| self.flow.rows[settle].at);
            deliver.service == row.service
                && !is_topic(deliver, row)
                && deliver.at <= row.at
                && row.at <= end.plus(AROUND_US)
        });
        let Some(handled) = handled else { return false };
        let deliver = self.flow.handled(handled);
        let who = service(row);
        let text = format!(
            "{who} gave up on {} from {}{} and put it into topic {} at {}, which nobody is seen to read.",
            say::message(message),
            say::source(deliver),
            tries(self.attempts(message, deliver.subscription.as_deref())),
            topic.name,
            self.time(row.at)
        );
        self.add(State::Broken, "rejected", deliver, format!("at {who}"), vec![text]);
        if let Some(finding) = self.found.last_mut() {
            finding.since = row.at;
        }
        self.prove_row(row, &format!("{who} put it into topic {}", topic.name));
        true
    }

    /// All deliveries of a record to one group: the last decides.
    pub(super) fn read_by_group(&mut self, message: &Message, handlings: &[&Handling]) {
        let Some(&last) = handlings.last() else { return };
        let row = self.flow.handled(last);
        let (Some(topic), Some(group)) = (&row.destination, &row.subscription) else { return };
        let left_sight = format!("left Flowtap's sight at {}", say::subscription(topic, group));
        match last.outcome {
            Some(Outcome::Committed | Outcome::Acked | Outcome::Auto) => {
                self.leads_on(message, last, row);
            }
            Some(Outcome::Abandoned) => {
                let settled = self.settled_at(last);
                if is_passed(row, settled, &self.known.world.groups) {
                    return self.leads_on(message, last, row);
                }
                let settle = last.settle.map(|settle| &self.flow.rows[settle]);
                let why = settle.and_then(|row| row.reason.as_deref());
                let said = format!(
                    "{} took {} from {} at {} and left it open at {}{}; it was not delivered again",
                    service(row),
                    say::message(message),
                    say::source(row),
                    self.time(row.at),
                    self.time(settled),
                    why.map(|why| format!(" ({why})")).unwrap_or_default()
                );
                let spot = Spot::group(self.known.world, &destination(row), group);
                self.waiting_at(&spot, settled, row, "abandoned", &said);
                self.prove(last.settle, "it was left open");
            }
            _ if !last.settles => {}
            _ if last.lost.is_some() => {
                let text = format!(
                    "{} received {} from {} at {}; its sidecar died before the group was seen past it.",
                    service(row),
                    say::message(message),
                    say::source(row),
                    self.time(row.at)
                );
                self.add(State::Unknown, "agent_died", row, left_sight, vec![text]);
                self.forget_service();
            }
            _ => self.open_in_group(message, handlings, row, left_sight),
        }
    }

    /// Delivered, perhaps again and again, and not committed.
    fn open_in_group(
        &mut self,
        message: &Message,
        handlings: &[&Handling],
        row: &Row,
        left_sight: String,
    ) {
        let done = |handling: &&&Handling| handling.outcome == Some(Outcome::Committed);
        let open: Vec<&Row> = handlings
            .iter()
            .rev()
            .take_while(|handling| !done(handling))
            .map(|handling| self.flow.handled(handling))
            .collect();
        let first = open.last().copied().unwrap_or(row);
        let who = service(row);
        let received =
            format!("{who} received {} from {}", say::message(message), say::source(row));
        let times = match open.len() {
            0 | 1 => format!("{received} at {}", self.time(row.at)),
            times => format!(
                "{received} {times} times since {}, the last time at {},",
                self.time(first.at),
                self.time(row.at)
            ),
        };
        let due = first.at.plus(self.known.patience_us + COMMIT_US);
        // What comes again and again has always just come: what counts is the first time.
        let sight = self.known.coverage.sight_since(&row.agent, None, row.at, due);
        if self.known.now < due || sight == Sight::NotYet {
            let text = format!("{times} and is at work on it.");
            self.add(State::Running, "waiting", row, format!("at {who}"), vec![text]);
        } else if sight == Sight::Clear {
            let text = format!("{times} and has not committed past it since.");
            self.add(State::Late, "waiting", row, format!("at {who}"), vec![text]);
        } else {
            let text = vec![format!("{times}."), self.why_blind(&row.agent, &who)];
            self.add(State::Unknown, "out_of_sight", row, left_sight, text);
            self.forget_service();
        }
        if let Some(finding) = self.found.last_mut() {
            finding.since = first.at;
        }
    }
}

/// Handlings by what should settle them: a queue, or a group at a topic.
pub(super) fn by_subscription<'a>(
    judge: &Judge<'_>,
    message: &'a Message,
) -> BTreeMap<(Option<Name>, Option<String>), Vec<&'a Handling>> {
    let mut by: BTreeMap<_, Vec<&Handling>> = BTreeMap::new();
    for handling in &message.handlings {
        let row = judge.flow.handled(handling);
        let topic = row.destination.clone().filter(|_| row.is_kafka());
        by.entry((queue_of(row), topic)).or_default().push(handling);
    }
    by
}

/// The transaction that a row ends, as people call it, and how it ended: "a transaction (factory-1)"
/// and "aborted".
pub(super) fn transaction(end: Option<&Row>) -> (String, String) {
    let id = end.and_then(|end| end.details.get("transactional_id")).and_then(Value::as_str);
    let why = end.and_then(|end| end.reason.as_deref());
    (
        format!("a transaction{}", id.map(|id| format!(" ({id})")).unwrap_or_default()),
        format!("aborted{}", why.map(|why| format!(" ({why})")).unwrap_or_default()),
    )
}

fn is_topic(row: &Row, other: &Row) -> bool {
    row.is_kafka() && row.destination == other.destination && row.broker() == other.broker()
}
