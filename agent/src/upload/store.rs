//! The object store by its URL: a local folder or a bucket (`flowtap_place`). Input: names and bytes of
//! whole objects. When a put returns, the object is durable: in a folder that means written under
//! another name, synced, renamed, and the folders synced (`object_store`'s own local put syncs
//! nothing, so folders are done here).

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use flowtap_place::{ConnectError, Place as UrlPlace, UrlError, WANT, told};
use flowtap_record::Micros;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt as _, RetryConfig};

/// Why a store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Not a URL that Flowtap knows.
    #[error("store: {0}: want {WANT}")]
    Url(#[from] UrlError),
    /// Not enough is known to reach it, or something wrong.
    #[error("store: {}", told(.0))]
    Settings(#[from] ConnectError),
    /// The folder can't be used.
    #[error("store {path}: {source}")]
    Folder {
        /// The object or folder.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The object store refused, or could not be reached.
    #[error("store: {0}")]
    Object(String),
    /// The object store says that an agent may not do this.
    #[error("store: {0}")]
    Forbidden(String),
}

impl StoreError {
    fn object(error: &object_store::Error) -> Self {
        use object_store::Error::{PermissionDenied, Unauthenticated};
        let told = told(error);
        match error {
            PermissionDenied { .. } | Unauthenticated { .. } => Self::Forbidden(told),
            _ => Self::Object(told),
        }
    }
}

/// Where inbox and status objects go.
#[derive(Clone, Debug)]
pub struct Store {
    place: Place,
    shown: String,
}

#[derive(Clone, Debug)]
enum Place {
    Folder(PathBuf),
    Objects { store: Arc<dyn ObjectStore>, prefix: ObjectPath },
}

impl Store {
    /// A store by its URL; an object store takes the rest from its usual variables. Nothing is reached
    /// for yet.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        let place = match UrlPlace::parse(url)? {
            UrlPlace::Folder(folder) => Place::Folder(folder),
            UrlPlace::Bucket(bucket) => {
                // Failures are counted, logged and backed off by the uploader: few tries here.
                let retry = RetryConfig {
                    max_retries: 1,
                    retry_timeout: Duration::from_secs(20),
                    ..RetryConfig::default()
                };
                Place::Objects { store: bucket.connect(retry)?, prefix: bucket.prefix }
            }
        };
        Ok(Self { place, shown: url.to_owned() })
    }

    /// A store on any implementation of `object_store`.
    pub fn with_object_store(store: Arc<dyn ObjectStore>) -> Self {
        let shown = store.to_string();
        Self { place: Place::Objects { store, prefix: ObjectPath::default() }, shown }
    }

    /// Whether it is a local folder: then objects may be put more often.
    pub fn is_folder(&self) -> bool {
        matches!(self.place, Place::Folder(_))
    }

    /// Its URL; it never holds a secret.
    pub fn url(&self) -> &str {
        &self.shown
    }

    /// Puts a whole object in place of any of that name; durable when it returns.
    pub async fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        match &self.place {
            Place::Folder(folder) => {
                on_folder(folder, name, move |path| put_durably(path, &bytes)).await
            }
            Place::Objects { store, prefix } => {
                let put = store.put(&below(prefix, name), bytes.into()).await;
                put.map(drop).map_err(|error| StoreError::object(&error))
            }
        }
    }

    /// An object's bytes, `None` if there is none.
    pub async fn get(&self, name: &str) -> Result<Option<Bytes>, StoreError> {
        match &self.place {
            Place::Folder(folder) => {
                let read = on_folder(folder, name, |path| match fs::read(path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    other => other.map(Some),
                });
                Ok(read.await?.map(Bytes::from))
            }
            Place::Objects { store, prefix } => match store.get(&below(prefix, name)).await {
                Ok(found) => {
                    found.bytes().await.map(Some).map_err(|error| StoreError::object(&error))
                }
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(StoreError::object(&error)),
            },
        }
    }

    /// When the store says that an object was last written.
    pub async fn last_modified(&self, name: &str) -> Result<Micros, StoreError> {
        match &self.place {
            Place::Folder(folder) => {
                on_folder(folder, name, |path| {
                    let modified = fs::metadata(path)?.modified()?;
                    let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
                    Ok(Micros(since.as_micros() as i64))
                })
                .await
            }
            Place::Objects { store, prefix } => {
                let head = store.head(&below(prefix, name)).await;
                head.map(|meta| Micros(meta.last_modified.timestamp_micros()))
                    .map_err(|error| StoreError::object(&error))
            }
        }
    }

    /// Removes an object; in a folder also the folders that it leaves empty.
    pub async fn delete(&self, name: &str) -> Result<(), StoreError> {
        match &self.place {
            Place::Folder(folder) => {
                let levels = name.matches('/').count();
                let remove = move |path: &Path| {
                    fs::remove_file(path)?;
                    // The first that still holds something ends it.
                    let _ = path.ancestors().skip(1).take(levels).try_for_each(fs::remove_dir);
                    Ok(())
                };
                on_folder(folder, name, remove).await
            }
            Place::Objects { store, prefix } => {
                let deleted = store.delete(&below(prefix, name)).await;
                deleted.map_err(|error| StoreError::object(&error))
            }
        }
    }
}

