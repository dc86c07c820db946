//! What a tap hands over of one decoded message.

use flowtap_record::Value;

/// Which kind of broker a message passed through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum System {
    /// RabbitMQ. Of a repeated header name the first counts.
    #[default]
    Amqp,
    /// Kafka. Of a repeated header name the last counts.
    Kafka,
}

/// One decoded message, borrowed from the tap.
#[derive(Clone, Debug, Default)]
pub struct Content<'a> {
    /// Where it passed.
    pub system: System,
    /// Exchange or topic.
    pub destination: &'a [u8],
    /// Routing key or record key; empty when a record has none.
    pub routing_key: &'a [u8],
    /// AMQP basic property, or what a record's headers say.
    pub content_type: Option<&'a [u8]>,
    /// AMQP basic property, or what a record's headers say.
    pub content_encoding: Option<&'a [u8]>,
    /// AMQP basic property.
    pub correlation_id: Option<&'a [u8]>,
    /// AMQP basic property.
    pub message_id: Option<&'a [u8]>,
    /// AMQP basic property `type`.
    pub message_type: Option<&'a [u8]>,
    /// AMQP basic property.
    pub app_id: Option<&'a [u8]>,
    /// AMQP basic property.
    pub reply_to: Option<&'a [u8]>,
    /// AMQP basic property.
    pub user_id: Option<&'a [u8]>,
    /// Headers in the order of the wire; names may repeat.
    pub headers: &'a [(&'a [u8], Value<'a>)],
    /// The whole body, when the tap kept it (see [`super::Identifier::wants_body`]); `None` when
    /// it was too large, or there is none.
    pub body: Option<&'a [u8]>,
}

impl<'a> Content<'a> {
    /// A Kafka record. Its headers are [`Value::Bytes`], or [`Value::Void`] where they are null; what
    /// they say of the value's type and encoding is found here. A null value is no body.
    pub fn of_record(
        topic: &'a [u8],
        key: Option<&'a [u8]>,
        headers: &'a [(&'a [u8], Value<'a>)],
        value: Option<&'a [u8]>,
    ) -> Self {
        let mut content = Self {
            system: System::Kafka,
            destination: topic,
            routing_key: key.unwrap_or_default(),
            headers,
            body: value,
            ..Self::default()
        };
        // The last of a name counts, so the first from the end.
        for (name, value) in headers.iter().rev() {
            let Value::Bytes(value) = value else { continue };
            match Described::by(name) {
                Some(Described::Type) if content.content_type.is_none() => {
                    content.content_type = Some(unquoted(value));
                }
                Some(Described::Encoding) if content.content_encoding.is_none() => {
                    content.content_encoding = Some(unquoted(value));
                }
                _ => {}
            }
        }
        content
    }
}

/// What a header says of the value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Described {
    Type,
    Encoding,
}

impl Described {
    /// `content-type`, as CloudEvents has it; `contentType` (Spring), `Content-Type`,
    /// `content_type`; and the encoding likewise.
    fn by(name: &[u8]) -> Option<Self> {
        // Every record of every topic comes here, so the length decides first.
        if !matches!(name.len(), 11 | 12 | 15 | 16) {
            return None;
        }
        let (head, rest) = name.split_at_checked(7)?;
        if !head.eq_ignore_ascii_case(b"content") {
            return None;
        }
        let rest = rest.strip_prefix(b"-").or_else(|| rest.strip_prefix(b"_")).unwrap_or(rest);
        if rest.eq_ignore_ascii_case(b"type") {
            Some(Self::Type)
        } else if rest.eq_ignore_ascii_case(b"encoding") {
            Some(Self::Encoding)
        } else {
            None
        }
    }
}

/// Spring writes media types as JSON texts, in quotes.
fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'a>(headers: &'a [(&'a [u8], Value<'a>)]) -> Content<'a> {
        Content::of_record(b"orders", None, headers, None)
    }

    #[test]
    fn type_and_encoding_of_a_record_stand_in_its_headers() {
        for name in ["content-type", "contentType", "Content-Type", "content_type"] {
            let headers = [(name.as_bytes(), Value::Bytes(b"application/json"))];
            assert_eq!(of(&headers).content_type, Some(b"application/json".as_slice()), "{name}");
        }
        for name in ["content-encoding", "contentEncoding", "Content-Encoding"] {
            let headers = [(name.as_bytes(), Value::Bytes(b"gzip"))];
            assert_eq!(of(&headers).content_encoding, Some(b"gzip".as_slice()), "{name}");
        }
        for name in ["content-typed", "contentXtype", "ContentTypes", "content--type", ""] {
            let headers = [(name.as_bytes(), Value::Bytes(b"application/json"))];
            assert_eq!(of(&headers).content_type, None, "{name}");
        }
    }

    #[test]
    fn of_a_repeated_header_the_last_counts_and_null_says_nothing() {
        let headers: [(&[u8], Value<'_>); 3] = [
            (b"content-type", Value::Bytes(b"text/xml")),
            (b"contentType", Value::Bytes(br#""application/json""#)),
            (b"content-type", Value::Void),
        ];
        assert_eq!(of(&headers).content_type, Some(b"application/json".as_slice()));
    }

    #[test]
    fn a_null_key_is_empty_and_a_null_value_no_body() {
        let content = of(&[]);
        assert_eq!((content.routing_key, content.body), (b"".as_slice(), None));
    }
}
