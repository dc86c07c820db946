//! What the tests of spool and upload share: spools with faults, a store that can be away, and
//! reading back what was uploaded.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "for tests; each file uses its own part"
)]

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use bytes::Bytes;
use flowtap_agent::spool::{Disk, Fault, Recorder, Segment, SpoolHandle, SpoolOptions};
use flowtap_agent::upload::encode_segment;
use flowtap_record::path::InboxName;
use flowtap_record::{AgentStatus, Kind, Micros, Observation, Seq};
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// A spool without a margin: watermarks are exact.
pub fn options(path: &Path) -> SpoolOptions {
    SpoolOptions { margin: Duration::ZERO, ..SpoolOptions::new(path, "shop") }
}

/// Records a row that can be told from others, at the spool's own time.
pub fn record(recorder: &Recorder, handle: &SpoolHandle, text: &str) -> Option<Seq> {
    let mut row = Observation::new(Kind::Publish, handle.now());
    row.place.routing_key = Some(text);
    recorder.record(&row)
}

/// Waits for what has no event of its own; panics if it never comes.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..4000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never came: {what}");
}

/// Waits for the next sealed segment.
pub async fn sealed(handle: &SpoolHandle) -> Segment {
    loop {
        if let Some(segment) = handle.next_sealed() {
            return segment;
        }
        handle.changed().await;
    }
}

/// Seals what there is, and takes every segment as if it were uploaded.
pub async fn close_and_read(handle: &SpoolHandle) -> Vec<Row> {
    assert!(handle.close(Duration::from_secs(20)).await, "the spool does not close");
    let mut rows = Vec::new();
    while let Some(segment) = handle.next_sealed() {
        rows.extend(rows_of_segment(&segment));
        handle.uploaded(&segment, Micros(0), Micros(0));
    }
    handle.abandon();
    rows
}

/// Faults that a test switches on and off by name.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<HashMap<&'static str, Fault>>>);

impl Faults {
    pub fn disk(&self) -> Disk {
        let faults = Arc::clone(&self.0);
        Disk::with_faults(Arc::new(move |name| faults.lock().unwrap().get(name).copied()))
    }

    pub fn set(&self, name: &'static str, fault: Fault) {
        self.0.lock().unwrap().insert(name, fault);
    }

    pub fn clear(&self) {
        self.0.lock().unwrap().clear();
    }
}

/// A row as it was uploaded: the columns that the tests look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub agent: String,
    pub boot: String,
    pub seq: i64,
    pub kind: String,
    pub at: i64,
    pub reason: Option<String>,
    pub details: Option<String>,
    pub routing_key: Option<String>,
    pub ref_boot: Option<String>,
    pub ref_seq: Option<i64>,
    pub gap_from: Option<i64>,
    pub gap_to: Option<i64>,
    pub gap_count: Option<i64>,
}

/// An inbox object.
#[derive(Clone, Debug)]
pub struct Object {
    pub name: InboxName,
    pub footer: HashMap<String, String>,
    pub rows: Vec<Row>,
}

pub fn rows_of_segment(segment: &Segment) -> Vec<Row> {
    read_parquet(encode_segment(segment, Micros(0)).unwrap().bytes.into()).0
}

pub fn read_parquet(bytes: Bytes) -> (Vec<Row>, HashMap<String, String>) {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    let pairs = builder.metadata().file_metadata().key_value_metadata().cloned();
    let footer = pairs
        .unwrap_or_default()
        .into_iter()
        .filter_map(|pair| Some((pair.key, pair.value?)))
        .collect();
    let rows = builder.build().unwrap().flat_map(|batch| rows_of_batch(&batch.unwrap())).collect();
    (rows, footer)
}

