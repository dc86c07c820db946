//! The spool's folder: its lock, the agent's name, one folder for each boot. Input: the path from
//! the configuration. Output: what the threads of the spool need to begin, and what earlier boots
//! left.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use flowtap_record::path::check_agent;
use flowtap_record::{Micros, Seq};
use rand::Rng as _;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::SpoolError;
use super::disk::{Disk, sync_parent};
use super::mark::{Mark, MarkFile};

/// Where things lie in the spool's folder.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn lock(&self) -> PathBuf {
        self.root.join("LOCK")
    }

    fn agent(&self) -> PathBuf {
        self.root.join("agent")
    }

    pub(crate) fn boots(&self) -> PathBuf {
        self.root.join("boots")
    }

    pub(crate) fn boot(&self, boot: &str) -> PathBuf {
        self.boots().join(boot)
    }

    /// Written when a boot ended in order.
    pub(crate) fn ended(&self, boot: &str) -> PathBuf {
        self.boot(boot).join("ended")
    }

    /// Written when the `gap` row about a boot's death is synced in a later boot.
    pub(crate) fn reported(&self, boot: &str) -> PathBuf {
        self.boot(boot).join("reported")
    }

    fn about(&self, boot: &str) -> PathBuf {
        self.boot(boot).join("about")
    }

    pub(crate) fn mark(&self, boot: &str) -> PathBuf {
        self.boot(boot).join("mark")
    }

    /// A segment that is written to.
    pub(crate) fn open_segment(&self, boot: &str, first: Seq) -> PathBuf {
        self.boot(boot).join(format!("{:020}.seg", first.0))
    }

    /// A segment whose range is fixed for ever.
    pub(crate) fn sealed_segment(&self, boot: &str, first: Seq, last: Seq) -> PathBuf {
        self.boot(boot).join(format!("{:020}-{:020}.seg", first.0, last.0))
    }
}

/// First and, when it is sealed, last row of a segment, from its file's name.
pub(crate) fn segment_range(name: &str) -> Option<(Seq, Option<Seq>)> {
    let number = |digits: &str| -> Option<Seq> {
        let fits = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse().ok().filter(|_| fits).map(Seq)
    };
    let range = name.strip_suffix(".seg")?;
    match range.split_once('-') {
        None => Some((number(range)?, None)),
        Some((first, last)) => {
            let (first, last) = (number(first)?, number(last)?);
            (first.0 >= 1 && last >= first).then_some((first, Some(last)))
        }
    }
}

/// What a boot says of itself in its folder, for the boots after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    /// The name under which its rows are uploaded, whatever later boots are called.
    pub(crate) agent: String,
    pub(crate) service: String,
    pub(crate) started_at: Micros,
}

/// Reads `about`; without it (a torn folder) the name of today and the time in the boot's id.
pub(crate) fn read_about(layout: &Layout, boot: &str, agent: &str) -> About {
    let read = fs::read(layout.about(boot)).ok();
    let known = read.and_then(|bytes| serde_json::from_slice::<About>(&bytes).ok());
    known.filter(|about| check_agent(&about.agent).is_ok()).unwrap_or_else(|| About {
        agent: agent.to_owned(),
        service: String::new(),
        started_at: boot_time(boot),
    })
}

/// The time in a boot's id.
pub(crate) fn boot_time(boot: &str) -> Micros {
    let stamp = uuid::Uuid::try_parse(boot).ok().and_then(|id| id.get_timestamp());
    stamp.map_or(Micros(0), |stamp| {
        let (seconds, nanos) = stamp.to_unix();
        Micros(seconds as i64 * 1_000_000 + i64::from(nanos / 1000))
    })
}

/// Takes the lock, or says who holds it.
pub(crate) fn lock(layout: &Layout, disk: &Disk) -> Result<File, SpoolError> {
    let failed = |source| SpoolError::Folder { path: layout.root().to_owned(), source };
    disk.create_dir(layout.root()).map_err(failed)?;
    let path = layout.lock();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let holder = read_holder(&mut file).unwrap_or_else(|_| "unknown".to_owned());
            return Err(SpoolError::Locked { path: layout.root().to_owned(), holder });
        }
        Err(errno) => return Err(failed(errno.into())),
    }
    // The number is for the sentence of the second agent only: a full disk must not stop us here.
    let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
    Ok(file)
}

/// Who works on this folder now, as it wrote itself; `None` if nobody does. Makes nothing.
pub(crate) fn holder(root: &Path) -> io::Result<Option<String>> {
    let mut file = match File::open(Layout::new(root).lock()) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None),
        Err(rustix::io::Errno::WOULDBLOCK) => read_holder(&mut file).map(Some),
        Err(errno) => Err(errno.into()),
    }
}

fn read_holder(lock: &mut File) -> io::Result<String> {
    let mut text = String::new();
    lock.read_to_string(&mut text)?;
    let holder = text.trim();
    Ok(if holder.is_empty() { "unknown".to_owned() } else { holder.to_owned() })
}

