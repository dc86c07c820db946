//! AMQP 0-9-1 written by hand, for what no client library would say: odd frames, methods out of
//! place, content in pieces, a client that does not read. Whatever the broker sends is kept as a
//! transcript, so that what is seen through a sidecar can be compared with what is seen without.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};

use crate::PATIENCE;

/// Type octets of frames (spec section 4.2.3).
pub const METHOD: u8 = 1;
/// A content header.
pub const HEADER: u8 = 2;
/// A piece of a body.
pub const BODY: u8 = 3;
/// A heartbeat.
pub const HEARTBEAT: u8 = 8;

const END: u8 = 0xCE;

/// Class and method.
pub type Id = (u16, u16);

/// A frame as it was read.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its type octet.
    pub kind: u8,
    /// Its channel.
    pub channel: u16,
    /// What is between head and end octet.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Class and method, of a method frame.
    pub fn id(&self) -> Option<Id> {
        let [a, b, c, d] = *self.payload.first_chunk::<4>()?;
        (self.kind == METHOD).then(|| (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }

    /// A method's arguments, to be read from the front.
    pub fn arguments(&self) -> Reading<'_> {
        Reading(&self.payload[4..])
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.kind {
            METHOD => format!("method {:?}", self.id()),
            HEADER => "header".to_owned(),
            BODY => "body".to_owned(),
            kind => format!("frame {kind}"),
        };
        let start = &self.payload[..self.payload.len().min(400)];
        let start = start.escape_ascii();
        write!(f, "{name} on {}: {} bytes: {start}", self.channel, self.payload.len())
    }
}

/// A cursor over arguments.
#[derive(Debug)]
pub struct Reading<'a>(&'a [u8]);

impl<'a> Reading<'a> {
    /// The next bytes.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(count);
        self.0 = tail;
        head
    }

    /// An octet.
    pub fn u8(&mut self) -> u8 {
        self.bytes(1)[0]
    }

    /// Two octets.
    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.bytes(2).try_into().expect("two bytes"))
    }

    /// Eight octets.
    pub fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.bytes(8).try_into().expect("eight bytes"))
    }

    /// A short string.
    pub fn short(&mut self) -> &'a [u8] {
        let length = self.u8();
        self.bytes(length.into())
    }
}

/// Arguments in the making.
#[derive(Clone, Debug, Default)]
pub struct Args(Vec<u8>);

impl Args {
    /// No arguments yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// An octet, as for bits.
    #[must_use]
    pub fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    /// Two octets.
    #[must_use]
    pub fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// Four octets.
    #[must_use]
    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// Eight octets.
    #[must_use]
    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// A short string.
    #[must_use]
    pub fn short(mut self, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.0.push(u8::try_from(value.len()).expect("a short string is short"));
        self.0.extend(value);
        self
    }

    /// A long string, or a table whose entries are encoded already.
    #[must_use]
    pub fn long(mut self, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.0.extend(u32::try_from(value.len()).expect("it fits").to_be_bytes());
        self.0.extend(value);
        self
    }

    /// A table's entry that is a long string.
    #[must_use]
    pub fn text(self, name: &str, value: &str) -> Self {
        self.short(name).u8(b'S').long(value)
    }

    /// A table's entry that is a number.
    #[must_use]
    pub fn number(self, name: &str, value: i32) -> Self {
        self.short(name).u8(b'I').u32(value.cast_unsigned())
    }

    /// A table's entry that is a truth value.
    #[must_use]
    pub fn truth(self, name: &str, value: bool) -> Self {
        self.short(name).u8(b't').u8(value.into())
    }

    /// A table's entry that is a list of long strings.
    #[must_use]
    pub fn texts(self, name: &str, values: &[&str]) -> Self {
        let items = values.iter().fold(Self::new(), |items, value| items.u8(b'S').long(value));
        self.short(name).u8(b'A').long(items)
    }
}

impl AsRef<[u8]> for Args {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A frame's bytes.
pub fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(channel.to_be_bytes());
    bytes.extend(u32::try_from(payload.len()).expect("it fits").to_be_bytes());
    bytes.extend(payload);
    bytes.push(END);
    bytes
}

