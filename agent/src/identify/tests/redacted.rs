//! What `redact` names is nowhere in what is recorded: not as id, key, header or payload.

use super::*;

#[test]
fn what_is_redacted_gives_no_id_and_no_key() {
    let record = RecordSpec {
        headers: HeaderPolicy::All,
        redact: ["/id", "/data", "x-correlation-id"]
            .map(|text| Redact::parse(text).unwrap())
            .into(),
        ..RecordSpec::default()
    };
    let headers = [text("x-correlation-id", "t-1")];
    let content = Content {
        content_type: Some(b"application/cloudevents+json"),
        headers: &headers,
        body: Some(br#"{"id":"e-1","type":"car.ordered","data":{"customer_id":7},"order_id":1}"#),
        ..Content::default()
    };
    let identifier = with_record(&record);
    let identified = identifier.identify(&content);
    assert_eq!(shown(identified.ids().event_id), "-");
    assert_eq!(shown(identified.ids().event_type), "car.ordered body:/type");
    assert_eq!(shown(identified.ids().transaction_id), "-");
    assert_eq!(fields(&identified.keys()), ["order_id=1"]);
    assert_eq!(fields(&identified.headers()), ["x-correlation-id=[redacted]"]);
}

#[test]
fn a_redacted_name_is_recorded_nowhere() {
    let record = RecordSpec {
        headers: HeaderPolicy::All,
        keys: KeyNames::Named(vec!["customer*".into(), "order_id".into()]),
        payload: PayloadPolicy::All,
        redact: vec![Redact::parse("customer_name").unwrap()],
        ..RecordSpec::default()
    };
    let identifier = with_record(&record);
    let body = r#"{"customer_name":"Ada","order_id":7,"lines":[{"to":{"Customer_Name":["Ada"]}}],
        "raw":"{\"customer_name\":\"Ada\"}"}"#;
    let meta = r#"{"order":{"customer_name":"Ada"}}"#;
    let headers = [text("Customer_Name", "Ada"), text("meta", meta), text("tenant", "eu")];
    let content = Content {
        content_type: Some(b"application/json"),
        headers: &headers,
        body: Some(body.as_bytes()),
        ..Content::default()
    };
    let size = body.len() as u64;
    assert_eq!(identifier.wants_of(&content, size), size, "all of it, to see what to redact");
    let identified = identifier.identify(&content);
    assert_eq!(fields(&identified.keys()), ["order_id=7"]);
    assert_eq!(
        fields(&identified.headers()),
        [
            "Customer_Name=[redacted]",
            r#"meta={"order":{"customer_name":"[redacted]"}}"#,
            "tenant=eu"
        ]
    );
    let payload = identifier.payload(body.as_bytes(), size, PayloadWhen::Passed).unwrap();
    let payload = String::from_utf8(payload.bytes.into_owned()).unwrap();
    assert!(!payload.contains("Ada") && payload.contains(r#""order_id":7"#), "{payload}");
    // Nobody knows what a body holds that cannot be read.
    assert_eq!(identifier.payload(b"customer_name=Ada", 17, PayloadWhen::Passed), None);
}

#[test]
fn a_rule_that_reads_what_is_redacted_is_refused() {
    let record =
        RecordSpec { redact: vec![Redact::parse("customer").unwrap()], ..RecordSpec::default() };
    let rules = [
        RuleSpec { event_id: source("body:/order/Customer/id"), ..rule("a") },
        RuleSpec { event_id: source("header:CUSTOMER"), ..rule("b") },
        RuleSpec { keys: vec![("customer".into(), source("key").unwrap())], ..rule("c") },
        RuleSpec { event_id: source("body:/customers/0"), ..rule("d") },
    ];
    let errors = Identifier::new(&rules, &record).unwrap_err();
    let told: Vec<_> = errors.iter().map(|error| (error.section, error.key.as_str())).collect();
    assert_eq!(
        told,
        [
            (Section::Rule(0), "event_id"),
            (Section::Rule(1), "event_id"),
            (Section::Rule(2), "keys.customer")
        ]
    );
}
