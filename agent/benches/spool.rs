//! What recording costs a tap, and how fast a segment becomes Parquet. Prints ns a row for
//! `record`, and rows a second and bytes a row for `encode`.

use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use flowtap_agent::spool::{Recorder, Segment, Spool, SpoolHandle, SpoolOptions};
use flowtap_agent::upload::encode_segment;
use flowtap_record::{Encoding, Field, Id, Kind, Micros, Observation, Outcome, RowRef, Seq, Tap};

/// Texts of one message, different for each.
struct Texts {
    message: String,
    event: String,
    transaction: String,
    causation: String,
    key: String,
}

impl Texts {
    fn new(n: u64) -> Self {
        // A cheap mixer: ids must not compress better than real ones.
        let mix = |salt: u64| {
            let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt;
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
        };
        let uuid = |salt| uuid::Uuid::from_u64_pair(mix(salt), mix(salt + 1)).to_string();
        Self {
            message: format!("f1:{:016x}{:016x}", mix(1), mix(2)),
            event: uuid(3),
            transaction: uuid(5),
            causation: uuid(7),
            key: format!("order-{}", mix(9) % 1_000_000),
        }
    }
}

fn row<'a>(texts: &'a Texts, n: u64, at: Micros) -> Observation<'a> {
    let kinds = [Kind::Publish, Kind::Confirm, Kind::Deliver, Kind::Settle];
    let kind = kinds[(n % 4) as usize];
    let mut row = Observation::new(kind, at);
    row.tap = Some(Tap::Proxy);
    row.outcome = match kind {
        Kind::Confirm => Some(Outcome::Confirmed),
        Kind::Settle => Some(Outcome::Acked),
        _ => None,
    };
    row.concludes = row.outcome.map(|_| RowRef { boot: None, seq: Seq((n as i64).max(1)) });
    row.place.system = Some("rabbitmq");
    row.place.cluster = Some("rabbit@broker-1");
    row.place.vhost = Some("/");
    row.place.destination = Some("orders");
    row.place.routing_key = Some("order.placed");
    row.who.service = Some("shop");
    row.who.instance = Some("shop-7d9f6c5b8-x2x4z");
    row.who.client = Some("bunny 2.23.0 (shop)");
    row.who.principal = Some("shop");
    row.who.connection = Some(3);
    row.who.channel = Some(1);
    row.who.delivery_tag = Some((n / 4) as i64);
    row.message.message = Some(&texts.message);
    let id = |value: &'a str, from: &'a str| Some(Id { value, from });
    row.message.ids.event_id = id(&texts.event, "property:message_id");
    row.message.ids.event_type = id("OrderPlaced", "property:type");
    row.message.ids.transaction_id = id(&texts.transaction, "header:x-transaction-id");
    row.message.ids.causation_id = id(&texts.causation, "header:x-causation-id");
    row.message.keys =
        vec![Field { name: "order_id", value: &texts.key, encoding: Encoding::Text }];
    row.message.size = Some(512);
    row.message.content_type = Some("application/json");
    row
}

fn open(folder: &std::path::Path) -> (Recorder, SpoolHandle) {
    let options = SpoolOptions {
        memory_bytes: 512 * 1024 * 1024,
        max_bytes: 64 * 1024 * 1024 * 1024,
        segment_bytes: 64 * 1024 * 1024,
        ..SpoolOptions::new(folder, "shop")
    };
    let (recorder, handle, _) = Spool::open(options).expect("a folder of its own");
    (recorder, handle)
}

fn bench_record(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (recorder, handle) = open(folder.path());
    let texts: Vec<Texts> = (0..1024).map(Texts::new).collect();
    let mut group = c.benchmark_group("record");
    group.throughput(Throughput::Elements(1));
    group.bench_function("one row", |bencher| {
        bencher.iter_custom(|count| {
            let at = handle.now();
            let rows: Vec<_> = texts.iter().zip(0..).map(|(texts, n)| row(texts, n, at)).collect();
            let mut taken = Duration::ZERO;
            for chunk in (0..count).collect::<Vec<_>>().chunks(100_000) {
                let begun = Instant::now();
                for n in chunk {
                    let seq = recorder.record(&rows[(*n % 1024) as usize]);
                    assert!(seq.is_some());
                }
                taken += begun.elapsed();
                // Between, not within: the writer and the disk catch up, and uploaded segments go.
                while recorder.written_seq() < recorder.last_seq() {
                    let _ = recorder.is_written(Seq(recorder.last_seq()));
                    std::thread::yield_now();
                }
                while let Some(segment) = handle.next_sealed() {
                    handle.uploaded(&segment, at, at);
                }
            }
            taken
        });
    });
    group.finish();
    handle.abandon();
}

fn segment_of(rows: u64, folder: &std::path::Path) -> (SpoolHandle, Segment) {
    let (recorder, handle) = open(folder);
    for n in 0..rows {
        // Four rows speak of one message.
        let texts = Texts::new(n / 4);
        recorder.record(&row(&texts, n, handle.now())).expect("memory for all rows");
    }
    handle.seal();
    let segment = loop {
        if let Some(segment) = handle.next_sealed() {
            break segment;
        }
        std::thread::yield_now();
    };
    (handle, segment)
}

fn bench_encode(c: &mut Criterion) {
    const ROWS: u64 = 100_000;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (handle, segment) = segment_of(ROWS, folder.path());
    let encoded = encode_segment(&segment, Micros(0)).expect("a good segment");
    println!(
        "segment {:.1} bytes a row, object {:.1} bytes a row, {} rows",
        segment.bytes as f64 / encoded.rows as f64,
        encoded.bytes.len() as f64 / encoded.rows as f64,
        encoded.rows,
    );
    let mut group = c.benchmark_group("encode");
    group.sample_size(10);
    group.throughput(Throughput::Elements(encoded.rows));
    group.bench_function("segment to parquet", |bencher| {
        bencher.iter_batched(
            || segment.clone(),
            |segment| encode_segment(&segment, Micros(0)).expect("a good segment"),
            BatchSize::PerIteration,
        );
    });
    group.finish();
    handle.abandon();
}

criterion_group!(benches, bench_record, bench_encode);
criterion_main!(benches);
