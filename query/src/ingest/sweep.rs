//! What is in the table for long enough is taken out of the inbox. Readers that began before the
//! commit still find it there for a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use flowtap_record::Micros;
use flowtap_record::path::InboxName;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt as _};
use tracing::warn;

use crate::store::{Progress, Store, StoreError};

/// Progress objects before the one that counts are kept for so long, for readers of old versions.
const KEPT_US: i64 = 24 * 3_600_000_000;
const AT_ONCE: usize = 16;

/// Progress objects of the last while, by number. They never change: each is read once.
#[derive(Default)]
pub(super) struct Chain(HashMap<u64, Arc<Progress>>);

impl Chain {
    /// The newest progress that was committed `grace` ago or earlier and whose objects are in
    /// `uploads`. Each progress names the one that was committed before it, so those whose commit
    /// never came are never met.
    pub(super) async fn settled(
        &mut self,
        store: &Store,
        progress: &Progress,
        uploads: u64,
        grace: Duration,
        now: Micros,
    ) -> Result<Arc<Progress>, StoreError> {
        let grace = i64::try_from(grace.as_micros()).unwrap_or(i64::MAX);
        let mut settled = Arc::new(progress.clone());
        while settled.number > 0 && (now.since(settled.at) < grace || settled.number > uploads) {
            self.0.insert(settled.number, Arc::clone(&settled));
            settled = match self.0.get(&settled.previous) {
                Some(known) => Arc::clone(known),
                None => Arc::new(Progress::read(store, settled.previous).await?),
            };
        }
        let number = settled.number;
        self.0.retain(|it, _| *it > number);
        self.0.insert(number, Arc::clone(&settled));
        Ok(settled)
    }
}

/// Deletes inbox objects that `settled` covers. Returns how many.
pub(super) async fn inbox(
    store: &Store,
    listed: &[(InboxName, ObjectMeta)],
    settled: &Progress,
) -> Result<usize, StoreError> {
    let covered = listed.iter().filter(|(name, _)| settled.covers(name));
    delete(store, covered.map(|(_, meta)| meta.location.clone()).collect()).await
}

/// Deletes progress objects that nobody needs any more, and what a probe left.
pub(super) async fn progress(
    store: &Store,
    settled: &Progress,
    now: Micros,
) -> Result<usize, StoreError> {
    let counts = flowtap_record::path::ingest(settled.number);
    let old = |meta: &ObjectMeta| {
        let age = now.since(Micros(meta.last_modified.timestamp_micros()));
        age > KEPT_US && meta.location.as_ref() != counts && {
            // Names are as long as one another: their order is that of their numbers.
            meta.location.as_ref() < counts.as_str() || meta.location.as_ref().contains("probe-")
        }
    };
    let listed = store.list(&Path::from("ingest")).await?;
    delete(store, listed.into_iter().filter(old).map(|meta| meta.location).collect()).await
}

/// Deletes objects, whoever else does. Returns how many.
pub(crate) async fn delete(store: &Store, locations: Vec<Path>) -> Result<usize, StoreError> {
    let deleted = stream::iter(locations).map(|location| async move {
        match store.objects().delete(&location).await {
            Ok(()) => Ok(1),
            // Another ingester was quicker.
            Err(object_store::Error::NotFound { .. }) => Ok(0),
            Err(error) => {
                warn!(object = %location, %error, "cannot be deleted");
                Err(store.unreadable(error))
            }
        }
    });
    deleted.buffer_unordered(AT_ONCE).try_fold(0, |sum, one| async move { Ok(sum + one) }).await
}
