//! Bounds that hold whatever a query does. It runs in a process of its own, which the kernel keeps
//! from taking more memory than it may, and whose end ends every thread of it. DataFusion's own
//! memory pool comes first and says more; but it counts only operators, not what functions make.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use tokio::runtime::{Builder, Runtime};

use super::{FAILED, complain};

/// What a process may take beyond the memory pool: footers, decoding, batches on their way.
const OVERHEAD_MIB: u64 = 352;

/// Stack of each thread. It counts towards the limit, so there are few threads.
const STACK_BYTES: usize = 4 << 20;
const BLOCKING_THREADS: usize = 8;

/// Starts this command again as a worker and turns its end into a sentence and an exit code.
pub(super) fn supervise(memory_mib: u64) -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().skip(1).collect();
    args.insert(1.min(args.len()), "--worker".into());
    let status = std::env::current_exe().and_then(|exe| Command::new(exe).args(args).status());
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            return complain(FAILED, &format!("the query's process cannot be started: {error}"));
        }
    };
    if let Some(code) = status.code() {
        return ExitCode::from(u8::try_from(code).unwrap_or(FAILED));
    }
    let ended = match status.signal() {
        // How Rust ends when there is no memory, and when a stack is full.
        Some(6) => format!(
            "the query needs more memory than the {} MiB that its process may take, or is nested \
             too deeply: make smaller texts and lists, or narrow the query",
            memory_mib + OVERHEAD_MIB
        ),
        Some(signal) => format!("the query's process was ended by signal {signal}"),
        None => format!("the query's process ended: {status}"),
    };
    complain(FAILED, &ended)
}

/// Runs `work` within the limits. When time is up the process ends, whatever its threads do.
pub(super) fn bounded(
    memory_mib: u64,
    timeout: Duration,
    waiting: &Waiting,
    work: impl FnOnce(&Runtime) -> ExitCode + Send + 'static,
) -> ExitCode {
    if let Err(error) = limit_process(memory_mib + OVERHEAD_MIB) {
        return complain(FAILED, &format!("the query's memory cannot be limited: {error}"));
    }
    let runtime = Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(STACK_BYTES)
        .max_blocking_threads(BLOCKING_THREADS)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return complain(FAILED, &format!("no threads for the query: {error}")),
    };
    let (done, finished) = mpsc::channel();
    let worker = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        let code = work(&runtime);
        // Nobody listens only when time is up.
        let _ = done.send(code);
        runtime.shutdown_background();
    });
    if let Err(error) = worker {
        return complain(FAILED, &format!("no thread for the query: {error}"));
    }
    let started = Instant::now();
    loop {
        let left = (timeout + waiting.total()).saturating_sub(started.elapsed());
        match finished.recv_timeout(left) {
            Ok(code) => return code,
            Err(RecvTimeoutError::Disconnected) => {
                return complain(FAILED, &"the query broke the engine");
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if started.elapsed() >= timeout + waiting.total() {
            let seconds = timeout.as_secs_f64();
            let stopped =
                format!("stopped after {seconds} s: narrow the query, or raise --timeout");
            return complain(FAILED, &stopped);
        }
    }
}

/// Time spent on a reader who takes his time, such as a pager. It is not the query's.
#[derive(Default)]
pub(super) struct Waiting(Mutex<(Duration, Option<Instant>)>);

impl Waiting {
    fn total(&self) -> Duration {
        let (total, since) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        total + since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn during<T>(&self, write: impl FnOnce() -> T) -> T {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(Instant::now());
        let result = write();
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = now.1.take().map_or(Duration::ZERO, |since| since.elapsed());
        now.0 += waited;
        result
    }
}

/// Standard output that keeps count of the time it is blocked.
pub(super) struct PatientStdout {
    out: io::Stdout,
    waiting: Arc<Waiting>,
}

impl PatientStdout {
    pub(super) fn new(waiting: Arc<Waiting>) -> Self {
        Self { out: io::stdout(), waiting }
    }
}

impl io::Write for PatientStdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.during(|| self.out.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.waiting.during(|| self.out.flush())
    }
}

/// On Linux this counts all memory that a process can write to and shares with nobody.
fn limit_process(mib: u64) -> rustix::io::Result<()> {
    let both = |limit| Rlimit { current: Some(limit), maximum: Some(limit) };
    setrlimit(Resource::Core, both(0))?;
    let bytes = mib << 20;
    let allowed = rustix::process::getrlimit(Resource::Data).maximum.unwrap_or(u64::MAX);
    setrlimit(Resource::Data, both(bytes.min(allowed)))?;
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}
