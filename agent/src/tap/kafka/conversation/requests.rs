//! From the client: which API and version a request is, and whether an answer will come.

use bytes::BytesMut;
use flowtap_record::Micros;

use super::super::feed::{Head, What};
use super::super::versions::would_leak;
use super::super::wire::{self, Api, Fault, Reader, RequestHeader, key};
use super::{Asked, Conversation, Stage, Step, peek_i32};
use crate::tap::Side;

/// A header, and what of a Produce request is read behind it, takes less: both texts in it have
/// lengths of 16 bits.
const MAX_HEADER: usize = 256 * 1024;
/// Most that a SASL request may take for its user's name to be read.
const MAX_SASL: usize = 64 * 1024;
/// More requests than any client leaves without an answer.
const MAX_OUTSTANDING: usize = 100_000;
/// The newest API there is. What comes after it might carry records.
const NEWEST_KEY: i16 = 94;

/// What stands at the beginning of a request.
struct Request {
    head: Head,
    /// Bytes before the body, with the length.
    header: usize,
    /// Produce: whether no answer will come.
    silent: bool,
}

impl Conversation {
    pub(super) fn request(&mut self, now: Micros, input: &mut BytesMut) -> Step {
        match self.requests.stage {
            Stage::Body(left) => return self.pass_on(Side::Client, now, left, input),
            _ if self.expects_token(Side::Client) => {
                return self.token(Side::Client, now, input);
            }
            _ => {}
        }
        let Some(length) = peek_i32(input) else { return Step::More };
        if !self.requests.begun
            && let Some(what) = foreign(input)
        {
            self.go_opaque(now, what);
            return self.step(Side::Client, now, input);
        }
        self.requests.begun = true;
        let Ok(length) = usize::try_from(length) else {
            tracing::warn!(length, "client sends a frame of negative length: connection closed");
            return self.refuse("client sent a frame of negative length");
        };
        let end = 4 + length;
        let have = end.min(input.len());
        let request = match read(&input[..have], length) {
            Ok(request) => request,
            Err(Fault::Short) if have < end && have < MAX_HEADER => return Step::More,
            Err(_) => {
                self.go_opaque(now, "the client's request can't be read");
                return self.step(Side::Client, now, input);
            }
        };
        let Request { head, header, silent } = request;
        let api = wire::api(head.key);
        if let Some(api) = api
            && would_leak(api, head.version)
        {
            tracing::error!(
                api = api.name,
                version = head.version,
                newest = api.newest,
                "connection closed: the client uses a version whose answer may name brokers in a \
                 form that this tap does not know; it must ask for ApiVersions and keep to it"
            );
            return self.refuse("client uses a version that the sidecar can't rewrite");
        }
        if matches!(head.key, key::SASL_HANDSHAKE | key::SASL_AUTHENTICATE) && length <= MAX_SASL {
            if have < end {
                return Step::More;
            }
            self.login(now, &head, &input[header..end]);
        }
        if self.outstanding.len() >= MAX_OUTSTANDING {
            self.go_opaque(now, "too many requests without an answer");
            return self.step(Side::Client, now, input);
        }
        let commits = matches!(head.key, key::OFFSET_COMMIT | key::TXN_OFFSET_COMMIT);
        let hold = if commits { self.newest() } else { None };
        self.unread_request(now, api, &head);
        if !silent {
            self.outstanding.push_back(Asked {
                key: head.key,
                version: head.version,
                correlation: head.correlation,
                ticket: None,
            });
        }
        self.asked = !silent;
        self.tell_begin(Side::Client, now, api, head);
        let bytes = input.split_to(have).freeze();
        self.tell_piece(Side::Client, now, &bytes.slice(header..));
        self.within(Side::Client, now, end - have);
        Step::Out(bytes, hold)
    }

    /// Says what passes unread although it might carry records; counts what passes unread.
    fn unread_request(&mut self, now: Micros, api: Option<&Api>, head: &Head) {
        match api {
            Some(api) if api.knows(head.version) => {}
            // Each is counted once: what is told to the feed is counted there.
            Some(_) if matches!(head.key, key::PRODUCE | key::END_TXN) => {
                self.send(now, What::Unread(Box::new(head.clone())));
            }
            // Its answer is told.
            Some(_) if head.key == key::FETCH => {}
            Some(api) => self.around.metrics.undecodable(api.name),
            None if head.key > NEWEST_KEY || head.key < 0 => {
                if self.strange.insert(head.key) {
                    tracing::warn!(
                        api = head.key,
                        "an API that this tap does not know passes unread"
                    );
                    self.send(now, What::Unread(Box::new(head.clone())));
                } else {
                    self.around.metrics.undecodable("version_unknown");
                }
            }
            None => {}
        }
    }

    /// Keeps of a login what is no secret: the mechanism and the user's name.
    fn login(&mut self, now: Micros, head: &Head, body: &[u8]) {
        if head.key == key::SASL_HANDSHAKE {
            self.mechanism = wire::handshake_mechanism(head.version, body)
                .map_or_else(|_| Vec::new(), <[u8]>::to_vec);
        } else if let Ok(token) = wire::auth_bytes(head.version, body) {
            self.principal(now, token);
        }
    }

    pub(super) fn principal(&mut self, now: Micros, token: &[u8]) {
        if let Some(name) = wire::user_name(&self.mechanism, token) {
            let name = String::from_utf8_lossy(&name).into_owned();
            self.send(now, What::Principal(name));
        }
    }
}

/// Reads what stands at the beginning of a frame, as far as it is here.
fn read(frame: &[u8], length: usize) -> Result<Request, Fault> {
    let (header, mut body) = RequestHeader::read(&frame[4..])?;
    let before = frame.len() - body.rest().len();
    let size =
        (4 + length).checked_sub(before).ok_or(Fault::Bad("a header longer than its frame"))?;
    let silent = header.key == key::PRODUCE && acks(header.version, &mut body)? == 0;
    let head = Head {
        key: header.key,
        version: header.version,
        correlation: header.correlation,
        client_id: header.client_id.map(Box::from),
        size,
    };
    Ok(Request { head, header: before, silent })
}

/// `acks` of a Produce request; since version 3 it stands behind the transactional id.
fn acks(version: i16, body: &mut Reader<'_>) -> Result<i16, Fault> {
    if version >= 3 {
        body.string()?;
    }
    body.i16()
}

/// What speaks something else than Kafka, by its first bytes.
fn foreign(first: &[u8]) -> Option<&'static str> {
    const HTTP: [&[u8]; 7] = [b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI", b"CONN", b"PRI "];
    match first {
        [0x16, 0x03, ..] => Some(
            "the client speaks TLS, but this tap listens in the clear: give it tls.cert and \
             tls.key, or let the client connect without TLS",
        ),
        [b'A', b'M', b'Q', b'P', ..] => Some("the client speaks AMQP, but this is a Kafka tap"),
        _ if HTTP.iter().any(|verb| first.starts_with(verb)) => {
            Some("the client speaks HTTP, but this is a Kafka tap")
        }
        // A ticket of clients before 0.10, which ask for no mechanism.
        [_, _, _, _, 0x60, ..] => Some("the client logs in with a GSSAPI ticket first of all"),
        _ => None,
    }
}
