//! What was read lately stays in memory, within a bound: inbox objects whole, of files of the table
//! the row groups that were asked for, their ids and footers; pages of directories.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt as _};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::MetadataFetch;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader};

use super::chunks::Chunks;
use super::ids::{self, Ids};
use super::read::{Opened, ReadError, Wanted, mask};
use crate::store::Store;
use crate::store::directory::{Directory, Page};

/// Bytes read at once from a file's end: most footers are within.
const FOOTER_GUESS: usize = 256 << 10;

#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Object(Path),
    Footer(Path),
    Group(Path, usize, Wanted),
    Ids(Path, usize),
    Page(Path, u64),
}

#[derive(Clone)]
enum Entry {
    Opened(Arc<Opened>),
    Footer(ArrowReaderMetadata),
    Ids(Arc<Ids>),
    Page(Arc<Page>),
}

/// What was read lately.
pub(super) struct Cache {
    inner: Mutex<Inner>,
    max_bytes: usize,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<Key, (Entry, usize)>,
    /// Oldest first.
    order: VecDeque<Key>,
    bytes: usize,
}

impl Cache {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { inner: Mutex::default(), max_bytes }
    }

    /// An inbox object.
    pub(super) async fn object(
        &self,
        store: &Store,
        meta: &ObjectMeta,
    ) -> Result<Arc<Opened>, ReadError> {
        let key = Key::Object(meta.location.clone());
        if let Some(Entry::Opened(known)) = self.get(&key) {
            return Ok(known);
        }
        let bytes = store.fetch(meta).await.map_err(|error| ReadError::of(&error))?;
        let opened = Arc::new(Opened::of(bytes).map_err(ReadError::Broken)?);
        self.put(key, Entry::Opened(opened.clone()), opened.held());
        Ok(opened)
    }

    /// The footer of a file.
    pub(super) async fn footer(
        &self,
        store: &Store,
        meta: &ObjectMeta,
    ) -> Result<ArrowReaderMetadata, ReadError> {
        let key = Key::Footer(meta.location.clone());
        if let Some(Entry::Footer(known)) = self.get(&key) {
            return Ok(known);
        }
        let footer = footer(store, meta).await?;
        let bytes = footer.metadata().memory_size();
        self.put(key, Entry::Footer(footer.clone()), bytes);
        Ok(footer)
    }

    /// A row group of a file.
    pub(super) async fn group(
        &self,
        store: &Store,
        meta: &ObjectMeta,
        group: usize,
        wanted: Wanted,
    ) -> Result<Arc<Opened>, ReadError> {
        let key = Key::Group(meta.location.clone(), group, wanted);
        if let Some(Entry::Opened(known)) = self.get(&key) {
            return Ok(known);
        }
        let footer = self.footer(store, meta).await?;
        let opened = Arc::new(fetch_group(store, meta, &footer, group, wanted.columns()).await?);
        self.put(key, Entry::Opened(opened.clone()), opened.held());
        Ok(opened)
    }

    /// What the rows of a row group can be found by: read from `opened`, where that is at hand.
    pub(super) async fn ids(
        &self,
        store: &Store,
        meta: &ObjectMeta,
        group: usize,
        opened: Option<Arc<Opened>>,
    ) -> Result<Arc<Ids>, ReadError> {
        let key = Key::Ids(meta.location.clone(), group);
        if let Some(Entry::Ids(known)) = self.get(&key) {
            return Ok(known);
        }
        let opened = if let Some(opened) = opened {
            opened
        } else {
            let footer = self.footer(store, meta).await?;
            Arc::new(fetch_group(store, meta, &footer, group, Some(&ids::COLUMNS)).await?)
        };
        let ids = tokio::task::spawn_blocking(move || opened.ids()).await;
        let ids = ids.map_err(|error| ReadError::Broken(error.to_string()))?;
        let ids = Arc::new(ids.map_err(ReadError::Broken)?);
        self.put(key, Entry::Ids(ids.clone()), ids.held());
        Ok(ids)
    }

    /// A page of a directory.
    pub(super) async fn page(
        &self,
        store: &Store,
        directory: &Directory,
        number: u64,
    ) -> Result<Arc<Page>, ReadError> {
        let path = &directory.meta.location;
        let key = Key::Page(path.clone(), number);
        if let Some(Entry::Page(known)) = self.get(&key) {
            return Ok(known);
        }
        let bytes = store.objects().get_range(path, Directory::place(number)).await;
        let bytes = bytes.map_err(|error| ReadError::of(&error))?;
        let page = directory.page(&bytes, number);
        let broken = || ReadError::Broken(format!("page {number} is not as it was written"));
        let page = Arc::new(page.ok_or_else(broken)?);
        self.put(key, Entry::Page(page.clone()), page.entries.len() * size_of::<u64>());
        Ok(page)
    }

    fn get(&self, key: &Key) -> Option<Entry> {
        self.lock().entries.get(key).map(|(entry, _)| entry.clone())
    }

    fn put(&self, key: Key, entry: Entry, bytes: usize) {
        let mut inner = self.lock();
        inner.bytes += bytes;
        match inner.entries.insert(key.clone(), (entry, bytes)) {
            Some((_, before)) => inner.bytes -= before,
            None => inner.order.push_back(key),
        }
        while inner.bytes > self.max_bytes
            && let Some(oldest) = inner.order.pop_front()
        {
            if let Some((_, gone)) = inner.entries.remove(&oldest) {
                inner.bytes -= gone;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the footer of a file, with where its pages lie.
pub(super) async fn footer(
    store: &Store,
    meta: &ObjectMeta,
) -> Result<ArrowReaderMetadata, ReadError> {
    let trouble = Mutex::new(None);
    let fetch = Fetch { store, path: &meta.location, trouble: &trouble };
    let read = ParquetMetaDataReader::new()
        .with_column_index_policy(PageIndexPolicy::Skip)
        .with_offset_index_policy(PageIndexPolicy::Optional)
        .with_prefetch_hint(Some(FOOTER_GUESS))
        .load_and_finish(fetch, meta.size)
        .await;
    let broken =
        |error: ParquetError| ReadError::Broken(format!("not readable as Parquet: {error}"));
    let trouble = trouble.into_inner().unwrap_or_else(PoisonError::into_inner);
    let footer = read.map_err(|error| trouble.unwrap_or_else(|| broken(error)))?;
    // Types are those of Parquet, whoever wrote the file last: others may compact the table, too.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    ArrowReaderMetadata::try_new(Arc::new(footer), options).map_err(broken)
}

/// Gives parts of a file to whoever reads its footer, and remembers what the store said.
struct Fetch<'a> {
    store: &'a Store,
    path: &'a Path,
    trouble: &'a Mutex<Option<ReadError>>,
}

impl MetadataFetch for Fetch<'_> {
    fn fetch(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move {
            let got = self.store.objects().get_range(self.path, range).await;
            got.map_err(|error| {
                let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
                *trouble = Some(ReadError::of(&error));
                ParquetError::External(Box::new(error))
            })
        }
        .boxed()
    }
}

/// Reads some columns of a row group: they lie side by side, so that this is one request, or a few.
pub(super) async fn fetch_group(
    store: &Store,
    meta: &ObjectMeta,
    footer: &ArrowReaderMetadata,
    group: usize,
    columns: Option<&[&str]>,
) -> Result<Opened, ReadError> {
    let mask = columns.map_or_else(ProjectionMask::all, |columns| mask(footer, columns));
    let columns = footer.metadata().row_group(group).columns().iter().enumerate();
    let wanted = columns.filter(|(leaf, _)| mask.leaf_included(*leaf));
    let ranges: Vec<Range<u64>> = wanted
        .map(|(_, column)| {
            let (start, length) = column.byte_range();
            start..start.saturating_add(length).min(meta.size)
        })
        .filter(|range| range.start < range.end)
        .collect();
    let got = store.objects().get_ranges(&meta.location, &ranges).await;
    let got = got.map_err(|error| ReadError::of(&error))?;
    let pieces = ranges.into_iter().map(|range| range.start).zip(got).collect();
    Ok(Opened::group(Chunks::some(meta.size, pieces), footer.clone(), group))
}
