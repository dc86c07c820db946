//! The sockets: TLS on both sides, Unix sockets, brokers that are not there, clients that speak
//! something else, connect anew for each publish, or would log in with the agent's certificate.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread;

use flowtap_tests::net::free_port;
use flowtap_tests::process::{Folder, run};
use flowtap_tests::rabbitmq::{Options as BrokerOptions, RabbitMq, Tls, Version};
use flowtap_tests::raw::{Args, Raw, method};
use flowtap_tests::sidecar::{Options, Sidecar};
use flowtap_tests::sql::Store;
use flowtap_tests::{available, cache_dir, wait_until};
use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use rcgen::{CertificateParams, DnType, KeyPair};

use crate::support::{Scene, authority, channel, scene, scene_on};

/// An authority, and one certificate of it for `localhost`.
struct Authority {
    ca: String,
    cert: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let (ca, issuer) = authority();
        let key = KeyPair::generate().expect("a key");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        // By this name the broker knows who shows it.
        params.distinguished_name.push(DnType::CommonName, "guest");
        let cert = params.signed_by(&key, &issuer).expect("signed").pem();
        Self { ca, cert, key: key.serialize_pem() }
    }

    /// Writes the three files and returns the path of one.
    fn file(&self, folder: &Path, name: &str) -> String {
        for (name, text) in [("ca", &self.ca), ("cert", &self.cert), ("key", &self.key)] {
            std::fs::write(folder.join(format!("{name}.pem")), text).expect("our own folder");
        }
        folder.join(format!("{name}.pem")).display().to_string()
    }
}

/// Publishes three messages with confirms and consumes them, with pika over TLS.
const PIKA_TLS: &str = r#"
import pika, ssl, sys
port, vhost, ca = int(sys.argv[1]), sys.argv[2], sys.argv[3]
tls = pika.SSLOptions(ssl.create_default_context(cafile=ca), "localhost")
c = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port, vhost, ssl_options=tls))
ch = c.channel()
ch.confirm_delivery()
ch.queue_declare("q")
for i in range(3):
    ch.basic_publish("", "q", b"x" * 70000, pika.BasicProperties(message_id=f"m-{i}"))
for i in range(3):
    m, p, b = ch.basic_get("q")
    assert len(b) == 70000 and p.message_id == f"m-{i}"
    ch.basic_ack(m.delivery_tag)
c.close()
"#;

fn tls_broker(authority: &Authority) -> Option<RabbitMq> {
    tls_broker_with(authority, false, BrokerOptions::default())
}

fn tls_broker_with(
    authority: &Authority,
    client_certificate: bool,
    options: BrokerOptions,
) -> Option<RabbitMq> {
    let tls = Tls {
        ca: authority.ca.clone(),
        cert: authority.cert.clone(),
        key: authority.key.clone(),
        client_certificate,
    };
    RabbitMq::start_with(Version::V3_10, &BrokerOptions { tls: Some(tls), ..options })
}

#[test]
fn tls_from_the_service_and_to_the_broker() {
    let python = cache_dir().join("venv/bin/python");
    if !available(python.exists(), "pika in a virtual environment") {
        return;
    }
    let authority = Authority::new();
    let Some(broker) = tls_broker(&authority) else { return };
    let scene = scene_on(&broker);
    let files = Folder::new("certificates");
    let file = |name| authority.file(files.path(), name);
    let port = broker.tls_port().expect("a TLS listener");
    let options = Options {
        tap: vec![
            format!("broker = \"amqps://localhost:{port}\""),
            format!(
                "tls.cert = {:?}\ntls.key = {:?}\ntls.ca = {:?}",
                file("cert"),
                file("key"),
                file("ca")
            ),
        ],
        ..scene.options("shop")
    };
    let mut shop = Sidecar::start(&options);
    let mut client = Command::new(python);
    client.args(["-c", PIKA_TLS, &shop.port().to_string(), scene.vhost.name(), &file("ca")]);
    run(&mut client);
    shop.terminate();
    assert_eq!(scene.outcomes("publishes", "shop")["confirmed"], 3);
    assert_eq!(scene.outcomes("consumes", "shop")["acked"], 3);
}

#[test]
fn a_broker_of_a_strange_authority_gets_no_client() {
    let authority = Authority::new();
    let Some(broker) = tls_broker(&authority) else { return };
    let scene = scene_on(&broker);
    let files = Folder::new("certificates");
    let strange = Authority::new().file(files.path(), "ca");
    let port = broker.tls_port().expect("a TLS listener");
    let tap = vec![format!("broker = \"amqps://localhost:{port}\"\ntls.ca = {strange:?}")];
    let mut shop = Sidecar::start(&Options { tap, ..scene.options("shop") });
    assert_eq!(answer(shop.port(), b"AMQP\0\0\x09\x01"), b"");
    assert!(shop.log().contains("invalid peer certificate"), "{}", shop.log());
    shop.terminate();
}

