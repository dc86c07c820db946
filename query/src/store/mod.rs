//! What is to be read. Opens the store behind a URL and lists the objects that hold rows, checked
//! before they are believed. Knows nothing of SQL: its output goes to [`crate::tables`].

pub(crate) mod directory;
mod footer;
mod history;
mod in_order;
mod inbox;
mod object;
mod progress;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory as _;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::execution::cache::default_cache::DefaultCache;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use flowtap_place::{Bucket, ConnectError, Place, UrlError, WANT, told, without_userinfo};
use flowtap_record::Micros;
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{ObjectMeta, ObjectStore, RetryConfig};
use parquet::arrow::async_reader::AsyncFileReader;

pub(crate) use footer::check as check_footer;
pub use history::{History, HistoryFile};
pub(crate) use history::{INGEST, day_text};
pub use inbox::{Inbox, InboxObject, Refused};
pub(crate) use object::{Trouble, decode};
pub use progress::{BootProgress, Hole, Lost, Progress, Quarantined, Taken};

/// Footers kept in memory, so that a query reads each only once.
const FOOTER_CACHE_BYTES: usize = 64 << 20;

/// Why a store cannot be opened or listed. Each says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Not a URL of a store that Flowtap speaks.
    #[error("--store {}: {why}; give {WANT}", without_userinfo(url))]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        why: UrlError,
    },
    /// Not enough is known to reach it, or something wrong.
    #[error("--store {url}: {}", told(why))]
    Settings {
        /// As given.
        url: String,
        /// What is missing or wrong.
        why: ConnectError,
    },
    /// The folder does not exist.
    #[error("--store {url}: there is no folder {}; nothing was recorded there", folder.display())]
    NoFolder {
        /// As given.
        url: String,
        /// The folder meant.
        folder: PathBuf,
    },
    /// The Delta table cannot be read.
    #[error("store {url}: the table {table} cannot be read: {why}")]
    Table {
        /// As given.
        url: String,
        /// Its name.
        table: String,
        /// What is wrong with it.
        why: String,
    },
    /// An object that the ingester writes is not as it writes it.
    #[error("store {url}: {object} is broken: {why}")]
    Broken {
        /// As given.
        url: String,
        /// Its path.
        object: String,
        /// What is wrong with it.
        why: String,
    },
    /// The store answered with an error, or not at all.
    #[error("store {url} cannot be read: {}", told(source))]
    Unreadable {
        /// As given.
        url: String,
        /// The store's word.
        source: object_store::Error,
    },
}

impl StoreError {
    /// Whether the command line was wrong, rather than the store.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Url { .. } | Self::Settings { .. } | Self::NoFolder { .. })
    }
}

/// A store: a folder or a bucket with a prefix. Paths within it are those of the contract, such
/// as `inbox/history/...`, wherever it lies.
#[derive(Clone)]
pub struct Store {
    url: String,
    objects: Arc<dyn ObjectStore>,
    footers: Arc<FileMetadataCache>,
    history: Arc<tokio::sync::Mutex<history::Reader>>,
}

impl Store {
    /// Opens `url`: a path, `file:///path` or `s3://bucket/prefix`. A folder must exist; whether
    /// a bucket does is seen when it is listed.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        let place =
            Place::parse(url).map_err(|why| StoreError::Url { url: url.to_owned(), why })?;
        let objects = match place {
            Place::Folder(path) => folder(url, &path)?,
            Place::Bucket(bucket) => {
                objects(&bucket).map_err(|why| StoreError::Settings { url: url.to_owned(), why })?
            }
        };
        Ok(Self::over(url, objects))
    }

    /// A store over objects that are already at hand; `url` is what messages call it.
    pub fn over(url: &str, objects: Arc<dyn ObjectStore>) -> Self {
        let footers = Arc::new(DefaultCache::new(FOOTER_CACHE_BYTES).with_name("footers"));
        Self { url: url.to_owned(), objects, footers, history: Arc::default() }
    }

    /// The URL as it was given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The objects, by the paths of the contract.
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// Footers that were read already. An entry counts only for the same size and time of change.
    pub(crate) fn footers(&self) -> &Arc<FileMetadataCache> {
        &self.footers
    }

    /// Reads a Parquet file by ranges. Its footer is kept among [`Self::footers`].
    pub(crate) fn parquet(
        &self,
        meta: &ObjectMeta,
    ) -> datafusion::common::Result<Box<dyn AsyncFileReader>> {
        let footers = Arc::clone(&self.footers);
        let factory = CachedParquetFileReaderFactory::new(Arc::clone(&self.objects), footers);
        let file = PartitionedFile::new_from_meta(meta.clone());
        // Every such reader is `Send`.
        factory.create_reader(0, file, None, &ExecutionPlanMetricsSet::new()).map(|it| it as _)
    }

    fn reader(&self) -> &tokio::sync::Mutex<history::Reader> {
        &self.history
    }

    pub(crate) fn broken(&self, object: &object_store::path::Path, why: String) -> StoreError {
        StoreError::Broken { url: self.url.clone(), object: object.to_string(), why }
    }

    /// The same trouble as a moment ago.
    pub(crate) fn away(&self, why: String) -> StoreError {
        self.unreadable(object_store::Error::Generic { store: "store", source: why.into() })
    }

    pub(crate) fn unreadable(&self, source: object_store::Error) -> StoreError {
        StoreError::Unreadable { url: self.url.clone(), source }
    }
}

/// The time of day.
pub fn now() -> Micros {
    Micros(jiff::Timestamp::now().as_microsecond())
}

fn folder(url: &str, path: &Path) -> Result<Arc<dyn ObjectStore>, StoreError> {
    if url.is_empty() || !path.is_dir() {
        return Err(StoreError::NoFolder { url: url.to_owned(), folder: path.to_owned() });
    }
    let files = LocalFileSystem::new_with_prefix(path)
        .map_err(|source| StoreError::Unreadable { url: url.to_owned(), source })?;
    Ok(Arc::new(files))
}

fn objects(bucket: &Bucket) -> Result<Arc<dyn ObjectStore>, ConnectError> {
    // A query has a time limit: the default of three minutes of retries would hide the reason.
    let retry = RetryConfig {
        max_retries: 4,
        retry_timeout: Duration::from_secs(15),
        ..RetryConfig::default()
    };
    Ok(Arc::new(PrefixStore::new(bucket.connect(retry)?, bucket.prefix.clone())))
}
