//! What is to be read. Opens the store behind a URL and lists the objects that hold rows, checked
//! before they are believed. Knows nothing of SQL: its output goes to [`crate::tables`].

mod footer;
mod history;
mod in_order;
mod inbox;
mod progress;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory as _;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::execution::cache::default_cache::DefaultCache;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use flowtap_record::Micros;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectMeta, ObjectStore, RetryConfig};
use parquet::arrow::async_reader::AsyncFileReader;
use url::Url;

pub(crate) use footer::check as check_footer;
pub use history::{History, HistoryFile};
pub(crate) use history::{INGEST, day_text};
pub use inbox::{Inbox, InboxObject, Refused};
pub use progress::{BootProgress, Lost, Progress, Quarantined, Taken};

/// Footers kept in memory, so that a query reads each only once.
const FOOTER_CACHE_BYTES: usize = 64 << 20;

/// Why a store cannot be opened or listed. Each says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Not a kind of store that Flowtap speaks.
    #[error(
        "--store {url}: unknown scheme {scheme:?}; give a folder, file:///path or s3://bucket/prefix"
    )]
    Scheme {
        /// As given.
        url: String,
        /// What stands before `://`.
        scheme: String,
    },
    /// Not a URL at all.
    #[error("--store {url}: {why}; give a folder, file:///path or s3://bucket/prefix")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        why: String,
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
    #[error("store {url} cannot be read: {source}")]
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
        matches!(self, Self::Scheme { .. } | Self::Url { .. } | Self::NoFolder { .. })
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
        let objects: Arc<dyn ObjectStore> = match url.split_once("://") {
            None if url.starts_with("file:") => folder(url, &folder_of(url)?)?,
            None => folder(url, &PathBuf::from(url))?,
            Some(("file", _)) => folder(url, &folder_of(url)?)?,
            Some(("s3", _)) => bucket(url)?,
            Some((scheme, _)) => {
                return Err(StoreError::Scheme { url: url.to_owned(), scheme: scheme.to_owned() });
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

fn folder_of(url: &str) -> Result<PathBuf, StoreError> {
    let wrong = |why: &str| StoreError::Url { url: url.to_owned(), why: why.to_owned() };
    let parsed = Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
    parsed
        .to_file_path()
        .map_err(|()| wrong("a file URL names no host: three slashes, then the path"))
}

fn folder(url: &str, path: &std::path::Path) -> Result<Arc<dyn ObjectStore>, StoreError> {
    if url.is_empty() || !path.is_dir() {
        return Err(StoreError::NoFolder { url: url.to_owned(), folder: path.to_owned() });
    }
    let files = LocalFileSystem::new_with_prefix(path)
        .map_err(|source| StoreError::Unreadable { url: url.to_owned(), source })?;
    Ok(Arc::new(files))
}

/// Credentials, region and endpoint come from the usual `AWS_*` variables.
fn bucket(url: &str) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let wrong = |why: String| StoreError::Url { url: url.to_owned(), why };
    let parsed = Url::parse(url).map_err(|error| wrong(error.to_string()))?;
    let name = parsed.host_str().filter(|host| !host.is_empty());
    let name = name.ok_or_else(|| wrong("no bucket is named".to_owned()))?;
    if parsed.password().is_some() || !parsed.username().is_empty() {
        return Err(wrong("credentials come from AWS_* variables, not from the URL".to_owned()));
    }
    let prefix = Path::from_url_path(parsed.path()).map_err(|error| wrong(error.to_string()))?;
    // A query has a time limit: the default of three minutes of retries would hide the reason.
    let retry = RetryConfig {
        max_retries: 4,
        retry_timeout: Duration::from_secs(15),
        ..RetryConfig::default()
    };
    let s3 = AmazonS3Builder::from_env()
        .with_bucket_name(name)
        .with_retry(retry)
        .build()
        .map_err(|source| StoreError::Unreadable { url: url.to_owned(), source })?;
    Ok(Arc::new(PrefixStore::new(s3, prefix)))
}
