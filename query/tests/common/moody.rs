//! A store that misbehaves: it refuses to give, or its user dies at a chosen write.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use flowtap_query::ingest::{Ingester, Options};
use flowtap_query::store::Store;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

use super::Inbox;

/// When the one who writes to a store dies, counted in writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dies {
    Never,
    /// Before so many writes.
    Before(usize),
    /// After so many, without having heard how the last one went.
    After(usize),
    /// Not at all, but it does not hear how this one went.
    Deaf(usize),
}

/// A folder that refuses to give some objects, or to be listed; whose user dies at some write; or
/// that takes no notice of conditions.
#[derive(Debug)]
pub(crate) struct Moody {
    pub(crate) files: LocalFileSystem,
    /// Objects whose path has this in it are not given.
    kept_back: Mutex<Option<&'static str>>,
    pub(crate) away: AtomicBool,
    dies: Dies,
    writes: AtomicUsize,
    ignores_conditions: bool,
}

impl Moody {
    fn new(inbox: &Inbox, dies: Dies, ignores_conditions: bool) -> Arc<Self> {
        Arc::new(Self {
            files: LocalFileSystem::new_with_prefix(inbox.folder.path()).unwrap(),
            kept_back: Mutex::default(),
            away: AtomicBool::new(false),
            dies,
            writes: AtomicUsize::new(0),
            ignores_conditions,
        })
    }

    pub(crate) fn over(inbox: &Inbox) -> Arc<Self> {
        Self::new(inbox, Dies::Never, false)
    }

    /// One whose user dies.
    pub(crate) fn mortal(inbox: &Inbox, dies: Dies) -> Arc<Self> {
        Self::new(inbox, dies, false)
    }

    /// One that takes no notice of conditions.
    pub(crate) fn careless(inbox: &Inbox) -> Arc<Self> {
        Self::new(inbox, Dies::Never, true)
    }

    pub(crate) fn keep_back(&self, what: Option<&'static str>) {
        *self.kept_back.lock().unwrap() = what;
    }

    fn give(&self, location: &Path) -> object_store::Result<()> {
        let kept = self.kept_back.lock().unwrap().is_some_and(|it| location.as_ref().contains(it));
        if kept { Err(Self::trouble()) } else { Ok(()) }
    }

    fn trouble() -> object_store::Error {
        object_store::Error::Generic { store: "moody", source: "503 SlowDown".into() }
    }

    pub(crate) fn ingester(self: &Arc<Self>, options: Options) -> Ingester {
        Ingester::new(Store::over("moody://", self.clone()), options)
    }

    /// How many writes were tried.
    pub(crate) fn writes(&self) -> usize {
        self.writes.load(SeqCst)
    }

    fn dead() -> object_store::Error {
        object_store::Error::Generic { store: "moody", source: "it is dead".into() }
    }

    /// Fails before a write that does not come; says whether its answer is lost.
    fn write(&self) -> object_store::Result<bool> {
        let number = self.writes.fetch_add(1, SeqCst) + 1;
        match self.dies {
            Dies::Before(at) if number >= at => Err(Self::dead()),
            Dies::After(at) if number > at => Err(Self::dead()),
            Dies::After(at) | Dies::Deaf(at) => Ok(number == at),
            _ => Ok(false),
        }
    }
}

impl fmt::Display for Moody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("moody")
    }
}

#[async_trait]
impl ObjectStore for Moody {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let lost = self.write()?;
        if self.ignores_conditions {
            options.mode = PutMode::Overwrite;
        }
        let put = self.files.put_opts(location, payload, options).await;
        if lost { Err(Self::dead()) } else { put }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.write()?;
        self.files.put_multipart_opts(location, options).await
    }

    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        self.give(location)?;
        self.files.get_opts(location, options).await
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[Range<u64>],
    ) -> object_store::Result<Vec<Bytes>> {
        self.give(location)?;
        self.files.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        match self.write() {
            Ok(false) => self.files.delete_stream(locations),
            Ok(true) => {
                let deleted = self.files.delete_stream(locations);
                deleted.map(|_| Err(Self::dead())).boxed()
            }
            Err(error) => futures::stream::once(async { Err(error) }).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        if self.away.load(SeqCst) {
            return Box::pin(futures::stream::once(async { Err(Self::trouble()) }));
        }
        self.files.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        let lost = self.write()?;
        let copied = self.files.copy_opts(from, to, options).await;
        if lost { Err(Self::dead()) } else { copied }
    }
}
