//! What may stand in an id column: texts that are lent where they can be, and the shapes that
//! tell an id from a placeholder, a media type, a counter or a trace context.

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;

use flowtap_record::Value;

/// Longer values are no ids: somebody put a document into a header.
pub(super) const MAX_ID_BYTES: usize = 512;

/// A text of a row: lent from the message, shared with the configuration, or made for this row.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    /// Lies in the message, or is a constant.
    Lent(&'a str),
    /// Lies in the configuration.
    Shared(Arc<str>),
    /// Was made for this message: an integer as text, something escaped.
    Owned(String),
}

impl Text<'_> {
    /// The text.
    pub fn as_str(&self) -> &str {
        match self {
            Text::Lent(text) => text,
            Text::Shared(text) => text,
            Text::Owned(text) => text,
        }
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text<'_> {}

impl PartialEq<&str> for Text<'_> {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl<'a> From<Cow<'a, str>> for Text<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        match text {
            Cow::Borrowed(text) => Text::Lent(text),
            Cow::Owned(text) => Text::Owned(text),
        }
    }
}

/// The text of a header value if it can be an id: texts, integers and booleans.
pub(super) fn id_of_value<'a>(value: &Value<'a>) -> Option<Text<'a>> {
    match value {
        Value::Bytes(bytes) => id_of_bytes(bytes).map(Text::Lent),
        Value::Int(number) => Some(Text::Owned(number.to_string())),
        Value::Bool(true) => Some(Text::Lent("true")),
        Value::Bool(false) => Some(Text::Lent("false")),
        _ => None,
    }
}

/// The text of a Kafka header if it can be an id. Spring, .NET and Connect write some of their
/// texts as JSON: in quotes, or with a schema as `{"schema":…,"payload":…}`.
pub(super) fn id_of_record_header(bytes: &[u8]) -> Option<Text<'_>> {
    match bytes {
        [b'"', .., b'"'] if bytes.len() <= MAX_ID_BYTES => json_text(bytes),
        [b'{', b'"', b's', b'c', b'h', b'e', b'm', b'a', b'"', ..] if bytes.len() <= 4096 => {
            let Wrapped { payload } = serde_json::from_slice(bytes).ok()?;
            let text = match payload {
                Scalar::Lent(text) => Text::Lent(text),
                Scalar::Owned(text) => Text::Owned(text),
                Scalar::Integer(number) => Text::Owned(number.to_string()),
            };
            is_id(&text).then_some(text)
        }
        _ => id_of_bytes(bytes).map(Text::Lent),
    }
}

/// What Connect's `JsonConverter` makes of a header.
#[derive(serde::Deserialize)]
struct Wrapped<'a> {
    #[serde(borrow)]
    payload: Scalar<'a>,
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Scalar<'a> {
    Lent(&'a str),
    Owned(String),
    Integer(i64),
}

fn json_text(bytes: &[u8]) -> Option<Text<'_>> {
    let text = match serde_json::from_slice::<&str>(bytes) {
        Ok(text) => Text::Lent(text),
        Err(_) => Text::Owned(serde_json::from_slice(bytes).ok()?),
    };
    is_id(&text).then_some(text)
}

/// Bytes as an id, if they are one.
pub(super) fn id_of_bytes(bytes: &[u8]) -> Option<&str> {
    if bytes.len() > MAX_ID_BYTES {
        return None;
    }
    std::str::from_utf8(bytes).ok().filter(|text| is_id(text))
}

/// Whether a text can be an id at all: short, printable, no placeholder for "nothing", no URL
/// with a password in it.
pub(super) fn is_id(text: &str) -> bool {
    // Nearly every text passes; one look at each byte tells which may not.
    let (mut control, mut at) = (false, false);
    for byte in text.bytes() {
        control |= byte.is_ascii_control();
        at |= byte == b'@';
    }
    text.len() <= MAX_ID_BYTES
        && !control
        && !is_absent(text)
        && (!at || url_secret(text).is_none())
}

/// What programs write when they have no id.
pub(super) fn is_absent(text: &str) -> bool {
    let text = text.trim();
    match text.len() {
        0 => true,
        4 => text.eq_ignore_ascii_case("null") || text == "None",
        9 => text == "undefined",
        15 => text == "[object Object]",
        // The all-zero GUID, with or without dashes and braces.
        32 | 36 | 38 => {
            text.bytes().all(|byte| matches!(byte, b'0' | b'-' | b'{' | b'}'))
                && text.bytes().filter(|byte| *byte == b'0').count() == 32
        }
        _ => false,
    }
}

/// Trace id and span id of a W3C `traceparent`.
pub(super) fn traceparent(text: &str) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let lower_hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let head = bytes.get(..55)?;
    let shaped = head[2] == b'-'
        && head[35] == b'-'
        && head[52] == b'-'
        && lower_hex(&head[..2])
        && lower_hex(&head[3..35])
        && lower_hex(&head[36..52])
        && lower_hex(&head[53..55]);
    // Version 00 ends there; a later one may go on after a dash.
    let ended = match &head[..2] {
        b"ff" => false,
        b"00" => bytes.len() == 55,
        _ => bytes.len() == 55 || bytes[55] == b'-',
    };
    if !shaped || !ended {
        return None;
    }
    let zeros = |part: &str| part.bytes().all(|byte| byte == b'0');
    // All of it is ASCII, so the cuts are between characters.
    let (trace, span) = (&text[3..35], &text[36..52]);
    (!zeros(trace) && !zeros(span)).then_some((trace, span))
}

