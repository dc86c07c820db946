//! Frameworks that write headers of their own; hand-made from the sources named.

use super::*;

/// Ids of a record with these headers.
fn of(headers: &[(&str, &str)]) -> Vec<String> {
    of_topic("orders", headers)
}

fn of_topic(topic: &str, headers: &[(&str, &str)]) -> Vec<String> {
    let headers: Headers<'_> = headers.iter().map(|(name, value)| text(name, value)).collect();
    ids(&Content::of_record(topic.as_bytes(), Some(b"k"), &headers, None))
}

fn of_bytes(headers: &[(&str, &[u8])]) -> Vec<String> {
    let headers: Headers<'_> =
        headers.iter().map(|(name, value)| (name.as_bytes(), Value::Bytes(value))).collect();
    ids(&Content::of_record(b"orders", None, &headers, None))
}

#[test]
fn cloudevents_of_kafka() {
    // cloudevents/spec@c2845a4, kafka-protocol-binding.md
    let headers = [
        ("ce_specversion", "1.0"),
        ("ce_id", "e-1"),
        ("ce_type", "car.ordered"),
        ("ce_source", "/shop"),
        ("ce_time", "2026-07-14T12:00:03.114Z"),
        ("ce_correlationid", "t-1"),
        ("ce_causationid", "c-1"),
        ("ce_traceparent", TRACE),
        ("content-type", "application/json"),
    ];
    let expected = [
        "event=e-1 header:ce_id",
        "type=car.ordered header:ce_type",
        "transaction=t-1 header:ce_correlationid",
        "causation=c-1 header:ce_causationid",
        "trace=038aa89be6043402149c6f682549c784 header:ce_traceparent",
        "span=af1c4753a1555474 header:ce_traceparent",
    ];
    assert_eq!(of(&headers), expected);
    // The hop's own traceparent stands before.
    let hop = "00-038aa89be6043402149c6f682549c784-00000000000000aa-01";
    let with_hop: Vec<_> = headers.into_iter().chain([("traceparent", hop)]).collect();
    assert_eq!(of(&with_hop)[5], "span=00000000000000aa header:traceparent");
}

#[test]
fn of_a_repeated_header_the_last_counts_on_kafka() {
    assert_eq!(of(&[("ce_id", "first"), ("ce_id", "last")]), ["event=last header:ce_id"]);
    assert_eq!(
        of(&[("event-id", "first"), ("eventId", "second"), ("event-id", "last")]),
        ["event=last header:event-id"]
    );
    assert_eq!(
        of(&[("CE_ID", "loud"), ("ce_id", "exact"), ("Ce_Id", "loud")]),
        ["event=exact header:ce_id"]
    );
}

#[test]
fn axons_cloudevents_have_flow_and_cause_the_other_way_round() {
    // AxonFramework/extension-kafka@cd6721b CloudEventKafkaMessageConverter
    assert_eq!(
        of(&[
            ("ce_id", "e-1"),
            ("ce_source", "https://www.axoniq.io/"),
            ("ce_correlationid", "c-1"),
            ("ce_traceid", "t-1"),
        ]),
        [
            "event=e-1 header:ce_id",
            "transaction=t-1 header:ce_traceid",
            "causation=c-1 header:ce_correlationid"
        ]
    );
}

#[test]
fn a_cloudevents_traceid_is_what_its_shape_says() {
    // Dapr writes a traceparent, Wolverine its correlation id: a GUID, or the id of the trace.
    assert_eq!(
        of(&[("ce_traceid", TRACE)]),
        [
            "trace=038aa89be6043402149c6f682549c784 header:ce_traceid",
            "span=af1c4753a1555474 header:ce_traceid"
        ]
    );
    assert_eq!(of(&[("ce_traceid", UUID)]), [format!("transaction={UUID} header:ce_traceid")]);
    assert_eq!(of(&[("ce_traceid", "038aa89be6043402149c6f682549c784")]), Vec::<String>::new());
}

