//! `flowtap verify`: whether everything that was recorded is there, once.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use super::tables::{fill, table};
use super::{FAILED, StoreArg, USAGE, complain, print, runtime};
use crate::answer::now;
use crate::store::Store;
use crate::tables::{Limits, TablesError};
use crate::verify::{Outcome, Report, VerifyError, verify};

/// Something is missing or doubled.
const WRONG: u8 = 1;
/// Not everything can be seen, for want of an agent's word or of the store.
const UNPROVEN: u8 = 4;

/// Lines of each kind that a person is shown.
const SHOWN: usize = 50;

const EXAMPLES: &str = "\
Proves by SQL that rows are numbered without a hole that no gap names, that none is there twice, that
what concludes a row finds it, and that publishes which await a confirm have one.

Exit code: 0 clean (named gaps are listed); 1 missing or doubled; 2 wrong usage; 4 not provable (a
silent agent, rows still in a spool, or a store that cannot be read).";

/// Prove that nothing recorded is missing or doubled
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    from: StoreArg,

    /// Write the report as JSON
    #[arg(long)]
    json: bool,

    /// Memory for the checks, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 2048,
          value_parser = clap::value_parser!(u64).range(16..=1 << 20))]
    memory: u64,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let store = match Store::open(&args.from.store) {
        Ok(store) => store,
        Err(error) => return complain(if error.is_usage() { USAGE } else { UNPROVEN }, &error),
    };
    let limits = Limits {
        memory_bytes: usize::try_from(args.memory << 20).unwrap_or(usize::MAX),
        timeout: Duration::MAX,
        ..Limits::default()
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return complain(FAILED, &error),
    };
    let report = match runtime.block_on(verify(&store, &limits, now())) {
        Ok(report) => report,
        Err(VerifyError::Tables(TablesError::Store(error))) if error.is_usage() => {
            return complain(USAGE, &error);
        }
        Err(error) => return complain(UNPROVEN, &error),
    };
    if args.json {
        match serde_json::to_string(&report) {
            Ok(text) => print(&(text + "\n")),
            Err(error) => return complain(FAILED, &error),
        }
    } else {
        print(&words(&report));
    }
    ExitCode::from(match report.outcome() {
        Outcome::Clean => 0,
        Outcome::Wrong => WRONG,
        Outcome::Unproven => UNPROVEN,
    })
}

/// The report for people.
fn words(report: &Report) -> String {
    let headline = match report.outcome() {
        Outcome::Clean if report.named.is_empty() => "CLEAN",
        Outcome::Clean => "CLEAN but for named gaps",
        Outcome::Wrong => "MISSING OR DOUBLED",
        Outcome::Unproven => "NOT PROVABLE",
    };
    let Report { rows, boots, agents, gaps, .. } = report;
    let mut text = format!(
        "{headline}: {rows} rows of {boots} starts of {agents} sidecars; {gaps} gaps reported\n"
    );
    let problems = report.problems.iter().map(|one| {
        let what = one.what.as_str().to_owned();
        vec![what, one.agent.clone(), one.boot.clone(), range(one.first, one.last)]
    });
    list(&mut text, &["problem", "agent", "boot", "rows"], problems);
    let named = report.named.iter().map(|one| {
        let rows = range(one.first, one.last);
        vec![one.reason.clone(), one.agent.clone(), one.boot.clone(), rows]
    });
    list(&mut text, &["named gap", "agent", "boot", "rows"], named);
    for one in report.unproven.iter().take(SHOWN) {
        let _ = writeln!(text, "{}", fill(&format!("{}: {}", one.agent, one.why)));
    }
    text
}

fn list(text: &mut String, names: &[&str], rows: impl ExactSizeIterator<Item = Vec<String>>) {
    let count = rows.len();
    if count == 0 {
        return;
    }
    text.push_str(&table(names, rows.take(SHOWN)));
    if count > SHOWN {
        let _ = writeln!(text, "and {} more (--json has all)", count - SHOWN);
    }
}

fn range(first: i64, last: i64) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}
