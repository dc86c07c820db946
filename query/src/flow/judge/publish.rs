//! Rules for what a service hands to a broker: refused, rolled back, returned, or come out where it
//! went in.

use std::collections::BTreeSet;

use flowtap_record::{Micros, Outcome};
use serde_json::Value;

use super::super::assemble::{Message, Publish};
use super::super::row::Row;
use super::super::say;
use super::super::world::Name;
use super::{AROUND_US, SKEW_US, UNKNOWN_DELAY_US};
use super::{Judge, State, death, destination, kafka, mandatory, service, sounds_dead, tries};

impl Judge<'_> {
    pub(super) fn publish(&mut self, message: &Message, publish: &Publish) {
        let row = &self.flow.rows[publish.row];
        // It came out somewhere: whatever the broker said, it was taken.
        let came_out = message
            .handlings
            .iter()
            .any(|handling| self.flow.handled(handling).at.plus(SKEW_US) >= row.at);
        let again = message.publishes.iter().any(|other| {
            self.flow.rows[other.row].at > row.at
                && !matches!(
                    other.outcome,
                    Some(Outcome::Refused | Outcome::Unroutable | Outcome::Aborted)
                )
        });
        match publish.outcome {
            Some(Outcome::Refused) if !came_out && !again => self.refused(message, publish, row),
            Some(Outcome::Aborted) if !came_out && !again => {
                self.aborted(message, publish, row);
            }
            Some(Outcome::Unroutable) if !came_out && !again => {
                self.unroutable(message, publish, row);
            }
            Some(Outcome::Refused | Outcome::Aborted | Outcome::Unroutable) => {}
            _ if publish.in_transaction && !came_out => {
                let text = format!(
                    "{} published {} in a broker transaction that is not committed yet.",
                    service(row),
                    say::message(message)
                );
                self.add(
                    State::Running,
                    "in_transaction",
                    row,
                    format!("at {}", service(row)),
                    vec![text],
                );
            }
            _ => self.arrival(message, publish, row),
        }
    }

    pub(super) fn refused(&mut self, message: &Message, publish: &Publish, row: &Row) {
        let why = publish.reason.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
        let text = format!(
            "{} published {} to {} at {} and the broker refused it{why}.",
            service(row),
            say::message(message),
            say::destination(row),
            self.time(row.at)
        );
        self.add(State::Broken, "refused", row, format!("at {}", service(row)), vec![text]);
        self.prove(publish.answer, "the broker refused it");
    }

    pub(super) fn aborted(&mut self, message: &Message, publish: &Publish, row: &Row) {
        let (what, how) = if row.is_kafka() {
            kafka::transaction(publish.end.map(|end| &self.flow.rows[end]))
        } else {
            ("a broker transaction".to_owned(), "rolled back".to_owned())
        };
        let text = format!(
            "{} published {} to {} at {} in {what} that was {how}, and not again.",
            service(row),
            say::message(message),
            say::destination(row),
            self.time(row.at)
        );
        self.add(State::Broken, "aborted", row, format!("at {}", service(row)), vec![text]);
        self.prove(publish.end, &format!("the transaction was {how}"));
    }

    pub(super) fn unroutable(&mut self, message: &Message, publish: &Publish, row: &Row) {
        let (name, key) = (destination(row), row.routing_key.as_deref().unwrap_or_default());
        let at = say::destination(row);
        if !self.known.world.reached_before(&name, key, row.at) {
            self.notes.push(format!("nobody listens at {at}"));
            return;
        }
        let text = format!(
            "{} published {} to {at} at {}, and no queue took it. Before, messages went through there.",
            service(row),
            say::message(message),
            self.time(row.at)
        );
        self.add(State::Broken, "unroutable", row, format!("at {at}"), vec![text]);
        // The publisher did its part: where the binding went, the facts do not say.
        if let Some(finding) = self.found.last_mut() {
            finding.service = None;
        }
        self.prove(publish.answer, "the broker returned it: no queue took it");
    }

    /// Whether it came out where it went in.
    pub(super) fn arrival(&mut self, message: &Message, publish: &Publish, row: &Row) {
        let world = self.known.world;
        let (name, key) = (destination(row), row.routing_key.as_deref().unwrap_or_default());
        let queues = world.queues_for(&name, key, row.at);
        let handled: BTreeSet<&str> = message
            .handlings
            .iter()
            .filter_map(|handling| self.flow.handled(handling).subscription.as_deref())
            .collect();
        if queues.is_empty() {
            let later = message
                .handlings
                .iter()
                .any(|handling| self.flow.handled(handling).at.plus(SKEW_US) >= row.at);
            if !later {
                self.out_of_sight(message, publish, row);
            }
            return;
        }
        for queue in queues {
            let queue = Name::new(&name.broker, &queue);
            if handled.contains(queue.name.as_str()) && self.came_out_of(message, &queue, row.at) {
                continue;
            }
            if self.came_out_of(message, &queue, row.at) || world.is_gone(&queue, self.known.now) {
                continue;
            }
            if world.is_dead_end(&queue) && self.parked(message, row, &queue) {
                continue;
            }
            let what = say::message(message);
            // A queue for a delay: nobody takes from it, it passes on what it held long enough.
            let next = world.dead_letters(&queue, key, row.at).into_iter().next();
            if let (true, Some(next)) = (world.consumers(&queue).is_empty(), next) {
                let delay = world.argument(&queue, "x-message-ttl").and_then(Value::as_i64);
                let delay = delay.map_or(UNKNOWN_DELAY_US, |ms| ms.saturating_mul(1000));
                let since = row.at.plus(delay);
                let said = format!(
                    "{what} rests in queue {} since {} and should come out of queue {next} at {}",
                    queue.name,
                    self.time(row.at),
                    self.time(since)
                );
                let next = Name::new(&name.broker, &next);
                self.waiting(&next, since, row, "waiting", &said);
                continue;
            }
            let said = format!("{what} waits in queue {} since {}", queue.name, self.time(row.at));
            self.waiting(&queue, row.at, row, "waiting", &said);
        }
    }

    /// Whether the message came out of a queue, or out of one that this queue passes it on to.
    pub(super) fn came_out_of(&self, message: &Message, queue: &Name, since: Micros) -> bool {
        let world = self.known.world;
        message.handlings.iter().any(|handling| {
            let row = self.flow.handled(handling);
            let here = row.subscription.as_deref() == Some(queue.name.as_str());
            let died_here = death(row, "queue") == Some(queue.name.as_str());
            let passed_on = !here
                && !died_here
                && row.subscription.as_deref().is_some_and(|other| {
                    let key = row.routing_key.as_deref().unwrap_or_default();
                    world.consumers(queue).is_empty()
                        && world.dead_letters(queue, key, row.at).contains(other)
                });
            (here || died_here || passed_on) && row.at.plus(SKEW_US) >= since
        })
    }

    pub(super) fn out_of_sight(&mut self, message: &Message, publish: &Publish, row: &Row) {
        let at = say::destination(row);
        let mut more = Vec::new();
        if publish.outcome == Some(Outcome::Confirmed) && mandatory(row) {
            more.push("The broker says that some queue took it.".to_owned());
        }
        self.left_sight(message, row, &at, more);
    }

    pub(super) fn left_sight(&mut self, message: &Message, row: &Row, at: &str, more: Vec<String>) {
        if self.known.now < row.at.plus(self.known.patience_us) {
            let text = format!(
                "{} published {} to {at} at {}.",
                service(row),
                say::message(message),
                self.time(row.at)
            );
            let headline = format!("last step {}", say::message(message));
            return self.add(State::Running, "in_transit", row, headline, vec![text]);
        }
        let mut text = vec![format!(
            "{} published {} to {at} at {}; which queues it goes to from there is not known.",
            service(row),
            say::message(message),
            self.time(row.at)
        )];
        text.extend(more);
        let headline = format!("left Flowtap's sight at {at}");
        self.add(State::Unknown, "out_of_sight", row, headline, text);
        if let Some(finding) = self.found.last_mut() {
            finding.service = None;
        }
    }

    /// Whether the message was given up: the service that was handling it put it into a queue where
    /// nobody takes it, and that queue is for dead letters: another queue's arguments say so, or it
    /// is called so and the message had been tried before.
    pub(super) fn parked(&mut self, message: &Message, row: &Row, queue: &Name) -> bool {
        let handled = message.handlings.iter().rev().find(|handling| {
            let deliver = self.flow.handled(handling);
            let end = handling.settle.map_or(self.known.now, |settle| self.flow.rows[settle].at);
            deliver.service == row.service && deliver.at <= row.at && row.at <= end.plus(AROUND_US)
        });
        let for_dead_letters = self.known.world.is_dead_letter_queue(queue, row.at);
        let Some(handled) = handled else { return for_dead_letters };
        let deliver = self.flow.handled(handled);
        let attempts = self.attempts(message, deliver.subscription.as_deref());
        if !(for_dead_letters || attempts > 1 && sounds_dead(&queue.name)) {
            return false;
        }
        let who = service(row);
        let text = format!(
            "{who} gave up on {}{} and put it into queue {} at {}, where nobody takes it.",
            say::message(message),
            tries(attempts),
            queue.name,
            self.time(row.at)
        );
        self.add(State::Broken, "rejected", deliver, format!("at {who}"), vec![text]);
        if let Some(finding) = self.found.last_mut() {
            finding.since = row.at;
        }
        self.prove_row(row, &format!("{who} put it into queue {}", queue.name));
        true
    }
}
