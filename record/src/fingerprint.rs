//! `f1:`: the fingerprint that is equal for a RabbitMQ publish and all deliveries of it.
//!
//! XXH3-128 over a canonical form of what brokers leave alone, then the body. Left out are the
//! exchange, routing key, timestamp, expiration, `reply_to` and `cluster_id`, and every header that a
//! broker adds, changes or removes ([`is_broker_header`]). Equal fingerprints are candidates,
//! never by themselves one message: ticks and heartbeats repeat.
//!
//! Canonical form: for each property in the order of [`Properties`], a byte `0` when absent (or a
//! delivery-mode of 1, which is what absent means), or a byte `1`, the length as 8 bytes
//! little-endian, and the bytes; then each kept header, sorted by name, the first of equal names
//! only (which one RabbitMQ 4 delivers), as name and value; then a byte `2`, and the body. Headers
//! that are tables or arrays are not kept: streams drop them. A value is a tag byte and its
//! content, see [`write_value`].

use xxhash_rust::xxh3::Xxh3;

use crate::value::Value;

/// The properties that make up a message's identity. `None` is "not present", which differs from
/// empty.
#[derive(Clone, Debug, Default)]
pub struct Properties<'a> {
    /// basic property `content-type`.
    pub content_type: Option<&'a [u8]>,
    /// basic property `content-encoding`.
    pub content_encoding: Option<&'a [u8]>,
    /// basic property `correlation-id`.
    pub correlation_id: Option<&'a [u8]>,
    /// basic property `message-id`.
    pub message_id: Option<&'a [u8]>,
    /// basic property `type`.
    pub message_type: Option<&'a [u8]>,
    /// basic property `app-id`.
    pub app_id: Option<&'a [u8]>,
    /// basic property `user-id`.
    pub user_id: Option<&'a [u8]>,
    /// basic property `delivery-mode`.
    pub delivery_mode: Option<u8>,
    /// basic property `priority`.
    pub priority: Option<u8>,
    /// basic property `headers`, in the order of the wire.
    pub headers: &'a [(&'a [u8], Value<'a>)],
}

