//! Any bytes, from both sides, cut anywhere: the AMQP session never panics, never loses a byte,
//! and changes nothing but the mandatory bit of publishes and the returns that come of it.
//!
//! Input: one octet of switches, then pieces, each an octet (lowest bit: which side; the rest: how
//! many bytes) and its bytes.

#![no_main]

use std::sync::Arc;

use flowtap_agent::identify::Identifier;
use flowtap_agent::metrics::Metrics;
use flowtap_agent::tap::{Budget, Side, Sink};
use flowtap_agent::tap::amqp::{Env, Peers, Session, Step};
use flowtap_record::{Micros, Observation, Seq};
use libfuzzer_sys::fuzz_target;

/// Takes rows, sheds every fifth, and has written every second.
#[derive(Default)]
struct Rows(i64);

impl Sink for Rows {
    fn record(&mut self, _row: &Observation<'_>) -> Option<Seq> {
        self.0 += 1;
        (self.0 % 5 != 0).then_some(Seq(self.0))
    }

    fn is_written(&self, seq: Seq) -> bool {
        seq.0 % 2 == 0
    }
}

/// One direction: what was read, what is undecided, what went on.
#[derive(Default)]
struct Direction {
    entered: Vec<u8>,
    pending: Vec<u8>,
    left: Vec<u8>,
    dropped: usize,
}

struct Wire {
    session: Session,
    rows: Rows,
    now: i64,
    up: Direction,
    down: Direction,
    refused: bool,
}

impl Wire {
    fn feed(&mut self, side: Side, bytes: &[u8]) {
        let direction = match side {
            Side::Client => &mut self.up,
            Side::Broker => &mut self.down,
        };
        direction.entered.extend_from_slice(bytes);
        direction.pending.extend_from_slice(bytes);
        let mut position = 0;
        loop {
            self.now += 1;
            let pending = &mut direction.pending[position..];
            match self.session.step(side, Micros(self.now), pending, &mut self.rows) {
                Step::NeedMore => break,
                Step::Forward(count) | Step::ForwardAfter(count, _) => {
                    assert!(count > 0, "a step goes on");
                    direction.left.extend_from_slice(&pending[..count]);
                    position += count;
                }
                Step::Drop(count) => {
                    assert!(count > 0, "a step goes on");
                    assert_eq!(side, Side::Broker, "nothing of the client is kept back");
                    direction.dropped += count;
                    position += count;
                }
                Step::Refuse(_) => {
                    self.refused = true;
                    break;
                }
            }
        }
        direction.pending.drain(..position);
    }
}

fn method(channel: u16, class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    let mut frame = vec![1];
    frame.extend(channel.to_be_bytes());
    frame.extend((arguments.len() as u32 + 4).to_be_bytes());
    frame.extend(class.to_be_bytes());
    frame.extend(method.to_be_bytes());
    frame.extend(arguments);
    frame.push(0xCE);
    frame
}

/// Gets to where frames of channels mean something: most inputs would not find the way.
fn open(wire: &mut Wire) {
    wire.feed(Side::Client, b"AMQP\0\0\x09\x01");
    let product = b"\x00\x09\0\0\0\x16\x07productS\0\0\0\x08RabbitMQ\0\0\0\0\0\0\0\0";
    wire.feed(Side::Broker, &method(0, 10, 10, product));
    for channel in 1..4 {
        wire.feed(Side::Client, &method(channel, 20, 10, b"\0"));
        wire.feed(Side::Broker, &method(channel, 20, 11, b"\0\0\0\0"));
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((switches, mut data)) = data.split_first() else { return };
    let env = Env {
        service: "shop".to_owned(),
        instance: "host".to_owned(),
        cluster: None,
        detect_unroutable: switches & 1 == 0,
        unroutable_max_body: 1000,
        allow_external: switches & 2 == 0,
        identifier: Identifier::default(),
        budget: Arc::new(Budget::new(10_000)),
        metrics: Metrics::new().tap("fuzz"),
    };
    let session = Session::new(Arc::new(env), 1, Peers::default());
    let mut wire = Wire {
        session,
        rows: Rows::default(),
        now: 0,
        up: Direction::default(),
        down: Direction::default(),
        refused: false,
    };
    if switches & 4 == 0 {
        open(&mut wire);
    }
    while let Some((&piece, rest)) = data.split_first() {
        let side = if piece & 1 == 0 { Side::Client } else { Side::Broker };
        let (bytes, rest) = rest.split_at(usize::from(piece >> 1).min(rest.len()));
        data = rest;
        wire.feed(side, bytes);
        if wire.refused {
            break;
        }
    }
    wire.session.end(Micros(wire.now), "over", &mut wire.rows);

    let (up, down) = (&mut wire.up, &wire.down);
    up.left.append(&mut up.pending);
    assert_eq!(up.left.len(), up.entered.len(), "every byte of the client goes on");
    let mut set = 0;
    for (entered, left) in up.entered.iter().zip(&up.left) {
        if entered != left {
            assert_eq!(entered | 1, *left, "the mandatory bit is set, nothing else is changed");
            set += 1;
        }
    }
    assert_eq!(down.left.len() + down.dropped + down.pending.len(), down.entered.len());
    if switches & 1 != 0 {
        assert_eq!(set, 0, "switched off");
    }
    if set == 0 {
        assert_eq!(down.dropped, 0, "no return is taken that was not asked for");
        assert!(down.entered.starts_with(&down.left), "every byte of the broker goes on");
    }
});
