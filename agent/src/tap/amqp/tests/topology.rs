//! What a client declares, binds and deletes, as rows.

use super::*;

/// A method that the broker agrees to.
fn agreed(wire: &mut Wire, (class, ask): (u16, u16), arguments: &[u8]) {
    wire.client(&method(1, class, ask, arguments));
    wire.broker(&method(1, class, ask + 1, b""));
}

/// What each row says: outcome, what, exchange, queue, key.
fn said(wire: &Wire) -> Vec<[Json; 5]> {
    let said = |row: &&Json| {
        let place = &row["place"];
        [
            row["outcome"].clone(),
            row["details"]["what"].clone(),
            place["destination"].clone(),
            place["subscription"].clone(),
            place["routing_key"].clone(),
        ]
    };
    wire.rows("Topology").iter().map(said).collect()
}

fn bind(queue: &str, exchange: &str, key: &str, arguments: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let names = [short(queue), short(exchange), short(key)].concat();
    [b"\0\0".as_slice(), &names, b"\0", &table(arguments)].concat()
}

#[test]
fn what_is_unbound_purged_and_deleted_is_a_row() {
    let mut wire = Wire::open();
    let unbind = [b"\0\0".as_slice(), &short("q"), &short("x"), &short("k"), &table(&[])].concat();
    wire.client(&method(1, 50, 50, &unbind));
    wire.broker(&method(1, 50, 51, b""));
    agreed(&mut wire, (50, 30), &[b"\0\0".as_slice(), &short("q"), &[0]].concat());
    agreed(&mut wire, (50, 40), &[b"\0\0".as_slice(), &short("q"), &[0]].concat());
    agreed(&mut wire, (40, 20), &[b"\0\0".as_slice(), &short("x"), &[0]].concat());
    let want = [
        [json!("Unbound"), json!("binding"), json!("x"), json!("q"), json!("k")],
        [json!("Purged"), json!("queue"), Json::Null, json!("q"), Json::Null],
        [json!("Deleted"), json!("queue"), Json::Null, json!("q"), Json::Null],
        [json!("Deleted"), json!("exchange"), json!("x"), Json::Null, Json::Null],
    ];
    assert_eq!(said(&wire), want);
}

#[test]
fn a_binding_between_exchanges_says_from_which_to_which() {
    let mut wire = Wire::open();
    agreed(&mut wire, (40, 30), &bind("to", "from", "k", &[]));
    wire.client(&method(1, 40, 40, &bind("to", "from", "k", &[])));
    wire.broker(&method(1, 40, 51, b""));
    let row =
        |outcome: &str| [json!(outcome), json!("binding"), json!("from"), Json::Null, json!("k")];
    assert_eq!(said(&wire), [row("Bound"), row("Unbound")]);
    assert!(wire.rows("Topology").iter().all(|row| row["details"]["to"] == "to"));
}

#[test]
fn asking_whether_something_is_there_is_no_change() {
    let mut wire = Wire::open();
    let queue = [b"\0\0".as_slice(), &short("q"), &[1], &table(&[])].concat();
    wire.client(&method(1, 50, 10, &queue));
    wire.broker(&method(1, 50, 11, &[short("q").as_slice(), &[0; 8]].concat()));
    let exchange = [b"\0\0".as_slice(), &short("x"), &short(""), &[1], &table(&[])].concat();
    agreed(&mut wire, (40, 10), &exchange);
    assert!(wire.rows("Topology").is_empty());
}

#[test]
fn what_the_broker_does_not_agree_to_is_no_row() {
    let mut wire = Wire::open();
    wire.client(&method(1, 50, 20, &bind("q", "missing", "k", &[])));
    wire.broker(&channel_close(1, 404, "NOT_FOUND - no exchange 'missing'"));
    assert!(wire.rows("Topology").is_empty());
}

#[test]
fn an_answer_to_channel_flow_agrees_to_nothing_else() {
    let mut wire = Wire::open();
    wire.client(&method(1, 20, 20, b"\x01"));
    wire.client(&method(1, 50, 20, &bind("q", "x", "k", &[])));
    wire.broker(&method(1, 20, 21, b"\x01"));
    assert!(wire.rows("Topology").is_empty());
    wire.broker(&method(1, 50, 21, b""));
    assert_eq!(wire.rows("Topology").len(), 1);
}

#[test]
fn arguments_that_are_named_like_secrets_are_not_recorded() {
    let mut wire = Wire::open();
    let secret = [("session_token", text("s3cret")), ("x-match", text("all"))];
    agreed(&mut wire, (50, 20), &bind("q", "x", "", &secret));
    let queue = [b"\0\0".as_slice(), &short("q"), &[0], &table(&secret)].concat();
    wire.client(&method(1, 50, 10, &queue));
    wire.broker(&method(1, 50, 11, &[short("q").as_slice(), &[0; 8]].concat()));
    let exchange =
        [b"\0\0".as_slice(), &short("x"), &short("headers"), &[0], &table(&secret)].concat();
    agreed(&mut wire, (40, 10), &exchange);
    let rows = wire.rows("Topology");
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row["details"]["arguments"] == json!({"x-match": "all"})));
}