/// Everything that comes back for some bytes, until the other side closes or resets.
fn answer(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("somebody listens");
    // A side that has gone already is seen when reading.
    let _gone = stream.write_all(bytes);
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count) = stream.read(&mut buffer) {
        if count == 0 {
            break;
        }
        answer.extend_from_slice(&buffer[..count]);
    }
    answer
}

#[test]
fn what_is_not_amqp_0_9_1_is_answered_by_the_broker_and_is_a_gap() {
    let Some(scene) = scene(Version::V3_10) else { return };
    let mut shop = scene.sidecar("shop");
    let strange: [&[u8]; 3] =
        [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"AMQP\0\x01\0\0", b"AMQP\x03\x01\0\0"];
    for bytes in strange {
        assert_eq!(answer(shop.port(), bytes), answer(scene.broker.port(), bytes), "{bytes:?}");
    }
    assert!(shop.metrics().contains("flowtap_agent_opaque_connections_total{tap=\"127.0.0.1:"));
    shop.terminate();
    let gaps = scene
        .store
        .number("SELECT count(*) FROM gaps WHERE reason = 'not AMQP 0-9-1' AND gap_to IS NOT NULL");
    assert_eq!(gaps, 3);
}

#[test]
fn without_a_broker_the_client_is_sent_away_and_the_agent_stays_up() {
    let folder = Folder::new("store");
    let mut shop = Sidecar::start(&Options::new("shop", free_port(), folder.url()));
    assert_eq!(answer(shop.port(), b"AMQP\0\0\x09\x01"), b"");
    assert!(shop.metrics().contains("dial_failures_total{tap=") && shop.log().contains("refused"));
    shop.terminate();
}

#[test]
fn the_second_address_of_a_broker_is_tried_when_the_first_does_not_answer() {
    let Some(scene) = scene(Version::V3_10) else { return };
    let (dead, port) = (free_port(), scene.broker.port());
    let tap = vec![format!("broker = \"amqp://127.0.0.1:{dead},127.0.0.1:{port}\"")];
    let mut shop = Sidecar::start(&Options { tap, ..scene.options("shop") });
    let mut client = Raw::silent(shop.port());
    client.send(b"AMQP\0\0\x09\x01");
    client.until((10, 10));
    shop.terminate();
}

#[test]
fn a_client_may_not_log_in_with_the_agents_certificate() {
    let Some(scene) = scene(Version::V3_10) else { return };
    let mut shop = scene.sidecar("shop");
    let mut client = Raw::silent(shop.port());
    client.send(b"AMQP\0\0\x09\x01");
    client.until((10, 10));
    let empty: [u8; 0] = [];
    let arguments = Args::new().long(empty).short("EXTERNAL").long(empty).short("en_US");
    client.send(&method(0, (10, 11), arguments));
    let close = client.until((10, 50));
    assert_eq!(close.arguments().u16(), 403);
    client.until_end();
    assert!(shop.log().contains("allow_external"), "{}", shop.log());
    shop.terminate();
}

#[test]
fn with_external_allowed_the_agents_certificate_logs_its_client_in() {
    let authority = Authority::new();
    let options = BrokerOptions {
        plugins: vec!["rabbitmq_auth_mechanism_ssl"],
        config: vec![
            "auth_mechanisms.1 = EXTERNAL".to_owned(),
            "auth_mechanisms.2 = PLAIN".to_owned(),
            "ssl_cert_login_from = common_name".to_owned(),
        ],
        ..BrokerOptions::default()
    };
    let Some(broker) = tls_broker_with(&authority, true, options) else { return };
    let scene = scene_on(&broker);
    let files = Folder::new("certificates");
    let file = |name| authority.file(files.path(), name);
    let port = broker.tls_port().expect("a TLS listener");
    let address = format!("broker = \"amqps://localhost:{port}\"");
    let authorities = format!("tls.ca = {:?}", file("ca"));

    // The broker wants a certificate: without one nobody gets further than the handshake.
    let tap = vec![address.clone(), authorities.clone()];
    let mut without = Sidecar::start(&Options { tap, ..scene.options("nobody") });
    assert_eq!(answer(without.port(), b"AMQP\0\0\x09\x01"), b"");
    without.terminate();

    let shown = format!(
        "tls.client_cert = {:?}\ntls.client_key = {:?}\nallow_external = true",
        file("cert"),
        file("key")
    );
    let tap = vec![address, authorities, shown];
    let mut shop = Sidecar::start(&Options { tap, ..scene.options("shop") });
    let mut client = Raw::silent(shop.port());
    client.send(b"AMQP\0\0\x09\x01");
    client.until((10, 10));
    let empty: [u8; 0] = [];
    let arguments = Args::new().long(empty).short("EXTERNAL").long(empty).short("en_US");
    client.send(&method(0, (10, 11), arguments));
    client.until((10, 30));
    client.send(&method(0, (10, 31), Args::new().u16(2047).u32(131_072).u16(0)));
    let open = Args::new().short(scene.vhost.name()).short("").u8(0);
    client.call(0, (10, 40), open, (10, 41));
    client.close();
    shop.terminate();
    let opened = scene.store.number(
        "SELECT count(*) FROM history WHERE kind = 'session' AND outcome = 'opened' \
         AND json_get(details, '/what') = 'connection' AND service = 'shop'",
    );
    assert_eq!(opened, 1);
}

