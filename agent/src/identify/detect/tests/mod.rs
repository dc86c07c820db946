//! One test a convention. Fixtures are hand-made from the sources named beside them, or captured
//! from the libraries named.

mod envelopes;
mod frameworks;
mod traces;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::identify::{Content, Identifier};
use flowtap_record::Value;

type Headers<'a> = Vec<(&'a [u8], Value<'a>)>;

fn text<'a>(name: &'a str, value: &'a str) -> (&'a [u8], Value<'a>) {
    (name.as_bytes(), Value::Bytes(value.as_bytes()))
}

/// Every id as `column=value from`.
fn ids(content: &Content<'_>) -> Vec<String> {
    let identified = Identifier::default().identify(content);
    let ids = identified.ids();
    [
        ("event", ids.event_id),
        ("type", ids.event_type),
        ("transaction", ids.transaction_id),
        ("causation", ids.causation_id),
        ("command", ids.command),
        ("command_id", ids.command_id),
        ("trace", ids.trace_id),
        ("span", ids.span_id),
    ]
    .into_iter()
    .filter_map(|(column, id)| id.map(|id| format!("{column}={} {}", id.value, id.from)))
    .collect()
}

fn ids_of_headers(headers: &Headers<'_>) -> Vec<String> {
    ids(&Content { headers, ..Content::default() })
}

fn ids_of_body(content_type: &str, body: &str) -> Vec<String> {
    ids(&Content {
        content_type: Some(content_type.as_bytes()),
        body: Some(body.as_bytes()),
        ..Content::default()
    })
}

const TRACE: &str = "00-038aa89be6043402149c6f682549c784-af1c4753a1555474-03";
const UUID: &str = "7e57d004-2b97-4e7a-b45f-5387367791cd";

// --- AMQP properties

#[test]
fn properties_give_event_type_and_transaction() {
    let content = Content {
        message_id: Some(b"m-1"),
        message_type: Some(b"OrderPlaced"),
        correlation_id: Some(b"flow-1"),
        ..Content::default()
    };
    assert_eq!(
        ids(&content),
        [
            "event=m-1 property:message_id",
            "type=OrderPlaced property:type",
            "transaction=flow-1 property:correlation_id"
        ]
    );
}

#[test]
fn a_correlation_id_that_is_the_messages_own_or_waits_for_a_reply_is_no_transaction() {
    let base = Content {
        message_id: Some(b"m-1"),
        correlation_id: Some(b"c-1"),
        routing_key: b"q",
        ..Content::default()
    };
    let transaction =
        |content: &Content<'_>| ids(content).iter().any(|id| id.starts_with("transaction"));
    assert!(transaction(&base));
    assert!(transaction(&Content { reply_to: Some(b""), ..base.clone() }));
    assert!(!transaction(&Content { correlation_id: Some(b"m-1"), ..base.clone() }));
    assert!(!transaction(&Content { reply_to: Some(b"amq.gen-x"), ..base.clone() }));
    assert!(!transaction(&Content {
        routing_key: b"amq.rabbitmq.reply-to.g1h2AA",
        ..base.clone()
    }));
    assert!(!transaction(&Content { routing_key: b"amq.gen-JzTY20", ..base.clone() }));
    // The event id came from a header, and the correlation id repeats it.
    let headers = vec![text("event-id", "c-1")];
    assert!(!transaction(&Content { headers: &headers, ..base }));
}

#[test]
fn a_media_type_is_no_event_type() {
    // hand-made from BrighterCommand/Brighter@4032a06: bp.type is the body's media type
    let content = Content { message_type: Some(b"application/json"), ..Content::default() };
    assert_eq!(ids(&content), Vec::<String>::new());
    let content = Content { message_type: Some(b"orders/placed"), ..Content::default() };
    assert_eq!(ids(&content), ["type=orders/placed property:type"]);
}

#[test]
fn properties_that_are_no_ids_are_passed_over() {
    let long = [b'x'; 600];
    for value in [b"".as_slice(), b"null", b"\xff\xfe", b"a\0b", &long] {
        let content = Content {
            message_id: Some(value),
            message_type: Some(value),
            correlation_id: Some(value),
            ..Content::default()
        };
        assert_eq!(ids(&content), Vec::<String>::new(), "{value:?}");
    }
}

