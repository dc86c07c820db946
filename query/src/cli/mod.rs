//! The command line of `flowtap`: what can be asked, and how it ends. Exit codes: 0 answered,
//! 1 no answer or cut off, 2 the command line was wrong; `why` and `verify` have more.

mod ask;
mod flows;
mod ingest;
mod serve;
mod sql;
mod tables;
mod telemetry;
mod tidy;
mod verify;
mod why;
mod worker;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

/// Flowtap reads the history of a message-driven system.
#[derive(Debug, Parser)]
#[command(name = "flowtap", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Why(why::Args),
    Flows(flows::Args),
    Tail(flows::TailArgs),
    Serve(serve::Args),
    Sql(sql::Args),
    Ingest(ingest::Args),
    Compact(tidy::CompactArgs),
    Retention(tidy::RetentionArgs),
    Rebuild(tidy::RebuildArgs),
    Verify(verify::Args),
}

/// The store, for commands that need one.
#[derive(Debug, clap::Args)]
struct StoreArg {
    /// Where agents put what they record
    #[arg(
        help = "Where agents put what they record: a folder, file:///path or s3://bucket/prefix",
        long,
        value_name = "URL",
        env = "FLOWTAP_STORE"
    )]
    store: String,
}

/// Exit code for a query that failed or was cut off.
const FAILED: u8 = 1;
/// Exit code for a wrong command line.
const USAGE: u8 = 2;

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    // Parsing exits by itself, with 2 where it fails.
    match Cli::parse().command {
        Command::Why(args) => why::run(args),
        Command::Flows(args) => flows::run(args),
        Command::Tail(args) => flows::tail(args),
        Command::Serve(args) => serve::run(args),
        Command::Sql(args) => {
            telemetry::log("warn");
            sql::run(args)
        }
        Command::Ingest(args) => ingest::run(&args),
        Command::Compact(args) => tidy::compact(&args),
        Command::Retention(args) => tidy::retention(&args),
        Command::Rebuild(args) => tidy::rebuild(&args),
        Command::Verify(args) => {
            telemetry::log("warn");
            verify::run(&args)
        }
    }
}

/// An error as the last line that a person reads.
fn complain(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(code)
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().build()
}

/// Writes to standard output; a reader who has seen enough (`| head`) ends the command quietly.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
