//! What `[record] redact` names, made ready: pointers into JSON bodies, and names that stand
//! anywhere, in headers and as members of JSON at any depth. Who records headers, payloads, ids
//! and keys asks here.

use super::json::Pointer;
use super::spec::Redact;

/// What is to be redacted.
#[derive(Clone, Debug, Default)]
pub(super) struct Redaction {
    pointers: Vec<Pointer>,
    names: Vec<Box<str>>,
}

impl Redaction {
    pub(super) fn new(redact: &[Redact]) -> Self {
        let mut made = Self::default();
        for redact in redact {
            match redact {
                Redact::Body(pointer) => made.pointers.push(pointer.clone()),
                Redact::Name(name) => made.names.push(name.clone()),
            }
        }
        made
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pointers.is_empty() && self.names.is_empty()
    }

    pub(super) fn pointers(&self) -> &[Pointer] {
        &self.pointers
    }

    pub(super) fn has_names(&self) -> bool {
        !self.names.is_empty()
    }

    /// Whether values of this name are redacted wherever they stand.
    pub(super) fn names(&self, name: &[u8]) -> bool {
        self.names.iter().any(|redacted| name.eq_ignore_ascii_case(redacted.as_bytes()))
    }

    /// Whether what lies at this path in a JSON body is redacted, by itself or with what it lies in.
    pub(super) fn covers<S: AsRef<str>>(&self, path: &[S]) -> bool {
        self.pointers.iter().any(|pointer| pointer.covers(path))
            || path.iter().any(|step| self.names(step.as_ref().as_bytes()))
    }

    /// Whether JSON in this text may hold such a name: cheap, and never wrong when it says no. A
    /// name can only hide behind escapes of letters.
    pub(super) fn may_name(&self, text: &[u8]) -> bool {
        let contains =
            |part: &[u8]| text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part));
        self.has_names()
            && (contains(b"\\u") || self.names.iter().any(|name| contains(name.as_bytes())))
    }

    /// Whether a text is JSON itself that holds such a name. What looks like it, names it and
    /// cannot be read counts as well.
    pub(super) fn is_named_in(&self, text: &str) -> bool {
        if !looks_like_json(text) || !self.may_name(text.as_bytes()) {
            return false;
        }
        match serde_json::from_str::<serde_json::Value>(text) {
            Ok(json) => self.is_named_within(&json),
            Err(_) => true,
        }
    }

    /// The parser bounds the depth.
    fn is_named_within(&self, json: &serde_json::Value) -> bool {
        match json {
            serde_json::Value::Object(members) => members
                .iter()
                .any(|(name, value)| self.names(name.as_bytes()) || self.is_named_within(value)),
            serde_json::Value::Array(items) => items.iter().any(|item| self.is_named_within(item)),
            serde_json::Value::String(inner) => self.is_named_in(inner),
            _ => false,
        }
    }
}

/// Whether a text begins like JSON that can hold members, also in JSON that is a text.
pub(super) fn looks_like_json(text: &str) -> bool {
    matches!(text.trim_start().as_bytes().first(), Some(b'{' | b'[' | b'"'))
}
