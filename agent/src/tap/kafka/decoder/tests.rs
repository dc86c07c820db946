//! The decoding thread with what is hard to bring about otherwise: a backlog, a fault of its own.

use std::sync::atomic::AtomicI64;
use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use flowtap_record::{Kind, Observation, Seq};
use kafka_protocol::messages as m;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::super::brokers::{Kept, Local};
use super::super::feed::{Ends, Feed, Head, What, feed};
use super::super::wire::key;
use super::*;
use crate::config::PortRange;
use crate::identify::Identifier;
use crate::metrics::Metrics;
use crate::tap::{Budget, Side, Sink};

/// Kind, connection and reason.
type Row = (Kind, Option<i64>, Option<String>);

/// Keeps rows; its clock is far ahead of what is decoded. Fails at
/// publishes by connection 13.
#[derive(Clone, Default)]
struct Rows(Arc<Mutex<Vec<Row>>>);

impl Sink for Rows {
    fn record(&mut self, row: &Observation<'_>) -> Option<Seq> {
        assert!(
            (row.kind, row.who.connection) != (Kind::Publish, Some(13)),
            "as the test wants it"
        );
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.push((row.kind, row.who.connection, row.reason.map(str::to_owned)));
        Some(Seq(rows.len() as i64))
    }

    fn is_written(&self, _seq: Seq) -> bool {
        true
    }
}

impl Recorder for Rows {
    async fn written(&self, _seq: Seq) {}

    fn now(&self) -> Micros {
        Micros(1_000_000_000_000)
    }

    fn stay_before(&self, _undecoded: Arc<AtomicI64>) {}
}

struct Queue {
    feed: Feed,
    now: i64,
}

impl Queue {
    fn item(&mut self, connection: i64, what: What) {
        self.now += 1_000;
        self.feed.send(Item { connection, at: Micros(self.now), what }).unwrap();
    }

    fn frame(
        &mut self,
        connection: i64,
        side: Side,
        key: i16,
        version: i16,
        body: &impl Encodable,
    ) {
        let mut bytes = BytesMut::new();
        body.encode(&mut bytes, version).unwrap();
        let head = Head { key, version, correlation: 1, client_id: None, size: bytes.len() };
        self.item(connection, What::Begin(side, Box::new(head)));
        self.item(connection, What::Piece(side, bytes.freeze()));
        self.item(connection, What::End(side));
    }
}

/// Decodes all that is queued, as the thread does; the rows.
fn decoded(queue: impl FnOnce(&mut Queue)) -> Vec<Row> {
    let local = Local {
        ip: [127, 0, 0, 1].into(),
        ports: PortRange { first: 0, last: 0 },
        advertise: "localhost".to_owned(),
    };
    let (opens, _) = tokio::sync::mpsc::unbounded_channel();
    let brokers = Arc::new(Brokers::new(local, Kept::default(), opens).unwrap());
    let env = Env {
        service: "shop".into(),
        instance: "host-1".into(),
        cluster: None,
        identifier: Identifier::default(),
        budget: Arc::new(Budget::new(1 << 20)),
        metrics: Metrics::new().tap("test"),
    };
    let (feed, intake) = feed(1 << 24);
    let mut filled = Queue { feed, now: 1_000_000 };
    queue(&mut filled);
    drop(filled);
    let rows = Rows::default();
    decode(intake, Arc::new(env), brokers, rows.clone());
    rows.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

#[test]
fn a_member_whose_heartbeats_wait_to_be_decoded_is_not_silent() {
    let rows = decoded(|queue| {
        queue.item(1, What::Opened(Box::<Ends>::default()));
        let join = m::JoinGroupRequest::default()
            .with_group_id(text("billing").into())
            .with_session_timeout_ms(10_000);
        queue.frame(1, Side::Client, key::JOIN_GROUP, 5, &join);
        let joined = m::JoinGroupResponse::default().with_member_id(text("m-1"));
        queue.frame(1, Side::Broker, key::JOIN_GROUP, 5, &joined);
        for _ in 0..20 {
            queue.now += 5_000_000;
            let beat = m::HeartbeatRequest::default()
                .with_group_id(text("billing").into())
                .with_member_id(text("m-1"));
            queue.frame(1, Side::Client, key::HEARTBEAT, 3, &beat);
            queue.frame(1, Side::Broker, key::HEARTBEAT, 3, &m::HeartbeatResponse::default());
        }
    });
    let members = rows.iter().filter(|(kind, ..)| *kind == Kind::Session);
    let reasons: Vec<_> = members.filter_map(|(_, _, reason)| reason.as_deref()).collect();
    assert!(reasons.is_empty(), "{reasons:?}");
}

#[test]
fn a_member_that_falls_silent_in_a_backlog_is_expelled() {
    let rows = decoded(|queue| {
        queue.item(1, What::Opened(Box::<Ends>::default()));
        let join = m::JoinGroupRequest::default()
            .with_group_id(text("billing").into())
            .with_session_timeout_ms(10_000);
        queue.frame(1, Side::Client, key::JOIN_GROUP, 5, &join);
        let joined = m::JoinGroupResponse::default().with_member_id(text("m-1"));
        queue.frame(1, Side::Broker, key::JOIN_GROUP, 5, &joined);
        queue.now += 20_000_000;
        queue.item(1, What::Principal("shop".to_owned()));
    });
    assert!(rows.iter().any(|(_, _, reason)| reason.as_deref() == Some("member expelled")));
}

#[test]
fn a_fault_of_the_decoder_costs_one_connection_its_rows_and_no_other() {
    use kafka_protocol::records::{
        Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
    };
    let record = Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 0,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset: 0,
        sequence: -1,
        timestamp: 0,
        key: None,
        value: Some(Bytes::from_static(b"a")),
        headers: kafka_protocol::indexmap::IndexMap::default(),
    };
    let mut batch = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut batch, &[record], &options).unwrap();
    let partition = PartitionProduceData::default().with_records(Some(batch.freeze()));
    let topic = TopicProduceData::default()
        .with_name(text("orders").into())
        .with_partition_data(vec![partition]);
    let produce = m::ProduceRequest::default().with_acks(1).with_topic_data(vec![topic]);
    let rows = decoded(|queue| {
        for connection in [13, 14] {
            queue.item(connection, What::Opened(Box::<Ends>::default()));
        }
        for connection in [13, 14, 13] {
            queue.frame(connection, Side::Client, key::PRODUCE, 9, &produce);
        }
        queue.now += 3_000_000;
        queue.item(13, What::Closed("client closed the socket"));
    });
    let of = |kind: Kind, connection: i64| {
        rows.iter().filter(|row| (row.0, row.1) == (kind, Some(connection))).count()
    };
    assert_eq!(of(Kind::Publish, 14), 1, "{rows:?}");
    assert_eq!(of(Kind::Gap, 14), 0);
    assert_eq!(of(Kind::Gap, 13), 2, "when it happened, and until the end: {rows:?}");
    assert!(rows.iter().any(|(_, _, reason)| reason.as_deref() == Some("decoder_failed")));
    assert_eq!(of(Kind::Session, 13), 2);
}
