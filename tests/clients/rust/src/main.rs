//! A service with rdkafka (librdkafka). Scenarios: ../../README.md.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer,
};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use serde_json::{Value, json};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// How long it waits for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What it did so far, counted.
#[derive(Clone, Default)]
struct Did(Arc<Mutex<BTreeMap<&'static str, i64>>>);

impl Did {
    fn of(names: &[&'static str]) -> Self {
        let did = Self::default();
        names.iter().for_each(|name| did.count(name, 0));
        did
    }

    fn count(&self, what: &'static str, by: i64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += by;
    }

    fn get(&self, what: &str) -> i64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(what).copied().unwrap_or(0)
    }

    fn say(&self) {
        say(&json!(*self.0.lock().unwrap_or_else(PoisonError::into_inner)));
    }
}

fn say(what: &Value) {
    // Whoever does not listen any more has ended the test.
    let _ = writeln!(std::io::stdout().lock(), "{what}");
}

/// One scenario, as it was given.
struct Plan {
    all: Value,
    stopped: Arc<AtomicBool>,
}

impl Plan {
    fn text(&self, name: &str) -> Option<&str> {
        self.all[name].as_str()
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.all[name].as_i64()
    }

    fn goes_on(&self) -> bool {
        !self.stopped.load(Ordering::SeqCst)
    }

    fn pause(&self) {
        std::thread::sleep(Duration::from_millis(self.number("every_ms").unwrap_or(0) as u64));
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.text("bootstrap").unwrap_or_default());
        config.set("client.id", self.text("client_id").unwrap_or("rdkafka"));
        config
    }

    /// The client's own settings come last.
    fn with_own(&self, mut config: ClientConfig) -> ClientConfig {
        for (name, value) in self.all["config"].as_object().into_iter().flatten() {
            config.set(name, plain(value));
        }
        config
    }

    fn value(&self, number: i64) -> String {
        let mut text = format!(r#"{{"order_id":"order-{number}","n":{number}"#);
        let size = self.number("bytes").unwrap_or(0) as usize;
        if size > text.len() + 10 {
            text += &format!(r#","pad":"{}""#, "x".repeat(size - text.len() - 10));
        }
        text + "}"
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn contains(list: &Value, number: i64) -> bool {
    list.as_array().is_some_and(|list| list.iter().any(|each| each.as_i64() == Some(number)))
}

// === producing ===

/// Says of each record where it went; its number is the record's opaque.
struct Told {
    did: Did,
    /// Only what this service made itself is said.
    says: bool,
}

impl ClientContext for Told {}

impl ProducerContext for Told {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        if !self.says {
            return;
        }
        match result {
            Ok(message) => {
                self.did.count("confirmed", 1);
                let offset = Some(message.offset()).filter(|offset| *offset >= 0);
                say(&json!({"sent": number, "partition": message.partition(), "offset": offset}));
            }
            Err((error, _)) => {
                self.did.count("refused", 1);
                let error = error.rdkafka_error_code().map(|code| format!("{code:?}"));
                say(&json!({"sent": number, "error": error}));
            }
        }
    }
}

type Producer = ThreadedProducer<Told>;

fn producer(plan: &Plan, of: &Value, transaction: Option<&str>, told: Told) -> Result<Producer> {
    let mut config = plan.config();
    let setting = |name: &str, otherwise: &str| match &of[name] {
        Value::Null => otherwise.to_owned(),
        value => plain(value),
    };
    let idempotent = transaction.is_some() || of["idempotent"] == true;
    config.set("acks", setting("acks", "all"));
    config.set("linger.ms", setting("linger_ms", "5"));
    config.set("compression.type", setting("compression", "none"));
    config.set("enable.idempotence", idempotent.to_string());
    if let Some(id) = transaction {
        config.set("transactional.id", id);
    }
    let producer: Producer = plan.with_own(config).create_with_context(told)?;
    if transaction.is_some() {
        producer.init_transactions(PATIENCE)?;
    }
    Ok(producer)
}

/// Sends a record, waiting while the queue is full.
fn send(producer: &Producer, mut record: BaseRecord<'_, [u8], [u8], usize>) -> Result {
    const FULL: KafkaError = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
    while let Err((error, again)) = producer.send(record) {
        if error != FULL {
            return Err(error.into());
        }
        std::thread::sleep(Duration::from_millis(100));
        record = again;
    }
    Ok(())
}

fn end(producer: &Producer, did: &Did, number: i64, abort: bool) -> Result {
    let outcome = if abort {
        producer.abort_transaction(PATIENCE)?;
        "aborted"
    } else {
        producer.commit_transaction(PATIENCE)?;
        "committed"
    };
    did.count(outcome, 1);
    say(&json!({"transaction": number, "outcome": outcome}));
    Ok(())
}

fn produce(plan: &Plan) -> Result<Did> {
    let did = Did::of(&["published", "confirmed", "refused", "committed", "aborted"]);
    let transaction = &plan.all["transaction"];
    let told = Told { did: did.clone(), says: true };
    let producer = producer(plan, &plan.all, transaction["id"].as_str(), told)?;
    let topic = plan.text("topic").unwrap_or_default();
    producer.client().fetch_metadata(Some(topic), PATIENCE)?;
    say(&json!({"ready": true}));
    let size = transaction["size"].as_i64();
    let count = plan.number("count").unwrap_or(0);
    let keys: Vec<_> = plan.all["keys"].as_array().into_iter().flatten().map(plain).collect();
    for number in 0..count {
        if !plan.goes_on() {
            break;
        }
        if size.is_some_and(|size| number % size == 0) {
            producer.begin_transaction()?;
        }
        let content = plan.value(number);
        let mut record = BaseRecord::with_opaque_to(topic, number as usize);
        record = record.payload(content.as_bytes());
        if !keys.is_empty() {
            record = record.key(keys[number as usize % keys.len()].as_bytes());
        }
        if let Some(partition) = plan.number("partition") {
            record = record.partition(partition as i32);
        }
        let headers = plan.all["headers"].as_array().into_iter().flatten();
        let headers = headers.fold(OwnedHeaders::new(), |all, header| {
            all.insert(Header {
                key: header[0].as_str().unwrap_or_default(),
                value: header[1].as_str(),
            })
        });
        send(&producer, record.headers(headers))?;
        did.count("published", 1);
        if let Some(size) = size
            && (number % size == size - 1 || number == count - 1)
        {
            producer.flush(PATIENCE)?;
            end(&producer, &did, number / size, contains(&transaction["abort"], number / size))?;
        }
        plan.pause();
    }
    producer.flush(PATIENCE)?;
    Ok(did)
}

// === consuming ===

type Positions = HashMap<(String, i32), i64>;

/// What partitions come and go, and how far each was read.
struct Group {
    by_batch: bool,
    position: Mutex<Positions>,
}

impl Group {
    fn commit<C: ConsumerContext>(&self, consumer: &BaseConsumer<C>) {
        let mut position = self.position.lock().unwrap_or_else(PoisonError::into_inner);
        if position.is_empty() {
            return;
        }
        let done = offsets(&position).and_then(|all| Ok(consumer.commit(&all, CommitMode::Sync)?));
        match done {
            Ok(()) => {
                said(&position);
                position.clear();
            }
            // With the next batch, if the partition is still its own then.
            Err(error) => say(&json!({"failed": error.to_string()})),
        }
    }
}

impl ClientContext for Group {}

impl ConsumerContext for Group {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Revoke(partitions) = rebalance else { return };
        let lost = consumer.assignment_lost();
        if self.by_batch && !lost {
            self.commit(consumer);
        }
        let mut position = self.position.lock().unwrap_or_else(PoisonError::into_inner);
        for each in partitions.elements() {
            position.remove(&(each.topic().to_owned(), each.partition()));
        }
        say(&json!({(if lost { "lost" } else { "revoked" }): names(partitions)}));
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(partitions) = rebalance {
            say(&json!({"assigned": names(partitions)}));
            say(&json!({"ready": true}));
        }
    }
}

fn names(partitions: &TopicPartitionList) -> Vec<Value> {
    partitions.elements().iter().map(|each| json!([each.topic(), each.partition()])).collect()
}

fn offsets(position: &Positions) -> Result<TopicPartitionList> {
    let mut all = TopicPartitionList::new();
    for ((topic, partition), offset) in position {
        all.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    Ok(all)
}

fn said(position: &Positions) {
    for ((topic, partition), offset) in position {
        say(&json!({"committed": [topic, partition, offset]}));
    }
}

fn consumer(plan: &Plan, group: Option<&str>, by_batch: bool) -> Result<BaseConsumer<Group>> {
    let mut config = plan.config();
    let auto = plan.text("commit").is_none_or(|commit| commit == "auto");
    let committed = plan.all["read_committed"] == true;
    config.set("group.id", group.unwrap_or("nobody"));
    config.set("auto.offset.reset", "earliest");
    config.set("enable.auto.commit", (group.is_some() && auto).to_string());
    config.set("auto.commit.interval.ms", "200");
    config.set("isolation.level", if committed { "read_committed" } else { "read_uncommitted" });
    if plan.text("protocol") == Some("consumer") {
        config.set("group.protocol", "consumer");
    } else {
        let session = plan.number("session_ms").unwrap_or(6000);
        config.set("session.timeout.ms", session.to_string());
        config.set("heartbeat.interval.ms", "500");
    }
    if let Some(instance) = plan.text("instance") {
        config.set("group.instance.id", instance);
    }
    let context = Group { by_batch, position: Mutex::default() };
    Ok(plan.with_own(config).create_with_context(context)?)
}

/// A group's, or all partitions from their beginning.
fn begin(plan: &Plan, consumer: &BaseConsumer<Group>, group: Option<&str>) -> Result {
    let topics = plan.all["topics"].as_array().into_iter().flatten();
    let topics: Vec<_> = topics.filter_map(Value::as_str).collect();
    if group.is_some() {
        consumer.subscribe(&topics)?;
        return Ok(());
    }
    let mut all = TopicPartitionList::new();
    for topic in topics {
        let seen = consumer.fetch_metadata(Some(topic), PATIENCE)?;
        for partition in seen.topics().iter().flat_map(|each| each.partitions()) {
            all.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
        }
    }
    consumer.assign(&all)?;
    say(&json!({"ready": true}));
    Ok(())
}

fn consume(plan: &Plan) -> Result<Did> {
    let did = Did::of(&["received", "committed", "aborted"]);
    let group = plan.text("group");
    let by_batch = group.is_some() && plan.text("commit") == Some("batch");
    let to = Some(&plan.all["to"]).filter(|to| to.is_object());
    let producer = to
        .map(|to| {
            let told = Told { did: did.clone(), says: false };
            producer(plan, to, to["transaction"].as_str(), told)
        })
        .transpose()?;
    let consumer = consumer(plan, group, by_batch)?;
    begin(plan, &consumer, group)?;
    let records = plan.number("records").unwrap_or(0);
    let max_batch = plan.number("max_batch").unwrap_or(500);
    let mut batches = 0;
    while plan.goes_on() && (records == 0 || did.get("received") < records) {
        let mut begun = Positions::new();
        let mut taken = 0;
        while taken < max_batch {
            let patience = Duration::from_millis(if taken == 0 { 100 } else { 0 });
            let message = match consumer.poll(patience) {
                None => break,
                Some(Ok(message)) => message,
                Some(Err(error)) => {
                    say(&json!({"failed": error.to_string()}));
                    continue;
                }
            };
            if let Some(producer) = producer.as_ref().filter(|_| taken == 0) {
                producer.begin_transaction()?;
            }
            taken += 1;
            did.count("received", 1);
            say(&line(&message));
            let at = (message.topic().to_owned(), message.partition());
            begun.entry(at.clone()).or_insert(message.offset());
            let mut position =
                consumer.context().position.lock().unwrap_or_else(PoisonError::into_inner);
            position.insert(at, message.offset() + 1);
            drop(position);
            if let (Some(producer), Some(to)) = (&producer, to) {
                let topic = to["topic"].as_str().unwrap_or_default();
                let mut record = BaseRecord::with_opaque_to(topic, 0);
                record.key = message.key();
                record.payload = message.payload();
                record.headers = message.headers().map(|headers| headers.detach());
                send(producer, record)?;
            }
            plan.pause();
        }
        if taken == 0 {
            if by_batch {
                consumer.context().commit(&consumer);
            }
        } else if let (Some(producer), Some(to)) = (&producer, to) {
            let position = std::mem::take(
                &mut *consumer.context().position.lock().unwrap_or_else(PoisonError::into_inner),
            );
            let member = consumer.group_metadata().ok_or("no group to commit for")?;
            producer.send_offsets_to_transaction(&offsets(&position)?, &member, PATIENCE)?;
            let abort = contains(&to["abort"], batches);
            producer.flush(PATIENCE)?;
            end(producer, &did, batches, abort)?;
            if abort {
                // Once more, from where it was.
                consumer.seek_partitions(offsets(&begun)?, PATIENCE)?;
            } else {
                said(&position);
            }
            batches += 1;
        } else if by_batch {
            consumer.context().commit(&consumer);
        }
    }
    if plan.text("end") == Some("crash") {
        crash(&did);
    }
    Ok(did)
}

fn line(message: &rdkafka::message::BorrowedMessage<'_>) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers: Vec<_> = message
        .headers()
        .into_iter()
        .flat_map(|headers| headers.iter())
        .map(|header| json!([header.key, header.value.map(text)]))
        .collect();
    json!({
        "topic": message.topic(), "partition": message.partition(), "offset": message.offset(),
        "key": message.key().map(text), "size": message.payload().map(<[u8]>::len),
        "timestamp": message.timestamp().to_millis(), "headers": headers,
    })
}

/// Ends without a goodbye.
fn crash(did: &Did) -> ! {
    did.say();
    std::process::exit(0);
}

fn main() -> Result {
    let scenario = std::env::args().nth(1).ok_or("a scenario is wanted")?;
    let stopped = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&stopped))?;
    let plan = Plan { all: serde_json::from_str(&scenario)?, stopped };
    let did = if plan.text("role") == Some("produce") { produce(&plan)? } else { consume(&plan)? };
    did.say();
    Ok(())
}
