//! Looks for planted secrets in everything that was written.

use std::path::{Path, PathBuf};

/// The files below a folder that hold one of the texts, in bytes or in base64, with the text.
pub fn files_with(folder: &Path, texts: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries {
            let entry = entry.expect("a folder's entry can be read");
            let kind = entry.file_type().expect("a file has a type");
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                // A temporary file may be gone by now.
                let bytes = std::fs::read(entry.path()).unwrap_or_default();
                let hits = texts.iter().filter(|text| contains(&bytes, text));
                found.extend(hits.map(|text| (entry.path(), (*text).to_owned())));
            }
        }
    }
    found
}

/// Whether bytes hold a text, as it is or in base64 at any of its three alignments.
pub fn contains(bytes: &[u8], text: &str) -> bool {
    let has = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    has(text.as_bytes()) || base64_cores(text.as_bytes()).iter().any(|core| has(core))
}

/// What base64 makes of a text wherever it starts, without the characters that depend on its
/// neighbours.
fn base64_cores(text: &[u8]) -> Vec<Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    (0..3)
        .filter_map(|skip| text.get((3 - skip) % 3..))
        .map(|aligned| {
            let whole = aligned.chunks_exact(3);
            whole
                .flat_map(|chunk| {
                    let bits =
                        u32::from(chunk[0]) << 16 | u32::from(chunk[1]) << 8 | u32::from(chunk[2]);
                    [18, 12, 6, 0].map(|shift| ALPHABET[(bits >> shift) as usize & 63])
                })
                .collect::<Vec<u8>>()
        })
        .filter(|core| core.len() >= 8)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_clear_and_in_base64_wherever_it_starts() {
        assert!(contains(b"xx planted-secret yy", "planted-secret"));
        // base64 of "planted-secret", "apl...", "abpl..."
        for encoded in ["cGxhbnRlZC1zZWNyZXQ=", "YXBsYW50ZWQtc2VjcmV0", "YWJwbGFudGVkLXNlY3JldA=="]
        {
            assert!(contains(encoded.as_bytes(), "planted-secret"), "{encoded}");
        }
        assert!(!contains(b"planted secret", "planted-secret"));
    }
}
