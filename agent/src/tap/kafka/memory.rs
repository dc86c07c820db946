//! What a Kafka tap keeps across restarts of the agent: the local port and the last address of each
//! broker, and the names of topics by their ids. One file in the spool's folder, replaced whole.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::brokers::{Broker, Brokers, Kept};
use super::wire::TopicId;
use crate::config::{HostPort, ListenAddr};

/// How long a start waits for the disk.
const PATIENCE: Duration = Duration::from_secs(2);

/// The file as it stands on disk.
#[derive(Debug, Default, Serialize, Deserialize)]
struct OnDisk {
    brokers: BTreeMap<i32, OneBroker>,
    #[serde(default)]
    topics: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct OneBroker {
    port: u16,
    address: String,
}

/// Where a tap's file is.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    path: PathBuf,
}

impl Memory {
    /// The file of the tap that listens there.
    pub(crate) fn new(folder: &Path, listen: &ListenAddr) -> Self {
        let safe =
            |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
        let name: String = listen.to_string().chars().map(safe).collect();
        Self { path: folder.join(format!("kafka-{name}.json")) }
    }

    /// What was kept. A file that can't be read, or a disk that does not answer, is no reason not
    /// to start: ports are given anew.
    pub(crate) fn load(&self) -> Kept {
        self.load_within(PATIENCE)
    }

    fn load_within(&self, patience: Duration) -> Kept {
        let (done, read) = mpsc::channel();
        let path = self.path.clone();
        // Nobody listens any more when it took too long.
        std::thread::spawn(move || done.send(fs::read_to_string(path)));
        let hangs = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "the disk does not answer"));
        let text = match read.recv_timeout(patience).unwrap_or_else(hangs) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Kept::default(),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "ports are given anew");
                return Kept::default();
            }
        };
        match serde_json::from_str::<OnDisk>(&text) {
            Ok(file) => file.into(),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "ports are given anew");
                Kept::default()
            }
        }
    }

    /// Replaces the file; it survives a loss of power.
    fn save(&self, kept: &Kept) -> io::Result<()> {
        self.replace(kept, "json.new", File::sync_all)?;
        File::open(self.folder())?.sync_all()
    }

    /// Replaces the file without waiting for the disk: it survives kill -9. Before a client is told
    /// of a port, so that it can rely on it.
    pub(crate) fn save_now(&self, kept: &Kept) -> io::Result<()> {
        // Under another name than `save` uses, which may be under way.
        self.replace(kept, "json.now", |_| Ok(()))
    }

    fn replace(
        &self,
        kept: &Kept,
        extension: &str,
        sync: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<()> {
        let text = serde_json::to_vec(&OnDisk::from(kept))?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(self.folder())?;
        let new = self.path.with_extension(extension);
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&text)?;
        sync(&file)?;
        fs::rename(&new, &self.path)
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// Writes what is known as often as it changes, until `stop`; no connection waits for it.
    pub(crate) async fn keep(self, brokers: Arc<Brokers>, stop: impl Future<Output = ()>) {
        let changed = brokers.changed();
        tokio::pin!(stop);
        let mut trouble = false;
        loop {
            let last = tokio::select! {
                () = changed.notified() => false,
                () = &mut stop => true,
            };
            let (memory, kept) = (self.clone(), brokers.to_keep());
            let saved = tokio::task::spawn_blocking(move || memory.save(&kept)).await;
            match saved.map_err(io::Error::other).and_then(|saved| saved) {
                Ok(()) => trouble = false,
                Err(error) if !trouble => {
                    trouble = true;
                    tracing::warn!(
                        path = %self.path.display(), %error,
                        "brokers' ports can't be kept for the next start"
                    );
                }
                Err(_) => {}
            }
            if last {
                return;
            }
        }
    }
}

impl From<OnDisk> for Kept {
    fn from(file: OnDisk) -> Self {
        let broker = |(id, one): (i32, OneBroker)| {
            Some((id, Broker { port: one.port, address: HostPort::parse_any(&one.address)? }))
        };
        let topic = |(id, name): (String, String)| {
            Some((TopicId(URL_SAFE_NO_PAD.decode(id).ok()?.try_into().ok()?), name))
        };
        Self {
            brokers: file.brokers.into_iter().filter_map(broker).collect(),
            topics: file.topics.into_iter().filter_map(topic).collect(),
        }
    }
}

impl From<&Kept> for OnDisk {
    fn from(kept: &Kept) -> Self {
        let broker = |(id, known): (&i32, &Broker)| {
            (*id, OneBroker { port: known.port, address: known.address.to_string() })
        };
        Self {
            brokers: kept.brokers.iter().map(broker).collect(),
            topics: kept.topics.iter().map(|(id, name)| (id.to_string(), name.clone())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn kept() -> Kept {
        let mut kept = Kept::default();
        let v6 = HostPort { host: "fe80::1".to_owned(), port: 9092 };
        kept.brokers.insert(1, Broker { port: 19_101, address: v6 });
        kept.topics.insert(TopicId([7; 16]), "orders \"new\"".to_owned());
        kept
    }

    #[test]
    fn what_is_saved_is_loaded_again_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let listen = ListenAddr::parse("127.0.0.1:19092").unwrap();
        let memory = Memory::new(&folder.path().join("spool"), &listen);
        assert_eq!(memory.load(), Kept::default());
        memory.save(&kept()).unwrap();
        memory.save(&kept()).unwrap();
        assert_eq!(memory.load(), kept());
        assert!(memory.path.ends_with("kafka-127.0.0.1_19092.json"), "{memory:?}");
        assert_eq!(fs::metadata(&memory.path).unwrap().permissions().mode() & 0o777, 0o600);
        let left = fs::read_dir(memory.path.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1, "nothing but the file");
    }

    #[test]
    fn a_file_of_garbage_is_no_reason_not_to_start() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::new(folder.path(), &ListenAddr::parse("[::1]:1").unwrap());
        for garbage in ["", "{", "[]", r#"{"brokers":{"x":1}}"#] {
            fs::write(&memory.path, garbage).unwrap();
            assert_eq!(memory.load(), Kept::default(), "{garbage}");
        }
    }

    #[test]
    fn a_disk_that_hangs_is_no_reason_not_to_start() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::new(folder.path(), &ListenAddr::parse("[::1]:1").unwrap());
        // Who reads a pipe waits until somebody writes.
        let made = std::process::Command::new("mkfifo").arg(&memory.path).status().unwrap();
        assert!(made.success());
        assert_eq!(memory.load_within(Duration::from_millis(50)), Kept::default());
        OpenOptions::new().write(true).open(&memory.path).unwrap();
    }
}
