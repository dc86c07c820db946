//! Up to when, and for which services, everything was seen. Absence is evidence only with that.

use std::collections::{BTreeMap, HashMap};

use flowtap_record::{AgentState, AgentStatus, Micros};

use super::row::Row;

/// A live agent says something at least every period; after so many it counts as silent.
const PERIODS: i64 = 3;
/// A service that starts again is back behind its sidecar within this time. One that is longer away
/// is down, or talks to the broker directly.
pub(super) const AWAY_US: i64 = 30_000_000;

/// One sidecar: an agent's newest start, and what earlier starts left open.
#[derive(Clone, Debug)]
pub struct Agent {
    /// What it says of itself.
    pub status: AgentStatus,
    /// The newer of the status object's watermark and those in its objects.
    pub watermark: Micros,
    /// When it was last heard, by the store's clock where that is known.
    pub last_seen: Micros,
    /// How it is now.
    pub life: Life,
    /// It lives, and nothing is connected through it, since then.
    pub away: Option<Micros>,
    /// How many gaps it reported.
    pub gaps: usize,
}

/// How an agent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Life {
    /// It was heard within three periods.
    Live,
    /// It should have been heard.
    Silent,
    /// It ended in order.
    Ended,
    /// It ended without a word.
    Died,
}

impl Life {
    /// The word that people and programs read.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Silent => "silent",
            Self::Ended => "ended",
            Self::Died => "died",
        }
    }
}

/// A time that an agent could not see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The agent.
    pub agent: String,
    /// The start of it that says so.
    pub boot: String,
    /// The one connection that it could not follow; none: all of them.
    pub connection: Option<i64>,
    /// Its service.
    pub service: Option<String>,
    /// From when; none: nobody knows.
    pub from: Option<Micros>,
    /// To when; none: it goes on.
    pub to: Option<Micros>,
    /// How many rows.
    pub count: Option<i64>,
    /// Why.
    pub reason: Option<String>,
}

/// Who sees, and since when not.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// Newest start of each agent, by service and agent.
    pub agents: Vec<Agent>,
    /// By time, oldest first.
    pub gaps: Vec<Gap>,
    /// Starts that ended without a word, and their last moment.
    pub died: HashMap<String, Micros>,
    /// Starts that are over, and since when: also those of a silent agent that was replaced.
    pub over: HashMap<String, Micros>,
    by_agent: HashMap<String, usize>,
    /// All starts of each agent.
    watches: HashMap<String, Vec<Watch>>,
    /// Since when a connection of a start was passed on without being understood.
    opaque: HashMap<(String, i64), Micros>,
}

/// The time that one start of an agent saw.
#[derive(Clone, Debug)]
struct Watch {
    boot: String,
    from: Micros,
    to: Micros,
}

/// Whether somebody would have been seen to do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Everything up to the time asked for is there.
    Clear,
    /// The agent lives and has not reported so far.
    NotYet,
    /// Nobody looked.
    Blind,
}

/// A status object with what the store adds to it.
#[derive(Clone, Debug)]
pub struct Said {
    /// The object.
    pub status: AgentStatus,
    /// When it was put, by the store's clock.
    pub put_at: Option<Micros>,
    /// The newest watermark in the boot's objects.
    pub watermark: Option<Micros>,
}

impl Coverage {
    /// Makes sense of all status objects at `now`.
    pub fn new(said: Vec<Said>, gaps: Vec<Gap>, now: Micros) -> Self {
        let mut newest: BTreeMap<String, Agent> = BTreeMap::new();
        let mut died = HashMap::new();
        let mut over = HashMap::new();
        let mut watches: HashMap<String, Vec<Watch>> = HashMap::new();
        for Said { status, put_at, watermark } in said {
            let watermark = status.watermark.max(watermark.unwrap_or_default());
            let last_seen = put_at.unwrap_or(status.at);
            let period = i64::try_from(status.period_s).unwrap_or(60).clamp(1, 86_400) * 1_000_000;
            let life = match status.state {
                AgentState::Ended => Life::Ended,
                AgentState::Died => Life::Died,
                AgentState::Running | AgentState::Draining => {
                    if now.since(last_seen) < PERIODS * period { Life::Live } else { Life::Silent }
                }
            };
            if life == Life::Died {
                died.insert(status.boot.clone(), watermark);
            }
            if matches!(life, Life::Died | Life::Ended) {
                over.insert(status.boot.clone(), watermark);
            }
            let (boot, from) = (status.boot.clone(), status.started_at);
            let watch = Watch { boot, from, to: watermark.max(from) };
            watches.entry(status.agent.clone()).or_default().push(watch);
            let gaps = gaps.iter().filter(|gap: &&Gap| gap.agent == status.agent).count();
            let agent = Agent { status, watermark, last_seen, life, away: None, gaps };
            // A later start of the same agent takes the place of an earlier one.
            match newest.get(&agent.status.agent) {
                Some(known) if known.status.started_at >= agent.status.started_at => {}
                _ => {
                    newest.insert(agent.status.agent.clone(), agent);
                }
            }
        }
        let mut agents: Vec<Agent> = newest.into_values().collect();
        agents.sort_by(|a, b| {
            (&a.status.service, a.status.started_at).cmp(&(&b.status.service, b.status.started_at))
        });
        let by_agent =
            agents.iter().enumerate().map(|(i, it)| (it.status.agent.clone(), i)).collect();
        let mut coverage = Self { agents, gaps, died, over, by_agent, watches, ..Self::default() };
        coverage.end_the_replaced();
        coverage.end_gaps();
        coverage
    }

