//! The state machine driven with frames made here, and with generated streams cut in every way.
//! What real brokers and clients say is tested end to end in the workspace's `tests/`.

mod consume;
mod publish;
mod relay;
mod session;
mod topology;
mod transparency;

use std::sync::Arc;

use flowtap_record::{Micros, Observation, Seq};
use serde_json::{Value as Json, json};

use super::connection::Peers;
use super::context::Env;
use super::session::{Session, Step};
use crate::identify::Identifier;
use crate::metrics::Metrics;
use crate::tap::{Budget, Side, Sink};

/// Keeps rows as JSON, with their numbers.
#[derive(Default)]
struct Rows {
    rows: Vec<Json>,
    /// Rows above this one count as not yet written.
    written: Option<i64>,
}

impl Sink for Rows {
    fn record(&mut self, row: &Observation<'_>) -> Option<Seq> {
        let seq = self.rows.len() as i64 + 1;
        let mut row = serde_json::to_value(row).unwrap();
        row["seq"] = seq.into();
        if let Some(details) = row["details"].as_str() {
            row["details"] = serde_json::from_str(details).unwrap();
        }
        self.rows.push(row);
        Some(Seq(seq))
    }

    fn is_written(&self, seq: Seq) -> bool {
        self.written.is_none_or(|written| seq.0 <= written)
    }
}

fn env() -> Env {
    Env {
        service: "shop".into(),
        instance: "host-1".into(),
        cluster: None,
        detect_unroutable: true,
        unroutable_max_body: 64 * 1024,
        allow_external: false,
        identifier: Identifier::default(),
        budget: Arc::new(Budget::new(1 << 20)),
        metrics: Metrics::new().tap("test"),
    }
}

/// A session with its two ends.
struct Wire {
    session: Session,
    rows: Rows,
    now: i64,
    /// What was forwarded.
    to_broker: Vec<u8>,
    to_client: Vec<u8>,
    /// Read, not yet decided.
    from_client: Vec<u8>,
    from_broker: Vec<u8>,
    held: Vec<i64>,
    refused: Option<Vec<u8>>,
}

impl Wire {
    fn new(env: Env) -> Self {
        Self {
            session: Session::new(Arc::new(env), 7, Peers::default()),
            rows: Rows::default(),
            now: 1_000,
            to_broker: Vec::new(),
            to_client: Vec::new(),
            from_client: Vec::new(),
            from_broker: Vec::new(),
            held: Vec::new(),
            refused: None,
        }
    }

    /// A connection with channel 1 open, nothing forwarded or recorded so far.
    fn open() -> Self {
        Self::open_with(env())
    }

    fn open_with(env: Env) -> Self {
        let mut wire = Self::new(env);
        wire.handshake();
        wire.client(&method(1, 20, 10, b"\0"));
        wire.broker(&method(1, 20, 11, b"\0\0\0\0"));
        wire.forget();
        wire
    }

    fn handshake(&mut self) {
        self.client(b"AMQP\0\0\x09\x01");
        let properties =
            table(&[("product", text("RabbitMQ")), ("cluster_name", text("rabbit@one"))]);
        self.broker(&method(
            0,
            10,
            10,
            &[b"\0\x09".as_slice(), &properties, b"\0\0\0\0\0\0\0\0"].concat(),
        ));
        let properties = table(&[("product", text("pika")), ("version", text("1.3"))]);
        let response = b"\x05PLAIN\0\0\0\x0c\0shop\0s3cret\x05en_US";
        self.client(&method(0, 10, 11, &[properties.as_slice(), response].concat()));
        self.broker(&method(0, 10, 30, b"\x07\xff\0\x02\0\0\0\x3c"));
        self.client(&method(0, 10, 31, b"\x07\xff\0\x02\0\0\0\x3c"));
        self.client(&method(0, 10, 40, b"\x01/\0\0"));
        self.broker(&method(0, 10, 41, b"\0"));
    }

    fn forget(&mut self) {
        self.to_broker.clear();
        self.to_client.clear();
        self.rows.rows.clear();
    }

    fn client(&mut self, bytes: &[u8]) {
        self.feed(Side::Client, bytes);
    }

    fn broker(&mut self, bytes: &[u8]) {
        self.feed(Side::Broker, bytes);
    }

