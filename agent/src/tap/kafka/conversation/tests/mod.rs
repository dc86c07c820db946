//! Conversations driven with frames that another implementation of the protocol has made, and read
//! back with it. What real brokers and clients say is tested end to end in the workspace's `tests/`.

mod addresses;
mod fetch;
mod login;
mod odd;
mod told;
mod versions;

use bytes::Buf as _;
use kafka_protocol::messages::{ApiKey, ProduceRequest, RequestHeader as Header, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use tokio::sync::mpsc;

use super::super::brokers::{Brokers, Kept, Local, Opened};
use super::super::feed::{Intake, Next, feed};
use super::*;
use crate::config::PortRange;
use crate::metrics::Metrics;

/// What clients are told in place of brokers' hosts; of another length than those.
const LOCAL: &str = "tap.local";

/// A conversation with its two ends.
struct Wire {
    conversation: Conversation,
    around: Arc<Around>,
    intake: Intake,
    opened: mpsc::UnboundedReceiver<Opened>,
    from: [BytesMut; 2],
    /// What was forwarded, to the broker and to the client.
    to: [Vec<u8>; 2],
    /// What had to wait, with the number of bytes before it.
    held: Vec<(Side, usize, Ticket)>,
    refused: bool,
}

impl Wire {
    fn new() -> Self {
        Self::with_memory(1 << 26)
    }

    fn with_memory(bytes: usize) -> Self {
        let local = Local {
            ip: [127, 0, 0, 1].into(),
            ports: PortRange { first: 0, last: 0 },
            advertise: LOCAL.to_owned(),
        };
        let (opens, opened) = mpsc::unbounded_channel();
        let brokers = Arc::new(Brokers::new(local, Kept::default(), opens).unwrap());
        let (feed, intake) = feed(bytes);
        let metrics = Metrics::new().tap("test");
        let around = Arc::new(Around { brokers, feed: Some(feed), metrics });
        let conversation =
            Conversation::new(Arc::clone(&around), 7, Ends::default(), Micros(1_000));
        Self {
            conversation,
            around,
            intake,
            opened,
            from: Default::default(),
            to: Default::default(),
            held: Vec::new(),
            refused: false,
        }
    }

    fn read(&mut self, side: Side, bytes: &[u8]) {
        let input = &mut self.from[side as usize];
        input.extend_from_slice(bytes);
        loop {
            match self.conversation.step(side, Micros(2_000), input) {
                Step::More => return,
                Step::Out(bytes, hold) => {
                    let to = &mut self.to[side as usize];
                    self.held.extend(hold.map(|ticket| (side, to.len(), ticket)));
                    to.extend_from_slice(&bytes);
                }
                Step::Refuse => {
                    self.refused = true;
                    return;
                }
            }
        }
    }

    fn client(&mut self, bytes: &[u8]) {
        self.read(Side::Client, bytes);
    }

    fn broker(&mut self, bytes: &[u8]) {
        self.read(Side::Broker, bytes);
    }

    /// What has reached the broker since the last time.
    fn at_broker(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.to[Side::Client as usize])
    }

    /// What has reached the client since the last time.
    fn at_client(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.to[Side::Broker as usize])
    }

    /// All that was handed over, with pieces of a frame put together.
    fn told(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        let mut bodies = [Vec::new(), Vec::new()];
        while let Next::Item(ticket, item) = self.intake.next(std::time::Duration::ZERO) {
            self.intake.done(ticket, Intake::weight(&item), None);
            match item.what {
                What::Begin(side, head) => {
                    told.push(format!(
                        "{side:?} begins {} v{} #{} {}",
                        head.key, head.version, head.correlation, head.size
                    ));
                    bodies[side as usize].clear();
                }
                What::Piece(side, bytes) => bodies[side as usize].extend_from_slice(&bytes),
                What::End(side) => {
                    let body = &bodies[side as usize];
                    told.push(format!("{side:?} ends {} {:08x}", body.len(), crc32c::crc32c(body)));
                }
                What::Unread(head) => told.push(format!("unread {} v{}", head.key, head.version)),
                What::Opened(_) => {}
                other => told.push(format!("{other:?}")),
            }
        }
        told
    }

    /// The local port of a broker.
    fn port(&self, id: i32) -> u16 {
        self.around.brokers.to_keep().brokers[&id].port
    }

    /// Lets an answer pass, as if asked for; what the client gets.
    fn answered(&mut self, key: ApiKey, version: i16, body: &[u8]) -> Vec<u8> {
        let ask = match key {
            ApiKey::Produce => encoded(&ProduceRequest::default().with_acks(-1), version),
            _ => vec![0; 6],
        };
        self.client(&request(key, version, 5, &ask));
        self.broker(&answer(key, version, 5, body));
        self.at_client()
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn encoded(message: &impl Encodable, version: i16) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    message.encode(&mut bytes, version).unwrap();
    bytes.to_vec()
}

/// A body read back, to its last byte.
fn decoded<T: Decodable>(version: i16, body: &[u8]) -> T {
    let mut bytes = Bytes::copy_from_slice(body);
    let message = T::decode(&mut bytes, version).unwrap();
    assert!(!bytes.has_remaining(), "{} bytes are left", bytes.remaining());
    message
}

fn frame(parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&(body.len() as i32).to_be_bytes()[..], &body].concat()
}

fn request(key: ApiKey, version: i16, correlation: i32, body: &[u8]) -> Vec<u8> {
    let header = Header::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(text("shop-1")));
    frame(&[&encoded(&header, key.request_header_version(version)), body])
}

fn answer(key: ApiKey, version: i16, correlation: i32, body: &[u8]) -> Vec<u8> {
    let header = ResponseHeader::default().with_correlation_id(correlation);
    frame(&[&encoded(&header, key.response_header_version(version)), body])
}
