//! Reading AMQP 0-9-1 primitives (spec section 4.2.5, in RabbitMQ's dialect of field types) from
//! bytes that anybody may have sent: every read is checked, nothing is copied.

use flowtap_record::Value;

/// The bytes end too early, or say what they must not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Tables within tables deeper than this are refused: the decoder recurses.
const MAX_DEPTH: usize = 32;

/// A cursor over bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A length octet, then bytes that need not be UTF-8.
    pub(crate) fn short_string(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u8()?;
        self.take(length.into())
    }

    pub(crate) fn long_string(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    /// A field table with its length.
    pub(crate) fn table(&mut self) -> Result<Table<'a>, Malformed> {
        read_entries(self.long_string()?, 0)
    }
}

/// A field table: names and values in the order of the wire, names may repeat.
pub(crate) type Table<'a> = Vec<(&'a [u8], Value<'a>)>;

/// The value of the first entry of that name.
pub(crate) fn lookup<'t, 'a>(
    table: &'t [(&'a [u8], Value<'a>)],
    name: &str,
) -> Option<&'t Value<'a>> {
    table.iter().find(|(key, _)| *key == name.as_bytes()).map(|(_, value)| value)
}

/// The text of an entry, when it is one.
pub(crate) fn lookup_bytes<'a>(table: &[(&'a [u8], Value<'a>)], name: &str) -> Option<&'a [u8]> {
    match lookup(table, name) {
        Some(Value::Bytes(bytes)) => Some(bytes),
        _ => None,
    }
}

/// The entries of a table whose length has been read already.
pub(crate) fn read_entries(bytes: &[u8], depth: usize) -> Result<Table<'_>, Malformed> {
    if depth > MAX_DEPTH {
        return Err(Malformed);
    }
    let mut reader = Reader::new(bytes);
    let mut entries = Vec::new();
    while !reader.is_empty() {
        let name = reader.short_string()?;
        entries.push((name, read_value(&mut reader, depth)?));
    }
    Ok(entries)
}

fn read_value<'a>(reader: &mut Reader<'a>, depth: usize) -> Result<Value<'a>, Malformed> {
    let value = match reader.u8()? {
        b't' => Value::Bool(reader.u8()? != 0),
        b'b' => Value::Int(i8::from_be_bytes(reader.array()?).into()),
        b'B' => Value::Int(reader.u8()?.into()),
        // RabbitMQ's 16 bits, not the short string and the 'U' of the specification's PDF.
        b's' => Value::Int(i16::from_be_bytes(reader.array()?).into()),
        b'u' => Value::Int(reader.u16()?.into()),
        b'I' => Value::Int(i32::from_be_bytes(reader.array()?).into()),
        b'i' => Value::Int(reader.u32()?.into()),
        b'l' | b'L' => Value::Int(i64::from_be_bytes(reader.array()?)),
        b'f' => Value::Float(f32::from_be_bytes(reader.array()?).into()),
        b'd' => Value::Float(f64::from_be_bytes(reader.array()?)),
        b'D' => Value::Decimal { scale: reader.u8()?, unscaled: reader.u32()? },
        b'S' | b'x' => Value::Bytes(reader.long_string()?),
        b'T' => Value::Time(reader.u64()?),
        b'F' => Value::Table(read_entries(reader.long_string()?, depth + 1)?),
        b'A' => {
            if depth >= MAX_DEPTH {
                return Err(Malformed);
            }
            // The length counts bytes, not items.
            let mut items_reader = Reader::new(reader.long_string()?);
            let mut items = Vec::new();
            while !items_reader.is_empty() {
                items.push(read_value(&mut items_reader, depth + 1)?);
            }
            Value::Array(items)
        }
        b'V' => Value::Void,
        _ => return Err(Malformed),
    };
    Ok(value)
}

/// Content header (spec 4.2.6.1): body size and basic properties.
#[derive(Clone, Debug, Default)]
pub(crate) struct Header<'a> {
    pub(crate) body_size: u64,
    pub(crate) content_type: Option<&'a [u8]>,
    pub(crate) content_encoding: Option<&'a [u8]>,
    pub(crate) headers: Table<'a>,
    pub(crate) delivery_mode: Option<u8>,
    pub(crate) priority: Option<u8>,
    pub(crate) correlation_id: Option<&'a [u8]>,
    pub(crate) reply_to: Option<&'a [u8]>,
    pub(crate) expiration: Option<&'a [u8]>,
    pub(crate) message_id: Option<&'a [u8]>,
    pub(crate) timestamp: Option<u64>,
    pub(crate) message_type: Option<&'a [u8]>,
    pub(crate) user_id: Option<&'a [u8]>,
    pub(crate) app_id: Option<&'a [u8]>,
}

/// The body size, which stands before anything that could be malformed.
pub(crate) fn body_size(payload: &[u8]) -> Result<u64, Malformed> {
    let mut reader = Reader::new(payload);
    reader.take(4)?;
    reader.u64()
}

