//! The Delta table `history` over an inbox, made as the ingester makes it: rows of many boots in one
//! file, in another order, and less of them in the inbox.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{
    SortColumn, SortOptions, concat_batches, filter_record_batch, lexsort_to_indices,
    take_record_batch,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampMicrosecondType};
use flowtap_query::store::{BootProgress, Lost, Progress, Quarantined};
use flowtap_record::path::{InboxName, ingest};
use flowtap_record::{DAY_US, Micros, cluster_key};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};

use super::Inbox;

/// Rows in a row group at least: few, so that a file has several.
const GROUP: usize = 7;

/// The table of one store.
pub(crate) struct Table {
    folder: PathBuf,
    version: u64,
    number: u64,
    boots: BTreeMap<String, BTreeMap<String, BootProgress>>,
    files: BTreeSet<String>,
    next: usize,
    pub(crate) quarantined: Vec<Quarantined>,
    pub(crate) lost: Vec<Lost>,
}

impl Table {
    pub(crate) fn new(inbox: &Inbox) -> Self {
        Self {
            folder: inbox.folder.path().to_owned(),
            version: 0,
            number: 0,
            boots: BTreeMap::new(),
            files: BTreeSet::new(),
            next: 0,
            quarantined: Vec::new(),
            lost: Vec::new(),
        }
    }

    /// Names of all inbox objects, in order.
    pub(crate) fn inbox(&self) -> Vec<InboxName> {
        let mut names = Vec::new();
        let mut folders = vec![self.folder.join("inbox")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let path = path.strip_prefix(&self.folder).unwrap();
                    names.push(InboxName::parse(path.to_str().unwrap()).unwrap());
                }
            }
        }
        names.sort();
        names
    }

    /// Takes rows of the inbox, of each boot up to what `last` says; of an object's name.
    pub(crate) fn ingest(&mut self, last: impl Fn(&InboxName) -> i64) {
        let mut taken = Vec::new();
        for name in self.inbox() {
            let boots = self.boots.entry(name.agent.clone()).or_default();
            let boot = boots.entry(name.boot.clone()).or_default();
            let to = last(&name).min(name.last.0);
            if to <= boot.last {
                continue;
            }
            if !self.quarantined.iter().any(|it| it.object == name.path()) {
                let batch = read(&self.folder.join(name.path()));
                let seq = batch.column_by_name("seq").unwrap().as_primitive::<Int64Type>();
                let new: BooleanArray =
                    seq.iter().map(|seq| seq.map(|seq| seq > boot.last && seq <= to)).collect();
                taken.push(with_cluster_key(&filter_record_batch(&batch, &new).unwrap()));
            }
            boot.last = to;
            boot.watermark = Micros(super::NOON + 60 * super::SECOND);
            boot.uploaded_at = Micros(super::NOON + 61 * super::SECOND);
        }
        self.number += 1;
        let progress = Progress {
            number: self.number,
            previous: self.number - 1,
            at: Micros(super::NOON),
            boots: self.boots.clone(),
            quarantined: self.quarantined.clone(),
            lost: self.lost.clone(),
            taken: Vec::new(),
        };
        let path = self.folder.join(ingest(self.number));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, serde_json::to_vec(&progress).unwrap()).unwrap();
        let added = self.write_days(&taken, 1);
        let txn = json!({"txn": {"appId": "flowtap-ingest", "version": self.number}});
        let add = added.into_iter().map(|add| json!({"add": add}));
        self.commit([txn].into_iter().chain(add).collect());
    }

    /// Takes all rows of the inbox.
    pub(crate) fn ingest_all(&mut self) {
        self.ingest(|_| i64::MAX);
    }

    /// Writes all files anew, of each day so many.
    pub(crate) fn compact(&mut self, files: usize) {
        let old = std::mem::take(&mut self.files);
        let batches: Vec<RecordBatch> =
            old.iter().map(|path| read(&self.folder.join("history").join(path))).collect();
        let added = self.write_days(&batches, files);
        let remove = old.iter().map(
            |path| json!({"remove": {"path": path, "dataChange": false, "deletionTimestamp": 1}}),
        );
        let add = added.into_iter().map(|mut add| {
            add["dataChange"] = json!(false);
            json!({"add": add})
        });
        self.commit(remove.chain(add).collect());
    }

    /// Deletes the files that are not in the table any more.
    pub(crate) fn vacuum(&self) {
        for day in std::fs::read_dir(self.folder.join("history")).unwrap() {
            let day = day.unwrap();
            let name = day.file_name().into_string().unwrap();
            if !name.starts_with("day=") {
                continue;
            }
            for file in std::fs::read_dir(day.path()).unwrap() {
                let file = file.unwrap();
                let path = format!("{name}/{}", file.file_name().to_str().unwrap());
                if !self.files.contains(&path) {
                    std::fs::remove_file(file.path()).unwrap();
                }
            }
        }
    }

    /// Deletes the inbox objects of which all rows are taken.
    pub(crate) fn clear_inbox(&self) {
        for name in self.inbox() {
            let boot = self.boots.get(&name.agent).and_then(|boots| boots.get(&name.boot));
            if boot.is_some_and(|boot| name.last.0 <= boot.last) {
                std::fs::remove_file(self.folder.join(name.path())).unwrap();
            }
        }
    }

    /// Drops the files of all days, as retention does.
    pub(crate) fn drop_all(&mut self) {
        let old = std::mem::take(&mut self.files);
        let remove = old.iter().map(
            |path| json!({"remove": {"path": path, "dataChange": true, "deletionTimestamp": 1}}),
        );
        self.commit(remove.collect());
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = &String> {
        self.files.iter()
    }

    fn write_days(&mut self, batches: &[RecordBatch], files: usize) -> Vec<Value> {
        let Some(first) = batches.first() else { return Vec::new() };
        let all = concat_batches(&first.schema(), batches).unwrap();
        let at = all.column_by_name("at").unwrap().as_primitive::<TimestampMicrosecondType>();
        let days: Vec<i64> = at.iter().flatten().map(|at| at.div_euclid(DAY_US)).collect();
        let mut added = Vec::new();
        for day in days.iter().copied().collect::<BTreeSet<i64>>() {
            let own: BooleanArray = days.iter().map(|it| Some(*it == day)).collect();
            let own = sorted(&filter_record_batch(&all, &own).unwrap());
            let each = own.num_rows().div_ceil(files).max(1);
            for from in (0..own.num_rows()).step_by(each) {
                let part = own.slice(from, each.min(own.num_rows() - from));
                added.push(self.write_file(day, &part));
            }
        }
        added
    }

    fn write_file(&mut self, day: i64, rows: &RecordBatch) -> Value {
        let date = jiff_date(day);
        let path = format!("day={date}/part-{:05}.parquet", self.next);
        self.next += 1;
        let to = self.folder.join("history").join(&path);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(GROUP.max(rows.num_rows() / 16)))
            .set_data_page_row_count_limit(3.max(rows.num_rows() / 128))
            .set_write_batch_size(1.max(rows.num_rows() / 1024))
            .build();
        let file = File::create(&to).unwrap();
        let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).unwrap();
        writer.write(rows).unwrap();
        writer.close().unwrap();
        let at = rows.column_by_name("at").unwrap().as_primitive::<TimestampMicrosecondType>();
        let (low, high) = (at.values().iter().min().unwrap(), at.values().iter().max().unwrap());
        let stats = json!({
            "numRecords": rows.num_rows(),
            "minValues": {"at": Micros(*low).to_string()},
            "maxValues": {"at": Micros(*high).to_string()},
            "nullCount": {"at": 0},
        });
        self.files.insert(path.clone());
        json!({
            "path": path,
            "partitionValues": {"day": date},
            "size": std::fs::metadata(&to).unwrap().len(),
            "modificationTime": 1_795_262_400_000_i64,
            "dataChange": true,
            "stats": stats.to_string(),
        })
    }

    fn commit(&mut self, actions: Vec<Value>) {
        let log = self.folder.join("history/_delta_log");
        std::fs::create_dir_all(&log).unwrap();
        let first = (self.version == 0).then(|| {
            let field = |(name, kind): (&str, &str)| {
                json!({"name": name, "type": kind, "nullable": true, "metadata": {}})
            };
            let fields: Vec<Value> =
                [("at", "timestamp"), ("cluster_key", "string"), ("day", "date")]
                    .into_iter()
                    .map(field)
                    .collect();
            let schema = json!({"type": "struct", "fields": fields}).to_string();
            [
                json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}),
                json!({"metaData": {
                    "id": "0195a000-0000-7000-8000-000000000001",
                    "format": {"provider": "parquet", "options": {}},
                    "schemaString": schema,
                    "partitionColumns": ["day"],
                    "configuration": {},
                    "createdTime": 1_795_262_400_000_i64,
                }}),
            ]
        });
        let lines: Vec<String> =
            first.into_iter().flatten().chain(actions).map(|action| action.to_string()).collect();
        std::fs::write(log.join(format!("{:020}.json", self.version)), lines.join("\n")).unwrap();
        self.version += 1;
    }
}

