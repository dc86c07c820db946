//! Frames (spec section 4.2.3): type, channel, length, payload, end octet.

/// Bytes before the payload.
pub(crate) const HEAD: usize = 7;
/// The octet behind the payload.
pub(crate) const END: u8 = 0xCE;

/// Method and header frames above this are not buffered: brokers send header frames above the
/// negotiated frame-max, but none near this.
const MAX_BUFFERED: usize = 16 * 1024 * 1024 + 64 * 1024;

/// Type of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Method,
    Header,
    Body,
    Heartbeat,
}

/// The first seven bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) channel: u16,
    pub(crate) length: usize,
}

/// What stands at the start of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Peek {
    /// Fewer bytes than a frame's head, or than a frame that is wanted whole.
    Incomplete,
    /// A body frame: its payload may still be on its way.
    Body(Head),
    /// Any other frame, whole.
    Whole(Head),
    /// No frame of AMQP 0-9-1.
    Garbage(&'static str),
}

impl Head {
    /// Length of the whole frame in bytes.
    pub(crate) fn frame_length(&self) -> usize {
        HEAD + self.length + 1
    }

    /// The payload of a frame that is whole.
    pub(crate) fn payload<'b>(&self, buffer: &'b [u8]) -> &'b [u8] {
        &buffer[HEAD..HEAD + self.length]
    }
}

/// Looks at the frame at the start of `buffer`.
pub(crate) fn peek(buffer: &[u8]) -> Peek {
    let Some(first) = buffer.first() else { return Peek::Incomplete };
    let kind = match first {
        1 => Kind::Method,
        2 => Kind::Header,
        3 => Kind::Body,
        8 => Kind::Heartbeat,
        _ => return Peek::Garbage("unknown frame type"),
    };
    let Some(head) = buffer.get(..HEAD) else { return Peek::Incomplete };
    let channel = u16::from_be_bytes([head[1], head[2]]);
    let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
    let head = Head { kind, channel, length };
    if kind == Kind::Body {
        return Peek::Body(head);
    }
    if length > MAX_BUFFERED {
        return Peek::Garbage("frame too large");
    }
    match buffer.get(head.frame_length() - 1) {
        None => Peek::Incomplete,
        Some(&END) => Peek::Whole(head),
        Some(_) => Peek::Garbage("frame without end octet"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_told_from_garbage() {
        let method = [1, 0, 5, 0, 0, 0, 2, 0xaa, 0xbb, END];
        let head = Head { kind: Kind::Method, channel: 5, length: 2 };
        assert_eq!(peek(&method), Peek::Whole(head));
        assert_eq!(head.payload(&method), [0xaa, 0xbb]);
        for cut in 0..method.len() {
            assert_eq!(peek(&method[..cut]), Peek::Incomplete);
        }
        let mut broken = method;
        broken[9] = 0;
        assert!(matches!(peek(&broken), Peek::Garbage(_)));
        assert!(matches!(peek(b"GET / HTTP"), Peek::Garbage(_)));
        assert!(matches!(peek(&[2, 0, 0, 0xff, 0xff, 0xff, 0xff]), Peek::Garbage(_)));
        let body = Head { kind: Kind::Body, channel: 1, length: 0xffff_ffff };
        assert_eq!(peek(&[3, 0, 1, 0xff, 0xff, 0xff, 0xff]), Peek::Body(body));
    }
}
