//! `flowtap sql`: one question in SQL, answered from the store.

use std::io::{self, BufWriter, IsTerminal as _, Read as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::worker::{self, PatientStdout, Waiting};
use super::{FAILED, StoreArg, USAGE, complain};
use crate::sql::output::{Format, OutputError, Written, write};
use crate::sql::query;
use crate::store::Store;
use crate::tables::{Limits, TablesError, context};

/// Rows that a person is shown.
const TABLE_ROWS: usize = 10_000;
/// Rows that a program is given.
const DATA_ROWS: usize = 1_000_000;

const EXAMPLES: &str = "\
Tables: history, and the views publishes, consumes, topology, gaps.
  flowtap sql 'SHOW TABLES'
  flowtap sql 'DESCRIBE publishes'

Examples:
  flowtap sql --store file:///var/lib/flowtap \\
    'SELECT service, count(*) FROM publishes GROUP BY service'
  flowtap sql --store s3://bucket/flowtap --json \\
    \"SELECT * FROM history WHERE transaction_id = 'order-1042' ORDER BY at\"
  flowtap sql --csv \"SELECT * FROM consumes WHERE outcome = 'rejected'\" > rejected.csv

S3 is reached with the usual AWS_* variables (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION,
AWS_ENDPOINT_URL, AWS_ALLOW_HTTP). Exit code: 0 answered, 1 failed or cut off, 2 wrong usage.";

/// Asks the history in SQL. It only reads.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    from: StoreArg,

    /// Write an array of objects, one a row, keys as selected
    #[arg(long, conflicts_with_all = ["csv", "expanded"])]
    json: bool,

    /// Write comma-separated values with a header
    #[arg(long, conflicts_with = "expanded")]
    csv: bool,

    /// Write one line a column instead of a table
    #[arg(short = 'x', long)]
    expanded: bool,

    /// Stop after so many rows [default: 10000; with --json or --csv 1000000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit_rows: Option<u64>,

    /// Stop after this time: 30s, 500ms, 5m, or a number of seconds
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    timeout: Duration,

    /// Memory for joins, sorts and aggregates, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 512,
          value_parser = clap::value_parser!(u64).range(16..=1 << 20))]
    memory: u64,

    /// Write what the HTTP API answers: json, csv or arrow
    #[arg(long, hide = true, value_name = "FORMAT")]
    answer: Option<String>,

    /// Run the query in this process
    #[arg(long, hide = true)]
    worker: bool,

    /// The query; - reads it from standard input
    query: String,
}

/// Answers the question and says how it went.
pub(super) fn run(args: Args) -> ExitCode {
    if !args.worker {
        return worker::supervise(args.memory);
    }
    let limit = args.timeout;
    let waiting = Arc::new(Waiting::default());
    let out = PatientStdout::new(Arc::clone(&waiting));
    worker::bounded(args.memory, limit, &waiting, move |runtime| {
        runtime.block_on(answer(args, out))
    })
}

async fn answer(args: Args, out: PatientStdout) -> ExitCode {
    let started = Instant::now();
    let text = match text(args.query) {
        Ok(text) => text,
        Err(error) => return complain(USAGE, &format!("the query cannot be read: {error}")),
    };
    let answer = args.answer.as_deref();
    let format = match (answer, args.json, args.csv, args.expanded) {
        (Some("csv"), ..) => Format::Csv,
        (Some("arrow"), ..) => Format::Arrow,
        (Some(_), ..) => Format::Answer,
        (_, true, _, _) => Format::Json,
        (_, _, true, _) => Format::Csv,
        (_, _, _, true) => Format::Expanded,
        _ => Format::Table { width: terminal_width() },
    };
    let defaults = match format {
        _ if answer.is_some() => TABLE_ROWS,
        Format::Json | Format::Csv | Format::Answer | Format::Arrow => DATA_ROWS,
        Format::Table { .. } | Format::Expanded => TABLE_ROWS,
    };
    let rows = args.limit_rows.map_or(defaults, |rows| usize::try_from(rows).unwrap_or(usize::MAX));
    let limits = Limits {
        memory_bytes: usize::try_from(args.memory << 20).unwrap_or(usize::MAX),
        timeout: args.timeout,
        rows,
        ..Limits::default()
    };

    let store = match Store::open(&args.from.store) {
        Ok(store) => store,
        Err(error) => return complain(if error.is_usage() { USAGE } else { FAILED }, &error),
    };
    let context = match context(&store, &limits).await {
        Ok(context) => context,
        Err(TablesError::Store(error)) if error.is_usage() => return complain(USAGE, &error),
        Err(error) => return complain(FAILED, &error),
    };
    let stream = match query(&context, &text).await {
        Ok(stream) => stream,
        Err(error) => return complain(FAILED, &error),
    };
    let mut out = BufWriter::new(out);
    match write(&text, stream, format, limits.rows, &mut out).await {
        Ok(Written { rows, cut }) => {
            let seconds = started.elapsed().as_secs_f64();
            eprintln!("{rows} {} in {seconds:.3} s", if rows == 1 { "row" } else { "rows" });
            if cut && answer.is_none() {
                let more = format!(
                    "cut off after {rows} rows, there are more: narrow the query, \
                     or raise --limit-rows (or use --json or --csv)"
                );
                return complain(FAILED, &more);
            }
            ExitCode::SUCCESS
        }
        // The reader has seen enough: `flowtap sql ... | head`.
        Err(OutputError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => complain(FAILED, &error),
    }
}

fn text(query: String) -> io::Result<String> {
    if query != "-" {
        return Ok(query);
    }
    let mut text = String::new();
    io::stdin().lock().take(1 << 20).read_to_string(&mut text)?;
    Ok(text)
}

/// Only a terminal has a width; a pipe gets lines as long as they are.
fn terminal_width() -> Option<usize> {
    if !io::stdout().is_terminal() {
        return None;
    }
    terminal_size::terminal_size().map(|(width, _)| usize::from(width.0))
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("{text:?} is no time: want 30s, 500ms, 5m, 2h, 30d, or a number of seconds");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    match &text[digits..] {
        "" | "s" => Some(Duration::from_secs(number)),
        "ms" => Some(Duration::from_millis(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        "d" => number.checked_mul(86_400).map(Duration::from_secs),
        _ => None,
    }
    .filter(|time| !time.is_zero())
    .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_are_never_zero() {
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5m"), Ok(Duration::from_mins(5)));
        assert_eq!(duration("2h"), Ok(Duration::from_hours(2)));
        assert_eq!(duration("30d"), Ok(Duration::from_hours(30 * 24)));
        for wrong in ["", "s", "0", "1w", "-1", "1.5", "99999999999999999999"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