#[test]
fn nservicebus() {
    // Particular/NServiceBus@1d53488 Headers.cs
    let headers = |intent| {
        [
            ("NServiceBus.MessageId", UUID),
            ("NServiceBus.CorrelationId", "not-this"),
            ("NServiceBus.ConversationId", "conv-1"),
            ("NServiceBus.RelatedTo", "cause-1"),
            ("NServiceBus.MessageIntent", intent),
            (
                "NServiceBus.EnclosedMessageTypes",
                "Shop.Batch`1[[Shop.Order, Shop]], Shop, Version=1.0.0.0;Shop.IOrder, Shop",
            ),
            ("NServiceBus.TimeSent", "2026-07-14 12:00:03:114000 Z"),
        ]
    };
    let event = [
        format!("event={UUID} header:NServiceBus.MessageId"),
        "type=Shop.Batch`1[[Shop.Order, Shop]] header:NServiceBus.EnclosedMessageTypes".to_owned(),
        "transaction=conv-1 header:NServiceBus.ConversationId".to_owned(),
        "causation=cause-1 header:NServiceBus.RelatedTo".to_owned(),
    ];
    assert_eq!(of(&headers("Publish")), event);
    let command = of(&headers("Send"));
    assert_eq!(command[..4], event);
    assert_eq!(
        command[4..],
        [
            "command=Shop.Batch`1[[Shop.Order, Shop]] header:NServiceBus.EnclosedMessageTypes"
                .to_owned(),
            format!("command_id={UUID} header:NServiceBus.MessageId")
        ]
    );
}

#[test]
fn masstransit_on_kafka_and_its_raw_json() {
    // MassTransit/MassTransit@c1e5caa DictionaryHeadersSerialize.cs: texts as they are, others JSON
    let headers = [
        ("MessageId", UUID),
        ("ConversationId", "conv-1"),
        ("CorrelationId", "order-1"),
        ("InitiatorId", "init-1"),
        ("SourceAddress", "loopback://localhost/"),
        ("MT-Activity-Id", TRACE),
    ];
    let expected = [
        format!("event={UUID} header:MessageId"),
        "transaction=conv-1 header:ConversationId".to_owned(),
        "causation=init-1 header:InitiatorId".to_owned(),
        "trace=038aa89be6043402149c6f682549c784 header:MT-Activity-Id".to_owned(),
        "span=af1c4753a1555474 header:MT-Activity-Id".to_owned(),
    ];
    assert_eq!(of(&headers), expected);
    let quoted = format!("\"{UUID}\"");
    assert_eq!(of(&[("MessageId", &quoted)]), [format!("event={UUID} header:MessageId")]);
    // RawMessageSerializer.cs
    assert_eq!(
        of(&[
            ("MT-MessageType", "urn:message:Shop:OrderPlaced;urn:message:Shop:IOrder"),
            ("MT-InitiatorId", "init-1"),
        ]),
        [
            "type=urn:message:Shop:OrderPlaced header:MT-MessageType",
            "causation=init-1 header:MT-InitiatorId"
        ]
    );
}

#[test]
fn rebus_and_cap() {
    // rebus-org/Rebus@30f9db9 Headers.cs
    assert_eq!(
        of(&[
            ("rbs2-msg-id", "m-1"),
            ("rbs2-msg-type", "Shop.OrderPlaced, Shop"),
            ("rbs2-corr-id", "t-1"),
            ("rbs2-corr-seq", "1"),
            ("rbs2-in-reply-to", "c-1"),
            ("rbs2-intent", "p2p"),
        ]),
        [
            "event=m-1 header:rbs2-msg-id",
            "type=Shop.OrderPlaced header:rbs2-msg-type",
            "transaction=t-1 header:rbs2-corr-id",
            "causation=c-1 header:rbs2-in-reply-to"
        ]
    );
    // dotnetcore/CAP@e52b850 Headers.cs: an answer's correlation id is what it answers
    let cap = |depth| {
        of(&[
            ("cap-msg-id", "5463281745289216"),
            ("cap-msg-name", "order.placed"),
            ("cap-msg-type", "String"),
            ("cap-corr-id", "5463281745289000"),
            ("cap-corr-seq", depth),
        ])
    };
    assert_eq!(
        cap("0"),
        [
            "event=5463281745289216 header:cap-msg-id",
            "type=order.placed header:cap-msg-name",
            "transaction=5463281745289000 header:cap-corr-id"
        ]
    );
    assert_eq!(cap("1")[2], "causation=5463281745289000 header:cap-corr-id");
}

