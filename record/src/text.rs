//! Bytes from the wire as text of a column: brokers do not promise UTF-8, columns do.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Bytes as a column's text: UTF-8 stays as it is, every byte that is not UTF-8 becomes `\xHH`,
/// and a backslash becomes `\\`, so that the bytes can be had back.
pub fn escape_bytes(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes)
        && !text.contains('\\')
    {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' {
                escaped.push_str("\\\\");
            } else {
                escaped.push(c);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(escaped, "\\x{byte:02x}");
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_that_are_not_utf8_are_escaped() {
        assert_eq!(escape_bytes(b"orders.placed"), "orders.placed");
        assert_eq!(escape_bytes(b"\xff\xfe"), "\\xff\\xfe");
        assert_eq!(escape_bytes(b"a\\b"), "a\\\\b");
        assert_eq!(escape_bytes("\u{e9}\u{0}".as_bytes()), "\u{e9}\u{0}");
    }

    proptest! {
        #[test]
        fn different_bytes_never_become_the_same_text(a: Vec<u8>, b: Vec<u8>) {
            prop_assert_eq!(a == b, escape_bytes(&a) == escape_bytes(&b));
        }
    }
}
