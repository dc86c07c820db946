//! Fills a folder with rows as agents would have written them: the order flow of a small car maker,
//! for benchmarks. `cargo run --release -p flowtap-query --example fill -- FOLDER [ROWS] [kafka] [days=N]`
//!
//! Six services; each order is one flow of 28 rows. One order in a thousand is rejected. Now and then
//! comes what real systems have as well: messages without any id, messages with an event id alone, and
//! a broker transaction that is rolled back. With `kafka` two more services, and each order goes on over
//! Kafka and back: see `kafka.rs`. With `days` the orders are spread over so many, up to now.

mod kafka;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use flowtap_record::path::{HISTORY, InboxName, status};
use flowtap_record::{
    AgentState, AgentStatus, Encoding, Field, HistoryBuilder, Id, Kind, Micros, Observation,
    Outcome, RowRef, SCHEMA_VERSION, Seq, SpoolStatus, TableStatus, Tap, footer,
};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

const SERVICES: [&str; 8] = [
    "shop",
    "stock",
    "billing",
    "factory",
    "shipping",
    "notifications",
    "showroom",
    "delivery-desk",
];
/// Services of the part without Kafka.
const PLAIN: usize = 6;
/// What each service but the last publishes, and the exchange that it goes to.
const STEPS: [(&str, &str); 5] = [
    ("OrderPlaced", "orders"),
    ("StockReserved", "stock"),
    ("PaymentTaken", "payments"),
    ("CarBuilt", "cars"),
    ("CarShipped", "shipments"),
];
/// Rows of an object: what an agent of a busy service uploads at a time.
const OBJECT_ROWS: usize = 16_384;
/// One order in so many comes with messages that are not as tidy.
const ODD: i64 = 100;
/// Microseconds between two orders.
const PACE_US: i64 = 40_000;
const DAY_US: i64 = 86_400_000_000;

/// What one agent writes.
struct Agent {
    service: &'static str,
    name: String,
    boot: String,
    builder: HistoryBuilder,
    first: i64,
    next: i64,
    last_at: Micros,
    folder: PathBuf,
}

impl Agent {
    fn new(folder: &Path, index: usize) -> Self {
        let service = SERVICES[index];
        let name = format!("{service}-bench");
        let boot = format!("01940000-0000-7000-8000-{index:012}");
        let builder = HistoryBuilder::new(&name, &boot);
        let folder = folder.to_owned();
        Self { service, name, boot, builder, first: 1, next: 1, last_at: Micros(0), folder }
    }

    fn write(&mut self, mut row: Observation<'_>) -> Result<i64, Box<dyn Error>> {
        row.tap = Some(Tap::Proxy);
        if row.place.system.is_none() {
            row.place.system = Some("rabbitmq");
            row.place.cluster = Some("rabbit@one");
            row.place.vhost = Some("/");
            row.who.channel = Some(1);
        }
        row.who.service = Some(self.service);
        row.who.instance = Some("bench");
        row.who.connection = Some(1);
        self.builder.append(Seq(self.next), &row);
        self.last_at = row.at;
        self.next += 1;
        if self.builder.len() == OBJECT_ROWS {
            self.put()?;
        }
        Ok(self.next - 1)
    }

    fn put(&mut self) -> Result<(), Box<dyn Error>> {
        if self.builder.is_empty() {
            return Ok(());
        }
        let name = InboxName {
            table: HISTORY.to_owned(),
            agent: self.name.clone(),
            boot: self.boot.clone(),
            first: Seq(self.first),
            last: Seq(self.next - 1),
        };
        let pairs = [
            (footer::AGENT, name.agent.clone()),
            (footer::BOOT, name.boot.clone()),
            (footer::FIRST, name.first.0.to_string()),
            (footer::LAST, name.last.0.to_string()),
            (footer::SCHEMA, SCHEMA_VERSION.to_owned()),
            (footer::WATERMARK, self.last_at.0.to_string()),
            (footer::UPLOADED_AT, self.last_at.0.to_string()),
        ];
        let pairs = pairs.map(|(key, value)| KeyValue::new(key.to_owned(), value));
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            .set_statistics_enabled(EnabledStatistics::Page)
            .set_key_value_metadata(Some(pairs.to_vec()))
            .build();
        let batch = self.builder.finish()?;
        let path = self.folder.join(name.path());
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut writer =
            ArrowWriter::try_new(File::create(path)?, batch.schema(), Some(properties))?;
        writer.write(&batch)?;
        writer.close()?;
        self.first = self.next;
        Ok(())
    }

