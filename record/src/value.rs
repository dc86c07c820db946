//! One typed header value, in a form that no longer depends on how a broker encoded it.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::observation::Encoding;
use crate::text::escape_bytes;

/// A header value as decoded from the wire, borrowing from it. All integer widths are one
/// variant, long strings and byte arrays are one variant: brokers turn one into the other.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// AMQP `V`; Kafka's null.
    Void,
    /// AMQP `t`.
    Bool(bool),
    /// AMQP `b B s u I i l L`.
    Int(i64),
    /// AMQP `f d`.
    Float(f64),
    /// AMQP `D`: `unscaled` divided by ten to the power of `scale`.
    Decimal {
        /// Digits behind the point.
        scale: u8,
        /// The number without its point.
        unscaled: u32,
    },
    /// AMQP `S x`, Kafka's value: bytes that are mostly, not always, UTF-8.
    Bytes(&'a [u8]),
    /// AMQP `T`: seconds since 1970.
    Time(u64),
    /// AMQP `A`.
    Array(Vec<Value<'a>>),
    /// AMQP `F`: names and values in the order of the wire, names may repeat.
    Table(Vec<(&'a [u8], Value<'a>)>),
}

impl Value<'_> {
    /// The value as a column of text holds it: the text, and how it is to be read.
    pub fn to_text(&self) -> (String, Encoding) {
        match self {
            Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => (text.to_owned(), Encoding::Text),
                Err(_) => (STANDARD.encode(bytes), Encoding::Base64),
            },
            other => {
                let mut out = String::new();
                other.write_json(&mut out);
                (out, Encoding::Json)
            }
        }
    }

    /// Appends the value as JSON. Bytes that are not UTF-8 are escaped as in a column.
    pub fn write_json(&self, out: &mut String) {
        match self {
            Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Value::Int(value) => {
                let _ = write!(out, "{value}");
            }
            Value::Float(value) if value.is_finite() => {
                let _ = write!(out, "{value}");
            }
            Value::Void | Value::Float(_) => out.push_str("null"),
            Value::Decimal { scale, unscaled } => {
                let _ = write!(out, "{}", f64::from(*unscaled) / 10f64.powi(i32::from(*scale)));
            }
            Value::Bytes(bytes) => write_json_string(&escape_bytes(bytes), out),
            Value::Time(seconds) => {
                let _ = write!(out, "{seconds}");
            }
            Value::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    item.write_json(out);
                }
                out.push(']');
            }
            Value::Table(entries) => {
                out.push('{');
                for (i, (name, value)) in entries.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    write_json_string(&escape_bytes(name), out);
                    out.push(':');
                    value.write_json(out);
                }
                out.push('}');
            }
        }
    }
}

fn write_json_string(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_say_how_they_are_to_be_read() {
        assert_eq!(Value::Bytes(b"abc").to_text(), ("abc".into(), Encoding::Text));
        assert_eq!(Value::Bytes(b"\xff\xfe").to_text(), ("//4=".into(), Encoding::Base64));
        assert_eq!(Value::Int(-3).to_text(), ("-3".into(), Encoding::Json));
        let table = Value::Table(vec![
            (b"count", Value::Int(2)),
            (b"keys", Value::Array(vec![Value::Bytes(b"a\"b"), Value::Void])),
        ]);
        assert_eq!(table.to_text(), (r#"{"count":2,"keys":["a\"b",null]}"#.into(), Encoding::Json));
    }
}
