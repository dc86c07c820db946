//! The relay with sockets that are only memory: what the state machine can't know by itself.

use std::sync::Mutex;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::super::proxy::relay;
use super::*;
use crate::tap::{Ended, Recorder};

/// Rows that connections share; panics as often as it is told to.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<(Rows, u32)>>);

impl Sink for Shared {
    fn record(&mut self, row: &Observation<'_>) -> Option<Seq> {
        let (rows, panics) = &mut *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *panics > 0 && row.kind == flowtap_record::Kind::Publish {
            *panics -= 1;
            panic!("on purpose");
        }
        rows.record(row)
    }

    fn is_written(&self, _seq: Seq) -> bool {
        true
    }
}

impl Recorder for Shared {
    async fn written(&self, _seq: Seq) {}

    fn now(&self) -> Micros {
        Micros(1)
    }

    fn stay_before(&self, _undecoded: Arc<AtomicI64>) {}
}

/// A client and a broker with the relay between them.
struct Ends {
    client: DuplexStream,
    broker: DuplexStream,
    rows: Shared,
    relayed: tokio::task::JoinHandle<Ended>,
}

impl Ends {
    /// The connection and channel 1 are open.
    async fn open(panics: u32) -> Self {
        let (client, mut client_end) = tokio::io::duplex(16 * 1024);
        let (broker, mut broker_end) = tokio::io::duplex(16 * 1024);
        let rows = Shared(Arc::new(Mutex::new((Rows::default(), panics))));
        let recorder = rows.clone();
        let relayed = tokio::spawn(async move {
            let env = env();
            let metrics = env.metrics.clone();
            let session = Session::new(Arc::new(env), 7, Peers::default());
            let never = std::future::pending();
            relay(&mut client_end, &mut broker_end, session, recorder, &metrics, never).await
        });
        let mut ends = Self { client, broker, rows, relayed };
        // The same bytes as in other tests, but through sockets.
        let mut opened = Wire::new(env());
        opened.handshake();
        opened.client(&method(1, 20, 10, b"\0"));
        opened.broker(&method(1, 20, 11, b"\0\0\0\0"));
        ends.broker.write_all(&opened.to_client).await.unwrap();
        ends.client.write_all(&opened.to_broker).await.unwrap();
        read(&mut ends.broker, opened.to_broker.len()).await;
        read(&mut ends.client, opened.to_client.len()).await;
        // Only now is the greeting known to have come before: once more, in order.
        ends.broker.write_all(&method(1, 20, 11, b"\0\0\0\0")).await.unwrap();
        read(&mut ends.client, method(1, 20, 11, b"\0\0\0\0").len()).await;
        ends
    }

    fn rows(&self, kind: &str) -> Vec<Json> {
        let shared = self.rows.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        shared.0.rows.iter().filter(|row| row["kind"] == kind).cloned().collect()
    }

    async fn publish(&mut self) -> Vec<u8> {
        let bytes = publish(1, "orders", "k", 0, "m");
        self.client.write_all(&bytes).await.unwrap();
        read(&mut self.broker, bytes.len()).await
    }
}

async fn read(stream: &mut DuplexStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    let reading = stream.read_exact(&mut bytes);
    tokio::time::timeout(Duration::from_secs(10), reading).await.expect("in time").unwrap();
    bytes
}

#[tokio::test]
async fn a_message_that_panics_the_decoder_passes_and_so_does_all_that_follows() {
    let mut ends = Ends::open(1).await;
    for _ in 0..3 {
        ends.publish().await;
    }
    ends.broker.write_all(b"anything").await.unwrap();
    assert_eq!(read(&mut ends.client, 8).await, b"anything");
    let gaps = ends.rows("Gap");
    assert_eq!((gaps.len(), &gaps[0]["reason"]), (1, &json!("decoder panicked")));
    assert!(ends.rows("Publish").is_empty());
    drop((ends.client, ends.broker));
    assert!(matches!(ends.relayed.await.unwrap(), Ended::Closed(_)));
}

#[tokio::test]
async fn a_client_is_slow_only_as_long_as_it_leaves_something_unread() {
    let mut ends = Ends::open(0).await;
    let heartbeats = frame(8, 0, b"").repeat(20_000);
    ends.broker.write_all(&heartbeats).await.unwrap();
    ends.publish().await;
    // It reads everything; the broker says nothing more.
    read(&mut ends.client, heartbeats.len()).await;
    let publishes = async {
        loop {
            ends.publish().await;
            if ends.rows("Publish").last().unwrap()["details"]["mandatory"] == "set" {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), publishes)
        .await
        .expect("it is not slow for ever");
    assert_eq!(ends.rows("Publish")[0]["details"]["mandatory"], "slow_client");
}
