//! Rules for what should come out of a queue, or be taken by a group, and is not: late where everybody looked, else
//! unknown. Never broken.

use std::collections::BTreeSet;

use flowtap_record::Micros;

use super::super::coverage::{Life, Sight};
use super::super::row::Row;
use super::super::say;
use super::super::world::{Consumer, Name, World};
use super::{Judge, State};

/// Where a message should come out.
pub(super) struct Spot {
    /// "queue factory.orders", "topic cars, group showroom".
    at: String,
    /// Queue or group.
    subscription: String,
    consumers: Vec<Consumer>,
    is_gone: bool,
    is_group: bool,
}

impl Spot {
    fn queue(world: &World, queue: &Name, now: Micros) -> Self {
        Self {
            at: format!("queue {}", queue.name),
            subscription: queue.name.clone(),
            consumers: world.consumers(queue).to_vec(),
            is_gone: world.is_gone(queue, now),
            is_group: false,
        }
    }

    pub(super) fn group(world: &World, topic: &Name, group: &str) -> Self {
        Self {
            at: say::subscription(&topic.name, group),
            subscription: group.to_owned(),
            consumers: world.groups.members(topic, group),
            is_gone: false,
            is_group: true,
        }
    }
}

impl Judge<'_> {
    /// Something should come out of `queue` since `since`. Late where everybody who takes from it
    /// is seen; unknown where not; running before it is due.
    pub(super) fn waiting(
        &mut self,
        queue: &Name,
        since: Micros,
        row: &Row,
        reason: &'static str,
        said: &str,
    ) {
        let spot = Spot::queue(self.known.world, queue, self.known.now);
        self.waiting_at(&spot, since, row, reason, said);
    }

    pub(super) fn waiting_at(
        &mut self,
        spot: &Spot,
        since: Micros,
        row: &Row,
        reason: &'static str,
        said: &str,
    ) {
        let known = self.known;
        let due = since.plus(known.patience_us);
        let told = |text: &str| {
            if said.ends_with("since") { format!("{said} {text}") } else { said.to_owned() }
        };
        let said = told(&self.time(since));
        if spot.is_gone {
            self.notes.push(format!("{} is gone, with what it held", spot.at));
            return;
        }
        let (mut blind, mut not_yet, mut services) = (None, false, BTreeSet::new());
        let consumers = &spot.consumers;
        for consumer in consumers {
            services.extend(consumer.service.clone());
            match known.coverage.sight(&consumer.agent, since, due) {
                Sight::Clear => {}
                Sight::NotYet => not_yet = true,
                Sight::Blind if self.is_replaced(consumer, consumers) => {}
                Sight::Blind => blind = Some(consumer),
            }
        }
        let nobody = services.is_empty();
        let (state, reason) = if known.now < due {
            (State::Running, reason)
        } else if blind.is_some() || nobody {
            (State::Unknown, if reason == "waiting" { "out_of_sight" } else { reason })
        } else if not_yet {
            (State::Running, reason)
        } else {
            (State::Late, reason)
        };
        let only = if services.len() == 1 { services.first().cloned() } else { None };
        let mut text = vec![format!("{said}.")];
        let headline = match state {
            State::Unknown => {
                text.push(match blind {
                    Some(consumer) => self.why_blind(
                        &consumer.agent,
                        consumer.service.as_deref().unwrap_or("its consumer"),
                    ),
                    None if spot.is_group => "Nobody is known to be in the group.".to_owned(),
                    None => "Nobody is known to take from it.".to_owned(),
                });
                format!("left Flowtap's sight at {}", spot.at)
            }
            State::Late => {
                match &only {
                    Some(service) if spot.is_group => {
                        text.push(format!(
                            "{service}, which is in the group, has not come past it."
                        ));
                    }
                    Some(service) => {
                        text.push(format!("{service}, which takes from it, has not settled it."));
                    }
                    None => {}
                }
                format!("in {}", spot.at)
            }
            _ => format!("in {}", spot.at),
        };
        self.add(state, reason, row, headline, text);
        if let Some(finding) = self.found.last_mut() {
            finding.place.subscription = Some(spot.subscription.clone());
            finding.since = since;
            finding.service = if state == State::Unknown { None } else { only };
        }
    }

    /// Whether a consumer whose agent ended in order has a successor that is seen.
    pub(super) fn is_replaced(&self, gone: &Consumer, consumers: &[Consumer]) -> bool {
        let coverage = self.known.coverage;
        coverage.agent(&gone.agent).is_some_and(|agent| agent.life == Life::Ended)
            && consumers.iter().any(|other| {
                other.service == gone.service
                    && coverage.agent(&other.agent).is_some_and(|agent| agent.life == Life::Live)
            })
    }

    pub(super) fn why_blind(&self, agent: &str, service: &str) -> String {
        match self.known.coverage.agent(agent) {
            None => format!("{service} has no sidecar that reports."),
            Some(agent) => match agent.life {
                Life::Live => format!("The sidecar of {service} could not see everything since."),
                Life::Ended => {
                    format!("The sidecar of {service} ended at {}.", self.time(agent.watermark))
                }
                Life::Silent | Life::Died => format!(
                    "The sidecar of {service} is silent since {}.",
                    self.time(agent.watermark)
                ),
            },
        }
    }
}