#[test]
fn axon_4_and_5() {
    // AxonFramework@0604fea (4) and @8d5c40e (5) MessageOriginProvider.java
    let base = [("axon-message-id", "e-1"), ("axon-message-type", "shop.OrderPlaced")];
    let with =
        |more: &[(&'static str, &'static str)]| of(&[&base[..], more].concat())[2..].to_vec();
    assert_eq!(
        with(&[("axon-metadata-correlationId", "x"), ("axon-metadata-traceId", "y")]),
        [
            "transaction=y header:axon-metadata-traceId",
            "causation=x header:axon-metadata-correlationId"
        ]
    );
    assert_eq!(
        with(&[("axon-metadata-correlationId", "x"), ("axon-metadata-causationId", "y")]),
        [
            "transaction=x header:axon-metadata-correlationId",
            "causation=y header:axon-metadata-causationId"
        ]
    );
    // The timestamp is 8 bytes on Kafka and no id of anything.
    let millis = 1_795_262_624_663_i64.to_be_bytes();
    assert_eq!(
        of_bytes(&[("axon-message-id", b"e-1"), ("axon-message-timestamp", &millis)]),
        ["event=e-1 header:axon-message-id"]
    );
}

#[test]
fn wolverine_and_brighter() {
    // JasperFx/wolverine@a4b6f5b KafkaEnvelopeMapper.cs
    assert_eq!(
        of(&[
            ("wolverine-protocol-version", "1.0"),
            ("id", "not-a-uuid-but-wolverines"),
            ("message-type", "OrderPlaced"),
            ("conversation-id", "conv-1"),
            ("correlation-id", "038aa89be6043402149c6f682549c784"),
            ("causation-id", "c-1"),
            ("parent-id", TRACE),
            ("sent-at", "2026-07-14 12:00:03:114000 Z"),
            ("source", "shop"),
            ("attempts", "1"),
        ]),
        [
            "event=not-a-uuid-but-wolverines header:id",
            "type=OrderPlaced header:message-type",
            "transaction=conv-1 header:conversation-id",
            "causation=c-1 header:causation-id",
            "trace=038aa89be6043402149c6f682549c784 header:parent-id",
            "span=af1c4753a1555474 header:parent-id",
        ]
    );
    // BrighterCommand/Brighter@4032a06 KafkaDefaultMessageHeaderBuilder.cs
    let brighter = |intent, event_type| {
        of(&[
            ("MessageType", intent),
            ("MessageId", "m-1"),
            ("CorrelationId", "t-1"),
            ("Topic", "orders"),
            ("ce_id", "m-1"),
            ("ce_type", event_type),
            ("ce_source", "http://goparamore.io"),
        ])
    };
    let expected = [
        "event=m-1 header:ce_id",
        "type=PlaceOrder header:ce_type",
        "transaction=t-1 header:CorrelationId",
    ];
    assert_eq!(brighter("MT_EVENT", "PlaceOrder"), expected);
    let command = brighter("MT_COMMAND", "PlaceOrder");
    assert_eq!(command[..3], expected);
    assert_eq!(command[3..], ["command=PlaceOrder header:ce_type", "command_id=m-1 header:ce_id"]);
    // What stands there when nobody named the event.
    assert_eq!(brighter("MT_EVENT", "goparamore.io.Paramore.Brighter.Message").len(), 2);
}

