//! As much of HTTP/1.1 as a hop needs that changes no byte: where a head ends, and where the body
//! behind it does.

use std::io::{self, BufRead, Read, Write};

/// A head longer than this is none.
const HEAD_BYTES: u64 = 64 * 1024;

/// The head of a request or an answer, as it came.
#[derive(Debug)]
pub(super) struct Head {
    /// With the empty line at its end.
    pub(super) bytes: Vec<u8>,
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    None,
    Length(u64),
    Chunked,
    /// To the end of the connection.
    Rest,
}

impl Head {
    /// Reads a head; none at the end of the connection.
    pub(super) fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        let mut limited = from.take(HEAD_BYTES);
        loop {
            let before = bytes.len();
            limited.read_until(b'\n', &mut bytes)?;
            match &bytes[before..] {
                b"" if before == 0 => return Ok(None),
                b"\r\n" | b"\n" if before > 0 => return Ok(Some(Self { bytes })),
                line if !line.ends_with(b"\n") => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => {}
            }
        }
    }

    /// The parts of the first line.
    pub(super) fn first_line(&self) -> [&str; 3] {
        let line = self.bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let mut parts = std::str::from_utf8(line).unwrap_or_default().splitn(3, ' ');
        std::array::from_fn(|_| parts.next().unwrap_or_default())
    }

    /// The status of an answer, 0 if it has none.
    pub(super) fn status(&self) -> u16 {
        self.first_line()[1].parse().unwrap_or(0)
    }

    /// A header's value.
    pub(super) fn header(&self, wanted: &str) -> Option<&str> {
        let text = std::str::from_utf8(&self.bytes).ok()?;
        text.lines().skip(1).find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim())
        })
    }

    /// Whether a header holds a word, however written.
    pub(super) fn says(&self, name: &str, word: &str) -> bool {
        self.header(name).is_some_and(|value| value.to_ascii_lowercase().contains(word))
    }

    fn body(&self, without_length: Body) -> Body {
        if self.says("transfer-encoding", "chunked") {
            return Body::Chunked;
        }
        let length = self.header("content-length").and_then(|length| length.parse().ok());
        length.map_or(without_length, Body::Length)
    }

    /// What follows a request's head.
    pub(super) fn request_body(&self) -> Body {
        self.body(Body::None)
    }

    /// What follows the head of an answer to a request with this method.
    pub(super) fn answer_body(&self, method: &str) -> Body {
        match self.status() {
            100..200 | 204 | 304 => Body::None,
            _ if method == "HEAD" => Body::None,
            _ => self.body(Body::Rest),
        }
    }
}

/// Passes a body on. Returns how many bytes it had, without the framing of chunks.
pub(super) fn pass(from: &mut impl BufRead, to: &mut impl Write, body: Body) -> io::Result<u64> {
    let bytes = match body {
        Body::None => 0,
        Body::Length(length) => exactly(from, to, length)?,
        Body::Rest => io::copy(from, to)?,
        Body::Chunked => chunks(from, to)?,
    };
    to.flush()?;
    Ok(bytes)
}

fn exactly(from: &mut impl BufRead, to: &mut impl Write, length: u64) -> io::Result<u64> {
    let copied = io::copy(&mut from.take(length), to)?;
    if copied == length { Ok(length) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn chunks(from: &mut impl BufRead, to: &mut impl Write) -> io::Result<u64> {
    let mut bytes = 0;
    loop {
        let line = pass_line(from, to)?;
        let digits = line.split(|byte| b";\r\n".contains(byte)).next().unwrap_or_default();
        let digits = std::str::from_utf8(digits).unwrap_or_default().trim();
        let size = u64::from_str_radix(digits, 16).map_err(|_| io::ErrorKind::InvalidData)?;
        if size == 0 {
            // Trailers, and the empty line behind them.
            while !matches!(&pass_line(from, to)?[..], b"\r\n" | b"\n") {}
            return Ok(bytes);
        }
        exactly(from, to, size)?;
        pass_line(from, to)?;
        bytes += size;
    }
}

fn pass_line(from: &mut impl BufRead, to: &mut impl Write) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    from.take(HEAD_BYTES).read_until(b'\n', &mut line)?;
    if !line.ends_with(b"\n") {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    to.write_all(&line)?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        Head::read(&mut text.as_bytes()).expect("whole").expect("not empty")
    }

    #[test]
    fn a_body_ends_where_its_head_says() {
        let put = head("PUT /b/k HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\nrest");
        assert_eq!(put.first_line(), ["PUT", "/b/k", "HTTP/1.1"]);
        assert_eq!((put.request_body(), put.header("host")), (Body::Length(7), Some("x")));
        assert_eq!(head("GET / HTTP/1.1\r\n\r\n").request_body(), Body::None);
        let found = head("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n");
        assert_eq!(found.answer_body("GET"), Body::Length(9));
        assert_eq!(found.answer_body("HEAD"), Body::None);
        assert_eq!(head("HTTP/1.1 204 No Content\r\n\r\n").answer_body("DELETE"), Body::None);
        assert_eq!(head("HTTP/1.1 200 OK\r\n\r\n").answer_body("GET"), Body::Rest);
        let chunked = head("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n");
        assert_eq!(chunked.answer_body("GET"), Body::Chunked);
    }

    #[test]
    fn what_is_cut_short_is_an_error_and_an_end_between_two_is_none() {
        assert!(Head::read(&mut &b""[..]).expect("an end").is_none());
        Head::read(&mut &b"GET / HTTP/1.1\r\nHo"[..]).expect_err("half a head");
        pass(&mut &b"abc"[..], &mut Vec::new(), Body::Length(4)).expect_err("half a body");
    }

    #[test]
    fn chunks_pass_as_they_are_and_only_their_content_counts() {
        let text = "4;ext=1\r\nabcd\r\nA\r\n0123456789\r\n0\r\nx: y\r\n\r\nnext";
        let mut from = text.as_bytes();
        let mut to = Vec::new();
        assert_eq!(pass(&mut from, &mut to, Body::Chunked).expect("whole"), 14);
        assert_eq!((from, to), (&b"next"[..], text.as_bytes()[..text.len() - 4].to_vec()));
    }
}
