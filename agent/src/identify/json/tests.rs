use proptest::prelude::*;

use super::*;
use crate::identify::Redact;

fn pointer(text: &str) -> Pointer {
    Pointer::parse(text).unwrap()
}

fn redaction(texts: &[&str]) -> Redaction {
    let redact: Vec<_> = texts.iter().map(|text| Redact::parse(text).unwrap()).collect();
    Redaction::new(&redact)
}

/// Values at the pointers, and the keys as `name=value`.
fn read(body: &str, pointers: &[&str], keys: &KeyFilter) -> (Vec<Option<String>>, Vec<String>) {
    read_redacted(body, pointers, keys, &[])
}

fn read_redacted(
    body: &str,
    pointers: &[&str],
    keys: &KeyFilter,
    redact: &[&str],
) -> (Vec<Option<String>>, Vec<String>) {
    let mut wanted = Wanted::new();
    let slots: Vec<_> = pointers.iter().map(|text| wanted.add(&pointer(text))).collect();
    let facts = walk(body.as_bytes(), &wanted, keys, &redaction(redact));
    let values =
        slots.iter().map(|slot| facts.get(Some(*slot)).map(|text| text.to_string())).collect();
    let keys = facts.keys.iter().map(|(name, value)| format!("{}={}", &**name, &**value)).collect();
    (values, keys)
}

fn keys(body: &str) -> Vec<String> {
    read(body, &[], &KeyFilter::BuiltIn).1
}

#[test]
fn built_in_names_are_found_at_the_top_and_one_deeper() {
    let body = r#"{"order_id":"order-1042","orderId":7,"external_id":"x","uuid":"u","id":"plain",
        "customer_id":-3,"Id":"n","name":"Ada",
        "order":{"id":1,"car_id":"c-1","owner":{"owner_id":"too deep"}},
        "lines":[{"line_id":"in an array, two deep"}]}"#;
    assert_eq!(
        keys(body),
        [
            "order_id=order-1042",
            "orderId=7",
            "external_id=x",
            "uuid=u",
            "customer_id=-3",
            "Id=n",
            "car_id=c-1"
        ]
    );
}

#[test]
fn an_outermost_array_counts_as_one_level() {
    assert_eq!(
        keys(r#"[{"order_id":1,"a":{"b_id":"two deep"}},{"order_id":2},[{"c_id":3}]]"#),
        ["order_id=1", "order_id=2"]
    );
}

#[test]
fn only_short_texts_and_integers_are_keys() {
    let long = "é".repeat(65);
    let most = "é".repeat(64);
    let body = format!(
        r#"{{"a_id":true,"b_id":1.5,"c_id":null,"d_id":[1],"e_id":{{}},"f_id":"","g_id":"null",
            "h_id":"{long}","i_id":"{most}","j_id":18446744073709551615,"k_id":"a\tb",
            "l_id":"00000000-0000-0000-0000-000000000000"}}"#
    );
    assert_eq!(keys(&body), [format!("i_id={most}"), "j_id=18446744073709551615".to_owned()]);
}

#[test]
fn names_of_secrets_give_no_keys_and_nothing_inside_them_does() {
    let body = r#"{"session_id":"s","cardId":"4111","auth":{"user_id":"u"},"to\u006ben_id":"t",
        "phone":{"country_id":"de"},"order_id":1}"#;
    assert_eq!(keys(body), ["order_id=1"]);
    let all = KeyFilter::Named(vec!["*".into()]);
    assert_eq!(read(body, &[], &all).1, ["order_id=1"]);
}

#[test]
fn named_keys_replace_the_built_in_ones() {
    let named = KeyFilter::Named(vec!["vin".into(), "*_no".into()]);
    let body = r#"{"vin":"V1","order_id":1,"a":{"invoice_no":"I-1"}}"#;
    assert_eq!(read(body, &[], &named).1, ["vin=V1", "invoice_no=I-1"]);
    assert_eq!(read(body, &[], &KeyFilter::Off).1, Vec::<String>::new());
}

