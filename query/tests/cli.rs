//! The command `flowtap` itself: its exit codes, its limits, and its memory under attack.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::process::{Command, Output, Stdio};

use common::{BOOT_1, Inbox, NOON, cars, row};
use flowtap_record::Kind;

fn flowtap() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowtap"));
    for variable in ["FLOWTAP_STORE", "FLOWTAP_LOG", "FLOWTAP_SERVER", "FLOWTAP_TOKEN_FILE"] {
        command.env_remove(variable);
    }
    command
}

fn sql(url: &str, args: &[&str]) -> Output {
    flowtap().args(["sql", "--store", url]).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn json_is_an_array_of_objects_with_nulls() {
    let cars = cars();
    let output = sql(
        &cars.url(),
        &[
            "--json",
            "SELECT event_id, outcome FROM publishes WHERE event_id IN ('e-3','e-4') ORDER BY 1",
        ],
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(
        text(&output.stdout),
        "[{\"event_id\":\"e-3\",\"outcome\":\"refused\"},{\"event_id\":\"e-4\",\"outcome\":null}]\n"
    );
    assert!(text(&output.stderr).starts_with("2 rows in "), "{output:?}");
    let none = sql(&cars.url(), &["--json", "SELECT event_id FROM publishes WHERE false"]);
    assert_eq!(text(&none.stdout), "[]\n");
}

#[test]
fn the_store_comes_from_the_environment_and_the_query_from_standard_input() {
    let cars = cars();
    let mut child = flowtap()
        .args(["sql", "--csv", "-"])
        .env("FLOWTAP_STORE", cars.folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, b"SELECT count(*) AS n FROM publishes\n").unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), "n\n4\n");
}

#[test]
fn wrong_stores_and_wrong_usage_exit_with_2_and_a_sentence() {
    let cars = cars();
    let url = cars.url();
    let mut told = Vec::new();
    for (args, code) in [
        (vec!["sql", "--store", "ftp://host/x", "SELECT 1"], 2),
        (vec!["sql", "--store", "file://host/x", "SELECT 1"], 2),
        (vec!["sql", "--store", "s3://", "SELECT 1"], 2),
        (vec!["sql", "--store", "/no/such/folder", "SELECT 1"], 2),
        (vec!["sql", "SELECT 1"], 2),
        (vec!["sql", "--store", &url], 2),
        (vec!["sql", "--store", &url, "--timeout", "soon", "SELECT 1"], 2),
        (vec!["sql", "--store", &url, "SELECT nothing FROM history"], 1),
    ] {
        let output = flowtap().args(&args).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?} {output:?}");
        let line = text(&output.stderr).lines().next().unwrap_or_default().replace(&url, "URL");
        told.push(line);
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    error: --store ftp://host/x: unknown scheme "ftp"; give a folder, file:///path or s3://bucket/prefix
    error: --store file://host/x: a file URL names no host: three slashes, then the path; give a folder, file:///path or s3://bucket/prefix
    error: --store s3://: no bucket is named; give a folder, file:///path or s3://bucket/prefix
    error: --store /no/such/folder: there is no folder /no/such/folder; nothing was recorded there
    error: the following required arguments were not provided:
    error: the following required arguments were not provided:
    error: invalid value 'soon' for '--timeout <TIME>': "soon" is no time: want 30s, 500ms, 5m, 2h, 30d, or a number of seconds
    error: Schema error: No field named nothing.
    "#);
}

#[test]
fn a_folder_without_an_inbox_is_an_empty_store_and_says_so() {
    let inbox = Inbox::new();
    let output = sql(&inbox.url(), &["--json", "SELECT * FROM publishes"]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "[]\n"));
    assert!(text(&output.stderr).contains("nothing is recorded in this store yet"), "{output:?}");
}

#[test]
fn more_rows_than_allowed_are_cut_off_and_exit_with_1() {
    let inbox = Inbox::new();
    for format in ["--json", "--csv", "--expanded"] {
        let output = sql(
            &inbox.url(),
            &[format, "--limit-rows", "5", "SELECT * FROM generate_series(1, 1000000000000)"],
        );
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output.stderr).contains("cut off after 5 rows"), "{output:?}");
        assert!(text(&output.stdout).contains('5'), "{output:?}");
        assert!(!text(&output.stdout).contains('6'), "{output:?}");
    }
    let whole =
        sql(&inbox.url(), &["--json", "--limit-rows", "5", "SELECT * FROM generate_series(1, 5)"]);
    assert_eq!(whole.status.code(), Some(0), "{whole:?}");
}

