//! The questions that `flowtap verify` asks in SQL, one agent at a time, so that its memory does not
//! grow with the number of agents.

use datafusion::prelude::SessionContext;
use flowtap_record::Micros;
use flowtap_record::path::InboxName;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::rabbitmq::BrokerError;
use super::{Named, Range};
use crate::sql::output::{Format, OutputError, write};
use crate::sql::{SqlError, query};
use crate::tables::TablesError;

/// More findings of one kind than this, and nobody reads them.
const MOST: usize = 100_000;

/// A channel that carries on for so long after a publish has confirmed it, or never will.
const CONFIRMED_WITHIN: &str = "INTERVAL '60 seconds'";

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The store cannot be read.
    #[error(transparent)]
    Tables(#[from] TablesError),
    /// A check failed on its way.
    #[error("a check cannot be made: {0}; more --memory may help")]
    Sql(#[from] SqlError),
    /// A broker is not to be asked.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// An answer is not what was asked for.
    #[error("a check's answer cannot be read: {0}")]
    Answer(String),
}

impl From<OutputError> for VerifyError {
    fn from(error: OutputError) -> Self {
        match error {
            OutputError::Sql(error) => Self::Sql(error),
            other => Self::Answer(other.to_string()),
        }
    }
}

/// How the rows of one boot are numbered.
#[derive(Debug, Default)]
pub(super) struct BootRows {
    pub(super) count: i64,
    pub(super) last: i64,
    /// When the last was.
    pub(super) last_at: Option<Micros>,
    /// Rows that are not there, and when the last one before them was.
    pub(super) holes: Vec<(Range, Option<Micros>)>,
    pub(super) doubled: Vec<i64>,
    /// The last row that it had when it died, by its successor's word.
    pub(super) known_last: Option<i64>,
}

pub(super) struct Asked {
    context: SessionContext,
}

impl Asked {
    pub(super) fn new(context: SessionContext) -> Self {
        Self { context }
    }

    pub(super) async fn ask<T: DeserializeOwned>(&self, text: &str) -> Result<Vec<T>, VerifyError> {
        let rows = query(&self.context, text).await?;
        let mut out = Vec::new();
        write(text, rows, Format::Json, MOST, &mut out).await?;
        serde_json::from_slice(&out).map_err(|error| VerifyError::Answer(error.to_string()))
    }

    /// Agents and their boots.
    pub(super) async fn boots(&self) -> Result<Vec<(String, String)>, VerifyError> {
        #[derive(Deserialize)]
        struct Row {
            agent: String,
            boot: String,
        }
        let rows: Vec<Row> = self.ask("SELECT DISTINCT agent, boot FROM history").await?;
        Ok(rows.into_iter().map(|row| (row.agent, row.boot)).collect())
    }

    /// Objects that were left out.
    pub(super) async fn refused(&self) -> Result<Vec<InboxName>, VerifyError> {
        #[derive(Deserialize)]
        struct Row {
            object: String,
        }
        let rows: Vec<Row> =
            self.ask("SELECT object FROM gaps WHERE reason = 'object_refused'").await?;
        let name = |row: Row| {
            InboxName::parse(&row.object).map_err(|error| VerifyError::Answer(error.to_string()))
        };
        rows.into_iter().map(name).collect()
    }

    /// Rows of `agent` that a gap says are lost.
    pub(super) async fn named(&self, agent: &str) -> Result<Vec<Named>, VerifyError> {
        #[derive(Deserialize)]
        struct Row {
            boot: Option<String>,
            first: Option<i64>,
            last: Option<i64>,
            reason: Option<String>,
        }
        let agent_text = text(agent);
        let rows: Vec<Row> = self
            .ask(&format!(
                "SELECT coalesce(json_get(details, '/boot'), boot) AS boot, \
                   arrow_cast(json_get(details, '/first_seq'), 'Int64') AS first, \
                   arrow_cast(json_get(details, '/last_seq'), 'Int64') AS last, reason \
                 FROM history WHERE kind = 'gap' AND agent = {agent_text}"
            ))
            .await?;
        let named = |row: Row| {
            Some(Named {
                agent: agent.to_owned(),
                boot: row.boot?,
                first: row.first?,
                last: row.last?,
                reason: row.reason.unwrap_or_default(),
            })
        };
        Ok(rows.into_iter().filter_map(named).collect())
    }

    /// How many gaps `agent` reported.
    pub(super) async fn gaps(&self, agent: &str) -> Result<i64, VerifyError> {
        #[derive(Deserialize)]
        struct Row {
            gaps: i64,
        }
        let agent = text(agent);
        let rows: Vec<Row> = self
            .ask(&format!(
                "SELECT count(*) AS gaps FROM history WHERE kind = 'gap' AND agent = {agent}"
            ))
            .await?;
        Ok(rows.first().map_or(0, |row| row.gaps))
    }

    /// How the rows of a boot are numbered.
    pub(super) async fn rows(&self, agent: &str, boot: &str) -> Result<BootRows, VerifyError> {
        #[derive(Deserialize)]
        struct Numbered {
            count: i64,
            last: Option<i64>,
            last_at: Option<i64>,
        }
        #[derive(Deserialize)]
        struct Step {
            seq: i64,
            before: i64,
            before_at: Option<i64>,
        }
        #[derive(Deserialize)]
        struct Died {
            last: Option<i64>,
        }
        let (agent, boot) = (text(agent), text(boot));
        let of = format!("agent = {agent} AND boot = {boot}");
        let counts: Vec<Numbered> = self
            .ask(&format!(
                "SELECT count(*) AS count, max(seq) AS last, \
                   arrow_cast(max(at), 'Int64') AS last_at FROM history WHERE {of}"
            ))
            .await?;
        let steps: Vec<Step> = self
            .ask(&format!(
                "SELECT seq, before, arrow_cast(before_at, 'Int64') AS before_at FROM ( \
                   SELECT seq, lag(seq, 1, 0) OVER (ORDER BY seq) AS before, \
                     lag(at) OVER (ORDER BY seq) AS before_at \
                   FROM history WHERE {of}) \
                 WHERE seq <> before + 1 ORDER BY seq"
            ))
            .await?;
        let died: Vec<Died> = self
            .ask(&format!(
                "SELECT max(ref_seq) AS last FROM history WHERE kind = 'gap' \
                 AND reason = 'agent_died' AND agent = {agent} AND ref_boot = {boot}"
            ))
            .await?;
        let mut rows = BootRows {
            count: counts.first().map_or(0, |counted| counted.count),
            last: counts.first().and_then(|counted| counted.last).unwrap_or_default(),
            last_at: counts.first().and_then(|counted| counted.last_at).map(Micros),
            known_last: died.first().and_then(|died| died.last),
            ..BootRows::default()
        };
        for Step { seq, before, before_at } in steps {
            if seq > before {
                let hole = Range { first: before + 1, last: seq - 1 };
                rows.holes.push((hole, before_at.map(Micros)));
            } else {
                rows.doubled.push(seq);
            }
        }
        Ok(rows)
    }

    /// Rows of `agent` whose `ref_seq` is not there: boot, row, and what they conclude.
    pub(super) async fn dangling(
        &self,
        agent: &str,
    ) -> Result<Vec<(String, i64, String, i64)>, VerifyError> {
        #[derive(Deserialize)]
        struct Row {
            boot: String,
            seq: i64,
            of: String,
            ref_seq: i64,
        }
        let agent = text(agent);
        let rows: Vec<Row> = self
            .ask(&format!(
                "SELECT r.boot, r.seq, r.ref_boot AS of, r.ref_seq FROM history r \
                 LEFT ANTI JOIN (SELECT boot, seq FROM history WHERE agent = {agent}) h \
                   ON h.boot = r.ref_boot AND h.seq = r.ref_seq \
                 WHERE r.agent = {agent} AND r.ref_boot IS NOT NULL AND r.ref_seq > 0 \
                 ORDER BY r.boot, r.seq"
            ))
            .await?;
        Ok(rows.into_iter().map(|row| (row.boot, row.seq, row.of, row.ref_seq)).collect())
    }

    /// Publishes of `agent` without a confirm, though one was awaited and their channel went on, with
    /// no gap over that time.
    pub(super) async fn unconfirmed(&self, agent: &str) -> Result<Vec<(String, i64)>, VerifyError> {
        #[derive(Deserialize)]
        struct Row {
            boot: String,
            seq: i64,
        }
        let agent = text(agent);
        let rows: Vec<Row> = self
            .ask(&format!(
                "WITH mine AS (SELECT * FROM history WHERE agent = {agent}), \
                 open AS ( \
                   SELECT p.boot, p.seq, p.at, p.connection, coalesce(p.channel, -1) AS channel \
                   FROM mine p LEFT ANTI JOIN \
                     (SELECT ref_boot, ref_seq FROM mine WHERE kind = 'confirm') c \
                     ON c.ref_boot = p.boot AND c.ref_seq = p.seq \
                   WHERE p.kind = 'publish' AND p.confirm_expected), \
                 went_on AS ( \
                   SELECT o.boot, o.seq, o.at, w.until FROM open o JOIN \
                     (SELECT boot, connection, coalesce(channel, -1) AS channel, max(at) AS until \
                      FROM mine WHERE kind IN ('publish', 'confirm') \
                      GROUP BY boot, connection, coalesce(channel, -1)) w \
                     ON w.boot = o.boot AND w.connection = o.connection AND w.channel = o.channel) \
                 SELECT w.boot, w.seq FROM went_on w \
                 WHERE w.until > w.at + {CONFIRMED_WITHIN} AND NOT EXISTS ( \
                   SELECT 1 FROM mine g WHERE g.kind = 'gap' \
                   AND coalesce(g.gap_from, w.at) <= w.until AND coalesce(g.gap_to, w.until) >= w.at) \
                 ORDER BY w.boot, w.seq"
            ))
            .await?;
        Ok(rows.into_iter().map(|row| (row.boot, row.seq)).collect())
    }
}

/// A text in SQL.
pub(super) fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}