// --- clients as captured

#[test]
fn celery_as_captured() {
    // celery 5.7.0, protocol 2
    let headers = vec![
        text("lang", "py"),
        text("task", "shop.place_order"),
        text("id", UUID),
        (b"eta".as_slice(), Value::Void),
        (b"retries".as_slice(), Value::Int(0)),
        (b"timelimit".as_slice(), Value::Array(vec![Value::Void, Value::Void])),
        text("root_id", UUID),
        (b"parent_id".as_slice(), Value::Void),
        text("argsrepr", "(1,)"),
        (b"ignore_result".as_slice(), Value::Bool(false)),
        (b"stamps".as_slice(), Value::Table(vec![])),
    ];
    let content = Content {
        routing_key: b"q",
        content_type: Some(b"application/json"),
        content_encoding: Some(b"utf-8"),
        correlation_id: Some(UUID.as_bytes()),
        reply_to: Some(b"5a1d7a9e-0000-4000-8000-000000000001"),
        headers: &headers,
        body: Some(br#"[[1],{}, {"callbacks":null,"errbacks":null,"chain":null,"chord":null}]"#),
        ..Content::default()
    };
    assert_eq!(ids(&content), [format!("event={UUID} header:id")]);
}

#[test]
fn faststream_as_captured() {
    // faststream 0.7.8: a reply of @publisher inherits the correlation id
    let content = Content {
        correlation_id: Some(b"FLOW-1"),
        message_id: Some(b"0f8fad5bd9cb469fa16570867728950e"),
        app_id: Some(b"faststream-0.7.8"),
        ..Content::default()
    };
    assert_eq!(
        ids(&content),
        [
            "event=0f8fad5bd9cb469fa16570867728950e property:message_id",
            "transaction=FLOW-1 property:correlation_id"
        ]
    );
}

#[test]
fn a_nestjs_request_gives_no_transaction() {
    // @nestjs/microservices 12.1.1: correlation_id = body.id, reply_to set
    let content = Content {
        correlation_id: Some(b"7f085c1857ad20236da1c"),
        reply_to: Some(b"amq.rabbitmq.reply-to.g1h2"),
        body: Some(br#"{"pattern":{"cmd":"place"},"data":{},"id":"7f085c1857ad20236da1c"}"#),
        ..Content::default()
    };
    assert_eq!(ids(&content), Vec::<String>::new());
}

#[test]
fn opentelemetry_and_datadog_as_captured() {
    let trace = [
        "trace=038aa89be6043402149c6f682549c784 header:traceparent",
        "span=af1c4753a1555474 header:traceparent",
    ];
    // opentelemetry-instrumentation-pika: flags 03
    assert_eq!(ids_of_headers(&vec![text("traceparent", TRACE)]), trace);
    // ddtrace 4.16 kombu writes its own headers beside it
    let headers = vec![
        text("x-datadog-trace-id", "10038581944306458416"),
        text("x-datadog-parent-id", "7756690129750912880"),
        text("traceparent", TRACE),
        text("tracestate", "dd=p:6ba54c938894ef70;s:1"),
    ];
    assert_eq!(ids_of_headers(&headers), trace);
}

// --- CloudEvents

#[test]
fn cloudevents_in_headers_with_either_separator() {
    // hand-made from cloudevents/spec@c2845a4
    for prefix in ["cloudEvents:", "cloudEvents_"] {
        let names: Vec<String> = [
            "specversion",
            "id",
            "type",
            "source",
            "time",
            "correlationid",
            "causationid",
            "traceparent",
        ]
        .iter()
        .map(|attribute| format!("{prefix}{attribute}"))
        .collect();
        let values = ["1.0", "e-1", "car.ordered", "/shop", "", "t-1", "c-1", TRACE];
        let mut headers: Headers<'_> =
            names.iter().zip(values).map(|(name, value)| text(name, value)).collect();
        headers[4].1 = Value::Time(1_795_262_624);
        let content = Content {
            message_id: Some(b"other"),
            message_type: Some(b"other"),
            correlation_id: Some(b"other"),
            headers: &headers,
            ..Content::default()
        };
        assert_eq!(
            ids(&content),
            [
                format!("event=e-1 header:{prefix}id"),
                format!("type=car.ordered header:{prefix}type"),
                format!("transaction=t-1 header:{prefix}correlationid"),
                format!("causation=c-1 header:{prefix}causationid"),
                format!("trace=038aa89be6043402149c6f682549c784 header:{prefix}traceparent"),
                format!("span=af1c4753a1555474 header:{prefix}traceparent"),
            ]
        );
    }
}

#[test]
fn exact_spelling_beats_another_case_and_the_first_beats_a_repeat() {
    let headers = vec![
        text("cloudevents:ID", "spelled otherwise"),
        text("cloudEvents:id", "exact"),
        text("cloudEvents:id", "repeated"),
        text("CLOUDEVENTS_TYPE", "loud"),
    ];
    assert_eq!(
        ids_of_headers(&headers),
        ["event=exact header:cloudEvents:id", "type=loud header:CLOUDEVENTS_TYPE"]
    );
}

#[test]
fn the_hops_traceparent_stands_before_the_one_of_the_start() {
    let start = "00-038aa89be6043402149c6f682549c784-00000000000000aa-01";
    let headers = vec![text("cloudEvents:traceparent", start), text("traceparent", TRACE)];
    assert_eq!(ids_of_headers(&headers)[1], "span=af1c4753a1555474 header:traceparent");
    // ... unless it is none.
    let headers = vec![text("cloudEvents:traceparent", start), text("traceparent", "00-x")];
    assert_eq!(ids_of_headers(&headers)[1], "span=00000000000000aa header:cloudEvents:traceparent");
}

#[test]
fn cloudevents_in_a_body_by_content_type_or_by_shape() {
    let body = format!(
        r#"{{"specversion":"1.0","id":"e-1","source":"/shop","type":"car.ordered",
            "correlationid":"t-1","causationid":"c-1","traceparent":"{TRACE}","data":{{"id":7}}}}"#
    );
    let expected = [
        "event=e-1 body:/id",
        "type=car.ordered body:/type",
        "transaction=t-1 body:/correlationid",
        "causation=c-1 body:/causationid",
        "trace=038aa89be6043402149c6f682549c784 body:/traceparent",
        "span=af1c4753a1555474 body:/traceparent",
    ];
    for content_type in [
        "application/cloudevents+json; charset=utf-8",
        "Application/CloudEvents+JSON",
        "application/json",
        // What Dapr says of CloudEvents.
        "text/plain",
    ] {
        assert_eq!(ids_of_body(content_type, &body), expected, "{content_type}");
    }
    assert_eq!(ids_of_body("application/octet-stream", &body), Vec::<String>::new());
    // Declared, an envelope may lack what the specification wants; undeclared, it may not.
    let poor = r#"{"id":"e-1","type":"car.ordered"}"#;
    assert_eq!(ids_of_body("application/cloudevents+json", poor).len(), 2);
    assert_eq!(ids_of_body("application/json", poor), Vec::<String>::new());
}

