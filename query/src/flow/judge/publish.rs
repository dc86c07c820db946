//! Rules for what a service hands to a broker: refused, rolled back, returned, or come out where it
//! went in.

use std::collections::BTreeSet;

use flowtap_record::{Micros, Outcome};
use serde_json::Value;

use super::super::assemble::{Message, Publish};
use super::super::coverage::Sight;
use super::super::row::Row;
use super::super::say;
use super::super::world::Name;
use super::{AROUND_US, SKEW_US, TRANSACTION_US, UNKNOWN_DELAY_US};
use super::{Judge, State, death, destination, kafka, mandatory, service, sounds_dead, tries};

impl Judge<'_> {
    pub(super) fn publish(&mut self, message: &Message, publish: &Publish) {
        let row = &self.flow.rows[publish.row];
        // It came out somewhere: whatever the broker said, it was taken.
        let came_out = message
            .handlings
            .iter()
            .any(|handling| self.flow.handled(handling).at.plus(SKEW_US) >= row.at);
        let later = message.publishes.iter().any(|other| {
            self.flow.rows[other.row].at > row.at
                && !matches!(
                    other.outcome,
                    Some(Outcome::Refused | Outcome::Unroutable | Outcome::Aborted)
                )
        });
        let outcome = publish.outcome.filter(|&outcome| {
            // An exchange that delays returns what it holds back.
            outcome != Outcome::Unroutable || !self.is_delayed(publish, row)
        });
        let twin = || !later && !came_out && self.has_twin(message, publish, row);
        match outcome {
            Some(Outcome::Refused | Outcome::Aborted) if twin() => {
                self.published_anew(message, row);
            }
            Some(Outcome::Refused) if !came_out && !later => {
                self.refused_unless_again(message, publish, row);
            }
            Some(Outcome::Aborted) if !came_out && !later => {
                self.aborted(message, publish, row);
            }
            Some(Outcome::Unroutable) if !came_out && !later => {
                self.unroutable(message, publish, row);
            }
            Some(Outcome::Refused | Outcome::Aborted | Outcome::Unroutable) => {}
            _ if publish.in_transaction && !came_out => {
                self.in_open_transaction(message, publish, row);
            }
            None if row.confirm_expected == Some(true) && !came_out && !later => {
                if twin() {
                    self.published_anew(message, row);
                } else {
                    self.unanswered(message, row);
                }
            }
            _ => self.arrival(message, publish, row),
        }
    }

    fn published_anew(&mut self, message: &Message, row: &Row) {
        let what = say::message(message);
        let text = format!(
            "the broker did not take {what} of {}; one like it was published to {} afterwards",
            self.time(row.at),
            say::exchange(
                row.destination.as_deref().unwrap_or_default(),
                row.routing_key.as_deref().unwrap_or_default()
            )
        );
        self.notes.push(text);
    }

    /// Whether the same thing was published again as a message of its own, as a transaction that
    /// runs again does, or a client that makes a new id for each try: by the same service, to the
    /// same place, of the same type and cause, after the broker's word on this one.
    pub(super) fn has_twin(&self, message: &Message, publish: &Publish, row: &Row) -> bool {
        let said = publish.end.or(publish.answer).map_or(row.at, |end| self.flow.rows[end].at);
        let like = |other: &Message| match (&message.causation_id, &other.causation_id) {
            (None, None) => true,
            (mine, others) => mine == others,
        };
        self.flow.messages.iter().enumerate().any(|(index, other)| {
            index != self.index
                && message.event_type == other.event_type
                && like(other)
                && other.publishes.iter().any(|publish| {
                    let twin = &self.flow.rows[publish.row];
                    let after = if twin.agent == row.agent { said } else { row.at };
                    twin.at >= after
                        && twin.id != row.id
                        && twin.service == row.service
                        && destination(twin) == destination(row)
                        && twin.routing_key == row.routing_key
                        && !publish.in_transaction
                        && !matches!(
                            publish.outcome,
                            Some(Outcome::Refused | Outcome::Aborted | Outcome::Unroutable)
                        )
                })
        })
    }

    /// Clients send again by themselves what the broker refuses.
    pub(super) fn refused_unless_again(&mut self, message: &Message, publish: &Publish, row: &Row) {
        let answered = publish.answer.map_or(row.at, |answer| self.flow.rows[answer].at);
        let due = answered.plus(self.known.patience_us);
        let early = self.known.now < due
            || self.known.coverage.sight(&row.agent, row.at, due) == Sight::NotYet;
        if !early {
            return self.refused(message, publish, row);
        }
        let why = publish.reason.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
        let text = format!(
            "{} published {} to {} at {} and the broker refused it{why}; it may be sent again.",
            service(row),
            say::message(message),
            say::destination(row),
            self.time(row.at)
        );
        self.add(State::Running, "refused", row, format!("at {}", service(row)), vec![text]);
    }

    /// Part of a transaction whose end was not seen, or not what became of it.
    pub(super) fn in_open_transaction(&mut self, message: &Message, publish: &Publish, row: &Row) {
        let who = service(row);
        let text = format!(
            "{who} published {} to {} at {} in a transaction",
            say::message(message),
            say::destination(row),
            self.time(row.at)
        );
        // Its end is there and does not say how: the broker's answer did not come.
        let ended = publish.end.map(|end| self.flow.rows[end].at);
        let due = ended.map_or(row.at.plus(TRANSACTION_US), |end| end.plus(self.known.patience_us));
        let sight = self.own_sight(row, due);
        if self.known.now < due || sight == Sight::NotYet {
            let text = format!("{text} that is not committed yet.");
            let headline = format!("at {who}");
            return self.add(State::Running, "in_transaction", row, headline, vec![text]);
        }
        // A transaction that is open while its sidecar starts again has no end in the rows: the new
        // start does not know what passed before it.
        let restarted = self.known.coverage.over.contains_key(&row.id.boot);
        if sight == Sight::Clear && ended.is_none() && !restarted {
            let text = format!("{text} that has not ended since.");
            return self.add(State::Late, "in_transaction", row, format!("at {who}"), vec![text]);
        }
        let text = if let Some(end) = ended {
            let end = self.time(end);
            vec![format!("{text} that ended at {end} without the broker's word on how.")]
        } else {
            let why = if sight == Sight::Clear {
                format!("The sidecar of {who} was started again since.")
            } else {
                self.why_blind(&row.agent, &who)
            };
            vec![format!("{text}; its end was not seen."), why]
        };
        let headline = format!("left Flowtap's sight at {}", place_of(row));
        self.add(State::Unknown, "in_transaction", row, headline, text);
        self.forget_service();
    }

    /// The broker owes an answer.
    pub(super) fn unanswered(&mut self, message: &Message, row: &Row) {
        let who = service(row);
        let text = format!(
            "{who} published {} to {} at {}",
            say::message(message),
            say::destination(row),
            self.time(row.at)
        );
        let due = row.at.plus(self.known.patience_us);
        let sight = self.own_sight(row, due);
        if self.known.now < due || sight == Sight::NotYet {
            let headline = format!("last step {}", say::message(message));
            return self.add(State::Running, "in_transit", row, headline, vec![format!("{text}.")]);
        }
        let place = place_of(row);
        if sight == Sight::Clear {
            let text = format!("{text}, and the broker has not taken it since.");
            self.add(State::Late, "unanswered", row, format!("at {place}"), vec![text]);
        } else {
            let text = vec![
                format!("{text}; the broker's answer was not seen."),
                self.why_blind(&row.agent, &who),
            ];
            let headline = format!("left Flowtap's sight at {place}");
            self.add(State::Unknown, "out_of_sight", row, headline, text);
        }
        self.forget_service();
    }

    /// What the agent of a row sees of what comes of it. In Kafka that is not tied to a connection.
    fn own_sight(&self, row: &Row, due: Micros) -> Sight {
        let connection = row.connection.filter(|_| !row.is_kafka());
        self.known.coverage.sight_since(&row.agent, connection, row.at, due)
    }

    /// Whether an exchange may hold the message back for a time.
    fn is_delayed(&self, publish: &Publish, row: &Row) -> bool {
        let returned = publish.answer.map(|answer| &self.flow.rows[answer].details);
        row.details.get("mandatory").and_then(Value::as_str) == Some("delayed")
            || returned.is_some_and(|details| details["delayed"] == true)
            || self.known.world.delays(&destination(row))
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
        let world = self.known.world;
        if !world.reached_before(&name, key, row.at) || world.is_only_listened_to(&name, key) {
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
            if self.is_delayed(publish, row) {
                self.held_back(message, row);
                continue;
            }
            let what = say::message(message);
            // A queue for a delay: nobody takes from it, it passes on what it held long enough.
            let next = world.dead_letters(&queue, key, row.at).into_iter().next();
            let emptied = world.emptied(&queue, row.at);
            if let (true, None, Some(next)) = (world.consumers(&queue).is_empty(), emptied, next) {
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

    /// The exchange keeps it for a time that is not known.
    fn held_back(&mut self, message: &Message, row: &Row) {
        let at = say::destination(row);
        let text = format!(
            "{} published {} to {at} at {}, which holds messages back for a time.",
            service(row),
            say::message(message),
            self.time(row.at)
        );
        if self.known.now < row.at.plus(UNKNOWN_DELAY_US + self.known.patience_us) {
            let headline = format!("last step {}", say::message(message));
            return self.add(State::Running, "in_transit", row, headline, vec![text]);
        }
        let headline = format!("left Flowtap's sight at {at}");
        self.add(State::Unknown, "out_of_sight", row, headline, vec![text]);
        self.forget_service();
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
            "{} published {} to {at} at {}; where it goes from there is not known.",
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

    /// Whether the message was given up: the service that was handling it put it into a queue for
    /// dead letters. Its name says that it is one, and another queue's arguments, or that the
    /// message had been tried before. That nobody is seen to take it from there proves nothing.
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
        let is_called_so = sounds_dead(&queue.name);
        if !(for_dead_letters || attempts > 1 && is_called_so) {
            return false;
        }
        let who = service(row);
        if !is_called_so {
            let more = vec![format!("Nobody is seen to take from queue {}.", queue.name)];
            self.left_sight(message, row, &format!("queue {}", queue.name), more);
            return true;
        }
        let text = format!(
            "{who} gave up on {}{} and put it into queue {} at {}, which nobody is seen to take from.",
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

/// "topic cars", or "exchange orders, key order.placed".
fn place_of(row: &Row) -> String {
    if row.is_kafka() {
        return format!("topic {}", row.destination.as_deref().unwrap_or_default());
    }
    say::destination(row)
}
