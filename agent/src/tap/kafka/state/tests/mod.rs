//! The state driven with messages that another codec has made. What real brokers and clients say
//! is tested end to end in the workspace's `tests/`.

mod blind;
mod consume;
mod members;
mod places;
mod produce;
mod session;
mod transactions;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use flowtap_record::{Micros, Observation, Seq};
use kafka_protocol::messages as m;
use kafka_protocol::protocol::{Encodable, StrBytes};
use kafka_protocol::records::{
    Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use serde_json::{Value as Json, json};

use super::State;
use crate::identify::Identifier;
use crate::metrics::Metrics;
use crate::tap::kafka::Env;
use crate::tap::kafka::feed::{Head, Item, What};
use crate::tap::kafka::wire::key;
use crate::tap::{Budget, Side, Sink};

/// Keeps rows as JSON, with their numbers.
#[derive(Default)]
struct Rows(Vec<Json>);

impl Sink for Rows {
    fn record(&mut self, row: &Observation<'_>) -> Option<Seq> {
        let seq = self.0.len() as i64 + 1;
        let mut row = serde_json::to_value(row).unwrap();
        row["seq"] = seq.into();
        if let Some(details) = row["details"].as_str() {
            row["details"] = serde_json::from_str(details).unwrap();
        }
        self.0.push(row);
        Some(Seq(seq))
    }

    fn is_written(&self, _: Seq) -> bool {
        true
    }
}

/// A tap's state with connections to it.
struct Stage {
    state: State,
    rows: Rows,
    now: i64,
    correlation: i32,
}

const TOPIC_ID: u128 = 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10;

impl Stage {
    /// Connections 1 to 3, and a cluster `c1` with the topic `orders`.
    fn new() -> Self {
        let env = Env {
            service: "shop".into(),
            instance: "host-1".into(),
            cluster: None,
            identifier: Identifier::default(),
            budget: Arc::new(Budget::new(1 << 20)),
            metrics: Metrics::new().tap("test"),
        };
        let mut stage = Self {
            state: State::new(Arc::new(env), []),
            rows: Rows::default(),
            now: 1_000_000,
            correlation: 0,
        };
        for connection in 1..=3 {
            stage.item(connection, What::Opened(Box::default()));
            stage.software(connection, "librdkafka", "2.8");
        }
        let topic = m::metadata_response::MetadataResponseTopic::default()
            .with_name(Some(topic()))
            .with_topic_id(uuid::Uuid::from_u128(TOPIC_ID))
            .with_partitions(vec![m::metadata_response::MetadataResponsePartition::default(); 2]);
        let answer = m::MetadataResponse::default()
            .with_cluster_id(Some(text("c1")))
            .with_topics(vec![topic]);
        stage.exchange(1, key::METADATA, 12, &m::MetadataRequest::default(), &answer);
        stage
    }

    fn software(&mut self, connection: i64, name: &str, version: &str) {
        let software = m::ApiVersionsRequest::default()
            .with_client_software_name(text(name))
            .with_client_software_version(text(version));
        self.ask(connection, key::API_VERSIONS, 3, &software);
    }

    fn item(&mut self, connection: i64, what: What) {
        self.now += 1_000;
        let item = Item { connection, at: Micros(self.now), what };
        self.state.apply(item, &mut self.rows);
    }

    fn frame(&mut self, connection: i64, side: Side, head: &Head, body: &[u8]) {
        self.item(connection, What::Begin(side, Box::new(head.clone())));
        // In two pieces, as it may come.
        let (first, second) = body.split_at(body.len() / 2);
        self.item(connection, What::Piece(side, Bytes::copy_from_slice(first)));
        self.item(connection, What::Piece(side, Bytes::copy_from_slice(second)));
        self.item(connection, What::End(side));
    }

    fn ask(&mut self, connection: i64, key: i16, version: i16, body: &impl Encodable) -> Head {
        self.correlation += 1;
        let mut bytes = BytesMut::new();
        body.encode(&mut bytes, version).unwrap();
        let client_id = Some(Box::from(b"shop-1".as_slice()));
        let correlation = self.correlation;
        let head = Head { key, version, correlation, client_id, size: bytes.len() };
        self.frame(connection, Side::Client, &head, &bytes);
        head
    }

    fn answer(&mut self, connection: i64, asked: &Head, body: &impl Encodable) {
        let mut bytes = BytesMut::new();
        body.encode(&mut bytes, asked.version).unwrap();
        let head = Head { size: bytes.len(), client_id: None, ..asked.clone() };
        self.frame(connection, Side::Broker, &head, &bytes);
    }

    fn exchange(
        &mut self,
        connection: i64,
        key: i16,
        version: i16,
        request: &impl Encodable,
        answer: &impl Encodable,
    ) {
        let asked = self.ask(connection, key, version, request);
        self.answer(connection, &asked, answer);
    }

    fn closes(&mut self, connection: i64) {
        self.item(connection, What::Closed("client closed the socket"));
    }

    fn later(&mut self, seconds: i64) {
        self.now += seconds * 1_000_000;
        self.state.tick(Micros(self.now), &mut self.rows);
    }

    /// Rows of a kind since the last call of `forget`.
    fn of(&self, kind: &str) -> Vec<Json> {
        let is_kind = |word: &str| word.eq_ignore_ascii_case(kind);
        let of_kind = |row: &&Json| row["kind"].as_str().is_some_and(is_kind);
        self.rows.0.iter().filter(of_kind).cloned().collect()
    }

    /// Offsets, outcomes and reasons of rows of a kind.
    fn ends(&self, kind: &str) -> Vec<Json> {
        let short = |row: &Json| json!([row["place"]["log_offset"], row["outcome"], row["reason"]]);
        self.of(kind).iter().map(short).collect()
    }
}

impl Head {
    fn of_nothing() -> Self {
        Self { key: -1, version: 0, correlation: 0, client_id: None, size: 0 }
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn topic() -> m::TopicName {
    text("orders").into()
}

/// What a batch is like.
#[derive(Clone, Copy, Debug)]
struct Batch {
    base: i64,
    producer: (i64, i16),
    sequence: i32,
    transactional: bool,
    control: bool,
}

const PLAIN: Batch =
    Batch { base: 0, producer: (-1, -1), sequence: -1, transactional: false, control: false };

fn batch(like: Batch, values: &[&str]) -> Bytes {
    let records: Vec<Record> = values
        .iter()
        .enumerate()
        .map(|(at, value)| Record {
            transactional: like.transactional,
            control: like.control,
            delete_horizon: false,
            partition_leader_epoch: 0,
            producer_id: like.producer.0,
            producer_epoch: like.producer.1,
            timestamp_type: TimestampType::Creation,
            offset: like.base + at as i64,
            sequence: like.sequence + at as i32,
            timestamp: 1_700_000_000_000,
            key: Some(Bytes::copy_from_slice(if like.control { b"\0\0\0\0" } else { b"order-1" })),
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            headers: kafka_protocol::indexmap::IndexMap::from([(
                text("event-id"),
                Some(Bytes::copy_from_slice(value.as_bytes())),
            )]),
        })
        .collect();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    let mut bytes = BytesMut::new();
    RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
    bytes.freeze()
}
