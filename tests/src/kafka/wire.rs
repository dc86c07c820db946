//! As much of Kafka's protocol as an administrator of a test broker needs, written by hand: it
//! shares nothing with the code under test.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Builds the body of a request.
#[derive(Debug, Default)]
pub struct Body(Vec<u8>);

impl Body {
    /// An 8-bit number.
    #[must_use]
    pub fn i8(mut self, value: i8) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// A 16-bit number.
    #[must_use]
    pub fn i16(mut self, value: i16) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// A 32-bit number, or the length of an array (-1: null).
    #[must_use]
    pub fn i32(mut self, value: i32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// A 64-bit number.
    #[must_use]
    pub fn i64(mut self, value: i64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// A string as versions have it that are not flexible.
    #[must_use]
    pub fn text(mut self, value: &str) -> Self {
        self = self.i16(i16::try_from(value.len()).expect("a short string"));
        self.0.extend(value.as_bytes());
        self
    }

    /// A string of a flexible version.
    #[must_use]
    pub fn compact(mut self, value: &str) -> Self {
        self = self.varint(value.len() as u64 + 1);
        self.0.extend(value.as_bytes());
        self
    }

    /// An unsigned varint: lengths plus one, or how many tagged fields there are.
    #[must_use]
    pub fn varint(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    /// Bytes as they are.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// Each element of a list after its length, as versions have it that are not flexible.
    #[must_use]
    pub fn each<T>(
        self,
        elements: impl ExactSizeIterator<Item = T>,
        add: impl Fn(Self, T) -> Self,
    ) -> Self {
        let count = i32::try_from(elements.len()).expect("a short list");
        elements.fold(self.i32(count), add)
    }
}

/// Reads the body of a response; panics where it ends too early.
#[derive(Debug)]
pub struct Answer {
    bytes: Vec<u8>,
    at: usize,
}

impl Answer {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let bytes = self.bytes[self.at..self.at + N].try_into().expect("as many as asked for");
        self.at += N;
        bytes
    }

    fn texts(&mut self, length: usize) -> String {
        let text = String::from_utf8_lossy(&self.bytes[self.at..self.at + length]).into_owned();
        self.at += length;
        text
    }

    /// An 8-bit number.
    pub fn i8(&mut self) -> i8 {
        i8::from_be_bytes(self.take())
    }

    /// A 16-bit number.
    pub fn i16(&mut self) -> i16 {
        i16::from_be_bytes(self.take())
    }

    /// A 32-bit number.
    pub fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.take())
    }

    /// A 64-bit number.
    pub fn i64(&mut self) -> i64 {
        i64::from_be_bytes(self.take())
    }

    /// Sixteen bytes.
    pub fn uuid(&mut self) -> [u8; 16] {
        self.take()
    }

    /// A string that may be null, as versions have it that are not flexible.
    pub fn text(&mut self) -> Option<String> {
        let length = self.i16();
        usize::try_from(length).ok().map(|length| self.texts(length))
    }

    /// Bytes that may be null, as versions have it that are not flexible.
    pub fn bytes(&mut self) -> Vec<u8> {
        let length = usize::try_from(self.i32()).unwrap_or_default();
        let bytes = self.bytes[self.at..self.at + length].to_vec();
        self.at += length;
        bytes
    }

    /// An unsigned varint.
    pub fn varint(&mut self) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let [byte] = self.take();
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }

    /// A string of a flexible version that may be null.
    pub fn compact(&mut self) -> Option<String> {
        let length = self.varint().checked_sub(1)?;
        Some(self.texts(length as usize))
    }

    /// Tagged fields by their tags.
    pub fn tagged(&mut self) -> BTreeMap<u64, Vec<u8>> {
        let count = self.varint();
        let field = |_| {
            let (tag, size) = (self.varint(), self.varint() as usize);
            let content = self.bytes[self.at..self.at + size].to_vec();
            self.at += size;
            (tag, content)
        };
        (0..count).map(field).collect()
    }

    /// Skips tagged fields.
    pub fn tags(&mut self) {
        self.tagged();
    }

    /// A list, as versions have it that are not flexible (null: empty).
    pub fn list<T>(&mut self, mut element: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.i32();
        (0..count).map(|_| element(self)).collect()
    }

    /// A list of a flexible version (null: empty).
    pub fn compacts<T>(&mut self, mut element: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.varint().saturating_sub(1);
        (0..count).map(|_| element(self)).collect()
    }
}

/// Which request, in which version.
#[derive(Clone, Copy, Debug)]
pub struct Api {
    /// Its number.
    pub key: i16,
    /// The version that is spoken.
    pub version: i16,
    /// Whether that version is flexible.
    pub flexible: bool,
}

const API_VERSIONS: i16 = 18;

/// Sends one request on a connection of its own and reads the answer.
pub fn call(address: SocketAddr, api: Api, body: Body) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    exchange(&mut stream, api, body)
}

fn exchange(stream: &mut TcpStream, api: Api, body: Body) -> std::io::Result<Answer> {
    let mut request = Body::default().i16(api.key).i16(api.version).i32(1).text("flowtap-tests").0;
    if api.flexible {
        request.push(0);
    }
    request.extend(body.0);
    let length = u32::try_from(request.len()).expect("a short request");
    stream.write_all(&[&length.to_be_bytes()[..], &request].concat())?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut bytes)?;
    let mut answer = Answer { bytes, at: 0 };
    assert_eq!(answer.i32(), 1, "the answer to what was asked");
    // Whoever asks for ApiVersions does not know yet what the broker can: its answers never have
    // the newer header.
    if api.flexible && api.key != API_VERSIONS {
        answer.tags();
    }
    Ok(answer)
}
