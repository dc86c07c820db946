//! How long bytes may be held, and how long a side that is gone is waited for.

use tokio::io::DuplexStream;

use super::*;
use crate::metrics::Metrics;

/// Holds what the broker says, a chunk for each `h`, until the rows come that never come.
struct Never;

impl Gate for Never {
    type Hold = ();

    fn pass(&self, side: Side, input: &mut BytesMut, queue: &mut Queue<()>) -> Option<Vec<u8>> {
        let bytes = input.split().freeze();
        if side == Side::Client {
            queue.push(bytes, None);
            return None;
        }
        for at in 0..bytes.len() {
            let held = bytes[at] == b'h';
            queue.push(bytes.slice(at..=at), held.then_some(()));
        }
        None
    }

    async fn released(&self, (): ()) {
        std::future::pending::<()>().await;
    }
}

struct Ends {
    client: DuplexStream,
    broker: DuplexStream,
    metrics: TapMetrics,
    relayed: tokio::task::JoinHandle<Ended>,
}

fn start() -> Ends {
    let (client, mut client_end) = tokio::io::duplex(1024);
    let (broker, mut broker_end) = tokio::io::duplex(1024);
    let metrics = Metrics::new().tap("test");
    let counted = metrics.clone();
    let relayed = tokio::spawn(async move {
        let never = std::future::pending();
        relay(&mut client_end, &mut broker_end, &Never, &counted, never).await.0
    });
    Ends { client, broker, metrics, relayed }
}

/// How long it takes until the client has all that the broker says.
async fn takes(said: &[u8]) -> (Duration, u64) {
    let mut ends = start();
    let begun = std::time::Instant::now();
    ends.broker.write_all(said).await.unwrap();
    let mut heard = vec![0; said.len()];
    ends.client.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, said);
    (begun.elapsed(), ends.metrics.held_timeouts.get())
}

/// What a busy machine may add. Twenty holds that added up would take 400 ms.
const SLACK: Duration = Duration::from_millis(150);

#[tokio::test]
async fn no_byte_is_held_for_longer_than_20_ms_whatever_the_disk_does() {
    for (said, holds) in
        [(b"h".to_vec(), 1), (b"h".repeat(20), 20), (b"h.".to_vec(), 1), (b"h.hh.".to_vec(), 3)]
    {
        let (took, timeouts) = takes(&said).await;
        assert!(took >= HOLD && took < HOLD + SLACK, "{}: {took:?}", said.escape_ascii());
        assert_eq!(timeouts, holds);
    }
    assert!(takes(b"...").await.0 < SLACK);
}

#[tokio::test]
async fn the_time_of_a_held_chunk_begins_when_it_was_read() {
    let mut queue = Queue::default();
    let before = Instant::now();
    for chunk in [&b"one"[..], b"two"] {
        queue.push(Bytes::from_static(chunk), Some(()));
    }
    let after = Instant::now();
    for _ in 0..2 {
        let ((), deadline) = queue.hold().unwrap();
        assert!((before + HOLD..=after + HOLD).contains(&deadline));
        queue.release();
        queue.advance(3);
    }
}

async fn within<T>(limit: Duration, something: impl Future<Output = T>) -> T {
    tokio::time::timeout(limit, something).await.expect("in time")
}

#[tokio::test]
async fn a_broker_that_has_died_does_not_keep_a_client_that_has_closed() {
    // Its host is gone: the socket takes what is sent, and says nothing any more.
    let Ends { client, broker: _silent, relayed, .. } = start();
    let begun = std::time::Instant::now();
    drop(client);
    let ended = within(LINGER * 3, relayed).await.unwrap();
    assert_eq!(ended, Ended::Closed(Side::Client));
    assert!(begun.elapsed() >= LINGER, "it had time for its last words");
}

#[tokio::test]
async fn a_client_that_has_died_does_not_keep_the_brokers_half() {
    let Ends { client: _silent, broker, relayed, .. } = start();
    drop(broker);
    assert_eq!(within(LINGER * 3, relayed).await.unwrap(), Ended::Closed(Side::Broker));
}

#[tokio::test]
async fn last_words_that_come_slowly_are_passed_on_to_the_last() {
    let Ends { mut client, mut broker, relayed, .. } = start();
    client.shutdown().await.unwrap();
    let slowly = async {
        for _ in 0..4 {
            tokio::time::sleep(LINGER / 2).await;
            broker.write_all(b".").await.unwrap();
        }
        drop(broker);
    };
    let mut heard = Vec::new();
    let ((), read) = tokio::join!(slowly, client.read_to_end(&mut heard));
    assert_eq!((read.unwrap(), heard.as_slice()), (4, &b"...."[..]));
    assert_eq!(relayed.await.unwrap(), Ended::Closed(Side::Client));
}
