//! `flowtap verify`: proves that what agents recorded is all there, once, or says what is not. Its
//! input are the tables of [`crate::tables`] and the agents' own word, its output is a [`Report`].
//!
//! What is checked, agent by agent:
//! - rows of a boot are numbered from 1 without a hole that no `gap` names, and none is there twice;
//! - every row that concludes another (`ref_boot`, `ref_seq`) finds it;
//! - a publish that awaits a confirm has one, where its channel went on and no `gap` lies over it;
//! - every row that an agent says it uploaded, or left behind when it died, is there.
//!
//! Where days went by retention, rows before the first day that is kept may be gone: what lies behind
//! the last row before it is no hole.
//!
//! [`against_broker`] holds the rows against the counters of a RabbitMQ besides.

mod ask;
mod broker;
mod rabbitmq;
mod ranges;
mod seen;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use flowtap_record::path::{HISTORY, InboxName};
use flowtap_record::{AgentStatus, Micros};
use serde::Serialize;

use crate::find::{Statuses, began};
use crate::flow::{Coverage, Life};
use crate::ingest::retention;
use crate::store::Store;
use crate::tables::{Limits, TablesError, context};

pub use ask::VerifyError;
use ask::{Asked, BootRows};
pub use broker::{Compared, Difference};
pub use rabbitmq::{BrokerError, Counted, Figures, Management, Place, PlaceKind};
pub use ranges::Range;
use ranges::Ranges;

/// Sidecars say how far they are within this time, on S3, too.
const UPLOADED_WITHIN: Duration = Duration::from_secs(90);

/// What was found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Agents looked at.
    pub agents: usize,
    /// Boots of theirs.
    pub boots: usize,
    /// Rows of theirs.
    pub rows: i64,
    /// What is missing, doubled or concludes nothing.
    pub problems: Vec<Problem>,
    /// What cannot be proved, for somebody is silent or has not uploaded yet.
    pub unproven: Vec<Unproven>,
    /// Rows that are not there, each range named by a gap.
    pub named: Vec<Named>,
    /// Gaps of other kinds: what was never given a number.
    pub gaps: i64,
    /// Days before this moment went by retention; their rows are not missed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_from: Option<Micros>,
    /// What came of the comparison with a broker, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker: Option<Compared>,
}

/// A finding that should not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What is wrong.
    pub what: What,
    /// The agent.
    pub agent: String,
    /// Its boot.
    pub boot: String,
    /// The first row that it is about.
    pub first: i64,
    /// The last one.
    pub last: i64,
}

/// The kinds of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Rows are not there, and no gap says so.
    Missing,
    /// A row is there more than once.
    Doubled,
    /// A row concludes one that is not there.
    RefMissing,
    /// A publish has no confirm, though its channel went on.
    Unconfirmed,
}

impl What {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Doubled => "doubled",
            Self::RefMissing => "concludes a row that is not there",
            Self::Unconfirmed => "no confirm, though its channel went on",
        }
    }
}

/// What nobody can vouch for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unproven {
    /// The agent.
    pub agent: String,
    /// Its boot.
    pub boot: String,
    /// Why.
    pub why: String,
}

/// Rows that are known to be lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Named {
    /// The agent.
    pub agent: String,
    /// The boot that they were of.
    pub boot: String,
    /// The first of them.
    pub first: i64,
    /// The last of them.
    pub last: i64,
    /// The gap's reason.
    pub reason: String,
}

/// How it ends, as an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is there.
    Clean,
    /// Something is missing or doubled.
    Wrong,
    /// Nothing is wrong so far, and not everything can be seen.
    Unproven,
}

impl Report {
    /// The worst that was found.
    pub fn outcome(&self) -> Outcome {
        let broker = self.broker.as_ref();
        if !self.problems.is_empty() || broker.is_some_and(|it| !it.differences.is_empty()) {
            Outcome::Wrong
        } else if !self.unproven.is_empty() || broker.is_some_and(|it| !it.unproven.is_empty()) {
            Outcome::Unproven
        } else {
            Outcome::Clean
        }
    }
}

