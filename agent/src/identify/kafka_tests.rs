//! Kafka records through the identifier as a whole: whose rules hold, and what is read of them.

use proptest::prelude::*;

use super::redact::Redaction;
use super::*;

fn source(text: &str) -> Source {
    Source::parse(text).unwrap()
}

fn event_id(identifier: &Identifier, content: &Content<'_>) -> String {
    let identified = identifier.identify(content);
    identified
        .ids()
        .event_id
        .map_or_else(|| "-".to_owned(), |id| format!("{} {}", id.value, id.from))
}

#[test]
fn rules_of_topics_and_rules_of_exchanges_hold_where_they_belong() {
    let of = |rule: RuleSpec| {
        let rule = RuleSpec { event_id: Some(source("key")), ..rule };
        let identifier = Identifier::new(&[rule], &RecordSpec::default()).unwrap();
        let record = Content::of_record(b"orders", Some(b"order-1042"), &[], None);
        let message =
            Content { destination: b"orders", routing_key: b"order.placed", ..Content::default() };
        [record, message].map(|content| event_id(&identifier, &content) != "-")
    };
    let rule = || RuleSpec::new("r");
    assert_eq!(of(rule()), [true, true]);
    assert_eq!(of(RuleSpec { topic: Some("ord*".into()), ..rule() }), [true, false]);
    assert_eq!(of(RuleSpec { exchange: Some("ord*".into()), ..rule() }), [false, true]);
    let both = RuleSpec { exchange: Some("*".into()), topic: Some("*".into()), ..rule() };
    assert_eq!(of(both), [true, true]);
    assert_eq!(of(RuleSpec { topic: Some("cars".into()), ..rule() }), [false, false]);
    let keyed = RuleSpec { routing_key: Some("order-*".into()), ..rule() };
    assert_eq!(of(keyed), [true, false], "the record key is the routing key");
}

#[test]
fn a_rule_may_take_the_record_key_unless_it_is_null_or_no_text() {
    let rule = RuleSpec { event_id: Some(source("key")), ..RuleSpec::new("r") };
    let identifier = Identifier::new(&[rule], &RecordSpec::default()).unwrap();
    let of = |key| event_id(&identifier, &Content::of_record(b"t", key, &[], None));
    assert_eq!(of(Some(b"order-1042")), "order-1042 rule:r");
    assert_eq!(of(None), "-");
    assert_eq!(of(Some(b"\xff\0")), "-");
}

#[test]
fn a_rule_for_topics_cannot_ask_for_a_property() {
    let rule = |exchange: Option<&str>| RuleSpec {
        topic: Some("orders".into()),
        exchange: exchange.map(Glob::new),
        event_id: Some(source("property:message_id")),
        ..RuleSpec::new("r")
    };
    let errors = Identifier::new(&[rule(None)], &RecordSpec::default()).unwrap_err();
    assert_eq!(errors[0].key, "event_id");
    assert!(errors[0].message.contains("write header:NAME, body:/json/pointer or key"));
    let both = Identifier::new(&[rule(Some("orders"))], &RecordSpec::default()).unwrap();
    assert_eq!(event_id(&both, &Content::of_record(b"orders", None, &[], None)), "-");
}