/// Carries TCP connections of a client that knows no Unix sockets to one.
fn bridge(socket: &Path) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let socket = socket.to_owned();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let agent = UnixStream::connect(&socket).expect("the agent listens");
            let pairs = (client.try_clone().expect("open"), agent.try_clone().expect("open"));
            thread::spawn(move || copy(pairs.0, pairs.1));
            thread::spawn(move || copy(agent, client));
        }
    });
    port
}

fn copy(mut from: impl Read, mut to: impl Write) {
    // Ends with either side.
    let _ended = std::io::copy(&mut from, &mut to);
}

async fn publish_one(url: &str, id: &str) {
    let (connection, channel) = channel(url).await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirm mode");
    let properties = BasicProperties::default().with_message_id(id.into());
    let options = BasicPublishOptions::default();
    let sent = channel.basic_publish("".into(), "nowhere".into(), options, b"x", properties).await;
    sent.expect("published").await.expect("answered");
    connection.close(200, "".into()).await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_serves_like_a_port() {
    let Some(scene) = scene(Version::V3_10) else { return };
    let sockets = Folder::new("socket");
    let socket = sockets.path().join("amqp.sock");
    let broker = format!("broker = \"amqp://127.0.0.1:{}\"", scene.broker.port());
    let tap = vec![
        broker.clone(),
        format!("[[tap]]\nkind = \"amqp\"\nlisten = \"unix:{}\"", socket.display()),
        broker,
    ];
    let mut shop = Sidecar::start(&Options { tap, ..scene.options("shop") });
    publish_one(&scene.vhost.url(bridge(&socket)), "by-unix").await;
    // A killed agent leaves the socket's file behind; the next one takes its place.
    shop.restart();
    publish_one(&scene.vhost.url(bridge(&socket)), "again").await;
    shop.terminate();
    assert!(!socket.exists(), "the socket's file goes with the agent");
    // The kill may have taken the return's row; the publish's was written before its confirm.
    assert_eq!(scene.store.number("SELECT count(DISTINCT event_id) FROM publishes"), 2);
}

fn unroutable(scene: &Scene<'_>) -> Vec<String> {
    let sql = "SELECT event_id FROM publishes WHERE outcome = 'unroutable' ORDER BY event_id";
    let ids = scene.store.sql(sql);
    ids.iter().map(|row| row["event_id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_for_each_publish_is_ordinary() {
    let Some(scene) = scene(Version::V3_10) else { return };
    let mut shop = scene.sidecar("shop");
    for number in 0..50 {
        publish_one(&scene.url(&shop), &format!("m-{number}")).await;
    }
    wait_until("all connections are closed", || {
        shop.metrics()
            .lines()
            .any(|line| line.starts_with("flowtap_agent_open_connections") && line.ends_with(" 0"))
    });
    shop.terminate();
    let count = |what: &str, outcome: &str| {
        scene.store.number(&format!(
            "SELECT count(*) FROM history WHERE kind = 'session' AND outcome = '{outcome}' \
             AND json_get(details, '/what') = '{what}'"
        ))
    };
    for what in ["connection", "channel"] {
        assert_eq!((count(what, "opened"), count(what, "closed")), (50, 50), "{what}");
    }
    assert_eq!(unroutable(&scene).len(), 50);
    assert_no_secret_session(&scene.store);
}

/// Sessions tell who connected, and nothing of the password.
fn assert_no_secret_session(store: &Store) {
    let rows = store.sql("SELECT DISTINCT principal FROM history WHERE kind = 'session'");
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["principal"], "guest");
}
