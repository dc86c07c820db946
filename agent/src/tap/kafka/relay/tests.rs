//! What waits for rows, with a decoder that does or does not come.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use flowtap_record::{Micros, Observation, Seq};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::super::brokers::{Brokers, Kept, Local};
use super::super::feed::{Intake, Next, What, feed};
use super::*;
use crate::config::PortRange;
use crate::metrics::Metrics;
use crate::tap::Sink;

/// Rows are written when this says so.
#[derive(Clone)]
struct Disk(tokio::sync::watch::Receiver<bool>);

impl Sink for Disk {
    fn record(&mut self, _row: &Observation<'_>) -> Option<Seq> {
        None
    }

    fn is_written(&self, _seq: Seq) -> bool {
        *self.0.borrow()
    }
}

impl Recorder for Disk {
    async fn written(&self, _seq: Seq) {
        let _ = self.0.clone().wait_for(|written| *written).await;
    }

    fn now(&self) -> Micros {
        Micros(1)
    }

    fn stay_before(&self, _undecoded: Arc<AtomicI64>) {}
}

fn around() -> (Arc<Around>, Intake) {
    let local = Local {
        ip: [127, 0, 0, 1].into(),
        ports: PortRange { first: 0, last: 0 },
        advertise: "localhost".to_owned(),
    };
    let (opens, _) = tokio::sync::mpsc::unbounded_channel();
    let brokers = Arc::new(Brokers::new(local, Kept::default(), opens).unwrap());
    let (feed, intake) = feed(1 << 20);
    let metrics = Metrics::new().tap("test");
    (Arc::new(Around { brokers, feed: Some(feed), metrics }), intake)
}

const PRODUCE: &[u8] = b"\0\0\0\x16\0\0\0\x03\0\0\0\x07\xff\xff\xff\xff\xff\xff\0\0\0\x01\0\0\0\0";
const DONE: &[u8] = b"\0\0\0\x0c\0\0\0\x07\0\0\0\0\0\0\0\0";

/// One Produce and its answer; counts of frames that were held, and that went without their rows.
async fn produce(around: &Arc<Around>, disk: Disk) -> (u64, u64) {
    let (mut client, mut client_end) = tokio::io::duplex(1024);
    let (mut broker_end, mut broker) = tokio::io::duplex(1024);
    let talk = async {
        client.write_all(PRODUCE).await.unwrap();
        reads(&mut broker, PRODUCE).await;
        broker.write_all(DONE).await.unwrap();
        reads(&mut client, DONE).await;
        drop(client);
        drop(broker);
    };
    let stop = std::future::pending();
    let ends = (1, Ends::default());
    let relayed = relay(&mut client_end, &mut broker_end, around, disk, ends, stop);
    tokio::join!(talk, relayed);
    (around.metrics.held_frames.get(), around.metrics.held_timeouts.get())
}

async fn reads(stream: &mut DuplexStream, want: &[u8]) {
    let mut got = vec![0; want.len()];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(got, want);
}

#[tokio::test]
async fn an_answer_goes_as_soon_as_its_rows_are_written() {
    let (around, intake) = around();
    let (written, disk) = tokio::sync::watch::channel(false);
    let decoder = std::thread::spawn(move || {
        loop {
            match intake.next(Duration::from_secs(10)) {
                Next::Item(ticket, item) => {
                    intake.done(ticket, Intake::weight(&item), Some(Seq(1)));
                    if matches!(item.what, What::End(_)) {
                        written.send_replace(true);
                    }
                }
                Next::Idle => {}
                Next::Ended => return,
            }
        }
    });
    assert_eq!(produce(&around, Disk(disk)).await.0, 1);
    drop(around);
    decoder.join().unwrap();
}

#[tokio::test]
async fn an_answer_waits_neither_for_a_stuck_decoder_nor_for_a_stuck_disk() {
    let (around, intake) = around();
    let (_never, disk) = tokio::sync::watch::channel(false);
    assert_eq!(produce(&around, Disk(disk.clone())).await, (1, 1));
    while let Next::Item(ticket, item) = intake.next(Duration::ZERO) {
        intake.done(ticket, Intake::weight(&item), Some(Seq(1)));
    }
    assert_eq!(produce(&around, Disk(disk)).await, (2, 2));
}

#[tokio::test]
async fn answers_from_before_a_refusal_still_arrive() {
    let (around, _intake) = around();
    let (_written, disk) = tokio::sync::watch::channel(true);
    let (mut client, mut client_end) = tokio::io::duplex(1024);
    let (mut broker_end, mut broker) = tokio::io::duplex(1024);
    let talk = async {
        client.write_all(PRODUCE).await.unwrap();
        reads(&mut broker, PRODUCE).await;
        // In one piece: an answer, and what no broker says.
        broker.write_all(&[DONE, &[0xff; 8]].concat()).await.unwrap();
        reads(&mut client, DONE).await;
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0, "then it is over");
    };
    let stop = std::future::pending();
    let ends = (1, Ends::default());
    let relayed = async {
        let ended = relay(&mut client_end, &mut broker_end, &around, Disk(disk), ends, stop).await;
        drop(client_end);
        ended
    };
    let ((), ended) = tokio::join!(talk, relayed);
    assert_eq!(ended, Ended::Refused);
}