/// Looks at everything in `store` as it is now.
///
/// # Errors
/// When the store cannot be read, or a check needs more than `limits`.
pub async fn verify(store: &Store, limits: &Limits, now: Micros) -> Result<Report, VerifyError> {
    // Statuses first: whatever an agent says that it uploaded must then be in the listing.
    let mut statuses = Statuses::default();
    statuses.refresh(store, now).await.map_err(TablesError::from)?;
    let asked = Asked::new(context(store, limits).await?);
    // After the rows: days that go meanwhile are known to have gone.
    let kept_from = retention::kept_from(store).await.map_err(TablesError::from)?;

    let said = statuses.said(&std::collections::HashMap::new());
    let coverage = Coverage::new(said.clone(), Vec::new(), now);
    let mut report = Report { kept_from, ..Report::default() };
    let mut agents: BTreeMap<String, BTreeMap<String, Option<AgentStatus>>> = BTreeMap::new();
    for (agent, boot) in asked.boots().await? {
        agents.entry(agent).or_default().insert(boot, None);
    }
    for said in said {
        let boots = agents.entry(said.status.agent.clone()).or_default();
        boots.insert(said.status.boot.clone(), Some(said.status));
    }
    let refused = asked.refused().await?;
    for (agent, boots) in &agents {
        let refused = &refused;
        let one = One { asked: &asked, agent, boots, coverage: &coverage, refused, kept_from };
        one.check(&mut report).await?;
    }
    report.agents = agents.len();
    report.boots = agents.values().map(BTreeMap::len).sum();
    Ok(report)
}

/// Holds the history against what a broker counted at one moment; `before`: at an earlier one, to compare
/// only what was added since.
///
/// # Errors
/// When the store cannot be read, or a check needs more than `limits`.
pub async fn against_broker(
    store: &Store,
    limits: &Limits,
    counted: &Counted,
    before: Option<&Counted>,
) -> Result<Compared, VerifyError> {
    let behind = all_up_to(store, counted.at).await?;
    let since = before.map_or(Micros(0), |before| before.at);
    let asked = Asked::new(context(store, limits).await?);
    let mut history = asked.cluster(&counted.cluster, since).await?;
    history.incomplete = behind.or(history.incomplete);
    Ok(broker::compare(counted, before, &history))
}

