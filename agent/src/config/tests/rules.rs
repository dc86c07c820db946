//! What is said of `[[rule]]` and `[record]`.

use insta::assert_snapshot;

use super::{FLAGS, File, load};

#[test]
fn what_rules_and_record_cannot_do_is_told_with_its_line() {
    let file = File::new(
        r#"service = "billing"
[record]
max_bytes = "1GiB"
redact = ["customer", "/order/note"]
[[tap]]
kind = "amqp"
listen = "127.0.0.1:5673"
broker = "amqp://rabbit"
[[rule]]
name = "a"
event_id = "body:/customer/id"
transaction_id = "body:/order/note/flow"
[[rule]]
name = "a"
topic = "orders"
event_id = "property:message_id"
[rule.keys]
order = "body:/order/no"
card_no = "key"
login = "header:x-session-id"
[[rule]]
name = "a name that is longer than sixty-four characters, which nobody would want to read"
trace_id = "header:x-trace"
[[rule]]
name = "nothing"
[[rule]]
name = "unread"
event_id = "x-order"
"#,
    );
    assert_snapshot!(file.errors(), @r#"
    10 errors in the configuration
      agent.toml:3: record.max_bytes: 1073741824 is out of range: write 1 to 16777216; payload = "none" records no payloads
      agent.toml:11: rule[0].event_id: `body:/customer/id` cannot be read: redact in [record] names customer
      agent.toml:12: rule[0].transaction_id: `body:/order/note/flow` cannot be read: redact in [record] names /order/note
      agent.toml:14: rule[1].name: there are two rules `a`: give each its own name
      agent.toml:16: rule[1].event_id: `property:message_id` is never there: rule `a` is for topics, and a Kafka record has no properties; write header:NAME, body:/json/pointer or key
      agent.toml:19: rule[1].keys.card_no: names that contain `card` are never recorded; take a value that is neither a secret nor about a person
      agent.toml:20: rule[1].keys.login: names that contain `session` are never recorded; take a value that is neither a secret nor about a person
      agent.toml:22: rule[2].name: a rule needs a name of 1 to 64 printable characters
      agent.toml:25: rule[3].name: rule `nothing` finds nothing: give it at least one of event_id, event_type, transaction_id, causation_id, command, command_id, trace_id, keys
      agent.toml:28: rule[4].event_id: `x-order` does not say where to look: write header:NAME, property:NAME, body:/json/pointer or key
    "#);
}

#[test]
fn keys_of_a_rule_are_a_table_or_pairs_between_commas() {
    let file = File::new(
        r#"service = "billing"
[[tap]]
kind = "amqp"
listen = "127.0.0.1:5673"
broker = "amqp://rabbit"
[[rule]]
name = "a"
[rule.keys]
order = "body:/order/no"
"#,
    );
    let order = ("order".to_owned(), "body:/order/no".to_owned());
    assert_eq!(file.load(&[], &[]).unwrap().rules[0].keys, [order]);
    let given =
        |value| load(None, &[("FLOWTAP_RULE_0_NAME", "a"), ("FLOWTAP_RULE_0_KEYS", value)], &FLAGS);
    let keys = given("order=body:/a=b, shop = header:x-shop").unwrap().rules[0].keys.clone();
    let shown: Vec<String> = keys.iter().map(|(name, at)| format!("{name} {at}")).collect();
    assert_eq!(shown, ["order body:/a=b", "shop header:x-shop"]);
    for (value, told) in [
        ("order", "\"order\" is no pair: want name=text"),
        ("order=x-order", "order: `x-order` does not say where to look"),
        ("order=key,order=header:x", "\"order\" stands twice"),
        ("", "finds nothing"),
    ] {
        let errors = given(value).unwrap_err();
        assert!(errors.contains(told), "{errors}");
    }
    let file = File::new("service = \"a\"\n[[rule]]\nname = \"a\"\nkeys = [\"order\"]\n");
    assert!(
        file.errors().contains("agent.toml:4: rule[0].keys: want a table"),
        "{}",
        file.errors()
    );
    let file =
        File::new("service = \"a\"\n[[rule]]\nname = \"a\"\n[rule.keys.order]\nx = \"key\"\n");
    assert!(
        file.errors().contains("agent.toml:4: rule[0].keys.order: want text"),
        "{}",
        file.errors()
    );
}
