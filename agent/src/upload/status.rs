//! The status object: what the application says of the taps ([`StatusBoard`]), and how it becomes
//! `agents/<agent>/<boot>.json` together with what the spool knows.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use flowtap_record::path::HISTORY;
use flowtap_record::{
    AgentState, AgentStatus, ClockSample, SCHEMA_VERSION, SpoolStatus, TableStatus, TapStatus,
};
use tokio::sync::watch;

use super::UploadOptions;
use crate::spool::{FinishedBoot, SpoolHandle};
use crate::stats::Stats;

/// Where the application writes what the status object shall say. Clones are the same board.
#[derive(Clone, Debug)]
pub struct StatusBoard(Arc<watch::Sender<Board>>);

#[derive(Clone, Debug)]
struct Board {
    state: AgentState,
    taps: TapsNow,
}

/// Asks the taps how they are.
#[derive(Clone)]
struct TapsNow(Arc<dyn Fn() -> Vec<TapStatus> + Send + Sync>);

impl fmt::Debug for TapsNow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TapsNow")
    }
}

impl StatusBoard {
    /// A board of a running agent without taps.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Board {
            state: AgentState::Running,
            taps: TapsNow(Arc::new(Vec::new)),
        })))
    }

    /// Sets where the agent stands. A change is put at once.
    pub fn set_state(&self, state: AgentState) {
        self.0.send_modify(|board| board.state = state);
    }

    /// Sets who knows of the taps; it is asked for each status object from the next one on.
    pub fn set_taps(&self, taps: impl Fn() -> Vec<TapStatus> + Send + Sync + 'static) {
        self.0.send_modify(|board| board.taps = TapsNow(Arc::new(taps)));
    }

    pub(crate) fn state(&self) -> AgentState {
        self.0.borrow().state
    }

    /// Waits until the state is not `state`.
    pub(crate) async fn leaves(&self, state: AgentState) {
        // The sender lives in `self`.
        let _ = self.0.subscribe().wait_for(|board| board.state != state).await;
    }
}

impl Default for StatusBoard {
    fn default() -> Self {
        Self::new()
    }
}

/// The status of this boot now.
pub(crate) fn status_now(
    spool: &SpoolHandle,
    options: &UploadOptions,
    board: &StatusBoard,
    agent: &str,
    clock: Option<ClockSample>,
) -> AgentStatus {
    // Before the counters: what they say may be newer than the watermark, never older.
    let watermark = spool.watermark();
    let stats = spool.stats();
    let table =
        TableStatus { last_seq: spool.recorder().last_seq(), uploaded_seq: spool.uploaded_seq() };
    let Board { state, taps } = board.0.borrow().clone();
    AgentStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        schema: SCHEMA_VERSION.to_owned(),
        agent: agent.to_owned(),
        boot: spool.boot().to_owned(),
        service: options.service.clone(),
        instance: options.instance.clone(),
        state,
        started_at: spool.started_at(),
        at: spool.now(),
        period_s: options.status_period.as_secs().max(1),
        watermark,
        tables: BTreeMap::from([(HISTORY.to_owned(), table)]),
        taps: (taps.0)(),
        spool: SpoolStatus {
            bytes: Stats::get(&stats.spool_bytes),
            segments: Stats::get(&stats.segments),
            shed: Stats::get(&stats.shed),
            upload_failures: Stats::get(&stats.upload_failures),
        },
        clock,
    }
}

/// The last status of an earlier boot, from what it said itself (if that can be read) and from
/// what it left in the spool.
pub(crate) fn status_of_finished(
    found: &FinishedBoot,
    said: Option<AgentStatus>,
    spool: &SpoolHandle,
    options: &UploadOptions,
) -> AgentStatus {
    let mut status = said.unwrap_or_else(|| AgentStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        schema: SCHEMA_VERSION.to_owned(),
        agent: found.agent.clone(),
        boot: found.boot.clone(),
        service: found.service.clone(),
        instance: options.instance.clone(),
        state: AgentState::Died,
        started_at: found.started_at,
        at: spool.now(),
        period_s: options.status_period.as_secs().max(1),
        watermark: found.watermark,
        tables: BTreeMap::new(),
        taps: Vec::new(),
        spool: SpoolStatus::default(),
        clock: None,
    });
    status.state = if found.died { AgentState::Died } else { AgentState::Ended };
    status.at = spool.now();
    status.watermark = status.watermark.max(found.watermark);
    let table = TableStatus { last_seq: found.last, uploaded_seq: found.last };
    status.tables.insert(HISTORY.to_owned(), table);
    status.spool.bytes = 0;
    status.spool.segments = 0;
    status
}
