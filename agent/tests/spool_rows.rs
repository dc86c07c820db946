//! Rows into the spool: numbers, when they count as written, and what happens at its limits.

mod spool_support;

use std::fs;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flowtap_agent::spool::{Disk, Fault, Spool, SpoolError, SpoolOptions};
use flowtap_record::{Micros, Seq};
use futures::FutureExt as _;
use spool_support::{
    Faults, close_and_read, eventually, options, record, rows_of_segment, sealed, segment_files,
};

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_row_counts_as_written_only_when_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let (recorder, handle, info) =
        Spool::open(SpoolOptions { disk: faults.disk(), ..options(folder.path()) }).unwrap();
    assert_eq!((info.earlier, info.problem), (vec![], None));
    faults.set("segment.write", Fault::Errno(EIO));
    let seq = record(&recorder, &handle, "waits").unwrap();
    assert_eq!(seq, Seq(1));
    assert!(!recorder.is_written(seq));
    eventually("a failed write", || handle.stats().spool_errors.load(Ordering::Relaxed) > 0).await;
    assert_eq!(recorder.written(seq).now_or_never(), None);
    faults.clear();
    recorder.written(seq).await;
    assert!(recorder.is_written(seq));
    let files = segment_files(folder.path(), handle.boot());
    assert!(String::from_utf8_lossy(&fs::read(&files[0]).unwrap()).contains("waits"));
    recorder.synced(seq).await;
    handle.abandon();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_refused_for_memory_are_counted_exactly_under_concurrent_recorders() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let (recorder, handle, _) = Spool::open(SpoolOptions {
        disk: faults.disk(),
        memory_bytes: 64 * 1024,
        ..options(folder.path())
    })
    .unwrap();
    let refused = Arc::new(AtomicUsize::new(0));
    let rounds = |count: usize| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let (recorder, handle) = (recorder.clone(), handle.clone());
                let refused = Arc::clone(&refused);
                std::thread::spawn(move || {
                    for i in 0..count {
                        if record(&recorder, &handle, &format!("{thread}/{i}")).is_none() {
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    };
    let mut attempts = 3 * 4 * 2000;
    for _ in 0..3 {
        faults.set("segment.write", Fault::Errno(EIO));
        rounds(2000);
        faults.clear();
        let last = Seq(recorder.last_seq());
        recorder.written(last).await;
        // Memory is given back a moment after the rows count as written.
        attempts += 1;
        while record(&recorder, &handle, "between").is_none() {
            attempts += 1;
            refused.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    }
    let refused = refused.load(Ordering::Relaxed) as i64;
    assert!(refused > 0);
    let rows = close_and_read(&handle).await;
    let numbers: Vec<i64> = rows.iter().map(|row| row.seq).collect();
    assert_eq!(numbers, (1..=numbers.len() as i64).collect::<Vec<_>>());
    let gaps: Vec<_> = rows.iter().filter(|row| row.kind == "gap").collect();
    assert_eq!(gaps.iter().filter_map(|gap| gap.gap_count).sum::<i64>(), refused);
    assert_eq!(rows.len() - gaps.len(), attempts - refused as usize);
    for gap in gaps {
        assert_eq!(gap.reason.as_deref(), Some("shed"));
        assert!(gap.gap_from <= gap.gap_to && gap.gap_to <= Some(gap.at));
        assert!(gap.details.as_ref().unwrap().starts_with("{\"limits\":{"), "{:?}", gap.details);
    }
    assert_eq!(handle.stats().shed.load(Ordering::Relaxed), refused as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_refused_at_the_very_end_still_get_their_gap() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let (recorder, handle, _) = Spool::open(SpoolOptions {
        disk: faults.disk(),
        memory_bytes: 4096,
        ..options(folder.path())
    })
    .unwrap();
    faults.set("segment.create", Fault::Errno(ENOSPC));
    let refused = (0..500).filter(|_| record(&recorder, &handle, "x").is_none()).count();
    assert!(refused > 0);
    faults.clear();
    let rows = close_and_read(&handle).await;
    let gap = rows.last().unwrap();
    assert_eq!((gap.kind.as_str(), gap.gap_count), ("gap", Some(refused as i64)));
    assert_eq!(rows.len(), 500 - refused + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_refuses_exactly_what_does_not_fit_and_takes_again_when_it_drained() {
    let folder = tempfile::tempdir().unwrap();
    let (recorder, handle, _) = Spool::open(SpoolOptions {
        max_bytes: 64 * 1024,
        memory_bytes: 16 * 1024,
        ..options(folder.path())
    })
    .unwrap();
    let (mut taken, mut refused) = (0_i64, 0_i64);
    for i in 0..5000 {
        match record(&recorder, &handle, &format!("row {i}")) {
            Some(seq) => {
                taken += 1;
                // Lets the disk fill up before memory does.
                if handle.stats().spool_bytes.load(Ordering::Relaxed) < 60 * 1024 {
                    recorder.written(seq).await;
                }
            }
            None => refused += 1,
        }
    }
    assert!(refused > 0);
    assert!(handle.stats().spool_bytes.load(Ordering::Relaxed) <= 64 * 1024);
    assert!(handle.is_half_full(), "uploads need not be gentle any more");
    let mut rows = Vec::new();
    let last = Seq(recorder.last_seq());
    handle.seal();
    while !recorder.is_written(last) {
        let segment = sealed(&handle).await;
        rows.extend(rows_of_segment(&segment));
        handle.uploaded(&segment, Micros(0), Micros(0));
        handle.seal();
    }
    taken += 1;
    while record(&recorder, &handle, "after").is_none() {
        refused += 1;
        tokio::task::yield_now().await;
    }
    rows.extend(close_and_read(&handle).await);
    let numbers: Vec<i64> = rows.iter().map(|row| row.seq).collect();
    assert_eq!(numbers, (1..=numbers.len() as i64).collect::<Vec<_>>());
    let gaps: Vec<_> = rows.iter().filter(|row| row.kind == "gap").collect();
    assert_eq!(gaps.iter().filter_map(|gap| gap.gap_count).sum::<i64>(), refused);
    assert!(gaps.iter().any(|gap| gap.details.as_ref().unwrap().contains("\"disk\":")));
    assert_eq!(rows.len() as i64, taken + gaps.len() as i64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_stops_half_way_loses_no_row_and_leaves_no_torn_frame() {
    for truncate_fails in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let faults = Faults::default();
        let (recorder, handle, _) =
            Spool::open(SpoolOptions { disk: faults.disk(), ..options(folder.path()) }).unwrap();
        let first = record(&recorder, &handle, "before").unwrap();
        recorder.written(first).await;
        faults.set("segment.write", Fault::Short(11, ENOSPC));
        if truncate_fails {
            faults.set("segment.truncate", Fault::Errno(EIO));
        }
        let second = record(&recorder, &handle, "torn").unwrap();
        assert!(!recorder.is_written(second));
        eventually("a failed write", || handle.stats().spool_errors.load(Ordering::Relaxed) > 0)
            .await;
        faults.clear();
        recorder.written(second).await;
        let rows = close_and_read(&handle).await;
        let texts: Vec<_> = rows.iter().map(|row| row.routing_key.as_deref().unwrap()).collect();
        assert_eq!(texts, ["before", "torn"], "truncate_fails: {truncate_fails}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_on_the_same_folder_gets_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let (_, handle, _) = Spool::open(options(folder.path())).unwrap();
    let error = Spool::open(options(folder.path())).unwrap_err();
    assert!(matches!(error, SpoolError::Locked { .. }));
    let sentence = error.to_string();
    assert!(sentence.contains(&folder.path().display().to_string()), "{sentence}");
    assert!(sentence.contains(&format!("process {}", std::process::id())), "{sentence}");
    handle.abandon();
    Spool::open(options(folder.path())).unwrap().1.abandon();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_is_made_once_and_a_key_overrides_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("spool");
    let open = |agent: Option<&str>| {
        let agent = agent.map(str::to_owned);
        let opened = Spool::open(SpoolOptions { agent, ..options(&folder) });
        opened.map(|(recorder, handle, _)| {
            let name = recorder.agent().unwrap().to_owned();
            handle.abandon();
            name
        })
    };
    let made = open(None).unwrap();
    assert!(made.starts_with("shop-") && made.len() == "shop-".len() + 8, "{made}");
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(open(Some("mine")).unwrap(), "mine");
    assert_eq!(open(None).unwrap(), made);
    assert!(matches!(open(Some("no/name")), Err(SpoolError::Name(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_used_is_no_error_and_is_tried_again() {
    let temp = tempfile::tempdir().unwrap();
    let blocked = temp.path().join("blocked");
    fs::write(&blocked, "a file where a folder should be").unwrap();
    let (recorder, handle, info) = Spool::open(options(&blocked.join("spool"))).unwrap();
    assert!(info.problem.unwrap().contains("blocked"));
    assert_eq!(recorder.agent(), None);
    let seq = record(&recorder, &handle, "early").unwrap();
    assert_eq!(recorder.written(seq).now_or_never(), None);
    fs::remove_file(&blocked).unwrap();
    recorder.written(seq).await;
    assert!(recorder.agent().is_some());
    let rows = close_and_read(&handle).await;
    assert_eq!(rows.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_folder_that_comes_late_was_too_late_for_is_told_by_a_gap() {
    let temp = tempfile::tempdir().unwrap();
    let blocked = temp.path().join("blocked");
    fs::write(&blocked, "a file where a folder should be").unwrap();
    let spool = SpoolOptions { memory_bytes: 1000, ..options(&blocked.join("spool")) };
    let (recorder, handle, _) = Spool::open(spool).unwrap();
    let taken = (0..40).filter_map(|_| record(&recorder, &handle, "a row")).count();
    assert_eq!(handle.unwritten(), 40);
    fs::remove_file(&blocked).unwrap();
    eventually("the folder is there", || handle.unwritten() == (40 - taken) as u64).await;
    let rows = close_and_read(&handle).await;
    let gap = rows.last().unwrap();
    assert_eq!((rows.len(), gap.reason.as_deref()), (taken + 1, Some("shed")));
    assert_eq!(gap.gap_count, Some((40 - taken) as i64));
    let limits = format!(r#"{{"limits":{{"disk_error":{}}}}}"#, 40 - taken);
    assert_eq!(gap.details.as_deref(), Some(limits.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_at_the_start_holds_nobody_up() {
    let temp = tempfile::tempdir().unwrap();
    let hangs = Arc::new(Mutex::new(()));
    let held = hangs.lock().unwrap();
    let disk = Disk::with_faults({
        let hangs = Arc::clone(&hangs);
        Arc::new(move |_| {
            drop(hangs.lock());
            None
        })
    });
    let spool = SpoolOptions {
        disk,
        patience: Duration::from_millis(50),
        ..options(&temp.path().join("spool"))
    };
    let (recorder, handle, info) = Spool::open(spool).unwrap();
    assert!(info.problem.unwrap().contains("does not answer"));
    let seq = record(&recorder, &handle, "early").unwrap();
    assert_eq!(recorder.written(seq).now_or_never(), None);
    drop(held);
    recorder.written(seq).await;
    assert!(recorder.agent().is_some());
    let rows = close_and_read(&handle).await;
    assert_eq!(rows.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_counts_as_synced_only_when_a_sync_worked() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    faults.set("segment.sync", Fault::Errno(EIO));
    let spool = SpoolOptions { disk: faults.disk(), ..options(folder.path()) };
    let (recorder, handle, _) = Spool::open(spool).unwrap();
    let seq = record(&recorder, &handle, "row").unwrap();
    recorder.written(seq).await;
    let errors = || handle.stats().spool_errors.load(Ordering::Relaxed);
    eventually("two tries", || errors() >= 2).await;
    assert_eq!(recorder.synced(seq).now_or_never(), None);
    faults.clear();
    recorder.synced(seq).await;
    assert_eq!(close_and_read(&handle).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_deleted_under_the_agent_loses_no_row() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("spool");
    let (recorder, handle, _) = Spool::open(options(&folder)).unwrap();
    let seq = record(&recorder, &handle, "kept").unwrap();
    recorder.written(seq).await;
    fs::remove_dir_all(&folder).unwrap();
    handle.seal();
    let segment = sealed(&handle).await;
    assert_eq!(rows_of_segment(&segment)[0].routing_key.as_deref(), Some("kept"));
    let next = record(&recorder, &handle, "after").unwrap();
    recorder.written(next).await;
    assert!(handle.close(Duration::from_secs(20)).await);
    handle.abandon();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_older_than_a_watermark_that_was_told_is_taken_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (recorder, handle, _) = Spool::open(options(folder.path())).unwrap();
    let told = handle.watermark();
    let mut late = flowtap_record::Observation::new(flowtap_record::Kind::Deliver, told);
    late.tap = Some(flowtap_record::Tap::Proxy);
    assert!(recorder.record(&late).is_some());
    assert_eq!(handle.stats().late.load(Ordering::Relaxed), 1);
    handle.abandon();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watermark_stays_before_what_a_tap_has_not_decoded() {
    let folder = tempfile::tempdir().unwrap();
    let (recorder, handle, _) = Spool::open(options(folder.path())).unwrap();
    let waiting = Arc::new(AtomicI64::new(i64::MAX));
    recorder.stay_before(Arc::clone(&waiting));
    let read = handle.now();
    waiting.store(read.0, Ordering::Release);
    let past_the_margin = || handle.now().since(read) > 2_000_000;
    while !past_the_margin() {
        assert!(handle.watermark() <= read.max(handle.started_at()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    waiting.store(i64::MAX, Ordering::Release);
    assert!(handle.watermark() > read);
    handle.abandon();
}