#[test]
fn equal_keys_count_once_and_there_is_a_limit() {
    assert_eq!(keys(r#"{"a_id":1,"x":{"a_id":1},"y":{"a_id":2}}"#), ["a_id=1", "a_id=2"]);
    let members: Vec<_> = (0..40).map(|n| format!(r#""k{n}_id":{n}"#)).collect();
    let body = format!("{{{}}}", members.join(","));
    let facts = walk(body.as_bytes(), &Wanted::new(), &KeyFilter::BuiltIn, &redaction(&[]));
    assert_eq!((facts.keys.len(), facts.keys_left_out), (MAX_KEYS, 8));
}

#[test]
fn pointers_find_scalars_at_any_depth_and_in_arrays() {
    let body = r#"{"meta":{"flow":"f-1","a/b":{"~":7},"yes":true,"no":null,"obj":{}},
        "rows":[{"n":"first"},{"n":"sec\u006fnd"}],"":"empty name"}"#;
    let pointers = [
        "/meta/flow",
        "/meta/a~1b/~0",
        "/meta/yes",
        "/meta/no",
        "/meta/obj",
        "/rows/1/n",
        "/rows/2/n",
        "/",
        "/meta/flow/deeper",
    ];
    let found = read(body, &pointers, &KeyFilter::Off).0;
    let found: Vec<_> = found.iter().map(Option::as_deref).collect();
    assert_eq!(
        found,
        [
            Some("f-1"),
            Some("7"),
            Some("true"),
            None,
            None,
            Some("second"),
            None,
            Some("empty name"),
            None
        ]
    );
}

#[test]
fn of_a_repeated_name_the_last_counts() {
    assert_eq!(read(r#"{"a":1,"a":"2"}"#, &["/a"], &KeyFilter::Off).0, [Some("2".to_owned())]);
    assert_eq!(read(r#"{"a":1,"a":{}}"#, &["/a"], &KeyFilter::Off).0, [None]);
}

#[test]
fn a_body_that_is_not_whole_valid_json_gives_nothing() {
    let good = r#"{"order_id":"o-1","flow":"f"}"#;
    assert_eq!(keys(good).len(), 1);
    for bad in [
        r#"{"order_id":"o-1","flow":"f""#,
        r#"{"order_id":"o-1","flow":"f"} x"#,
        r#"{"order_id":"o-1","flow":f}"#,
        r#"{"order_id":"o-1",}"#,
        "",
        "\u{feff}{\"order_id\":1}",
        "just text",
    ] {
        assert_eq!(read(bad, &["/flow"], &KeyFilter::BuiltIn), (vec![None], vec![]), "{bad}");
    }
    let invalid = b"{\"order_id\":\"o-1\",\"b\":\"\xff\"}";
    assert_eq!(walk(invalid, &Wanted::new(), &KeyFilter::BuiltIn, &redaction(&[])).keys, []);
}

#[test]
fn what_is_redacted_gives_no_key() {
    let body = r#"{"customer_id":1,"a":{"b_id":2,"c_id":3},"d":{"c_id":4}}"#;
    let redact = ["/customer_id", "/*/c_id"];
    assert_eq!(read_redacted(body, &[], &KeyFilter::BuiltIn, &redact).1, ["b_id=2"]);
    let above = ["/a", "/d"];
    assert_eq!(read_redacted(body, &[], &KeyFilter::BuiltIn, &above).1, ["customer_id=1"]);
    let in_array = ["/1/a_id"];
    let rows = r#"[{"a_id":1},{"a_id":2}]"#;
    assert_eq!(read_redacted(rows, &[], &KeyFilter::BuiltIn, &in_array).1, ["a_id=1"]);
    let named = ["D", "b_ID"];
    assert_eq!(
        read_redacted(body, &[], &KeyFilter::BuiltIn, &named).1,
        ["customer_id=1", "c_id=3"]
    );
}

#[test]
fn deep_nesting_does_not_overflow_the_stack() {
    let depth = 30_000;
    let body = format!(r#"{{"order_id":1,"x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert_eq!(keys(&body), ["order_id=1"]);
    let objects = r#"{"a":"#.repeat(depth) + "1" + &"}".repeat(depth);
    assert_eq!(read(&objects, &["/a/a/a"], &KeyFilter::BuiltIn).0, [None]);
    let open = "[".repeat(60_000);
    assert_eq!(read(&open, &["/0/0/0"], &KeyFilter::BuiltIn).0, [None]);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(body: Vec<u8>) {
        let mut wanted = Wanted::new();
        wanted.add(&pointer("/a/0/b"));
        walk(&body, &wanted, &KeyFilter::BuiltIn, &redaction(&["b"]));
    }

    #[test]
    fn pointers_are_printed_as_they_are_read(steps in prop::collection::vec("[a-z/~*]{0,4}", 1..5)) {
        let written = Pointer(steps.iter().map(|step| step.as_str().into()).collect());
        prop_assert_eq!(Pointer::parse(&written.to_string()).unwrap(), written);
    }
}