impl<'a> Header<'a> {
    /// Decodes the payload of a header frame of class basic.
    pub(crate) fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let (class, weight) = (reader.u16()?, reader.u16()?);
        if class != 60 || weight != 0 {
            return Err(Malformed);
        }
        let mut header = Header { body_size: reader.u64()?, ..Header::default() };
        let flags = reader.u16()?;
        // Bit 0 says that more flags follow; RabbitMQ refuses it, so what it means is not tried.
        if flags & 1 != 0 {
            return Err(Malformed);
        }
        let has = |bit: u16| flags & (1 << bit) != 0;
        let mut text = |present: bool| present.then(|| reader.short_string()).transpose();
        header.content_type = text(has(15))?;
        header.content_encoding = text(has(14))?;
        if has(13) {
            header.headers = reader.table()?;
        }
        header.delivery_mode = has(12).then(|| reader.u8()).transpose()?;
        header.priority = has(11).then(|| reader.u8()).transpose()?;
        let mut text = |present: bool| present.then(|| reader.short_string()).transpose();
        header.correlation_id = text(has(10))?;
        header.reply_to = text(has(9))?;
        header.expiration = text(has(8))?;
        header.message_id = text(has(7))?;
        header.timestamp = has(6).then(|| reader.u64()).transpose()?;
        let mut text = |present: bool| present.then(|| reader.short_string()).transpose();
        header.message_type = text(has(5))?;
        header.user_id = text(has(4))?;
        header.app_id = text(has(3))?;
        text(has(2))?; // cluster_id
        Ok(header)
    }

    /// What of it makes up the message's identity.
    pub(crate) fn identity(&self) -> flowtap_record::Properties<'_> {
        flowtap_record::Properties {
            content_type: self.content_type,
            content_encoding: self.content_encoding,
            correlation_id: self.correlation_id,
            message_id: self.message_id,
            message_type: self.message_type,
            app_id: self.app_id,
            user_id: self.user_id,
            delivery_mode: self.delivery_mode,
            priority: self.priority,
            headers: &self.headers,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_field_type_of_rabbitmqs_dialect_is_read() {
        let entries: &[(&[u8], Value<'_>)] = &[
            (b"\x01at\x02", Value::Bool(true)),
            (b"\x01ab\xff", Value::Int(-1)),
            (b"\x01aB\xff", Value::Int(255)),
            (b"\x01as\xff\xfe", Value::Int(-2)),
            (b"\x01au\xff\xfe", Value::Int(65534)),
            (b"\x01aI\xff\xff\xff\xfe", Value::Int(-2)),
            (b"\x01ai\xff\xff\xff\xfe", Value::Int(4_294_967_294)),
            (b"\x01al\xff\xff\xff\xff\xff\xff\xff\xfe", Value::Int(-2)),
            (b"\x01aL\xff\xff\xff\xff\xff\xff\xff\xfe", Value::Int(-2)),
            (b"\x01af\x3f\x80\x00\x00", Value::Float(1.0)),
            (b"\x01ad\x3f\xf0\x00\x00\x00\x00\x00\x00", Value::Float(1.0)),
            (b"\x01aD\x02\x00\x00\x00\x7b", Value::Decimal { scale: 2, unscaled: 123 }),
            (b"\x01aS\x00\x00\x00\x02\x00\xff", Value::Bytes(b"\x00\xff")),
            (b"\x01ax\x00\x00\x00\x01z", Value::Bytes(b"z")),
            (b"\x01aT\x00\x00\x00\x00\x00\x00\x00\x05", Value::Time(5)),
            (b"\x01aF\x00\x00\x00\x03\x01bV", Value::Table(vec![(b"b", Value::Void)])),
            (b"\x01aA\x00\x00\x00\x03Vt\x01", Value::Array(vec![Value::Void, Value::Bool(true)])),
        ];
        for (bytes, want) in entries {
            assert_eq!(read_entries(bytes, 0), Ok(vec![(b"a".as_slice(), want.clone())]));
        }
        assert_eq!(read_entries(b"\x01aU\x00\x00", 0), Err(Malformed));
    }

    #[test]
    fn depth_is_bounded() {
        let mut bytes = vec![b'V'];
        for _ in 0..200 {
            let mut outer = vec![b'A'];
            outer.extend((bytes.len() as u32).to_be_bytes());
            outer.extend(bytes);
            bytes = outer;
        }
        bytes.splice(0..0, *b"\x01a");
        assert_eq!(read_entries(&bytes, 0), Err(Malformed));
    }

    #[test]
    fn properties_are_read_in_the_order_of_their_flags() {
        let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        payload.extend([0b1111_1111, 0b1111_1100]);
        payload.extend(b"\x01a\x01b\x00\x00\x00\x03\x01hV\x02\x05\x01c\x01d\x01e\x01f");
        payload.extend([0, 0, 0, 0, 0, 0, 0, 7]);
        payload.extend(b"\x01g\x01u\x01i\x01j");
        let header = Header::decode(&payload).unwrap();
        assert_eq!(header.body_size, 9);
        assert_eq!(
            (header.content_type, header.content_encoding),
            (Some(&b"a"[..]), Some(&b"b"[..]))
        );
        assert_eq!(header.headers, vec![(&b"h"[..], Value::Void)]);
        assert_eq!((header.delivery_mode, header.priority), (Some(2), Some(5)));
        assert_eq!((header.correlation_id, header.reply_to), (Some(&b"c"[..]), Some(&b"d"[..])));
        assert_eq!((header.expiration, header.message_id), (Some(&b"e"[..]), Some(&b"f"[..])));
        assert_eq!(header.timestamp, Some(7));
        assert_eq!((header.message_type, header.user_id), (Some(&b"g"[..]), Some(&b"u"[..])));
        assert_eq!(header.app_id, Some(&b"i"[..]));
        payload[13] |= 1;
        assert!(Header::decode(&payload).is_err(), "the continuation bit is not understood");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes: Vec<u8>) {
            let _ = read_entries(&bytes, 0);
            let _ = Header::decode(&bytes);
        }
    }
}
