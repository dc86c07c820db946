//! Connections of one client, any bytes on them, cut anywhere: what the client says goes on as it
//! is, no delivery is settled twice, and nothing panics.
//!
//! Input: one octet of switches, then steps. A step is an octet (lowest two bits: which connection;
//! the rest: what), and what it needs: raw bytes, a request or an answer with any body, or one of
//! the exchanges of a producer and of a group's member, with small numbers to choose from.

#![no_main]

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use flowtap_agent::identify::Identifier;
use flowtap_agent::metrics::Metrics;
use flowtap_agent::tap::kafka::Env;
use flowtap_agent::tap::kafka::probe::Tap;
use flowtap_agent::tap::{Budget, Side, Sink};
use flowtap_record::{Kind, Micros, Observation, Seq};
use libfuzzer_sys::fuzz_target;

const CONNECTIONS: usize = 3;
/// APIs that the tap reads something of, and two that it only passes on.
const KEYS: [i16; 26] = [
    0, 1, 3, 8, 9, 10, 11, 12, 13, 14, 17, 18, 19, 20, 22, 26, 28, 36, 60, 68, 75, 78, 79, 2, 24,
    99,
];

/// Takes rows, sheds every seventh, and watches that nothing is settled twice.
#[derive(Default)]
struct Rows {
    last: i64,
    settled: HashSet<Seq>,
}

impl Sink for Rows {
    fn record(&mut self, row: &Observation<'_>) -> Option<Seq> {
        // That of a delivery that was shed names none.
        if let (Kind::Settle, Some(delivery)) = (row.kind, &row.concludes) {
            assert!(self.settled.insert(delivery.seq), "{:?} is settled twice", delivery.seq);
            assert!(delivery.seq.0 <= self.last, "a delivery comes before its settle");
        }
        self.last += 1;
        (self.last % 7 != 0).then_some(Seq(self.last))
    }

    fn is_written(&self, _: Seq) -> bool {
        true
    }
}

/// Bytes in the layout of versions that are not flexible.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn i8(mut self, value: i8) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }
    fn i16(mut self, value: i16) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }
    fn i32(mut self, value: i32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }
    fn i64(mut self, value: i64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }
    fn text(mut self, value: &str) -> Self {
        self = self.i16(value.len() as i16);
        self.0.extend(value.as_bytes());
        self
    }
    fn bytes(mut self, value: &[u8]) -> Self {
        self = self.i32(value.len() as i32);
        self.0.extend(value);
        self
    }
}

