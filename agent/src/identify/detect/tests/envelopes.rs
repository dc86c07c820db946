//! Frameworks that wrap a message in JSON; hand-made from the sources named.

use super::*;

fn of(body: &str) -> Vec<String> {
    ids(&Content::of_record(b"orders", None, &[], Some(body.as_bytes())))
}

#[test]
fn cloudevents_in_a_record_and_daprs() {
    // cloudevents/spec@c2845a4; dapr/components-contrib@c23900d envelope.go: no content type, a
    // traceparent in `traceid`, and a type that says nothing
    let body = format!(
        r#"{{"specversion":"1.0","id":"e-1","source":"shop","type":"com.dapr.event.sent",
            "topic":"orders","pubsubname":"kafka","traceid":"{TRACE}","data":{{}}}}"#
    );
    assert_eq!(
        of(&body),
        [
            "event=e-1 body:/id",
            "trace=038aa89be6043402149c6f682549c784 body:/traceid",
            "span=af1c4753a1555474 body:/traceid"
        ]
    );
    let headers = vec![text("content-type", "application/cloudevents+json; charset=UTF-8")];
    let body = br#"{"id":"e-1","type":"car.ordered"}"#;
    assert_eq!(
        ids(&Content::of_record(b"orders", None, &headers, Some(body))),
        ["event=e-1 body:/id", "type=car.ordered body:/type"]
    );
}

#[test]
fn bodies_behind_the_number_of_their_schema() {
    // confluentinc/schema-registry@794611b, apicurio-registry@b40e017, aws-glue-schema-registry@eed1506
    let body = br#"{"specversion":"1.0","id":"e-1","source":"s","type":"t"}"#;
    let glue = [&[3, 0][..], &[7; 16]].concat();
    let guid = [&[1][..], &[7; 16]].concat();
    for prefix in [&[0, 0, 0, 0, 42][..], &[0, 0, 0, 0, 0, 0, 0, 0, 42], &guid, &glue] {
        let value = [prefix, body].concat();
        let content = Content::of_record(b"orders", None, &[], Some(&value));
        assert_eq!(ids(&content), ["event=e-1 body:/id", "type=t body:/type"], "{prefix:?}");
    }
    let value = [&[0, 0, 0, 0][..], body].concat();
    assert!(ids(&Content::of_record(b"orders", None, &[], Some(&value))).is_empty());
}

#[test]
fn masstransits_envelope() {
    // MassTransit/MassTransit@c1e5caa JsonMessageEnvelope.cs
    let body = format!(
        r#"{{"messageId":"{UUID}","conversationId":"conv-1","correlationId":"order-1",
            "initiatorId":"init-1","messageType":["urn:message:Shop:OrderPlaced","urn:x"],
            "headers":{{"MT-Activity-Id":"{TRACE}"}},"message":{{}}}}"#
    );
    let expected = [
        format!("event={UUID} body:/messageId"),
        "type=urn:message:Shop:OrderPlaced body:/messageType/0".to_owned(),
        "transaction=conv-1 body:/conversationId".to_owned(),
        "causation=init-1 body:/initiatorId".to_owned(),
        "trace=038aa89be6043402149c6f682549c784 body:/headers/MT-Activity-Id".to_owned(),
        "span=af1c4753a1555474 body:/headers/MT-Activity-Id".to_owned(),
    ];
    assert_eq!(ids_of_body("application/vnd.masstransit+json", &body), expected);
    assert_eq!(ids_of_body("application/json", &body), Vec::<String>::new());
}

