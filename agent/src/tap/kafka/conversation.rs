//! What passes between one client and one broker: requests, and answers in their order. Bytes go
//! on as they come, and copies of frames that matter go to the [`Feed`]; what an answer's form
//! depends on is remembered from its request. No I/O here.

mod answers;
mod requests;
mod tokens;

#[cfg(test)]
mod tests;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use flowtap_record::Micros;

use super::brokers::Brokers;
use super::feed::{Ends, Feed, Head, Item, Loss, Ticket, What};
use super::wire::{Api, TailFinder, key};
use crate::metrics::TapMetrics;
use crate::tap::Side;
use tokens::Tokens;

/// Frames larger than this are not handed over, but for those that carry records: what they say
/// takes less.
const MAX_TOLD: usize = 4 * 1024 * 1024;
/// The same for Metadata, which tells of all topics of a cluster.
const MAX_METADATA: usize = 32 * 1024 * 1024;
/// Smaller pieces are copied, so that they do not keep the large buffer alive that they were read
/// into, which is not counted.
const COPIED: usize = 16 * 1024;

/// What a connection needs of its tap.
#[derive(Debug)]
pub(crate) struct Around {
    pub(crate) brokers: Arc<Brokers>,
    /// `None` when nothing is recorded.
    pub(crate) feed: Option<Feed>,
    pub(crate) metrics: TapMetrics,
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Step {
    /// More bytes must come first.
    More,
    /// These go on; all that follows them waits until the item is decoded and its rows are written.
    Out(Bytes, Option<Ticket>),
    /// The connection ends here.
    Refuse,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Conversation {
    around: Arc<Around>,
    number: i64,
    requests: Track,
    answers: Track,
    /// Requests without an answer so far, the oldest first.
    outstanding: VecDeque<Asked>,
    /// The SASL mechanism that was asked for last.
    mechanism: Vec<u8>,
    /// Frames without headers that are still to come (SaslHandshake v0).
    tokens: Option<Tokens>,
    /// APIs that nobody knows and that were reported.
    strange: HashSet<i16>,
    /// The request that is passing, or passed last, has an answer to come.
    asked: bool,
    opaque: bool,
    /// Bytes that are kept back, as the feed counts them.
    kept_back: usize,
    /// Why the tap ended the connection.
    refused: Option<&'static str>,
}

/// A request that waits for its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    key: i16,
    version: i16,
    correlation: i32,
    /// What its answer concludes.
    ticket: Option<Ticket>,
}

/// Where one side is within its stream.
#[derive(Debug, Default)]
struct Track {
    stage: Stage,
    /// The first bytes have been looked at.
    begun: bool,
    /// This frame is handed to the feed.
    telling: bool,
    /// It holds records.
    records: bool,
    /// Frames for which the feed had no room, and when the first of them came.
    missed: Option<(i64, Micros)>,
    /// With less than this there is no use in trying again.
    enough: usize,
}

#[derive(Debug, Default)]
enum Stage {
    /// A frame's length comes next.
    #[default]
    Frame,
    /// Within a frame; bytes that are left of it.
    Body(usize),
    /// Within a large Fetch answer, before its tail.
    Seeking(usize, Tail, Box<TailFinder>),
    /// In its tail, all of which must come first; bytes that are left of it.
    Tail(usize, Tail),
}

/// Which answer a tail belongs to.
#[derive(Clone, Copy, Debug)]
struct Tail {
    key: i16,
    version: i16,
}

impl Conversation {
    pub(crate) fn new(around: Arc<Around>, number: i64, ends: Ends, now: Micros) -> Self {
        let conversation = Self {
            around,
            number,
            requests: Track::default(),
            answers: Track::default(),
            outstanding: VecDeque::new(),
            mechanism: Vec::new(),
            tokens: None,
            strange: HashSet::new(),
            asked: false,
            opaque: false,
            kept_back: 0,
            refused: None,
        };
        conversation.send(now, What::Opened(Box::new(ends)));
        conversation
    }

    /// Takes what may go on from what was read from a side.
    pub(crate) fn step(&mut self, side: Side, now: Micros, input: &mut BytesMut) -> Step {
        if input.is_empty() {
            return Step::More;
        }
        if self.refused.is_some() {
            return Step::Refuse;
        }
        if self.opaque {
            return Step::Out(input.split().freeze(), None);
        }
        match side {
            Side::Client => self.request(now, input),
            Side::Broker => self.answer(now, input),
        }
    }

    /// The sockets are closed. What the rest of a frame would have said is lost.
    pub(crate) fn end(&mut self, now: Micros, reason: &'static str) {
        self.cut(now);
        self.keeps_back(0);
        self.tell_missed(now);
        self.send(now, What::Closed(self.refused.unwrap_or(reason)));
    }

    fn cut(&mut self, now: Micros) {
        for side in [Side::Client, Side::Broker] {
            if std::mem::take(&mut self.track(side).telling) {
                self.send(now, What::Lost(side, Loss::Cut));
            }
        }
    }

    fn track(&mut self, side: Side) -> &mut Track {
        match side {
            Side::Client => &mut self.requests,
            Side::Broker => &mut self.answers,
        }
    }

