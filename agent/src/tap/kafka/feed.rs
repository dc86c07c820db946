//! From the relay to the decoding thread. The relay gives copies (counted references, no bytes are
//! moved) of the frames that matter, in the order in which they passed; one thread of each tap
//! takes them. What concludes something is queued before its last byte is forwarded, so that the
//! thread sees a cause before its effect, over all connections of the tap.
//!
//! What may wait here is bounded, together with what the decoder keeps of it until more comes, and
//! with what relays keep back; beyond that the relay says only that something was lost.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use flowtap_record::{Micros, Seq};
use tokio::sync::watch;

use crate::tap::Side;

/// One thing that happened on a connection.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// The connection's number within the boot.
    pub(crate) connection: i64,
    /// When its bytes were read.
    pub(crate) at: Micros,
    pub(crate) what: What,
}

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// A client connected, and a broker was reached for it.
    Opened(Box<Ends>),
    /// A frame begins. Pieces of its body follow; frames of one side never overlap.
    Begin(Side, Box<Head>),
    /// A piece of the body of the frame that has begun on this side, behind its header.
    Piece(Side, Bytes),
    /// The frame is complete.
    End(Side),
    /// The rest of the frame could not be kept: it is forwarded all the same.
    Lost(Side, Loss),
    /// So many frames were not even begun, as there was no room: the first of them then.
    Missed { side: Side, frames: i64, since: Micros },
    /// A frame in an API or version that the tap can't read, which could have carried records.
    Unread(Box<Head>),
    /// The user that the client logs in as, at first or again; never a secret.
    Principal(String),
    /// From here on the connection is only passed on.
    Opaque(&'static str),
    /// The sockets are closed; why.
    Closed(&'static str),
}

/// Where the sockets of a connection end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ends {
    /// The client's address.
    pub(crate) client: String,
    /// The agent's own end towards the broker.
    pub(crate) local: Option<std::net::SocketAddr>,
    /// The broker's address.
    pub(crate) broker: String,
    /// The broker's id; `None` on the bootstrap listener.
    pub(crate) broker_id: Option<i32>,
}

/// Which message a frame is. An answer repeats what its request said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) key: i16,
    pub(crate) version: i16,
    pub(crate) correlation: i32,
    /// Of the request; not repeated on the answer.
    pub(crate) client_id: Option<Box<[u8]>>,
    /// Bytes of the body.
    pub(crate) size: usize,
}

/// Why a frame was not kept whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// What waits to be decoded has reached `limits.decode`.
    Memory,
    /// A frame that should be small is not.
    Size,
    /// The connection ended within it.
    Cut,
}

/// Number of an item: they are counted from 1 over all connections of a tap.
pub(crate) type Ticket = u64;

/// Numbers items and sends them, under one lock, so that numbers go up in the queue.
type Numbered = Mutex<(Ticket, Sender<(Ticket, Item)>)>;

/// What an item takes beside its bytes: itself, its place in the queue, a frame's head.
const ITEM: usize = 256;

#[derive(Debug)]
struct Shared {
    /// Of items that wait, and of what relays keep back.
    bytes: AtomicUsize,
    /// Of what the decoder keeps until more comes.
    kept: AtomicUsize,
    max_bytes: usize,
    /// `at` of the oldest item that is not yet decoded, in microseconds; `i64::MAX` for none.
    pending_since: Arc<AtomicI64>,
    queued: AtomicUsize,
    done: watch::Sender<(Ticket, Option<Seq>)>,
}

/// The relay's end. Clones are the same feed.
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    shared: Arc<Shared>,
    sender: Arc<Numbered>,
}

/// The decoding thread's end.
#[derive(Debug)]
pub(crate) struct Intake {
    shared: Arc<Shared>,
    receiver: Receiver<(Ticket, Item)>,
    /// `at` of the item that was taken last.
    current: Cell<i64>,
}

