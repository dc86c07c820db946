//! Headers as they may be recorded: which of them, and what of their values. Secrets may hide
//! inside a value: in a nested table, in JSON that somebody put into a text, in baggage, in a URL.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flowtap_record::{Encoding, Value, escape_bytes};

use super::names::{is_exception_text, is_excluded};
use super::redact::{Redaction, looks_like_json};
use super::spec::{HeaderPolicy, RecordSpec};
use super::text::{Text, url_secret};

/// Most headers recorded of one message; more are counted, not kept.
pub(super) const MAX_HEADERS: usize = 64;

/// Longest recorded value, in bytes; of a longer one only its length is said.
pub(super) const MAX_VALUE_BYTES: usize = 4096;

/// Longest recorded name, in bytes.
pub(super) const MAX_NAME_BYTES: usize = 256;

/// Deepest table or array that is recorded.
const MAX_DEPTH: usize = 16;

const REDACTED: &str = "[redacted]";

/// Which headers may be read and recorded, and how.
#[derive(Clone, Debug)]
pub(super) struct HeaderRecorder {
    policy: HeaderPolicy,
    redact: Redaction,
    exception_texts: bool,
}

impl HeaderRecorder {
    pub(super) fn new(record: &RecordSpec) -> Self {
        Self {
            policy: record.headers.clone(),
            redact: Redaction::new(&record.redact),
            exception_texts: record.exception_texts,
        }
    }

    /// Whether the configuration wants values of this name replaced.
    pub(super) fn is_redacted(&self, name: &[u8]) -> bool {
        self.redact.names(name)
    }

    /// Whether those headers are recorded that gave an id.
    pub(super) fn takes_ids(&self) -> bool {
        self.policy == HeaderPolicy::Ids
    }

    /// Whether a header is recorded; `gave_id` says that one of the ids came from it.
    pub(super) fn takes(&self, name: &[u8], gave_id: bool) -> bool {
        let wanted = match &self.policy {
            HeaderPolicy::Ids => gave_id,
            HeaderPolicy::Named(patterns) => {
                patterns.iter().any(|pattern| pattern.matches_ignoring_case(name))
            }
            HeaderPolicy::All => true,
        };
        wanted
            && name.len() <= MAX_NAME_BYTES
            && !is_excluded(name)
            && (self.exception_texts || !is_exception_text(name))
    }