/// The agent's name: the configured one, or the one made when the folder was new.
pub(crate) fn agent_name(
    layout: &Layout,
    disk: &Disk,
    configured: Option<&str>,
    fresh: &str,
) -> Result<String, SpoolError> {
    if let Some(name) = configured {
        return Ok(name.to_owned());
    }
    let failed = |source| SpoolError::Folder { path: layout.root().to_owned(), source };
    match fs::read_to_string(layout.agent()) {
        Ok(name) if check_agent(name.trim()).is_ok() => Ok(name.trim().to_owned()),
        Ok(name) => {
            tracing::warn!(name, chosen = fresh, "the agent's name in the spool is no name");
            disk.replace(&layout.agent(), fresh.as_bytes()).map_err(failed)?;
            Ok(fresh.to_owned())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            disk.replace(&layout.agent(), fresh.as_bytes()).map_err(failed)?;
            Ok(fresh.to_owned())
        }
        Err(error) => Err(failed(error)),
    }
}

/// A name that nobody else has: `<service>-<random>`, of the characters that a name may have.
pub(crate) fn fresh_agent_name(service: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let kept: String = service.chars().map(|c| if allowed(c) { c } else { '-' }).take(71).collect();
    let service = if kept.is_empty() { "agent" } else { &kept };
    let mut random = rand::rng();
    let mut letter =
        || char::from(b"abcdefghijklmnopqrstuvwxyz0123456789"[random.random_range(0..36)]);
    let suffix: String = (0..8).map(|_| letter()).collect();
    format!("{service}-{suffix}")
}

/// Makes the folder of this boot with `about` and the first time mark in it, all at once.
pub(crate) fn create_boot(
    layout: &Layout,
    disk: &Disk,
    boot: &str,
    about: &About,
    mark: &Mark,
) -> io::Result<MarkFile> {
    let staged = layout.boots().join(format!(".new-{boot}"));
    let _ = fs::remove_dir_all(&staged);
    disk.create_dir(&staged)?;
    let json = serde_json::to_vec(about).map_err(io::Error::other)?;
    disk.replace(&staged.join("about"), &json)?;
    let mark_file = MarkFile::create(&staged.join("mark"), disk, mark)?;
    fs::rename(&staged, layout.boot(boot))?;
    sync_parent(&layout.boot(boot))?;
    sync_parent(&layout.boots())?;
    Ok(mark_file)
}

/// Removes a boot's folder. It is renamed first, so that a crash in between does not leave a boot
/// that lacks its markers.
pub(crate) fn remove_boot(layout: &Layout, boot: &str) -> io::Result<()> {
    let gone = layout.boots().join(format!(".gone-{boot}"));
    match fs::rename(layout.boot(boot), &gone) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    sync_parent(&gone)?;
    fs::remove_dir_all(&gone)
}

/// Names of the boots' folders, oldest first; what earlier crashes left half made or half removed
/// goes.
pub(crate) fn list_boots(layout: &Layout) -> io::Result<Vec<String>> {
    let mut boots = Vec::new();
    for entry in fs::read_dir(layout.boots())? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with(".new-") || name.starts_with(".gone-") {
            let _ = fs::remove_dir_all(entry.path());
        } else if uuid::Uuid::try_parse(&name).is_ok_and(|id| id.hyphenated().to_string() == name) {
            boots.push(name);
        }
    }
    boots.sort();
    Ok(boots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_with_odd_characters_still_makes_a_name() {
        for service in ["billing", "Abrechnung/Süd", "", "..", &"x".repeat(200)] {
            let name = fresh_agent_name(service);
            check_agent(&name).unwrap();
            assert_ne!(name, fresh_agent_name(service));
        }
        assert!(fresh_agent_name("a b").starts_with("a-b-"));
    }

    #[test]
    fn a_boots_id_tells_when_it_began() {
        let boot = uuid::Uuid::now_v7();
        let (seconds, _) = boot.get_timestamp().unwrap().to_unix();
        assert_eq!(boot_time(&boot.to_string()).0 / 1_000_000, seconds as i64);
        assert_eq!(boot_time("nonsense"), Micros(0));
    }

    #[test]
    fn only_names_of_segments_are_segments() {
        let open = format!("{:020}.seg", 7);
        let sealed = format!("{:020}-{:020}.seg", 7, 9);
        assert_eq!(segment_range(&open), Some((Seq(7), None)));
        assert_eq!(segment_range(&sealed), Some((Seq(7), Some(Seq(9)))));
        let backward = format!("{:020}-{:020}.seg", 9, 7);
        for name in ["mark", "7.seg", "7-9.seg", &backward, "00000000000000000007.tmp"] {
            assert_eq!(segment_range(name), None, "{name}");
        }
    }
}
