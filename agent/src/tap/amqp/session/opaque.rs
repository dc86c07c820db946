//! A connection that is only passed on: since when and why, and what is said of it.
//!
//! What was open then is not concluded, for it may well go on: the `gap` row stands for its end.

use flowtap_record::{Kind as Row, Micros};
use serde_json::json;

use super::{Body, Session, Step};
use crate::tap::amqp::content::Assembly;
use crate::tap::amqp::context::Context;
use crate::tap::amqp::frame::{HEAD, Kind, Peek, peek};
use crate::tap::{Side, Sink};

/// Since when, and why, the connection is only passed on.
pub(super) struct Opaque {
    since: Micros,
    reason: String,
    bytes_before: u64,
    /// It is the client that made no sense: the broker's frames are followed to the end of a return
    /// that is being kept from the client, or else it would get the rest of it.
    in_return: bool,
}

impl Session {
    /// From here on the connection is passed on without being understood. `garbled`: whose bytes
    /// made no sense.
    pub(super) fn pass_on(
        &mut self,
        now: Micros,
        reason: &str,
        garbled: Option<Side>,
        sink: &mut dyn Sink,
    ) {
        self.env.metrics.opaque_connections.inc();
        tracing::warn!(
            connection = self.connection.number,
            reason,
            "connection is passed on without being understood"
        );
        self.opaque = Some(Opaque {
            since: now,
            reason: reason.to_owned(),
            bytes_before: self.client.bytes + self.broker.bytes,
            in_return: garbled == Some(Side::Client),
        });
        for channel in self.channels.values_mut() {
            channel.lose_sight();
        }
        self.gap(now, None, sink);
    }

    /// Looking at the connection's bytes has failed as it never should. Nothing of what was known
    /// is to be trusted any more.
    pub(crate) fn panicked(&mut self, now: Micros, sink: &mut dyn Sink) {
        self.env.metrics.undecodable("panic");
        self.channels.clear();
        if self.opaque.is_none() {
            self.pass_on(now, "decoder panicked", None, sink);
        }
    }

    /// The `gap` row: without an end when it begins; with one, and the bytes that passed, when the
    /// connection is over.
    pub(super) fn gap(&self, now: Micros, end: Option<Micros>, sink: &mut dyn Sink) {
        let Some(opaque) = &self.opaque else { return };
        let bytes = end.map(|_| self.client.bytes + self.broker.bytes - opaque.bytes_before);
        let details = json!({
            "what": "connection", "bytes": bytes, "client_address": self.handshake.peers.client,
        })
        .to_string();
        let cx = &mut Context { env: &self.env, connection: &self.connection, now, sink };
        let mut row = cx.row(Row::Gap, None);
        row.reason = Some(&opaque.reason);
        row.details = Some(&details);
        row.gap.from = Some(opaque.since);
        row.gap.to = end;
        cx.record(&row);
    }

    /// What is to be done with bytes of a connection that is only passed on.
    pub(super) fn passed_on(&mut self, side: Side, buffer: &[u8]) -> Step {
        let forward = Step::Forward(buffer.len());
        if side == Side::Client || !self.opaque.as_ref().is_some_and(|opaque| opaque.in_return) {
            return forward;
        }
        let unfinished = |assembly: &Assembly| assembly.wants_header() || assembly.wants_body();
        let mut channels = self.channels.values().map(|channel| &channel.from_broker);
        let in_return = channels.any(|assembly| assembly.swallow && unfinished(assembly))
            || self.broker.body.as_ref().is_some_and(|body| body.swallow);
        if in_return && let Some(step) = self.rest_of_return(buffer) {
            return step;
        }
        if let Some(opaque) = &mut self.opaque {
            opaque.in_return = false;
        }
        forward
    }

    /// Frames of the broker until the return is through. `None`: they make no sense, either.
    fn rest_of_return(&mut self, buffer: &[u8]) -> Option<Step> {
        if let Some(body) = &mut self.broker.body {
            let count = body.remaining.min(buffer.len());
            body.remaining -= count;
            let done = body.remaining == 0;
            let (number, swallow) = (body.channel, body.swallow);
            if done {
                self.broker.body = None;
            }
            let payload = &buffer[..count - usize::from(done)];
            let channel = self.channels.get_mut(&number).filter(|_| swallow);
            if let Some(channel) = channel.filter(|_| !payload.is_empty()) {
                channel.from_broker.body(payload);
            }
            return Some(if swallow { Step::Drop(count) } else { Step::Forward(count) });
        }
        let head = match peek(buffer) {
            Peek::Incomplete => return Some(Step::NeedMore),
            Peek::Garbage(_) => return None,
            Peek::Body(head) | Peek::Whole(head) => head,
        };
        let assembly = self.channels.get_mut(&head.channel).map(|channel| &mut channel.from_broker);
        let assembly = assembly.filter(|assembly| assembly.swallow);
        Some(match (head.kind, assembly) {
            (Kind::Body, assembly) => {
                let swallow = assembly.is_some_and(|assembly| assembly.wants_body());
                let (channel, remaining) = (head.channel, head.length + 1);
                self.broker.body = Some(Body { channel, remaining, swallow, known: swallow });
                if swallow { Step::Drop(HEAD) } else { Step::Forward(HEAD) }
            }
            (Kind::Header, Some(assembly)) if assembly.wants_header() => {
                assembly.header(head.payload(buffer), |_| 0);
                Step::Drop(head.frame_length())
            }
            _ => Step::Forward(head.frame_length()),
        })
    }
}
