//! `flowtap ingest`: moves what agents uploaded into the table `history`, without serving anything.

use std::process::ExitCode;
use std::time::Duration;

use super::telemetry::Telemetry;
use super::{FAILED, StoreArg, USAGE, complain, print, runtime};
use crate::ingest::{Ingester, Options, Passed};
use crate::store::Store;

/// Move what agents uploaded into the table `history` (`flowtap serve` does so by itself)
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    from: StoreArg,

    /// Take what is there and end
    #[arg(long)]
    once: bool,

    /// Time between two looks at the inbox
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = super::sql::duration)]
    every: Duration,

    #[command(flatten)]
    how: IngestArgs,
}

/// How the table `history` is kept
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct IngestArgs {
    /// How long an object stays in the inbox after its rows are in the table
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = super::sql::duration)]
    grace: Duration,

    #[command(flatten)]
    keep: super::tidy::KeepArgs,
}

impl IngestArgs {
    pub(super) fn options(self) -> Options {
        Options { grace: self.grace, keep: self.keep.into() }
    }
}

pub(super) fn run(args: &Args) -> ExitCode {
    match runtime() {
        Ok(runtime) => runtime.block_on(ingest(args)),
        Err(error) => complain(FAILED, &error),
    }
}

async fn ingest(args: &Args) -> ExitCode {
    let telemetry = Telemetry::start();
    let code = match Store::open(&args.from.store) {
        Err(error) => complain(if error.is_usage() { USAGE } else { FAILED }, &error),
        Ok(store) => {
            let ingester = Ingester::new(store, args.how.options());
            if args.once { once(ingester).await } else { always(ingester, args.every).await }
        }
    };
    telemetry.shutdown().await;
    code
}

async fn once(mut ingester: Ingester) -> ExitCode {
    let mut all = Passed::default();
    loop {
        match ingester.pass(crate::store::now()).await {
            Ok(passed) => {
                all.objects += passed.objects;
                all.rows += passed.rows;
                all.quarantined += passed.quarantined;
                all.swept += passed.swept;
                (all.waiting, all.version) = (passed.waiting, passed.version);
                all.newer = passed.newer;
                if !passed.more {
                    break;
                }
            }
            Err(error) => return complain(FAILED, &error),
        }
    }
    // The rows are in the table whatever becomes of this.
    if let Err(error) = ingester.derive().await {
        tracing::warn!(%error, "flow summaries are not kept up, the next run makes up for it");
    }
    let Passed { objects, rows, quarantined, waiting, newer, swept, version, .. } = all;
    print(&format!(
        "{rows} rows of {objects} objects taken, history is at version {version}; {quarantined} \
         quarantined, {waiting} waiting behind a missing one, {swept} deleted from the inbox\n"
    ));
    if newer > 0 {
        print(&format!("{newer} objects of newer agents wait in the inbox: upgrade flowtap\n"));
    }
    ExitCode::SUCCESS
}

async fn always(ingester: Ingester, every: Duration) -> ExitCode {
    tokio::select! {
        result = ingester.run(every) => match result {
            Ok(never) => match never {},
            Err(error) => complain(FAILED, &error),
        },
        () = super::serve::ended() => ExitCode::SUCCESS,
    }
}
