use super::*;
use crate::identify::Redact;

fn recorder(headers: HeaderPolicy) -> HeaderRecorder {
    HeaderRecorder::new(&RecordSpec { headers, ..RecordSpec::default() })
}

fn all() -> HeaderRecorder {
    recorder(HeaderPolicy::All)
}

fn value(recorder: &HeaderRecorder, name: &str, value: &Value<'_>) -> String {
    recorder.value(name.as_bytes(), value).0.to_string()
}

fn text(input: &str) -> String {
    value(&all(), "meta", &Value::Bytes(input.as_bytes()))
}

#[test]
fn policies_choose_headers() {
    let ids = recorder(HeaderPolicy::Ids);
    assert!(ids.takes(b"x-flow", true) && !ids.takes(b"x-flow", false));
    let named = recorder(HeaderPolicy::Named(vec!["x-*".into(), "Tenant".into()]));
    assert!(named.takes(b"X-Flow", false) && named.takes(b"tenant", false));
    assert!(!named.takes(b"flow", true));
    let none = recorder(HeaderPolicy::Named(vec![]));
    assert!(!none.takes(b"x-flow", true));
    assert!(all().takes(b"anything", false));
}

#[test]
fn excluded_names_are_never_recorded() {
    let named = recorder(HeaderPolicy::Named(vec!["a*".into()]));
    for recorder in [all(), named, recorder(HeaderPolicy::Ids)] {
        assert!(!recorder.takes(b"Authorization", true));
    }
}

#[test]
fn exception_types_are_recorded_and_their_texts_only_when_asked_for() {
    let opted = HeaderRecorder::new(&RecordSpec {
        headers: HeaderPolicy::All,
        exception_texts: true,
        ..RecordSpec::default()
    });
    for recorder in [all(), opted.clone()] {
        assert!(recorder.takes(b"NServiceBus.ExceptionInfo.ExceptionType", false));
        assert!(recorder.takes(b"MT-Fault-ExceptionType", false));
    }
    assert!(!all().takes(b"x-exception-message", false));
    assert!(opted.takes(b"x-exception-message", false));
    // rascal 21.0.1 as captured
    let rascal = Value::Table(vec![
        (b"originalQueue", Value::Bytes(b"q.ras")),
        (b"error", Value::Table(vec![(b"message", Value::Bytes(b"boom for Ada"))])),
    ]);
    assert_eq!(
        value(&all(), "rascal", &rascal),
        r#"{"originalQueue":"q.ras","error":"[redacted]"}"#
    );
    assert!(value(&opted, "rascal", &rascal).contains("boom"));
}

#[test]
fn secrets_in_nested_tables_are_redacted() {
    let table = Value::Table(vec![
        (b"order", Value::Int(7)),
        (
            b"http",
            Value::Array(vec![Value::Table(vec![
                (b"Authorization", Value::Bytes(b"Bearer abc")),
                (b"user-agent", Value::Bytes(b"curl")),
            ])]),
        ),
    ]);
    assert_eq!(
        all().value(b"meta", &table),
        (
            Text::Lent(
                r#"{"order":7,"http":[{"Authorization":"[redacted]","user-agent":"curl"}]}"#
            ),
            Encoding::Json
        )
    );
}

