//! Whole sessions through the relay's conversation and the state: cut at every byte, and hostile.

use kafka_protocol::messages::ApiKey;
use proptest::prelude::*;

use super::consume::{fetch, fetched, member};
use super::produce::{IDEMPOTENT, request, response};
use super::*;
use crate::config::PortRange;
use crate::tap::kafka::brokers::{Brokers, Kept, Local};
use crate::tap::kafka::conversation::{Around, Conversation, Step};
use crate::tap::kafka::feed::{Ends, Intake, Next, feed};

/// A connection with the state behind it, and nothing between.
struct Through {
    stage: Stage,
    around: Arc<Around>,
    intake: Intake,
    conversation: Conversation,
    inputs: [BytesMut; 2],
    number: i64,
}

impl Through {
    fn new() -> Self {
        let local = Local {
            ip: [127, 0, 0, 1].into(),
            ports: PortRange { first: 0, last: 0 },
            advertise: "localhost".to_owned(),
        };
        let (opens, _) = tokio::sync::mpsc::unbounded_channel();
        let brokers = Arc::new(Brokers::new(local, Kept::default(), opens).unwrap());
        let (feed, intake) = feed(1 << 20);
        let metrics = Metrics::new().tap("test");
        let around = Arc::new(Around { brokers, feed: Some(feed), metrics });
        let (stage, number) = (Stage::new(), 100);
        let conversation =
            Conversation::new(Arc::clone(&around), number, Ends::default(), Micros(stage.now));
        let inputs = Default::default();
        Self { stage, around, intake, conversation, inputs, number }
    }

    fn read(&mut self, side: Side, bytes: &[u8]) {
        self.stage.now += 1_000;
        let input = &mut self.inputs[side as usize];
        input.extend_from_slice(bytes);
        while let Step::Out(..) = self.conversation.step(side, Micros(self.stage.now), input) {}
        self.decode();
    }

    fn decode(&mut self) {
        while let Next::Item(ticket, item) = self.intake.next(std::time::Duration::ZERO) {
            let weight = Intake::weight(&item);
            self.stage.state.apply(item, &mut self.stage.rows);
            self.intake.done(ticket, weight, self.stage.state.newest());
        }
    }

    /// The sockets are closed; the next connection takes the place of this one.
    fn ends(&mut self) {
        self.conversation.end(Micros(self.stage.now), "client closed the socket");
        self.decode();
        self.number += 1;
        let now = Micros(self.stage.now);
        self.conversation =
            Conversation::new(Arc::clone(&self.around), self.number, Ends::default(), now);
        self.inputs = Default::default();
    }
}

fn framed(header: &impl Encodable, header_version: i16, body: &[u8]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    header.encode(&mut bytes, header_version).unwrap();
    let length = (bytes.len() + body.len()) as i32;
    [&length.to_be_bytes()[..], &bytes, body].concat()
}

fn encoded(message: &impl Encodable, version: i16) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    message.encode(&mut bytes, version).unwrap();
    bytes.to_vec()
}

/// One request and its answer, as they go over the wire.
fn turn(
    key: ApiKey,
    version: i16,
    correlation: i32,
    ask: &impl Encodable,
    answer: &impl Encodable,
) -> [(Side, Vec<u8>); 2] {
    let header = m::RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(text("shop-1")));
    let ask = framed(&header, key.request_header_version(version), &encoded(ask, version));
    let header = m::ResponseHeader::default().with_correlation_id(correlation);
    let answer = framed(&header, key.response_header_version(version), &encoded(answer, version));
    [(Side::Client, ask), (Side::Broker, answer)]
}

/// Login, produce, join, fetch, commit, on one connection.
fn session() -> Vec<(Side, Vec<u8>)> {
    use kafka_protocol::messages::offset_commit_request as ocq;
    use kafka_protocol::messages::offset_commit_response as ocr;
    let versions = m::ApiVersionsRequest::default()
        .with_client_software_name(text("librdkafka"))
        .with_client_software_version(text("2.8"));
    let hello = m::SaslHandshakeRequest::default().with_mechanism(text("PLAIN"));
    let token = Bytes::from_static(b"\0shop\0hunter2");
    let login = m::SaslAuthenticateRequest::default().with_auth_bytes(token);
    let joined =
        m::JoinGroupResponse::default().with_generation_id(1).with_member_id(member("m-1"));
    let sync = m::SyncGroupRequest::default()
        .with_group_id(text("billing").into())
        .with_generation_id(1)
        .with_member_id(member("m-1"));
    let assignment = b"\0\0\0\0\0\x01\0\x06orders\0\0\0\x01\0\0\0\0\xff\xff\xff\xff";
    let synced = m::SyncGroupResponse::default().with_assignment(Bytes::from_static(assignment));
    let place = ocq::OffsetCommitRequestPartition::default().with_committed_offset(2);
    let topics =
        ocq::OffsetCommitRequestTopic::default().with_name(topic()).with_partitions(vec![place]);
    let commit = m::OffsetCommitRequest::default()
        .with_group_id(text("billing").into())
        .with_generation_id_or_member_epoch(1)
        .with_member_id(member("m-1"))
        .with_topics(vec![topics]);
    let place = ocr::OffsetCommitResponsePartition::default();
    let topics =
        ocr::OffsetCommitResponseTopic::default().with_name(topic()).with_partitions(vec![place]);
    let committed = m::OffsetCommitResponse::default().with_topics(vec![topics]);
    let produce = |like: Batch| request(-1, &[batch(like, &["a", "b"])]);
    let records = [batch(PLAIN, &["a", "b", "c"])];
    [
        turn(ApiKey::ApiVersions, 3, 1, &versions, &m::ApiVersionsResponse::default()),
        turn(ApiKey::SaslHandshake, 1, 2, &hello, &m::SaslHandshakeResponse::default()),
        turn(ApiKey::SaslAuthenticate, 2, 3, &login, &m::SaslAuthenticateResponse::default()),
        turn(ApiKey::Produce, 9, 4, &produce(PLAIN), &response(0, 0)),
        turn(ApiKey::Produce, 9, 5, &produce(IDEMPOTENT), &response(0, 2)),
        turn(ApiKey::JoinGroup, 5, 6, &consume::join("m-1"), &joined),
        turn(ApiKey::SyncGroup, 3, 7, &sync, &synced),
        turn(ApiKey::Fetch, 11, 8, &fetch(0, false), &fetched(&records, None)),
        turn(ApiKey::OffsetCommit, 7, 9, &commit, &committed),
    ]
    .concat()
}

