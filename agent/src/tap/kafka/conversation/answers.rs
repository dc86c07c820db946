//! From the broker: answers, matched with their requests. Those that name brokers get the addresses
//! of the tap's own listeners, and ApiVersions offers what the tap knows.

use bytes::{Bytes, BytesMut};
use flowtap_record::Micros;

use super::super::addresses::{self, Found, Place, Position};
use super::super::feed::{Head, Ticket, What};
use super::super::versions;
use super::super::wire::{self, Fault, Reader, TailFinder, key, response_body};
use super::tokens::Tokens;
use super::{Asked, Conversation, Stage, Step, Tail, peek_i32};
use crate::config::HostPort;
use crate::tap::Side;

/// Most of an answer that is kept back until its addresses are rewritten.
const MAX_KEPT_BACK: usize = 64 * 1024 * 1024;
/// Fetch answers up to this size are rewritten as a whole.
const SMALL_FETCH: usize = 64 * 1024;

/// A frame of which enough is here.
struct Answer {
    asked: Asked,
    /// What the length says.
    length: usize,
    /// Bytes before the body, with the length.
    header: usize,
    /// Bytes of the frame that are here.
    have: usize,
}

impl Answer {
    fn end(&self) -> usize {
        4 + self.length
    }

    fn is_whole(&self) -> bool {
        self.have == self.end()
    }
}

impl Conversation {
    pub(super) fn answer(&mut self, now: Micros, input: &mut BytesMut) -> Step {
        match &self.answers.stage {
            Stage::Body(left) => {
                let left = *left;
                return self.pass_on(Side::Broker, now, left, input);
            }
            Stage::Seeking(..) => return self.seek(now, input),
            Stage::Tail(left, tail) => {
                let (left, tail) = (*left, *tail);
                return self.tail(now, left, tail, input);
            }
            Stage::Frame if self.expects_token(Side::Broker) => {
                return self.token(Side::Broker, now, input);
            }
            Stage::Frame => {}
        }
        let Some(length) = peek_i32(input) else { return Step::More };
        if !self.answers.begun
            && let Some(what) = foreign(input)
        {
            tracing::error!(what, "connection closed");
            return self.refuse(what);
        }
        self.answers.begun = true;
        let Ok(length) = usize::try_from(length) else {
            tracing::error!(length, "broker sends a frame of negative length: connection closed");
            return self.refuse("broker sent a frame of negative length");
        };
        let have = input.len().min(4 + length);
        if have < self.answers.enough.min(4 + length) {
            return Step::More;
        }
        let Some(correlation) = input.get(4..have).and_then(peek_i32) else {
            if length >= 4 {
                return Step::More;
            }
            self.go_opaque(now, "the broker's answer can't be read");
            return self.step(Side::Broker, now, input);
        };
        let Some(asked) = self.outstanding.front().filter(|asked| asked.correlation == correlation)
        else {
            self.go_opaque(now, "an answer that belongs to no request");
            return self.step(Side::Broker, now, input);
        };
        let asked = asked.clone();
        let header = match response_body(asked.key, asked.version, &input[4..have]) {
            Ok((_, body)) => have - body.len(),
            Err(Fault::Short) if have < 4 + length => return Step::More,
            Err(_) => {
                self.go_opaque(now, "the broker's answer can't be read");
                return self.step(Side::Broker, now, input);
            }
        };
        self.matched(now, &Answer { asked, length, header, have }, input)
    }

    /// Deals with an answer whose request is known.
    fn matched(&mut self, now: Micros, answer: &Answer, input: &mut BytesMut) -> Step {
        let (key, version) = (answer.asked.key, answer.asked.version);
        match addresses::position(key, version) {
            Some(Position::Front) => return self.front(now, answer, input),
            Some(Position::Tail) if answer.length > SMALL_FETCH => {
                return self.large_fetch(now, answer, input);
            }
            None if !matches!(key, key::API_VERSIONS | key::SASL_HANDSHAKE) => {
                return self.untouched(now, answer, input);
            }
            _ => {}
        }
        if !answer.is_whole() {
            return self.keep_back(answer, 4 + answer.length);
        }
        let body = &input[answer.header..answer.have];
        match (key, addresses::position(key, version)) {
            (key::SASL_HANDSHAKE, _) => {
                let accepted = Reader::new(body, false).i16() == Ok(0);
                if accepted && version == 0 {
                    self.tokens = Tokens::of(&self.mechanism);
                    if self.tokens.is_none() {
                        // Its answer still belongs to the part that is understood.
                        let step = self.untouched(now, answer, input);
                        self.go_opaque(now, "SASL without headers, in a mechanism of many rounds");
                        return step;
                    }
                }
                self.untouched(now, answer, input)
            }
            (key::API_VERSIONS, _) => match versions::clamp(version, body) {
                Ok(None) => self.untouched(now, answer, input),
                Ok(Some(new)) => {
                    let read = body.len();
                    self.replaced(now, answer, 0, read, &new, input)
                }
                Err(fault) => {
                    tracing::warn!(%fault, "ApiVersions can't be read, and passes as it is");
                    self.around.metrics.undecodable("ApiVersions");
                    self.untouched(now, answer, input)
                }
            },
            (_, Some(Position::Tail)) => {
                if let Ok(Some(at)) = finder(key, version).feed(body) {
                    self.rewritten(now, answer, at, input)
                } else {
                    tracing::warn!(key, version, "a Fetch can't be read, and passes as it is");
                    self.around.metrics.undecodable("Fetch");
                    self.untouched(now, answer, input)
                }
            }
            _ => self.rewritten(now, answer, 0, input),
        }
    }

