//! What the decoding thread is handed, what has to wait for it, and that neither depends on how the
//! bytes are cut.

use proptest::prelude::*;

use super::super::super::feed::Item;
use super::*;

fn produce(correlation: i32, records: usize) -> Vec<u8> {
    // Version 3: transactional id null, acks -1, timeout, then whatever.
    let body = [&b"\xff\xff\xff\xff\0\0\0\x01"[..], &vec![9; records]].concat();
    request(ApiKey::Produce, 3, correlation, &body)
}

#[test]
fn conclusions_wait_for_what_they_conclude() {
    let mut wire = Wire::new();
    let commit = request(ApiKey::OffsetCommit, 7, 1, b"body");
    wire.client(&produce(0, 10));
    wire.client(&commit);
    // Opened is 1, the Produce request 2 to 4.
    assert_eq!(wire.held.pop(), Some((Side::Client, produce(0, 10).len(), 4)));
    wire.broker(&answer(ApiKey::Produce, 3, 0, b"done"));
    assert_eq!(wire.held.pop(), Some((Side::Broker, 0, 4)), "no later item");
    wire.client(&request(ApiKey::EndTxn, 1, 2, b"body"));
    wire.broker(&answer(ApiKey::OffsetCommit, 7, 1, b"body"));
    wire.broker(&answer(ApiKey::EndTxn, 1, 2, b"body"));
    let newest = wire.around.feed.as_ref().unwrap().newest();
    let (side, _, ticket) = wire.held.pop().unwrap();
    assert_eq!((side, ticket), (Side::Broker, newest - 3), "all before the answer's own three");
    assert_eq!(wire.held, [], "answers to commits do not wait");
}

#[test]
fn what_finds_no_memory_is_lost_once_and_passes() {
    let mut wire = Wire::with_memory(2000);
    let large = produce(0, 2500);
    for piece in large.chunks(400) {
        wire.client(piece);
    }
    assert_eq!(wire.at_broker(), large);
    let told = wire.told();
    assert_eq!(told[1..], ["Lost(Client, Memory)"]);
    wire.broker(&answer(ApiKey::Produce, 3, 0, b"done"));
    assert_eq!(wire.held.len(), 1, "its answer waits for the gap");
    wire.client(&produce(1, 100));
    assert!(
        wire.told().iter().any(|line| line.starts_with("Client ends 108")),
        "then there is room"
    );
}

#[test]
fn frames_that_should_be_small_are_not_kept() {
    let mut wire = Wire::new();
    let large = request(ApiKey::JoinGroup, 2, 0, &vec![1; MAX_TOLD + 1]);
    wire.client(&large);
    assert_eq!(wire.at_broker().len(), large.len());
    assert_eq!(wire.told()[1..], ["Lost(Client, Size)"]);
    wire.client(&produce(1, MAX_TOLD + 1));
    assert!(wire.told().last().unwrap().starts_with("Client ends"), "records may be many");
}