#[test]
fn watermill_kurrentdb_and_others_with_one_or_two_names() {
    // ThreeDotsLabs/watermill-kafka@8bccba2 marshaler.go
    assert_eq!(
        of(&[
            ("_watermill_message_uuid", "u-1"),
            ("name", "shop.OrderPlaced"),
            ("correlation_id", "t-1"),
            ("reason_poisoned", "boom"),
        ]),
        [
            "event=u-1 header:_watermill_message_uuid",
            "type=shop.OrderPlaced header:name",
            "transaction=t-1 header:correlation_id"
        ]
    );
    assert_eq!(of(&[("name", "somebody")]), Vec::<String>::new());
    // EventStore/EventStore@3f1acb7
    assert_eq!(
        of(&[("$correlationId", "t-1"), ("$causationId", "c-1")]),
        ["transaction=t-1 header:$correlationId", "causation=c-1 header:$causationId"]
    );
    // php-enqueue/enqueue-dev@f5759ec Config.php
    assert_eq!(
        of(&[("enqueue.topic", "order_placed")]),
        ["type=order_placed header:enqueue.topic"]
    );
    assert_eq!(
        of(&[("enqueue.command", "place_order")]),
        ["type=place_order header:enqueue.command", "command=place_order header:enqueue.command"]
    );
    // micro/plugins@be3f35c; PyPI taskiq-aio-pika 0.6.1; apache/camel
    assert_eq!(of(&[("Micro-Topic", "orders.placed")]), ["type=orders.placed header:Micro-Topic"]);
    assert_eq!(
        of(&[("task_id", "t-1"), ("task_name", "shop.tk")]),
        [
            "event=t-1 header:task_id",
            "type=shop.tk header:task_name",
            "command=shop.tk header:task_name",
            "command_id=t-1 header:task_id"
        ]
    );
    assert_eq!(of(&[("breadcrumbId", "b-1")]), ["transaction=b-1 header:breadcrumbId"]);
    // PyPI faststream 0.7.8 kafka/response.py
    assert_eq!(
        of(&[("correlation_id", "t-1"), ("content-type", "application/json")]),
        ["transaction=t-1 header:correlation_id"]
    );
}

// --- requests and replies

#[test]
fn requests_of_spring_carry_sixteen_bytes_or_text() {
    // spring-projects/spring-kafka@3f3cf7d ReplyingKafkaTemplate, CorrelationKey
    let key = *uuid::Uuid::parse_str(UUID).unwrap().as_bytes();
    let expected = [format!("event={UUID} header:kafka_correlationId")];
    assert_eq!(
        of_bytes(&[
            ("kafka_correlationId", &key),
            ("kafka_replyTopic", b"orders-replies"),
            ("kafka_replyPartition", &[0, 0, 0, 2]),
        ]),
        expected
    );
    assert_eq!(of(&[("kafka_correlationId", UUID), ("kafka_replyTopic", "r")]), expected);
    // The reply names the request.
    let expected = [format!("causation={UUID} header:kafka_correlationId")];
    assert_eq!(of_bytes(&[("kafka_correlationId", &key)]), expected);
    assert_eq!(of_bytes(&[("kafka_correlationId", &[0; 16])]), Vec::<String>::new());
    assert_eq!(of_bytes(&[("kafka_correlationId", &[0xff; 15])]), Vec::<String>::new());
}

#[test]
fn requests_of_nestjs_and_faust() {
    // npm @nestjs/microservices 12.1.1 client-kafka.js, server-kafka.js
    assert_eq!(
        of(&[
            ("kafka_correlationId", "7f085c1857ad20236da1c"),
            ("kafka_replyTopic", "orders.reply"),
            ("kafka_replyPartition", "0"),
        ]),
        ["event=7f085c1857ad20236da1c header:kafka_correlationId"]
    );
    assert_eq!(
        of(&[("kafka_correlationId", "7f085c1857ad20236da1c"), ("kafka_nest-is-disposed", "\0")]),
        ["causation=7f085c1857ad20236da1c header:kafka_correlationId"]
    );
    // faust-streaming/faust@181b184 agent.py
    assert_eq!(
        of(&[("Faust-Ag-ReplyTo", "replies"), ("Faust-Ag-CorrelationId", "c-1")]),
        ["event=c-1 header:Faust-Ag-CorrelationId"]
    );
}

// --- Spring and Connect

#[test]
fn springs_own_class_names_a_message_that_says_nothing_better() {
    let headers = [("__TypeId__", "shop.OrderPlaced")];
    assert_eq!(of(&headers), ["type=shop.OrderPlaced header:__TypeId__"]);
    assert_eq!(
        of(&[("__TypeId__", "shop.Dto"), ("eventType", "OrderPlaced")]),
        ["type=OrderPlaced header:eventType"]
    );
}

