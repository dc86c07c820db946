//! Which event, which transaction, which command: ids from a message's properties, headers and
//! body, and what of them may be recorded. Input: one decoded message from a tap. Output: the
//! texts that go into its row.
//!
//! An [`Identifier`] is built once from the configuration and shared by all connections. It holds
//! no state but a counter, so what it says of a message depends on that message alone. What is found where is
//! described for people in `docs/identify.md`.

mod content;
mod detect;
mod json;
mod names;
mod payload;
mod record;
mod redact;
mod rules;
mod sniff;
mod spec;
mod text;

use flowtap_record::{Encoding, Field, Id, Ids, Value, escape_bytes};
use prometheus_client::metrics::counter::Counter;

pub use content::{Content, System};
pub use json::Pointer;
pub use names::{Glob, is_excluded};
pub use payload::Payload;
pub use spec::{
    DEFAULT_PAYLOAD_BYTES, HeaderPolicy, KeyNames, MAX_INSPECTED_BODY, MAX_PAYLOAD_BYTES,
    PayloadPolicy, Property, RecordSpec, Redact, RuleSpec, Section, Source, SpecError,
};
pub use text::Text;

use detect::{Found, FoundId, Giver, Heads, Slots, View};
use json::{BodyFacts, KeyFilter, MAX_KEYS, Wanted};
use record::{HeaderRecorder, MAX_HEADERS};
use redact::Redaction;
use rules::Rules;
use sniff::Sniffer;

/// On which kind of row a payload would stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadWhen {
    /// A message passes: `publish`, `deliver`.
    Passed,
    /// A message failed: `settle` without an acknowledgement, `return`, refused `confirm`.
    Failed,
}

/// Finds ids, keys, headers and payloads of messages, as the configuration has it.
#[derive(Debug)]
pub struct Identifier {
    rules: Rules,
    wanted: Wanted,
    envelope: Slots,
    keys: KeyFilter,
    sniffer: Sniffer,
    recorder: HeaderRecorder,
    redact: Redaction,
    payload: PayloadPolicy,
    max_bytes: u64,
    left_out: Counter,
}

impl Default for Identifier {
    /// What an empty configuration means.
    fn default() -> Self {
        Self::new(&[], &RecordSpec::default()).expect("the defaults are valid")
    }
}

impl Identifier {
    /// Checks the configuration as a whole: every error at once.
    pub fn new(rules: &[RuleSpec], record: &RecordSpec) -> Result<Self, Vec<SpecError>> {
        let errors = spec::check(rules, record);
        if !errors.is_empty() {
            return Err(errors);
        }
        let redact = Redaction::new(&record.redact);
        let mut wanted = Wanted::new();
        let keys = match &record.keys {
            KeyNames::BuiltIn => KeyFilter::BuiltIn,
            KeyNames::Named(names) if names.is_empty() => KeyFilter::Off,
            KeyNames::Named(names) => KeyFilter::Named(names.clone()),
        };
        Ok(Self {
            envelope: Slots::new(&mut wanted, &redact),
            rules: Rules::new(rules, &mut wanted),
            wanted,
            sniffer: Sniffer::new(&keys),
            keys,
            recorder: HeaderRecorder::new(record),
            redact,
            payload: record.payload,
            max_bytes: record.max_bytes,
            left_out: Counter::default(),
        })
    }

    /// The same, adding to this counter the business keys and headers that it leaves out because a
    /// message has too many.
    #[must_use]
    pub fn counting_left_out(self, left_out: Counter) -> Self {
        Self { left_out, ..self }
    }

    /// How many bytes of a body of `size` bytes an AMQP tap should keep, from its start; 0 is none.
    /// Only a body that was kept whole goes into [`Content::body`]; any goes into
    /// [`Identifier::payload`].
    pub fn wants_body(
        &self,
        destination: &[u8],
        routing_key: &[u8],
        content_type: Option<&[u8]>,
        content_encoding: Option<&[u8]>,
        size: u64,
    ) -> u64 {
        let content = Content {
            destination,
            routing_key,
            content_type,
            content_encoding,
            ..Content::default()
        };
        self.wants_of(&content, size)
    }

