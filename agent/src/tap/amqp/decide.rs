//! The two decisions that change what passes: whether a publish gets the mandatory bit, and whether
//! a return is kept from the client. Both may have to await more bytes than their own frame.

use flowtap_record::Seq;

use super::channel::Channel;
use super::content::Assembly;
use super::context::Context;
use super::frame::{Head, Kind, Peek, peek};
use super::method::{Method, Publish};
use super::publisher::{Ahead, Publisher, Verdict, mandatory};
use super::session::Step;

/// A frame that concludes a row goes on once that row is written.
pub(super) fn forward_after(cx: &Context<'_>, length: usize, row: Option<Seq>) -> Step {
    match row {
        Some(seq) if !cx.sink.is_written(seq) => Step::ForwardAfter(length, seq),
        _ => Step::Forward(length),
    }
}

/// basic.publish: the bit is set here, but the body's size, and whether the message is a delayed
/// one, stand in the header frame behind it, so both are awaited. `None`: the header is not there yet.
pub(super) fn publish_step(
    cx: &Context<'_>,
    channel: &Channel,
    head: Head,
    publish: &Publish<'_>,
    buffer: &[u8],
) -> Option<(&'static str, Step)> {
    let forward = Step::Forward(head.frame_length());
    let without_size = Publisher::mandatory(cx, publish, None, channel.closing);
    if without_size != mandatory::INTERLEAVED {
        return Some((without_size, forward));
    }
    let reason = match peek(&buffer[head.frame_length()..]) {
        Peek::Incomplete => return None,
        Peek::Whole(next) if next.kind == Kind::Header && next.channel == head.channel => {
            let payload = next.payload(&buffer[head.frame_length()..]);
            Publisher::mandatory(cx, publish, Ahead::read(payload), channel.closing)
        }
        _ => mandatory::INTERLEAVED,
    };
    Some((reason, forward))
}

/// basic.return: kept from the client if the tap asked for it. Where both asked for returns from
/// this place, the whole content is awaited and compared.
pub(super) fn return_step(
    cx: &Context<'_>,
    channel: &mut Channel,
    head: Head,
    verdict: Verdict,
    buffer: &[u8],
) -> Step {
    let length = head.frame_length();
    let verdict = match verdict {
        Verdict::Ambiguous => match returned_content(channel, head, buffer) {
            None => return Step::NeedMore,
            Some(verdict) => verdict,
        },
        clear => clear,
    };
    channel.from_broker.begin(head.payload(buffer));
    channel.from_broker.swallow = verdict == Verdict::Swallow;
    if channel.from_broker.swallow {
        return Step::Drop(length);
    }
    // It concludes its publish, which is at the latest the last one that may come back.
    forward_after(cx, length, channel.publisher.last_row())
}

/// Judges a return by its content, once all of it is in the buffer. Anything unexpected in
/// between, or a body larger than the tap would have asked for, makes it the client's.
fn returned_content(channel: &Channel, head: Head, buffer: &[u8]) -> Option<Verdict> {
    let Ok(Method::Return { exchange, routing_key, .. }) = Method::decode(head.payload(buffer))
    else {
        return Some(Verdict::Forward);
    };
    let mut rest = &buffer[head.frame_length()..];
    let mut assembly = Assembly::default();
    assembly.begin(head.payload(buffer));
    let mut complete = match peek(rest) {
        Peek::Incomplete => return None,
        Peek::Whole(next) if next.kind == Kind::Header && next.channel == head.channel => {
            let complete = assembly.header(next.payload(rest), |_| 0);
            rest = &rest[next.frame_length()..];
            complete
        }
        _ => return Some(Verdict::Forward),
    };
    while !complete {
        match peek(rest) {
            Peek::Incomplete => return None,
            Peek::Body(next) if next.channel == head.channel && next.length <= MAX_HELD => {
                if rest.len() < next.frame_length() {
                    return None;
                }
                complete = assembly.body(next.payload(rest));
                rest = &rest[next.frame_length()..];
            }
            _ => return Some(Verdict::Forward),
        }
        if buffer.len() - rest.len() > MAX_HELD {
            return Some(Verdict::Forward);
        }
    }
    Some(channel.publisher.judge_content(exchange, routing_key, &assembly))
}

/// A return is not held back for comparison beyond this many bytes.
const MAX_HELD: usize = 256 * 1024;
