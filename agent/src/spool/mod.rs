//! The durable local log. Input: rows from the taps, encoded at once by [`Recorder::record`], which
//! never waits. Output: sealed [`Segment`]s, given out by [`SpoolHandle`] to the uploader.
//!
//! A row goes through `recorder.rs` (memory, bounded), `writer.rs` (frames at the end of the open
//! segment: survives a kill), `keeper.rs` (synced every 20 ms: survives a power cut; sealed: its
//! range is fixed for ever). What an earlier boot left is found by `prepare.rs` and `recover.rs`, by the writer: a disk that
//! hangs must not keep the taps from serving.
//! `docs/spool.md` says what is promised and what is not.

mod disk;
mod folder;
mod frame;
mod handle;
mod keeper;
mod mark;
mod prepare;
mod recorder;
mod recover;
mod shared;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Condvar, Mutex, OnceLock, mpsc};
use std::time::Duration;

use flowtap_record::Seq;
use flowtap_record::path::{NameError, check_agent};
use tokio::sync::{Notify, watch};

pub use disk::{Disk, Fault, FaultPlan};
pub(crate) use folder::holder;
pub(crate) use frame::SegmentReader;
pub use handle::{FinishedBoot, SPOOL_CORRUPT, SpoolHandle};
pub use recorder::{Limit, Recorder};
pub use recover::AGENT_DIED;
pub use shared::Segment;

use crate::clock::Clock;
use crate::stats::Stats;
use folder::Layout;
use keeper::Keeper;
use recorder::State;
use shared::{KeeperState, Registry, Shared};
use writer::Writer;

/// How a spool is to be.
#[derive(Clone, Debug)]
pub struct SpoolOptions {
    /// Its folder, made when it is missing.
    pub path: PathBuf,
    /// How many bytes it may hold on disk; rows beyond are refused and counted.
    pub max_bytes: u64,
    /// How many bytes of rows may wait in memory to be written.
    pub memory_bytes: usize,
    /// From how many bytes on a segment is sealed by itself.
    pub segment_bytes: u64,
    /// The service: the agent's name is made from it.
    pub service: String,
    /// The agent's name, if the configuration gives one.
    pub agent: Option<String>,
    /// By how much watermarks and time marks stay behind the clock, for rows that taps have read
    /// and not yet recorded.
    pub margin: Duration,
    /// The agent's clock.
    pub clock: Clock,
    /// The file system; tests put faults in.
    pub disk: Disk,
    /// How long a start waits for a disk that does not answer.
    pub patience: Duration,
}

impl SpoolOptions {
    /// The defaults.
    pub fn new(path: impl Into<PathBuf>, service: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            max_bytes: 1024 * 1024 * 1024,
            memory_bytes: 16 * 1024 * 1024,
            segment_bytes: 32 * 1024 * 1024,
            service: service.into(),
            agent: None,
            margin: Duration::from_millis(500),
            clock: Clock::system(),
            disk: Disk::default(),
            patience: Duration::from_secs(2),
        }
    }
}

/// Why there is no spool.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another agent works on the folder. The only error at a start: two agents on one folder
    /// would write over each other.
    #[error(
        "spool {}: another agent (process {holder}) works on it; give each agent a folder of its own ([spool] path)",
        path.display()
    )]
    Locked {
        /// The spool's folder.
        path: PathBuf,
        /// Process id of the holder, as it wrote it.
        holder: String,
    },
    /// The folder can't be used now. At a start it is a warning: rows wait in memory, and it is
    /// tried again.
    #[error("spool {}: {source}; check that the folder is there, writable, and has space", path.display())]
    Folder {
        /// The spool's folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The configured name of the agent breaks the rule.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The system gives no thread.
    #[error("the spool's threads can't be started: {0}")]
    Threads(std::io::Error),
}

/// What a start found.
#[derive(Clone, Debug, Default)]
pub struct StartInfo {
    /// Earlier boots that left something, oldest first.
    pub earlier: Vec<EarlierBoot>,
    /// Why the folder can't be used now, if so. It is tried again; rows wait in memory.
    pub problem: Option<String>,
}

/// A boot before this one that left something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarlierBoot {
    /// Its id.
    pub boot: String,
    /// Its agent name.
    pub agent: String,
    /// Whether it died; else it ended in order.
    pub died: bool,
    /// Its last row, 0 if it has none.
    pub last: Seq,
    /// Segments that it left to upload.
    pub segments: usize,
    /// Their size.
    pub bytes: u64,
}

/// The spool: see [`Spool::open`].
#[derive(Debug)]
pub struct Spool;

impl Spool {
    /// Opens the spool and starts its two threads.
    ///
    /// A folder that can't be used does not fail: then [`StartInfo::problem`] says why, rows wait
    /// in memory, are refused and counted when that is full, and the folder is tried again. The same
    /// holds for a disk that does not answer within [`SpoolOptions::patience`]. Only a folder that
    /// another agent holds, or a wrong name, is an error.
    pub fn open(options: SpoolOptions) -> Result<(Recorder, SpoolHandle, StartInfo), SpoolError> {
        if let Some(agent) = &options.agent {
            check_agent(agent)?;
        }
        let max_bytes = options.max_bytes.max(1);
        let started_at = options.clock.now();
        let shared = Arc::new(Shared {
            layout: Layout::new(&options.path),
            disk: options.disk,
            clock: options.clock,
            stats: Arc::new(Stats::default()),
            boot: uuid::Uuid::now_v7().to_string(),
            fresh_agent: folder::fresh_agent_name(&options.service),
            service: options.service,
            started_at,
            configured_agent: options.agent,
            agent: OnceLock::new(),
            memory_bytes: options.memory_bytes,
            max_bytes,
            segment_bytes: AtomicU64::new(options.segment_bytes.min((max_bytes / 4).max(1))),
            margin_us: options.margin.as_micros() as i64,
            state: Mutex::new(State::new()),
            wake: Condvar::new(),
            written_seq: AtomicI64::new(0),
            written: watch::Sender::new(0),
            synced: watch::Sender::new(0),
            open_since: watch::Sender::new(None),
            ended: watch::Sender::new(false),
            keeper: Mutex::new(KeeperState::default()),
            keeper_wake: Condvar::new(),
            registry: Mutex::new(Registry::default()),
            registry_changed: Notify::new(),
            files: Mutex::new(None),
            threads: Mutex::new(Vec::new()),
        });
        let writer = Writer::new(Arc::clone(&shared));
        let keeper = Keeper::new(Arc::clone(&shared));
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(body)
        };
        let (opened, first_try) = mpsc::channel();
        let writer = spawn("spool-writer", Box::new(move || writer.run(&opened)))
            .map_err(SpoolError::Threads)?;
        let keeper =
            spawn("spool-keeper", Box::new(|| keeper.run())).map_err(SpoolError::Threads)?;
        if let Ok(mut threads) = shared.threads.lock() {
            threads.extend([writer, keeper]);
        }
        let handle = SpoolHandle::new(shared);
        let mut info = StartInfo::default();
        match first_try.recv_timeout(options.patience) {
            Ok(Ok(earlier)) => info.earlier = earlier,
            Ok(Err(error @ SpoolError::Folder { .. })) => info.problem = Some(error.to_string()),
            Ok(Err(error)) => {
                handle.abandon();
                return Err(error);
            }
            Err(_) => {
                info.problem =
                    Some(format!("spool {}: the disk does not answer", options.path.display()));
                handle.hold_up();
            }
        }
        Ok((handle.recorder(), handle, info))
    }
}
