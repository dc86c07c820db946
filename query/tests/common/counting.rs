//! A store that counts what is asked of it, and is slow enough to tell which requests waited for
//! which others.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use tokio::time::Instant;

use super::Inbox;

/// How long an answer takes.
const DELAY: Duration = Duration::from_millis(40);

/// A folder that counts.
#[derive(Debug)]
pub(crate) struct Counting {
    files: LocalFileSystem,
    /// When each request began and ended.
    asked: Mutex<Vec<(Instant, Instant)>>,
}

impl Counting {
    pub(crate) fn over(inbox: &Inbox) -> Arc<Self> {
        let files = LocalFileSystem::new_with_prefix(inbox.folder.path()).unwrap();
        Arc::new(Self { files, asked: Mutex::default() })
    }

    /// Requests since the last call, and the longest chain of such that waited for each other.
    pub(crate) fn take(&self) -> (usize, usize) {
        let mut asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.sort_by_key(|(_, end)| *end);
        let (mut rounds, mut last) = (0, None);
        for (start, end) in &asked {
            if last.is_none_or(|last| *start >= last) {
                (rounds, last) = (rounds + 1, Some(*end));
            }
        }
        (asked.len(), rounds)
    }

    async fn count(&self) {
        let start = Instant::now();
        tokio::time::sleep(DELAY).await;
        self.asked.lock().unwrap().push((start, Instant::now()));
    }
}

impl fmt::Display for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("counting")
    }
}

#[async_trait]
impl ObjectStore for Counting {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.count().await;
        self.files.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.files.put_multipart_opts(location, options).await
    }

    /// Ranges come here, too, those that lie close together as one, as with a bucket.
    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        self.count().await;
        self.files.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let now = Instant::now();
        self.asked.lock().unwrap().push((now, now));
        self.files.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.count().await;
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