/// A feed in which at most `max_bytes` may wait.
pub(crate) fn feed(max_bytes: usize) -> (Feed, Intake) {
    let (sender, receiver) = channel();
    let shared = Arc::new(Shared {
        bytes: AtomicUsize::new(0),
        kept: AtomicUsize::new(0),
        max_bytes,
        pending_since: Arc::new(AtomicI64::new(i64::MAX)),
        queued: AtomicUsize::new(0),
        done: watch::Sender::new((0, None)),
    });
    let sender = Arc::new(Mutex::new((0, sender)));
    (
        Feed { shared: Arc::clone(&shared), sender },
        Intake { shared, receiver, current: Cell::new(0) },
    )
}

impl Feed {
    /// Queues an item; never waits. The beginning of a frame and a piece of one are refused with
    /// `None` when too much waits already: the relay then says [`What::Lost`] or [`What::Missed`]
    /// once and gives no more of that frame.
    pub(crate) fn send(&self, item: Item) -> Option<Ticket> {
        self.send_within(item, self.shared.max_bytes)
    }

    /// The same for frames of records: they leave some room to all others, so that commits, members
    /// and what a fetch asks for are read even when records are not.
    pub(crate) fn send_records(&self, item: Item) -> Option<Ticket> {
        self.send_within(item, self.shared.max_bytes / 8 * 7)
    }

    fn send_within(&self, item: Item, max_bytes: usize) -> Option<Ticket> {
        let shared = &*self.shared;
        let weight = Intake::weight(&item);
        let waiting = shared.bytes.fetch_add(weight, Ordering::AcqRel) + weight;
        let can_be_refused = matches!(item.what, What::Begin(..) | What::Piece(..));
        if can_be_refused && waiting + shared.kept.load(Ordering::Acquire) > max_bytes {
            shared.bytes.fetch_sub(weight, Ordering::AcqRel);
            return None;
        }
        let mut sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        sender.0 += 1;
        let ticket = sender.0;
        if shared.queued.fetch_add(1, Ordering::AcqRel) == 0 {
            shared.pending_since.store(item.at.0, Ordering::Release);
        }
        // The thread is gone only when the tap is closing; nothing is decoded any more then.
        let _ = sender.1.send((ticket, item));
        Some(ticket)
    }

    /// Whether a frame could begin now.
    #[cfg(test)]
    pub(crate) fn has_room(&self) -> bool {
        let shared = &*self.shared;
        let waiting = shared.bytes.load(Ordering::Acquire) + shared.kept.load(Ordering::Acquire);
        waiting + 2 * ITEM <= shared.max_bytes
    }

    /// A relay keeps back so many bytes now, in place of so many `before`.
    pub(crate) fn kept_back(&self, before: usize, now: usize) {
        self.shared.bytes.fetch_add(now, Ordering::AcqRel);
        self.shared.bytes.fetch_sub(before, Ordering::AcqRel);
    }

