//! Rules for deliveries: open, rejected, handed back, or done and nothing follows.

use std::collections::BTreeSet;

use flowtap_record::{Micros, Outcome};
use serde_json::Value;

use super::super::assemble::{Handling, Lost, Message};
use super::super::coverage::Sight;
use super::super::row::Row;
use super::super::say;
use super::super::world::{Name, queue_of};
use super::{AROUND_US, Judge, SKEW_US, State, UNKNOWN_DELAY_US, death, service, tries};

impl Judge<'_> {
    /// All deliveries of the message out of one queue: the last decides, unless another ended well
    /// and may have been later.
    pub(super) fn handlings(&mut self, message: &Message, handlings: &[&Handling]) {
        let Some(&last) = handlings.last() else { return };
        let row = self.flow.handled(last);
        let Some(queue) = queue_of(row) else { return };
        if is_good(last) {
            return self.leads_on(message, last, row);
        }
        let done = handlings.iter().rev().find(|it| is_good(it) && !self.passed_on(message, it));
        if let Some(done) = done {
            if !self.is_before(done, last) {
                return self.leads_on(message, done, self.flow.handled(done));
            }
            // What bears an id of its own is the same once more, however often it is published.
            if message.event_id.is_some() {
                self.notes.push(format!(
                    "{} was acknowledged by {} at {}; of what queue {} delivered again at {} that \
                     is not known",
                    say::message(message),
                    service(self.flow.handled(done)),
                    self.time(self.settled_at(done)),
                    queue.name,
                    self.time(row.at)
                ));
                return;
            }
        }
        match last.outcome {
            Some(Outcome::Rejected) => self.rejected(message, last, row, &queue),
            Some(Outcome::Requeued) => self.requeued(message, last, row, &queue),
            Some(Outcome::Abandoned) => {
                let settled = self.settled_at(last);
                let said = format!(
                    "{} took {} from queue {} at {} and left it open when its connection ended at {}; \
                     it was not delivered again",
                    service(row),
                    say::message(message),
                    queue.name,
                    self.time(row.at),
                    self.time(settled)
                );
                self.waiting(&queue, settled, row, "abandoned", &said);
                self.prove(last.settle, "it was left open");
            }
            _ if !last.settles => {}
            _ if last.lost.is_some() => {
                let (reason, why) = match last.lost {
                    Some(Lost::AgentDied) => {
                        ("agent_died", "its sidecar died before it was settled")
                    }
                    _ => {
                        ("out_of_sight", "its sidecar could not follow the connection from then on")
                    }
                };
                let text = format!(
                    "{} received {} from queue {} at {}; {why}.",
                    service(row),
                    say::message(message),
                    queue.name,
                    self.time(row.at)
                );
                let headline = format!("left Flowtap's sight at queue {}", queue.name);
                self.add(State::Unknown, reason, row, headline, vec![text]);
                self.forget_service();
            }
            _ => self.open(message, row, &queue),
        }
    }

    /// Delivered, and nothing more is known.
    pub(super) fn open(&mut self, message: &Message, row: &Row, queue: &Name) {
        let due = row.at.plus(self.known.patience_us);
        let who = service(row);
        let received = format!(
            "{who} received {} from queue {} at {}",
            say::message(message),
            queue.name,
            self.time(row.at)
        );
        match self.known.coverage.sight_since(&row.agent, row.connection, row.at, due) {
            Sight::Clear => {
                let text = format!("{received} and has not settled it since.");
                self.add(State::Late, "waiting", row, format!("at {who}"), vec![text]);
            }
            Sight::NotYet => {
                let text = format!("{received} and is at work on it.");
                self.add(State::Running, "waiting", row, format!("at {who}"), vec![text]);
            }
            Sight::Blind => {
                let headline = format!("left Flowtap's sight at queue {}", queue.name);
                let text = vec![format!("{received}."), self.why_blind(&row.agent, &who)];
                self.add(State::Unknown, "out_of_sight", row, headline, text);
                self.forget_service();
            }
        }
    }

    /// Whether a handling ended before another did, whatever the clocks of their machines say.
    fn is_before(&self, one: &Handling, other: &Handling) -> bool {
        let (end, start) = (self.settled_at(one), self.settled_at(other));
        if self.flow.handled(one).agent == self.flow.handled(other).agent {
            end <= start
        } else {
            end.plus(SKEW_US) < start
        }
    }

    /// Whether a service that acknowledged the message published it again by itself, as those do
    /// that count their attempts: then it was not done.
    fn passed_on(&self, message: &Message, handling: &Handling) -> bool {
        let row = self.flow.handled(handling);
        let end = self.settled_at(handling).plus(AROUND_US);
        message.publishes.iter().any(|publish| {
            let publish = &self.flow.rows[publish.row];
            publish.service == row.service && (row.at..=end).contains(&publish.at)
        })
    }

    fn rejected(&mut self, message: &Message, last: &Handling, row: &Row, queue: &Name) {
        let attempts = self.attempts(message, Some(&queue.name));
        let text = format!(
            "{} received {} from queue {} at {} and rejected it{}{}.",
            service(row),
            say::message(message),
            queue.name,
            self.time(row.at),
            self.took(last, row),
            tries(attempts)
        );
        self.gave_up(message, last, row, queue, text);
    }

    /// A queue gave a message up because a service would not have it. `said` tells how.
    fn gave_up(
        &mut self,
        message: &Message,
        last: &Handling,
        row: &Row,
        queue: &Name,
        said: String,
    ) {
        let world = self.known.world;
        let settled = self.settled_at(last);
        // What the queue gave up came out elsewhere.
        let key = row.routing_key.as_deref().unwrap_or_default();
        let targets = world.dead_letters(queue, key, settled);
        let elsewhere = |other: &&Handling| {
            let other = self.flow.handled(other);
            let there = other.subscription.as_deref() != Some(queue.name.as_str());
            let from_here = death(other, "queue") == Some(queue.name.as_str())
                || other.subscription.as_ref().is_some_and(|it| targets.contains(it));
            there && from_here && other.at.plus(SKEW_US) >= settled
        };
        let later: Vec<&Handling> = message.handlings.iter().filter(elsewhere).collect();
        if later.iter().any(|other| is_good(other)) {
            return;
        }
        let who = service(row);
        let mut text = vec![said];
        if later.iter().any(|other| other.outcome.is_none()) {
            text.push("What was dead-lettered is being handled.".to_owned());
            return self.add(State::Running, "rejected", row, format!("at {who}"), text);
        }
        let leads_back = world.leads_back(queue, key, settled) || world.gives_back(queue);
        if leads_back || self.came_back(message, queue) {
            let rest = self.rest(queue, key, settled);
            let since = settled.plus(rest);
            let said = format!("{} It should have come back", text.join(" "));
            self.waiting(queue, since, row, "rejected", &said);
            return;
        }
        let for_retries = targets.iter().any(|target| sounds_like_a_retry(target));
        match world.dead_letter_exchange(queue) {
            Some(exchange) if targets.is_empty() || for_retries => {
                let at = say::exchange(exchange, "");
                return self.dead_lettered_out_of_sight(row, settled, &at, text);
            }
            Some(_) => text.push(format!("The message went to {}.", some(&targets))),
            None if world.is_declared(queue) => {
                text.push(
                    "The queue names no dead-letter exchange that leads to a known queue."
                        .to_owned(),
                );
            }
            None => {}
        }
        self.add(State::Broken, "rejected", row, format!("at {who}"), text);
        let how = if last.outcome == Some(Outcome::Rejected) { "rejected" } else { "handed back" };
        let what = say::message(message);
        self.prove(last.settle, &format!("{who} {how} {what} from queue {}", queue.name));
    }

    /// Whether the message was given up by this queue before and delivered by it again.
    fn came_back(&self, message: &Message, queue: &Name) -> bool {
        let name = Some(queue.name.as_str());
        let mut rejected = false;
        for handling in &message.handlings {
            let row = self.flow.handled(handling);
            if row.subscription.as_deref() != name {
                continue;
            }
            let died_here = death(row, "queue") == name && death(row, "reason") == Some("rejected");
            let counted = row.attempt.is_some_and(|attempt| attempt > 1);
            // What is counted and not redelivered was dead-lettered and published here again.
            if rejected || died_here || counted && row.redelivered == Some(false) {
                return true;
            }
            rejected = handling.outcome == Some(Outcome::Rejected);
        }
        false
    }

    /// Given up to an exchange from where its way is not known: it may come back.
    fn dead_lettered_out_of_sight(
        &mut self,
        row: &Row,
        settled: Micros,
        at: &str,
        mut text: Vec<String>,
    ) {
        let who = service(row);
        if self.known.now < settled.plus(UNKNOWN_DELAY_US + self.known.patience_us) {
            text.push(format!("It went to {at} and may come back from there."));
            return self.add(State::Running, "rejected", row, format!("at {who}"), text);
        }
        text.push(format!(
            "It went to {at} and did not come back; where it goes from there is not known."
        ));
        let headline = format!("left Flowtap's sight at {at}");
        self.add(State::Unknown, "rejected", row, headline, text);
        self.forget_service();
    }

    fn requeued(&mut self, message: &Message, last: &Handling, row: &Row, queue: &Name) {
        let settled = self.settled_at(last);
        let attempts = self.attempts(message, Some(&queue.name));
        let handed_back = format!(
            "{} received {} from queue {} at {} and handed it back{}",
            service(row),
            say::message(message),
            queue.name,
            self.time(row.at),
            tries(attempts)
        );
        let died = message.handlings.iter().map(|other| self.flow.handled(other)).any(|other| {
            death(other, "queue") == Some(queue.name.as_str())
                && death(other, "reason") == Some("delivery_limit")
        });
        if died {
            let text = format!("{handed_back}; that was more often than the queue allows.");
            return self.gave_up(message, last, row, queue, text);
        }
        let before = self.found.len();
        let said = format!("{handed_back}. It waits there since");
        self.waiting(queue, settled, row, "requeued", &said);
        // Only what the broker itself counts goes against the limit, and RabbitMQ 4.3 does not count
        // what is handed back; so the message must have stayed away, too.
        let limit = self.known.world.argument(queue, "x-delivery-limit").and_then(Value::as_i64);
        let counted = row.details.get("delivery_count").and_then(Value::as_i64);
        let late = self.found.get(before).is_some_and(|found| found.state == State::Late);
        if let (Some(limit), Some(counted), true) = (limit, counted, late)
            && (0..=counted).contains(&limit)
        {
            self.found.truncate(before);
            let text = format!("{handed_back}; the queue allows {limit}.");
            self.gave_up(message, last, row, queue, text);
        }
    }

    /// It was handled well: does what usually follows?
    pub(super) fn leads_on(&mut self, message: &Message, last: &Handling, row: &Row) {
        let (Some(service), Some(event_type)) = (&row.service, &message.event_type) else { return };
        let Some(habit) = self.known.habits.leads_on(service, event_type) else { return };
        let followed = self.flow.messages.iter().enumerate().any(|(index, other)| {
            index != self.index
                && other.publishes.iter().any(|publish| {
                    let publish = &self.flow.rows[publish.row];
                    let caused = match (&publish.causation_id, &message.event_id) {
                        (Some(cause), Some(event)) => cause == event,
                        _ => publish.at >= row.at,
                    };
                    caused && publish.service.as_ref() == Some(service)
                })
        });
        let copied = message.publishes.iter().any(|publish| {
            let publish = &self.flow.rows[publish.row];
            publish.at >= row.at && publish.service.as_ref() == Some(service)
        });
        if followed || copied {
            return;
        }
        let done = if row.is_kafka() { "committed past it" } else { "acknowledged it" };
        // Of a group that is past it the time is not known.
        let when = last.settle.map(|_| format!(" at {}", self.time(self.settled_at(last))));
        let text = vec![
            format!(
                "The last step is {}: {service} {done}{}, and nothing followed yet.",
                say::message(message),
                when.unwrap_or_default()
            ),
            format!(
                "After {} of {} like ones {service} published something.",
                habit.followed, habit.handled
            ),
        ];
        let headline = format!("last step {} at {service}", say::message(message));
        self.add(State::Running, "nothing_followed", row, headline, text);
        self.prove(last.settle, &format!("{service} {done}"));
    }
}

fn is_good(handling: &Handling) -> bool {
    matches!(handling.outcome, Some(Outcome::Acked | Outcome::Committed | Outcome::Auto))
}

/// Names that people give to queues where messages rest until they are tried again.
fn sounds_like_a_retry(name: &str) -> bool {
    let name = name.to_lowercase();
    ["retry", "retries", "delay", "wait", "later", "backoff", "requeue"]
        .iter()
        .any(|word| name.contains(word))
}

/// Some names, not too many.
fn some(names: &BTreeSet<String>) -> String {
    let (few, more) = (3, names.len().saturating_sub(3));
    let text = names.iter().take(few).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{text} and {more} more") } else { text }
}