/// Waits until sidecars have uploaded all that they saw up to a time. Who has not, after a while?
async fn all_up_to(store: &Store, at: Micros) -> Result<Option<String>, VerifyError> {
    let mut statuses = Statuses::default();
    let started = Instant::now();
    loop {
        let now = crate::store::now();
        statuses.refresh(store, now).await.map_err(TablesError::from)?;
        let said = statuses.said(&std::collections::HashMap::new());
        let coverage = Coverage::new(said, Vec::new(), now);
        let running = |life| matches!(life, Life::Live | Life::Silent);
        let mut behind = coverage.agents.iter().filter(|it| running(it.life) && it.watermark < at);
        let Some(agent) = behind.next() else { return Ok(None) };
        if started.elapsed() > UPLOADED_WITHIN {
            let (agent, to) = (&agent.status.agent, agent.watermark);
            return Ok(Some(format!("the sidecar {agent} has uploaded all up to {to} only")));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// One agent's check.
struct One<'a> {
    asked: &'a Asked,
    agent: &'a str,
    boots: &'a BTreeMap<String, Option<AgentStatus>>,
    coverage: &'a Coverage,
    refused: &'a [InboxName],
    kept_from: Option<Micros>,
}

impl One<'_> {
    async fn check(&self, report: &mut Report) -> Result<(), VerifyError> {
        let mut lost = self.lost(report).await?;
        report.gaps += self.asked.gaps(self.agent).await?;
        let mut pending: BTreeMap<&str, i64> = BTreeMap::new();
        for (boot, status) in self.boots {
            let rows = self.asked.rows(self.agent, boot).await?;
            report.rows += rows.count;
            let named = lost.entry(boot.clone()).or_default();
            let end = named.last().map_or(rows.last, |last| last.max(rows.last));
            self.let_go(boot, &rows, end, named);
            self.numbers(boot, &rows, named, report);
            let end = named.last().map_or(end, |last| last.max(end));
            self.tail(boot, status.as_ref(), end, &rows, report);
            pending.insert(boot, end);
        }
        self.conclusions(&lost, &pending, report).await?;
        for (boot, seq) in self.asked.unconfirmed(self.agent).await? {
            report.problems.push(self.problem(What::Unconfirmed, &boot, seq, seq));
        }
        Ok(())
    }

    /// Rows that gaps name, and those in objects that were left out.
    async fn lost(&self, report: &mut Report) -> Result<BTreeMap<String, Ranges>, VerifyError> {
        let mut lost: BTreeMap<String, Ranges> = BTreeMap::new();
        let mut named = self.asked.named(self.agent).await?;
        let refused = self.refused.iter().filter(|name| name.agent == self.agent);
        named.extend(refused.map(|name| Named {
            agent: name.agent.clone(),
            boot: name.boot.clone(),
            first: name.first.0,
            last: name.last.0,
            reason: "object_refused".to_owned(),
        }));
        for one in named {
            lost.entry(one.boot.clone()).or_default().add(one.first, one.last);
            report.named.push(one);
        }
        Ok(lost)
    }

    /// Adds what may have gone by retention: rows are in the order of their times, so it lies behind a
    /// row, or the boot's start, before the days that are kept.
    fn let_go(&self, boot: &str, rows: &BootRows, end: i64, lost: &mut Ranges) {
        let Some(kept_from) = self.kept_from else { return };
        let begins_before = |at: Option<Micros>| at.unwrap_or_else(|| began(boot)) < kept_from;
        for (hole, _) in rows.holes.iter().filter(|(_, before)| begins_before(*before)) {
            lost.add(hole.first, hole.last);
        }
        if begins_before(rows.last_at) {
            lost.add(end + 1, i64::MAX);
        }
    }

    fn numbers(&self, boot: &str, rows: &BootRows, named: &Ranges, report: &mut Report) {
        for &seq in &rows.doubled {
            report.problems.push(self.problem(What::Doubled, boot, seq, seq));
        }
        for hole in rows.holes.iter().flat_map(|(hole, _)| named.without(*hole)) {
            report.problems.push(self.problem(What::Missing, boot, hole.first, hole.last));
        }
    }

    /// What lies behind the last row: nothing, something lost, or something still to come.
    fn tail(
        &self,
        boot: &str,
        status: Option<&AgentStatus>,
        end: i64,
        rows: &BootRows,
        report: &mut Report,
    ) {
        let Some(status) = status else {
            let why = "no status object tells how far it should go".to_owned();
            report.unproven.push(self.unproven(boot, why));
            return;
        };
        let table = status.tables.get(HISTORY).copied().unwrap_or_default();
        if table.uploaded_seq > end {
            report.problems.push(self.problem(What::Missing, boot, end + 1, table.uploaded_seq));
            return;
        }
        let newest = self.coverage.agent(self.agent).filter(|agent| agent.status.boot == boot);
        if let Some(agent) = newest.filter(|agent| agent.life == Life::Silent) {
            let why = format!("silent since {}", agent.last_seen);
            report.unproven.push(self.unproven(boot, why));
            return;
        }
        // A running agent always has some rows on their way; one that is over shall have none.
        let over = newest.is_none_or(|agent| agent.life != Life::Live);
        let owed = table.last_seq.max(rows.known_last.unwrap_or_default());
        if over && owed > end {
            let why = format!("rows {} to {owed} are still in its spool", end + 1);
            report.unproven.push(self.unproven(boot, why));
        }
    }

    async fn conclusions(
        &self,
        lost: &BTreeMap<String, Ranges>,
        ends: &BTreeMap<&str, i64>,
        report: &mut Report,
    ) -> Result<(), VerifyError> {
        for (boot, seq, of, refers) in self.asked.dangling(self.agent).await? {
            let known = lost.get(&of).is_some_and(|lost| lost.has(refers));
            // An earlier boot's rest may still come; `tail` says so.
            let to_come = of != boot && ends.get(of.as_str()).is_none_or(|&end| refers > end);
            if !known && !to_come {
                report.problems.push(self.problem(What::RefMissing, &boot, seq, seq));
            }
        }
        Ok(())
    }

    fn problem(&self, what: What, boot: &str, first: i64, last: i64) -> Problem {
        Problem { what, agent: self.agent.to_owned(), boot: boot.to_owned(), first, last }
    }

    fn unproven(&self, boot: &str, why: String) -> Unproven {
        Unproven { agent: self.agent.to_owned(), boot: boot.to_owned(), why }
    }
}