fn below(prefix: &ObjectPath, name: &str) -> ObjectPath {
    ObjectPath::from(format!("{prefix}/{name}"))
}

async fn on_folder<T: Send + 'static>(
    folder: &Path,
    name: &str,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T, StoreError> {
    let path = folder.join(name);
    let shown = path.display().to_string();
    let done = tokio::task::spawn_blocking(move || work(&path)).await;
    done.unwrap_or_else(|panic| Err(io::Error::other(panic)))
        .map_err(|source| StoreError::Folder { path: shown, source })
}

fn put_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let is_new = |folder: &&Path| !folder.exists();
    let new_folders: Vec<PathBuf> =
        parent.ancestors().take_while(is_new).map(Path::to_owned).collect();
    fs::create_dir_all(parent)?;
    // Listings skip names that end like this, so nobody takes a half-written file for an object.
    // A crash leaves it, and the next put of the same name takes its place.
    let mut staged = path.as_os_str().to_owned();
    staged.push("#1");
    let mut file = File::create(&staged)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&staged, path)?;
    File::open(parent)?.sync_all()?;
    for folder in new_folders {
        if let Some(parent) = folder.parent().filter(|parent| parent.exists()) {
            File::open(parent)?.sync_all()?;
        }
    }
    Ok(())
}

/// What [`check_store`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreCheck {
    /// Its URL.
    pub store: String,
    /// How long the put of a small object took.
    pub put: Duration,
    /// The store's clock less the agent's, roughly.
    pub clock_difference_us: i64,
    /// What an agent can do without, and was refused: reading back or deleting.
    pub notes: Vec<String>,
}

/// Puts, reads back and deletes a small object below `agents/<agent>/`, where an agent must be able
/// to put. Only a refused put is an error: agents need no more than that.
pub async fn check_store(
    store: &Store,
    agent: &str,
    now: Micros,
) -> Result<StoreCheck, StoreError> {
    // No status object: those end in `.json`.
    let name = format!("agents/{agent}/check-{}", uuid::Uuid::now_v7());
    let content = Bytes::from_static(b"written by flowtap-agent check; may be deleted");
    let begun = Instant::now();
    store.put(&name, content.clone()).await?;
    let put = begun.elapsed();
    let mut notes = Vec::new();
    match store.get(&name).await {
        Ok(Some(read)) if read == content => {}
        Ok(_) => notes.push("what was put does not come back".to_owned()),
        Err(error) => notes.push(format!("can't read back what was put: {error}")),
    }
    let mut clock_difference_us = 0;
    match store.last_modified(&name).await {
        Ok(at) => clock_difference_us = at.0 - now.0,
        Err(error) => notes.push(format!("can't read an object's time: {error}")),
    }
    if let Err(error) = store.delete(&name).await {
        notes.push(format!("can't delete {name}: {error}"));
    }
    Ok(StoreCheck { store: store.url().to_owned(), put, clock_difference_us, notes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_or_refused_without_showing_a_secret() {
        assert!(Store::open("file:///tmp/x").unwrap().is_folder());
        assert!(Store::open("/tmp/x").unwrap().is_folder());
        let s3 = Store::open("s3://bucket/some/prefix").unwrap();
        let Place::Objects { prefix, .. } = &s3.place else { panic!("not a folder") };
        assert_eq!(below(prefix, "agents/a/b.json").as_ref(), "some/prefix/agents/a/b.json");
        let root = Store::open("s3://bucket").unwrap();
        let Place::Objects { prefix, .. } = &root.place else { panic!("not a folder") };
        assert_eq!(below(prefix, "agents/a/b.json").as_ref(), "agents/a/b.json");
        for url in ["http://x/y", "s3://", "s3://me:hunter2@bucket/x", "ht!tp://me:hunter2@x"] {
            let error = Store::open(url).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_folder_is_made_and_a_check_leaves_nothing_in_it() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("file://{}/not/there", temp.path().display())).unwrap();
        let check = check_store(&store, "shop-1", Micros(0)).await.unwrap();
        assert!(check.notes.is_empty(), "{:?}", check.notes);
        assert_eq!(fs::read_dir(temp.path().join("not/there")).unwrap().count(), 0);
        store.put("a/b", Bytes::from_static(b"1")).await.unwrap();
        store.put("a/b", Bytes::from_static(b"2")).await.unwrap();
        assert_eq!(store.get("a/b").await.unwrap().unwrap(), "2");
        assert_eq!(store.get("a/c").await.unwrap(), None);
        assert_eq!(fs::read_dir(temp.path().join("not/there/a")).unwrap().count(), 1);
    }
}
