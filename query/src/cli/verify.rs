//! `flowtap verify`: whether everything that was recorded is there, once.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::tables::{fill, table};
use super::{FAILED, StoreArg, USAGE, complain, print, runtime};
use crate::answer::now;
use crate::store::Store;
use crate::tables::{Limits, TablesError};
use crate::verify::{
    BrokerError, Compared, Counted, Management, Outcome, Place, Report, VerifyError,
    against_broker, verify,
};

/// Something is missing or doubled.
const WRONG: u8 = 1;
/// Not everything can be seen, for want of an agent's word, of the store or of a broker.
const UNPROVEN: u8 = 4;

/// Lines of each kind that a person is shown.
const SHOWN: usize = 50;

const EXAMPLES: &str = "\
Proves by SQL that rows are numbered without a hole that no gap names, that none is there twice, that
what concludes a row finds it, and that publishes which await a confirm have one.

--against-broker compares with RabbitMQ's own counters, exchange by exchange and queue by queue:
  flowtap verify --store URL --against-broker http://rabbit:15672 --save figures.json
  flowtap verify --store URL --against-broker http://rabbit:15672 --since figures.json
The first keeps the figures, the second compares what was added since. The user needs the tag
`monitoring`; FLOWTAP_BROKER_USER and FLOWTAP_BROKER_PASSWORD name it.

Exit code: 0 clean (named gaps are listed); 1 missing or doubled; 2 wrong usage; 4 not provable (a
silent agent, rows still in a spool, a store or a broker that cannot be read, a broker that restarted).";

/// Prove that nothing recorded is missing or doubled
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    from: StoreArg,

    /// Write the report as JSON
    #[arg(long)]
    json: bool,

    /// Compare with the counters of RabbitMQ's management API, `http://HOST:15672`
    #[arg(long, value_name = "URL")]
    against_broker: Option<String>,

    /// Keep the broker's figures in a file, to compare with them later
    #[arg(long, value_name = "FILE", requires = "against_broker")]
    save: Option<PathBuf>,

    /// Compare only what was added since figures were kept in this file
    #[arg(long, value_name = "FILE", requires = "against_broker")]
    since: Option<PathBuf>,

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
    let report = match runtime.block_on(report(args, &store, &limits)) {
        Ok(report) => report,
        Err(VerifyError::Tables(TablesError::Store(error))) if error.is_usage() => {
            return complain(USAGE, &error);
        }
        Err(VerifyError::Broker(error @ BrokerError::Usage(_))) => return complain(USAGE, &error),
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

async fn report(args: &Args, store: &Store, limits: &Limits) -> Result<Report, VerifyError> {
    let Some(url) = &args.against_broker else { return verify(store, limits, now()).await };
    let before = args.since.as_deref().map(kept).transpose()?;
    // The broker first: what it has counted by then is in the store when its sidecars say so.
    let counted = Management::new(url)?.ask(now()).await?;
    if let Some(file) = &args.save {
        keep(file, &counted)?;
    }
    let compared = against_broker(store, limits, &counted, before.as_ref()).await?;
    let mut report = verify(store, limits, now()).await?;
    report.broker = Some(compared);
    Ok(report)
}

/// A broker's figures as they were kept.
fn kept(file: &Path) -> Result<Counted, BrokerError> {
    let wrong = |why: String| BrokerError::Usage(format!("--since {}: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    serde_json::from_str(&text)
        .map_err(|error| wrong(format!("no figures kept by --save: {error}")))
}

fn keep(file: &Path, counted: &Counted) -> Result<(), BrokerError> {
    let wrong = |why: String| BrokerError::Usage(format!("--save {}: {why}", file.display()));
    let text = serde_json::to_string_pretty(counted).map_err(|error| wrong(error.to_string()))?;
    std::fs::write(file, text + "\n").map_err(|error| wrong(error.to_string()))
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
    if let Some(from) = report.kept_from {
        let _ =
            writeln!(text, "what was before {from} may have gone by retention and is not missed");
    }
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
    if let Some(compared) = &report.broker {
        against(&mut text, compared);
    }
    text
}

/// What came of the comparison with a broker.
fn against(text: &mut String, compared: &Compared) {
    let Compared { cluster, equal, published, gone, .. } = compared;
    let since = compared.since.map_or("since it counts".to_owned(), |at| format!("since {at}"));
    let line = format!(
        "broker {cluster}, {since}: {equal} exchanges and queues counted as the history has them, \
         {published} messages published; {gone} are gone and not compared"
    );
    let _ = writeln!(text, "{}", fill(&line));
    let differences = compared.differences.iter().map(|one| {
        let Place { vhost, kind, name } = &one.place;
        let (what, place) = (one.what.as_str().to_owned(), format!("{} {name:?}", kind.as_str()));
        let figures = [one.broker, one.history].map(|it| it.to_string());
        [vec![what, vhost.clone(), place, one.counter.to_owned()], figures.to_vec()].concat()
    });
    list(text, &["problem", "vhost", "where", "counter", "broker", "history"], differences);
    for why in compared.unproven.iter().take(SHOWN) {
        let _ = writeln!(text, "{}", fill(why));
    }
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
