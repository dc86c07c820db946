//! One AMQP connection as a state machine: bytes of both sides in, in the order in which they were
//! read; out, for each piece, whether it is to be forwarded, held until rows are written, or kept
//! from the client. Synchronous: no sockets, no clock.
//!
//! Biased towards the service: what is not understood is forwarded as it is, for the rest of the
//! connection if the frames themselves make no sense, and recorded as a `gap`.

use std::collections::HashMap;
use std::sync::Arc;

use flowtap_record::{Micros, Seq, escape_bytes};

use super::channel::Channel;
use super::connection::{Handshake, Objection, Peers, close_frame};
use super::content::wanted_bytes;
use super::context::{Connection, Context, Env};
use super::decide::{forward_after, publish_step, return_step};
use super::frame::{END, HEAD, Head, Kind, Peek, peek};
use super::method::{MANDATORY, Method, Publish};
use super::publisher::mandatory;
use crate::tap::{Side, Sink};

mod opaque;

use opaque::Opaque;

/// What is to be done with the bytes at the start of the buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing yet: more must be read. At the end of the stream, what is left is forwarded.
    NeedMore,
    /// So many bytes go on.
    Forward(usize),
    /// So many bytes go on as soon as the row is written, or 20 ms have passed.
    ForwardAfter(usize, Seq),
    /// So many bytes are not for the client.
    Drop(usize),
    /// The client is refused: these bytes are for it, then the connection ends.
    Refuse(Vec<u8>),
}

/// One connection.
pub struct Session {
    env: Arc<Env>,
    connection: Connection,
    handshake: Handshake,
    channels: HashMap<u16, Box<Channel>>,
    client: Stream,
    broker: Stream,
    opaque: Option<Opaque>,
    ended: bool,
}

/// What one side's stream is in the middle of.
#[derive(Default)]
struct Stream {
    /// The protocol header is through (client only).
    started: bool,
    body: Option<Body>,
    bytes: u64,
}

/// A body frame whose payload is still coming.
struct Body {
    channel: u16,
    remaining: usize,
    swallow: bool,
    /// The payload belongs to a content that is understood.
    known: bool,
}

impl Session {
    /// Connection `number` of this boot.
    pub fn new(env: Arc<Env>, number: i64, peers: Peers) -> Self {
        let connection =
            Connection { number, cluster: env.cluster.clone(), ..Connection::default() };
        Self {
            env,
            connection,
            handshake: Handshake::new(peers),
            channels: HashMap::new(),
            client: Stream::default(),
            broker: Stream::default(),
            opaque: None,
            ended: false,
        }
    }

    /// Tells the session whether the client leaves unread what was forwarded to it.
    pub fn client_is_slow(&mut self, slow: bool) {
        self.connection.client_is_slow = slow;
    }

    /// Looks at the bytes at the start of `buffer`, which were read from `side` at `now`. Of a
    /// publish one bit may be set in place. To be called again with the rest until it needs more.
    pub fn step(
        &mut self,
        side: Side,
        now: Micros,
        buffer: &mut [u8],
        sink: &mut dyn Sink,
    ) -> Step {
        if buffer.is_empty() {
            return Step::NeedMore;
        }
        let step = if self.opaque.is_some() {
            self.passed_on(side, buffer)
        } else if side == Side::Client && !self.client.started {
            self.protocol_header(now, buffer, sink)
        } else if self.stream(side).body.is_some() {
            self.body_bytes(side, now, buffer, sink)
        } else {
            self.frame(side, now, buffer, sink)
        };
        if let Step::Forward(count) | Step::ForwardAfter(count, _) | Step::Drop(count) = step {
            self.stream(side).bytes += count as u64;
        }
        step
    }

