//! A store that misbehaves.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

use super::Inbox;

/// A folder that refuses to give some objects, or to be listed.
#[derive(Debug)]
pub(crate) struct Moody {
    files: LocalFileSystem,
    /// Objects whose path has this in it are not given.
    kept_back: Mutex<Option<&'static str>>,
    pub(crate) away: AtomicBool,
}

impl Moody {
    pub(crate) fn over(inbox: &Inbox) -> Arc<Self> {
        let files = LocalFileSystem::new_with_prefix(inbox.folder.path()).unwrap();
        Arc::new(Self { files, kept_back: Mutex::default(), away: AtomicBool::new(false) })
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
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.files.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
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
        self.files.delete_stream(locations)
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
        self.files.copy_opts(from, to, options).await
    }
}