    fn feed(&mut self, side: Side, bytes: &[u8]) {
        self.now += 10;
        let (input, output): (&mut Vec<u8>, &mut Vec<u8>) = match side {
            Side::Client => (&mut self.from_client, &mut self.to_broker),
            Side::Broker => (&mut self.from_broker, &mut self.to_client),
        };
        input.extend_from_slice(bytes);
        let mut position = 0;
        loop {
            let step =
                self.session.step(side, Micros(self.now), &mut input[position..], &mut self.rows);
            let (count, forward) = match step {
                Step::NeedMore => break,
                Step::Forward(count) => (count, true),
                Step::ForwardAfter(count, seq) => {
                    self.held.push(seq.0);
                    (count, true)
                }
                Step::Drop(count) => (count, false),
                Step::Refuse(bytes) => {
                    self.refused = Some(bytes);
                    break;
                }
            };
            assert!(count > 0 && position + count <= input.len(), "{side:?}: {count}");
            if forward {
                output.extend_from_slice(&input[position..position + count]);
            }
            position += count;
        }
        input.drain(..position);
    }

    fn end(&mut self) {
        self.session.end(Micros(self.now), "client closed the socket", &mut self.rows);
    }

    fn rows(&self, kind: &str) -> Vec<&Json> {
        self.rows.rows.iter().filter(|row| row["kind"] == kind).collect()
    }

    /// (outcome, delivery tag) of the rows of a kind, in order.
    fn outcomes(&self, kind: &str) -> Vec<(String, Json)> {
        let word = |row: &&Json| row["outcome"].as_str().unwrap_or("-").to_owned();
        self.rows(kind).iter().map(|row| (word(row), row["who"]["delivery_tag"].clone())).collect()
    }
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(channel.to_be_bytes());
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend(payload);
    bytes.push(0xCE);
    bytes
}

fn method(channel: u16, class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    frame(1, channel, &[&class.to_be_bytes(), &method.to_be_bytes(), arguments].concat())
}

fn short(text: &str) -> Vec<u8> {
    [&[text.len() as u8], text.as_bytes()].concat()
}

fn text(text: &str) -> Vec<u8> {
    [b"S".as_slice(), &(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
}

fn table(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let body: Vec<u8> =
        entries.iter().flat_map(|(name, value)| [short(name), value.clone()].concat()).collect();
    [(body.len() as u32).to_be_bytes().as_slice(), &body].concat()
}

/// Header and body frames of a message with a message id.
fn content(channel: u16, id: &str, body: &[u8]) -> Vec<u8> {
    content_with(channel, &[0, 0x80], &short(id), body)
}

fn content_with(channel: u16, flags: &[u8], properties: &[u8], body: &[u8]) -> Vec<u8> {
    let size = (body.len() as u64).to_be_bytes();
    let mut bytes =
        frame(2, channel, &[&[0, 60, 0, 0], size.as_slice(), flags, properties].concat());
    for chunk in body.chunks(4096 - 8) {
        bytes.extend(frame(3, channel, chunk));
    }
    bytes
}

fn publish_method(channel: u16, exchange: &str, key: &str, bits: u8) -> Vec<u8> {
    method(channel, 60, 40, &[b"\0\0".as_slice(), &short(exchange), &short(key), &[bits]].concat())
}

fn publish(channel: u16, exchange: &str, key: &str, bits: u8, id: &str) -> Vec<u8> {
    [publish_method(channel, exchange, key, bits), content(channel, id, b"{}")].concat()
}

fn returned(channel: u16, exchange: &str, key: &str, id: &str) -> Vec<u8> {
    let arguments = [b"\x01\x38\x08NO_ROUTE".as_slice(), &short(exchange), &short(key)].concat();
    [method(channel, 60, 50, &arguments), content(channel, id, b"{}")].concat()
}

fn ack(channel: u16, tag: u64, multiple: bool) -> Vec<u8> {
    method(channel, 60, 80, &[tag.to_be_bytes().as_slice(), &[u8::from(multiple)]].concat())
}

fn nack(channel: u16, tag: u64, multiple: bool, requeue: bool) -> Vec<u8> {
    let bits = u8::from(multiple) | u8::from(requeue) << 1;
    method(channel, 60, 120, &[tag.to_be_bytes().as_slice(), &[bits]].concat())
}

fn consume(channel: u16, queue: &str, tag: &str, bits: u8) -> Vec<u8> {
    let arguments = [b"\0\0".as_slice(), &short(queue), &short(tag), &[bits], &table(&[])].concat();
    method(channel, 60, 20, &arguments)
}

fn deliver(channel: u16, consumer: &str, tag: u64, key: &str, id: &str) -> Vec<u8> {
    let arguments =
        [short(consumer).as_slice(), &tag.to_be_bytes(), &[0], &short("orders"), &short(key)]
            .concat();
    [method(channel, 60, 60, &arguments), content(channel, id, b"{}")].concat()
}

fn channel_close(channel: u16, code: u16, reason: &str) -> Vec<u8> {
    method(
        channel,
        20,
        40,
        &[code.to_be_bytes().as_slice(), &short(reason), &[0, 0, 0, 0]].concat(),
    )
}
