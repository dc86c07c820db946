//! Up to when, and for which services, everything was seen. Absence is evidence only with that.

use std::collections::{BTreeMap, HashMap};

use flowtap_record::{AgentState, AgentStatus, Micros};

/// A live agent says something at least every period; after so many it counts as silent.
const PERIODS: i64 = 3;

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
    /// Its service.
    pub service: Option<String>,
    /// From when.
    pub from: Option<Micros>,
    /// To when.
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
    /// Starts that are over, and since when.
    pub over: HashMap<String, Micros>,
    by_agent: HashMap<String, usize>,
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
            let gaps = gaps.iter().filter(|gap: &&Gap| gap.agent == status.agent).count();
            let agent = Agent { status, watermark, last_seen, life, gaps };
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
        Self { agents, gaps, died, over, by_agent }
    }

    /// The agent of that name.
    pub fn agent(&self, name: &str) -> Option<&Agent> {
        self.by_agent.get(name).map(|&index| &self.agents[index])
    }

    /// Sidecars that count: those that live, and those whose service is without one since.
    pub fn sidecars(&self) -> impl Iterator<Item = &Agent> {
        self.agents.iter().filter(|agent| agent.life == Life::Live || self.is_missed(agent))
    }

    /// Whether an agent is gone and nobody took its place.
    fn is_missed(&self, agent: &Agent) -> bool {
        if agent.life == Life::Live {
            return false;
        }
        let replaced = self.agents.iter().any(|other| {
            let later = other.status.started_at > agent.status.started_at;
            other.status.service == agent.status.service
                && other.status.agent != agent.status.agent
                && match other.life {
                    Life::Live => later || agent.life == Life::Ended,
                    // Then that one is missed.
                    _ => later && other.status.instance == agent.status.instance,
                }
        });
        !replaced
    }

    /// Sidecars that are gone or silent, and since when.
    pub fn silent(&self) -> Vec<&Agent> {
        self.agents.iter().filter(|agent| self.is_missed(agent)).collect()
    }

    /// How many sidecars live, of how many that count.
    pub fn counts(&self) -> (usize, usize) {
        let live = self.agents.iter().filter(|agent| agent.life == Life::Live).count();
        (live, self.sidecars().count())
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
        let Some(known) = self.agent(agent) else { return Sight::Blind };
        if known.life != Life::Live {
            return Sight::Blind;
        }
        let gap = self.gaps.iter().filter(|gap| gap.agent == agent).any(|gap| {
            gap.from.is_none_or(|gap_from| gap_from <= to)
                && gap.to.is_none_or(|gap_to| gap_to >= from)
        });
        if gap {
            Sight::Blind
        } else if known.watermark < to {
            Sight::NotYet
        } else {
            Sight::Clear
        }
    }
}