    /// What takes an agent's place ends what was before it, also what ended without a word.
    fn end_the_replaced(&mut self) {
        let mut over = Vec::new();
        for agent in &self.agents {
            let watches = self.watches.get(&agent.status.agent).into_iter().flatten();
            let newest = &agent.status.boot;
            let replaced = agent.life == Life::Silent && self.is_replaced(agent);
            over.extend(
                watches
                    .filter(|watch| watch.boot != *newest || replaced)
                    .map(|watch| (watch.boot.clone(), watch.to)),
            );
        }
        for (boot, at) in over {
            self.over.entry(boot).or_insert(at);
        }
    }

    /// A gap that only says when it begins lasts until the row that says when it ended, or until
    /// its connection is gone with the agent's start.
    fn end_gaps(&mut self) {
        type Key = (String, String, Option<i64>);
        let key = |gap: &Gap| (gap.agent.clone(), gap.boot.clone(), gap.connection);
        let mut ends: HashMap<Key, Vec<Micros>> = HashMap::new();
        for gap in self.gaps.iter().filter(|gap| gap.connection.is_some()) {
            ends.entry(key(gap)).or_default().extend(gap.to);
        }
        for gap in self.gaps.iter_mut().filter(|gap| gap.to.is_none()) {
            let from = gap.from.unwrap_or_default();
            if let Some(connection) = gap.connection {
                let since = self.opaque.entry((gap.boot.clone(), connection)).or_insert(from);
                *since = from.min(*since);
            }
            let said = ends.get(&key(gap)).into_iter().flatten();
            let said = said.copied().filter(|&to| to >= from).min();
            gap.to = said.or_else(|| self.over.get(&gap.boot).map(|&over| over.max(from)));
        }
    }

    /// Learns when the last connection through each start of an agent ended. An agent through which
    /// nothing is connected any more sees nothing of its service.
    pub fn learn_closed(&mut self, last_closed: impl Fn(&str) -> Option<Micros>) {
        for agent in &mut self.agents {
            let status = &agent.status;
            let open: u64 = status.taps.iter().map(|tap| tap.connections).sum();
            if agent.life != Life::Live || open > 0 {
                continue;
            }
            let watches = self.watches.get(&status.agent).into_iter().flatten();
            let closed = watches.filter_map(|watch| last_closed(&watch.boot)).max();
            // After its own start, too, the service gets its time.
            let since = |closed: &Micros| status.at.since((*closed).max(status.started_at));
            agent.away = closed.filter(|closed| since(closed) > AWAY_US);
        }
    }

    /// The agent of that name.
    pub fn agent(&self, name: &str) -> Option<&Agent> {
        self.by_agent.get(name).map(|&index| &self.agents[index])
    }

    /// Sidecars that count: those that live, and those whose service is without one since.
    pub fn sidecars(&self) -> impl Iterator<Item = &Agent> {
        self.agents.iter().filter(|agent| agent.life == Life::Live || self.is_missed(agent))
    }

    /// Whether an agent sees nothing of its service, and nobody took its place.
    fn is_missed(&self, agent: &Agent) -> bool {
        match agent.life {
            Life::Live => agent.away.is_some(),
            _ => !self.is_replaced(agent),
        }
    }

    /// Whether another agent of its service took the place of one that is gone.
    pub(super) fn is_replaced(&self, agent: &Agent) -> bool {
        self.agents.iter().any(|other| {
            let later = other.status.started_at > agent.status.started_at;
            other.status.service == agent.status.service
                && other.status.agent != agent.status.agent
                && match other.life {
                    Life::Live => later || agent.life == Life::Ended,
                    // Then that one is missed.
                    _ => later && other.status.instance == agent.status.instance,
                }
        })
    }