    /// The same of a message whose content is at hand, its body perhaps not.
    pub fn wants_of(&self, content: &Content<'_>, size: u64) -> u64 {
        let inspects = size <= MAX_INSPECTED_BODY
            && is_plain(content.content_encoding)
            && (BodyType::of(content.content_type) != BodyType::Other
                || self.rules.read_bodies_of(content));
        let inspected = if inspects { size } else { 0 };
        inspected.max(self.wants_payload(size))
    }

    /// How many bytes of a body of `size` bytes [`Identifier::payload`] needs, from its start; 0 is
    /// none. For a tap that has the whole body while it identifies the message.
    pub fn wants_payload(&self, size: u64) -> u64 {
        match self.payload {
            PayloadPolicy::None => 0,
            PayloadPolicy::Failed | PayloadPolicy::All if self.redact.is_empty() => {
                size.min(self.max_bytes)
            }
            // To redact, one must see all of it.
            _ if size <= self.max_bytes.max(MAX_INSPECTED_BODY) => size,
            _ => 0,
        }
    }

    /// What there is to be said of a message.
    pub fn identify<'a>(&self, content: &Content<'a>) -> Identified<'a> {
        let body = self.read_body(content);
        let heads = Heads::of(content);
        let view = View {
            content,
            body: &body,
            heads: &heads,
            envelope: &self.envelope,
            recorder: &self.recorder,
        };
        let mut found = Found::default();
        let mut keys = Vec::new();
        self.rules.apply(&view, &mut found, &mut keys);
        detect::detect(&view, &mut found);
        let (headers, headers_left_out) = self.record_headers(content, &found);
        let mut left_out = headers_left_out + body.keys_left_out;
        for (name, value) in body.keys {
            if keys.len() == MAX_KEYS {
                left_out += 1;
            } else {
                keys.push(NamedText { name, value, encoding: Encoding::Text });
            }
        }
        if left_out > 0 {
            self.left_out.inc_by(u64::from(left_out));
        }
        Identified { ids: found.into_ids(), keys, headers }
    }

    /// The payload of a row, if the configuration asks for it there. `body` is what the tap kept
    /// of a body of `size` bytes.
    pub fn payload<'b>(&self, body: &'b [u8], size: u64, when: PayloadWhen) -> Option<Payload<'b>> {
        let wanted = match when {
            PayloadWhen::Passed => self.payload == PayloadPolicy::All,
            PayloadWhen::Failed => self.payload == PayloadPolicy::Failed,
        };
        if wanted { payload::record(body, size, self.max_bytes, &self.redact) } else { None }
    }

    fn read_body<'a>(&self, content: &Content<'a>) -> BodyFacts<'a> {
        let Some(body) = content.body else { return BodyFacts::default() };
        if body.len() as u64 > MAX_INSPECTED_BODY || !is_plain(content.content_encoding) {
            return BodyFacts::default();
        }
        let body = match content.system {
            System::Kafka => without_schema_id(body),
            System::Amqp => body,
        };
        let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
        let may_be_json = match (BodyType::of(content.content_type), first) {
            (BodyType::Json | BodyType::Unsaid, Some(b'{')) | (BodyType::Json, Some(b'[')) => {
                self.sniffer.may_hold_something(body, content.content_type)
            }
            _ => false,
        };
        let reads = may_be_json
            || (matches!(first, Some(b'{' | b'[')) && self.rules.read_bodies_of(content));
        if reads {
            json::walk(body, &self.wanted, &self.keys, &self.redact)
        } else {
            BodyFacts::default()
        }
    }

    fn record_headers<'a>(
        &self,
        content: &Content<'a>,
        found: &Found<'a>,
    ) -> (Vec<NamedText<'a>>, u32) {
        let mut headers = Vec::new();
        let mut left_out = 0;
        let all: &'a [(&'a [u8], Value<'a>)] = content.headers;
        for (at, (name, value)) in all.iter().enumerate() {
            let taken = match found.given_by(at) {
                // A name that a detector knows is one that may be recorded.
                Some(Giver::Detector) if self.recorder.takes_ids() => true,
                giver => self.recorder.takes(name, giver.is_some()),
            };
            if !taken {
                continue;
            }
            if headers.len() == MAX_HEADERS {
                left_out += 1;
                continue;
            }
            let (value, encoding) = self.recorder.value(name, value);
            headers.push(NamedText { name: escape_bytes(name).into(), value, encoding });
        }
        (headers, left_out)
    }
}