/// Whether a text is a media type (`application/json`): what some frameworks write into `type`.
/// Only registered top-level types count, because `orders/placed` is a good event type.
pub(super) fn is_mime(text: &str) -> bool {
    const TOP_LEVEL: &[&str] = &[
        "application",
        "audio",
        "example",
        "font",
        "haptics",
        "image",
        "message",
        "model",
        "multipart",
        "text",
        "video",
    ];
    text.split_once('/').is_some_and(|(top, rest)| {
        !rest.is_empty() && TOP_LEVEL.iter().any(|known| top.eq_ignore_ascii_case(known))
    })
}

/// Counters and flags: integers below 1000, `true`, `false`.
pub(super) fn is_small_number_or_flag(text: &str) -> bool {
    if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") {
        return true;
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let negative = text.starts_with('-');
    is_digits(digits) && (negative || digits.trim_start_matches('0').len() <= 3)
}

/// Digits only.
pub(super) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// 32 hex digits, with dashes and braces or without.
pub(super) fn is_uuid(text: &str) -> bool {
    matches!(text.len(), 32 | 36 | 38)
        && text.bytes().filter(u8::is_ascii_hexdigit).count() == 32
        && text.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'-' | b'{' | b'}'))
}

/// Where user and password stand in the first URL of the text that has both (`//user:pass@`).
pub(super) fn url_secret(text: &str) -> Option<std::ops::Range<usize>> {
    // Rare, so look for the cheapest sign first.
    if !text.as_bytes().contains(&b'@') {
        return None;
    }
    let mut from = 0;
    while let Some(found) = text[from..].find("://") {
        let start = from + found + 3;
        let authority = text[start..]
            .find(|c: char| matches!(c, '/' | '?' | '#' | '"' | '\'') || c.is_whitespace())
            .map_or(&text[start..], |end| &text[start..start + end]);
        if let Some(at) = authority.rfind('@')
            && authority[..at].contains(':')
        {
            return Some(start..start + at);
        }
        from = start;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_no_ids() {
        for text in [
            "",
            " ",
            "null",
            "NULL",
            "None",
            "undefined",
            "[object Object]",
            "00000000-0000-0000-0000-000000000000",
            "{00000000-0000-0000-0000-000000000000}",
            "00000000000000000000000000000000",
        ] {
            assert!(!is_id(text), "{text:?}");
        }
        for text in ["0", "order-1042", "00000000-0000-0000-0000-000000000001", "none-1"] {
            assert!(is_id(text), "{text:?}");
        }
        assert!(is_id(&"x".repeat(512)) && !is_id(&"x".repeat(513)));
        assert!(!is_id("two\nlines"));
        assert!(!is_id("amqp://me:hunter2@rabbit/"));
    }

    #[test]
    fn traceparents_are_taken_as_the_specification_says() {
        let good = "00-038aa89be6043402149c6f682549c784-af1c4753a1555474-03";
        assert_eq!(
            traceparent(good),
            Some(("038aa89be6043402149c6f682549c784", "af1c4753a1555474"))
        );
        let later = format!("cc{}-what-comes", &good[2..]);
        assert!(traceparent(&later).is_some());
        let bad = [
            good[..54].to_owned(),
            format!("{good}-more"),
            format!("ff{}", &good[2..]),
            format!("cc{}x", &good[2..]),
            good.to_uppercase(),
            good.replace("038aa89be6043402149c6f682549c784", &"0".repeat(32)),
            good.replace("af1c4753a1555474", &"0".repeat(16)),
            good.replace('-', "_"),
        ];
        for text in bad {
            assert_eq!(traceparent(&text), None, "{text}");
        }
    }

    #[test]
    fn media_types_are_told_from_event_types() {
        assert!(is_mime("application/json") && is_mime("Text/plain; charset=utf-8"));
        assert!(!is_mime("orders/placed") && !is_mime("text") && !is_mime("text/"));
    }

    #[test]
    fn counters_and_flags_are_told_from_ids() {
        for text in ["0", "999", "0099", "-5", "-123456", "true", "False"] {
            assert!(is_small_number_or_flag(text), "{text}");
        }
        for text in ["1000", "1042", "a1", "", "-"] {
            assert!(!is_small_number_or_flag(text), "{text}");
        }
    }

    #[test]
    fn passwords_in_urls_are_found() {
        let secret = |text: &'static str| url_secret(text).map(|range| &text[range]);
        assert_eq!(secret("amqp://me:hunter2@rabbit:5672/"), Some("me:hunter2"));
        assert_eq!(secret("see http://a/ and http://u:p@b"), Some("u:p"));
        assert_eq!(secret("amqp://me@rabbit:5672"), None);
        assert_eq!(secret("urn:x:a@b"), None);
        assert_eq!(secret("http://host/a:b@c"), None);
    }
}