#[test]
fn secrets_in_json_texts_are_redacted() {
    assert_eq!(text(r#"{"a": 1.10}"#), r#"{"a": 1.10}"#);
    assert_eq!(
        text(r#"[{"apiToken":"abc","n":{"pwd":[1]}}]"#),
        r#"[{"apiToken":"[redacted]","n":{"pwd":"[redacted]"}}]"#
    );
    assert_eq!(text(r#"{"to\u006ben":"abc"}"#), r#"{"token":"[redacted]"}"#);
    assert_eq!(
        text(r#"{"inner":"{\"token\":\"abc\"}"}"#),
        r#"{"inner":"{\"token\":\"[redacted]\"}"}"#
    );
    assert_eq!(text(r#""{\"token\":\"abc\"}""#), r#""{\"token\":\"[redacted]\"}""#);
    // Not JSON after all, but something in it looks like a secret.
    assert_eq!(text("{token: abc}"), "[redacted]");
    assert_eq!(text("[object Object]"), "[object Object]");
    let nested = Value::Table(vec![(b"raw", Value::Bytes(br#"{"secret":1}"#))]);
    assert_eq!(value(&all(), "meta", &nested), r#"{"raw":"{\"secret\":\"[redacted]\"}"}"#);
}

#[test]
fn secrets_in_urls_and_baggage_are_redacted() {
    assert_eq!(text("amqp://me:hunter2@rabbit:5672/"), "amqp://[redacted]@rabbit:5672/");
    assert_eq!(
        text("http://a:b@c, http://d:e@[::1]"),
        "http://[redacted]@c, http://[redacted]@[::1]"
    );
    let baggage = Value::Bytes(b"tenant=eu,session-id=abc;x=1, order-id=1042");
    assert_eq!(value(&all(), "baggage", &baggage), "tenant=eu, order-id=1042");
    assert_eq!(value(&all(), "Correlation-Context", &baggage), "tenant=eu, order-id=1042");
}

#[test]
fn configured_headers_are_redacted_and_give_no_ids() {
    let recorder = HeaderRecorder::new(&RecordSpec {
        headers: HeaderPolicy::All,
        redact: vec![Redact::parse("X-Customer").unwrap()],
        ..RecordSpec::default()
    });
    assert_eq!(value(&recorder, "x-customer", &Value::Bytes(b"Ada")), "[redacted]");
    assert!(recorder.takes(b"x-customer", false) && recorder.is_redacted(b"X-Customer"));
    let table = Value::Table(vec![(b"x-customer", Value::Bytes(b"Ada"))]);
    assert_eq!(value(&recorder, "meta", &table), r#"{"x-customer":"[redacted]"}"#);
    for (name, hidden, clean) in [
        ("meta", r#"{"a":[{"X-Customer":"Ada"}]}"#, r#"{"a":[{"X-Customer":"[redacted]"}]}"#),
        ("meta", r#"{"x-custom\u0065r":"Ada"}"#, r#"{"x-customer":"[redacted]"}"#),
        ("baggage", "tenant=eu, x-customer = Ada;p", "tenant=eu"),
        ("meta", "x-customer is Ada", "x-customer is Ada"),
    ] {
        assert_eq!(value(&recorder, name, &Value::Bytes(hidden.as_bytes())), clean);
    }
}

#[test]
fn values_are_encoded_as_the_contract_says() {
    let encoded = |value: &Value<'_>| {
        let (text, encoding) = all().value(b"h", value);
        (text.to_string(), encoding)
    };
    assert_eq!(encoded(&Value::Bytes(b"abc")), ("abc".into(), Encoding::Text));
    assert_eq!(encoded(&Value::Bytes(b"\xff\xfe")), ("//4=".into(), Encoding::Base64));
    for plain in [
        Value::Int(-3),
        Value::Bool(true),
        Value::Void,
        Value::Table(vec![(b"a\\\xff", Value::Array(vec![Value::Bytes(b"\"\\"), Value::Void]))]),
    ] {
        assert_eq!(encoded(&plain), plain.to_text());
    }
}

#[test]
fn large_and_deep_values_are_bounded() {
    let long = vec![b'x'; 100_000];
    assert_eq!(value(&all(), "h", &Value::Bytes(&long)), "[100000 bytes]");
    let table = Value::Array(vec![Value::Bytes(&long[..4000]); 1000]);
    assert_eq!(value(&all(), "h", &table), "[a table too large to record]");
    let mut deep = Value::Int(1);
    for _ in 0..200 {
        deep = Value::Array(vec![deep]);
    }
    assert!(value(&all(), "h", &deep).contains("nested too deep"));
    assert!(!all().takes(&long[..300], false));
}
