//! A message on its way through: its frames are collected as far as the row needs them, while the
//! proxy forwards them; and what is kept of it until it is concluded.

use flowtap_record::{Fingerprint, Observation};

use super::context::Context;
use super::wire::Header;
use crate::identify::{Content, Identified, Identifier, Payload, PayloadWhen, System};

/// The content of one message that is being received on a channel, from one side. Buffers are
/// used again for the next message.
#[derive(Default)]
pub(crate) struct Assembly {
    /// Payload of the method frame that began it.
    pub(crate) method: Vec<u8>,
    /// Payload of the header frame.
    pub(crate) header: Vec<u8>,
    /// The body, as far as it is kept.
    body: Vec<u8>,
    /// How many bytes of the body are kept, from its start.
    keep: u64,
    hash: Option<Fingerprint>,
    /// Bytes of the body still to come, once the header is there.
    missing: u64,
    stage: Stage,
    /// The frames are kept from the client: a return that the agent asked for.
    pub(crate) swallow: bool,
    /// For a publish: why `mandatory` was set, or not.
    pub(crate) mandatory: &'static str,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Idle,
    WantHeader,
    WantBody,
}

/// Buffers above this size are let go after use, so that one large message does not stay.
const KEEP_CAPACITY: usize = 16 * 1024;

impl Assembly {
    /// A method that carries content has been seen.
    pub(crate) fn begin(&mut self, method: &[u8]) {
        self.method.clear();
        self.method.extend_from_slice(method);
        self.stage = Stage::WantHeader;
        self.swallow = false;
        self.mandatory = "";
    }

    pub(crate) fn wants_header(&self) -> bool {
        self.stage == Stage::WantHeader
    }

    pub(crate) fn wants_body(&self) -> bool {
        self.stage == Stage::WantBody
    }

    /// The header frame's payload. Returns whether the message is complete (no body).
    /// `keep` decides how much of the body is needed, given the header.
    pub(crate) fn header(&mut self, payload: &[u8], keep: impl FnOnce(&Header<'_>) -> u64) -> bool {
        self.header.clear();
        self.header.extend_from_slice(payload);
        self.body.clear();
        self.missing = super::wire::body_size(payload).unwrap_or(0);
        let header = Header::decode(payload).ok();
        self.hash = header.as_ref().map(|header| Fingerprint::new(&header.identity()));
        self.keep = header.map_or(0, |header| keep(&header));
        self.stage = if self.missing == 0 { Stage::Idle } else { Stage::WantBody };
        self.missing == 0
    }

    /// A piece of the body. Returns whether the message is complete.
    pub(crate) fn body(&mut self, piece: &[u8]) -> bool {
        if let Some(hash) = &mut self.hash {
            hash.update(piece);
        }
        let wanted = self.keep.saturating_sub(self.body.len() as u64).min(piece.len() as u64);
        self.body.extend_from_slice(&piece[..wanted as usize]);
        self.missing = self.missing.saturating_sub(piece.len() as u64);
        if self.missing == 0 {
            self.stage = Stage::Idle;
        }
        self.missing == 0
    }

    /// The complete message.
    pub(crate) fn message(&self) -> Complete<'_> {
        let header = Header::decode(&self.header).ok();
        Complete {
            decodable: header.is_some(),
            size: super::wire::body_size(&self.header).unwrap_or(0),
            header: header.unwrap_or_default(),
            kept: &self.body,
            digest: self.hash.as_ref().map(Fingerprint::digest),
        }
    }

    /// Frees what one large message made grow.
    pub(crate) fn release(&mut self) {
        self.hash = None;
        for buffer in [&mut self.method, &mut self.header, &mut self.body] {
            if buffer.capacity() > KEEP_CAPACITY {
                *buffer = Vec::new();
            }
        }
    }
}

/// A message whose frames have all been seen.
pub(crate) struct Complete<'a> {
    pub(crate) header: Header<'a>,
    /// Whether the header could be read; if not, `header` is empty.
    pub(crate) decodable: bool,
    pub(crate) size: u64,
    /// The body, as far as it was kept.
    pub(crate) kept: &'a [u8],
    pub(crate) digest: Option<u128>,
}

impl<'a> Complete<'a> {
    /// The payload for a row, where the configuration asks for it there.
    pub(crate) fn payload(&self, cx: &Context<'_>, when: PayloadWhen) -> Option<Payload<'a>> {
        cx.env.identifier.payload(self.kept, self.size, when)
    }

    /// The message as `identify` wants it.
    pub(crate) fn content(&'a self, destination: &'a [u8], routing_key: &'a [u8]) -> Content<'a> {
        Content {
            system: System::Amqp,
            destination,
            routing_key,
            content_type: self.header.content_type,
            content_encoding: self.header.content_encoding,
            correlation_id: self.header.correlation_id,
            message_id: self.header.message_id,
            message_type: self.header.message_type,
            app_id: self.header.app_id,
            reply_to: self.header.reply_to,
            user_id: self.header.user_id,
            headers: &self.header.headers,
            body: (self.kept.len() as u64 == self.size).then_some(self.kept),
        }
    }
}

/// How much of a message's body is to be kept for ids, keys or payload.
pub(crate) fn wanted_bytes(
    identifier: &Identifier,
    destination: &[u8],
    routing_key: &[u8],
    header: &Header<'_>,
) -> u64 {
    identifier.wants_body(
        destination,
        routing_key,
        header.content_type,
        header.content_encoding,
        header.body_size,
    )
}

/// Fills a row with what `identify` found.
pub(crate) fn fill_message<'m>(
    row: &mut Observation<'m>,
    complete: &Complete<'m>,
    identified: &'m Identified<'m>,
    message: Option<&'m str>,
    content_type: Option<&'m str>,
) {
    row.message.message = message;
    row.message.ids = identified.ids();
    row.message.keys = identified.keys();
    row.message.headers = identified.headers();
    row.message.size = i64::try_from(complete.size).ok();
    row.message.content_type = content_type;
}