/// A value without what serializers of schema registries put before it. Where this guesses wrong,
/// what is left is no JSON.
fn without_schema_id(value: &[u8]) -> &[u8] {
    // Confluent: a number of 4 bytes, or in version 1 a GUID; Apicurio: 4 or 8 bytes; AWS Glue: how
    // it is compressed, and a GUID. JSON starts right behind.
    let lengths: &[usize] = match value {
        [0, ..] => &[5, 9],
        [1, ..] => &[17],
        [3, 0, ..] => &[18],
        _ => return value,
    };
    let starts = |length: &usize| matches!(value.get(*length), Some(b'{' | b'['));
    lengths.iter().find(|length| starts(length)).map_or(value, |length| &value[*length..])
}

/// What a content type says of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyType {
    /// JSON.
    Json,
    /// Nothing, or "text", as many clients write by default: JSON if it looks like it.
    Unsaid,
    /// Something else.
    Other,
}

impl BodyType {
    fn of(content_type: Option<&[u8]>) -> Self {
        let Some(content_type) = content_type else { return Self::Unsaid };
        let end = content_type.iter().position(|byte| *byte == b';');
        let essence = content_type[..end.unwrap_or(content_type.len())].trim_ascii();
        let ends_with = |end: &[u8]| {
            essence.len() >= end.len()
                && essence[essence.len() - end.len()..].eq_ignore_ascii_case(end)
        };
        if ends_with(b"/json") || ends_with(b"+json") {
            Self::Json
        } else if essence.is_empty() || essence.eq_ignore_ascii_case(b"text/plain") {
            Self::Unsaid
        } else {
            Self::Other
        }
    }
}

/// Whether a body is as it was written. kombu names the character set here: `utf-8`.
fn is_plain(content_encoding: Option<&[u8]>) -> bool {
    content_encoding.is_none_or(|encoding| {
        ["", "identity", "utf-8", "utf8", "us-ascii", "ascii", "7bit", "8bit"]
            .iter()
            .any(|plain| encoding.eq_ignore_ascii_case(plain.as_bytes()))
    })
}

/// A business key or a header, as it will be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NamedText<'a> {
    name: Text<'a>,
    value: Text<'a>,
    encoding: Encoding,
}

impl NamedText<'_> {
    fn lend(&self) -> Field<'_> {
        Field { name: &self.name, value: &self.value, encoding: self.encoding }
    }
}

/// The ids, keys and headers of one message, lent from it as far as possible.
#[derive(Clone, Debug)]
pub struct Identified<'a> {
    ids: [Option<FoundId<'a>>; detect::Field::COUNT],
    keys: Vec<NamedText<'a>>,
    headers: Vec<NamedText<'a>>,
}

impl Identified<'_> {
    /// The ids, as a row takes them.
    pub fn ids(&self) -> Ids<'_> {
        use detect::Field as F;
        let get =
            |field: F| -> Option<Id<'_>> { self.ids[field as usize].as_ref().map(FoundId::lend) };
        Ids {
            event_id: get(F::EventId),
            event_type: get(F::EventType),
            transaction_id: get(F::TransactionId),
            causation_id: get(F::CausationId),
            command: get(F::Command),
            command_id: get(F::CommandId),
            trace_id: get(F::TraceId),
            span_id: get(F::SpanId),
        }
    }

    /// The business keys, as a row takes them.
    pub fn keys(&self) -> Vec<Field<'_>> {
        self.keys.iter().map(NamedText::lend).collect()
    }

    /// The headers, as a row takes them.
    pub fn headers(&self) -> Vec<Field<'_>> {
        self.headers.iter().map(NamedText::lend).collect()
    }
}

#[cfg(test)]
mod kafka_tests;
#[cfg(test)]
mod tests;