    /// The number of the newest item.
    pub(crate) fn newest(&self) -> Ticket {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits until an item is decoded, and says which row was the newest then. For ever when the
    /// thread is gone: the caller decides how long he can wait.
    pub(crate) async fn decoded(&self, ticket: Ticket) -> Option<Seq> {
        let mut done = self.shared.done.subscribe();
        match done.wait_for(|(last, _)| *last >= ticket).await {
            Ok(done) => done.1,
            Err(_) => None,
        }
    }
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Next {
    Item(Ticket, Item),
    /// Nothing came for a while.
    Idle,
    /// All relays are gone and everything is decoded.
    Ended,
}

impl Intake {
    /// `at` of the oldest item that waits (microseconds since 1970, `i64::MAX` for none): rows of
    /// that time may still come, and watermarks must stay before it.
    pub(crate) fn pending_since(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.shared.pending_since)
    }

    /// The next item, as soon as there is one.
    pub(crate) fn next(&self, patience: Duration) -> Next {
        match self.receiver.recv_timeout(patience) {
            Ok((ticket, item)) => {
                self.current.set(item.at.0);
                self.shared.pending_since.store(item.at.0, Ordering::Release);
                Next::Item(ticket, item)
            }
            Err(RecvTimeoutError::Timeout) => Next::Idle,
            Err(RecvTimeoutError::Disconnected) => Next::Ended,
        }
    }

    /// An item is dealt with: its bytes are free again, and the newest row is this one.
    pub(crate) fn done(&self, ticket: Ticket, bytes: usize, newest: Option<Seq>) {
        let shared = &*self.shared;
        shared.bytes.fetch_sub(bytes, Ordering::AcqRel);
        if shared.queued.fetch_sub(1, Ordering::AcqRel) == 1 {
            // A new item may come between these two: its own time must stay.
            let (done, none) = (self.current.get(), i64::MAX);
            let _ = shared.pending_since.compare_exchange(
                done,
                none,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
        }
        shared.done.send_replace((ticket, newest));
    }

    /// The decoder keeps so many bytes until more comes.
    pub(crate) fn keeps(&self, bytes: usize) {
        self.shared.kept.store(bytes, Ordering::Release);
    }

    /// Bytes that an item counts for.
    pub(crate) fn weight(item: &Item) -> usize {
        ITEM + match &item.what {
            What::Piece(_, bytes) => bytes.len(),
            What::Begin(_, head) => head.client_id.as_ref().map_or(0, |id| id.len()),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(at: i64, what: What) -> Item {
        Item { connection: 1, at: Micros(at), what }
    }

    fn begin() -> What {
        let head = Head { key: 12, version: 3, correlation: 1, client_id: None, size: 0 };
        What::Begin(Side::Client, Box::new(head))
    }

    #[test]
    fn items_without_bytes_are_bounded_too() {
        let (feed, intake) = feed(100 * ITEM);
        let taken = (0..1000).filter(|at| feed.send(item(*at, begin())).is_some()).count();
        assert_eq!(taken, 100);
        assert!(!feed.has_room());
        assert!(feed.send(item(1, What::End(Side::Client))).is_some(), "an end is never refused");
        while let Next::Item(ticket, item) = intake.next(Duration::ZERO) {
            intake.done(ticket, Intake::weight(&item), None);
        }
        assert!(feed.has_room());
    }

    #[test]
    fn records_leave_some_room_to_what_is_small() {
        let (feed, _intake) = feed(80 * ITEM);
        let taken = (0..1000).filter(|at| feed.send_records(item(*at, begin())).is_some()).count();
        assert_eq!(taken, 70);
        assert!(feed.send(item(1, begin())).is_some());
    }

    #[test]
    fn what_decoder_and_relays_keep_leaves_less_room() {
        let (feed, intake) = feed(10 * ITEM);
        intake.keeps(10 * ITEM);
        assert_eq!(feed.send(item(1, begin())), None);
        intake.keeps(0);
        feed.kept_back(0, 10 * ITEM);
        assert_eq!(feed.send(item(1, begin())), None);
        feed.kept_back(10 * ITEM, 0);
        assert!(feed.send(item(1, begin())).is_some());
    }

    #[test]
    fn an_item_that_came_while_the_last_was_finished_keeps_its_time() {
        let (feed, intake) = feed(1 << 20);
        feed.send(item(5, begin()));
        let Next::Item(ticket, first) = intake.next(Duration::ZERO) else { panic!("none") };
        let pending = intake.pending_since();
        assert_eq!(pending.load(Ordering::Acquire), 5);
        // As when `send` is through between the two steps of `done`.
        pending.store(9, Ordering::Release);
        intake.done(ticket, Intake::weight(&first), None);
        assert_eq!(pending.load(Ordering::Acquire), 9);
        pending.store(5, Ordering::Release);
        feed.send(item(9, begin()));
        let Next::Item(ticket, second) = intake.next(Duration::ZERO) else { panic!("none") };
        intake.done(ticket, Intake::weight(&second), None);
        assert_eq!(pending.load(Ordering::Acquire), i64::MAX, "nothing waits");
    }
}
