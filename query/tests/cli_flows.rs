//! `flowtap why`, `flows` and `tail`: words, exit codes, pages, and where they ask.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};

use common::{BOOT_1, BOOT_2, Inbox, NOON, SECOND, cars, id, row};
use flowtap_record::{Encoding, Field, Kind, Outcome, RowRef, Seq};
use serde_json::Value;

fn flowtap() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowtap"));
    for variable in ["FLOWTAP_STORE", "FLOWTAP_LOG", "FLOWTAP_SERVER", "FLOWTAP_TOKEN_FILE"] {
        command.env_remove(variable);
    }
    command
}

fn ask(store: &Inbox, args: &[&str]) -> Output {
    flowtap().args(args).args(["--store", &store.url()]).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Ends a process with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn why_answers_from_a_store_in_words_and_ends_by_the_state() {
    let store = cars();
    let broken = ask(&store, &["why", "1042"]);
    assert_eq!(broken.status.code(), Some(3), "{broken:?}");
    // Lines are broken where the width of a page ends.
    let words = text(&broken.stdout).replace('\n', " ");
    assert!(words.starts_with("BROKEN at factory"), "{words}");
    assert!(words.contains("and rejected it after 35 ms"), "{words}");
    assert!(words.contains("flow order-1042"), "{words}");
    for (id, code) in [("order-1043", 0), ("order-1045", 4), ("nothing-of-it", 6)] {
        assert_eq!(ask(&store, &["why", id]).status.code(), Some(code), "{id}");
    }
    assert!(text(&ask(&store, &["why", "none"]).stdout).starts_with("NOT FOUND"));
    assert_eq!(ask(&store, &["why", ""]).status.code(), Some(2));
    assert_eq!(flowtap().arg("why").output().unwrap().status.code(), Some(2));
    let json = ask(&store, &["why", "1042", "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["flow"]["summary"]["flow"], "order-1042");
}

#[test]
fn why_ends_with_5_where_a_group_went_past_a_record_without_taking_it() {
    let store = Inbox::new();
    let kafka = |kind, seconds: i64| {
        let mut row = row(kind, NOON - seconds * SECOND);
        (row.place.system, row.place.vhost) = (Some("kafka"), None);
        row.place.destination = Some("cars");
        row.place.partition = Some(1);
        row
    };
    let mut publish = kafka(Kind::Publish, 30);
    publish.who.service = Some("factory");
    publish.message.ids.event_id = id("painted-1");
    publish.message.ids.transaction_id = id("order-1");
    publish.session.confirm_expected = Some(true);
    let mut confirm = publish.clone();
    (confirm.kind, confirm.outcome) = (Kind::Confirm, Some(Outcome::Confirmed));
    confirm.concludes = Some(RowRef { boot: None, seq: Seq(1) });
    confirm.message.message = Some("one/cars/1/57");
    confirm.place.log_offset = Some(57);
    store.put("factory-a1", BOOT_1, 1, &[publish, confirm]);

    let session = |details| {
        let mut row = kafka(Kind::Session, 55);
        row.outcome = Some(Outcome::Opened);
        (row.place.destination, row.place.partition) = (None, None);
        row.details = Some(details);
        row
    };
    let position = |seconds, offset| {
        let mut row = kafka(Kind::Position, seconds);
        row.place.log_offset = Some(offset);
        row
    };
    let mut rows = [
        session(r#"{"what":"member","generation":1}"#),
        session(r#"{"what":"assignment","generation":1,"assignment":{"cars":[0,1]}}"#),
        position(50, 50),
        position(20, 60),
    ];
    for row in &mut rows {
        row.who.service = Some("showroom");
        row.who.consumer = Some("m-1");
        row.place.subscription = Some("showroom");
    }
    store.put("showroom-b2", BOOT_2, 1, &rows);
    common::busy::says(&store, "factory-a1", BOOT_1, "factory");
    common::busy::says(&store, "showroom-b2", BOOT_2, "showroom");
    let output = ask(&store, &["why", "order-1"]);
    let words = text(&output.stdout);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert!(words.starts_with("SUSPECT at topic cars, group showroom"), "{words}");
}

#[test]
fn why_says_of_single_messages_that_they_are_no_flow() {
    let store = Inbox::new();
    let mut tick = row(Kind::Publish, NOON);
    tick.message.ids.event_id = id("tick-1");
    tick.message.keys = vec![Field { name: "car", value: "7", encoding: Encoding::Text }];
    store.put("shop-a1", BOOT_1, 1, &[tick]);
    let output = ask(&store, &["why", "7"]);
    assert_eq!(output.status.code(), Some(6));
    assert!(text(&output.stdout).contains("it is no flow"), "{output:?}");
}

#[test]
fn without_a_server_or_a_store_there_is_no_answer_and_the_way_out_is_said() {
    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = format!("http://{free}");
    let output = flowtap().args(["why", "1042", "--server", &server]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("--store URL"), "{output:?}");
    let wrong = flowtap().args(["why", "1042", "--server", "nowhere"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn a_store_wins_over_a_server_also_one_of_the_environment() {
    let store = cars();
    for variable in [true, false] {
        let mut command = flowtap();
        command.args(["why", "1042", "--store", &store.url()]);
        if variable {
            command.env("FLOWTAP_SERVER", "http://127.0.0.1:9");
        } else {
            command.args(["--server", "http://127.0.0.1:9"]);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{output:?}");
    }
}

#[test]
fn flows_are_a_table_in_pages() {
    let store = cars();
    let first = ask(&store, &["flows", "--limit", "2"]);
    assert_eq!(first.status.code(), Some(0), "{first:?}");
    let words = text(&first.stdout);
    let lines: Vec<&str> = words.lines().collect();
    assert!(lines[0].starts_with("STARTED (UTC)"), "{words}");
    assert!(lines[1].contains("order-1046") && lines[2].contains("order-1045"), "{words}");
    let cursor = words.lines().find_map(|line| line.strip_prefix("more: --cursor ")).unwrap();
    let next = text(&ask(&store, &["flows", "--limit", "2", "--cursor", cursor]).stdout);
    assert!(next.lines().nth(1).unwrap().contains("BROKEN"), "{next}");
    assert!(next.lines().nth(2).unwrap().contains("order-1043"), "{next}");
    let broken = ask(&store, &["flows", "--json", "--state", "broken", "--key", "order_id=1042"]);
    let broken: Value = serde_json::from_slice(&broken.stdout).unwrap();
    assert_eq!(broken["flows"].as_array().unwrap().len(), 1);
    for wrong in [&["flows", "--state", "sad"][..], &["flows", "--cursor", "x"]] {
        assert_eq!(ask(&store, wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn flows_are_found_by_the_type_of_a_message() {
    let store = cars();
    let named = |event_type| {
        let list = ask(&store, &["flows", "--json", "--type", event_type]);
        let list: Value = serde_json::from_slice(&list.stdout).unwrap();
        list["flows"].as_array().unwrap().len()
    };
    assert_eq!((named("PaymentTaken"), named("CarBuilt")), (4, 0));
}

#[test]
fn tail_shows_the_newest_and_then_what_changes() {
    let store = cars();
    let mut tail = Running(child_of(flowtap().args(["tail", "--json", "--store", &store.url()])));
    let mut lines = BufReader::new(tail.0.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let first: Vec<String> = (0..5).map(|_| next()["flow"].as_str().unwrap().to_owned()).collect();
    assert_eq!(first, ["order-1042", "order-1043", "order-1044", "order-1045", "order-1046"]);
    let mut late = row(Kind::Settle, NOON + 5 * SECOND);
    late.concludes = Some(RowRef { boot: None, seq: Seq(3) });
    late.outcome = Some(Outcome::Rejected);
    late.message.ids.transaction_id = id("order-1045");
    late.message.ids.event_id = id("e-4");
    late.place.subscription = Some("factory.payments");
    store.put("factory-b2", BOOT_1, 4, &[late]);
    let changed = next();
    assert_eq!((&changed["flow"], &changed["state"]), (&"order-1045".into(), &"broken".into()));
}

#[test]
fn tail_goes_on_after_a_server_that_was_away() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let page = |flow: &str| {
        let list = format!(
            r#"{{"flows":[{{"flow":"{flow}","state":"healthy","headline":"HEALTHY","sentence":"","service":null,"reason":null,"type":null,"command":null,"started_at":"","last_at":"","last_step":null,"keys":[],"services":[],"systems":[],"messages":1,"records":1,"truncated":false}}],"next":null,"searched_to":null,"coverage":{{"complete_to":null,"live":0,"total":0,"silent":[],"gaps":[],"sentence":"","read_at":null,"stale":false,"searched_from":null}}}}"#
        );
        let length = list.len();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{list}")
    };
    let server = std::thread::spawn(move || {
        let away = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        for answer in [page("one"), away.to_owned(), page("two")] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let mut tail = Running(child_of(flowtap().args(["tail", "--json", "--server", &url])));
    let mut lines = BufReader::new(tail.0.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("\"one\""));
    assert!(lines.next().unwrap().unwrap().contains("\"two\""));
    server.join().unwrap();
}

fn child_of(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}
