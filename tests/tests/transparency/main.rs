//! What leaves the sidecar is what entered it: relays before and behind it write down every byte
//! of real clients' sessions. And the ways in and out: TLS, Unix sockets, brokers that are down,
//! refuse or die, frames of every size, very many channels and connections.

mod garbage;

use std::io::Read;

use flowtap_tests::client::Client;
use flowtap_tests::process::Folder;
use flowtap_tests::rabbitmq::{BOTH, Options as BrokerOptions, RabbitMq, Tls, Version, Vhost};
use flowtap_tests::raw::{self, Args, Hello, Raw, method};
use flowtap_tests::relay::{Passed, Relay, Target};
use flowtap_tests::sidecar::{Options, Sidecar};
use flowtap_tests::sql::Store;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::json;

/// Frames of a stream, the protocol header as a frame of its own.
fn frames(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    if bytes.starts_with(b"AMQP") {
        frames.push(&bytes[..8]);
        bytes = &bytes[8..];
    }
    while let Some(head) = bytes.first_chunk::<7>() {
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize + 8;
        let (frame, rest) = bytes.split_at(length.min(bytes.len()));
        frames.push(frame);
        bytes = rest;
    }
    frames
}

fn is_method(frame: &[u8], id: [u8; 4]) -> bool {
    frame[0] == 1 && frame.get(7..11) == Some(&id)
}

/// Whether the only difference is the mandatory bit of publishes; how many were changed.
fn bits_set(entered: &[u8], left: &[u8]) -> Option<usize> {
    let (entered, left) = (frames(entered), frames(left));
    if entered.len() != left.len() {
        return None;
    }
    let mut set = 0;
    for (before, after) in entered.iter().zip(&left) {
        if before == after {
            continue;
        }
        let mut marked = before.to_vec();
        let at = marked.len() - 2;
        marked[at] |= 1;
        if !is_method(before, *b"\0\x3c\0\x28") || marked != *after {
            return None;
        }
        set += 1;
    }
    Some(set)
}

/// Whether the only difference is returns that are missing; how many are.
fn returns_taken(entered: &[u8], left: &[u8]) -> Option<usize> {
    let entered = frames(entered);
    let left = frames(left);
    let mut left = left.iter().peekable();
    let mut taken = 0;
    // Channels whose frames are being left out: until their content is over.
    let mut taking: Option<[u8; 2]> = None;
    for frame in entered {
        let channel = [frame[1], frame[2]];
        if taking == Some(channel) && matches!(frame[0], 2 | 3) {
            continue;
        }
        if left.peek() == Some(&&frame) {
            left.next();
            taking = taking.filter(|taken| *taken != channel);
        } else if is_method(frame, *b"\0\x3c\0\x32") {
            taking = Some(channel);
            taken += 1;
        } else {
            return None;
        }
    }
    left.next().is_none().then_some(taken)
}

/// A sidecar with a relay before it and one behind it.
struct Watched<'a> {
    vhost: Vhost<'a>,
    before: Relay,
    behind: Relay,
    sidecar: Sidecar,
    store: Store,
    _folder: Folder,
}

fn watched(broker: &RabbitMq) -> Watched<'_> {
    let behind = Relay::start(Target::Port(broker.port()));
    let folder = Folder::new("store");
    let sidecar = Sidecar::start(&Options::new("shop", behind.port(), folder.url()));
    let before = Relay::start(Target::Port(sidecar.port()));
    let store = Store::new(folder.url());
    Watched { vhost: broker.vhost(), before, behind, sidecar, store, _folder: folder }
}

