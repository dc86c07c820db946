//! From the spool into the store: order, names, watermarks, a store that is away, and the end.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod spool_support;

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use flowtap_agent::clock::Clock;
use flowtap_agent::spool::{
    AGENT_DIED, Fault, Recorder, SPOOL_CORRUPT, Spool, SpoolHandle, SpoolOptions,
};
use flowtap_agent::upload::{Drained, StatusBoard, Store, UploadOptions, Uploader};
use flowtap_record::path::{HISTORY, status};
use flowtap_record::{AgentState, AgentStatus, Micros, Seq, footer};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use spool_support::{Faults, TestStore, eventually, options, record, sealed, segment_files};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const EIO: i32 = 5;
const LONG: Duration = Duration::from_hours(1);

struct Agent {
    recorder: Recorder,
    handle: SpoolHandle,
    uploader: Arc<Uploader>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

fn upload_options(store: &TestStore) -> UploadOptions {
    let store = Store::with_object_store(Arc::new(store.clone()));
    UploadOptions {
        age: Duration::from_millis(20),
        status_period: Duration::from_millis(50),
        ..UploadOptions::new(store, "shop", "host-1")
    }
}

fn start(spool: SpoolOptions, upload: UploadOptions) -> Agent {
    let (recorder, handle, _) = Spool::open(spool).unwrap();
    let uploader = Arc::new(Uploader::new(upload, handle.clone(), StatusBoard::new()));
    let (stop, stopped) = oneshot::channel::<()>();
    let run = Arc::clone(&uploader);
    let task = tokio::spawn(async move { run.run(async { drop(stopped.await) }).await });
    Agent { recorder, handle, uploader, stop: Some(stop), task }
}

impl Agent {
    fn record(&self, text: &str) -> Seq {
        record(&self.recorder, &self.handle, text).unwrap()
    }

    async fn all_uploaded(&self) {
        let last = self.recorder.last_seq();
        eventually("all rows uploaded", || self.handle.uploaded_seq() >= last).await;
    }

    async fn drain(mut self, within: Duration) -> Drained {
        self.stop.take().unwrap().send(()).unwrap();
        (&mut self.task).await.unwrap();
        let drained = self.uploader.drain(within).await;
        self.handle.abandon();
        drained
    }

