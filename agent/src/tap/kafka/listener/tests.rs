//! A whole tap with sockets, before brokers that say just enough: where all of them are, and who
//! they are.

use std::sync::Mutex;
use std::time::Duration;

use flowtap_record::{Micros, Observation, Seq};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;
use crate::config::{Brokers as Configured, TapTls};
use crate::metrics::Metrics;
use crate::tap::Sink;

/// Rows go nowhere, at once.
#[derive(Clone)]
struct Nowhere;

impl Sink for Nowhere {
    fn record(&mut self, _row: &Observation<'_>) -> Option<Seq> {
        Some(Seq(1))
    }

    fn is_written(&self, _seq: Seq) -> bool {
        true
    }
}

impl Recorder for Nowhere {
    async fn written(&self, _seq: Seq) {}

    fn now(&self) -> Micros {
        Micros(1)
    }

    fn stay_before(&self, _undecoded: Arc<AtomicI64>) {}
}

/// Where the brokers of a cluster say that they are.
type Places = Arc<Mutex<Vec<(i32, u16)>>>;

/// A broker: tells where all are when asked for Metadata, and its id when sent a heartbeat.
struct Broker {
    port: u16,
    serving: JoinHandle<()>,
}

impl Broker {
    async fn start(id: i32, places: &Places) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let places = Arc::clone(places);
        let serving = tokio::spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                clients.spawn(answer_all(id, stream, Arc::clone(&places)));
            }
        });
        Self { port, serving }
    }

    /// As when its machine is gone: its connections end with it.
    async fn stop(self) {
        self.serving.abort();
        let _ = self.serving.await;
    }
}

async fn answer_all(id: i32, mut stream: TcpStream, places: Places) {
    while let Some(request) = read_frame(&mut stream).await {
        let body = match request[1] {
            3 => metadata(&places.lock().unwrap()),
            _ => (id as i16).to_be_bytes().to_vec(),
        };
        let answer = [&request[4..8], &body].concat();
        if stream.write_all(&framed(&answer)).await.is_err() {
            return;
        }
    }
}

/// Metadata version 1 without topics.
fn metadata(places: &[(i32, u16)]) -> Vec<u8> {
    let mut body = (places.len() as i32).to_be_bytes().to_vec();
    for (id, port) in places {
        body.extend_from_slice(&id.to_be_bytes());
        body.extend_from_slice(b"\0\x09127.0.0.1");
        body.extend_from_slice(&i32::from(*port).to_be_bytes());
        body.extend_from_slice(b"\xff\xff");
    }
    body.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0]);
    body
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as i32).to_be_bytes()[..], bytes].concat()
}

async fn read_frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let length = stream.read_i32().await.ok()?;
    let mut frame = vec![0; length as usize];
    stream.read_exact(&mut frame).await.ok()?;
    Some(frame)
}

/// A client's connection.
struct Client(TcpStream);

impl Client {
    async fn to(port: u16) -> Self {
        Self(TcpStream::connect(("127.0.0.1", port)).await.unwrap())
    }

    async fn ask(&mut self, key: u8, version: u8) -> Option<Vec<u8>> {
        let request = [&[0, key, 0, version][..], b"\0\0\0\x07\xff\xff", &[0; 4]].concat();
        self.0.write_all(&framed(&request)).await.ok()?;
        let answer = read_frame(&mut self.0).await?;
        assert_eq!(answer[..4], [0, 0, 0, 7]);
        Some(answer[4..].to_vec())
    }

    /// Who is at the other end.
    async fn broker(&mut self) -> Option<i32> {
        let answer = self.ask(12, 0).await?;
        Some(i32::from(i16::from_be_bytes([answer[0], answer[1]])))
    }

    /// Which ports the client is told of.
    async fn ports(&mut self) -> Vec<(i32, u16)> {
        let body = self.ask(3, 1).await.unwrap();
        let found = super::super::addresses::find(3, 1, &body).unwrap();
        let place = |place: super::super::addresses::Place| {
            assert_eq!(place.host, "127.0.0.1");
            (place.id, place.port as u16)
        };
        found.places.into_iter().map(place).collect()
    }
}

/// A tap that serves.
struct Tap {
    port: u16,
    lifecycle: Lifecycle,
    metrics: TapMetrics,
    serving: JoinHandle<()>,
}

impl Tap {
    async fn start(folder: &std::path::Path, broker: &str) -> Self {
        Self::try_start(folder, broker).await.unwrap()
    }

