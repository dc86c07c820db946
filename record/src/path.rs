//! Names of the objects in the store. Agents write below `inbox/` and `agents/`, only there; the
//! ingester everywhere else.

use crate::observation::Seq;

/// The one table that agents of this version write.
pub const HISTORY: &str = "history";

/// Why a name is not one of ours.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    /// The name of an agent breaks the rule.
    #[error("agent name {0:?}: want 1 to 80 of the characters A-Z a-z 0-9 . _ -")]
    Agent(String),
    /// Not the name of an inbox object.
    #[error("{0:?} is not inbox/<table>/<agent>/<boot>/<first>-<last>.parquet")]
    Inbox(String),
}

/// Checks an agent's name: `[A-Za-z0-9._-]{1,80}`, and not one that a folder could misread.
pub fn check_agent(name: &str) -> Result<(), NameError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if (1..=80).contains(&name.len()) && name.chars().all(allowed) && name != "." && name != ".." {
        Ok(())
    } else {
        Err(NameError::Agent(name.to_owned()))
    }
}

/// An inbox object: the rows `first` to `last` of one boot of one agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InboxName {
    /// The table that the rows belong to.
    pub table: String,
    /// The agent that wrote it.
    pub agent: String,
    /// The boot, a UUID in lower case with dashes.
    pub boot: String,
    /// Its first row.
    pub first: Seq,
    /// Its last row.
    pub last: Seq,
}

impl InboxName {
    /// The object's path below the store's root.
    pub fn path(&self) -> String {
        format!(
            "inbox/{}/{}/{}/{:020}-{:020}.parquet",
            self.table, self.agent, self.boot, self.first.0, self.last.0
        )
    }

    /// Reads a path below the store's root. Every part is checked: the name is input.
    pub fn parse(path: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Inbox(path.to_owned());
        let mut parts = path.split('/');
        let (Some("inbox"), Some(table), Some(agent), Some(boot), Some(file), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        check_agent(agent)?;
        let table_ok = !table.is_empty()
            && table.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        let boot_ok =
            uuid::Uuid::try_parse(boot).is_ok_and(|id| id.hyphenated().to_string() == boot);
        let (first, last) = file
            .strip_suffix(".parquet")
            .and_then(|range| range.split_once('-'))
            .ok_or_else(wrong)?;
        let number = |digits: &str| -> Option<i64> {
            let fits = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
            if fits { digits.parse().ok() } else { None }
        };
        let (Some(first), Some(last)) = (number(first), number(last)) else {
            return Err(wrong());
        };
        if !table_ok || !boot_ok || first < 1 || last < first {
            return Err(wrong());
        }
        Ok(Self {
            table: table.to_owned(),
            agent: agent.to_owned(),
            boot: boot.to_owned(),
            first: Seq(first),
            last: Seq(last),
        })
    }
}

/// Path of the object that says how far each boot is in `history`, as of one commit. Its number
/// grows and is the version of the application transaction `flowtap-ingest` of that commit.
pub fn ingest(number: u64) -> String {
    format!("ingest/{number:020}.json")
}

/// Where an inbox object that cannot be believed is kept.
pub fn quarantine(inbox: &str) -> String {
    format!("quarantine/{}", inbox.strip_prefix("inbox/").unwrap_or(inbox))
}

/// Path of a boot's status object.
pub fn status(agent: &str, boot: &str) -> String {
    format!("agents/{agent}/{boot}.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: &str = "01940000-0000-7000-8000-000000000001";

    #[test]
    fn a_name_reads_back() {
        let name = InboxName {
            table: HISTORY.into(),
            agent: "shop-k3x".into(),
            boot: BOOT.into(),
            first: Seq(1),
            last: Seq(4096),
        };
        assert_eq!(
            name.path(),
            format!(
                "inbox/history/shop-k3x/{BOOT}/00000000000000000001-00000000000000004096.parquet"
            )
        );
        assert_eq!(InboxName::parse(&name.path()), Ok(name));
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let ok = "00000000000000000001-00000000000000000002.parquet";
        for path in [
            format!("inbox/history/../{BOOT}/{ok}"),
            format!("inbox/history/a b/{BOOT}/{ok}"),
            format!("inbox/history/a/not-a-boot/{ok}"),
            format!("inbox/history/a/{BOOT}/1-2.parquet"),
            format!("inbox/history/a/{BOOT}/00000000000000000003-00000000000000000002.parquet"),
            format!("inbox/history/a/{BOOT}/00000000000000000000-00000000000000000002.parquet"),
            format!("inbox/history/a/{BOOT}/+0000000000000000001-00000000000000000002.parquet"),
            format!("inbox/history/a/{BOOT}/{ok}/x"),
            format!("history/a/{BOOT}/{ok}"),
        ] {
            assert!(InboxName::parse(&path).is_err(), "{path}");
        }
        assert!(check_agent(&"a".repeat(81)).is_err());
        assert!(check_agent("").is_err());
    }
}