#[test]
fn texts_that_were_written_as_json_are_read_as_such() {
    // spring-kafka JsonKafkaHeaderMapper with encodeStrings; a Connect JsonConverter for headers
    for value in [
        r#""e-1""#,
        r#""e\u002d1""#,
        r#"{"schema":{"type":"string","optional":false},"payload":"e-1"}"#,
    ] {
        assert_eq!(of(&[("event-id", value)]), ["event=e-1 header:event-id"], "{value}");
    }
    let number = r#"{"schema":{"type":"int64"},"payload":104242}"#;
    assert_eq!(of(&[("event-id", number)]), ["event=104242 header:event-id"]);
    for value in
        [r#""""#, r#""null""#, "\"", r#""a"b""#, r#"{"schema":1,"payload":{}}"#, r#"{"schema""#]
    {
        let found = of(&[("event-id", value)]);
        assert!(found.is_empty() || found == [format!("event={value} header:event-id")], "{value}");
    }
}

#[test]
fn marks_of_retries_and_dead_letters_are_no_ids() {
    // spring-kafka, spring-cloud-stream, SmallRye, Karafka, Kafka Connect, Watermill, Wolverine
    let offset = 1042_i64.to_be_bytes();
    let backoff = [1, 162, 3, 4, 5, 6];
    assert_eq!(
        of_bytes(&[
            ("kafka_dlt-original-topic", b"orders"),
            ("kafka_dlt-original-partition", &[0, 0, 0, 7]),
            ("kafka_dlt-original-offset", &offset),
            ("kafka_dlt-exception-fqcn", b"java.lang.IllegalStateException"),
            ("kafka_original-topic", b"orders"),
            ("retry_topic-attempts", &[0, 0, 0, 2]),
            ("retry_topic-backoff-timestamp", &backoff),
            ("x-original-topic", b"orders"),
            ("x-original-offset", &offset),
            ("dead-letter-topic", b"orders"),
            ("dead-letter-offset", b"1042"),
            ("delayed-retry-count", b"2"),
            ("source_topic", b"orders"),
            ("source_trace_id", UUID.as_bytes()),
            ("source_offset", b"1042"),
            ("__connect.errors.topic", b"orders"),
            ("__connect.errors.offset", b"1042"),
            ("topic_poisoned", b"orders"),
            ("wolverine-kafka-retry-source", b"orders"),
            ("spring_json_header_types", br#"{"id":"java.util.UUID"}"#),
            ("__value_schema_id", &[1; 17]),
        ]),
        Vec::<String>::new()
    );
}

#[test]
fn debeziums_outbox_by_its_topic_or_by_what_it_was_told_to_add() {
    // debezium/debezium@aad5519 EventRouterDelegate.java
    let routed = |headers: &[(&str, &str)]| of_topic("outbox.event.order", headers);
    assert_eq!(
        routed(&[("id", UUID), ("eventType", "OrderPlaced")]),
        [format!("event={UUID} header:id"), "type=OrderPlaced header:eventType".to_owned()]
    );
    // Any shape of id: a number, a UUID in JSON, its bytes in base64.
    assert_eq!(routed(&[("id", "42")]), ["event=42 header:id"]);
    let quoted = format!("\"{UUID}\"");
    let base64 = STANDARD.encode(uuid::Uuid::parse_str(UUID).unwrap());
    let wrapped = format!(r#"{{"schema":{{"type":"string"}},"payload":"{UUID}"}}"#);
    for id in [quoted, base64, wrapped] {
        assert_eq!(routed(&[("id", &id)]), [format!("event={UUID} header:id")], "{id}");
    }
    assert_eq!(
        routed(&[("id", "42"), ("type", "OrderPlaced")]),
        ["event=42 header:id", "type=OrderPlaced header:type"]
    );
    // Routed elsewhere.
    assert_eq!(of(&[("id", "104242"), ("aggregateType", "order")]), ["event=104242 header:id"]);
    assert_eq!(of(&[("id", "7"), ("aggregateType", "order")]), Vec::<String>::new());
    assert_eq!(of(&[("id", "104242")]), Vec::<String>::new(), "anything has an id");
    assert_eq!(of(&[("id", UUID)]), [format!("event={UUID} header:id")]);
}