/// The largest memory that a process or its children ever held, and how it ended.
#[cfg(target_os = "linux")]
fn peak(url: &str, args: &[&str]) -> (u64, Output) {
    fn high_water(pid: u32) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }
    let mut child = flowtap()
        .args(["sql", "--store", url])
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let mut highest = 0;
    while child.try_wait().unwrap().is_none() {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        for pid in std::iter::once(pid).chain(pids) {
            highest = highest.max(high_water(pid).unwrap_or(0));
        }
        // Not waiting for a state: a sample of a mark that only rises.
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    (highest / 1024, child.wait_with_output().unwrap())
}

#[cfg(target_os = "linux")]
#[test]
fn attacks_end_with_a_sentence_and_within_a_gigabyte() {
    let inbox = Inbox::new();
    let rows: Vec<_> = (0..5000).map(|i| row(Kind::Publish, NOON + i)).collect();
    inbox.put("a", BOOT_1, 1, &rows);
    let doubled: Vec<_> =
        (1..=40).map(|i| format!("t{i} AS (SELECT s || s AS s FROM t{})", i - 1)).collect();
    let doubled = format!(
        "WITH t0 AS (SELECT boot AS s FROM history), {} SELECT max(length(s)) FROM t40",
        doubled.join(", ")
    );
    let widened: Vec<_> = (0..40).map(|i| format!("s || value || {i} AS c{i}")).collect();
    let widened = format!(
        "SELECT {} FROM (SELECT repeat('x', 60000000) AS s) t, generate_series(1, 9)",
        widened.join(", ")
    );
    let nested = format!("SELECT {}1{}", "(".repeat(50_000), ")".repeat(50_000));
    let long_sum = format!("SELECT {}", vec!["1"; 20_000].join("+"));
    for query in [
        "SELECT repeat('x', 2000000000)",
        "SELECT repeat('x', 100000000) FROM history",
        "SELECT repeat(agent, 100000) FROM history",
        "SELECT repeat(agent, size) FROM (SELECT agent, seq * 100000 AS size FROM history)",
        "SELECT length(repeat('x', 2000000000))",
        "SELECT array_repeat(repeat('x', 10000), 1000000)",
        "SELECT count(*) FROM generate_series(1, 100000000000)",
        "SELECT range(TIMESTAMP '2000-01-01', TIMESTAMP '2026-01-01', INTERVAL '1 microsecond')",
        "SELECT * FROM generate_series(1, 100000000000)",
        "SELECT * FROM history a, history b, history c",
        "SELECT count(*) FROM history a, history b, history c WHERE a.seq + b.seq + c.seq = -1",
        "SELECT string_agg(a.agent || b.boot, ',') FROM history a, history b",
        "SELECT array_agg(a.boot) FROM history a, history b, history c",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION SELECT n + 1 FROM t) SELECT * FROM t",
        "WITH RECURSIVE t AS (SELECT 'x' AS s UNION ALL SELECT s || s FROM t) SELECT max(length(s)) FROM t",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT t.n FROM t, history) SELECT count(*) FROM t",
        "SELECT count(DISTINCT value) FROM generate_series(1, 100000000)",
        "SELECT count(*) FROM generate_series(1, 1000000000) a, generate_series(1, 1000000000) b",
        "SELECT unnest(range(10000000)) FROM history",
        "SELECT regexp_replace(repeat('a', 30000000), '(a)', '$1$1$1$1$1$1$1$1$1', 'g')",
        doubled.as_str(),
        widened.as_str(),
        nested.as_str(),
        long_sum.as_str(),
    ] {
        let (mib, output) = peak(&inbox.url(), &["--timeout", "3s", query]);
        let short: String = query.chars().take(120).collect();
        let error = text(&output.stderr);
        println!("{mib} MiB: {short}\n    {}", error.lines().last().unwrap_or_default());
        assert!(mib < 1024, "{mib} MiB: {short}");
        assert_eq!(output.status.code(), Some(1), "{short}\n{error}");
        assert!(error.contains("error: "), "{short}\n{error}");
        assert!(!error.contains("panicked"), "{short}\n{error}");
    }
}

#[test]
fn a_reader_who_takes_his_time_is_not_the_querys_time() {
    let inbox = Inbox::new();
    let mut child = flowtap()
        .args(["sql", "--csv", "--timeout", "2s", "--store", &inbox.url()])
        .arg("SELECT value FROM generate_series(1, 100000)")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Longer than the limit: the pipe is full all the while.
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert!(child.try_wait().unwrap().is_none(), "it waits for its reader");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).ends_with("\n100000\n"));
}

#[test]
fn what_never_yields_is_stopped_in_time() {
    let inbox = Inbox::new();
    let started = std::time::Instant::now();
    let output = sql(
        &inbox.url(),
        &[
            "--timeout",
            "1s",
            "SELECT sum(a.value * b.value) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b",
        ],
    );
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("stopped after 1 s"), "{output:?}");
    // Not a measurement: without the limit this takes hours.
    assert!(started.elapsed().as_secs() < 60);
}