#[test]
fn a_frame_that_is_cut_is_said_to_be() {
    let mut wire = Wire::new();
    wire.client(&produce(0, 100)[..50]);
    wire.conversation.end(Micros(3_000), "client closed the socket");
    let told = wire.told();
    assert_eq!(told[1..], ["Lost(Client, Cut)", r#"Closed("client closed the socket")"#]);
}

#[test]
fn nothing_is_told_or_held_when_nothing_is_recorded() {
    let wire = Wire::new();
    let Around { brokers, metrics, .. } = &*wire.around;
    let (brokers, metrics) = (Arc::clone(brokers), metrics.clone());
    let silent = Arc::new(Around { brokers, feed: None, metrics });
    let mut wire = Wire::new();
    wire.conversation = Conversation::new(silent, 1, Ends::default(), Micros(1));
    wire.client(&produce(0, 10));
    wire.client(&request(ApiKey::OffsetCommit, 7, 1, b"body"));
    wire.broker(&answer(ApiKey::Produce, 3, 0, b"done"));
    assert!(wire.held.is_empty() && wire.told().is_empty());
}

#[test]
fn a_small_piece_does_not_keep_a_large_buffer_alive() {
    let mut wire = Wire::new();
    wire.client(&produce(0, 10));
    let mut pieces = 0;
    while let Next::Item(_, Item { what, .. }) = wire.intake.next(std::time::Duration::ZERO) {
        if let What::Piece(_, bytes) = what {
            pieces += 1;
            assert!(bytes.is_unique());
        }
    }
    assert_eq!(pieces, 1);
}

/// Both sides of a conversation in which everything occurs that is not simply passed on.
fn conversation() -> (Vec<u8>, Vec<u8>) {
    use kafka_protocol::messages::fetch_response::NodeEndpoint;
    use kafka_protocol::messages::metadata_response::MetadataResponseBroker;
    use kafka_protocol::messages::{
        ApiVersionsResponse, BrokerId, FetchResponse, MetadataResponse,
    };
    let versions = ApiVersionsResponse::default().with_api_keys(vec![
        kafka_protocol::messages::api_versions_response::ApiVersion::default()
            .with_api_key(1)
            .with_max_version(40),
    ]);
    let broker = MetadataResponseBroker::default()
        .with_node_id(BrokerId(1))
        .with_host(text("kafka-1.example.org"))
        .with_port(9092);
    let metadata = MetadataResponse::default().with_brokers(vec![broker; 3]);
    let node = NodeEndpoint::default()
        .with_node_id(BrokerId(1))
        .with_host(text("kafka-1.example.org"))
        .with_port(9092);
    let topic = |records| {
        use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
        let partition = PartitionData::default().with_records(Some(Bytes::from(vec![7; records])));
        FetchableTopicResponse::default().with_partitions(vec![partition])
    };
    let fetch = |records| {
        FetchResponse::default()
            .with_responses(vec![topic(records)])
            .with_node_endpoints(vec![node.clone(), node.clone()])
    };
    let client = [
        request(ApiKey::ApiVersions, 3, 1, b""),
        request(ApiKey::SaslHandshake, 0, 2, b"\0\x05PLAIN"),
        frame(&[b"\0shop\0hunter2"]),
        request(ApiKey::Metadata, 12, 3, b"some body"),
        produce(4, 3000),
        request(ApiKey::Fetch, 16, 5, b"body"),
        request(ApiKey::Fetch, 17, 6, b"body"),
        request(ApiKey::OffsetCommit, 7, 7, b"body"),
    ];
    let broker = [
        answer(ApiKey::ApiVersions, 3, 1, &encoded(&versions, 3)),
        answer(ApiKey::SaslHandshake, 0, 2, b"\0\0\0\0\0\0"),
        frame(&[b""]),
        answer(ApiKey::Metadata, 12, 3, &encoded(&metadata, 12)),
        answer(ApiKey::Produce, 3, 4, b"\0\0\0\0\0\0\0\0"),
        answer(ApiKey::Fetch, 16, 5, &encoded(&fetch(100), 16)),
        answer(ApiKey::Fetch, 17, 6, &encoded(&fetch(70_000), 17)),
        answer(ApiKey::OffsetCommit, 7, 7, b"body"),
    ];
    (client.concat(), broker.concat())
}

/// What comes out and what is told, when the bytes come in pieces of these sizes.
fn outcome(client: &[u8], broker: &[u8], sizes: &[usize]) -> ([Vec<u8>; 2], Vec<String>) {
    let mut wire = Wire::new();
    // A listener's port is the system's choice.
    let mut sizes = sizes.iter().copied().cycle();
    // Bare tokens follow only when the handshake has been answered.
    let login = client.windows(5).position(|window| window == b"PLAIN").unwrap() + 5;
    let answered = {
        let lengths = peek_i32(broker).unwrap() as usize + 4;
        lengths + peek_i32(&broker[lengths..]).unwrap() as usize + 4
    };
    for (side, bytes) in [
        (Side::Client, &client[..login]),
        (Side::Broker, &broker[..answered]),
        (Side::Client, &client[login..]),
        (Side::Broker, &broker[answered..]),
    ] {
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(sizes.next().unwrap().min(bytes.len()));
            wire.read(side, now);
            bytes = later;
        }
    }
    assert!(!wire.refused);
    let port = wire.port(1).to_be_bytes();
    let mut out = [wire.at_broker(), wire.at_client()];
    for at in 0..out[1].len() - 1 {
        if out[1][at..].starts_with(&port) {
            out[1][at..at + 2].fill(0);
        }
    }
    (out, wire.told())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_outcome_does_not_depend_on_how_bytes_are_cut(
        sizes in proptest::collection::vec(prop_oneof![1usize..20, 20usize..3000, 1usize..100_000], 1..40),
    ) {
        let (client, broker) = conversation();
        let (whole, told) = outcome(&client, &broker, &[usize::MAX]);
        let (cut, told_cut) = outcome(&client, &broker, &sizes);
        prop_assert!(whole == cut, "other bytes for {sizes:?}");
        prop_assert_eq!(told, told_cut);
    }

    #[test]
    fn garbage_passes_or_ends_the_connection(
        client in proptest::collection::vec(any::<u8>(), 0..400),
        broker in proptest::collection::vec(any::<u8>(), 0..400),
        key in 0i16..100, version in -1i16..20, cut in 1usize..50,
    ) {
        let mut wire = Wire::new();
        let head = [&key.to_be_bytes()[..], &version.to_be_bytes(), b"\0\0\0\x05\xff\xff"].concat();
        let ask = frame(&[&head, &client]);
        let reply = frame(&[b"\0\0\0\x05", &broker]);
        for piece in ask.chunks(cut) {
            wire.client(piece);
        }
        for piece in reply.chunks(cut) {
            wire.broker(piece);
        }
        if !wire.refused {
            let got = [wire.at_broker(), wire.from[0].to_vec()].concat();
            prop_assert!(got == ask, "a request is never altered");
        }
    }
}

#[test]
fn frames_for_which_there_is_no_room_are_counted_and_said_once() {
    let mut wire = Wire::with_memory(2000);
    for correlation in 0..1000 {
        wire.client(&request(ApiKey::Heartbeat, 3, correlation, b"body"));
        wire.broker(&answer(ApiKey::Heartbeat, 3, correlation, b"body"));
    }
    let told = wire.told();
    assert!(told.len() < 10, "{}", told.len());
    // The next frame that finds room says what was missed before it.
    wire.client(&request(ApiKey::Heartbeat, 3, 1000, b"body"));
    let told = wire.told();
    assert!(told[0].starts_with("Client begins 12 v3 #1000"), "{told:?}");
    assert!(told[1].starts_with("Missed { side: Client, frames: 99"), "{told:?}");
    assert!(told[2].starts_with("Missed { side: Broker, frames: 99"), "{told:?}");
}

#[test]
fn frames_that_were_missed_are_said_when_nothing_follows_them() {
    let mut wire = Wire::with_memory(600);
    for correlation in 0..10 {
        wire.client(&request(ApiKey::Heartbeat, 3, correlation, b"body"));
    }
    wire.conversation.end(Micros(3_000), "client closed the socket");
    let told = wire.told();
    assert!(told.iter().any(|line| line.starts_with("Missed { side: Client")), "{told:?}");
    assert!(told.last().unwrap().starts_with("Closed"));
}

#[test]
fn an_answer_that_is_not_read_is_told_only_if_it_holds_records() {
    use kafka_protocol::messages::ShareFetchResponse;
    let mut wire = Wire::new();
    wire.answered(ApiKey::ShareFetch, 1, &encoded(&ShareFetchResponse::default(), 1));
    // Versions 0 and 1: a topic with a partition, without records, then with some.
    let old = |version: i16, records: &[u8]| {
        let throttle = if version > 0 { &[0; 4][..] } else { &[] };
        let partition = [&[0; 14][..], &(records.len() as i32).to_be_bytes(), records].concat();
        [throttle, b"\0\0\0\x01\0\x01t\0\0\0\x01", &partition].concat()
    };
    for version in [0, 1, 3] {
        wire.answered(ApiKey::Fetch, version, &old(version, b""));
    }
    assert_eq!(wire.told(), [""; 0]);
    wire.answered(ApiKey::Fetch, 1, &old(1, b"some"));
    assert_eq!(wire.told(), ["unread 1 v1"]);
    wire.answered(ApiKey::Fetch, 0, b"what is this");
    assert_eq!(wire.told(), ["unread 1 v0"], "or if that is not known");
}

#[test]
fn what_is_kept_back_leaves_less_room_until_it_goes_on() {
    let mut wire = Wire::with_memory(5000);
    // A small Fetch is kept back until it is whole.
    wire.client(&request(ApiKey::Fetch, 16, 1, b"body"));
    wire.told();
    let long = answer(ApiKey::Fetch, 16, 1, &vec![0x7f; 9000]);
    wire.broker(&long[..4500]);
    let room = |wire: &Wire| wire.around.feed.as_ref().unwrap().has_room();
    assert!(!room(&wire));
    wire.conversation.end(Micros(3_000), "client closed the socket");
    wire.told();
    assert!(room(&wire));
}
