//! Header names that teams make up themselves, and that are nearly always the same ones:
//! `x-correlation-id`, `transaction_id`, `causationId`. Letters of either case, `-` and `_` make
//! no difference. Because such names promise nothing, values must look like ids.

use super::headers::{Name, counted};
use super::{Field, Found, View, from_header};
use crate::identify::text::{
    Text, is_digits, is_mime, is_small_number_or_flag, is_uuid, traceparent,
};

/// What a header's name says, in one byte: the field, and among the names of one field which is
/// clearer (0 the clearest). 0 says nothing.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Code(u8);

impl Code {
    const PROCESS_ID: Self = Self::strong(Field::TransactionId, 5);
    const MESSAGE_TYPE: Self = Self::strong(Field::EventType, 2);
    const PLAIN_ID: Self = Self::weak(Field::EventId, 1);
    const NONE: Self = Self(0);

    const fn strong(field: Field, rank: u8) -> Self {
        Self(0x80 | (field as u8) << 3 | rank)
    }

    /// A name that other things are called by, too: only after the message's properties.
    const fn weak(field: Field, rank: u8) -> Self {
        Self(0x40 | (field as u8) << 3 | rank)
    }

    fn is_strong(self) -> bool {
        self.0 & 0x80 != 0
    }

    fn field(self) -> Field {
        FIELDS[usize::from(self.0 >> 3 & 7)]
    }

    fn rank(self) -> u8 {
        self.0 & 7
    }
}

/// The codes of a message's headers, in the order in which they count, as far as there is room.
#[derive(Default)]
pub(super) struct Codes {
    first: [Code; 16],
    /// One bit for each field that a name promises.
    strong: u8,
    weak: u8,
}

impl Codes {
    pub(super) fn note(&mut self, nth: usize, code: Code) {
        if code == Code::NONE {
            return;
        }
        if let Some(place) = self.first.get_mut(nth) {
            *place = code;
        }
        let fields = if code.is_strong() { &mut self.strong } else { &mut self.weak };
        *fields |= 1 << (code.field() as u8);
    }

    fn get(&self, nth: usize, name: &[u8]) -> Code {
        self.first.get(nth).copied().unwrap_or_else(|| code_of(name))
    }
}

/// Names are folded into this many bytes; longer ones are none of ours.
const MAX_FOLDED: usize = 16;

pub(super) fn detect<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    detect_by(true, view, found);
}

pub(super) fn detect_weak<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    detect_by(false, view, found);
}

fn detect_by<'a>(strong: bool, view: &View<'_, 'a>, found: &mut Found<'a>) {
    let codes = &view.heads.generic;
    let promised = if strong { codes.strong } else { codes.weak };
    if FIELDS.iter().all(|field| promised & 1 << (*field as u8) == 0 || found.has(*field)) {
        return;
    }
    let mut best: [Option<(u8, usize, Text<'a>)>; Field::COUNT] = [const { None }; Field::COUNT];
    for (nth, (at, name, _)) in counted(view.content).enumerate() {
        let code = codes.get(nth, name);
        if code == Code::NONE || code.is_strong() != strong {
            continue;
        }
        let (field, rank) = (code.field(), code.rank());
        let place = &mut best[field as usize];
        if place.as_ref().is_some_and(|(best_rank, ..)| *best_rank <= rank) || found.has(field) {
            continue;
        }
        if let Some(text) = view.id_at(at)
            && fits(code, &text, view)
        {
            *place = Some((rank, at, text));
        }
    }
    for (field, best) in FIELDS.iter().zip(best) {
        if let Some((_, at, text)) = best {
            found.offer(*field, text, from_header(view.content.headers[at].0), Some(at));
        }
    }
}

/// In the order of their numbers.
const FIELDS: [Field; Field::COUNT] = [
    Field::EventId,
    Field::EventType,
    Field::TransactionId,
    Field::CausationId,
    Field::Command,
    Field::CommandId,
    Field::TraceId,
    Field::SpanId,
];

/// Lower case, without `-`, `_`, and a leading `x-`.
fn fold<'b>(name: &[u8], buffer: &'b mut [u8; MAX_FOLDED]) -> Option<&'b [u8]> {
    let name = match name {
        [b'x' | b'X', b'-' | b'_', rest @ ..] => rest,
        _ => name,
    };
    let mut length = 0;
    for byte in name {
        if matches!(byte, b'-' | b'_') {
            continue;
        }
        *buffer.get_mut(length)? = byte.to_ascii_lowercase();
        length += 1;
    }
    Some(&buffer[..length])
}

/// What a name promises.
pub(super) fn code_of(name: &[u8]) -> Code {
    // How our names end, and how long they are with all their separators: nearly every other name
    // leaves here.
    let may_be =
        matches!(name.last().map(u8::to_ascii_lowercase), Some(b'd' | b'e' | b'y' | b'o' | b'a'));
    if !may_be || name.len() > 24 {
        return Code::NONE;
    }
    let mut buffer = [0; MAX_FOLDED];
    let Some(folded) = fold(name, &mut buffer) else { return Code::NONE };
    match folded {
        b"eventid" => Code::strong(Field::EventId, 0),
        b"messageid" => Code::strong(Field::EventId, 1),
        b"msgid" => Code::strong(Field::EventId, 2),
        b"eventtype" => Code::strong(Field::EventType, 0),
        b"eventname" => Code::strong(Field::EventType, 1),
        b"messagetype" => Code::MESSAGE_TYPE,
        b"transactionid" => Code::strong(Field::TransactionId, 0),
        // Everywhere this was checked it is the flow; correlation ids beside it are something else.
        b"conversationid" => Code::strong(Field::TransactionId, 1),
        b"correlationid" => Code::strong(Field::TransactionId, 2),
        b"flowid" => Code::strong(Field::TransactionId, 3),
        b"sagaid" => Code::strong(Field::TransactionId, 4),
        b"processid" => Code::PROCESS_ID,
        b"causationid" => Code::strong(Field::CausationId, 0),
        b"parenteventid" => Code::strong(Field::CausationId, 1),
        b"initiatorid" => Code::strong(Field::CausationId, 2),
        b"triggeredby" => Code::strong(Field::CausationId, 3),
        b"inreplyto" => Code::strong(Field::CausationId, 4),
        b"parentid" => Code::strong(Field::CausationId, 5),
        b"commandname" => Code::strong(Field::Command, 0),
        b"command" => Code::strong(Field::Command, 1),
        b"commandtype" => Code::strong(Field::Command, 2),
        b"commandid" => Code::strong(Field::CommandId, 0),
        b"uuid" => Code::weak(Field::EventId, 0),
        b"id" => Code::PLAIN_ID,
        b"type" => Code::weak(Field::EventType, 0),
        b"schema" => Code::weak(Field::EventType, 1),
        b"requestid" => Code::weak(Field::TransactionId, 0),
        _ => Code::NONE,
    }
}

/// Whether a value has the shape of what its name promises.
fn fits(code: Code, text: &str, view: &View<'_, '_>) -> bool {
    if is_small_number_or_flag(text) || is_mime(text) || traceparent(text).is_some() {
        return false;
    }
    match code {
        // A process id of the operating system.
        Code::PROCESS_ID => !is_digits(text),
        // Anything has an `id`. Spring makes a new one at each hop, with a `timestamp` beside it.
        Code::PLAIN_ID => is_uuid(text) && !view.heads.any(Name::Timestamp.bit()),
        // Brighter writes its intent here: MT_EVENT.
        Code::MESSAGE_TYPE => !text
            .strip_prefix("MT_")
            .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_uppercase())),
        _ => true,
    }
}
