//! What it costs to identify one message, by what it carries.

use criterion::{Criterion, criterion_group, criterion_main};
use flowtap_agent::identify::{Content, Identifier, KeyNames, RecordSpec, RuleSpec, Source};
use flowtap_record::Value;
use std::hint::black_box;

type Headers = [(&'static [u8], Value<'static>)];

const CORRELATION: Value<'static> = Value::Bytes(b"9f1c9d1e-3f57-4f6e-8f5e-0f7f0a1b2c3d");
const TRACEPARENT: (&[u8], Value<'static>) =
    (b"traceparent", Value::Bytes(b"00-038aa89be6043402149c6f682549c784-af1c4753a1555474-01"));

const ORDINARY: &Headers = &[
    TRACEPARENT,
    (b"x-correlation-id", CORRELATION),
    (b"causation-id", Value::Bytes(b"7e57d004-2b97-0e7a-b45f-5387367791cd")),
    (b"x-retries", Value::Int(2)),
    (b"tenant", Value::Bytes(b"eu-1")),
];
const NONE: &Headers = &[];
const OTHER: &Headers = &[
    (b"tenant", Value::Bytes(b"eu-1")),
    (b"x-retries", Value::Bytes(b"2")),
    (b"schema-version", Value::Bytes(b"3")),
];
const TRACED: &Headers = &[TRACEPARENT];
const CLOUDEVENT: &Headers = &[
    (b"ce_specversion", Value::Bytes(b"1.0")),
    (b"ce_id", Value::Bytes(b"1b4e28ba-2fa1-11d2-883f-0016d3cca427")),
    (b"ce_type", Value::Bytes(b"car.ordered")),
    (b"ce_source", Value::Bytes(b"/shop")),
    (b"ce_time", Value::Bytes(b"2026-07-14T12:00:03.114Z")),
    (b"ce_correlationid", CORRELATION),
    (b"content-type", Value::Bytes(b"application/json")),
];

/// About 1 kB of an ordinary event.
fn body() -> Vec<u8> {
    let lines: Vec<_> = (0..12)
        .map(|n| {
            format!(r#"{{"sku":"part-{n}","quantity":{n},"price":"{n}9.90","colour":"blue"}}"#)
        })
        .collect();
    format!(
        r#"{{"order_id":"order-1042","customer":{{"customer_id":77,"name":"Ada","city":"London"}},
        "meta":{{"flow":"flow-1","at":"2026-07-14T12:00:03.114Z"}},"total":1234.5,"lines":[{}]}}"#,
        lines.join(",")
    )
    .into_bytes()
}

fn bench(
    c: &mut Criterion,
    name: &str,
    identifier: &Identifier,
    content: impl Fn() -> Content<'static>,
) {
    c.bench_function(name, |b| {
        b.iter(|| {
            let identified = identifier.identify(&content());
            black_box((identified.ids(), identified.keys(), identified.headers()));
        });
    });
}

fn amqp(c: &mut Criterion) {
    let body: &'static [u8] = body().leak();
    let properties = Content {
        destination: b"orders",
        routing_key: b"order.placed",
        content_type: Some(b"application/json"),
        correlation_id: Some(b"9f1c9d1e-3f57-4f6e-8f5e-0f7f0a1b2c3d"),
        message_id: Some(b"1b4e28ba-2fa1-11d2-883f-0016d3cca427"),
        message_type: Some(b"OrderPlaced"),
        ..Content::default()
    };
    let with_body = Content { body: Some(body), ..properties.clone() };
    let with_headers = Content { headers: ORDINARY, body: None, ..properties.clone() };
    let plain = Identifier::default();
    let rules = [RuleSpec {
        exchange: Some("orders".into()),
        transaction_id: Some(Source::parse("body:/meta/flow").expect("well-formed")),
        ..RuleSpec::new("flow")
    }];
    let ruled = Identifier::new(&rules, &RecordSpec::default()).expect("valid");

    let mut run = |name: &str, identifier: &Identifier, content: &Content<'static>| {
        bench(c, &format!("amqp: {name}"), identifier, || black_box(content).clone());
    };
    run("properties only", &plain, &properties);
    run("properties and 5 headers", &plain, &with_headers);
    run(&format!("properties and a JSON body of {} bytes", body.len()), &plain, &with_body);
    run("the same with a rule into the body", &ruled, &with_body);
}

fn kafka(c: &mut Criterion) {
    let json: &'static [u8] = body().leak();
    let text = String::from_utf8_lossy(json).replace("_id\"", "_no\"");
    let without_ids: &'static [u8] = text.into_bytes().leak();
    // No `{` where JSON might start behind a schema's number.
    let avro: &'static [u8] = (0..1000_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0] | 0x80)
        .collect::<Vec<_>>()
        .leak();
    let plain = Identifier::default();
    let record = RecordSpec { keys: KeyNames::Named(vec![]), ..RecordSpec::default() };
    let keyless = Identifier::new(&[], &record).expect("valid");

    let mut run = |name: &str, identifier: &Identifier, headers: &'static Headers, value| {
        bench(c, &format!("kafka: {name}"), identifier, || {
            Content::of_record(b"orders", Some(b"order-1042"), black_box(headers), Some(value))
        });
    };
    run("no headers, 1000 bytes that are no JSON", &plain, NONE, avro);
    run("3 headers that say nothing, no JSON", &plain, OTHER, avro);
    run("a traceparent, no JSON", &plain, TRACED, avro);
    run("a CloudEvent in 7 headers, no JSON", &plain, CLOUDEVENT, avro);
    run(&format!("no headers, {} bytes of JSON", json.len()), &plain, NONE, json);
    run("the same without keys in it", &plain, NONE, without_ids);
    run("the same, keys = []", &keyless, NONE, json);
}

criterion_group!(identify, amqp, kafka);
criterion_main!(identify);
