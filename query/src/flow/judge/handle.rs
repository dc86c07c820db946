//! Rules for deliveries: open, rejected, handed back, or done and nothing follows.

use flowtap_record::Outcome;
use serde_json::Value;

use super::super::assemble::{Handling, Message};
use super::super::coverage::Sight;
use super::super::row::Row;
use super::super::say;
use super::super::world::{Name, queue_of};
use super::{Judge, SKEW_US, State, death, service, tries};

impl Judge<'_> {
    /// All deliveries of the message out of one queue: the last decides.
    pub(super) fn handlings(&mut self, message: &Message, handlings: &[&Handling]) {
        let Some(&last) = handlings.last() else { return };
        let row = self.flow.handled(last);
        let Some(queue) = queue_of(row) else { return };
        match last.outcome {
            Some(Outcome::Acked | Outcome::Committed | Outcome::Auto) => {
                self.leads_on(message, last, row);
            }
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
            _ if last.lost_sight => {
                let text = format!(
                    "{} received {} from queue {} at {}; its sidecar died before it was settled.",
                    service(row),
                    say::message(message),
                    queue.name,
                    self.time(row.at)
                );
                let headline = format!("left Flowtap's sight at queue {}", queue.name);
                self.add(State::Unknown, "agent_died", row, headline, vec![text]);
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
        match self.known.coverage.sight(&row.agent, row.at, due) {
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

    pub(super) fn rejected(&mut self, message: &Message, last: &Handling, row: &Row, queue: &Name) {
        let world = self.known.world;
        let settled = self.settled_at(last);
        // What the queue gave up came out elsewhere.
        let key = row.routing_key.as_deref().unwrap_or_default();
        let targets = world.dead_letters(queue, key, settled);
        let later: Vec<&Handling> = message
            .handlings
            .iter()
            .filter(|other| {
                let other = self.flow.handled(other);
                let elsewhere = other.subscription.as_deref() != Some(queue.name.as_str());
                let from_here = death(other, "queue") == Some(queue.name.as_str())
                    || other.subscription.as_ref().is_some_and(|it| targets.contains(it));
                elsewhere && from_here && other.at.plus(SKEW_US) >= settled
            })
            .collect();
        let done = later.iter().any(|other| {
            matches!(other.outcome, Some(Outcome::Acked | Outcome::Committed | Outcome::Auto))
        });
        if done {
            return;
        }
        let who = service(row);
        let what = say::message(message);
        let attempts = self.attempts(message, Some(&queue.name));
        let took = self.took(last, row);
        let mut text = vec![format!(
            "{who} received {what} from queue {} at {} and rejected it{took}{}.",
            queue.name,
            self.time(row.at),
            tries(attempts)
        )];
        if later.iter().any(|other| other.outcome.is_none()) {
            text.push("What was dead-lettered is being handled.".to_owned());
            return self.add(State::Running, "rejected", row, format!("at {who}"), text);
        }
        let returned_before = message.handlings.iter().any(|other| {
            let other = self.flow.handled(other);
            death(other, "queue") == Some(queue.name.as_str())
                && death(other, "reason") == Some("rejected")
                && other.subscription.as_deref() == Some(queue.name.as_str())
        });
        let leads_back = world.leads_back(queue, key, settled);
        if leads_back || returned_before {
            let rest = self.rest(queue, key, settled);
            let since = settled.plus(rest);
            let said = format!("{} It should have come back", text.join(" "));
            self.waiting(queue, since, row, "rejected", &said);
            return;
        }
        match targets.iter().next() {
            Some(dead) => text.push(format!("The message now lies in {dead}.")),
            None if world.is_declared(queue) => {
                text.push(
                    "The queue names no dead-letter exchange that leads to a known queue."
                        .to_owned(),
                );
            }
            None => {}
        }
        self.add(State::Broken, "rejected", row, format!("at {who}"), text);
        self.prove(last.settle, &format!("{who} rejected {what} from queue {}", queue.name));
    }

    pub(super) fn requeued(&mut self, message: &Message, last: &Handling, row: &Row, queue: &Name) {
        let settled = self.settled_at(last);
        let who = service(row);
        let what = say::message(message);
        let attempts = self.attempts(message, Some(&queue.name));
        let limit = self.known.world.argument(queue, "x-delivery-limit").and_then(Value::as_i64);
        let key = row.routing_key.as_deref().unwrap_or_default();
        let handed_back = format!(
            "{who} received {what} from queue {} at {} and handed it back{}",
            queue.name,
            self.time(row.at),
            tries(attempts)
        );
        if let Some(limit) = limit
            && i64::from(attempts) > limit
        {
            // The broker gives it up now: like a rejection.
            let targets = self.known.world.dead_letters(queue, key, settled);
            let done = message.handlings.iter().any(|other| {
                let good = matches!(other.outcome, Some(Outcome::Acked | Outcome::Auto) | None);
                let other = self.flow.handled(other);
                other.subscription.as_ref().is_some_and(|it| targets.contains(it)) && good
            });
            if done {
                return;
            }
            if !self.known.world.leads_back(queue, key, settled) {
                let mut text = vec![format!("{handed_back}; the queue allows {limit}.")];
                if let Some(dead) = targets.iter().next() {
                    text.push(format!("The message now lies in {dead}."));
                }
                self.add(State::Broken, "rejected", row, format!("at {who}"), text);
                return self.prove(last.settle, &format!("{who} handed it back the last time"));
            }
        }
        self.waiting(
            queue,
            settled,
            row,
            "requeued",
            &format!("{handed_back}. It waits there since"),
        );
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