/// What must hold whatever came.
fn check(stage: &mut Stage, what: &str) {
    // Sessions run out, producers give up.
    stage.later(400);
    assert_eq!(stage.state.shared.publishes.waiting(), 0, "{what}: nothing waits");
    assert_eq!(stage.state.kept(), 0, "{what}: nothing is kept");
    let mut ends: Vec<_> =
        stage.of("settle").iter().map(|row| row["concludes"]["seq"].as_i64()).collect();
    let count = ends.len();
    ends.sort_unstable();
    ends.dedup();
    assert_eq!(ends.len(), count, "{what}: at most one settle a delivery");
    let confirms: Vec<_> =
        stage.of("confirm").iter().map(|row| row["concludes"]["seq"].as_i64()).collect();
    let distinct: std::collections::HashSet<_> = confirms.iter().collect();
    assert_eq!(distinct.len(), confirms.len(), "{what}: at most one confirm a publish");
}

#[test]
fn a_session_is_whole_when_it_is_not_cut() {
    let mut through = Through::new();
    for (side, bytes) in session() {
        through.read(side, &bytes);
    }
    through.ends();
    let stage = &mut through.stage;
    assert_eq!(stage.of("gap").len(), 0, "{:?}", stage.of("gap"));
    let count = |kind: &str| stage.of(kind).len();
    assert_eq!(
        (count("publish"), count("confirm"), count("deliver"), count("settle")),
        (4, 4, 3, 2)
    );
    check(stage, "whole");
}

#[test]
fn a_session_that_is_cut_at_any_byte_leaves_nothing_behind() {
    let session = session();
    let total: usize = session.iter().map(|(_, bytes)| bytes.len()).sum();
    for cut in 0..total {
        let mut through = Through::new();
        let mut left = cut;
        for (side, bytes) in &session {
            through.read(*side, &bytes[..left.min(bytes.len())]);
            if left <= bytes.len() {
                break;
            }
            left -= bytes.len();
        }
        through.ends();
        check(&mut through.stage, &format!("cut at {cut}"));
    }
}

/// Frames of any bytes, or of a real message with some bytes changed.
fn hostile() -> impl Strategy<Value = Vec<(Side, u8, i16, i16, Vec<u8>, u8)>> {
    let side = prop_oneof![Just(Side::Client), Just(Side::Broker)];
    let key = prop_oneof![
        0i16..4,
        8i16..20,
        Just(22),
        Just(26),
        Just(28),
        Just(68),
        Just(75),
        Just(78),
        Just(88)
    ];
    let body = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..120),
        (any::<proptest::sample::Index>(), proptest::collection::vec(any::<(u16, u8)>(), 0..6))
            .prop_map(|(which, changes)| {
                let frames = session();
                let mut body = which.get(&frames).1.get(22..).unwrap_or_default().to_vec();
                for (at, byte) in changes {
                    let length = body.len().max(1);
                    if let Some(place) = body.get_mut(usize::from(at) % length) {
                        *place = byte;
                    }
                }
                body
            }),
    ];
    proptest::collection::vec((side, 0u8..4, key, -1i16..20, body, 0u8..12), 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_bytes_make_the_state_fail_or_keep_what_it_should_not(frames in hostile()) {
        use crate::tap::kafka::feed::Loss;
        let mut stage = Stage::new();
        for (side, correlation, key, version, body, how) in frames {
            let head = Head {
                key,
                version,
                correlation: i32::from(correlation),
                size: body.len(),
                ..Head::of_nothing()
            };
            stage.item(1, What::Begin(side, Box::new(head.clone())));
            let (first, second) = body.split_at(body.len() / 2);
            stage.item(1, What::Piece(side, Bytes::copy_from_slice(first)));
            match how {
                0 => stage.item(1, What::Lost(side, Loss::Memory)),
                1 => stage.item(1, What::Lost(side, Loss::Cut)),
                2 => stage.later(20),
                3 => stage.item(1, What::Unread(Box::new(head))),
                _ => {
                    stage.item(1, What::Piece(side, Bytes::copy_from_slice(second)));
                    stage.item(1, What::End(side));
                }
            }
        }
        stage.closes(1);
        check(&mut stage, "hostile");
    }
}