    /// The sockets are closed; `how` says by whom. Writes the rows of what ends with them.
    pub fn end(&mut self, now: Micros, how: &str, sink: &mut dyn Sink) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let reason = self.handshake.reason(how);
        let mut channels = std::mem::take(&mut self.channels);
        let mut numbers: Vec<u16> = channels.keys().copied().collect();
        numbers.sort_unstable();
        let cx = &mut Context { env: &self.env, connection: &self.connection, now, sink };
        for number in numbers {
            if let Some(channel) = channels.get_mut(&number) {
                channel.close(cx, &reason);
            }
        }
        self.handshake.end(cx, &reason);
        self.gap(now, Some(now), sink);
    }

    fn stream(&mut self, side: Side) -> &mut Stream {
        match side {
            Side::Client => &mut self.client,
            Side::Broker => &mut self.broker,
        }
    }

    fn protocol_header(&mut self, now: Micros, buffer: &[u8], sink: &mut dyn Sink) -> Step {
        // 0-9-1, and the two older headers that RabbitMQ answers with the same framing.
        const KNOWN: [&[u8; 8]; 3] =
            [b"AMQP\0\0\x09\x01", b"AMQP\x01\x01\0\x09", b"AMQP\x01\x01\x08\0"];
        if let Some(header) = buffer.get(..8) {
            if KNOWN.iter().any(|known| header == *known) {
                self.client.started = true;
                return Step::Forward(8);
            }
        } else if KNOWN.iter().any(|known| known.starts_with(buffer)) {
            return Step::NeedMore;
        }
        self.pass_on(now, "not AMQP 0-9-1", Some(Side::Client), sink);
        Step::Forward(buffer.len())
    }

    fn frame(&mut self, side: Side, now: Micros, buffer: &mut [u8], sink: &mut dyn Sink) -> Step {
        let head = match peek(buffer) {
            Peek::Incomplete => return Step::NeedMore,
            Peek::Garbage(reason) => {
                self.pass_on(now, reason, Some(side), sink);
                return Step::Forward(buffer.len());
            }
            Peek::Body(head) => return self.body_frame(side, now, head, buffer, sink),
            Peek::Whole(head) => head,
        };
        match head.kind {
            Kind::Method if head.channel == 0 => {
                self.connection_method(side, now, head, buffer, sink)
            }
            Kind::Method => self.channel_method(side, now, head, buffer, sink),
            Kind::Header => self.header_frame(side, now, head, buffer, sink),
            Kind::Heartbeat | Kind::Body => Step::Forward(head.frame_length()),
        }
    }

    fn connection_method(
        &mut self,
        side: Side,
        now: Micros,
        head: Head,
        buffer: &[u8],
        sink: &mut dyn Sink,
    ) -> Step {
        let forward = Step::Forward(head.frame_length());
        let Ok(method) = Method::decode(head.payload(buffer)) else {
            let env = Arc::clone(&self.env);
            let cx = &mut Context { env: &env, connection: &self.connection, now, sink };
            cx.undecodable("method", head.channel);
            return forward;
        };
        match (side, &method) {
            (Side::Broker, Method::ConnectionStart { server_properties }) => {
                let cluster = self.env.cluster.as_deref();
                self.handshake.start(&mut self.connection, server_properties, cluster);
            }
            (
                Side::Client,
                Method::ConnectionStartOk { client_properties, mechanism, response },
            ) => {
                let allow = self.env.allow_external;
                let connection = &mut self.connection;
                let checked = self.handshake.start_ok(
                    connection,
                    client_properties,
                    mechanism,
                    response,
                    allow,
                );
                if checked == Err(Objection::External) {
                    return self.refuse_external();
                }
            }
            (Side::Client, Method::ConnectionOpen { vhost }) => {
                self.connection.vhost = Some(escape_bytes(vhost).into_owned());
            }
            (_, Method::ConnectionClose { code, text }) => {
                let who = if side == Side::Client { "client" } else { "broker" };
                self.handshake.closing(format!("{who}: {code} {}", escape_bytes(text)));
            }
            (Side::Broker, method) => {
                let cx = &mut Context { env: &self.env, connection: &self.connection, now, sink };
                self.handshake.method(cx, method);
            }
            (Side::Client, _) => {}
        }
        forward
    }

    fn refuse_external(&self) -> Step {
        tracing::error!(
            connection = self.connection.number,
            "client refused: SASL EXTERNAL would give it the agent's identity; \
             set allow_external = true if that is meant"
        );
        Step::Refuse(close_frame(
            403,
            "ACCESS_REFUSED - SASL EXTERNAL is switched off in the sidecar (allow_external)",
        ))
    }

    fn channel_method(
        &mut self,
        side: Side,
        now: Micros,
        head: Head,
        buffer: &mut [u8],
        sink: &mut dyn Sink,
    ) -> Step {
        let length = head.frame_length();
        let env = Arc::clone(&self.env);
        let cx = &mut Context { env: &env, connection: &self.connection, now, sink };
        let Ok(method) = Method::decode(head.payload(buffer)) else {
            cx.undecodable("method", head.channel);
            return Step::Forward(length);
        };
        if side == Side::Client && matches!(method, Method::ChannelOpen) {
            let opened = Box::new(Channel::new(head.channel));
            if let Some(mut earlier) = self.channels.insert(head.channel, opened) {
                earlier.close(cx, "channel opened again");
            }
        }
        let Some(channel) = self.channels.get_mut(&head.channel) else {
            // Frames that cross a channel.close-ok are ordinary; the broker ignores them, too.
            return Step::Forward(length);
        };
        match (side, method) {
            (Side::Client, Method::Publish(publish)) => {
                let step = publish_step(cx, channel, head, &publish, buffer);
                if let Some((reason, step)) = step {
                    if reason == mandatory::SET {
                        buffer[length - 2] |= MANDATORY;
                    }
                    channel.from_client.begin(head.payload(buffer));
                    channel.from_client.mandatory = reason;
                    return step;
                }
                return Step::NeedMore;
            }
            (Side::Broker, Method::Return { exchange, routing_key, .. }) => {
                let verdict = channel.publisher.judge(exchange, routing_key);
                return return_step(cx, channel, head, verdict, buffer);
            }
            (Side::Broker, Method::Deliver { .. }) => {
                channel.from_broker.begin(head.payload(buffer));
            }
            (Side::Broker, Method::GetOk { .. }) => {
                channel.from_broker.begin(head.payload(buffer));
                channel.get_answered();
            }
            (_, Method::ChannelClose { code, text, class, method }) => {
                let who = if side == Side::Client { "client" } else { "broker" };
                let at = if class == 0 { String::new() } else { format!(" ({class},{method})") };
                channel.close(cx, &format!("{who}: {code} {}{at}", escape_bytes(text)));
            }
            (_, Method::ChannelCloseOk) => {
                self.channels.remove(&head.channel);
            }
            (side, method) => {
                let concluded = match side {
                    Side::Client => channel.client_method(cx, &method),
                    Side::Broker => channel.broker_method(cx, &method),
                };
                return forward_after(cx, length, concluded);
            }
        }
        Step::Forward(length)
    }

    fn header_frame(
        &mut self,
        side: Side,
        now: Micros,
        head: Head,
        buffer: &[u8],
        sink: &mut dyn Sink,
    ) -> Step {
        let length = head.frame_length();
        let env = Arc::clone(&self.env);
        let cx = &mut Context { env: &env, connection: &self.connection, now, sink };
        let Some(channel) = self.channels.get_mut(&head.channel) else {
            return Step::Forward(length);
        };
        let assembly = match side {
            Side::Client => &mut channel.from_client,
            Side::Broker => &mut channel.from_broker,
        };
        if !assembly.wants_header() {
            cx.undecodable("content header", head.channel);
            return Step::Forward(length);
        }
        let swallow = assembly.swallow;
        let method = std::mem::take(&mut assembly.method);
        let complete =
            assembly.header(head.payload(buffer), |header| match Method::decode(&method) {
                Ok(
                    Method::Publish(Publish { exchange, routing_key, .. })
                    | Method::Return { exchange, routing_key, .. }
                    | Method::Deliver { exchange, routing_key, .. }
                    | Method::GetOk { exchange, routing_key, .. },
                ) => wanted_bytes(&env.identifier, exchange, routing_key, header),
                _ => 0,
            });
        assembly.method = method;
        if complete {
            finish(cx, channel, side);
        }
        if swallow { Step::Drop(length) } else { Step::Forward(length) }
    }

    /// The head of a body frame, and as much of its payload as there is.
    fn body_frame(
        &mut self,
        side: Side,
        now: Micros,
        head: Head,
        buffer: &mut [u8],
        sink: &mut dyn Sink,
    ) -> Step {
        let assembly = self.channels.get(&head.channel).map(|channel| match side {
            Side::Client => &channel.from_client,
            Side::Broker => &channel.from_broker,
        });
        let known = assembly.is_some_and(super::content::Assembly::wants_body);
        let swallow = known && assembly.is_some_and(|assembly| assembly.swallow);
        // An empty body frame is legal anywhere within a content, and harmless elsewhere.
        if !known && assembly.is_some() && head.length > 0 {
            let cx = &mut Context { env: &self.env, connection: &self.connection, now, sink };
            cx.undecodable("body", head.channel);
        }
        let body = Body { channel: head.channel, remaining: head.length + 1, swallow, known };
        self.stream(side).body = Some(body);
        let rest = self.body_bytes(side, now, &buffer[HEAD..], sink);
        match rest {
            Step::Forward(count) => Step::Forward(HEAD + count),
            Step::Drop(count) => Step::Drop(HEAD + count),
            _ if swallow => Step::Drop(HEAD),
            _ => Step::Forward(HEAD),
        }
    }

    /// Payload of a body frame, and its end octet.
    fn body_bytes(&mut self, side: Side, now: Micros, buffer: &[u8], sink: &mut dyn Sink) -> Step {
        let env = Arc::clone(&self.env);
        let stream = match side {
            Side::Client => &mut self.client,
            Side::Broker => &mut self.broker,
        };
        let Some(body) = &mut stream.body else { return Step::NeedMore };
        if buffer.is_empty() {
            return Step::NeedMore;
        }
        let count = body.remaining.min(buffer.len());
        body.remaining -= count;
        let done = body.remaining == 0;
        let (channel, swallow, known) = (body.channel, body.swallow, body.known);
        let payload = &buffer[..if done { count - 1 } else { count }];
        if done {
            stream.body = None;
        }
        if done && buffer[count - 1] != END {
            self.pass_on(now, "frame without end octet", Some(side), sink);
            return Step::Forward(count);
        }
        let channel = if known { self.channels.get_mut(&channel) } else { None };
        if let Some(channel) = channel {
            let assembly = match side {
                Side::Client => &mut channel.from_client,
                Side::Broker => &mut channel.from_broker,
            };
            if !payload.is_empty() && assembly.wants_body() && assembly.body(payload) {
                let cx = &mut Context { env: &env, connection: &self.connection, now, sink };
                finish(cx, channel, side);
            }
        }
        if swallow { Step::Drop(count) } else { Step::Forward(count) }
    }
}

/// A message is complete.
fn finish(cx: &mut Context<'_>, channel: &mut Channel, side: Side) {
    match side {
        Side::Client => channel.published(cx),
        Side::Broker => channel.received(cx),
    }
}
