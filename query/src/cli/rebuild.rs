//! `flowtap rebuild`: makes again what can be made of the table `history`.

use std::process::ExitCode;
use std::time::Duration;

use super::telemetry::Telemetry;
use super::{FAILED, StoreArg, USAGE, complain, print, runtime};
use crate::ingest::{IngestError, Ingester, Options};
use crate::store::Store;

/// Times that a table is asked for while somebody else is at work on it, and the time between.
const TRIES: usize = 60;
const BETWEEN: Duration = Duration::from_secs(2);

/// Make again what is derived of the table `history`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What to make again
    what: What,

    #[command(flatten)]
    from: StoreArg,
}

/// What can be made again.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum What {
    /// The flow summaries: what the tables `flows` and `flow_days` are made of
    Flows,
    /// For each day, which parts of the table's files carry which ids
    Directory,
}

pub(super) fn run(args: &Args) -> ExitCode {
    match runtime() {
        Ok(runtime) => runtime.block_on(rebuild(args)),
        Err(error) => complain(FAILED, &error),
    }
}

async fn rebuild(args: &Args) -> ExitCode {
    let telemetry = Telemetry::start();
    let code = match Store::open(&args.from.store) {
        Err(error) => complain(if error.is_usage() { USAGE } else { FAILED }, &error),
        Ok(store) => {
            let mut ingester = Ingester::new(store, Options::default());
            let done = match args.what {
                What::Flows => flows(&mut ingester).await,
                What::Directory => directory(&mut ingester).await,
            };
            match done {
                Ok(Some(line)) => {
                    print(&line);
                    ExitCode::SUCCESS
                }
                Ok(None) => complain(FAILED, &"another process is at work on it: try again later"),
                Err(error) => complain(FAILED, &error),
            }
        }
    };
    telemetry.shutdown().await;
    code
}

/// None: somebody else is at work on it for too long.
async fn flows(ingester: &mut Ingester) -> Result<Option<String>, IngestError> {
    for _ in 0..TRIES {
        if let Some(rows) = ingester.rebuild_flows().await? {
            return Ok(Some(format!("flow summaries made again of {rows} rows\n")));
        }
        tokio::time::sleep(BETWEEN).await;
    }
    Ok(None)
}

async fn directory(ingester: &mut Ingester) -> Result<Option<String>, IngestError> {
    Ok(Some(match ingester.rebuild_directories().await? {
        1 => "1 day's directory made anew\n".to_owned(),
        days => format!("{days} days' directories made anew\n"),
    }))
}
