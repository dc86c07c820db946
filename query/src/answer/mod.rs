//! Questions and their answers, as the API says them: rows from [`crate::find`], verdicts from
//! [`crate::flow`]. The server and the command line with `--store` both ask here.

mod flows;
mod map;
mod shape;
mod why;

use std::sync::Arc;
use std::time::Duration;

use flowtap_record::Micros;
use futures::FutureExt as _;

pub use flows::Filter;

use crate::api::types::{self as api, AgentList, FlowDetail};
use crate::find::{Catalog, FlowId, Snapshot, Wanted};
use crate::flow::{Flow, Known, Row, Verdict, judge};
use crate::store::StoreError;

/// How long something may take before it is called late.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How old the picture of the store may be.
const FRESH: Duration = Duration::from_millis(500);
/// How long a question waits for a newer picture where there is one.
const PATIENT: Duration = Duration::from_secs(1);
/// For so long a store that could not be read is left alone by questions.
const AWAY: Duration = Duration::from_secs(5);
/// A picture older than this is said to be old.
const STALE_US: i64 = 30_000_000;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The store cannot be listed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An object could be listed and not be read.
    #[error("the store cannot be read: {0}")]
    Read(String),
    /// The question makes no sense.
    #[error("{0}")]
    Question(String),
}

/// Answers from one store.
#[derive(Clone)]
pub struct Answers {
    catalog: Arc<Catalog>,
    patience: Duration,
}

impl Answers {
    /// Answers from `catalog`.
    pub fn new(catalog: Arc<Catalog>) -> Self {
        Self { catalog, patience: PATIENCE }
    }

    /// Something may take so long before it is called late.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The catalog behind.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// The newest picture of the store, and the time of asking. A store that is away, or slow, holds
    /// up nobody once there is a picture: its age is said with the answer.
    async fn fresh(&self) -> Result<(Snapshot, Micros), AnswerError> {
        if self.catalog.snapshot().read_at.is_none() {
            self.catalog.refresh(FRESH, now()).await?;
        } else if !self.is_away() {
            let refresh = self.catalog.refresh(FRESH, now());
            if let Ok(Err(error)) = tokio::time::timeout(PATIENT, refresh).await {
                tracing::warn!(%error, "answered from what was read before");
            }
        }
        Ok((self.catalog.snapshot(), now()))
    }

    /// Whether the store could not be read a moment ago: then it is not tried for each question.
    fn is_away(&self) -> bool {
        let trouble = self.catalog.store_health().trouble;
        trouble.is_some_and(|(at, _)| at.elapsed() < AWAY)
    }

    /// What is seen, as the API says it.
    fn coverage(&self, snapshot: &Snapshot, now: Micros) -> api::Coverage {
        let age = snapshot.read_at.map_or(0, |at| now.since(at));
        let stale = age > STALE_US || self.catalog.store_health().trouble.is_some();
        shape::coverage(snapshot, stale, now)
    }

    /// Puts rows together.
    fn assemble(rows: Vec<Row>, truncated: bool, snapshot: &Snapshot) -> Flow {
        let truncated = truncated || snapshot.may_miss(&rows);
        let mut flow = Flow::assemble(rows, &snapshot.coverage, &snapshot.world.groups);
        flow.truncated = truncated;
        flow
    }

    fn judge(&self, flow: &Flow, snapshot: &Snapshot, now: Micros) -> Verdict {
        judge(flow, &self.known(snapshot, now))
    }

    fn known<'a>(&self, snapshot: &'a Snapshot, now: Micros) -> Known<'a> {
        Known {
            world: &snapshot.world,
            coverage: &snapshot.coverage,
            habits: &snapshot.habits,
            now,
            patience_us: i64::try_from(self.patience.as_micros()).unwrap_or(i64::MAX),
        }
    }

    /// One flow; nothing if there is none of that id.
    pub async fn flow(&self, id: &str) -> Result<Option<FlowDetail>, AnswerError> {
        let (snapshot, now) = self.fresh().await?;
        self.detail(&FlowId::parse(id), &snapshot, now).boxed().await
    }

    async fn detail(
        &self,
        id: &FlowId,
        snapshot: &Snapshot,
        now: Micros,
    ) -> Result<Option<FlowDetail>, AnswerError> {
        let gathered = self.catalog.gather(id, Wanted::All).await.map_err(AnswerError::Read)?;
        if gathered.rows.is_empty() {
            return Ok(None);
        }
        let judging = tracing::info_span!("judge", rows = gathered.rows.len()).entered();
        let flow = Self::assemble(gathered.rows, gathered.truncated, snapshot);
        let verdict = self.judge(&flow, snapshot, now);
        drop(judging);
        Ok(Some(FlowDetail {
            summary: shape::summary(&id.to_string(), &flow, &verdict),
            verdict: shape::verdict(&flow, &verdict),
            messages: shape::messages(&flow, &verdict),
            edges: shape::edges(&flow),
            records: shape::records(&flow),
            truncated: flow.truncated,
            related: shape::related(gathered.related),
            coverage: self.coverage(snapshot, now),
        }))
    }

    /// All sidecars.
    pub async fn agents(&self) -> Result<AgentList, AnswerError> {
        let (snapshot, now) = self.fresh().await?;
        Ok(AgentList {
            agents: snapshot.coverage.agents.iter().map(shape::agent).collect(),
            unreadable: self.catalog.marks().statuses_refused,
            coverage: self.coverage(&snapshot, now),
        })
    }
}

pub use crate::store::now;