/// Whether a broker (or a plugin, federation, shovel) adds, changes or removes this header, so
/// that it says nothing about which message it is.
pub fn is_broker_header(name: &[u8]) -> bool {
    const NAMES: &[&[u8]] = &[
        b"CC",
        b"BCC",
        b"x-death",
        b"x-delivery-count",
        b"x-acquired-count",
        b"x-stream-offset",
        b"x-received-from",
        b"x-routed-by",
        b"timestamp_in_ms",
    ];
    const PREFIXES: &[&[u8]] = &[b"x-first-death-", b"x-last-death-", b"x-opt-", b"x-shovelled"];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a header is left out: brokers' own, and tables and arrays, which streams drop.
fn says_nothing(name: &[u8], value: &Value<'_>) -> bool {
    is_broker_header(name) || matches!(value, Value::Table(_) | Value::Array(_))
}

/// A fingerprint in the making: properties first, then the body in pieces of any size.
pub struct Fingerprint(Xxh3);

impl Fingerprint {
    /// Starts with the properties of the content header.
    pub fn new(properties: &Properties<'_>) -> Self {
        let mut bytes = Vec::with_capacity(256);
        // Absent means 1: RabbitMQ 4 says 1 where it delivers from a stream what came without.
        let delivery_mode = properties.delivery_mode.filter(|mode| *mode != 1).map(|mode| [mode]);
        let priority = properties.priority.map(|priority| [priority]);
        for property in [
            properties.content_type,
            properties.content_encoding,
            properties.correlation_id,
            properties.message_id,
            properties.message_type,
            properties.app_id,
            properties.user_id,
            delivery_mode.as_ref().map(<[u8; 1]>::as_slice),
            priority.as_ref().map(<[u8; 1]>::as_slice),
        ] {
            match property {
                None => bytes.push(0),
                Some(value) => {
                    bytes.push(1);
                    write_bytes(value, &mut bytes);
                }
            }
        }
        write_table(properties.headers, |(name, value)| says_nothing(name, value), &mut bytes);
        bytes.push(2);
        let mut hash = Xxh3::new();
        hash.update(&bytes);
        Self(hash)
    }

    /// Adds a piece of the body.
    pub fn update(&mut self, body: &[u8]) {
        self.0.update(body);
    }

    /// The 128 bits.
    pub fn digest(&self) -> u128 {
        self.0.digest128()
    }

    /// The column `message` for a digest: `f1:` and 32 hex digits.
    pub fn text(digest: u128) -> String {
        format!("f1:{digest:032x}")
    }
}

fn write_bytes(value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    out.extend_from_slice(value);
}

/// Entries sorted by name, the first of equal names only, less those that `skip` names.
fn write_table<'v>(
    entries: &[(&[u8], Value<'v>)],
    skip: fn(&(&[u8], Value<'v>)) -> bool,
    out: &mut Vec<u8>,
) {
    let mut kept: Vec<&(&[u8], Value<'_>)> = entries.iter().filter(|entry| !skip(entry)).collect();
    // Stable, so that the first of equal names stays first.
    kept.sort_by_key(|(name, _)| *name);
    kept.dedup_by_key(|(name, _)| *name);
    for (name, value) in kept {
        out.push(3);
        write_bytes(name, out);
        write_value(value, out);
    }
}

/// A tag byte, then the value: integers, times and floats as 8 bytes little-endian, bytes with
/// their length, arrays with their count, tables sorted and closed by a byte `4`.
fn write_value(value: &Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Void => out.push(b'V'),
        Value::Bool(value) => out.extend_from_slice(&[b't', u8::from(*value)]),
        Value::Int(value) => {
            out.push(b'l');
            out.extend_from_slice(&value.to_le_bytes());
        }
        Value::Float(value) => {
            out.push(b'd');
            out.extend_from_slice(&value.to_bits().to_le_bytes());
        }
        Value::Decimal { scale, unscaled } => {
            out.extend_from_slice(&[b'D', *scale]);
            out.extend_from_slice(&unscaled.to_le_bytes());
        }
        Value::Bytes(bytes) => {
            out.push(b'S');
            write_bytes(bytes, out);
        }
        Value::Time(seconds) => {
            out.push(b'T');
            out.extend_from_slice(&seconds.to_le_bytes());
        }
        Value::Array(items) => {
            out.push(b'A');
            out.extend_from_slice(&(items.len() as u64).to_le_bytes());
            for item in items {
                write_value(item, out);
            }
        }
        Value::Table(entries) => {
            out.push(b'F');
            write_table(entries, |_| false, out);
            out.push(4);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(properties: &Properties<'_>, body: &[&[u8]]) -> String {
        let mut fingerprint = Fingerprint::new(properties);
        for piece in body {
            fingerprint.update(piece);
        }
        Fingerprint::text(fingerprint.digest())
    }

    #[test]
    fn the_form_is_fixed() {
        // A change of these values is a change of the contract: name it f2.
        assert_eq!(print(&Properties::default(), &[]), "f1:14753ce4908190d7ca497fa9f66341b6");
        let headers = [(b"b".as_slice(), Value::Int(1)), (b"a".as_slice(), Value::Bytes(b"x"))];
        let properties =
            Properties { message_id: Some(b"m-1"), headers: &headers, ..Properties::default() };
        assert_eq!(print(&properties, &[b"body"]), "f1:7ec511e20900b4ad38f80b3f95f65d65");
    }

    #[test]
    fn how_the_body_is_cut_does_not_matter() {
        let properties = Properties { content_type: Some(b"text/plain"), ..Properties::default() };
        assert_eq!(print(&properties, &[b"ab", b"", b"c"]), print(&properties, &[b"abc"]));
    }

    #[test]
    fn header_order_broker_headers_and_repeats_do_not_matter() {
        let published = [
            (b"b".as_slice(), Value::Int(1)),
            (b"a".as_slice(), Value::Bool(true)),
            (b"b".as_slice(), Value::Int(2)),
            (b"BCC".as_slice(), Value::Array(vec![])),
            (b"dropped by streams".as_slice(), Value::Table(vec![])),
        ];
        let delivered = [
            (b"a".as_slice(), Value::Bool(true)),
            (b"b".as_slice(), Value::Int(1)),
            (b"x-delivery-count".as_slice(), Value::Int(1)),
            (b"x-first-death-queue".as_slice(), Value::Bytes(b"q")),
        ];
        let of = |headers: &[(&[u8], Value<'_>)]| {
            Fingerprint::new(&Properties { headers, ..Properties::default() }).digest()
        };
        assert_eq!(of(&published), of(&delivered));
    }

    #[test]
    fn a_message_is_transient_unless_it_says_otherwise() {
        let of = |delivery_mode| {
            Fingerprint::new(&Properties { delivery_mode, ..Properties::default() }).digest()
        };
        assert_eq!(of(None), of(Some(1)));
        assert_ne!(of(None), of(Some(2)));
    }

    #[test]
    fn absent_and_empty_differ_and_so_do_neighbours() {
        let of = |properties: Properties<'_>| Fingerprint::new(&properties).digest();
        let absent = of(Properties::default());
        let empty = of(Properties { content_type: Some(b""), ..Properties::default() });
        let neighbour = of(Properties { content_encoding: Some(b""), ..Properties::default() });
        assert!(absent != empty && empty != neighbour && absent != neighbour);
    }
}