/// A method frame's bytes.
pub fn method(channel: u16, (class, method): Id, arguments: impl AsRef<[u8]>) -> Vec<u8> {
    frame(METHOD, channel, Args::new().u16(class).u16(method).raw(arguments).as_ref())
}

impl Args {
    /// Bytes as they are.
    #[must_use]
    pub fn raw(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend(bytes.as_ref());
        self
    }
}

/// basic.publish; bit 1 is mandatory, bit 2 immediate.
pub fn publish(channel: u16, exchange: &[u8], key: &[u8], bits: u8) -> Vec<u8> {
    method(channel, (60, 40), Args::new().u16(0).short(exchange).short(key).u8(bits))
}

/// A content header: flags and properties as they are.
pub fn header(channel: u16, size: u64, flags: u16, properties: &[u8]) -> Vec<u8> {
    let payload = Args::new().u16(60).u16(0).u64(size).u16(flags).raw(properties);
    frame(HEADER, channel, payload.as_ref())
}

/// Flag of the headers table.
pub const HEADERS: u16 = 1 << 13;
/// Flag of reply-to.
pub const REPLY_TO: u16 = 1 << 9;
/// Flag of message-id.
pub const MESSAGE_ID: u16 = 1 << 7;

/// A whole message: method, header, body in frames that fit into 4 kB.
pub fn message(
    channel: u16,
    exchange: &[u8],
    key: &[u8],
    bits: u8,
    (flags, properties): (u16, &[u8]),
    body: &[u8],
) -> Vec<u8> {
    let mut bytes = publish(channel, exchange, key, bits);
    bytes.extend(header(channel, body.len() as u64, flags, properties));
    for piece in body.chunks(4088) {
        bytes.extend(frame(BODY, channel, piece));
    }
    bytes
}

/// How a connection introduces itself.
#[derive(Clone, Debug)]
pub struct Hello<'a> {
    /// The virtual host.
    pub vhost: &'a str,
    /// What tune-ok says.
    pub frame_max: u32,
    /// Whether it says what it understands (`consumer_cancel_notify` and the like).
    pub capabilities: bool,
}

impl<'a> Hello<'a> {
    /// As most clients do.
    pub fn new(vhost: &'a str) -> Self {
        Self { vhost, frame_max: 131_072, capabilities: true }
    }
}

/// A connection.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    input: Vec<u8>,
    /// Every frame that came, the handshake's included.
    pub transcript: Vec<Frame>,
}

