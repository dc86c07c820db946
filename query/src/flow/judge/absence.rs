//! Rules for what should come out of a queue, or be taken by a group, and is not: late where
//! everybody looked, else unknown. Never broken.

use std::collections::BTreeSet;

use flowtap_record::Micros;

use super::super::coverage::{AWAY_US, Life, Sight};
use super::super::row::Row;
use super::super::say;
use super::super::world::{Consumer, Emptied, Name, World};
use super::{Judge, State};

/// Where a message should come out.
pub(super) struct Spot {
    /// "queue factory.orders", "topic cars, group showroom".
    at: String,
    /// Queue or group.
    subscription: String,
    takers: Vec<Taker>,
    is_gone: bool,
    /// When and how the queue lost what it held.
    emptied: Option<(Micros, Emptied)>,
    is_group: bool,
}

/// Somebody who was seen to take from there, and since when no more.
struct Taker {
    consumer: Consumer,
    end: Option<Micros>,
}

/// Why nothing would have been seen.
enum Blindness {
    /// The sidecar did not see everything.
    Sidecar,
    /// Nobody took through it any more, since then.
    Away(Micros),
}

impl Spot {
    fn queue(world: &World, queue: &Name, since: Micros, now: Micros) -> Self {
        let taker = |it: &Consumer| Taker { consumer: it.clone(), end: world.end_of(it) };
        Self {
            at: format!("queue {}", queue.name),
            subscription: queue.name.clone(),
            takers: world.consumers(queue).iter().map(taker).collect(),
            is_gone: world.is_gone(queue, now),
            emptied: world.emptied(queue, since),
            is_group: false,
        }
    }

    pub(super) fn group(world: &World, topic: &Name, group: &str) -> Self {
        let taker = |it: Consumer| Taker { end: world.groups.end_of(&it), consumer: it };
        Self {
            at: say::subscription(&topic.name, group),
            subscription: group.to_owned(),
            takers: world.groups.members(topic, group).into_iter().map(taker).collect(),
            is_gone: false,
            emptied: None,
            is_group: true,
        }
    }

    /// Whether somebody behind this agent took from there all the time from `since` to `until`, but
    /// for what it takes a service to start again.
    fn taken(&self, agent: &str, since: Micros, until: Micros) -> Taken {
        let takers = self.takers.iter().filter(|taker| taker.consumer.agent == agent);
        let mut spans: Vec<(Micros, Option<Micros>)> =
            takers.map(|taker| (taker.consumer.opened, taker.end)).collect();
        spans.sort_unstable();
        let mut taken_to: Option<Micros> = None;
        for (from, to) in spans {
            if let Some(end) = taken_to
                && from > since
                && from > end.plus(AWAY_US)
            {
                return Taken::NotSince(end);
            }
            // One that is open takes until now.
            let Some(to) = to else { return Taken::Now };
            taken_to = Some(taken_to.map_or(to, |end| to.max(end)));
        }
        match taken_to {
            Some(end) if until > end.plus(AWAY_US) => Taken::NotSince(end),
            Some(_) => Taken::SoonAgain,
            None => Taken::Now,
        }
    }
}

/// Whether a service takes from there through its sidecar.
enum Taken {
    Now,
    /// Not now, and it may be starting again.
    SoonAgain,
    /// It stopped then, for longer than that.
    NotSince(Micros),
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
        let spot = Spot::queue(self.known.world, queue, since, self.known.now);
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
        if let Some((at, how)) = spot.emptied {
            let (how, at) = (how.as_str(), self.time(at));
            self.notes.push(format!("{} was {how} at {at}, with what it held", spot.at));
            return;
        }
        if spot.is_gone {
            self.notes.push(format!("{} is gone, with what it held", spot.at));
            return;
        }
        let (mut blind, mut not_yet, mut services) = (None, false, BTreeSet::new());
        for Taker { consumer, .. } in &spot.takers {
            services.extend(consumer.service.clone());
            match known.coverage.sight_since(&consumer.agent, None, since, due) {
                Sight::Blind if self.is_replaced(consumer, spot, since) => {}
                Sight::Blind => blind = Some((consumer, Blindness::Sidecar)),
                sight => {
                    not_yet |= sight == Sight::NotYet;
                    let until = known.coverage.agent(&consumer.agent).map(|it| it.watermark);
                    match spot.taken(&consumer.agent, since, until.unwrap_or(since)) {
                        Taken::Now => {}
                        Taken::SoonAgain => not_yet = true,
                        Taken::NotSince(at) => {
                            blind.get_or_insert((consumer, Blindness::Away(at)));
                        }
                    }
                }
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
                    Some((consumer, why)) => {
                        let service = consumer.service.as_deref().unwrap_or("its consumer");
                        match why {
                            Blindness::Sidecar => self.why_blind(&consumer.agent, service),
                            Blindness::Away(at) => format!(
                                "Through its sidecar {service} does not take from it since {}: it \
                                 is down, or talks to the broker directly.",
                                self.time(at)
                            ),
                        }
                    }
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

    /// Whether a consumer whose agent is gone has a successor, and all that happened since is seen.
    fn is_replaced(&self, gone: &Consumer, spot: &Spot, since: Micros) -> bool {
        let others = spot.takers.iter().map(|taker| &taker.consumer);
        let others = others.filter(|it| it.service == gone.service && it.agent != gone.agent);
        let others: Vec<&str> = others.map(|it| it.agent.as_str()).collect();
        self.known.coverage.took_over(&gone.agent, &others, since)
    }

    pub(super) fn why_blind(&self, agent: &str, service: &str) -> String {
        match self.known.coverage.agent(agent) {
            None => format!("{service} has no sidecar that reports."),
            Some(agent) => match agent.life {
                Life::Live => format!("The sidecar of {service} did not see everything since."),
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
