//! File operations of the spool, each with a name, so that a test can make exactly that one fail.
//! Input: paths and bytes from the other files of the spool. Nothing else in it touches a file.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

/// How a named operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// With this error number, having done nothing.
    Errno(i32),
    /// A write: with this error number, after this many bytes.
    Short(usize, i32),
}

/// Asked before each operation, by its name, whether it shall fail.
pub type FaultPlan = Arc<dyn Fn(&'static str) -> Option<Fault> + Send + Sync>;

/// The file system, with the faults that a test put in.
///
/// Names: `dir.create`, `file.replace`, `segment.create`, `segment.write`, `segment.truncate`,
/// `segment.sync`, `segment.rename`, `segment.remove`, `mark.write`.
#[derive(Clone, Default)]
pub struct Disk {
    faults: Option<FaultPlan>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("faults", &self.faults.is_some()).finish()
    }
}

impl Disk {
    /// A disk that fails as `plan` says.
    pub fn with_faults(plan: FaultPlan) -> Self {
        Self { faults: Some(plan) }
    }

    fn fault(&self, name: &'static str) -> Option<Fault> {
        self.faults.as_ref().and_then(|plan| plan(name))
    }

    fn gate(&self, name: &'static str) -> io::Result<()> {
        match self.fault(name) {
            Some(Fault::Errno(errno) | Fault::Short(_, errno)) => {
                Err(io::Error::from_raw_os_error(errno))
            }
            None => Ok(()),
        }
    }

    /// Makes a folder and its parents, readable by its owner only.
    pub(crate) fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.gate("dir.create")?;
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    /// An empty file to append to, in place of any that was there.
    pub(crate) fn create_segment(&self, path: &Path) -> io::Result<File> {
        self.gate("segment.create")?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).open(path)
    }

    pub(crate) fn append(&self, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        match self.fault("segment.write") {
            Some(Fault::Short(n, errno)) => {
                file.write_all(&bytes[..n.min(bytes.len())])?;
                Err(io::Error::from_raw_os_error(errno))
            }
            Some(Fault::Errno(errno)) => Err(io::Error::from_raw_os_error(errno)),
            None => file.write_all(bytes),
        }
    }

    pub(crate) fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        self.gate("segment.truncate")?;
        file.set_len(len)
    }

    pub(crate) fn sync(&self, file: &File) -> io::Result<()> {
        self.gate("segment.sync")?;
        file.sync_data()
    }

    /// Renames within one folder, durably.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.gate("segment.rename")?;
        fs::rename(from, to)?;
        sync_parent(to)
    }

    /// Removes a file; one that is gone already is as good.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        self.gate("segment.remove")?;
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    pub(crate) fn write_mark(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.gate("mark.write")?;
        file.write_all_at(bytes, offset)
    }

    /// Writes a small file so that after a crash either all of it or nothing of it is there.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.gate("file.replace")?;
        let staged = path.with_extension("tmp");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&staged, path)?;
        sync_parent(path)
    }
}

/// Makes the names in the folder of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