impl Raw {
    /// Connects, and says nothing.
    pub fn silent(port: u16) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("somebody listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a duration above zero");
        stream.set_nodelay(true).expect("a socket takes it");
        Self { stream, input: Vec::new(), transcript: Vec::new() }
    }

    /// Connects as `guest`.
    pub fn connect(port: u16, hello: &Hello<'_>) -> Self {
        let mut raw = Self::silent(port);
        raw.send(b"AMQP\0\0\x09\x01");
        raw.until((10, 10));
        let mut properties = Args::new().text("product", "by hand").text("version", "1");
        if hello.capabilities {
            let able = ["consumer_cancel_notify", "connection.blocked", "basic.nack"];
            let able = able.iter().fold(Args::new(), |able, name| able.truth(name, true));
            let able = able.truth("authentication_failure_close", true);
            let able = able.truth("publisher_confirms", true);
            properties = properties.short("capabilities").u8(b'F').long(able);
        }
        let plain = b"\0guest\0guest";
        let arguments = Args::new().long(properties).short("PLAIN").long(plain).short("en_US");
        raw.send(&method(0, (10, 11), arguments));
        raw.until((10, 30));
        raw.send(&method(0, (10, 31), Args::new().u16(2047).u32(hello.frame_max).u16(0)));
        let open = Args::new().short(hello.vhost).short("").u8(0);
        raw.call(0, (10, 40), open, (10, 41));
        raw
    }

    /// Sends bytes. That the other side has gone is seen when reading.
    pub fn send(&mut self, bytes: &[u8]) {
        let _gone = self.stream.write_all(bytes);
    }

    /// Reads a frame; `None` at the end, in whichever way it came.
    pub fn read(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.take() {
                self.transcript.push(frame.clone());
                return Some(frame);
            }
            let mut buffer = vec![0; 65_536];
            match self.stream.read(&mut buffer) {
                Ok(count) if count > 0 => self.input.extend(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("nothing came in {PATIENCE:?} after {:?}", self.transcript.last())
                }
                _ => return None,
            }
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let head = self.input.first_chunk::<7>()?;
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        let (kind, channel) = (head[0], u16::from_be_bytes([head[1], head[2]]));
        assert!([METHOD, HEADER, BODY, HEARTBEAT].contains(&kind), "no frame: {:?}", self.input);
        let end = *self.input.get(7 + length)?;
        assert_eq!(end, END, "a frame ends with its end octet");
        let payload = self.input[7..7 + length].to_vec();
        self.input.drain(..8 + length);
        Some(Frame { kind, channel, payload })
    }

    /// Reads until a frame is what is wanted, and returns it.
    pub fn until_frame(&mut self, what: &str, wanted: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            let last = self.transcript.last().cloned();
            let frame = self.read().unwrap_or_else(|| panic!("ended before {what}; last {last:?}"));
            if wanted(&frame) {
                return frame;
            }
        }
    }

    /// Reads until a method comes.
    pub fn until(&mut self, id: Id) -> Frame {
        self.until_frame(&format!("{id:?}"), |frame| frame.id() == Some(id))
    }

    /// Reads until that many frames with this method have come since `from` in the transcript.
    pub fn until_count(&mut self, id: Id, count: usize, from: usize) {
        let seen = |raw: &Self| {
            raw.transcript[from..].iter().filter(|frame| frame.id() == Some(id)).count()
        };
        while seen(self) < count {
            self.until(id);
        }
    }

    /// Reads until a frame is what is wanted, or the connection ends.
    pub fn until_frame_or_end(&mut self, wanted: impl Fn(&Frame) -> bool) {
        while let Some(frame) = self.read() {
            if wanted(&frame) {
                return;
            }
        }
    }

    /// The next bytes, whatever they are; fewer if the connection ends before.
    pub fn first_bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 1];
        while bytes.len() < count && matches!(self.stream.read(&mut buffer), Ok(1)) {
            bytes.push(buffer[0]);
        }
        bytes
    }

    /// Reads to the end of the connection.
    pub fn until_end(&mut self) {
        while self.read().is_some() {}
    }

    /// Calls a method and waits for its answer on that channel.
    pub fn call(&mut self, channel: u16, id: Id, arguments: impl AsRef<[u8]>, answer: Id) -> Frame {
        self.send(&method(channel, id, arguments));
        self.until_frame(&format!("{answer:?} to {id:?}"), |frame| {
            frame.channel == channel && frame.id() == Some(answer)
        })
    }

    /// channel.open
    pub fn open(&mut self, channel: u16) {
        self.call(channel, (20, 10), Args::new().short(""), (20, 11));
    }

    /// channel.close from the client.
    pub fn close_channel(&mut self, channel: u16) {
        self.call(channel, (20, 40), Args::new().u16(200).short("").u16(0).u16(0), (20, 41));
    }

    /// connection.close from the client, and the end of the socket.
    pub fn close(&mut self) {
        self.call(0, (10, 50), Args::new().u16(200).short("").u16(0).u16(0), (10, 51));
        // The broker gives the client half a minute to close its socket first.
        let _gone = self.stream.shutdown(Shutdown::Write);
        self.until_end();
    }

    /// The broker closes a channel; the client agrees.
    pub fn channel_closed(&mut self, channel: u16) {
        self.until((20, 40));
        self.send(&method(channel, (20, 41), b""));
    }

    /// The broker closes the connection; the client agrees, and reads to the end.
    pub fn connection_closed(&mut self) {
        self.until((10, 50));
        self.send(&method(0, (10, 51), b""));
        self.until_end();
    }

    /// Reads until the broker has gone through all that was sent on a channel.
    pub fn fence(&mut self, channel: u16) {
        self.call(channel, (60, 10), Args::new().u32(0).u16(0).u8(0), (60, 11));
    }

    /// confirm.select
    pub fn confirms(&mut self, channel: u16) {
        self.call(channel, (85, 10), Args::new().u8(0), (85, 11));
    }

    /// queue.declare with encoded arguments; bits: 1 passive, 2 durable, 4 exclusive, 8 auto-delete.
    /// Returns its name.
    pub fn declare(&mut self, channel: u16, queue: &str, bits: u8, table: &Args) -> Vec<u8> {
        let arguments = Args::new().u16(0).short(queue).u8(bits).long(table);
        let answer = self.call(channel, (50, 10), arguments, (50, 11));
        answer.arguments().short().to_vec()
    }

    /// A durable queue without arguments.
    pub fn queue(&mut self, channel: u16, queue: &str) {
        self.declare(channel, queue, 2, &Args::new());
    }

    /// A durable exchange.
    pub fn exchange(&mut self, channel: u16, name: &str, kind: &str, table: &Args) {
        let arguments = Args::new().u16(0).short(name).short(kind).u8(2).long(table);
        self.call(channel, (40, 10), arguments, (40, 11));
    }

    /// queue.bind
    pub fn bind(&mut self, channel: u16, queue: &str, exchange: &str, key: &str) {
        let arguments = Args::new().u16(0).short(queue).short(exchange).short(key).u8(0).long("");
        self.call(channel, (50, 20), arguments, (50, 21));
    }

    /// basic.consume; bits: 2 `no_ack`, 4 exclusive.
    pub fn consume(&mut self, channel: u16, queue: &str, tag: &str, bits: u8) {
        let arguments = Args::new().u16(0).short(queue).short(tag).u8(bits).long("");
        self.call(channel, (60, 20), arguments, (60, 21));
    }

    /// basic.ack
    pub fn ack(&mut self, channel: u16, tag: u64, multiple: bool) {
        self.send(&method(channel, (60, 80), Args::new().u64(tag).u8(multiple.into())));
    }

    /// basic.nack; bits: 1 multiple, 2 requeue.
    pub fn nack(&mut self, channel: u16, tag: u64, bits: u8) {
        self.send(&method(channel, (60, 120), Args::new().u64(tag).u8(bits)));
    }

    /// basic.get with acknowledgement: the header and body that came, or `None`.
    pub fn get(&mut self, channel: u16, queue: &str) -> Option<(Frame, Vec<u8>)> {
        self.send(&method(channel, (60, 70), Args::new().u16(0).short(queue).u8(0)));
        let answer = self.until_frame("an answer to basic.get", |frame| {
            matches!(frame.id(), Some((60, 71 | 72)))
        });
        (answer.id() == Some((60, 71))).then(|| self.content())
    }

    /// The content behind a method that has been read.
    pub fn content(&mut self) -> (Frame, Vec<u8>) {
        let header = self.until_frame("a content header", |frame| frame.kind == HEADER);
        let mut size = Reading(&header.payload[4..]).u64();
        let mut body = Vec::new();
        while size > 0 {
            let piece = self.until_frame("a body", |frame| frame.kind == BODY);
            size -= piece.payload.len() as u64;
            body.extend(piece.payload);
        }
        (header, body)
    }

    /// The next delivery: its tag, header and body.
    pub fn delivery(&mut self) -> (u64, Frame, Vec<u8>) {
        let deliver = self.until((60, 60));
        let mut arguments = deliver.arguments();
        arguments.short();
        let tag = arguments.u64();
        let (header, body) = self.content();
        (tag, header, body)
    }

    /// Ends the socket as a service that is killed does.
    pub fn drop_socket(&mut self) {
        let _gone = self.stream.shutdown(Shutdown::Both);
    }

    /// The socket.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }
}
