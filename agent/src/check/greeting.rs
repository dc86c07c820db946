//! What an AMQP 0-9-1 broker says of itself before anybody logs in: `connection.start`, read just
//! far enough for `check`. Specification: AMQP 0-9-1, 1.4.2.1, with RabbitMQ's field types.

use std::fmt;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::clean;

const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";
const METHOD_FRAME: u8 = 1;
const FRAME_END: u8 = 0xCE;
/// More than any broker says here; what claims to be longer is no AMQP.
const MAX_FRAME: usize = 128 * 1024;
const MAX_DEPTH: usize = 8;

/// A broker's word on itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Greeting {
    product: String,
    version: String,
    cluster_name: String,
    mechanisms: String,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum GreetingError {
    #[error("reached, but it closed the connection: {0}")]
    Closed(#[from] io::Error),
    #[error(
        "reached, but it does not speak AMQP 0-9-1 (it answered with other bytes); is TLS on one side only?"
    )]
    NotAmqp,
    #[error("reached, but its greeting cannot be read")]
    Malformed,
}

/// Says the protocol's name and reads the answer.
pub(super) async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Result<Greeting, GreetingError> {
    stream.write_all(&PROTOCOL_HEADER).await?;
    stream.flush().await?;
    let mut head = [0; 7];
    stream.read_exact(&mut head).await?;
    let [kind, channel_high, channel_low, size @ ..] = head;
    let size = u32::from_be_bytes(size) as usize;
    if kind != METHOD_FRAME || (channel_high, channel_low) != (0, 0) || size > MAX_FRAME {
        return Err(GreetingError::NotAmqp);
    }
    let mut payload = vec![0; size + 1];
    stream.read_exact(&mut payload).await?;
    if payload.pop() != Some(FRAME_END) {
        return Err(GreetingError::NotAmqp);
    }
    start(&payload).ok_or(GreetingError::Malformed)
}

/// `connection.start`: class 10, method 10, version, server properties, mechanisms, locales.
fn start(payload: &[u8]) -> Option<Greeting> {
    let mut reader = Reader(payload);
    if reader.take(4)? != [0, 10, 0, 10] {
        return None;
    }
    reader.take(2)?;
    let mut properties = Reader(reader.long_bytes()?);
    let mut greeting = Greeting::default();
    while !properties.0.is_empty() {
        let name = properties.short_bytes()?;
        let text = clean(properties.value(0)?);
        let slot = match name {
            b"product" => &mut greeting.product,
            b"version" => &mut greeting.version,
            b"cluster_name" => &mut greeting.cluster_name,
            _ => continue,
        };
        *slot = text;
    }
    greeting.mechanisms = clean(reader.long_bytes()?);
    Some(greeting)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn long_bytes(&mut self) -> Option<&'a [u8]> {
        let size = u32::from_be_bytes(self.take(4)?.try_into().ok()?);
        self.take(size as usize)
    }

    fn short_bytes(&mut self) -> Option<&'a [u8]> {
        let size = self.take(1)?[0];
        self.take(usize::from(size))
    }

    /// Goes past a value; gives a long string's bytes, and none of another type.
    fn value(&mut self, depth: usize) -> Option<&'a [u8]> {
        let size = match self.take(1)?[0] {
            b'S' => return self.long_bytes(),
            b'x' => return self.long_bytes().map(|_| &[][..]),
            b't' | b'b' | b'B' => 1,
            b's' | b'u' | b'U' => 2,
            b'I' | b'i' | b'f' => 4,
            b'D' => 5,
            b'l' | b'L' | b'd' | b'T' => 8,
            b'V' => 0,
            kind @ (b'F' | b'A') if depth < MAX_DEPTH => {
                let mut inner = Reader(self.long_bytes()?);
                while !inner.0.is_empty() {
                    if kind == b'F' {
                        inner.short_bytes()?;
                    }
                    inner.value(depth + 1)?;
                }
                return Some(&[]);
            }
            _ => return None,
        };
        self.take(size).map(|_| &[][..])
    }
}

impl fmt::Display for Greeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or = |text: &str, other: &str| {
            if text.is_empty() { other.to_owned() } else { text.to_owned() }
        };
        write!(f, "{} {}", or(&self.product, "a broker"), or(&self.version, "of unknown version"))?;
        write!(f, ", cluster {}", or(&self.cluster_name, "without a name"))?;
        write!(f, ", logins {}", or(&self.mechanisms, "none"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn long(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
    }

    fn field(name: &str, value: &[u8]) -> Vec<u8> {
        [&[name.len() as u8], name.as_bytes(), value].concat()
    }

    /// What a broker called `rabbit@test` would send.
    pub(crate) fn start_frame() -> Vec<u8> {
        let text = |text: &str| [b"S".as_slice(), &long(text.as_bytes())].concat();
        let capabilities = field("publisher_confirms", b"t\x01");
        let properties = [
            field("capabilities", &[b"F".as_slice(), &long(&capabilities)].concat()),
            field("cluster_name", &text("rabbit@test")),
            field("product", &text("RabbitMQ")),
            field("version", &text("3.10.8")),
        ]
        .concat();
        let payload = [
            &[0, 10, 0, 10, 0, 9][..],
            &long(&properties),
            &long(b"PLAIN AMQPLAIN"),
            &long(b"en_US"),
        ]
        .concat();
        let size = (payload.len() as u32).to_be_bytes();
        [&[METHOD_FRAME, 0, 0][..], &size, &payload, &[FRAME_END]].concat()
    }

    #[test]
    fn a_greeting_is_read_past_tables() {
        let frame = start_frame();
        let greeting = start(&frame[7..frame.len() - 1]).unwrap();
        assert_eq!(
            greeting.to_string(),
            "RabbitMQ 3.10.8, cluster rabbit@test, logins PLAIN AMQPLAIN"
        );
    }

    #[test]
    fn a_greeting_cut_anywhere_is_refused() {
        let frame = start_frame();
        let payload = &frame[7..frame.len() - 1];
        let locales = long(b"en_US").len();
        for end in 0..payload.len() - locales {
            assert_eq!(start(&payload[..end]), None, "cut at {end}");
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(clean(b"a\x1b[31mb\n"), "a[31mb");
    }
}
