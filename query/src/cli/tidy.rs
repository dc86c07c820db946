//! `flowtap compact` and `flowtap retention`: by hand what `flowtap serve` does by itself.

use std::process::ExitCode;
use std::time::Duration;

use super::{FAILED, StoreArg, USAGE, complain, print, runtime};
use crate::ingest::{Day, IngestError, Ingester, Keep, Options};
use crate::store::{Store, now};

/// Merge small files of the table `history` into large ones (`flowtap serve` does so by itself)
#[derive(Debug, clap::Args)]
pub(super) struct CompactArgs {
    #[command(flatten)]
    from: StoreArg,
}

/// Let days go that are past retention, and delete files that nobody needs any more
#[derive(Debug, clap::Args)]
pub(super) struct RetentionArgs {
    #[command(flatten)]
    from: StoreArg,

    #[command(flatten)]
    keep: KeepArgs,

    /// Say what would go, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// How much is kept. Whole days go, never today
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct KeepArgs {
    /// Let days go whose end is longer ago than this: 30d, 12h. Default: none goes by age
    #[arg(long, value_name = "TIME", value_parser = super::sql::duration)]
    keep: Option<Duration>,

    /// Let the oldest days go while the table has more bytes than this: 500GB, 20GiB. Default: no
    /// limit
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    keep_bytes: Option<u64>,
}

impl From<KeepArgs> for Keep {
    fn from(args: KeepArgs) -> Self {
        Self { age: args.keep, bytes: args.keep_bytes }
    }
}

pub(super) fn compact(args: &CompactArgs) -> ExitCode {
    run(&args.from.store, Keep::default(), async |mut ingester| {
        let mut merged = 0;
        while ingester.compact(now()).await? {
            merged += 1;
        }
        while ingester.cover(now()).await? {}
        Ok(match merged {
            0 => "no files are worth merging\n".to_owned(),
            1 => "1 file made of small ones\n".to_owned(),
            _ => format!("{merged} files made of small ones\n"),
        })
    })
}

pub(super) fn retention(args: &RetentionArgs) -> ExitCode {
    let keep = Keep::from(args.keep);
    if keep == Keep::default() {
        return complain(USAGE, &"say how much is kept: --keep 30d, --keep-bytes 500GB, or both");
    }
    run(&args.from.store, keep, async |mut ingester| {
        if args.dry_run {
            let gone = ingester.past_retention(now()).await?;
            return Ok(list(&gone, "would go"));
        }
        let gone = ingester.retain(now()).await?;
        let deleted = ingester.vacuum(now()).await?;
        Ok(format!("{}{deleted} files deleted that nobody needs any more\n", list(&gone, "gone")))
    })
}

fn list(days: &[Day], word: &str) -> String {
    if days.is_empty() {
        return "nothing is past retention\n".to_owned();
    }
    let line = |day: &Day| {
        let (date, rows, files) = (day.date(), day.rows, day.files);
        format!("{date}  {rows} rows, {} bytes in {files} files: {word}\n", day.bytes)
    };
    days.iter().map(line).collect()
}

fn run(
    url: &str,
    keep: Keep,
    work: impl AsyncFnOnce(Ingester) -> Result<String, IngestError>,
) -> ExitCode {
    super::telemetry::log("warn");
    let store = match Store::open(url) {
        Ok(store) => store,
        Err(error) => return complain(if error.is_usage() { USAGE } else { FAILED }, &error),
    };
    let ingester = Ingester::new(store, Options { keep, ..Options::default() });
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return complain(FAILED, &error),
    };
    match runtime.block_on(work(ingester)) {
        Ok(said) => {
            print(&said);
            ExitCode::SUCCESS
        }
        Err(error) => complain(FAILED, &error),
    }
}

/// A number of bytes as people write it.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 9] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("kB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("", 1),
    ];
    let wrong = || format!("{text:?} is no number of bytes; want such as 500GB, 20GiB or 1000000");
    let number = text.trim_end_matches(char::is_alphabetic);
    let unit = text[number.len()..].trim();
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let number: u64 = number.trim().parse().map_err(|_| wrong())?;
    number.checked_mul(*factor).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_are_read_as_people_write_them() {
        assert_eq!(bytes("500GB"), Ok(500_000_000_000));
        assert_eq!(bytes("20 GiB"), Ok(20 << 30));
        assert_eq!(bytes("17"), Ok(17));
        for wrong in ["", "GB", "5 apples", "-1", "99999999TB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
