//! The identifier as a whole: rules, what is recorded, what a tap should keep; and what must hold
//! for any message.

use proptest::prelude::*;

use super::*;

mod redacted;

fn rule(name: &str) -> RuleSpec {
    RuleSpec::new(name)
}

#[expect(clippy::unnecessary_wraps, reason = "as rules have it")]
fn source(text: &str) -> Option<Source> {
    Some(Source::parse(text).unwrap())
}

fn with_rules(rules: &[RuleSpec]) -> Identifier {
    Identifier::new(rules, &RecordSpec::default()).unwrap()
}

fn with_record(record: &RecordSpec) -> Identifier {
    Identifier::new(&[], record).unwrap()
}

fn text<'a>(name: &'a str, value: &'a str) -> (&'a [u8], Value<'a>) {
    (name.as_bytes(), Value::Bytes(value.as_bytes()))
}

fn shown(id: Option<Id<'_>>) -> String {
    id.map_or_else(|| "-".to_owned(), |id| format!("{} {}", id.value, id.from))
}

fn fields(fields: &[Field<'_>]) -> Vec<String> {
    fields.iter().map(|field| format!("{}={}", field.name, field.value)).collect()
}

// --- rules

#[test]
fn rules_beat_what_is_built_in() {
    let identifier = with_rules(&[RuleSpec {
        event_id: source("header:x-our-id"),
        transaction_id: source("body:/meta/flow"),
        command: source("property:app_id"),
        ..rule("ours")
    }]);
    let headers = [
        text("cloudEvents:id", "e-1"),
        text("cloudEvents:correlationid", "c-1"),
        text("X-Our-Id", "o-1"),
    ];
    let content = Content {
        app_id: Some(b"place-order"),
        headers: &headers,
        body: Some(br#"{"meta":{"flow":42}}"#),
        ..Content::default()
    };
    let identified = identifier.identify(&content);
    let ids = identified.ids();
    assert_eq!(shown(ids.event_id), "o-1 rule:ours");
    assert_eq!(shown(ids.transaction_id), "42 rule:ours");
    assert_eq!(shown(ids.command), "place-order rule:ours");
    assert_eq!(fields(&identified.headers()), ["X-Our-Id=o-1"], "only what gave an id");
}

#[test]
fn the_first_matching_rule_that_finds_a_value_wins_field_by_field() {
    let identifier = with_rules(&[
        RuleSpec {
            exchange: Some("payments".into()),
            transaction_id: source("header:a"),
            ..rule("elsewhere")
        },
        RuleSpec {
            exchange: Some("ord*".into()),
            routing_key: Some("*.placed".into()),
            transaction_id: source("header:missing"),
            event_id: source("header:a"),
            ..rule("first")
        },
        RuleSpec {
            transaction_id: source("header:a"),
            event_id: source("header:b"),
            ..rule("second")
        },
    ]);
    let headers = [text("a", "A"), text("b", "B")];
    let content = Content {
        destination: b"orders",
        routing_key: b"order.placed",
        headers: &headers,
        ..Content::default()
    };
    let identified = identifier.identify(&content);
    assert_eq!(shown(identified.ids().event_id), "A rule:first");
    assert_eq!(shown(identified.ids().transaction_id), "A rule:second");
}

#[test]
fn a_rule_for_the_default_exchange_holds_only_there() {
    let identifier = with_rules(&[RuleSpec {
        exchange: Some("".into()),
        event_id: source("property:app_id"),
        ..rule("direct")
    }]);
    let content = Content { app_id: Some(b"a"), ..Content::default() };
    assert!(identifier.identify(&content).ids().event_id.is_some());
    let content = Content { destination: b"x", ..content };
    assert!(identifier.identify(&content).ids().event_id.is_none());
}

#[test]
fn a_rule_finds_nothing_where_the_value_is_no_id() {
    let identifier = with_rules(&[RuleSpec {
        event_id: source("header:a"),
        transaction_id: source("body:/flow"),
        ..rule("r")
    }]);
    let headers = [text("a", "null")];
    let content = Content {
        message_id: Some(b"m-1"),
        correlation_id: Some(b"c-1"),
        headers: &headers,
        body: Some(br#"{"flow":""}"#),
        ..Content::default()
    };
    let identified = identifier.identify(&content);
    assert_eq!(shown(identified.ids().event_id), "m-1 property:message_id");
    assert_eq!(shown(identified.ids().transaction_id), "c-1 property:correlation_id");
}

#[test]
fn a_rule_may_give_a_trace_in_either_form() {
    let identifier = with_rules(&[RuleSpec { trace_id: source("header:t"), ..rule("r") }]);
    let of = |value: &str| {
        let headers = [text("t", value)];
        let content = Content { headers: &headers, ..Content::default() };
        let identified = identifier.identify(&content);
        (shown(identified.ids().trace_id), shown(identified.ids().span_id))
    };
    let trace = "038aa89be6043402149c6f682549c784";
    assert_eq!(
        of(&format!("00-{trace}-af1c4753a1555474-01")),
        (format!("{trace} rule:r"), "af1c4753a1555474 rule:r".to_owned())
    );
    assert_eq!(of(&trace.to_uppercase()), (format!("{trace} rule:r"), "-".to_owned()));
    assert_eq!(of("af1c4753a1555474").0, "0000000000000000af1c4753a1555474 rule:r");
    assert_eq!(of("not-a-trace").0, "-");
}

#[test]
fn rules_give_business_keys_under_their_own_names_and_before_built_in_ones() {
    let identifier = with_rules(&[
        RuleSpec {
            keys: vec![("order".into(), source("header:x-order").unwrap())],
            ..rule("header")
        },
        RuleSpec {
            keys: vec![
                ("order".into(), source("body:/n").unwrap()),
                ("vin".into(), source("body:/car/vin").unwrap()),
            ],
            ..rule("body")
        },
    ]);
    let headers = [text("x-order", "1042")];
    let content = Content {
        headers: &headers,
        body: Some(br#"{"n":7,"car":{"vin":"V1"},"car_id":"c"}"#),
        ..Content::default()
    };
    let identified = identifier.identify(&content);
    assert_eq!(fields(&identified.keys()), ["order=1042", "vin=V1", "car_id=c"]);
    assert_eq!(fields(&identified.headers()), Vec::<String>::new());
}

#[test]
fn a_configuration_that_asks_for_a_secret_is_refused() {
    let rules = [RuleSpec { event_id: source("header:x-auth-id"), ..rule("r") }];
    let errors = Identifier::new(&rules, &RecordSpec::default()).unwrap_err();
    assert_eq!(errors[0].key, "event_id");
    assert!(errors[0].message.contains("`auth` are never recorded"));
}

// --- what is recorded

#[test]
fn headers_are_those_that_gave_an_id_unless_configured() {
    let headers = [
        text("tenant", "eu"),
        text("x-correlation-id", "t-1"),
        text("Authorization", "Bearer abc"),
        (b"x-retries".as_slice(), Value::Int(2)),
    ];
    let content = Content { headers: &headers, ..Content::default() };
    let recorded = |headers| {
        let record = RecordSpec { headers, ..RecordSpec::default() };
        fields(&with_record(&record).identify(&content).headers())
    };
    assert_eq!(recorded(HeaderPolicy::Ids), ["x-correlation-id=t-1"]);
    assert_eq!(recorded(HeaderPolicy::Named(vec![])), Vec::<String>::new());
    assert_eq!(recorded(HeaderPolicy::Named(vec!["t*".into(), "a*".into()])), ["tenant=eu"]);
    assert_eq!(recorded(HeaderPolicy::All), ["tenant=eu", "x-correlation-id=t-1", "x-retries=2"]);
}

#[test]
fn too_many_keys_and_headers_are_counted() {
    let names: Vec<String> = (0..MAX_HEADERS + 3).map(|n| format!("h{n}")).collect();
    let headers: Vec<_> = names.iter().map(|name| text(name, "v")).collect();
    let members: Vec<_> = (0..MAX_KEYS + 2).map(|n| format!(r#""k{n}_id":1"#)).collect();
    let body = format!("{{{}}}", members.join(","));
    let content = Content { headers: &headers, body: Some(body.as_bytes()), ..Content::default() };
    let record = RecordSpec { headers: HeaderPolicy::All, ..RecordSpec::default() };
    let left_out = Counter::default();
    let identifier = with_record(&record).counting_left_out(left_out.clone());
    let identified = identifier.identify(&content);
    assert_eq!((identified.keys().len(), identified.headers().len()), (MAX_KEYS, MAX_HEADERS));
    assert_eq!(left_out.get(), 5);
}

#[test]
fn keys_come_from_bodies_that_are_json_or_look_like_it() {
    let keys = |content_type: Option<&[u8]>, content_encoding: Option<&[u8]>, body: &str| {
        let body = Some(body.as_bytes());
        let content = Content { content_type, content_encoding, body, ..Content::default() };
        Identifier::default().identify(&content).keys().len()
    };
    let body = r#" {"order_id":1}"#;
    for content_type in [
        "application/json",
        "APPLICATION/JSON; charset=utf-8",
        "application/vnd.x+json",
        "text/plain",
    ] {
        assert_eq!(keys(Some(content_type.as_bytes()), None, body), 1, "{content_type}");
    }
    assert_eq!(keys(None, None, body), 1);
    assert_eq!(keys(None, Some(b"utf-8"), body), 1);
    assert_eq!(keys(None, Some(b"gzip"), body), 0);
    assert_eq!(keys(Some(b"application/octet-stream"), None, body), 0);
    assert_eq!(keys(Some(b"application/json"), None, r#"[{"order_id":1}]"#), 1);
    assert_eq!(keys(None, None, r#"[{"order_id":1}]"#), 0);
    let large = format!(r#"{{"order_id":1,"x":"{}"}}"#, "x".repeat(64 * 1024));
    assert_eq!(keys(None, None, &large), 0);
}

// --- payloads, and what a tap should keep

#[test]
fn payloads_stand_on_the_rows_that_were_asked_for() {
    let on = |payload| {
        let identifier = with_record(&RecordSpec { payload, ..RecordSpec::default() });
        [PayloadWhen::Passed, PayloadWhen::Failed]
            .map(|when| identifier.payload(b"{}", 2, when).is_some())
    };
    assert_eq!(on(PayloadPolicy::None), [false, false]);
    assert_eq!(on(PayloadPolicy::Failed), [false, true]);
    assert_eq!(on(PayloadPolicy::All), [true, false]);
}

#[test]
fn a_tap_keeps_what_will_be_read_or_recorded() {
    let json = Some(b"application/json".as_slice());
    let bytes = Some(b"application/octet-stream".as_slice());
    let wants = |identifier: &Identifier, content_type, size| {
        identifier.wants_body(b"orders", b"", content_type, None, size)
    };
    let plain = Identifier::default();
    assert_eq!(wants(&plain, json, 65_536), 65_536);
    assert_eq!(wants(&plain, None, 10), 10);
    assert_eq!(wants(&plain, json, 65_537), 0);
    assert_eq!(wants(&plain, bytes, 10), 0);
    assert_eq!(plain.wants_body(b"", b"", json, Some(b"gzip"), 10), 0);

    let ruled = with_rules(&[RuleSpec {
        exchange: Some("orders".into()),
        event_id: source("body:/id"),
        ..rule("r")
    }]);
    assert_eq!(wants(&ruled, bytes, 10), 10);
    assert_eq!(ruled.wants_body(b"other", b"", bytes, None, 10), 0);

    let record =
        RecordSpec { payload: PayloadPolicy::All, max_bytes: 1000, ..RecordSpec::default() };
    let recording = with_record(&record);
    assert_eq!(wants(&recording, bytes, 500_000_000), 1000);
    assert_eq!(wants(&recording, json, 5000), 5000);
    let redacting =
        with_record(&RecordSpec { redact: vec![Redact::parse("/a").unwrap()], ..record });
    assert_eq!(wants(&redacting, bytes, 5000), 5000, "all of it, to see what to redact");
    assert_eq!(wants(&redacting, bytes, 500_000_000), 0);
}

// --- what holds for any message

fn word() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::sample::select(vec![
            "x-correlation-id",
            "cloudEvents:id",
            "traceparent",
            "Authorization",
            "x-session-id",
            "apiToken",
            "CardNumber",
            "x-exception-message",
            "order_id",
            "id",
            "type",
            "meta",
            "baggage",
        ])
        .prop_map(|name| name.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..12),
    ]
}

/// Header values as trees that own their bytes.
#[derive(Clone, Debug)]
enum Tree {
    Leaf(Option<i64>, Vec<u8>),
    Array(Vec<Tree>),
    Table(Vec<(Vec<u8>, Tree)>),
}

impl Tree {
    fn value(&self) -> Value<'_> {
        match self {
            Tree::Leaf(Some(number), _) => Value::Int(*number),
            Tree::Leaf(None, bytes) => Value::Bytes(bytes),
            Tree::Array(items) => Value::Array(items.iter().map(Tree::value).collect()),
            Tree::Table(entries) => Value::Table(
                entries.iter().map(|(name, tree)| (name.as_slice(), tree.value())).collect(),
            ),
        }
    }
}

/// Leaves hold the planted secret or anything else.
fn tree(leaf: impl Strategy<Value = Vec<u8>> + Clone + 'static) -> impl Strategy<Value = Tree> {
    let leaf = (prop::option::of(any::<i64>()), leaf)
        .prop_map(|(number, bytes)| Tree::Leaf(number, bytes));
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Tree::Array),
            prop::collection::vec((word(), inner), 0..4).prop_map(Tree::Table),
        ]
    })
}

const PLANTED: &str = "planted-s3cr3t";

fn everything() -> Identifier {
    let keys = KeyNames::Named(vec!["*".into()]);
    with_record(&RecordSpec { headers: HeaderPolicy::All, keys, ..RecordSpec::default() })
}

/// Every text of the output.
fn output(identified: &Identified<'_>) -> Vec<String> {
    let ids = identified.ids();
    let ids = [
        ids.event_id,
        ids.event_type,
        ids.transaction_id,
        ids.causation_id,
        ids.command,
        ids.command_id,
        ids.trace_id,
        ids.span_id,
    ];
    let fields = identified.keys().into_iter().chain(identified.headers());
    ids.into_iter()
        .flatten()
        .flat_map(|id| [id.value.to_owned(), id.from.to_owned()])
        .chain(fields.flat_map(|field| [field.name.to_owned(), field.value.to_owned()]))
        .collect()
}

proptest! {
    #[test]
    fn any_message_is_survived_and_what_comes_of_it_is_bounded(
        texts in prop::collection::vec(prop::option::of(word()), 6),
        headers in prop::collection::vec((word(), tree(prop::collection::vec(any::<u8>(), 0..40))), 0..12),
        body in prop::option::of(prop::collection::vec(any::<u8>(), 0..200)),
        kafka: bool,
    ) {
        let headers: Vec<_> =
            headers.iter().map(|(name, tree)| (name.as_slice(), tree.value())).collect();
        let content = Content {
            system: if kafka { System::Kafka } else { System::Amqp },
            routing_key: texts[0].as_deref().unwrap_or_default(),
            message_id: texts[1].as_deref(),
            message_type: texts[2].as_deref(),
            correlation_id: texts[3].as_deref(),
            content_type: texts[4].as_deref(),
            reply_to: texts[5].as_deref(),
            headers: &headers,
            body: body.as_deref(),
            ..Content::default()
        };
        for identifier in [Identifier::default(), everything()] {
            let identified = identifier.identify(&content);
            prop_assert!(identified.keys().len() <= MAX_KEYS);
            prop_assert!(identified.headers().len() <= MAX_HEADERS);
            for text in output(&identified) {
                prop_assert!(text.len() <= 4 * record::MAX_VALUE_BYTES);
            }
            for field in identified.keys().iter().chain(&identified.headers()) {
                prop_assert!(!is_excluded(field.name.as_bytes()));
            }
        }
    }

    #[test]
    fn no_value_under_an_excluded_name_is_ever_in_the_output(
        secret_name in prop::sample::select(names::EXCLUDED),
        around in ("[a-z_-]{0,6}", "[a-zA-Z_-]{0,6}"),
        upper: bool,
        siblings in prop::collection::vec((word(), tree(Just(b"harmless".to_vec()))), 0..6),
        nested: bool,
        as_json_text: bool,
        kafka: bool,
    ) {
        let mut name = format!("{}{secret_name}{}", around.0, around.1);
        if upper {
            name = name.to_uppercase();
        }
        let json = format!(r#"{{"{name}":"{PLANTED}","x":{{"{name}":{{"order_id":"{PLANTED}"}}}}}}"#);
        let secret = Value::Bytes(PLANTED.as_bytes());
        let mut headers: Vec<_> =
            siblings.iter().map(|(name, tree)| (name.as_slice(), tree.value())).collect();
        headers.push(if as_json_text {
            (b"meta".as_slice(), Value::Bytes(json.as_bytes()))
        } else if nested {
            let table = Value::Table(vec![(name.as_bytes(), Value::Array(vec![secret]))]);
            (b"meta".as_slice(), Value::Array(vec![table]))
        } else {
            (name.as_bytes(), secret)
        });
        let content = Content {
            system: if kafka { System::Kafka } else { System::Amqp },
            headers: &headers,
            body: Some(json.as_bytes()),
            ..Content::default()
        };
        for identifier in [Identifier::default(), everything()] {
            for text in output(&identifier.identify(&content)) {
                prop_assert!(!text.contains(PLANTED), "{text}");
            }
        }
    }

    #[test]
    fn redacted_values_are_never_in_a_payload(
        before in "[a-z{}\\[\\]\",: ]{0,30}",
        after in "[a-z{}\\[\\]\",: ]{0,30}",
        cut in 1_u64..200,
    ) {
        let identifier = with_record(&RecordSpec {
            payload: PayloadPolicy::All,
            max_bytes: cut,
            redact: vec![Redact::parse("/a/b").unwrap()],
            ..RecordSpec::default()
        });
        // Sometimes JSON, mostly not.
        let body = format!(r#"{{{before}"a":{{"b":"{PLANTED}"}}{after}}}"#);
        if let Some(payload) = identifier.payload(body.as_bytes(), body.len() as u64, PayloadWhen::Passed) {
            let kept = String::from_utf8_lossy(&payload.bytes).into_owned();
            // Valid JSON in which it stands elsewhere than at the pointer cannot come of these parts
            // unless `before` opened another object.
            prop_assert!(!kept.contains(PLANTED) || before.contains('{'), "{kept}");
            prop_assert!(payload.bytes.len() as u64 <= cut);
        }
    }
}
