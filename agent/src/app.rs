//! The agent put together, in the order in which a message walks through it, and how it stops.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use flowtap_record::AgentState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use crate::admin::{self, AdminServer};
use crate::check;
use crate::cli::{self, Order};
use crate::config::{self, Config, Sources};
use crate::lifecycle::{Lifecycle, Phase};
use crate::metrics::{Metrics, StorageNumbers};
use crate::spool::{Recorder, Spool, SpoolHandle, SpoolOptions};
use crate::stats::Stats;
use crate::taps::Taps;
use crate::telemetry::Telemetry;
use crate::upload::{StatusBoard, Store, UploadOptions, UploadThread, Uploader};

/// The exit code for a configuration that is wrong.
const WRONG_CONFIGURATION: u8 = 2;

/// Does what the command line says.
pub fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Order::ConfigReference => {
            print!("{}", config::reference());
            ExitCode::SUCCESS
        }
        Order::Run(sources) => with_config(&sources, run),
        Order::Check(sources) => with_config(&sources, check_all),
        Order::Probe(sources, what) => {
            with_config(&sources, async move |config| {
                match admin::probe(&config.admin, what).await {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(why) => {
                        eprintln!("{why}");
                        ExitCode::FAILURE
                    }
                }
            })
        }
    }
}

/// Reads the configuration and goes on with it within a runtime.
fn with_config<F>(sources: &Sources, next: impl FnOnce(Config) -> F) -> ExitCode
where
    F: Future<Output = ExitCode>,
{
    let config = match Config::load(sources) {
        Ok(config) => config,
        Err(problems) => {
            eprint!("{problems}");
            return ExitCode::from(WRONG_CONFIGURATION);
        }
    };
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let exit = runtime.block_on(next(config));
            // A thread that waits for a disk that hangs must not keep the process.
            runtime.shutdown_timeout(LAST_THREADS);
            exit
        }
        Err(error) => {
            eprintln!("no threads to run on: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn check_all(config: Config) -> ExitCode {
    let all_well = check::run(&config, &mut |line| println!("{line}")).await;
    if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Taps until it is told to stop.
pub async fn run(config: Config) -> ExitCode {
    let telemetry = match Telemetry::start(&config) {
        Ok(telemetry) => telemetry,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let exit = match serve(&config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(%error, "cannot start");
            ExitCode::FAILURE
        }
    };
    telemetry.shutdown().await;
    exit
}

/// Starts things in the order in which they need each other, waits, and stops them the other way
/// round. Spool, identifier, uploader and taps are started between the admin port and `started`,
/// so that nothing is tapped that could not be kept; they close at [`Phase::Closing`].
async fn serve(config: &Config) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let metrics = Arc::new(Metrics::new());
    let lifecycle = Lifecycle::new(config.taps.len());
    let (recorder, spool) = open_spool(config)?;
    metrics.watch_storage(storage_numbers(spool.clone()));
    let taps = Taps::new(config, &recorder, &metrics, &lifecycle)?;

    let admin = AdminServer::bind(&config.admin, metrics.clone(), lifecycle.clone()).await?;
    info!(listen = %admin.local_addr()?, "admin port bound");
    let admin = tokio::spawn(admin.serve());

    let board = StatusBoard::new();
    let taps = taps.bind(&lifecycle, &board).await?;
    let uploader = Uploader::new(upload_options(config)?, spool, board.clone());
    let closing = {
        let lifecycle = lifecycle.clone();
        async move { lifecycle.reached(Phase::Closing).await }
    };
    let uploads = UploadThread::start(uploader, closing)?;
    info!(service = %config.service, instance = %config.instance, store = %config.store, "started");

    signals.wait().await;
    board.set_state(AgentState::Draining);
    drain(&lifecycle, config.drain, &mut signals).await;
    lifecycle.enter(Phase::Closing);
    taps.closed().await;
    let drained = uploads.drain(LAST_UPLOADS).await;
    admin.abort();
    let drained = drained.ok_or_else(|| anyhow::anyhow!("the last uploads failed"))?;
    if drained.lost > 0 {
        error!(
            rows = drained.lost,
            spool = %config.spool.path.display(),
            "rows could not be written to the spool and are lost: make its folder writable"
        );
    }
    if drained.segments > 0 {
        warn!(
            segments = drained.segments,
            bytes = drained.bytes,
            "left in the spool for the next start"
        );
    }
    info!(clean = drained.clean, "stopped");
    Ok(())
}

/// How long threads may take that still do something for what has ended.
const LAST_THREADS: Duration = Duration::from_secs(1);

/// How long the last uploads may take after all connections are closed.
const LAST_UPLOADS: Duration = Duration::from_secs(10);

fn open_spool(config: &Config) -> anyhow::Result<(Recorder, SpoolHandle)> {
    let options = SpoolOptions {
        max_bytes: config.spool.max_size.0,
        memory_bytes: config.spool.memory.bytes(),
        agent: config.agent.clone(),
        ..SpoolOptions::new(&config.spool.path, &config.service)
    };
    let (recorder, spool, start) = Spool::open(options)?;
    if let Some(problem) = start.problem {
        warn!(problem, "the spool can't be used now; rows wait in memory");
    }
    for boot in start.earlier {
        info!(
            boot = boot.boot,
            died = boot.died,
            segments = boot.segments,
            "found an earlier boot"
        );
    }
    Ok((recorder, spool))
}

fn upload_options(config: &Config) -> anyhow::Result<UploadOptions> {
    let store = Store::open(&config.store.to_string())?;
    let upload = &config.upload;
    Ok(UploadOptions {
        age: upload.age,
        object_bytes: upload.size.0,
        status_period: upload.status,
        ..UploadOptions::new(store, &config.service, &config.instance)
    })
}

/// What `/metrics` says of spool and uploads.
fn storage_numbers(spool: SpoolHandle) -> impl Fn() -> StorageNumbers + Send + Sync + 'static {
    move || {
        let stats = spool.stats();
        let age = spool.now().since(spool.watermark());
        StorageNumbers {
            spool_bytes: Stats::get(&stats.spool_bytes),
            spool_segments: Stats::get(&stats.segments),
            spool_written_bytes: Stats::get(&stats.written_bytes),
            spool_errors: Stats::get(&stats.spool_errors),
            rows_shed: Stats::get(&stats.shed),
            rows_lost: Stats::get(&stats.lost),
            rows_late: Stats::get(&stats.late),
            uploads: Stats::get(&stats.uploads),
            upload_bytes: Stats::get(&stats.upload_bytes),
            upload_rows: Stats::get(&stats.upload_rows),
            upload_failures: Stats::get(&stats.upload_failures),
            last_upload: stats.last_upload(),
            status_puts: Stats::get(&stats.status_puts),
            watermark_age: u64::try_from(age).ok().map(Duration::from_micros),
        }
    }
}

/// Goes on serving while connections are open, until the time is up or a second signal comes.
async fn drain(lifecycle: &Lifecycle, limit: Duration, signals: &mut Signals) {
    lifecycle.enter(Phase::Draining);
    info!(open = lifecycle.open_connections(), ?limit, "draining");
    tokio::select! {
        idle = lifecycle.idle(limit) => if !idle {
            warn!(open = lifecycle.open_connections(), "closing connections that are still open");
        },
        () = signals.wait() => warn!("told twice to stop: closing connections now"),
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