    /// Waits until this many bytes of the frame are here, if that is not too much.
    fn keep_back(&mut self, answer: &Answer, enough: usize) -> Step {
        if answer.have >= MAX_KEPT_BACK || (enough == answer.end() && enough > MAX_KEPT_BACK) {
            tracing::error!(
                api = answer.asked.key,
                bytes = answer.length,
                "connection closed: an answer with addresses is larger than can be kept back"
            );
            return self.refuse("an answer with addresses is too large");
        }
        self.answers.enough = enough;
        self.keeps_back(answer.have);
        Step::More
    }

    /// An answer with its addresses near the beginning: what follows them passes as it comes.
    fn front(&mut self, now: Micros, answer: &Answer, input: &mut BytesMut) -> Step {
        let body = &input[answer.header..answer.have];
        match addresses::find(answer.asked.key, answer.asked.version, body) {
            Err(Fault::Short) if !answer.is_whole() => {
                // Not after each read, or the time would grow with the square of the size.
                let enough = (2 * answer.have).min(answer.end());
                self.keep_back(answer, enough)
            }
            found => self.with_addresses(now, answer, 0, found, input),
        }
    }

    /// An answer that is here as a whole, with addresses behind the first `at` bytes of its body.
    fn rewritten(&mut self, now: Micros, answer: &Answer, at: usize, input: &mut BytesMut) -> Step {
        let body = &input[answer.header + at..answer.have];
        let found = addresses::find(answer.asked.key, answer.asked.version, body);
        self.with_addresses(now, answer, at, found, input)
    }

    fn with_addresses(
        &mut self,
        now: Micros,
        answer: &Answer,
        at: usize,
        found: Result<Found, Fault>,
        input: &mut BytesMut,
    ) -> Step {
        let (key, version) = (answer.asked.key, answer.asked.version);
        let found = match found {
            Ok(found) => found,
            Err(fault) => {
                let api = wire::api(key).map_or("", |api| api.name);
                tracing::error!(
                    api, version, %fault,
                    "connection closed: an answer that names brokers can't be read"
                );
                return self.refuse("an answer that names brokers can't be read");
            }
        };
        let mut ports = Vec::with_capacity(found.places.len());
        for place in &found.places {
            match self.port_for(place) {
                Ok(port) => ports.push(port),
                Err(error) => {
                    tracing::error!(
                        broker = place.id, %error,
                        "connection closed: no listener can be bound for a broker"
                    );
                    return self.refuse("no listener can be bound for a broker");
                }
            }
        }
        if ports.iter().all(Option::is_none) {
            return self.untouched(now, answer, input);
        }
        let around = std::sync::Arc::clone(&self.around);
        let mut ports = ports.into_iter();
        let body = &input[answer.header + at..answer.have];
        let new = addresses::splice(key, version, body, &found, |_| {
            Some((around.brokers.advertise(), ports.next()??))
        });
        around.metrics.answers_rewritten.inc();
        self.replaced(now, answer, at, found.end, &new, input)
    }

    /// The local port for a broker; `None` where an answer names none.
    fn port_for(&self, place: &Place) -> std::io::Result<Option<u16>> {
        let port = u16::try_from(place.port).ok().filter(|port| *port > 0);
        let Some(port) = port.filter(|_| place.id >= 0 && !place.host.is_empty()) else {
            return Ok(None);
        };
        self.around.brokers.learn(place.id, HostPort { host: place.host.clone(), port }).map(Some)
    }

    /// Passes what is here of an answer as it is.
    fn untouched(&mut self, now: Micros, answer: &Answer, input: &mut BytesMut) -> Step {
        let hold = self.taken(now, answer, &input[answer.header..answer.have]);
        let bytes = input.split_to(answer.have).freeze();
        self.tell_piece(Side::Broker, now, &bytes.slice(answer.header..));
        self.within(Side::Broker, now, answer.end() - answer.have);
        Step::Out(bytes, hold)
    }