#[test]
fn what_is_wanted_of_a_value_is_known_from_its_headers() {
    let plain = Identifier::default();
    let wants = |headers: &[(&[u8], Value<'_>)], size| {
        plain.wants_of(&Content::of_record(b"orders", None, headers, None), size)
    };
    assert_eq!(wants(&[], 1000), 1000);
    assert_eq!(wants(&[(b"content-type", Value::Bytes(b"application/avro"))], 1000), 0);
    assert_eq!(wants(&[(b"content-encoding", Value::Bytes(b"gzip"))], 1000), 0);
    assert_eq!(wants(&[], MAX_INSPECTED_BODY + 1), 0);
    assert_eq!(plain.wants_payload(1000), 0);
    let record =
        RecordSpec { payload: PayloadPolicy::Failed, max_bytes: 10, ..RecordSpec::default() };
    assert_eq!(Identifier::new(&[], &record).unwrap().wants_payload(1000), 10);
}

#[test]
fn a_tombstone_has_the_ids_of_its_headers() {
    let headers: [(&[u8], Value<'_>); 1] = [(b"ce_id", Value::Bytes(b"e-1"))];
    let content = Content::of_record(b"orders", Some(b"order-1042"), &headers, None);
    assert_eq!(event_id(&Identifier::default(), &content), "e-1 header:ce_id");
}

#[test]
fn raw_bytes_that_gave_an_id_are_recorded_as_base64() {
    let headers: [(&[u8], Value<'_>); 2] = [
        (b"kafka_correlationId", Value::Bytes(&[0xfe; 16])),
        (b"kafka_replyTopic", Value::Bytes(b"replies")),
    ];
    let content = Content::of_record(b"orders", None, &headers, None);
    let identifier = Identifier::default();
    let identified = identifier.identify(&content);
    let recorded = identified.headers();
    assert_eq!(recorded.len(), 1);
    assert_eq!(recorded[0].encoding, Encoding::Base64);
    assert_eq!(recorded[0].value, "/v7+/v7+/v7+/v7+/v7+/g==");
}

#[test]
fn what_is_redacted_gives_no_id_in_any_form() {
    let record = RecordSpec {
        redact: ["kafka_correlationId", "CE_ID", "b3"].map(|t| Redact::parse(t).unwrap()).into(),
        ..RecordSpec::default()
    };
    let identifier = Identifier::new(&[], &record).unwrap();
    let headers: [(&[u8], Value<'_>); 3] = [
        (b"kafka_correlationId", Value::Bytes(&[0xfe; 16])),
        (b"ce_id", Value::Bytes(b"e-1")),
        (b"b3", Value::Bytes(b"80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1")),
    ];
    let content = Content::of_record(b"orders", None, &headers, None);
    assert_eq!(identifier.identify(&content).ids(), Ids::default());
}

fn header_name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::sample::select(detect::known_names()).prop_map(|name| name.as_bytes().to_vec()),
        prop::sample::select(vec!["content-type", "contentEncoding", "correlation_id", "x-uuid"])
            .prop_map(|name| name.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..40),
    ]
}

fn header_value() -> impl Strategy<Value = Option<Vec<u8>>> {
    let shaped = prop::sample::select(vec![
        "00-038aa89be6043402149c6f682549c784-af1c4753a1555474-01",
        "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1",
        "10038581944306458416",
        "a8f1:2b:0:1",
        "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8",
        "Shop.Order, Shop; é",
        "\"quoted\"",
        "{\"schema\":{},\"payload\":\"x\"}",
        "q8AZ0gAAQACAAAAAAAAAAA==",
        "MT_COMMAND",
        "Send",
        "1",
        "application/json",
    ])
    .prop_map(|text| text.as_bytes().to_vec());
    prop::option::of(prop_oneof![
        shaped,
        prop::collection::vec(any::<u8>(), 16),
        prop::collection::vec(any::<u8>(), 0..64),
        "[é \\[\\],;:-]{0,12}".prop_map(String::into_bytes),
    ])
}

proptest! {
    #[test]
    fn any_record_is_survived(
        key in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
        headers in prop::collection::vec((header_name(), header_value()), 0..24),
        value in prop::option::of(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            (0_u8..4, prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(first, rest)| {
                [&[first][..], &rest, br#"{"headers":{"ID":"1"},"order_id":2}"#].concat()
            }),
        ]),
    ) {
        let headers: Vec<(&[u8], Value<'_>)> = headers
            .iter()
            .map(|(name, value)| {
                (name.as_slice(), value.as_deref().map_or(Value::Void, Value::Bytes))
            })
            .collect();
        let content = Content::of_record(b"orders", key.as_deref(), &headers, value.as_deref());
        let identifier = Identifier::default();
        let identified = identifier.identify(&content);
        let ids = identified.ids();
        for id in [ids.event_id, ids.event_type, ids.transaction_id, ids.causation_id, ids.command,
            ids.command_id, ids.trace_id, ids.span_id].into_iter().flatten()
        {
            prop_assert!(text::is_id(id.value), "{}", id.value);
            prop_assert!(id.from.starts_with("header:") || id.from.starts_with("body:"));
        }
        prop_assert!(ids.trace_id.is_none_or(|id| id.value.len() == 32));
        prop_assert!(ids.span_id.is_none_or(|id| id.value.len() == 16));
    }

    #[test]
    fn looking_before_reading_loses_no_key(
        names in prop::collection::vec("[a-z]{0,3}(_id|Id|uuid|ID|id|no|\\.x)?", 0..6),
        nested in prop::collection::vec("[a-z]{0,3}(_id|Id|no)?", 0..3),
        pattern in prop::sample::select(vec!["*_no", "no", "*", "a?", "*d", "?_id"]),
        spaced: bool,
    ) {
        let colon = if spaced { " : " } else { ":" };
        let members = |names: &[String]| {
            let members: Vec<_> = names.iter().map(|name| format!("\"{name}\"{colon}7")).collect();
            members.join(",")
        };
        let inner = members(&nested);
        let outer = members(&names);
        let comma = if outer.is_empty() { "" } else { "," };
        let body = format!("{{{outer}{comma}\"in\":{{{inner}}}}}");
        for names in [KeyNames::BuiltIn, KeyNames::Named(vec![pattern.into()])] {
            let filter = match &names {
                KeyNames::BuiltIn => KeyFilter::BuiltIn,
                KeyNames::Named(names) => KeyFilter::Named(names.clone()),
            };
            let record = RecordSpec { keys: names, ..RecordSpec::default() };
            let identifier = Identifier::new(&[], &record).unwrap();
            let content = Content::of_record(b"orders", None, &[], Some(body.as_bytes()));
            let read = json::walk(body.as_bytes(), &Wanted::new(), &filter, &Redaction::default()).keys;
            prop_assert_eq!(identifier.identify(&content).keys().len(), read.len(), "{}", body);
        }
    }
}