impl Watched<'_> {
    fn url(&self) -> String {
        self.vhost.url(self.before.port())
    }

    /// Compares, and returns how many bits were set and how many returns taken.
    fn changes(&mut self) -> (usize, usize) {
        self.sidecar.terminate();
        let entered = self.before.passed();
        let mut left = self.behind.passed();
        assert_eq!(entered.len(), left.len(), "as many connections to the broker as to the tap");
        let (mut bits, mut returns) = (0, 0);
        for connection in &entered {
            assert!(connection.up.len() > 300, "a session: {}", connection.up.len());
            // The two relays may have seen the connections in another order.
            let same = |other: &Passed| {
                let set = bits_set(&connection.up, &other.up)?;
                Some((set, returns_taken(&other.down, &connection.down)?))
            };
            let found = left.iter().position(|other| same(other).is_some());
            let found = found.expect("behind the sidecar is the same connection");
            let (set, taken) = same(&left.swap_remove(found)).expect("it was just found");
            bits += set;
            returns += taken;
        }
        (bits, returns)
    }
}

#[test]
fn sessions_of_pika_pass_unchanged_but_for_one_bit_and_the_returns_of_it() {
    sessions_of(Client::Pika);
}

#[test]
fn sessions_of_bunny_pass_unchanged_but_for_one_bit_and_the_returns_of_it() {
    sessions_of(Client::Bunny);
}

#[test]
fn sessions_of_amqplib_pass_unchanged_but_for_one_bit_and_the_returns_of_it() {
    sessions_of(Client::Amqplib);
}

#[test]
fn sessions_of_java_pass_unchanged_but_for_one_bit_and_the_returns_of_it() {
    sessions_of(Client::Java);
}

#[test]
fn sessions_of_celery_pass_unchanged_but_for_one_bit_and_the_returns_of_it() {
    if !Client::Celery.available() {
        return;
    }
    for version in BOTH {
        let Some(broker) = RabbitMq::shared(version) else { continue };
        let mut watched = watched(broker);
        let plan = ["ok", "ok", "fail"];
        let mut worker = Client::Celery
            .start(&json!({"role": "work", "url": watched.url(), "runs": plan.len()}));
        worker.await_ready();
        Client::Celery.run(&json!({"role": "produce", "url": watched.url(), "plan": plan}));
        worker.finish();
        // Celery's own events are published to an exchange that nobody may be bound to.
        let (bits, returns) = watched.changes();
        assert!(bits >= plan.len() && returns <= bits, "{version:?}: {bits}, {returns}");
    }
}

fn sessions_of(client: Client) {
    if !client.available() {
        return;
    }
    for version in BOTH {
        let Some(broker) = RabbitMq::shared(version) else { continue };
        for mandatory in [false, true] {
            let mut watched = watched(broker);
            let plan = ["ack", "nack", "reject", "requeue", "reject_requeue", "ack"].repeat(5);
            let mut consumer = client.start(&json!({
                "role": "consume", "url": watched.url(), "exchange": "orders", "type": "fanout",
                "queue": "history", "prefetch": 50, "deliveries": plan.len() + 10,
            }));
            consumer.await_ready();
            client.run(&json!({
                "role": "publish", "url": watched.url(), "exchange": "orders", "type": "fanout",
                "plan": plan, "unroutable": 7, "confirm": true, "mandatory": mandatory,
                "headers": {"tenant": "edison"},
            }));
            consumer.finish();
            let changes = watched.changes();
            assert_eq!(changes, if mandatory { (0, 0) } else { (37, 7) }, "{version:?}");
        }
    }
}