    async fn kill(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        (&mut self.task).await.unwrap();
        self.handle.abandon();
    }
}

fn status_of(store: &TestStore, agent: &str, boot: &str) -> AgentStatus {
    serde_json::from_slice(&store.body(&status(agent, boot)).unwrap()).unwrap()
}

fn boots_left(folder: &Path) -> usize {
    fs::read_dir(folder.join("boots")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_a_boot_are_put_in_order_without_a_hole() {
    let folder = tempfile::tempdir().unwrap();
    let store = TestStore::default();
    let spool = SpoolOptions { segment_bytes: 2000, ..options(folder.path()) };
    let agent = start(spool, upload_options(&store));
    for i in 0..200 {
        let seq = agent.record(&format!("row {i}"));
        agent.recorder.written(seq).await;
    }
    agent.all_uploaded().await;
    let (name, boot) = (agent.recorder.agent().unwrap().to_owned(), agent.handle.boot().to_owned());
    let drained = agent.drain(Duration::from_secs(10)).await;
    assert_eq!(drained, Drained { lost: 0, clean: true, segments: 0, bytes: 0 });

    let puts: Vec<_> = store.puts().into_iter().filter(|put| put.starts_with("inbox/")).collect();
    assert!(puts.is_sorted() && puts.len() > 3, "{puts:?}");
    let mut next = 1;
    for object in store.inbox() {
        assert_eq!(object.name.table, HISTORY);
        assert_eq!((&object.name.agent, &object.name.boot), (&name, &boot));
        assert_eq!(object.name.first.0, next);
        next = object.name.last.0 + 1;
        let numbers = object.rows.iter().map(|row| row.seq);
        assert!(numbers.eq(object.name.first.0..next));
        assert_eq!(object.footer[footer::AGENT], name);
        assert_eq!(object.footer[footer::BOOT], boot);
        assert_eq!(object.footer[footer::FIRST], object.name.first.0.to_string());
        assert_eq!(object.footer[footer::LAST], object.name.last.0.to_string());
        assert_eq!(object.footer[footer::SCHEMA], flowtap_record::SCHEMA_VERSION);
        let uploaded_at: i64 = object.footer[footer::UPLOADED_AT].parse().unwrap();
        let watermark: i64 = object.footer[footer::WATERMARK].parse().unwrap();
        assert!(watermark <= uploaded_at);
        let later = store.rows().into_iter().filter(|row| row.seq >= next);
        assert!(later.map(|row| row.at).all(|at| at >= watermark));
    }
    assert_eq!(next, 201);
    let ended = status_of(&store, &name, &boot);
    assert_eq!(ended.state, AgentState::Ended);
    assert_eq!((ended.tables[HISTORY].last_seq, ended.tables[HISTORY].uploaded_seq), (200, 200));
    assert_eq!((ended.spool.bytes, ended.spool.segments), (0, 0));
    assert!(ended.watermark >= Micros(store.rows().last().unwrap().at));
    assert!(ended.clock.is_some());
    assert_eq!(boots_left(folder.path()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_zstd_with_page_statistics_and_without_bloom_filters() {
    let folder = tempfile::tempdir().unwrap();
    let store = TestStore::default();
    let agent = start(options(folder.path()), upload_options(&store));
    agent.record("a");
    agent.all_uploaded().await;
    agent.kill().await;
    let name = store.puts().into_iter().find(|put| put.starts_with("inbox/")).unwrap();
    let reader = SerializedFileReader::new(store.body(&name).unwrap()).unwrap();
    for column in reader.metadata().row_group(0).columns() {
        assert!(matches!(column.compression(), parquet::basic::Compression::ZSTD(_)));
        assert!(column.bloom_filter_offset().is_none());
        assert!(column.statistics().is_some(), "{}", column.column_path());
        assert!(column.column_index_offset().is_some(), "{}", column.column_path());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_away_gets_everything_in_few_objects() {
    let folder = tempfile::tempdir().unwrap();
    let store = TestStore::default();
    store.set_away(true);
    let agent = start(options(folder.path()), upload_options(&store));
    for round in 1..=5 {
        agent.record(&format!("round {round}"));
        let failures = || agent.handle.stats().upload_failures.load(Ordering::Relaxed);
        eventually("failed puts", || failures() >= 2 * round).await;
    }
    assert_eq!(store.puts(), Vec::<String>::new());
    store.set_away(false);
    agent.all_uploaded().await;
    let (name, boot) = (agent.recorder.agent().unwrap().to_owned(), agent.handle.boot().to_owned());
    let said = || store.body(&status(&name, &boot));
    eventually("a status", || said().is_some()).await;
    agent.kill().await;
    let texts: Vec<_> = store.rows().into_iter().filter_map(|row| row.routing_key).collect();
    assert_eq!(texts, ["round 1", "round 2", "round 3", "round 4", "round 5"]);
    assert!(store.inbox().len() <= 2, "the open segment grows while older ones wait");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_put_and_removal_repeats_the_same_names_with_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    let store = TestStore::default();
    let faults = Faults::default();
    for name in ["segment.remove", "mark.write"] {
        faults.set(name, Fault::Errno(EIO));
    }
    let (recorder, handle, _) = Spool::open(options(folder.path())).unwrap();
    record(&recorder, &handle, "of a boot before").unwrap();
    assert!(handle.close(LONG).await);
    handle.abandon();
    let spool = SpoolOptions { disk: faults.disk(), segment_bytes: 500, ..options(folder.path()) };
    // The first mark can't be written under these faults: let the folder be made before.
    faults.clear();
    let agent = start(spool, upload_options(&store));
    for name in ["segment.remove", "mark.write"] {
        faults.set(name, Fault::Errno(EIO));
    }
    for i in 0..20 {
        let seq = agent.record(&format!("row {i}"));
        agent.recorder.written(seq).await;
    }
    agent.all_uploaded().await;
    let before = store.inbox();
    agent.kill().await;

    let agent = start(options(folder.path()), upload_options(&store));
    let boot = agent.handle.boot().to_owned();
    agent.all_uploaded().await;
    eventually("earlier boots are forgotten", || boots_left(folder.path()) == 1).await;
    agent.kill().await;
    let after: Vec<_> =
        store.inbox().into_iter().filter(|object| object.name.boot != boot).collect();
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((&before.name, &before.rows), (&after.name, &after.rows));
    }
    let puts: Vec<_> = store.puts().into_iter().filter(|put| put.starts_with("inbox/")).collect();
    assert!(puts.len() > store.inbox().len(), "some were put twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_boots_rest_goes_under_its_own_name_and_its_status_says_died() {
    let folder = tempfile::tempdir().unwrap();
    let store = TestStore::default();
    let named = |agent: &str| SpoolOptions { agent: Some(agent.into()), ..options(folder.path()) };
    let (recorder, handle, _) = Spool::open(named("old-name")).unwrap();
    let seq = record(&recorder, &handle, "rest").unwrap();
    recorder.written(seq).await;
    let dead = handle.boot().to_owned();
    handle.abandon();

    let agent = start(named("new-name"), upload_options(&store));
    agent.all_uploaded().await;
    let told = || store.body(&status("old-name", &dead)).is_some();
    eventually("the dead boot's status", told).await;
    eventually("its folder goes", || boots_left(folder.path()) == 1).await;
    agent.kill().await;
    let rest = &store.inbox()[1];
    assert_eq!((rest.name.agent.as_str(), &rest.name.boot), ("old-name", &dead));
    assert_eq!((rest.rows[0].agent.as_str(), rest.rows.len()), ("old-name", 1));
    let died = status_of(&store, "old-name", &dead);
    assert_eq!(died.state, AgentState::Died);
    assert_eq!((died.tables[HISTORY].last_seq, died.tables[HISTORY].uploaded_seq), (1, 1));
    let gap = &store.inbox()[0].rows[0];
    assert_eq!((gap.ref_boot.as_deref(), gap.ref_seq), (Some(dead.as_str()), Some(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_may_only_put_finishes_a_dead_boot() {
    let folder = tempfile::tempdir().unwrap();
    let store = TestStore::default();
    store.forbid_reading();
    let (recorder, handle, _) = Spool::open(options(folder.path())).unwrap();
    let seq = record(&recorder, &handle, "rest").unwrap();
    recorder.written(seq).await;
    let (name, dead) = (recorder.agent().unwrap().to_owned(), handle.boot().to_owned());
    handle.abandon();

    let agent = start(options(folder.path()), upload_options(&store));
    eventually("its folder goes", || boots_left(folder.path()) == 1).await;
    assert_eq!(agent.handle.stats().upload_failures.load(Ordering::Relaxed), 0);
    assert!(agent.drain(Duration::from_secs(10)).await.clean);
    assert_eq!(status_of(&store, &name, &dead).state, AgentState::Died);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_lost_in_a_corrupt_segment_are_named_and_its_range_covers_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = TestStore::default();
    let (recorder, handle, _) = Spool::open(options(folder.path())).unwrap();
    for i in 0..5 {
        let seq = record(&recorder, &handle, &format!("row {i}")).unwrap();
        recorder.written(seq).await;
    }
    let corrupt = handle.boot().to_owned();
    assert!(handle.close(LONG).await);
    handle.abandon();
    let file = &segment_files(folder.path(), &corrupt)[0];
    let mut bytes = fs::read(file).unwrap();
    let at = bytes.windows(5).position(|window| window == b"row 2").unwrap();
    bytes[at] ^= 4;
    fs::write(file, bytes).unwrap();

    let agent = start(options(folder.path()), upload_options(&store));
    eventually("the corrupt boot goes", || boots_left(folder.path()) == 1).await;
    let last = agent.recorder.last_seq();
    eventually("the gap goes", || agent.handle.uploaded_seq() >= last.max(1)).await;
    let own = agent.handle.boot().to_owned();
    agent.kill().await;
    let objects = store.inbox();
    let of_corrupt: Vec<_> = objects.iter().filter(|object| object.name.boot == corrupt).collect();
    assert_eq!(of_corrupt.len(), 1);
    assert_eq!((of_corrupt[0].name.first, of_corrupt[0].name.last), (Seq(1), Seq(5)));
    let numbers: Vec<_> = of_corrupt[0].rows.iter().map(|row| row.seq).collect();
    assert_eq!(numbers, [1, 2, 4, 5]);
    let gaps: Vec<_> =
        objects.iter().filter(|object| object.name.boot == own).flat_map(|o| &o.rows).collect();
    assert_eq!(gaps.len(), 1);
    assert_eq!((gaps[0].reason.as_deref(), gaps[0].gap_count), (Some(SPOOL_CORRUPT), Some(1)));
    let details: serde_json::Value =
        serde_json::from_str(gaps[0].details.as_deref().unwrap()).unwrap();
    let wanted = serde_json::json!({ "boot": corrupt, "first_seq": 3, "last_seq": 3 });
    assert_eq!(details, wanted);
    // The lost row came between the rows before and behind it.
    let at = |seq| of_corrupt[0].rows.iter().find(|row| row.seq == seq).map(|row| row.at);
    assert_eq!((gaps[0].gap_from, gaps[0].gap_to), (at(2), at(4)));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_lost_at_the_ends_of_a_segment_lie_between_what_went_before_and_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let store = TestStore::default();
    let clock = Clock::manual(Micros(1_000_000));
    let spool = || SpoolOptions { clock: clock.clone(), ..options(folder.path()) };
    let (recorder, handle, _) = Spool::open(spool()).unwrap();
    let corrupt = handle.boot().to_owned();
    for segment in 0..3 {
        for i in 0..2 {
            clock.advance(10);
            let seq = record(&recorder, &handle, &format!("row {segment}.{i}")).unwrap();
            recorder.written(seq).await;
        }
        handle.seal();
        let is_sealed = |file: &std::path::PathBuf| file.to_string_lossy().contains("-0000");
        let sealed =
            || segment_files(folder.path(), &corrupt).iter().filter(|f| is_sealed(f)).count();
        eventually("sealed", || sealed() == segment + 1).await;
    }
    // The first segment is uploaded; the second is gone, the third loses its last row.
    let first = sealed(&handle).await;
    handle.uploaded(&first, Micros(1_000_020), Micros(1_000_000));
    eventually("removed", || segment_files(folder.path(), &corrupt).len() == 2).await;
    handle.abandon();
    let files = segment_files(folder.path(), &corrupt);
    fs::write(&files[0], "nothing of a segment").unwrap();
    let mut bytes = fs::read(&files[1]).unwrap();
    let at = bytes.windows(7).position(|window| window == b"row 2.1").unwrap();
    bytes[at] ^= 4;
    fs::write(&files[1], bytes).unwrap();

    clock.advance(1_000_000);
    let start_of_next = clock.now().0;
    let agent = start(spool(), upload_options(&store));
    eventually("the corrupt boot goes", || boots_left(folder.path()) == 1).await;
    let own = agent.handle.boot().to_owned();
    eventually("the gaps go", || {
        store.rows().iter().filter(|row| row.reason.as_deref() == Some(SPOOL_CORRUPT)).count() == 2
    })
    .await;
    agent.kill().await;
    let rows = store.rows();
    let gaps: Vec<_> = rows
        .iter()
        .filter(|row| row.boot == own && row.reason.as_deref() == Some(SPOOL_CORRUPT))
        .map(|row| (row.gap_count, row.gap_from, row.gap_to))
        .collect();
    assert_eq!(
        gaps,
        [
            (Some(2), Some(1_000_020), Some(start_of_next)),
            (Some(1), Some(1_000_050), Some(start_of_next))
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_sample_is_of_the_status_put_before() {
    let folder = tempfile::tempdir().unwrap();
    let store = TestStore::default();
    let agent = start(options(folder.path()), upload_options(&store));
    let puts = || agent.handle.stats().status_puts.load(Ordering::Relaxed);
    eventually("four of them", || puts() >= 4).await;
    agent.kill().await;
    let put = store.statuses();
    assert_eq!(put[0].0.clock, None, "nothing was put before the first");
    for pair in put.windows(2) {
        let [(before, modified), (status, _)] = pair else { unreachable!("windows of two") };
        let sample = status.clock.expect("each but the first carries one");
        assert_eq!(sample.last_modified, *modified);
        let times = [before.at, sample.before, sample.after, status.at];
        assert!(times.is_sorted(), "{times:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_no_disk_took_are_counted_at_the_end() {
    let temp = tempfile::tempdir().unwrap();
    let blocked = temp.path().join("blocked");
    fs::write(&blocked, "a file where a folder should be").unwrap();
    let spool = SpoolOptions { memory_bytes: 1000, ..options(&blocked.join("spool")) };
    let agent = start(spool, upload_options(&TestStore::default()));
    let taken = (0..40).filter_map(|_| record(&agent.recorder, &agent.handle, "a row")).count();
    assert!(taken > 0 && taken < 40, "{taken}");
    let drained = agent.drain(Duration::from_secs(1)).await;
    assert_eq!((drained.lost, drained.clean), (40, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn three_agents_with_one_configuration_do_not_collide() {
    let store = TestStore::default();
    let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let agents: Vec<_> = folders
        .iter()
        .map(|folder| start(options(folder.path()), upload_options(&store)))
        .collect();
    for (i, agent) in agents.iter().enumerate() {
        for j in 0..10 {
            agent.record(&format!("{i}/{j}"));
        }
    }
    for agent in agents {
        assert!(agent.drain(Duration::from_secs(10)).await.clean);
    }
    let rows = store.rows();
    assert_eq!(rows.len(), 30);
    let names: HashSet<_> = rows.iter().map(|row| &row.agent).collect();
    let texts: HashSet<_> = rows.iter().map(|row| &row.routing_key).collect();
    assert_eq!((names.len(), texts.len()), (3, 30));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_anything_new_only_status_objects_are_put_and_the_watermark_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = TestStore::default();
    let clock = Clock::manual(Micros(1_000_000_000));
    let spool = SpoolOptions { clock: clock.clone(), ..options(folder.path()) };
    let agent = start(spool, upload_options(&store));
    let (name, boot) = (agent.recorder.agent().unwrap().to_owned(), agent.handle.boot().to_owned());
    let puts = || agent.handle.stats().status_puts.load(Ordering::Relaxed);
    eventually("a first status", || puts() >= 1).await;
    assert_eq!(status_of(&store, &name, &boot).watermark, Micros(1_000_000_000));
    clock.advance(7_000_000);
    let before = puts();
    eventually("two more", || puts() >= before + 2).await;
    assert_eq!(status_of(&store, &name, &boot).watermark, Micros(1_007_000_000));
    assert!(store.puts().iter().all(|put| put.starts_with("agents/")));
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watermark_does_not_pass_a_row_that_is_not_uploaded() {
    let folder = tempfile::tempdir().unwrap();
    let store = TestStore::default();
    let clock = Clock::manual(Micros(1_000_000_000));
    let spool = SpoolOptions { clock: clock.clone(), ..options(folder.path()) };
    let upload = UploadOptions { age: LONG, ..upload_options(&store) };
    let agent = start(spool, upload);
    let (name, boot) = (agent.recorder.agent().unwrap().to_owned(), agent.handle.boot().to_owned());
    clock.advance(1_000_000);
    agent.record("waits");
    clock.advance(5_000_000);
    let puts = || agent.handle.stats().status_puts.load(Ordering::Relaxed);
    let before = puts();
    eventually("two more", || puts() >= before + 2).await;
    assert!(status_of(&store, &name, &boot).watermark <= Micros(1_001_000_000));
    // Sealed 5 s after its row: by then nothing else was seen.
    agent.handle.seal();
    agent.all_uploaded().await;
    assert_eq!(store.inbox()[0].footer[footer::WATERMARK], "1006000000");
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_drain_cannot_upload_the_next_boot_does_without_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let store = TestStore::default();
    let agent = start(options(folder.path()), upload_options(&store));
    let (name, boot) = (agent.recorder.agent().unwrap().to_owned(), agent.handle.boot().to_owned());
    store.set_away(true);
    agent.record("late");
    let drained = agent.drain(Duration::from_millis(300)).await;
    assert!(drained.clean && drained.segments == 1 && drained.bytes > 0, "{drained:?}");
    store.set_away(false);
    let agent = start(options(folder.path()), upload_options(&store));
    eventually("the first boot is forgotten", || boots_left(folder.path()) == 1).await;
    assert_eq!(agent.recorder.last_seq(), 0, "no gap");
    agent.kill().await;
    assert_eq!(store.rows().len(), 1);
    let ended = status_of(&store, &name, &boot);
    assert_eq!((ended.state, ended.tables[HISTORY].uploaded_seq), (AgentState::Ended, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_any_number_of_kills_every_row_is_there_and_every_death_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = TestStore::default();
    let spool = || SpoolOptions { segment_bytes: 700, ..options(folder.path()) };
    let mut promised = Vec::new();
    for round in 0..8 {
        let agent = start(spool(), upload_options(&store));
        store.set_away(round % 3 == 1);
        let mut last = Seq(0);
        for i in 0..10 * round {
            last = agent.record(&format!("{round}/{i}"));
            agent.recorder.written(last).await;
        }
        promised.push((agent.handle.boot().to_owned(), last.0));
        agent.kill().await;
    }
    store.set_away(false);
    let agent = start(spool(), upload_options(&store));
    eventually("the dead are forgotten", || boots_left(folder.path()) == 1).await;
    assert!(agent.drain(Duration::from_secs(10)).await.clean);
    let rows = store.rows();
    let (mut told, mut next) = (Vec::new(), 1);
    for row in &rows {
        if row.reason.as_deref() == Some(AGENT_DIED) {
            told.push(row.details.clone().unwrap());
        }
    }
    for (boot, last) in &promised {
        let of_boot = rows.iter().filter(|row| row.boot == *boot).map(|row| row.seq);
        for seq in of_boot {
            assert_eq!(seq, next, "a hole or a double in {boot}");
            next += 1;
        }
        assert!(next > *last, "{boot}");
        next = 1;
        assert_eq!(told.iter().filter(|details| details.contains(boot.as_str())).count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_folder_takes_whole_objects_only() {
    let folder = tempfile::tempdir().unwrap();
    let target = tempfile::tempdir().unwrap();
    let url = format!("file://{}/history store", target.path().display());
    let store = Store::open(&url.replace(' ', "%20")).unwrap();
    let upload = UploadOptions {
        age: Duration::from_millis(20),
        status_period: LONG,
        ..UploadOptions::new(store, "shop", "host-1")
    };
    let agent = start(options(folder.path()), upload);
    agent.record("a");
    agent.all_uploaded().await;
    let name = agent.recorder.agent().unwrap().to_owned();
    let inbox = target.path().join("history store/inbox/history").join(name);
    let boot = inbox.join(agent.handle.boot());
    let files: Vec<_> = fs::read_dir(&boot).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    let (rows, _) = spool_support::read_parquet(fs::read(&files[0]).unwrap().into());
    assert_eq!(rows[0].routing_key.as_deref(), Some("a"));
    assert!(agent.drain(Duration::from_secs(10)).await.clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_sealed_by_size_needs_no_age() {
    let folder = tempfile::tempdir().unwrap();
    let (recorder, handle, _) =
        Spool::open(SpoolOptions { segment_bytes: 1000, ..options(folder.path()) }).unwrap();
    for i in 0..50 {
        record(&recorder, &handle, &format!("row {i}")).unwrap();
    }
    let segment = sealed(&handle).await;
    assert_eq!(segment.first, Seq(1));
    handle.abandon();
}
