//! Payloads as they may be recorded: redacted first, then cut. The bytes that are not redacted
//! stay exactly as they were. A text that is JSON itself and holds a redacted name is replaced as a
//! whole.
//!
//! Fails closed: where something is to be redacted and the body is not whole, valid JSON, nobody
//! knows what it holds, and nothing of it is recorded.

use std::borrow::Cow;
use std::ops::Range;

use serde::de::IgnoredAny;

use super::json::{Pointer, step_matches};
use super::redact::Redaction;

const REDACTED: &[u8] = br#""[redacted]""#;

/// A body as it may be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload<'b> {
    /// The bytes.
    pub bytes: Cow<'b, [u8]>,
    /// Whether the end was cut off at `max_bytes`.
    pub cut: bool,
}

/// `body` is the first part, or all, of a body of `size` bytes.
pub(super) fn record<'b>(
    body: &'b [u8],
    size: u64,
    max_bytes: u64,
    redaction: &Redaction,
) -> Option<Payload<'b>> {
    let whole = body.len() as u64 == size;
    let clean = if redaction.is_empty() {
        Cow::Borrowed(body)
    } else if whole {
        redact(body, redaction)?
    } else {
        return None;
    };
    let keep = usize::try_from(max_bytes).unwrap_or(usize::MAX).min(clean.len());
    let cut = !whole || keep < clean.len();
    let bytes = match clean {
        Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[..keep]),
        Cow::Owned(mut bytes) => {
            bytes.truncate(keep);
            Cow::Owned(bytes)
        }
    };
    Some(Payload { bytes, cut })
}

/// The body with what is to be redacted replaced; `None` when it is not JSON.
fn redact<'b>(body: &'b [u8], redaction: &Redaction) -> Option<Cow<'b, [u8]>> {
    // From here on the body is known to be valid, so that finding the values is simple.
    serde_json::from_slice::<IgnoredAny>(body).ok()?;
    let mut scan = Scan { json: body, at: 0, redaction, spans: Vec::new() };
    let active: Vec<&[Box<str>]> = redaction.pointers().iter().map(Pointer::tokens).collect();
    scan.value(&active)?;
    if scan.spans.is_empty() {
        return Some(Cow::Borrowed(body));
    }
    let mut clean = Vec::with_capacity(body.len());
    let mut copied = 0;
    for span in scan.spans {
        clean.extend_from_slice(&body[copied..span.start]);
        clean.extend_from_slice(REDACTED);
        copied = span.end;
    }
    clean.extend_from_slice(&body[copied..]);
    Some(Cow::Owned(clean))
}

/// Finds where the values of pointers and names stand in valid JSON. Recurses only along pointers,
/// which are short. `None` means that it met something it did not expect.
struct Scan<'j> {
    json: &'j [u8],
    at: usize,
    redaction: &'j Redaction,
    spans: Vec<Range<usize>>,
}