#[test]
fn a_compressed_body_is_not_read() {
    let content = Content {
        content_type: Some(b"application/cloudevents+json"),
        content_encoding: Some(b"gzip"),
        body: Some(br#"{"id":"e-1"}"#),
        ..Content::default()
    };
    assert_eq!(ids(&content), Vec::<String>::new());
}

// --- names that teams make up

#[test]
fn hand_made_names_in_every_spelling() {
    let table = [
        ("event", "event-id eventid EventId x-event-id message-id messageId MSG_ID uuid"),
        ("type", "event-type eventtype event_type message-type MessageType event-name type schema"),
        (
            "transaction",
            "correlation-id x-correlation-id X-Correlation-ID correlationid correlationId \
             conversation-id ConversationId transaction-id x-transaction-id request-id \
             x-request-id flow-id x-flow-id saga-id process-id",
        ),
        (
            "causation",
            "causation-id causationid causation_id parent-id parent-event-id triggered-by \
             in-reply-to initiator-id InitiatorId",
        ),
        ("command", "command command-name command-type command_type commandName x-command"),
        ("command_id", "command-id command_id commandId"),
    ];
    for (column, names) in table {
        for name in names.split_whitespace() {
            assert_eq!(
                ids_of_headers(&vec![text(name, "value-1")]),
                [format!("{column}=value-1 header:{name}")]
            );
        }
    }
    for name in ["order-id", "x-retries", "event", "transaction.id", "txId", "correlation-id-of-it"]
    {
        assert_eq!(ids_of_headers(&vec![text(name, "value-1")]), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn typed_values_are_ids_as_texts() {
    let id = |value: Value<'_>| ids_of_headers(&vec![(b"correlation-id".as_slice(), value)]);
    assert_eq!(id(Value::Int(104_242)), ["transaction=104242 header:correlation-id"]);
    let none: [Value<'_>; 8] = [
        Value::Int(7),
        Value::Bool(true),
        Value::Void,
        Value::Float(1e9),
        Value::Time(1_795_262_624),
        Value::Table(vec![]),
        Value::Array(vec![Value::Bytes(b"x")]),
        Value::Bytes(b"\xff"),
    ];
    for value in none {
        assert_eq!(id(value.clone()), Vec::<String>::new(), "{value:?}");
    }
}

#[test]
fn values_of_the_wrong_shape_are_refused() {
    for (name, value) in [
        ("correlation-id", "application/json"),
        ("message-id", "12"),
        ("event-type", "text/xml"),
        ("type", "application/json"),
        // hand-made from BrighterCommand/Brighter@4032a06
        ("MessageType", "MT_EVENT"),
        ("command", "true"),
        ("command-id", "3"),
        ("process-id", "48213"),
        ("id", "1042"),
        ("correlation-id", "undefined"),
    ] {
        assert_eq!(ids_of_headers(&vec![text(name, value)]), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn a_parent_id_with_the_shape_of_a_trace_is_a_trace() {
    // hand-made from JasperFx/wolverine@a4b6f5b
    assert_eq!(
        ids_of_headers(&vec![text("parent-id", TRACE)]),
        [
            "trace=038aa89be6043402149c6f682549c784 header:parent-id",
            "span=af1c4753a1555474 header:parent-id"
        ]
    );
}

#[test]
fn clearer_names_stand_before_vaguer_ones_wherever_they_are() {
    let headers = vec![
        text("x-request-id", "r-1"),
        text("process-id", "p-1"),
        text("CorrelationId", "c-1"),
        text("ConversationId", "t-1"),
        text("type", "vague"),
        text("event-name", "OrderPlaced"),
    ];
    assert_eq!(
        ids_of_headers(&headers),
        ["type=OrderPlaced header:event-name", "transaction=t-1 header:ConversationId"]
    );
    // A value that does not fit leaves the field to the next name.
    let headers = vec![text("transaction-id", "null"), text("correlation-id", "c-1")];
    assert_eq!(ids_of_headers(&headers), ["transaction=c-1 header:correlation-id"]);
}

#[test]
fn made_up_names_stand_before_properties_and_vague_ones_behind() {
    let headers = vec![
        text("event-id", "e-1"),
        text("x-correlation-id", "t-1"),
        text("type", "vague"),
        text("request-id", "vague"),
    ];
    let content = Content {
        message_id: Some(b"m-1"),
        message_type: Some(b"OrderPlaced"),
        correlation_id: Some(b"c-1"),
        headers: &headers,
        ..Content::default()
    };
    assert_eq!(
        ids(&content),
        [
            "event=e-1 header:event-id",
            "type=OrderPlaced property:type",
            "transaction=t-1 header:x-correlation-id"
        ]
    );
    let content = Content { correlation_id: Some(b"c-1"), headers: &headers, ..Content::default() };
    assert!(ids(&content).contains(&"type=vague header:type".to_owned()));
}

#[test]
fn an_id_header_beside_a_timestamp_is_springs_and_changes_at_each_hop() {
    // hand-made from spring-projects/spring-amqp@94df521
    let headers = vec![text("id", UUID), (b"timestamp".as_slice(), Value::Int(1_795_262_624_663))];
    assert_eq!(ids_of_headers(&headers), Vec::<String>::new());
}