fn rows_of_batch(batch: &RecordBatch) -> Vec<Row> {
    let text = |name: &str, i: usize| {
        let column = batch.column_by_name(name).unwrap().as_string::<i32>();
        column.is_valid(i).then(|| column.value(i).to_owned())
    };
    let number = |name: &str, i: usize| {
        let column = batch.column_by_name(name).unwrap();
        let values = column.as_primitive_opt::<Int64Type>().map(|column| column.value(i));
        let times = column.as_primitive_opt::<TimestampMicrosecondType>();
        let value = values.or(times.map(|column| column.value(i)));
        value.filter(|_| column.is_valid(i))
    };
    let row = |i| Row {
        agent: text("agent", i).unwrap(),
        boot: text("boot", i).unwrap(),
        seq: number("seq", i).unwrap(),
        kind: text("kind", i).unwrap(),
        at: number("at", i).unwrap(),
        reason: text("reason", i),
        details: text("details", i),
        routing_key: text("routing_key", i),
        ref_boot: text("ref_boot", i),
        ref_seq: number("ref_seq", i),
        gap_from: number("gap_from", i),
        gap_to: number("gap_to", i),
        gap_count: number("gap_count", i),
    };
    (0..batch.num_rows()).map(row).collect()
}

/// A store in memory that can be away, and remembers what was put.
#[derive(Clone, Debug, Default)]
pub struct TestStore {
    inner: Arc<InMemory>,
    away: Arc<AtomicBool>,
    put_only: Arc<AtomicBool>,
    puts: Arc<Mutex<Vec<String>>>,
    bodies: Arc<Mutex<BTreeMap<String, Bytes>>>,
    statuses: Arc<Mutex<Vec<(AgentStatus, Micros)>>>,
}

impl TestStore {
    pub fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    /// From now on nothing may be read.
    pub fn forbid_reading(&self) {
        self.put_only.store(true, Ordering::SeqCst);
    }

    /// Names in the order in which they were put.
    pub fn puts(&self) -> Vec<String> {
        self.puts.lock().unwrap().clone()
    }

    pub fn body(&self, name: &str) -> Option<Bytes> {
        self.bodies.lock().unwrap().get(name).cloned()
    }

    /// Status objects in the order in which they were put, and when the store took each.
    pub fn statuses(&self) -> Vec<(AgentStatus, Micros)> {
        self.statuses.lock().unwrap().clone()
    }

    /// Inbox objects by name.
    pub fn inbox(&self) -> Vec<Object> {
        let bodies = self.bodies.lock().unwrap();
        let inbox = bodies.iter().filter(|(name, _)| name.starts_with("inbox/"));
        inbox.map(|(name, bytes)| object(name, bytes.clone())).collect()
    }

    pub fn rows(&self) -> Vec<Row> {
        self.inbox().into_iter().flat_map(|object| object.rows).collect()
    }
}

pub fn object(name: &str, bytes: Bytes) -> Object {
    let (rows, footer) = read_parquet(bytes);
    Object { name: InboxName::parse(name).unwrap(), footer, rows }
}

impl fmt::Display for TestStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TestStore")
    }
}

#[async_trait::async_trait]
impl ObjectStore for TestStore {
    async fn put_opts(
        &self,
        location: &ObjectPath,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        if self.away.load(Ordering::SeqCst) {
            return Err(object_store::Error::Generic { store: "test", source: "away".into() });
        }
        let name = location.to_string();
        self.puts.lock().unwrap().push(name.clone());
        self.bodies.lock().unwrap().insert(name.clone(), payload.clone().into());
        let body: Bytes = payload.clone().into();
        let put = self.inner.put_opts(location, payload, opts).await?;
        if name.starts_with("agents/") {
            let status = serde_json::from_slice(&body).unwrap();
            let taken = self.inner.head(location).await?.last_modified;
            self.statuses.lock().unwrap().push((status, Micros(taken.timestamp_micros())));
        }
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        location: &ObjectPath,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &ObjectPath, options: GetOptions) -> Result<GetResult> {
        if self.put_only.load(Ordering::SeqCst) {
            let path = location.to_string();
            return Err(object_store::Error::PermissionDenied { path, source: "put only".into() });
        }
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &ObjectPath, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<ObjectPath>>,
    ) -> BoxStream<'static, Result<ObjectPath>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&ObjectPath>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &ObjectPath,
        to: &ObjectPath,
        options: CopyOptions,
    ) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Copies a spool's folder as it is at this moment, as a crash would leave it.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Files of segments in a boot's folder, by name.
pub fn segment_files(spool: &Path, boot: &str) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(spool.join("boots").join(boot)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|kind| kind == "seg")).collect();
    segments.sort();
    segments
}