async fn lapin_publishes_and_consumes(url: &str) {
    let connection =
        Connection::connect(url, ConnectionProperties::default()).await.expect("connected");
    let publisher = connection.create_channel().await.expect("a channel");
    let consumer = connection.create_channel().await.expect("a channel");
    publisher.confirm_select(ConfirmSelectOptions::default()).await.expect("confirm mode");
    let queue = QueueDeclareOptions::default();
    publisher.queue_declare("q".into(), queue, FieldTable::default()).await.expect("declared");
    let mut deliveries = consumer
        .basic_consume(
            "q".into(),
            "c".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await
        .expect("consuming");
    let mut confirms = Vec::new();
    for number in 0..200_usize {
        // Bodies of none, one and several frames, of which some are above the limit for the bit.
        let body = vec![b'x'; [0, 1, 5_000, 70_000, 300_000][number % 5]];
        let properties = BasicProperties::default().with_message_id(format!("m-{number}").into());
        let key = if number % 4 == 0 { "nowhere" } else { "q" };
        let options = BasicPublishOptions { mandatory: number % 8 == 0, immediate: false };
        let sent = publisher.basic_publish("".into(), key.into(), options, &body, properties).await;
        confirms.push(sent.expect("sent"));
    }
    let mut returned = 0;
    for confirm in confirms {
        let answer = confirm.await.expect("confirmed");
        returned += usize::from(answer.take_message().is_some());
    }
    assert_eq!(returned, 25, "what it asked for, and no more");
    for _ in 0..150 {
        let delivery = futures::StreamExt::next(&mut deliveries).await.expect("one more");
        let delivery = delivery.expect("a delivery");
        delivery.acker.ack(BasicAckOptions::default()).await.expect("acked");
    }
    connection.close(200, "".into()).await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_lapin_pass_unchanged_but_for_one_bit_and_the_returns_of_it() {
    for version in BOTH {
        let Some(broker) = RabbitMq::shared(version) else { continue };
        let mut watched = watched(broker);
        lapin_publishes_and_consumes(&watched.url()).await;
        let (bits, returns) = watched.changes();
        // How many exactly depends on whether the client keeps up with its own returns.
        let set = "SELECT count(*) FROM publishes WHERE details = '{\"mandatory\":\"set\"}'";
        let taken = "SELECT count(*) FROM history WHERE kind = 'return' \
                     AND details = '{\"asked_by\":\"tap\"}'";
        let number = |query| usize::try_from(watched.store.number(query)).expect("a count");
        assert_eq!((number(set), number(taken)), (bits, returns), "{version:?}");
        assert!(bits > 0 && bits <= 105, "{version:?}: {bits}, {returns}");
        let rows = "SELECT count(*) FROM publishes WHERE outcome = 'unroutable'";
        assert_eq!(number(rows), 25 + returns);
        let acked = "SELECT count(*) FROM consumes WHERE outcome = 'acked'";
        assert_eq!(watched.store.number(acked), 150);
    }
}

/// Certificates in a folder, for `localhost`.
fn certificates(folder: &Folder) -> Tls {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Or else OpenSSL takes the server's certificate for one that signed itself.
    params.distinguished_name.push(DnType::CommonName, "authority of the tests");
    let key = || KeyPair::generate().expect("a key");
    let ca = CertifiedIssuer::self_signed(params, key()).expect("an authority");
    let server_key = key();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let server = CertificateParams::new(names).expect("names");
    let server = server.signed_by(&server_key, &ca).expect("a certificate");
    let tls = Tls {
        ca: ca.pem(),
        cert: server.pem(),
        key: server_key.serialize_pem(),
        client_certificate: false,
    };
    for (name, text) in [("ca.pem", &tls.ca), ("cert.pem", &tls.cert), ("key.pem", &tls.key)] {
        std::fs::write(folder.path().join(name), text).expect("our own folder");
    }
    tls
}

#[test]
fn tls_on_both_sides_and_on_either_gives_the_same_rows() {
    if !Client::Pika.available() {
        return;
    }
    for version in BOTH {
        let pki = Folder::new("pki");
        let tls = certificates(&pki);
        let options = BrokerOptions { tls: Some(tls), ..BrokerOptions::default() };
        let Some(broker) = RabbitMq::start_with(version, &options) else { continue };
        let at = |name: &str| pki.path().join(name).display().to_string();
        let tap =
            [format!("tls.cert = {:?}", at("cert.pem")), format!("tls.key = {:?}", at("key.pem"))];
        let behind = [
            format!("broker = \"amqps://localhost:{}\"", broker.tls_port().expect("it has one")),
            format!("tls.ca = {:?}", at("ca.pem")),
        ];
        for (tls_before, tls_behind) in [(true, true), (true, false), (false, true)] {
            let folder = Folder::new("store");
            let mut options = Options::new("shop", broker.port(), folder.url());
            options.tap.extend(tap.iter().filter(|_| tls_before).cloned());
            options.tap.extend(behind.iter().filter(|_| tls_behind).cloned());
            let mut sidecar = Sidecar::start(&options);
            let vhost = broker.vhost();
            let mut url = vhost.url(sidecar.port());
            if tls_before {
                let ca = at("ca.pem");
                url = url.replace("amqp://", "amqps://");
                let options = format!("{{'ca_certs':'{ca}','server_hostname':'localhost'}}");
                url = format!("{url}?ssl_options={options}");
            }
            Client::Pika.run(&json!({
                "role": "publish", "url": url, "exchange": "orders", "type": "fanout",
                "plan": vec!["ack"; 20], "unroutable": 3, "confirm": true, "mandatory": false,
            }));
            sidecar.terminate();
            let store = Store::new(folder.url());
            let confirmed = "SELECT count(*) FROM history WHERE kind = 'confirm'";
            assert_eq!(store.number(confirmed), 23, "{version:?}");
            // Nothing is bound to either exchange.
            let returned = "SELECT count(*) FROM publishes WHERE outcome = 'unroutable'";
            assert_eq!(store.number(returned), 23, "{version:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_is_a_way_in() {
    let Some(broker) = RabbitMq::shared(Version::V3_10) else { return };
    let folder = Folder::new("store");
    let socket = folder.path().join("tap.sock");
    let mut options = Options::new("shop", broker.port(), folder.url());
    options.tap.push(format!("listen = \"unix:{}\"", socket.display()));
    let mut sidecar = Sidecar::start(&options);
    let relay = Relay::start(Target::Unix(socket));
    let vhost = broker.vhost();
    lapin_publishes_and_consumes(&vhost.url(relay.port())).await;
    sidecar.terminate();
    let store = Store::new(folder.url());
    let rows = store.sql("SELECT DISTINCT outcome FROM consumes");
    assert_eq!(rows, [json!({"outcome": "acked"})]);
}

#[test]
fn a_broker_that_is_down_is_seen_as_a_connection_that_fails() {
    let folder = Folder::new("store");
    // Nobody listens there.
    let port = flowtap_tests::net::free_port();
    let mut sidecar = Sidecar::start(&Options::new("shop", port, folder.url()));
    let mut client = Raw::silent(sidecar.port());
    // Only read: a write that meets the reset takes the error away from the read after it.
    let error = client.stream().read(&mut [0; 8]).expect_err("no orderly end");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(sidecar.metrics().contains("flowtap_agent_dial_failures_total"));
    sidecar.terminate();
}

#[test]
fn a_broker_that_dies_ends_its_connections_and_the_next_one_finds_it_again() {
    for version in BOTH {
        let Some(broker) = RabbitMq::start(version) else { continue };
        let folder = Folder::new("store");
        let mut sidecar = Sidecar::start(&Options::new("shop", broker.port(), folder.url()));
        let vhost = broker.vhost();
        let connect = || {
            let mut client = Raw::connect(sidecar.port(), &Hello::new(vhost.name()));
            client.open(1);
            client
        };
        let mut client = connect();
        client.queue(1, "q");
        client.send(&raw::message(1, b"", b"q", 0, (0, b""), b"x"));
        client.consume(1, "q", "c", 0);
        client.delivery();
        broker.kill9();
        client.until_end();
        broker.restart();
        let mut client = connect();
        client.queue(1, "q");
        client.close();
        sidecar.terminate();
        let store = Store::new(folder.url());
        let rows = store.sql("SELECT outcome FROM consumes");
        assert_eq!(rows, [json!({"outcome": "abandoned"})]);
        let closed = "SELECT count(*) FROM history WHERE kind = 'session' AND channel IS NULL \
                      AND outcome = 'closed'";
        assert_eq!(store.number(closed), 2);
    }
}

#[test]
fn a_connection_for_each_publish_is_ordinary() {
    for version in BOTH {
        let Some(broker) = RabbitMq::shared(version) else { continue };
        let mut watched = watched(broker);
        for number in 0..100 {
            let hello = Hello::new(watched.vhost.name());
            let mut client = Raw::connect(watched.before.port(), &hello);
            client.open(1);
            client.queue(1, "q");
            let key: &[u8] = if number % 10 == 0 { b"nowhere" } else { b"q" };
            client.send(&raw::message(1, b"", key, 0, (0, b""), b"x"));
            client.close();
            assert!(client.transcript.iter().all(|frame| frame.id() != Some((60, 50))));
        }
        assert_eq!(watched.changes(), (100, 10));
        let unroutable = "SELECT count(*) FROM publishes WHERE outcome = 'unroutable'";
        assert_eq!(watched.store.number(unroutable), 10);
        let sessions = "SELECT count(*) FROM history WHERE kind = 'session' AND channel IS NULL";
        assert_eq!(watched.store.number(sessions), 200);
    }
}

#[test]
fn frames_of_every_size_pass() {
    for version in BOTH {
        let Some(broker) = RabbitMq::shared(version) else { continue };
        let mut watched = watched(broker);
        let frame_maxes = [4096, 8192, 131_072];
        for frame_max in frame_maxes {
            let hello = Hello { frame_max, ..Hello::new(watched.vhost.name()) };
            let mut client = Raw::connect(watched.before.port(), &hello);
            client.open(1);
            client.queue(1, "q");
            let body: Vec<u8> = (0..300_000_u32).map(|at| (at * 31 / 7) as u8).collect();
            client.send(&raw::publish(1, b"", b"q", 0));
            client.send(&raw::header(1, body.len() as u64, 0, b""));
            for piece in body.chunks(frame_max as usize - 8) {
                client.send(&raw::frame(raw::BODY, 1, piece));
            }
            client.fence(1);
            let (_, got) = client.get(1, "q").expect("a message");
            assert!(got == body, "the same body");
            client.ack(1, u64::from(1_u8), false);
            client.close();
        }
        assert_eq!(watched.changes(), (0, 0), "above the limit for the bit");
        let messages = "SELECT count(DISTINCT message) FROM history \
                        WHERE kind IN ('publish', 'deliver') AND size = 300000";
        assert_eq!(watched.store.number(messages), 1);
    }
}

#[test]
fn thousands_of_channels_on_one_connection() {
    let channels = 2000_u16;
    for version in BOTH {
        let Some(broker) = RabbitMq::shared(version) else { continue };
        let mut watched = watched(broker);
        let mut client = Raw::connect(watched.before.port(), &Hello::new(watched.vhost.name()));
        client.open(1);
        client.queue(1, "q");
        for channel in 2..=channels {
            client.send(&method(channel, (20, 10), Args::new().short("")));
        }
        client.until_count((20, 11), usize::from(channels), 0);
        for channel in 1..=channels {
            client.send(&raw::message(channel, b"", b"q", 0, (0, b""), b"x"));
            client.send(&method(channel, (60, 10), Args::new().u32(0).u16(1).u8(0)));
        }
        client.until_count((60, 11), usize::from(channels), 0);
        let from = client.transcript.len();
        for channel in 1..=channels {
            let arguments = Args::new().u16(0).short("q").short("c").u8(0).long("");
            client.send(&method(channel, (60, 20), arguments));
        }
        client.until_count((60, 60), usize::from(channels), from);
        for channel in 1..=channels {
            client.ack(channel, 1, false);
        }
        client.fence(channels);
        client.close();
        assert_eq!(watched.changes(), (usize::from(channels), 0));
        let acked = "SELECT count(DISTINCT channel) FROM consumes WHERE outcome = 'acked'";
        assert_eq!(watched.store.number(acked), i64::from(channels));
    }
}
