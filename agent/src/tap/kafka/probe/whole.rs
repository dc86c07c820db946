//! A whole tap without its sockets: connections, the feed and the state, driven by bytes.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use flowtap_record::Micros;
use tokio::sync::mpsc;

use super::super::Env;
use super::super::addresses;
use super::super::brokers::{Brokers, Kept, Local, Opened};
use super::super::conversation::{Around, Conversation, Step};
use super::super::feed::{Ends, Intake, Next, feed};
use super::super::state::State;
use crate::config::PortRange;
use crate::tap::{Side, Sink};

/// One connection, with what of each side is not decided yet.
struct Connection {
    conversation: Conversation,
    pending: [BytesMut; 2],
    refused: bool,
}

/// A tap whose rows are made as soon as its bytes are read.
pub struct Tap {
    connections: Vec<Connection>,
    intake: Intake,
    state: State,
    /// Listeners that addresses in answers ask for: bound, and served by nobody.
    _opened: mpsc::UnboundedReceiver<Opened>,
}

impl Tap {
    /// A tap with so many connections, in which at most `memory` bytes wait to be decoded. `None`
    /// when it can't bind what it listens on.
    pub fn new(env: Env, connections: i64, memory: usize, now: Micros) -> Option<Self> {
        let local = Local {
            ip: [127, 0, 0, 1].into(),
            ports: PortRange { first: 0, last: 0 },
            advertise: "tap".to_owned(),
        };
        let (opens, opened) = mpsc::unbounded_channel();
        let brokers = Arc::new(Brokers::new(local, Kept::default(), opens).ok()?);
        let (feed, intake) = feed(memory);
        let metrics = env.metrics.clone();
        let around = Arc::new(Around { brokers, feed: Some(feed), metrics });
        let connection = |number| Connection {
            conversation: Conversation::new(Arc::clone(&around), number, Ends::default(), now),
            pending: Default::default(),
            refused: false,
        };
        Some(Self {
            connections: (1..=connections).map(connection).collect(),
            intake,
            state: State::new(Arc::new(env), []),
            _opened: opened,
        })
    }

    /// What goes on of the bytes that were read from a side of a connection.
    pub fn feed(
        &mut self,
        connection: usize,
        side: Side,
        bytes: &[u8],
        now: Micros,
        sink: &mut dyn Sink,
    ) -> Vec<u8> {
        let connection = &mut self.connections[connection];
        let mut out = Vec::new();
        let pending = &mut connection.pending[usize::from(side == Side::Broker)];
        pending.extend_from_slice(bytes);
        while !connection.refused {
            match connection.conversation.step(side, now, pending) {
                Step::More => break,
                Step::Out(bytes, _) => out.extend_from_slice(&bytes),
                Step::Refuse => connection.refused = true,
            }
        }
        self.decode(sink);
        out
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Micros, sink: &mut dyn Sink) {
        self.state.tick(now, sink);
    }

    /// Closes all connections.
    pub fn end(&mut self, now: Micros, sink: &mut dyn Sink) {
        for connection in &mut self.connections {
            connection.conversation.end(now, "over");
        }
        self.decode(sink);
    }

    fn decode(&mut self, sink: &mut dyn Sink) {
        while let Next::Item(ticket, item) = self.intake.next(Duration::ZERO) {
            let bytes = Intake::weight(&item);
            self.state.apply(item, sink);
            self.intake.done(ticket, bytes, self.state.newest());
        }
    }
}

/// The brokers that an answer names: id, host, port. `None` where it can't be read.
pub fn addresses(key: i16, version: i16, body: &[u8]) -> Option<Vec<(i32, String, i32)>> {
    let found = addresses::find(key, version, body).ok()?;
    Some(found.places.into_iter().map(|place| (place.id, place.host, place.port)).collect())
}

/// An answer with another address for every broker. `None` where it can't be read.
pub fn readdressed(
    key: i16,
    version: i16,
    body: &[u8],
    (host, port): (&str, u16),
) -> Option<Vec<u8>> {
    let found = addresses::find(key, version, body).ok()?;
    let mut new = addresses::splice(key, version, body, &found, |_| Some((host, port)));
    new.extend_from_slice(&body[found.end..]);
    Some(new)
}

/// The end of a large Fetch or ShareFetch, made to say nothing of addresses. `None` where it can't be
/// read.
pub fn neutralised(key: i16, version: i16, tail: &[u8]) -> Option<Vec<u8>> {
    let mut tail = tail.to_vec();
    addresses::neutralise(key, version, &mut tail).ok()?;
    Some(tail)
}
