//! What does not speak Kafka, or not well.

use super::*;

/// Whether what the client says passes although it can't be read.
fn passes(first: &[u8]) -> String {
    let mut wire = Wire::new();
    wire.client(first);
    wire.broker(b"an answer of some sort");
    assert_eq!(wire.at_broker(), first);
    assert_eq!(wire.at_client(), b"an answer of some sort");
    let told = wire.told();
    assert_eq!(told.len(), 1, "{told:?}");
    told[0].clone()
}

#[test]
fn other_protocols_are_recognised_and_pass() {
    let hello = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
    assert!(passes(&hello).contains("speaks TLS"));
    assert!(passes(b"GET / HTTP/1.1\r\n\r\n").contains("speaks HTTP"));
    assert!(passes(b"AMQP\0\0\x09\x01").contains("speaks AMQP"));
    assert!(passes(b"\0\0\x02\0\x60\x82ticket").contains("GSSAPI"));
    assert!(passes(b"\0\0\0\x02hi and more").contains("can't be read"));
}

#[test]
fn a_broker_that_speaks_tls_is_not_passed_on() {
    let mut wire = Wire::new();
    wire.client(&request(ApiKey::Heartbeat, 0, 1, b"x"));
    wire.broker(b"\x15\x03\x03\x00\x02\x02\x50");
    assert!(wire.refused && wire.at_client().is_empty());
}

#[test]
fn negative_lengths_end_the_connection() {
    let mut wire = Wire::new();
    wire.client(b"\xff\xff\xff\xff\0\0\0\0");
    assert!(wire.refused && wire.at_broker().is_empty());
    let mut wire = Wire::new();
    wire.broker(b"\x80\0\0\0\0\0\0\0");
    assert!(wire.refused && wire.at_client().is_empty());
    wire.conversation.end(Micros(3_000), "client closed the socket");
    let told = wire.told();
    assert_eq!(told, [r#"Closed("broker sent a frame of negative length")"#]);
}

#[test]
fn an_answer_to_nothing_makes_the_connection_opaque() {
    let mut wire = Wire::new();
    wire.client(&request(ApiKey::Heartbeat, 0, 1, b"x"));
    let strange = answer(ApiKey::Heartbeat, 0, 2, b"\0\0");
    wire.broker(&strange);
    wire.client(b"\xff\xff anything");
    assert_eq!(wire.at_client(), strange);
    assert!(wire.at_broker().ends_with(b"\xff\xff anything"));
    assert!(wire.told().iter().any(|line| line.contains("belongs to no request")));
}

#[test]
fn a_produce_without_acks_has_no_answer() {
    for version in [3, 8, 9, 13] {
        let mut wire = Wire::new();
        for (correlation, acks) in [(1, 0), (2, 1), (3, 0)] {
            let ask = ProduceRequest::default()
                .with_transactional_id((acks == 1).then(|| text("tx").into()))
                .with_acks(acks);
            wire.client(&request(ApiKey::Produce, version, correlation, &encoded(&ask, version)));
        }
        let done = answer(ApiKey::Produce, version, 2, &[0; 8][..if version < 9 { 8 } else { 6 }]);
        wire.broker(&done);
        wire.client(&request(ApiKey::Heartbeat, 0, 4, b"x"));
        wire.broker(&answer(ApiKey::Heartbeat, 0, 4, b"\0\0"));
        let told = wire.told();
        assert!(!told.iter().any(|line| line.contains("Opaque")), "v{version}: {told:?}");
    }
}
