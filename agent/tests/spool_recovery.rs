//! What a killed agent leaves, and what its next boot makes of it.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod spool_support;

use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use flowtap_agent::clock::Clock;
use flowtap_agent::spool::{AGENT_DIED, Spool, SpoolHandle, SpoolOptions, StartInfo};
use flowtap_record::{Micros, Seq};
use spool_support::{
    Row, close_and_read, copy_folder, eventually, options, record, rows_of_segment, segment_files,
};

/// A boot that writes `rows` and is killed; its id.
async fn killed_boot(folder: &Path, rows: &[&str]) -> String {
    let (recorder, handle, _) = Spool::open(options(folder)).unwrap();
    let mut last = Seq(recorder.last_seq());
    for text in rows {
        last = record(&recorder, &handle, text).unwrap();
        recorder.written(last).await;
    }
    recorder.synced(last).await;
    let boot = handle.boot().to_owned();
    handle.abandon();
    boot
}

/// Ends a boot in order and gives its own rows.
async fn rows_of_boot(handle: &SpoolHandle) -> Vec<Row> {
    let boot = handle.boot().to_owned();
    close_and_read(handle).await.into_iter().filter(|row| row.boot == boot).collect()
}

fn deaths(rows: &[Row]) -> Vec<&str> {
    let died = rows.iter().filter(|row| row.reason.as_deref() == Some(AGENT_DIED));
    died.map(|row| row.ref_boot.as_deref().unwrap_or("?")).collect()
}