    /// Passes what is here of an answer, with `new` in place of `read` bytes of its body behind the
    /// first `at`.
    fn replaced(
        &mut self,
        now: Micros,
        answer: &Answer,
        at: usize,
        read: usize,
        new: &[u8],
        input: &mut BytesMut,
    ) -> Step {
        let Ok(length) = i32::try_from(answer.length - read + new.len()) else {
            return self.refuse("an answer with addresses is too large");
        };
        let hold = self.taken(now, answer, &input[answer.header..answer.have]);
        let old = input.split_to(answer.have).freeze();
        // The decoder gets what the broker said.
        self.tell_piece(Side::Broker, now, &old.slice(answer.header..));
        self.within(Side::Broker, now, answer.end() - answer.have);
        let from = answer.header + at;
        let mut bytes = Vec::with_capacity(old.len() - read + new.len());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&old[4..from]);
        bytes.extend_from_slice(new);
        bytes.extend_from_slice(&old[from + read..]);
        Step::Out(Bytes::from(bytes), hold)
    }

    /// The answer goes on now: its request is done with. What it has to wait for.
    fn taken(&mut self, now: Micros, answer: &Answer, body: &[u8]) -> Option<Ticket> {
        self.outstanding.pop_front();
        self.answers.enough = 0;
        self.keeps_back(0);
        let asked = &answer.asked;
        let head = Head {
            key: asked.key,
            version: asked.version,
            correlation: asked.correlation,
            client_id: None,
            size: answer.end() - answer.header,
        };
        let api = wire::api(asked.key);
        let unread = match asked.key {
            key::FETCH => api.is_some_and(|api| !api.knows(asked.version)),
            key::SHARE_FETCH => true,
            _ => false,
        } && !(answer.is_whole() && is_empty(asked, body));
        let hold = match asked.key {
            key::PRODUCE => asked.ticket,
            key::END_TXN => self.newest(),
            _ => None,
        };
        if unread {
            self.send(now, What::Unread(Box::new(head)));
        } else {
            self.tell_begin(Side::Broker, now, api, head);
        }
        hold
    }
}

// === large Fetch answers ===

impl Conversation {
    /// The header of a Fetch answer that is too large to be kept back.
    fn large_fetch(&mut self, now: Micros, answer: &Answer, input: &mut BytesMut) -> Step {
        self.taken(now, answer, &input[answer.header..answer.have]);
        let (key, version) = (answer.asked.key, answer.asked.version);
        let finder = Box::new(finder(key, version));
        let left = answer.end() - answer.header;
        self.answers.stage = Stage::Seeking(left, Tail { key, version }, finder);
        Step::Out(input.split_to(answer.header).freeze(), None)
    }

    /// Passes what is before the tail.
    fn seek(&mut self, now: Micros, input: &mut BytesMut) -> Step {
        let Stage::Seeking(left, tail, mut finder) = std::mem::take(&mut self.answers.stage) else {
            return Step::More;
        };
        let have = left.min(input.len());
        let before = match finder.feed(&input[..have]) {
            Ok(Some(at)) => {
                self.answers.stage = Stage::Tail(left - at, tail);
                at
            }
            Ok(None) if have < left => {
                self.answers.stage = Stage::Seeking(left - have, tail, finder);
                have
            }
            Ok(None) | Err(_) => {
                let Tail { key, version } = tail;
                tracing::warn!(key, version, "a Fetch can't be read, and passes as it is");
                self.around.metrics.undecodable("Fetch");
                return self.pass_on(Side::Broker, now, left, input);
            }
        };
        let bytes = input.split_to(before).freeze();
        self.tell_piece(Side::Broker, now, &bytes);
        if bytes.is_empty() { self.step(Side::Broker, now, input) } else { Step::Out(bytes, None) }
    }

    /// The tail: all of it must be here, then it says nothing of addresses any more.
    fn tail(&mut self, now: Micros, left: usize, tail: Tail, input: &mut BytesMut) -> Step {
        if input.len() < left {
            if left > MAX_KEPT_BACK {
                tracing::error!(bytes = left, "connection closed: a Fetch with a very long tail");
                return self.refuse("an answer with addresses is too large");
            }
            self.keeps_back(input.len());
            return Step::More;
        }
        self.keeps_back(0);
        if let Err(fault) = addresses::neutralise(tail.key, tail.version, &mut input[..left]) {
            tracing::warn!(%fault, "the end of a Fetch can't be read, and passes as it is");
            self.around.metrics.undecodable("Fetch");
        }
        self.pass_on(Side::Broker, now, left, input)
    }
}

/// Whether an answer that is not read holds no records: then nothing passes unseen.
fn is_empty(asked: &Asked, body: &[u8]) -> bool {
    let records = match asked.key {
        key::SHARE_FETCH => wire::share_fetch_records(asked.version, body),
        _ => wire::old_fetch_records(asked.version, body),
    };
    records == Ok(0)
}

fn finder(key: i16, version: i16) -> TailFinder {
    if key == key::FETCH { TailFinder::fetch(version) } else { TailFinder::share_fetch(version) }
}

/// What does not speak Kafka in the clear, by its first bytes.
fn foreign(first: &[u8]) -> Option<&'static str> {
    match first {
        // An alert: its four bytes would be a length of 350 MB to the client.
        [0x15, 0x03, ..] => {
            Some("the broker speaks TLS, but is dialled without: write kafka+ssl:// in `broker`")
        }
        [b'H', b'T', b'T', b'P', ..] => Some("the broker speaks HTTP"),
        _ => None,
    }
}
