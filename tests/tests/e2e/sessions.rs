//! Connections and their consumers as rows, connections that are idle, and an agent that can take
//! no more of them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use flowtap_tests::process::run;
use flowtap_tests::rabbitmq::{BOTH, Version};
use flowtap_tests::raw::{Args, Hello, Raw, method};
use flowtap_tests::{available, cache_dir, wait_until};
use rustix::process::{Pid, Resource, Rlimit};
use serde_json::json;

use crate::support::scene;

#[test]
fn a_connection_and_its_consumer_say_who_where_and_how() {
    for version in BOTH {
        let Some(scene) = scene(version) else { continue };
        let mut shop = scene.sidecar("shop");
        let mut client = Raw::connect(shop.port(), &Hello::new(scene.vhost.name()));
        let from = client.stream().local_addr().expect("connected");
        client.open(1);
        client.queue(1, "q");
        client.call(1, (60, 10), Args::new().u32(0).u16(7).u8(0), (60, 11));
        client.call(1, (60, 10), Args::new().u32(0).u16(70).u8(1), (60, 11));
        let arguments = Args::new().number("x-priority", 3);
        let consume = Args::new().u16(0).short("q").short("c").u8(4).long(arguments);
        client.call(1, (60, 20), consume, (60, 21));
        let ports =
            scene.broker.ctl(&["-q", "list_connections", "peer_port", "--no-table-headers"]);
        client.close();
        shop.terminate();

        let opened = scene.store.sql(
            "SELECT details FROM history WHERE kind = 'session' AND outcome = 'opened' \
             AND channel IS NULL",
        );
        let details: serde_json::Value =
            serde_json::from_str(opened[0]["details"].as_str().expect("details")).expect("JSON");
        assert_eq!(details["client_address"], from.to_string());
        assert_eq!(details["local_address"], "127.0.0.1");
        let port = details["local_port"].to_string();
        assert!(ports.split_whitespace().any(|known| known == port), "{port} in {ports}");
        let consumer = scene.store.sql(
            "SELECT details FROM history WHERE kind = 'session' AND outcome = 'opened' \
             AND consumer = 'c' AND subscription = 'q'",
        );
        let details: serde_json::Value =
            serde_json::from_str(consumer[0]["details"].as_str().expect("details")).expect("JSON");
        let want = json!({
            "what": "consumer", "no_ack": false, "exclusive": true, "prefetch": 7,
            "channel_prefetch": 70, "priority": 3, "arguments": {"x-priority": 3},
        });
        assert_eq!(details, want);
    }
}

#[test]
fn a_login_that_the_broker_refuses_is_a_row() {
    for version in BOTH {
        let Some(scene) = scene(version) else { continue };
        let mut shop = scene.sidecar("shop");
        let mut client = Raw::silent(shop.port());
        client.send(b"AMQP\0\0\x09\x01");
        client.until((10, 10));
        let able = Args::new().truth("authentication_failure_close", true);
        let properties = Args::new().short("capabilities").u8(b'F').long(able);
        let login =
            Args::new().long(properties).short("PLAIN").long(b"\0mallory\0wrong").short("en_US");
        client.send(&method(0, (10, 11), login));
        client.connection_closed();
        shop.terminate();
        let rows = scene.store.sql(
            "SELECT outcome, principal, reason LIKE 'broker: 403 ACCESS_REFUSED%' AS refused, \
             json_get(details, '/opened') AS opened FROM history WHERE kind = 'session'",
        );
        let want = json!({
            "outcome": "closed", "principal": "mallory", "refused": true, "opened": "false",
        });
        assert_eq!(rows, [want], "{version:?}");
    }
}

/// Connects with heartbeats of two seconds, is idle for several of them, and uses the connection.
const IDLE: &str = r#"
import pika, sys
port, vhost = int(sys.argv[1]), sys.argv[2]
c = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port, vhost, heartbeat=2))
ch = c.channel()
c.sleep(9)
ch.queue_declare("q")
c.close()
"#;

#[test]
fn an_idle_connection_lives_on_its_heartbeats() {
    let python = cache_dir().join("venv/bin/python");
    if !available(python.exists(), "pika in a virtual environment") {
        return;
    }
    let Some(scene) = scene(Version::V3_10) else { return };
    let mut shop = scene.sidecar("shop");
    let mut client = Command::new(python);
    run(client.args(["-c", IDLE, &shop.port().to_string(), scene.vhost.name()]));
    shop.terminate();
    let closed = scene.store.sql(
        "SELECT reason LIKE 'client: 200%' AS in_order FROM history \
         WHERE kind = 'session' AND outcome = 'closed' AND channel IS NULL",
    );
    assert_eq!(closed, [json!({"in_order": true})]);
}

#[test]
fn an_agent_that_can_take_no_more_clients_is_not_live_until_it_can() {
    let Some(scene) = scene(Version::V3_10) else { return };
    let mut shop = scene.sidecar("shop");
    // Asked over one connection: the agent could take no other.
    let mut admin = TcpStream::connect(("127.0.0.1", shop.admin_port())).expect("it listens");
    let request = format!("GET /livez HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", shop.admin_port());
    let mut live = || {
        admin.write_all(request.as_bytes()).expect("the connection is open");
        let mut answer = [0; 4096];
        let count = admin.read(&mut answer).expect("an answer");
        answer[..count].starts_with(b"HTTP/1.1 200")
    };
    assert!(live());
    let pid = Pid::from_raw(i32::try_from(shop.pid()).expect("a pid")).expect("not 0");
    let most = |current: Option<u64>| {
        let before = rustix::process::prlimit(
            Some(pid),
            Resource::Nofile,
            Rlimit { current, maximum: rustix::process::getrlimit(Resource::Nofile).maximum },
        );
        before.expect("our own process").current
    };
    // Three it has always: no other can be opened.
    let before = most(Some(3));
    let client = TcpStream::connect(("127.0.0.1", shop.port())).expect("the backlog takes it");
    wait_until("it is not live", || !live());
    assert!(shop.log().contains("cannot forward any more"), "{}", shop.log());
    most(before);
    wait_until("it is live again", &mut live);
    drop(client);
    shop.terminate();
}