fn died(info: &StartInfo) -> Vec<(&str, bool)> {
    info.earlier.iter().map(|earlier| (earlier.boot.as_str(), earlier.died)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_is_told_once_with_its_last_row_and_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let boot = killed_boot(folder.path(), &["a", "b", "c"]).await;
    let (recorder, handle, info) = Spool::open(options(folder.path())).unwrap();
    assert_eq!(died(&info), [(boot.as_str(), true)]);
    assert_eq!(info.earlier[0].last, Seq(3));
    let left = rows_of_segment(&handle.next_sealed().unwrap());
    assert_eq!(left.iter().map(|row| row.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(left.iter().all(|row| row.boot == boot));
    let after = record(&recorder, &handle, "d").unwrap();
    assert_eq!(after, Seq(2), "the gap is the first row");
    let rows = rows_of_boot(&handle).await;
    assert_eq!(deaths(&rows), [boot.as_str()]);
    let gap = &rows[0];
    assert_eq!((gap.seq, gap.ref_seq, gap.gap_count), (1, Some(3), None));
    assert_eq!(gap.gap_to, Some(handle.started_at().0));
    assert!(gap.gap_from >= Some(left[2].at) && gap.gap_from <= gap.gap_to);
    assert_eq!(gap.at, rows[0].at);

    let (_, handle, info) = Spool::open(options(folder.path())).unwrap();
    assert!(died(&info).iter().all(|(of, died)| *died == (*of == boot)), "{info:?}");
    assert_eq!(deaths(&rows_of_boot(&handle).await), Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_in_order_is_no_death() {
    let folder = tempfile::tempdir().unwrap();
    let (recorder, handle, _) = Spool::open(options(folder.path())).unwrap();
    record(&recorder, &handle, "a").unwrap();
    rows_of_boot(&handle).await;
    let (_, handle, info) = Spool::open(options(folder.path())).unwrap();
    assert!(info.earlier.iter().all(|earlier| !earlier.died));
    assert_eq!(deaths(&rows_of_boot(&handle).await), Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_several_deaths_is_told_exactly_once_wherever_the_next_boot_dies() {
    let folder = tempfile::tempdir().unwrap();
    let first = killed_boot(folder.path(), &["a"]).await;
    // Killed right after its row about the first one is synced.
    let second = killed_boot(folder.path(), &[]).await;
    let boots = folder.path().join("boots");
    let copies = tempfile::tempdir().unwrap();

    // As it is; before the first was marked; before the second had written anything.
    for case in ["marked", "unmarked", "nothing written"] {
        let spool = copies.path().join(case);
        copy_folder(folder.path(), &spool);
        let marker = spool.join("boots").join(&first).join("reported");
        let wants = match case {
            "marked" => vec!["?"],
            "unmarked" => {
                let _ = fs::remove_file(&marker);
                vec!["?"]
            }
            _ => {
                let _ = fs::remove_file(&marker);
                for segment in segment_files(&spool, &second) {
                    fs::remove_file(segment).unwrap();
                }
                vec![first.as_str(), "?"]
            }
        };
        // The second boot's only row is its gap; without it, it has no row to refer to.
        let wants: Vec<&str> = wants
            .into_iter()
            .map(|want| if want == "?" && case != "nothing written" { &second } else { want })
            .collect();
        let (_, handle, _) = Spool::open(options(&spool)).unwrap();
        let rows = rows_of_boot(&handle).await;
        assert_eq!(deaths(&rows), wants, "{case}");
        let last = rows.last().and_then(|row| row.details.as_deref());
        assert!(last.unwrap().contains(&second), "{case}");
    }
    assert!(boots.join(&first).is_dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_kills_in_a_row_make_ten_gaps() {
    let folder = tempfile::tempdir().unwrap();
    let mut boots = Vec::new();
    for i in 0..10 {
        let rows: &[&str] = if i % 2 == 0 { &["x"] } else { &[] };
        boots.push(killed_boot(folder.path(), rows).await);
    }
    let (_, handle, _) = Spool::open(options(folder.path())).unwrap();
    let rows = close_and_read(&handle).await;
    assert_eq!(deaths(&rows), boots.iter().map(String::as_str).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gap_begins_at_the_time_mark_unless_rows_behind_it_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(Micros(1_000_000_000));
    let with_clock = |path: &Path| SpoolOptions { clock: clock.clone(), ..options(path) };
    let (recorder, handle, _) = Spool::open(with_clock(folder.path())).unwrap();
    let seq = record(&recorder, &handle, "a").unwrap();
    recorder.synced(seq).await;
    clock.advance(5_000_000);
    let mark = folder.path().join("boots").join(handle.boot()).join("mark");
    let before = fs::read(&mark).unwrap();
    eventually("a time mark", || fs::read(&mark).unwrap() != before).await;
    let boot = handle.boot().to_owned();
    handle.abandon();
    clock.advance(5_000_000);

    let cut = tempfile::tempdir().unwrap();
    copy_folder(folder.path(), cut.path());
    let segment =
        OpenOptions::new().write(true).open(&segment_files(cut.path(), &boot)[0]).unwrap();
    segment.set_len(segment.metadata().unwrap().len() - 1).unwrap();

    for (path, from) in [(folder.path(), 1_005_000_000), (cut.path(), 1_000_000_000)] {
        let (_, handle, _) = Spool::open(with_clock(path)).unwrap();
        let rows = rows_of_boot(&handle).await;
        assert_eq!((rows[0].gap_from, rows[0].gap_to), (Some(from), Some(1_010_000_000)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_torn_at_any_byte_of_its_last_frame_keeps_all_before() {
    let folder = tempfile::tempdir().unwrap();
    let boot = killed_boot(folder.path(), &["a", "b"]).await;
    let whole = fs::read(&segment_files(folder.path(), &boot)[0]).unwrap();
    let first_end = 8 + 8 + u32::from_le_bytes(whole[8..12].try_into().unwrap()) as usize;
    assert!(first_end < whole.len(), "each row has a frame of its own");
    for cut in first_end..=whole.len() {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(folder.path(), copy.path());
        fs::write(&segment_files(copy.path(), &boot)[0], &whole[..cut]).unwrap();
        let (_, handle, info) = Spool::open(options(copy.path())).unwrap();
        let kept = if cut == whole.len() { 2 } else { 1 };
        assert_eq!(info.earlier[0].last, Seq(kept), "cut at {cut}");
        let segment = handle.next_sealed().unwrap();
        assert_eq!(rows_of_segment(&segment).len() as i64, kept);
        assert_eq!(rows_of_boot(&handle).await[0].ref_seq, Some(kept));
    }
}

/// Not a test: what [`a_real_kill_loses_no_row_that_was_called_written`] kills.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a child process of another test"]
async fn a_child_that_records_until_it_is_killed() {
    let Some(folder) = std::env::var_os("SPOOL_TEST_FOLDER") else { return };
    let (recorder, handle, _) = Spool::open(options(Path::new(&folder))).unwrap();
    println!("boot {}", handle.boot());
    loop {
        let seq = record(&recorder, &handle, "row of a child").unwrap();
        recorder.written(seq).await;
        println!("written {}", seq.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_kill_loses_no_row_that_was_called_written() {
    let folder = tempfile::tempdir().unwrap();
    for round in 1..=5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "a_child_that_records_until_it_is_killed",
                "--nocapture",
            ])
            .env("SPOOL_TEST_FOLDER", folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut promised = 0;
        let mut boot = String::new();
        for line in lines.by_ref() {
            let line = line.unwrap();
            if let Some((_, id)) = line.split_once("boot ") {
                id.clone_into(&mut boot);
            }
            promised = line.split_once("written ").map_or(promised, |(_, n)| n.parse().unwrap());
            if promised >= 50 * round {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            let number = line.split_once("written ").and_then(|(_, n)| n.parse().ok());
            promised = number.unwrap_or(promised);
        }
        let (_, handle, info) = Spool::open(options(folder.path())).unwrap();
        let killed = info.earlier.iter().find(|earlier| earlier.boot == boot).unwrap();
        assert!(killed.died && killed.last.0 >= promised, "{killed:?} promised {promised}");
        let rows = close_and_read(&handle).await;
        assert_eq!(deaths(&rows).iter().filter(|of| **of == boot).count(), 1);
        let of_child = rows.iter().filter(|row| row.boot == boot).map(|row| row.seq);
        assert!(of_child.eq(1..=killed.last.0));
    }
}