#[test]
fn eventuate() {
    // eventuate-tram/eventuate-tram-core@b50d8e7: nothing stands in the broker's headers
    let wrap =
        |headers: &str| format!(r#"{{"payload":"{{\"orderId\":7}}","headers":{{{headers}}}}}"#);
    assert_eq!(
        of(&wrap(r#""ID":"m-1","PARTITION_ID":"7","DATE":"x","event-type":"shop.OrderPlaced""#)),
        ["event=m-1 body:/headers/ID", "type=shop.OrderPlaced body:/headers/event-type"]
    );
    assert_eq!(
        of(&wrap(r#""ID":"m-1","command_type":"shop.Pay","command_reply_to":"replies""#)),
        [
            "event=m-1 body:/headers/ID",
            "type=shop.Pay body:/headers/command_type",
            "command=shop.Pay body:/headers/command_type",
            "command_id=m-1 body:/headers/ID"
        ]
    );
    assert_eq!(
        of(&wrap(r#""ID":"m-2","reply_to_message_id":"m-1","reply_type":"shop.Paid""#)),
        [
            "event=m-2 body:/headers/ID",
            "type=shop.Paid body:/headers/reply_type",
            "causation=m-1 body:/headers/reply_to_message_id"
        ]
    );
    assert_eq!(of(r#"{"headers":{"ID":"m-1"}}"#), Vec::<String>::new());
}

#[test]
fn celery_over_kafka() {
    // celery/celery@5dc781f, celery/kombu@9ee8595 transport/confluentkafka.py
    let body = format!(
        r#"{{"body":"W1sxXSx7fSx7fV0=","content-encoding":"utf-8","content-type":"application/json",
            "headers":{{"lang":"py","task":"shop.place_order","id":"{UUID}","root_id":"root-1",
            "parent_id":"parent-1","retries":0}},
            "properties":{{"correlation_id":"{UUID}","delivery_tag":"d-1","body_encoding":"base64"}}}}"#
    );
    assert_eq!(
        of(&body),
        [
            format!("event={UUID} body:/headers/id"),
            "type=shop.place_order body:/headers/task".to_owned(),
            "transaction=root-1 body:/headers/root_id".to_owned(),
            "causation=parent-1 body:/headers/parent_id".to_owned(),
            "command=shop.place_order body:/headers/task".to_owned(),
            format!("command_id={UUID} body:/headers/id"),
        ]
    );
}

#[test]
fn enqueue_over_kafka() {
    // php-enqueue/enqueue-dev@f5759ec rdkafka JsonSerializer.php
    let wrap = |reply_to: &str| {
        format!(
            r#"{{"body":"{{}}","properties":{{"enqueue.topic":"order_placed"}},
                "headers":{{"message_id":"m-1","correlation_id":"t-1"{reply_to}}}}}"#
        )
    };
    let expected = [
        "event=m-1 body:/headers/message_id",
        "type=order_placed body:/properties/enqueue.topic",
        "transaction=t-1 body:/headers/correlation_id",
    ];
    assert_eq!(of(&wrap("")), expected);
    assert_eq!(of(&wrap(r#","reply_to":"replies""#)), expected[..2]);
    assert_eq!(
        of(r#"{"properties":{"enqueue.command":"place_order"}}"#),
        [
            "type=place_order body:/properties/enqueue.command",
            "command=place_order body:/properties/enqueue.command"
        ]
    );
}

#[test]
fn moleculer_and_dramatiq() {
    // npm moleculer 0.15, captured
    let packet = |what: &str| {
        format!(
            r#"{{"id":"{UUID}",{what}"params":{{}},"level":1,"parentID":"p-1","requestID":"r-1",
                "caller":null,"ver":"4","sender":"a"}}"#
        )
    };
    let request = of(&packet(r#""action":"pay.do","#));
    assert_eq!(
        request[..4],
        [
            format!("event={UUID} body:/id"),
            "type=pay.do body:/action".to_owned(),
            "transaction=r-1 body:/requestID".to_owned(),
            "causation=p-1 body:/parentID".to_owned()
        ]
    );
    assert_eq!(request[4], "command=pay.do body:/action");
    assert_eq!(of(&packet(r#""event":"paid","#))[1], "type=paid body:/event");
    assert_eq!(of(&packet("")), Vec::<String>::new(), "a heartbeat");
    // PyPI dramatiq 2.2.1, captured
    assert_eq!(
        of(r#"{"queue_name":"default","actor_name":"pay","args":[],"kwargs":{},"options":{},
            "message_id":"m-1","message_timestamp":1795262624663}"#),
        [
            "event=m-1 body:/message_id",
            "type=pay body:/actor_name",
            "command=pay body:/actor_name",
            "command_id=m-1 body:/message_id"
        ]
    );
}

#[test]
fn event_stores_of_ruby_and_kurrentdb() {
    // RailsEventStore/rails_event_store@ece8f31
    assert_eq!(
        of(r#"{"event_id":"e-1","event_type":"OrderPlaced","data":{},
            "metadata":{"timestamp":"x","correlation_id":"t-1","causation_id":"c-1"}}"#),
        [
            "event=e-1 body:/event_id",
            "type=OrderPlaced body:/event_type",
            "transaction=t-1 body:/metadata/correlation_id",
            "causation=c-1 body:/metadata/causation_id"
        ]
    );
    assert_eq!(of(r#"{"event_id":"e-1","event_type":"x"}"#), Vec::<String>::new());
    // eventide-project/messaging@82ae099
    assert_eq!(
        of(r#"{"id":"e-1","type":"Placed","data":{},"metadata":{"correlationStreamName":"flow-1",
            "causationMessageStreamName":"account:command-7","causationMessagePosition":3}}"#),
        [
            "event=e-1 body:/id",
            "type=Placed body:/type",
            "transaction=flow-1 body:/metadata/correlationStreamName",
            "causation=account:command-7/3 body:/metadata/causationMessageStreamName"
        ]
    );
    // EventStore/EventStore@3f1acb7
    assert_eq!(
        of(r#"{"data":{},"metadata":{"$correlationId":"t-1","$causationId":"c-1"}}"#),
        [
            "transaction=t-1 body:/metadata/$correlationId",
            "causation=c-1 body:/metadata/$causationId"
        ]
    );
}

#[test]
fn watermills_forwarder_go_micro_and_faust() {
    // ThreeDotsLabs/watermill@c9b951f components/forwarder
    assert_eq!(
        of(r#"{"destination_topic":"orders","uuid":"u-1","payload":"e30=",
            "metadata":{"name":"OrderPlaced","correlation_id":"t-1"}}"#),
        [
            "event=u-1 body:/uuid",
            "type=OrderPlaced body:/metadata/name",
            "transaction=t-1 body:/metadata/correlation_id"
        ]
    );
    // micro/plugins@be3f35c v4/broker/kafka; faust-streaming/faust@181b184 models/base.py
    assert_eq!(
        of(r#"{"Header":{"Micro-Topic":"orders.placed"},"Body":"e30="}"#),
        ["type=orders.placed body:/Header/Micro-Topic"]
    );
    assert_eq!(
        of(r#"{"amount":1,"__faust":{"ns":"shop.Order"}}"#),
        ["type=shop.Order body:/__faust/ns"]
    );
}

#[test]
fn debeziums_change_events_have_a_type_and_no_transaction() {
    // debezium/debezium@aad5519 AbstractSourceInfo.java, TransactionStructMaker.java
    let change = r#"{"before":null,"after":{"x":1},"op":"c","ts_ms":1795262624663,
        "source":{"connector":"postgresql","name":"shop","db":"shop","schema":"public",
        "table":"orders","txId":571,"lsn":53195829},"transaction":{"id":"571:53195829"}}"#;
    assert_eq!(of(change), ["type=public.orders.c body:/source/table"]);
    let wrapped = format!(r#"{{"schema":{{}},"payload":{change}}}"#);
    assert_eq!(of(&wrapped), ["type=public.orders.c body:/payload/source/table"]);
    let mysql = change.replace(r#""schema":"public","#, "");
    assert_eq!(of(&mysql), ["type=shop.orders.c body:/source/table"]);
}

#[test]
fn what_is_redacted_in_an_envelope_gives_no_id() {
    use crate::identify::{RecordSpec, Redact};
    let record =
        RecordSpec { redact: vec![Redact::parse("/headers/ID").unwrap()], ..RecordSpec::default() };
    let body = br#"{"payload":"{}","headers":{"ID":"m-1","event-type":"x"}}"#;
    let content = Content::of_record(b"orders", None, &[], Some(body));
    let identified = Identifier::new(&[], &record).unwrap().identify(&content);
    assert!(identified.ids().event_id.is_none());
}
