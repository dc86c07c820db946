//! What a broker has on its disk: the batches of a partition, read from the segments themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// One batch as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The offset of its first record (which compaction may have taken away).
    pub base_offset: i64,
    /// The offset of its last record (likewise).
    pub last_offset: i64,
    /// How many records are in it.
    pub count: i32,
    /// How it is compressed: `none`, `gzip`, `snappy`, `lz4`, `zstd`.
    pub codec: &'static str,
    /// Whether the broker's clock gave the time.
    pub log_append_time: bool,
    /// Whether it belongs to a transaction.
    pub transactional: bool,
    /// Where it is the end of a transaction and nothing else: whether that was committed.
    pub committed: Option<bool>,
    /// Who wrote it, -1 without idempotence.
    pub producer_id: i64,
    /// The epoch of that producer.
    pub producer_epoch: i16,
    /// The producer's number of its first record.
    pub base_sequence: i32,
    /// The newest time in it, or the time of appending.
    pub max_timestamp: i64,
    /// How many bytes it takes.
    pub size: usize,
}

const HEADER: usize = 61;

/// The batches of a partition's folder in order. A last one that is still being written is left out.
pub(super) fn batches(folder: &Path) -> Vec<Batch> {
    let mut segments: Vec<_> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a folder's entry can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    segments.sort();
    segments.iter().flat_map(|path| of_segment(&std::fs::read(path).unwrap_or_default())).collect()
}

fn of_segment(bytes: &[u8]) -> Vec<Batch> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while rest.len() >= HEADER {
        let size = 12 + i32::from_be_bytes(field(rest, 8)) as usize;
        assert_eq!(rest[16], 2, "batches of the only format that brokers still write");
        if rest.len() < size {
            break;
        }
        let attributes = i16::from_be_bytes(field(rest, 21));
        let base_offset = i64::from_be_bytes(field(rest, 0));
        found.push(Batch {
            base_offset,
            last_offset: base_offset + i64::from(i32::from_be_bytes(field(rest, 23))),
            count: i32::from_be_bytes(field(rest, 57)),
            codec: ["none", "gzip", "snappy", "lz4", "zstd"][(attributes & 7) as usize],
            log_append_time: attributes & 8 != 0,
            transactional: attributes & 16 != 0,
            committed: (attributes & 32 != 0).then(|| marks_commit(&rest[HEADER..size])),
            producer_id: i64::from_be_bytes(field(rest, 43)),
            producer_epoch: i16::from_be_bytes(field(rest, 51)),
            base_sequence: i32::from_be_bytes(field(rest, 53)),
            max_timestamp: i64::from_be_bytes(field(rest, 35)),
            size,
        });
        rest = &rest[size..];
    }
    found
}

/// Control records are small, so that each varint before the key (length, attributes, time, offset,
/// length of the key) is a byte. The key: version, then 0 for abort and 1 for commit.
fn marks_commit(record: &[u8]) -> bool {
    i16::from_be_bytes(field(record, 7)) == 1
}

/// The offsets that a reader of a partition sees, whatever is committed or only that. For logs
/// that no cleaner has touched: those have a record at each offset of a batch.
pub fn visible(batches: &[Batch], read_committed: bool) -> BTreeSet<i64> {
    let mut seen = BTreeSet::new();
    let mut open: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for batch in batches {
        let offsets = batch.base_offset..=batch.last_offset;
        match batch.committed {
            Some(committed) => {
                let ended = open.remove(&batch.producer_id).unwrap_or_default();
                if committed {
                    seen.extend(ended);
                }
            }
            None if batch.transactional && read_committed => {
                open.entry(batch.producer_id).or_default().extend(offsets);
            }
            None => seen.extend(offsets),
        }
    }
    seen
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a batch's header is whole")
}
