//! The version of the row schema. Within a major version columns are only added, each of them one that
//! may be null; anything else is another major version. `docs/history.md` says what follows from it.

use std::fmt;
use std::str::FromStr;

/// Version of the row schema, written as `flowtap.schema` into every Parquet footer. Who adds a column
/// raises the minor version here and keeps files of the version before (`query/tests/schemas/`).
pub const SCHEMA_VERSION: &str = "1.0";

/// A version of the row schema. Versions are in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SchemaVersion {
    /// Rows of two majors do not understand one another.
    pub major: u32,
    /// A higher one has columns more.
    pub minor: u32,
}

impl SchemaVersion {
    /// The one of this build: [`SCHEMA_VERSION`], which a test holds to it.
    pub const OWN: Self = Self { major: 1, minor: 0 };
}

impl FromStr for SchemaVersion {
    type Err = String;

    /// `1.2`; `1` is `1.0`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        let number = |digits: &str| -> Result<u32, String> {
            let wrong = || format!("{text:?} is no schema version, such as \"{SCHEMA_VERSION}\"");
            // `parse` takes a sign, too.
            if digits.bytes().all(|it| it.is_ascii_digit()) {
                digits.parse().map_err(|_| wrong())
            } else {
                Err(wrong())
            }
        };
        Ok(Self { major: number(major)?, minor: number(minor)? })
    }
}

impl fmt::Display for SchemaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_compared_and_written() {
        let version = |text: &str| text.parse::<SchemaVersion>();
        assert_eq!(SchemaVersion::OWN.to_string(), SCHEMA_VERSION);
        assert_eq!(version("1"), version("1.0"));
        assert!(version("1.9") < version("1.10") && version("1.10") < version("2.0"));
        for wrong in ["", "x", "1.", ".1", "1.2.3", "-1", "1.+2", "99999999999"] {
            let error = version(wrong).unwrap_err();
            assert!(error.contains("is no schema version"), "{error}");
        }
    }
}