    fn end(&mut self, now: Micros) -> Result<(), Box<dyn Error>> {
        self.put()?;
        let said = AgentStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            schema: SCHEMA_VERSION.to_owned(),
            agent: self.name.clone(),
            boot: self.boot.clone(),
            service: self.service.to_owned(),
            instance: "bench".to_owned(),
            state: AgentState::Running,
            started_at: Micros(0),
            at: now,
            // Live for the whole benchmark.
            period_s: 86_400,
            watermark: now,
            tables: BTreeMap::from([(
                HISTORY.to_owned(),
                TableStatus { last_seq: self.next - 1, uploaded_seq: self.next - 1 },
            )]),
            taps: Vec::new(),
            spool: SpoolStatus::default(),
            clock: None,
        };
        let path = self.folder.join(status(&self.name, &self.boot));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, serde_json::to_vec(&said)?)?;
        Ok(())
    }
}

/// One order's ids, as texts that rows borrow.
struct Order {
    transaction: String,
    number: String,
    customer: String,
    car: String,
    events: Vec<String>,
    /// Event ids of the part on Kafka.
    states: Vec<String>,
}

impl Order {
    fn new(index: i64) -> Self {
        // Ids without order, as UUIDs are.
        let mix = |salt: u64| {
            let mut x =
                (index as u64 * 1024).wrapping_add(salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            x ^= x >> 29;
            x.wrapping_mul(0xbf58_476d_1ce4_e5b9)
        };
        Self {
            transaction: format!("{:016x}-{:016x}", mix(1), mix(2)),
            number: format!("order-{index}"),
            customer: format!("customer-{}", index % 997),
            car: format!("car-{index}"),
            states: (0..8)
                .map(|step| format!("{:016x}-{:016x}", mix(40 + step), mix(50 + step)))
                .collect(),
            events: (0..STEPS.len() as u64)
                .map(|step| format!("{:016x}-{:016x}", mix(10 + step), mix(20 + step)))
                .collect(),
        }
    }

    fn row(&self, kind: Kind, at: Micros, step: usize) -> Observation<'_> {
        let id = |value| Some(Id { value, from: "header:cloudEvents:id" });
        let mut row = Observation::new(kind, at);
        row.place.destination = Some(STEPS[step].1);
        row.place.routing_key = Some("");
        row.message.message = Some(&self.events[step]);
        row.message.ids.event_id = id(&self.events[step]);
        row.message.ids.event_type = id(STEPS[step].0);
        row.message.ids.transaction_id = id(&self.transaction);
        row.message.ids.causation_id =
            step.checked_sub(1).and_then(|cause| id(&self.events[cause]));
        row.message.ids.command = id("PlaceOrder");
        if matches!(kind, Kind::Publish | Kind::Deliver) {
            let key = |name, value| Field { name, value, encoding: Encoding::Text };
            row.message.keys =
                vec![key("order_id", &self.number), key("customer_id", &self.customer)];
            row.message.size = Some(180);
        }
        row
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let folder = PathBuf::from(args.next().ok_or("want FOLDER [ROWS] [kafka] [days=N]")?);
    let rows: i64 = args.next().map_or(Ok(1_000_000), |rows| rows.parse())?;
    let (mut with_kafka, mut days) = (false, None);
    for word in args {
        match word.strip_prefix("days=") {
            Some(number) => days = Some(number.parse::<i64>()?),
            None if word == "kafka" => with_kafka = true,
            None => return Err(format!("{word}: want kafka or days=N").into()),
        }
    }
    let services = if with_kafka { SERVICES.len() } else { PLAIN };
    let mut agents: Vec<Agent> = (0..services).map(|it| Agent::new(&folder, it)).collect();
    let now = jiff::Timestamp::now().as_microsecond();
    // Publish, confirm, deliver and settle by the next service and by notifications, which is the
    // next one of the last step.
    let rows_of_one = STEPS.len() as i64 * 6 - 2 + if with_kafka { kafka::ROWS } else { 0 };
    let orders = (rows / rows_of_one + 1) * 1001 / 1000;
    let pace = days.map_or(PACE_US, |days| days * DAY_US / orders);
    let start = now - orders * pace - 60_000_000;
    declare(&mut agents, start - 1_000_000)?;
    if with_kafka {
        kafka::declare(&mut agents, start - 1_000_000)?;
    }
    let mut log = kafka::Log::default();
    for index in 0..orders {
        let at = start + index * pace;
        let order = Order::new(index);
        let ended = orders_way(&mut agents, &order, index, at)?;
        if index % ODD == 0 {
            odd(&mut agents, &order, index, at)?;
        }
        if with_kafka && !ended {
            kafka::order(&mut agents, &mut log, &order, orders - 1 - index, at + 24_000)?;
        }
    }
    let mut total = 0;
    for agent in &mut agents {
        agent.end(Micros(now))?;
        total += agent.next - 1;
    }
    println!("{orders} orders, {total} rows");
    Ok(())
}

/// Each step's exchange, the queue of the service that takes from it, and that of notifications.
fn declare(agents: &mut [Agent], at: i64) -> Result<(), Box<dyn Error>> {
    for (step, (_, exchange)) in STEPS.iter().enumerate() {
        for taker in takers(step) {
            let queue = format!("{}.{exchange}", SERVICES[taker]);
            let mut row = Observation::new(Kind::Topology, Micros(at));
            row.outcome = Some(Outcome::Declared);
            row.place.destination = Some(exchange);
            row.details = Some(r#"{"what":"exchange","type":"fanout","arguments":{}}"#);
            agents[taker].write(row.clone())?;
            row.details = Some(r#"{"what":"queue","arguments":{}}"#);
            row.place.destination = None;
            row.place.subscription = Some(&queue);
            agents[taker].write(row.clone())?;
            row.outcome = Some(Outcome::Bound);
            row.details = Some(r#"{"what":"binding","arguments":{}}"#);
            row.place.destination = Some(exchange);
            row.place.routing_key = Some("");
            agents[taker].write(row.clone())?;
            row.kind = Kind::Session;
            row.outcome = Some(Outcome::Opened);
            row.place.destination = None;
            row.who.consumer = Some("c");
            row.details = Some(r#"{"what":"consumer"}"#);
            agents[taker].write(row)?;
        }
    }
    Ok(())
}

/// What is not as tidy as an order: a message without ids, whose settlement names only the delivery;
/// one with an event id and nothing else; a second delivery within the order, whose settlement bears no
/// id; and a copy of the order's first message in a transaction that was rolled back.
fn odd(agents: &mut [Agent], order: &Order, index: i64, at: i64) -> Result<(), Box<dyn Error>> {
    let factory = 3;
    let plain = |kind, at| {
        let mut row = Observation::new(kind, Micros(at));
        row.place.destination = Some("cars");
        row.place.routing_key = Some("");
        row.place.subscription = Some("factory.payments");
        row
    };
    let settled = |seq, at| {
        let mut row = plain(Kind::Settle, at);
        row.concludes = Some(RowRef { boot: None, seq: Seq(seq) });
        row.outcome = Some(Outcome::Acked);
        row
    };
    let seq = agents[factory].write(plain(Kind::Deliver, at + 100))?;
    agents[factory].write(settled(seq, at + 200))?;

    let tick = format!("tick-{index}");
    let mut deliver = plain(Kind::Deliver, at + 300);
    deliver.message.ids.event_id = Some(Id { value: &tick, from: "property:message_id" });
    let seq = agents[factory].write(deliver)?;
    agents[factory].write(settled(seq, at + 400))?;

    let mut deliver = order.row(Kind::Deliver, Micros(at + 17_500), 2);
    deliver.place.subscription = Some("factory.payments");
    let seq = agents[factory].write(deliver)?;
    agents[factory].write(settled(seq, at + 17_600))?;

    let name = format!("1/2/{index}");
    let mut publish = order.row(Kind::Publish, Micros(at + 1), 0);
    publish.session.broker_txn = Some(&name);
    agents[0].write(publish)?;
    let mut end = Observation::new(Kind::Transaction, Micros(at + 2));
    end.session.broker_txn = Some(&name);
    end.outcome = Some(Outcome::Aborted);
    agents[0].write(end)?;
    Ok(())
}

fn takers(step: usize) -> impl Iterator<Item = usize> {
    let last = PLAIN - 1;
    [step + 1, last]
        .into_iter()
        .filter(move |&taker| taker < last || step + 1 != taker)
        .chain((step + 1 == last).then_some(last))
}

/// An order's way over RabbitMQ, and whether it ended early.
fn orders_way(
    agents: &mut [Agent],
    order: &Order,
    index: i64,
    start: i64,
) -> Result<bool, Box<dyn Error>> {
    let mut at = start;
    for step in 0..STEPS.len() {
        let publish = order.row(Kind::Publish, Micros(at), step);
        let published = agents[step].write(publish)?;
        let mut confirm = order.row(Kind::Confirm, Micros(at + 700), step);
        confirm.concludes = Some(RowRef { boot: None, seq: Seq(published) });
        confirm.outcome = Some(Outcome::Confirmed);
        agents[step].write(confirm)?;
        // One in a thousand stops at the factory.
        let rejected = step == 2 && index % 1000 == 7;
        for taker in takers(step) {
            let queue = format!("{}.{}", SERVICES[taker], STEPS[step].1);
            let mut deliver = order.row(Kind::Deliver, Micros(at + 1000), step);
            deliver.place.subscription = Some(&queue);
            let delivered = agents[taker].write(deliver)?;
            let mut settle = order.row(Kind::Settle, Micros(at + 9000), step);
            settle.place.subscription = Some(&queue);
            settle.concludes = Some(RowRef { boot: None, seq: Seq(delivered) });
            settle.session.took_us = Some(8000);
            settle.outcome =
                Some(if rejected && taker == 3 { Outcome::Rejected } else { Outcome::Acked });
            agents[taker].write(settle)?;
        }
        if rejected {
            return Ok(true);
        }
        at += 8000;
    }
    Ok(false)
}
