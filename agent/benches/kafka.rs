//! What it costs to read Kafka's record batches, by codec and size of records; to read them and
//! identify each record; and what walking through a frame costs where it is only forwarded.

use std::hint::black_box;
use std::io::Write as _;

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use flowtap_agent::identify::{Content, Identifier};
use flowtap_agent::tap::kafka::probe::{self, Batches, Header};
use flowtap_record::Value;
use kafka_protocol::messages::FetchResponse;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::protocol::Encodable as _;
use kafka_protocol::records::{
    Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

const LIMIT: usize = 64 << 20;

const RECORDS: usize = 500;

/// Bytes that compress to about a third, as events do, and that are no JSON.
fn value(size: usize, random: &mut StdRng) -> Bytes {
    let words = [&b"order-"[..], b"customer_id", b" placed ", b"2026-07-14T12:00", b"price"];
    let mut bytes = vec![1];
    while bytes.len() < size {
        bytes.extend_from_slice(words[random.random_range(0..words.len())]);
        bytes.extend((0..4).map(|_| random.random::<u8>() | 0x80));
    }
    bytes.truncate(size);
    bytes.into()
}

fn batch(size: usize, compression: Compression) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(7);
    let trace = "00-038aa89be6043402149c6f682549c784-af1c4753a1555474-01";
    let records: Vec<_> = (0..RECORDS)
        .map(|index| Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: 0,
            producer_id: 1,
            producer_epoch: 0,
            timestamp_type: TimestampType::Creation,
            offset: index as i64,
            sequence: index as i32,
            timestamp: 1_700_000_000_000 + index as i64,
            key: Some(Bytes::from(format!("order-{index}"))),
            value: Some(value(size, &mut random)),
            headers: [
                ("traceparent".into(), Some(Bytes::from(trace))),
                ("tenant".into(), Some(Bytes::from("eu-1"))),
            ]
            .into_iter()
            .collect(),
        })
        .collect();
    let mut bytes = BytesMut::new();
    RecordBatchEncoder::encode_with_custom_compression(
        &mut bytes,
        &records,
        &RecordEncodeOptions { version: 2, compression },
        Some(|from: &mut BytesMut, to: &mut BytesMut, compression| {
            to.extend_from_slice(&compress(from, compression));
            Ok(())
        }),
    )
    .expect("encodes");
    bytes.to_vec()
}

fn compress(bytes: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => bytes.to_vec(),
        Compression::Gzip => {
            let level = flate2::Compression::default();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(bytes).expect("to memory");
            encoder.finish().expect("to memory")
        }
        Compression::Snappy => {
            let mut framed = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
            for block in bytes.chunks(32 << 10) {
                let block = snap::raw::Encoder::new().compress_vec(block).expect("to memory");
                framed.extend((block.len() as i32).to_be_bytes());
                framed.extend(block);
            }
            framed
        }
        Compression::Lz4 => {
            let mut frame = vec![0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0];
            for block in bytes.chunks(64 << 10) {
                let block = lz4_flex::block::compress(block);
                frame.extend((block.len() as u32).to_le_bytes());
                frame.extend(block);
            }
            frame.extend([0; 4]);
            frame
        }
        Compression::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).expect("to memory");
            encoder.write_all(bytes).expect("to memory");
            encoder.finish().expect("to memory")
        }
    }
}

/// What the decoding thread does with a record before it makes a row.
fn identify(
    identifier: &Identifier,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[Header<'_>],
) {
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| (*name, value.map_or(Value::Void, Value::Bytes)))
        .collect();
    let content = Content {
        destination: b"orders",
        routing_key: key.unwrap_or_default(),
        headers: &headers,
        body: value,
        ..Content::default()
    };
    let identified = identifier.identify(&content);
    black_box((identified.ids(), identified.keys(), identified.headers()));
}

fn records(c: &mut Criterion) {
    let identifier = Identifier::default();
    for size in [100, 1000] {
        let mut group = c.benchmark_group(format!("{RECORDS} records of {size} bytes"));
        group.throughput(Throughput::Elements(RECORDS as u64));
        for (name, compression) in [
            ("none", Compression::None),
            ("gzip", Compression::Gzip),
            ("snappy", Compression::Snappy),
            ("lz4", Compression::Lz4),
            ("zstd", Compression::Zstd),
        ] {
            let batch = batch(size, compression);
            let mut batches = Batches::default();
            let mut run = |name: String, identifier: Option<&Identifier>| {
                group.bench_function(name, |b| {
                    b.iter(|| {
                        let count =
                            batches.read(&batch, LIMIT, |key, value, headers| match identifier {
                                Some(identifier) => identify(identifier, key, value, headers),
                                None => drop(black_box((key, value, headers.len()))),
                            });
                        assert_eq!(count, Ok(RECORDS));
                    });
                });
            };
            run(format!("{name}: decode"), None);
            run(format!("{name}: decode and identify"), Some(&identifier));
        }
        let batch = batch(size, Compression::None);
        group.bench_function("of which the checksum", |b| {
            b.iter(|| assert!(probe::is_intact(black_box(&batch))));
        });
        group.finish();
    }
}

/// A Fetch answer of as many partitions, each with so many bytes of records.
fn answer(partitions: usize, bytes: usize) -> Vec<u8> {
    let batch = batch(100, Compression::None);
    let records = Bytes::from(batch.repeat(bytes.div_ceil(batch.len())));
    let records = if bytes == 0 { None } else { Some(records) };
    let partitions = (0..partitions).map(|index| {
        PartitionData::default()
            .with_partition_index(index as i32)
            .with_aborted_transactions(None)
            .with_records(records.clone())
    });
    let topic = FetchableTopicResponse::default().with_partitions(partitions.collect());
    let mut buffer = BytesMut::new();
    FetchResponse::default().with_responses(vec![topic]).encode(&mut buffer, 17).expect("encodes");
    buffer.to_vec()
}

fn frames(c: &mut Criterion) {
    let mut group: BenchmarkGroup<'_, _> = c.benchmark_group("a Fetch answer in pieces of 64 KiB");
    for (name, partitions, bytes) in
        [("1000 partitions without records", 1000, 0), ("50 partitions of 1 MiB", 50, 1 << 20)]
    {
        let frame = answer(partitions, bytes);
        group.throughput(Throughput::Elements(partitions as u64));
        group.bench_function(format!("{name}: find the tail"), |b| {
            b.iter(|| black_box(probe::tail(false, 17, frame.chunks(64 << 10))));
        });
        group.bench_function(format!("{name}: lend the batches"), |b| {
            b.iter(|| black_box(probe::count_batches(17, frame.chunks(64 << 10))));
        });
    }
    group.finish();
}

criterion_group!(kafka, records, frames);
criterion_main!(kafka);