impl Scan<'_> {
    /// Reads one value, of which the rests of pointers are looked for.
    fn value(&mut self, active: &[&[Box<str>]]) -> Option<()> {
        match self.peek()? {
            b'{' if !active.is_empty() => self.items(b'}', active),
            b'[' if !active.is_empty() => self.items(b']', active),
            _ => self.search(),
        }
    }

    fn items(&mut self, close: u8, active: &[&[Box<str>]]) -> Option<()> {
        self.at += 1;
        let mut index = 0_usize;
        if self.peek()? == close {
            self.at += 1;
            return Some(());
        }
        loop {
            if close == b'}' {
                let start = self.at_value()?;
                self.skip()?;
                let name = serde_json::from_slice::<String>(&self.json[start..self.at]).ok()?;
                (self.peek()? == b':').then(|| self.at += 1)?;
                if self.redaction.names(name.as_bytes()) {
                    self.replace()?;
                } else {
                    self.item(&name, active)?;
                }
            } else {
                self.item(&index.to_string(), active)?;
            }
            index += 1;
            let after = self.peek()?;
            self.at += 1;
            match after {
                b',' => {}
                _ if after == close => return Some(()),
                _ => return None,
            }
        }
    }

    fn item(&mut self, name: &str, active: &[&[Box<str>]]) -> Option<()> {
        let inner: Vec<&[Box<str>]> = active
            .iter()
            .filter_map(|pointer| pointer.split_first())
            .filter(|(step, _)| step_matches(step, name))
            .map(|(_, rest)| rest)
            .collect();
        if inner.iter().any(|rest| rest.is_empty()) { self.replace() } else { self.value(&inner) }
    }

    /// Steps over one value, which is to be replaced.
    fn replace(&mut self) -> Option<()> {
        let start = self.at_value()?;
        self.skip()?;
        self.spans.push(start..self.at);
        Some(())
    }

    fn at_value(&mut self) -> Option<usize> {
        self.peek()?;
        Some(self.at)
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while matches!(self.json.get(self.at)?, b' ' | b'\t' | b'\r' | b'\n') {
            self.at += 1;
        }
        self.json.get(self.at).copied()
    }

    /// Steps over one value, however deep.
    fn skip(&mut self) -> Option<()> {
        self.pass(false)
    }

    /// Steps over one value, however deep, in which names are looked for.
    fn search(&mut self) -> Option<()> {
        self.pass(self.redaction.has_names())
    }

    fn pass(&mut self, looks: bool) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b'"' => {
                    let start = self.at;
                    self.string()?;
                    if looks {
                        self.look(start..self.at, depth)?;
                    }
                }
                b',' | b':' if depth > 0 => {
                    self.at += 1;
                    continue;
                }
                _ => {
                    let rest = &self.json[self.at..];
                    let end = rest.iter().position(|byte| {
                        matches!(byte, b',' | b']' | b'}' | b':' | b' ' | b'\t' | b'\r' | b'\n')
                    });
                    let end = end.unwrap_or(rest.len());
                    (end > 0).then(|| self.at += end)?;
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }

    /// Looks at a text that was stepped over: a member's name, or a value.
    fn look(&mut self, text: Range<usize>, depth: usize) -> Option<()> {
        let json = self.json;
        let raw = &json[text.clone()];
        let is_name = depth > 0 && self.peek()? == b':';
        if !self.redaction.may_name(raw) {
            return Some(());
        }
        let decoded = serde_json::from_slice::<String>(raw).ok()?;
        if !is_name {
            if self.redaction.is_named_in(&decoded) {
                self.spans.push(text);
            }
        } else if self.redaction.names(decoded.as_bytes()) {
            self.at += 1;
            self.replace()?;
        }
        Some(())
    }

    fn string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            match self.json.get(self.at)? {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::identify::Redact;

    fn redaction(texts: &[&str]) -> Redaction {
        let redact: Vec<_> = texts.iter().map(|text| Redact::parse(text).unwrap()).collect();
        Redaction::new(&redact)
    }

    fn redacted(body: &str, texts: &[&str]) -> Option<String> {
        redact(body.as_bytes(), &redaction(texts))
            .map(|bytes| String::from_utf8(bytes.into_owned()).unwrap())
    }

    #[test]
    fn values_are_replaced_and_the_rest_stays_byte_for_byte() {
        let body = r#" { "a" : 1.10 , "b":{"c\u002f":[ {"d":"x"} ,{"d":{"e":"}"}}]}, "a":"2\"" } "#;
        assert_eq!(
            redacted(body, &["/a"]).unwrap(),
            r#" { "a" : "[redacted]" , "b":{"c\u002f":[ {"d":"x"} ,{"d":{"e":"}"}}]}, "a":"[redacted]" } "#
        );
        assert_eq!(
            redacted(body, &["/b/c~1/1/d", "/none", "/a/deeper"]).unwrap(),
            r#" { "a" : 1.10 , "b":{"c\u002f":[ {"d":"x"} ,{"d":"[redacted]"}]}, "a":"2\"" } "#
        );
        assert_eq!(
            redacted(body, &["/b/*/*/d", "/b/c~1/0"]).unwrap(),
            r#" { "a" : 1.10 , "b":{"c\u002f":[ "[redacted]" ,{"d":"[redacted]"}]}, "a":"2\"" } "#
        );
        assert_eq!(redacted("[1,2,3]", &["/1"]).unwrap(), r#"[1,"[redacted]",3]"#);
        assert_eq!(redacted("[]", &["/1"]).unwrap(), "[]");
        assert_eq!(redacted("7", &["/1"]).unwrap(), "7");
    }

    #[test]
    fn a_name_is_replaced_wherever_it_stands() {
        let body = r#" {"name" : "Ada","a":[{"NAME":{"x":[1,"}"]}},{"b":{"nam\u0065" :1.5}}],"n":"name", "names":1} "#;
        assert_eq!(
            redacted(body, &["name"]).unwrap(),
            r#" {"name" : "[redacted]","a":[{"NAME":"[redacted]"},{"b":{"nam\u0065" :"[redacted]"}}],"n":"name", "names":1} "#
        );
        // With pointers that lead past it, through it, and to something else.
        assert_eq!(
            redacted(body, &["name", "/a/0/NAME/x", "/a/1/b/c", "/n"]).unwrap(),
            r#" {"name" : "[redacted]","a":[{"NAME":"[redacted]"},{"b":{"nam\u0065" :"[redacted]"}}],"n":"[redacted]", "names":1} "#
        );
        let deep = format!(r#"{}{{"name":"Ada"}}{}"#, "[".repeat(100), "]".repeat(100));
        assert!(!redacted(&deep, &["Name"]).unwrap().contains("Ada"));
        assert_eq!(redacted("[7]", &["name"]).unwrap(), "[7]");
        assert_eq!(redacted(r#""name""#, &["name"]).unwrap(), r#""name""#);
        assert_eq!(record(b"name=Ada", 8, 100, &redaction(&["name"])), None);
    }

    #[test]
    fn json_in_a_text_that_holds_a_name_is_replaced_as_a_whole() {
        let inner = json!({"a": [{"name": "Ada"}]}).to_string();
        let twice = json!({"b": inner}).to_string();
        let body = json!({"x": inner, "y": [twice], "z": "{\"other\":1}"}).to_string();
        assert_eq!(
            redacted(&body, &["name"]).unwrap(),
            r#"{"x":"[redacted]","y":["[redacted]"],"z":"{\"other\":1}"}"#
        );
        let whole = json!(inner).to_string();
        assert_eq!(redacted(&whole, &["name"]).unwrap(), r#""[redacted]""#);
        // Looks like JSON and is none: nobody knows where the name ends.
        assert_eq!(redacted(r#"["{name: Ada}"]"#, &["name"]).unwrap(), r#"["[redacted]"]"#);
        assert_eq!(redacted(r#"["the name: Ada"]"#, &["name"]).unwrap(), r#"["the name: Ada"]"#);
    }

    #[test]
    fn what_cannot_be_read_is_not_recorded_at_all() {
        for body in ["", "name=Ada", r#"{"a":1"#, r#"{"a":1}{"a":2}"#, "<a>1</a>", "\u{1f}"] {
            assert_eq!(record(body.as_bytes(), body.len() as u64, 100, &redaction(&["/a"])), None);
        }
        // The tap kept only the beginning.
        assert_eq!(record(b"{}", 3, 100, &redaction(&["/a"])), None);
        let invalid = b"{\"\xff\":1}";
        assert_eq!(record(invalid, invalid.len() as u64, 100, &redaction(&["/a"])), None);
    }

    #[test]
    fn a_cut_is_said() {
        let of = |size, max| record(b"abcdef", size, max, &redaction(&[])).unwrap();
        assert_eq!(of(6, 6), Payload { bytes: b"abcdef".into(), cut: false });
        assert_eq!(of(6, 4), Payload { bytes: b"abcd".into(), cut: true });
        assert_eq!(of(9, 100), Payload { bytes: b"abcdef".into(), cut: true });
        let body = br#"{"a":1}"#;
        let both = record(body, body.len() as u64, 9, &redaction(&["/a"])).unwrap();
        assert_eq!(both, Payload { bytes: br#"{"a":"[re"#.into(), cut: true });
    }

    #[test]
    fn deep_nesting_does_not_overflow_the_stack() {
        let deep = format!(r#"{{"a":{}{},"b":1}}"#, "[".repeat(50_000), "]".repeat(50_000));
        assert_eq!(redacted(&deep, &["/a"]).unwrap(), r#"{"a":"[redacted]","b":1}"#);
        assert!(redacted(&deep, &["/*/0/0/0", "/b"]).unwrap().ends_with(r#""b":"[redacted]"}"#));
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~é\"\\\\]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map("[abc\"/]", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn blank(value: &mut Value, name: &str) {
        match value {
            Value::Object(members) => {
                for (found, value) in members {
                    if found == name {
                        *value = json!("[redacted]");
                    } else {
                        blank(value, name);
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| blank(item, name)),
            // A text that begins like JSON, may have the name in it, in any case or behind an escape,
            // and cannot be read may hold anything.
            Value::String(text) => {
                let lower = text.to_ascii_lowercase();
                let may_name = lower.contains(name) || lower.contains("\\u");
                let looks = text.trim_start().starts_with(['{', '[', '"']);
                if looks && may_name && serde_json::from_str::<Value>(text).is_err() {
                    *value = json!("[redacted]");
                }
            }
            _ => {}
        }
    }

    proptest! {
        #[test]
        fn redaction_agrees_with_a_parser(
            value in json_value(),
            pointer in "(/(a|b|c|~1|0|1)){1,3}",
            pretty: bool,
        ) {
            let text = if pretty {
                serde_json::to_string_pretty(&value).unwrap()
            } else {
                value.to_string()
            };
            let mut expected = value.clone();
            if let Some(found) = expected.pointer_mut(&pointer) {
                *found = json!("[redacted]");
            }
            let clean = redacted(&text, &[&pointer]).unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(&clean).unwrap(), expected);
        }

        #[test]
        fn redaction_of_names_agrees_with_a_parser(
            value in json_value(),
            pointer in "(/(a|b|0|1)){2}",
            pretty: bool,
        ) {
            let text = if pretty {
                serde_json::to_string_pretty(&value).unwrap()
            } else {
                value.to_string()
            };
            let mut expected = value.clone();
            if let Some(found) = expected.pointer_mut(&pointer) {
                *found = json!("[redacted]");
            }
            blank(&mut expected, "c");
            let clean = redacted(&text, &[&pointer, "c"]).unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(&clean).unwrap(), expected);
        }

        #[test]
        fn any_bytes_are_survived(body: Vec<u8>) {
            let _ = redact(&body, &redaction(&["/*/a", "b"]));
        }
    }
}
