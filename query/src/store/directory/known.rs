//! The directories of a store, each read once: but for its pages it never changes and is small.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures::{StreamExt as _, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt as _};
use tracing::warn;

use super::{Directory, FOLDER, TAIL};
use crate::store::{Store, StoreError, Trouble};

/// Bytes of an end that are read at once: most are within.
const GUESS: u64 = 128 << 10;
const AT_ONCE: usize = 32;

/// All that are there, by their places; of those that cannot be believed, nothing else.
#[derive(Default)]
pub(crate) struct Directories {
    known: BTreeMap<Path, Option<Arc<Directory>>>,
    metas: Vec<ObjectMeta>,
}

impl Directories {
    /// Looks which are there and reads what is new. One that is not whole is told of once, and is
    /// as good as missing.
    pub(crate) async fn refresh(&mut self, store: &Store) -> Result<(), StoreError> {
        let listed = store.list(&Path::from(FOLDER)).await?;
        let there: HashSet<&Path> = listed.iter().map(|meta| &meta.location).collect();
        self.known.retain(|path, _| there.contains(path));
        let new = listed.iter().filter(|meta| !self.known.contains_key(&meta.location));
        let mut read = stream::iter(new.cloned().collect::<Vec<_>>())
            .map(|meta| async move {
                let path = meta.location.clone();
                (path, read(store, meta).await)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((path, made)) = read.next().await {
            match made {
                Ok(directory) => drop(self.known.insert(path, Some(Arc::new(directory)))),
                Err(Trouble::Unbelievable(why)) => {
                    warn!(directory = %path, why, "directory left out: rows are found without");
                    self.known.insert(path, None);
                }
                // Tried again with the next look.
                Err(Trouble::Read(why)) => warn!(directory = %path, why, "not read"),
            }
        }
        drop(read);
        self.metas = listed;
        Ok(())
    }

    /// Those that can be believed, the newest of each day first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &Arc<Directory>> {
        self.known.values().rev().flatten()
    }

    /// All objects, also those that cannot be believed.
    pub(crate) fn objects(&self) -> &[ObjectMeta] {
        &self.metas
    }

    /// How many cannot be believed.
    pub(crate) fn refused(&self) -> usize {
        self.known.values().filter(|it| it.is_none()).count()
    }
}

async fn read(store: &Store, meta: ObjectMeta) -> Result<Directory, Trouble> {
    let broken = || Trouble::Unbelievable("it is no directory, or not whole".to_owned());
    let failed = |error: object_store::Error| Trouble::Read(error.to_string());
    let fetch = async |bytes: u64| {
        let range = meta.size.saturating_sub(bytes)..meta.size;
        store.objects().get_range(&meta.location, range).await.map_err(failed)
    };
    if meta.size < TAIL as u64 {
        return Err(broken());
    }
    let mut bytes = fetch(GUESS).await?;
    let end = Directory::end(&bytes).filter(|end| *end <= meta.size).ok_or_else(broken)?;
    if end > bytes.len() as u64 {
        bytes = fetch(end).await?;
    }
    let from = bytes.len().checked_sub(end as usize).ok_or_else(broken)?;
    Directory::read(meta.clone(), &bytes[from..]).ok_or_else(broken)
}
