use super::*;

fn rule(name: &str, transaction_id: &str) -> RuleSpec {
    RuleSpec { transaction_id: Some(Source::parse(transaction_id).unwrap()), ..RuleSpec::new(name) }
}

#[test]
fn sources_are_read_as_they_are_written() {
    for text in ["header:x-order-flow", "property:correlation_id", "body:/meta/flow", "key"] {
        assert_eq!(Source::parse(text).unwrap().to_string(), text);
    }
    assert_eq!(
        Source::parse("header:urn:flow").unwrap(),
        Source::Header("urn:flow".into()),
        "header names may contain a colon"
    );
}

#[test]
fn a_wrong_source_is_answered_with_what_would_be_right() {
    let error = |text: &str| Source::parse(text).unwrap_err();
    assert!(error("x-order-flow").contains("write header:NAME"));
    assert!(error("headers:x").contains("no place `headers`"));
    assert!(error("header:").contains("lacks the name"));
    assert!(error("key:x").contains("write just key"));
    assert!(error("property:correlationId").contains("there are message_id, correlation_id, type"));
    assert!(error("body:meta/flow").contains("starts with /"));
    assert!(error("body:").contains("starts with /"));
    assert!(error("body:/a~2").contains("after ~ comes 0"));
    assert!(Redact::parse("header:x").unwrap_err().contains("nor a name"));
}

#[test]
fn everything_wrong_is_said_at_once() {
    let rules = [
        rule("a", "header:x-flow"),
        rule("a", "header:x-session-id"),
        rule("b", "body:/customer/name/first"),
        RuleSpec { name: String::new(), ..RuleSpec::default() },
        RuleSpec {
            keys: vec![("card".into(), Source::parse("body:/auth/id").unwrap())],
            ..RuleSpec::new("c")
        },
    ];
    let record = RecordSpec {
        headers: HeaderPolicy::Named(vec!["x-*".into(), "Authorization".into()]),
        keys: KeyNames::Named(vec!["*token*".into()]),
        max_bytes: 0,
        redact: vec![Redact::parse("/*/name").unwrap()],
        ..RecordSpec::default()
    };
    let errors = check(&rules, &record);
    let told: Vec<_> = errors.iter().map(|error| (error.section, error.key.as_str())).collect();
    assert_eq!(
        told,
        [
            (Section::Rule(1), "name"),
            (Section::Rule(1), "transaction_id"),
            (Section::Rule(2), "transaction_id"),
            (Section::Rule(3), "name"),
            (Section::Rule(3), "name"),
            (Section::Rule(4), "keys.card"),
            (Section::Rule(4), "keys.card"),
            (Section::Record, "headers[1]"),
            (Section::Record, "keys[0]"),
            (Section::Record, "max_bytes"),
        ]
    );
    assert!(errors[1].to_string().contains("`session` are never recorded"));
    assert!(errors[2].to_string().contains("redact in [record] names /*/name"));
}

#[test]
fn the_defaults_are_in_order() {
    assert_eq!(check(&[rule("a", "property:correlation_id")], &RecordSpec::default()), []);
}
