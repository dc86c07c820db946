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

use crate::api::types::{AgentList, FlowDetail};
use crate::find::{Catalog, FlowId, Snapshot, Wanted};
use crate::flow::{Flow, Known, judge};
use crate::store::StoreError;

/// How long something may take before it is called late.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How old the picture of the store may be.
const FRESH: Duration = Duration::from_millis(500);

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

    /// The newest picture of the store, and the time of it.
    async fn fresh(&self) -> Result<(Snapshot, Micros), AnswerError> {
        let asked = now();
        self.catalog.refresh(FRESH, asked).await?;
        Ok((self.catalog.snapshot(), now()))
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
        let known = self.known(snapshot, now);
        let mut flow = Flow::assemble(gathered.rows, &snapshot.coverage, &snapshot.world.groups);
        flow.truncated = gathered.truncated;
        let verdict = judge(&flow, &known);
        Ok(Some(FlowDetail {
            summary: shape::summary(&id.to_string(), &flow, &verdict),
            verdict: shape::verdict(&flow, &verdict),
            messages: shape::messages(&flow, &verdict),
            edges: shape::edges(&flow),
            records: shape::records(&flow),
            truncated: gathered.truncated,
            related: shape::related(gathered.related),
            coverage: shape::coverage(&snapshot.coverage, now),
        }))
    }

    /// All sidecars.
    pub async fn agents(&self) -> Result<AgentList, AnswerError> {
        let (snapshot, now) = self.fresh().await?;
        Ok(AgentList {
            agents: snapshot.coverage.agents.iter().map(shape::agent).collect(),
            coverage: shape::coverage(&snapshot.coverage, now),
        })
    }
}

/// The time of day.
pub fn now() -> Micros {
    Micros(jiff::Timestamp::now().as_microsecond())
}