fn jiff_date(day: i64) -> String {
    Micros(day * DAY_US).to_string().split('T').next().unwrap().to_owned()
}

fn read(path: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let schema = reader.schema().clone();
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(|batch| batch.unwrap()).collect();
    // What a footer says is no part of the rows.
    let schema = Arc::new(Schema::new(schema.fields().clone()));
    let plain = batches
        .iter()
        .map(|batch| RecordBatch::try_new(schema.clone(), batch.columns().to_vec()).unwrap());
    concat_batches(&schema, &plain.collect::<Vec<_>>()).unwrap()
}

fn with_cluster_key(rows: &RecordBatch) -> RecordBatch {
    let column = |name: &str| rows.column_by_name(name).unwrap().as_string::<i32>();
    let value = |name: &str, row: usize| {
        let column = column(name);
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    let keys: StringArray = (0..rows.num_rows())
        .map(|row| {
            let ids = ["transaction_id", "trace_id", "message"].map(|name| value(name, row));
            cluster_key(ids[0].as_deref(), ids[1].as_deref(), ids[2].as_deref()).map(str::to_owned)
        })
        .collect();
    let mut fields: Vec<Arc<Field>> = rows.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("cluster_key", DataType::Utf8, true)));
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(keys) as ArrayRef);
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn sorted(rows: &RecordBatch) -> RecordBatch {
    let by = |name: &str| SortColumn {
        values: rows.column_by_name(name).unwrap().clone(),
        options: Some(SortOptions::default()),
    };
    let order: UInt32Array = lexsort_to_indices(&[by("cluster_key"), by("at")], None).unwrap();
    take_record_batch(rows, &order).unwrap()
}