    /// From here on bytes only pass: what they say can't be known.
    fn go_opaque(&mut self, now: Micros, why: &'static str) {
        tracing::warn!(
            why,
            "connection is only passed on from here: nothing of it is recorded, and addresses in \
             it are not rewritten"
        );
        self.around.metrics.opaque_connections.inc();
        for side in [Side::Client, Side::Broker] {
            self.track(side).telling = false;
        }
        self.keeps_back(0);
        self.tell_missed(now);
        self.opaque = true;
        self.send(now, What::Opaque(why));
    }

    /// Ends the connection. The caller has said why in the log, with what only he knows.
    fn refuse(&mut self, why: &'static str) -> Step {
        self.refused = Some(why);
        Step::Refuse
    }

    /// The rest of a frame, as far as it is here.
    fn pass_on(&mut self, side: Side, now: Micros, left: usize, input: &mut BytesMut) -> Step {
        let bytes = input.split_to(left.min(input.len())).freeze();
        let left = left - bytes.len();
        self.tell_piece(side, now, &bytes);
        self.within(side, now, left);
        Step::Out(bytes, None)
    }

    /// Notes how much of the frame is still to come.
    fn within(&mut self, side: Side, now: Micros, left: usize) {
        if left > 0 {
            self.track(side).stage = Stage::Body(left);
        } else {
            self.track(side).stage = Stage::Frame;
            self.tell_end(side, now);
        }
    }
}

// === what is told to the feed ===

impl Conversation {
    fn send(&self, at: Micros, what: What) -> Option<Ticket> {
        let item = Item { connection: self.number, at, what };
        self.around.feed.as_ref()?.send(item)
    }

    /// Of a frame, which may be refused.
    fn send_of_frame(&mut self, side: Side, at: Micros, what: What) -> Option<Ticket> {
        let item = Item { connection: self.number, at, what };
        let records = self.track(side).records;
        let feed = self.around.feed.as_ref()?;
        if records { feed.send_records(item) } else { feed.send(item) }
    }

    /// Says that a frame begins, if the decoder knows it.
    fn tell_begin(&mut self, side: Side, now: Micros, api: Option<&Api>, head: Head) {
        let secret = matches!(head.key, key::SASL_AUTHENTICATE);
        let share = matches!(head.key, key::SHARE_FETCH | key::SHARE_ACKNOWLEDGE);
        let known = api.is_some_and(|api| api.knows(head.version));
        if self.around.feed.is_none() || !known || secret || share {
            return;
        }
        let records =
            matches!((head.key, side), (key::PRODUCE, Side::Client) | (key::FETCH, Side::Broker));
        let limit = match head.key {
            _ if records => usize::MAX,
            key::METADATA => MAX_METADATA,
            _ => MAX_TOLD,
        };
        self.track(side).records = records;
        let fits = head.size <= limit;
        if self.send_of_frame(side, now, What::Begin(side, Box::new(head))).is_none() {
            self.track(side).missed.get_or_insert((0, now)).0 += 1;
            return;
        }
        self.track(side).telling = true;
        self.tell_missed(now);
        if !fits {
            self.lose(side, now, Loss::Size);
        }
    }

    /// Says how many frames were not handed over, if there were any.
    fn tell_missed(&mut self, now: Micros) {
        for side in [Side::Client, Side::Broker] {
            if let Some((frames, since)) = self.track(side).missed.take() {
                self.send(now, What::Missed { side, frames, since });
            }
        }
    }

    /// So many bytes are kept back now, until more come.
    fn keeps_back(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.kept_back, bytes);
        if let Some(feed) = &self.around.feed {
            feed.kept_back(before, bytes);
        }
    }

    fn tell_piece(&mut self, side: Side, now: Micros, bytes: &Bytes) {
        if !self.track(side).telling || bytes.is_empty() {
            return;
        }
        let copy = if bytes.len() < COPIED { Bytes::copy_from_slice(bytes) } else { bytes.clone() };
        if self.send_of_frame(side, now, What::Piece(side, copy)).is_none() {
            self.lose(side, now, Loss::Memory);
        }
    }

    fn tell_end(&mut self, side: Side, now: Micros) {
        if std::mem::take(&mut self.track(side).telling) {
            let ticket = self.send(now, What::End(side));
            self.concludes(side, ticket);
        }
    }

    fn lose(&mut self, side: Side, now: Micros, loss: Loss) {
        self.track(side).telling = false;
        let ticket = self.send(now, What::Lost(side, loss));
        self.concludes(side, ticket);
    }

    /// The answer to the request that is passing concludes what was said in it.
    fn concludes(&mut self, side: Side, ticket: Option<Ticket>) {
        if side != Side::Client || !self.asked {
            return;
        }
        if let Some(asked) = self.outstanding.back_mut() {
            asked.ticket = ticket;
        }
    }

    /// What everything seen so far must be decoded for.
    fn newest(&self) -> Option<Ticket> {
        self.around.feed.as_ref().map(Feed::newest)
    }
}

/// The 32 bits at the beginning.
fn peek_i32(bytes: &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(*bytes.first_chunk()?))
}