    async fn try_start(folder: &std::path::Path, broker: &str) -> Result<Self, BindError> {
        let lifecycle = Lifecycle::new(1);
        let metrics = Metrics::new().tap("test");
        let brokers = Configured::parse(broker).unwrap();
        let tap = KafkaTap {
            listen: ListenAddr::parse("127.0.0.1:0").unwrap(),
            ports: PortRange { first: 0, last: 0 },
            advertise: None,
            record: true,
            decode_bytes: 1 << 20,
            folder: folder.to_owned(),
            tls: None,
            dialer: Dialer::new(brokers, &TapTls::default(), Duration::from_secs(5)).unwrap(),
            env: Arc::new(Env {
                service: "shop".into(),
                instance: "host-1".into(),
                cluster: None,
                identifier: Identifier::default(),
                budget: Arc::new(Budget::new(1 << 20)),
                metrics: metrics.clone(),
            }),
            recorder: Nowhere,
            numbers: Arc::new(AtomicI64::new(1)),
            lifecycle: lifecycle.clone(),
        };
        let bound = tap.bind().await?;
        let port = bound.door.tcp_address().unwrap().port();
        let serving = tokio::spawn(bound.serve());
        Ok(Self { port, lifecycle, metrics, serving })
    }

    async fn stop(self) {
        self.lifecycle.enter(Phase::Closing);
        self.serving.await.unwrap();
    }
}

/// Two brokers that know each other.
async fn cluster() -> (Places, Broker, Broker) {
    let places = Places::default();
    let (one, two) = (Broker::start(1, &places).await, Broker::start(2, &places).await);
    *places.lock().unwrap() = vec![(1, one.port), (2, two.port)];
    (places, one, two)
}

#[tokio::test]
async fn each_broker_is_reached_by_a_port_of_its_own() {
    let (_places, one, two) = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let tap = Tap::start(folder.path(), &format!("127.0.0.1:{}", one.port)).await;
    let mut client = Client::to(tap.port).await;
    assert_eq!(client.broker().await, Some(1));
    let ports = client.ports().await;
    assert_eq!(ports.len(), 2);
    for (id, port) in &ports {
        assert!(![one.port, two.port].contains(port));
        let mut client = Client::to(*port).await;
        assert_eq!(client.broker().await, Some(*id));
        assert_eq!(client.ports().await, ports);
    }
    assert_eq!(tap.metrics.answers_rewritten.get(), 3);
    drop(client);
    tap.stop().await;
}

#[tokio::test]
async fn ports_and_addresses_outlive_the_agent() {
    let (_places, one, _two) = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let broker = format!("127.0.0.1:{}", one.port);
    let tap = Tap::start(folder.path(), &broker).await;
    let ports = Client::to(tap.port).await.ports().await;
    tap.stop().await;
    let tap = Tap::start(folder.path(), &broker).await;
    // Before anybody has asked for Metadata.
    for (id, port) in &ports {
        assert_eq!(Client::to(*port).await.broker().await, Some(*id));
    }
    assert_eq!(Client::to(tap.port).await.ports().await, ports);
    tap.stop().await;
    let _taken = TcpListener::bind(("127.0.0.1", ports[0].1)).await.unwrap();
    let error = Tap::try_start(folder.path(), &broker).await.err().unwrap();
    assert!(error.to_string().contains("change the tap's `ports`"), "{error}");
}

#[tokio::test]
async fn a_broker_that_moves_is_found_behind_the_same_port() {
    let (places, one, two) = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let tap = Tap::start(folder.path(), &format!("127.0.0.1:{}", one.port)).await;
    let mut client = Client::to(tap.port).await;
    let ports = client.ports().await;
    two.stop().await;
    let two = Broker::start(2, &places).await;
    *places.lock().unwrap() = vec![(1, one.port), (2, two.port)];
    assert_eq!(client.ports().await, ports);
    assert_eq!(Client::to(ports[1].1).await.broker().await, Some(2));
    drop(client);
    tap.stop().await;
}

#[tokio::test]
async fn the_bootstrap_listener_reaches_any_broker_that_lives() {
    let (_places, one, _two) = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let tap = Tap::start(folder.path(), &format!("127.0.0.1:{}", one.port)).await;
    let ports = Client::to(tap.port).await.ports().await;
    one.stop().await;
    assert_eq!(Client::to(tap.port).await.broker().await, Some(2));
    // The other's own listener reaches nobody else in its place.
    assert_eq!(Client::to(ports[0].1).await.broker().await, None);
    assert!(tap.metrics.dial_failures.get() >= 1);
    tap.stop().await;
}

#[tokio::test]
async fn half_closes_are_passed_on() {
    let (_places, one, _two) = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let tap = Tap::start(folder.path(), &format!("127.0.0.1:{}", one.port)).await;
    let mut client = Client::to(tap.port).await;
    let request = framed(b"\0\x0c\0\0\0\0\0\x09\xff\xff");
    client.0.write_all(&request).await.unwrap();
    client.0.shutdown().await.unwrap();
    let mut rest = Vec::new();
    client.0.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, framed(b"\0\0\0\x09\0\x01"), "the answer still comes, then the end");
    tap.stop().await;
}

#[tokio::test]
async fn connections_end_with_the_agent() {
    let (_places, one, _two) = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let tap = Tap::start(folder.path(), &format!("127.0.0.1:{}", one.port)).await;
    let mut client = Client::to(tap.port).await;
    assert_eq!(client.broker().await, Some(1));
    tap.stop().await;
    assert_eq!(client.broker().await, None);
}
