//! Whether a JSON body is worth reading at all. Reading one costs more than all else that is done
//! with a message, and most of what a busy topic carries may hold neither a business key nor an
//! envelope. A text search for what these would need is many times as fast.

use aho_corasick::packed::Searcher;

use super::detect::{MARKS, is_declared};
use super::json::KeyFilter;
use super::names::Glob;

/// Searches bodies for what keys and envelopes need.
#[derive(Clone, Debug)]
pub(super) struct Sniffer {
    /// `None` where every body must be read: for some key anything will do, or this processor
    /// cannot search fast.
    searcher: Option<Searcher>,
}

impl Sniffer {
    pub(super) fn new(keys: &KeyFilter) -> Self {
        let ends = match keys {
            KeyFilter::Off => Some(Vec::new()),
            // A name's end with its quote. One written with escapes (`\u0064`) is not found: nobody
            // writes these letters so.
            KeyFilter::BuiltIn => Some(vec!["_id\"".into(), "Id\"".into(), "\"uuid\"".into()]),
            KeyFilter::Named(patterns) => patterns.iter().map(needed_by).collect(),
        };
        let searcher = ends.and_then(|ends: Vec<String>| {
            Searcher::new(ends.iter().map(String::as_str).chain(MARKS.iter().copied()))
        });
        Self { searcher }
    }

    /// Whether the body may hold a key or an envelope.
    pub(super) fn may_hold_something(&self, body: &[u8], content_type: Option<&[u8]>) -> bool {
        match &self.searcher {
            Some(searcher) => {
                content_type.is_some_and(is_declared) || searcher.find(body).is_some()
            }
            None => true,
        }
    }
}

/// A text without which no name matches the pattern; `None` where there is none, or where JSON may
/// write it in several ways.
fn needed_by(pattern: &Glob) -> Option<String> {
    let pattern = pattern.as_str();
    let plain = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
    };
    match pattern.rfind(['*', '?']) {
        None => plain(pattern).then(|| format!("\"{pattern}\"")),
        Some(last) => {
            let end = &pattern[last + 1..];
            plain(end).then(|| format!("{end}\""))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(keys: &KeyFilter, body: &str) -> bool {
        Sniffer::new(keys).may_hold_something(body.as_bytes(), None)
    }

    #[test]
    fn bodies_with_what_a_key_or_an_envelope_needs_are_read() {
        for body in [
            r#"{"order_id":1}"#,
            r#"{"a":{"orderId" :1}}"#,
            r#"{"uuid":1}"#,
            r#"{"specversion":"1.0"}"#,
            r#"{"payload":"{}","headers":{"ID":"1"}}"#,
        ] {
            assert!(reads(&KeyFilter::BuiltIn, body), "{body}");
        }
    }

    #[test]
    fn named_keys_are_what_is_searched_for() {
        let named =
            |names: &[&str]| KeyFilter::Named(names.iter().map(|name| Glob::new(name)).collect());
        assert!(reads(&named(&["vin", "*_no"]), r#"{"vin":1}"#));
        assert!(reads(&named(&["vin", "*_no"]), r#"{"order_no":1}"#));
        assert!(reads(&named(&["x*"]), "{}"), "nothing tells");
        assert!(reads(&named(&["größe"]), "{}"), "JSON may write it in several ways");
        assert!(reads(&named(&["vin"]), r#"{"specversion":"1.0"}"#));
    }

    // Where the processor has no fast search, every body is read.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn bodies_without_are_not() {
        let body = r#"{"temperature":21.5,"at":"2026-07-14T12:00:03.114Z","place":"hall"}"#;
        assert!(!reads(&KeyFilter::BuiltIn, body));
        assert!(!reads(&KeyFilter::Named(vec!["vin".into(), "*_no".into()]), body));
        assert!(!reads(&KeyFilter::Off, r#"{"order_id":1}"#));
        let declared = Some(b"application/cloudevents+json".as_slice());
        assert!(Sniffer::new(&KeyFilter::Off).may_hold_something(b"{}", declared));
    }
}