/// A batch of so many records without key, value and headers.
fn batch(offset: i64, count: u8) -> Vec<u8> {
    let count = i32::from(count % 8);
    let mut records = Vec::new();
    for number in 0..count {
        // Length, attributes, time, offset, no key, an empty value, no headers.
        records.extend([12, 0, 0, 2 * number as u8, 1, 0, 0]);
    }
    let mut batch = offset.to_be_bytes().to_vec();
    batch.extend((49 + records.len() as i32).to_be_bytes());
    batch.extend([0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0]);
    batch.extend((count - 1).max(0).to_be_bytes());
    batch.extend([0; 16]);
    batch.extend((-1_i64).to_be_bytes());
    batch.extend((-1_i16).to_be_bytes());
    batch.extend((-1_i32).to_be_bytes());
    batch.extend(count.to_be_bytes());
    batch.extend(records);
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

#[derive(Default)]
struct Ends {
    /// Requests without an answer: API and correlation id.
    asked: VecDeque<(i16, i32)>,
    entered: Vec<u8>,
    left: Vec<u8>,
}

struct Stage {
    tap: Tap,
    rows: Rows,
    now: i64,
    correlation: i32,
    ends: [Ends; CONNECTIONS],
    /// Frames are fed in pieces of this size.
    piece: usize,
}

impl Stage {
    fn feed(&mut self, at: usize, side: Side, bytes: &[u8]) {
        for piece in bytes.chunks(self.piece) {
            self.now += 1000;
            let out = self.tap.feed(at, side, piece, Micros(self.now), &mut self.rows);
            if side == Side::Client {
                self.ends[at].entered.extend_from_slice(piece);
                self.ends[at].left.extend_from_slice(&out);
                let Ends { entered, left, .. } = &self.ends[at];
                assert!(entered.starts_with(left), "what the client says goes on as it is");
            }
        }
    }

    fn frame(&mut self, at: usize, side: Side, frame: Bytes) {
        let whole = Bytes::default().bytes(&frame.0);
        self.feed(at, side, &whole.0);
    }

    fn ask(&mut self, at: usize, key: i16, version: i16, body: &[u8]) {
        self.correlation += 1;
        let mut frame = Bytes::default().i16(key).i16(version).i32(self.correlation).text("c");
        frame.0.extend(body);
        self.ends[at].asked.push_back((key, self.correlation));
        self.frame(at, Side::Client, frame);
    }

    fn answer(&mut self, at: usize, body: &[u8]) {
        let Some((_, correlation)) = self.ends[at].asked.pop_front() else { return };
        let mut frame = Bytes::default().i32(correlation);
        frame.0.extend(body);
        self.frame(at, Side::Broker, frame);
    }

    fn exchange(&mut self, at: usize, key: i16, version: i16, request: Bytes, answer: Bytes) {
        self.ask(at, key, version, &request.0);
        self.answer(at, &answer.0);
    }

    /// One of the things that a producer or a member does, said with two small numbers.
    fn act(&mut self, at: usize, act: u8, one: u8, two: u8) {
        let new = Bytes::default;
        let member = if one & 1 == 0 { "m1" } else { "m2" };
        let offset = i64::from(one % 32);
        let error = if two >= 250 { 25 } else { 0 };
        match act % 7 {
            0 => {
                let request = new().i16(-1).i16(-1).i32(1000).i32(1).text("t").i32(1).i32(0);
                let answer = new().i32(1).text("t").i32(1).i32(0).i16(error).i64(offset).i64(-1);
                self.exchange(at, 0, 3, request.bytes(&batch(0, two)), answer.i32(0));
            }
            1 => {
                let request = new().i32(-1).i32(100).i32(1).i32(1 << 20).i8(0);
                let request = request.i32(1).text("t").i32(1).i32(0).i64(offset).i32(1 << 20);
                let answer = new().i32(0).i32(1).text("t").i32(1).i32(0).i16(error);
                let answer = answer.i64(100).i64(100).i32(-1).bytes(&batch(offset, two));
                self.exchange(at, 1, 4, request, answer);
            }
            2 => {
                let request = new().text("g").i32(1).text(member).i64(-1).i32(1).text("t").i32(1);
                let answer = new().i32(1).text("t").i32(1).i32(0).i16(error);
                self.exchange(at, 8, 2, request.i32(0).i64(offset).i16(-1), answer);
            }
            3 => {
                let request = new().text("g").i32(6000).text(member).text("consumer").i32(0);
                let answer = new().i16(error).i32(i32::from(two)).text("range").text("m1");
                self.exchange(at, 11, 0, request, answer.text(member).i32(0));
            }
            4 => {
                let request = new().text("g").i32(i32::from(two)).text(member).i32(0);
                let assigned = new().i16(0).i32(1).text("t").i32(1).i32(0).i32(-1);
                let none = new().i16(0).i32(0).i32(-1);
                let assigned = if one & 2 == 0 { assigned } else { none };
                self.exchange(at, 14, 0, request, new().i16(error).bytes(&assigned.0));
            }
            5 => {
                let request = new().text("g").i32(i32::from(two)).text(member);
                self.exchange(at, 12, 0, request, new().i16(if one & 2 == 0 { 0 } else { 25 }));
            }
            _ => self.exchange(at, 13, 0, new().text("g").text(member), new().i16(error)),
        }
    }
}

/// So many octets, or what is left of them.
fn take<'a>(data: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = data.split_at(count.min(data.len()));
    *data = rest;
    taken
}

fuzz_target!(|data: &[u8]| {
    let Some((switches, mut data)) = data.split_first() else { return };
    let env = Env {
        service: "shop".to_owned(),
        instance: "host".to_owned(),
        cluster: None,
        identifier: Identifier::default(),
        budget: Arc::new(Budget::new(if switches & 1 == 0 { 10_000 } else { 500 })),
        metrics: Metrics::new().tap("fuzz"),
    };
    let memory = if switches & 2 == 0 { 1 << 20 } else { 300 };
    let Some(tap) = Tap::new(env, CONNECTIONS as i64, memory, Micros(1)) else { return };
    let piece = if switches & 4 == 0 { usize::MAX } else { 1 + usize::from(switches >> 3) };
    let rows = Rows::default();
    let mut stage = Stage { tap, rows, now: 1, correlation: 0, ends: Default::default(), piece };
    while let Some((&step, rest)) = data.split_first() {
        data = rest;
        let at = usize::from(step & 3) % CONNECTIONS;
        let what = step >> 2;
        match what {
            0 | 1 => {
                let length = take(&mut data, 1).first().copied().unwrap_or(0);
                let side = if what == 0 { Side::Client } else { Side::Broker };
                let bytes = take(&mut data, usize::from(length));
                stage.feed(at, side, bytes);
            }
            2 => {
                let &[key, version, length] = take(&mut data, 3) else { break };
                let body = take(&mut data, usize::from(length));
                let key = KEYS[usize::from(key) % KEYS.len()];
                stage.ask(at, key, i16::from(version % 20), body);
            }
            3 => {
                let length = take(&mut data, 1).first().copied().unwrap_or(0);
                let body = take(&mut data, usize::from(length));
                stage.answer(at, body);
            }
            4 => {
                stage.now += 7_000_000;
                stage.tap.tick(Micros(stage.now), &mut stage.rows);
            }
            _ => {
                let &[one, two] = take(&mut data, 2) else { break };
                stage.act(at, what, one, two);
            }
        }
    }
    stage.tap.end(Micros(stage.now), &mut stage.rows);
});