    /// Sidecars that are gone, silent, or bypassed; [`Agent::silent_since`] says since when.
    pub fn silent(&self) -> Vec<&Agent> {
        self.agents.iter().filter(|agent| self.is_missed(agent)).collect()
    }

    /// How many sidecars see their service, of how many that count.
    pub fn counts(&self) -> (usize, usize) {
        let seeing = |agent: &&Agent| agent.life == Life::Live && agent.away.is_none();
        (self.agents.iter().filter(seeing).count(), self.sidecars().count())
    }

    /// Whether anybody will report again.
    pub fn anybody_lives(&self) -> bool {
        self.agents.iter().any(|agent| agent.life == Life::Live)
    }

    /// Up to when everything is there. With nobody alive: up to when the last ones saw.
    pub fn complete_to(&self) -> Option<Micros> {
        let live = self.agents.iter().filter(|agent| agent.life == Life::Live);
        live.map(|agent| agent.watermark)
            .min()
            .or_else(|| self.sidecars().map(|agent| agent.watermark).min())
    }

    /// Whether `agent` would have seen what happened from `from` to `to`.
    pub fn sight(&self, agent: &str, from: Micros, to: Micros) -> Sight {
        let Some(known) = self.agent(agent).filter(|known| known.life == Life::Live) else {
            return Sight::Blind;
        };
        if self.has_hole(&[agent], from, to.min(known.watermark))
            || self.has_gap(agent, None, from, to)
        {
            Sight::Blind
        } else if known.watermark < to {
            Sight::NotYet
        } else {
            Sight::Clear
        }
    }

    /// Whether `agent` would have seen what happened since `from`, up to its last word, which has
    /// to be as late as `due`: what is missing may have happened in any moment since. `connection`:
    /// the only one that it can have happened on.
    pub fn sight_since(
        &self,
        agent: &str,
        connection: Option<i64>,
        from: Micros,
        due: Micros,
    ) -> Sight {
        let Some(known) = self.agent(agent).filter(|known| known.life == Life::Live) else {
            return Sight::Blind;
        };
        if self.has_hole(&[agent], from, known.watermark)
            || self.has_gap(agent, connection, from, known.watermark.max(due))
        {
            Sight::Blind
        } else if known.watermark < due {
            Sight::NotYet
        } else {
            Sight::Clear
        }
    }

    /// Whether others saw all since `from` that `gone`, which was replaced, could not see.
    pub(super) fn took_over(&self, gone: &str, others: &[&str], from: Micros) -> bool {
        let lives = |other: &&&str| self.agent(other).is_some_and(|it| it.life == Life::Live);
        let live: Vec<&Agent> =
            others.iter().filter(lives).filter_map(|other| self.agent(other)).collect();
        let Some(to) = live.iter().map(|other| other.watermark).max() else { return false };
        let mut all: Vec<&str> = live.iter().map(|other| other.status.agent.as_str()).collect();
        all.push(gone);
        self.agent(gone).is_some_and(|agent| self.is_replaced(agent))
            && !self.has_hole(&all, from, to)
            && !self.has_gap(gone, None, from, to)
    }

    /// Whether there is a moment from `from` to `to` in which none of the agents ran.
    fn has_hole(&self, agents: &[&str], from: Micros, to: Micros) -> bool {
        let watches = agents.iter().filter_map(|agent| self.watches.get(*agent)).flatten();
        let mut watches: Vec<(Micros, Micros)> =
            watches.map(|watch| (watch.from, watch.to)).filter(|watch| watch.1 >= from).collect();
        watches.sort_unstable();
        let mut seen_to = from;
        for (start, end) in watches {
            if start > seen_to {
                break;
            }
            seen_to = seen_to.max(end);
        }
        seen_to < to
    }

    fn has_gap(&self, agent: &str, connection: Option<i64>, from: Micros, to: Micros) -> bool {
        self.gaps.iter().filter(|gap| gap.agent == agent).any(|gap| {
            let elsewhere = gap.connection.zip(connection).is_some_and(|(gap, this)| gap != this);
            !elsewhere
                && gap.from.is_none_or(|gap_from| gap_from <= to)
                && gap.to.is_none_or(|gap_to| gap_to >= from)
        })
    }

    /// Whether the connection of a row was passed on without being understood since: what was open
    /// on it then ended unseen.
    pub(super) fn turned_opaque(&self, row: &Row) -> bool {
        let connection = row.connection.map(|connection| (row.id.boot.clone(), connection));
        connection.and_then(|it| self.opaque.get(&it)).is_some_and(|&since| since >= row.at)
    }
}

impl Agent {
    /// Since when it sees nothing of its service, where it does not.
    pub fn silent_since(&self) -> Micros {
        self.away.unwrap_or(self.watermark)
    }
}