    /// The value of a header that is recorded.
    pub(super) fn value<'a>(&self, name: &[u8], value: &Value<'a>) -> (Text<'a>, Encoding) {
        if self.is_redacted(name) {
            return (Text::Lent(REDACTED), Encoding::Text);
        }
        match value {
            Value::Bytes(bytes) if bytes.len() > MAX_VALUE_BYTES => {
                (Text::Owned(format!("[{} bytes]", bytes.len())), Encoding::Text)
            }
            Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => (self.clean_text(name, text).into(), Encoding::Text),
                Err(_) => (Text::Owned(STANDARD.encode(bytes)), Encoding::Base64),
            },
            other => {
                let mut json = String::new();
                self.write(other, 0, &mut json);
                if json.len() > MAX_VALUE_BYTES {
                    (Text::Lent("[a table too large to record]"), Encoding::Text)
                } else {
                    (Text::Owned(json), Encoding::Json)
                }
            }
        }
    }

    /// Appends a value as JSON, less what must not be in it. Stops when there is too much.
    fn write(&self, value: &Value<'_>, depth: usize, out: &mut String) {
        match value {
            Value::Array(_) | Value::Table(_) if depth >= MAX_DEPTH => {
                out.push_str(r#""[nested too deep]""#);
            }
            Value::Array(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    if out.len() > MAX_VALUE_BYTES {
                        return;
                    }
                    if at > 0 {
                        out.push(',');
                    }
                    self.write(item, depth + 1, out);
                }
                out.push(']');
            }
            Value::Table(entries) => {
                out.push('{');
                for (at, (name, item)) in entries.iter().enumerate() {
                    if out.len() > MAX_VALUE_BYTES {
                        return;
                    }
                    if at > 0 {
                        out.push(',');
                    }
                    write_string(&escape_bytes(name), out);
                    out.push(':');
                    if self.hides_member(name) {
                        write_string(REDACTED, out);
                    } else {
                        self.write(item, depth + 1, out);
                    }
                }
                out.push('}');
            }
            Value::Bytes(bytes) if bytes.len() > MAX_VALUE_BYTES => {
                write_string(&format!("[{} bytes]", bytes.len()), out);
            }
            Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => write_string(&escape_bytes(self.clean_text(b"", text).as_bytes()), out),
                Err(_) => write_string(&escape_bytes(bytes), out),
            },
            scalar => scalar.write_json(out),
        }
    }

    fn hides_member(&self, name: &[u8]) -> bool {
        is_excluded(name)
            || self.is_redacted(name)
            || (!self.exception_texts && is_exception_text(name))
    }

    /// Whether a text may hold a member that is hidden.
    fn may_hide(&self, text: &str) -> bool {
        self.hides_member(text.as_bytes()) || self.redact.may_name(text.as_bytes())
    }

    /// A text without the secrets that its form lets us see.
    fn clean_text<'t>(&self, name: &[u8], text: &'t str) -> Cow<'t, str> {
        let text = if looks_like_json(text) {
            self.clean_json(text)
        } else if is_baggage(name) && self.may_hide(text) {
            Cow::Owned(self.clean_baggage(text))
        } else {
            Cow::Borrowed(text)
        };
        if url_secret(&text).is_none() {
            return text;
        }
        let mut clean = text.into_owned();
        while let Some(secret) = url_secret(&clean) {
            // Without its colon this is no secret any more, so the loop ends.
            clean.replace_range(secret, REDACTED);
        }
        Cow::Owned(clean)
    }

    /// JSON that somebody put into a text.
    fn clean_json<'t>(&self, text: &'t str) -> Cow<'t, str> {
        // A name cannot be hidden in it unless the text contains the word, or escapes of letters.
        if !text.contains("\\u") && !self.may_hide(text) {
            return Cow::Borrowed(text);
        }
        let Ok(mut json) = serde_json::from_str::<serde_json::Value>(text) else {
            return Cow::Borrowed(REDACTED);
        };
        if self.clean_members(&mut json) {
            Cow::Owned(json.to_string())
        } else {
            Cow::Borrowed(text)
        }
    }

    /// Whether something had to be replaced. The parser bounds the depth.
    fn clean_members(&self, json: &mut serde_json::Value) -> bool {
        match json {
            serde_json::Value::Object(members) => {
                let mut changed = false;
                for (name, value) in members.iter_mut() {
                    if self.hides_member(name.as_bytes()) {
                        *value = REDACTED.into();
                        changed = true;
                    } else {
                        changed |= self.clean_members(value);
                    }
                }
                changed
            }
            serde_json::Value::Array(items) => {
                items.iter_mut().fold(false, |changed, item| self.clean_members(item) | changed)
            }
            // JSON within JSON, and URLs.
            serde_json::Value::String(inner) => {
                let clean = self.clean_text(b"", inner).into_owned();
                let changed = clean != *inner;
                *inner = clean;
                changed
            }
            _ => false,
        }
    }

    /// W3C baggage: `name=value;property,name=value`.
    fn clean_baggage(&self, text: &str) -> String {
        let hides = |member: &&str| {
            let name = member.split(['=', ';']).next().unwrap_or_default().trim();
            self.hides_member(member.as_bytes()) || self.is_redacted(name.as_bytes())
        };
        let kept: Vec<_> = text.split(',').filter(|member| !hides(member)).collect();
        kept.join(",")
    }
}

fn is_baggage(name: &[u8]) -> bool {
    let ends_with = |end: &[u8]| {
        name.len() >= end.len() && name[name.len() - end.len()..].eq_ignore_ascii_case(end)
    };
    ends_with(b"baggage") || ends_with(b"correlation-context")
}

fn write_string(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

#[cfg(test)]
mod tests;
