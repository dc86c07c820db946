//! Who is at work on a derived table: `derived/<name>/lease/<n:020>.json`. The newest counts, until it
//! says; who wants it creates the next, which only one can. It saves work, no more: that two never both
//! commit is seen to by the commit itself. (Objects are only ever created, because a folder knows no
//! other condition.)

use std::time::Duration;

use flowtap_record::Micros;
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::Derived;
use crate::store::{Store, StoreError, now};

/// How long a lease holds without being renewed.
const HOLDS: Duration = Duration::from_mins(1);

/// What an object says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Word {
    owner: String,
    until: Micros,
}

/// A lease that was taken.
pub(super) struct Lease<'a> {
    store: &'a Store,
    folder: Path,
    owner: &'a str,
    number: u64,
}

/// What came of work under a lease.
pub(super) enum Held<T> {
    /// It was done.
    Done(T),
    /// Somebody else took the lease over.
    Lost,
}

/// Takes the lease. None: somebody else has it.
pub(super) async fn take<'a>(
    store: &'a Store,
    of: &Derived,
    owner: &'a str,
) -> Result<Option<Lease<'a>>, StoreError> {
    let folder = Path::from(format!("derived/{}/lease", of.name));
    let listed = store.list(&folder).await?;
    let listed: Vec<Path> = listed.into_iter().map(|meta| meta.location).collect();
    let newest = listed.iter().filter_map(|it| Some((number(it)?, it))).max();
    let mut lease = Lease { store, folder, owner, number: 0 };
    if let Some((number, location)) = newest {
        lease.number = number;
        if is_held(store, location, owner).await? {
            return Ok(None);
        }
    }
    if !lease.put(HOLDS).await? {
        return Ok(None);
    }
    for old in listed {
        lease.delete(&old).await;
    }
    Ok(Some(lease))
}

/// Whether somebody else holds it by this word.
async fn is_held(store: &Store, location: &Path, owner: &str) -> Result<bool, StoreError> {
    let got = match store.objects().get(location).await {
        Ok(got) => got.bytes().await.map_err(|error| store.unreadable(error))?,
        // It was followed by another just now.
        Err(object_store::Error::NotFound { .. }) => return Ok(true),
        Err(error) => return Err(store.unreadable(error)),
    };
    let Ok(word) = serde_json::from_slice::<Word>(&got) else {
        warn!(object = %location, "not the word of a lease: it does not count");
        return Ok(false);
    };
    let left = word.until.since(now());
    // Longer than any lease: by a clock that is wrong.
    let is_mad = left > 2 * HOLDS.as_micros() as i64;
    Ok(word.owner != owner && left > 0 && !is_mad)
}

impl Lease<'_> {
    /// Works, and renews the lease meanwhile. The work is dropped where the lease is lost.
    pub(super) async fn hold<T>(&mut self, work: impl Future<Output = T>) -> Held<T> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Held::Done(done),
                () = tokio::time::sleep(HOLDS / 3) => match self.renew().await {
                    Ok(true) => {}
                    Ok(false) => {
                        info!(lease = %self.folder, "somebody else took the work over");
                        return Held::Lost;
                    }
                    Err(error) => warn!(%error, "a lease is not renewed, tried again"),
                },
            }
        }
    }

    async fn renew(&mut self) -> Result<bool, StoreError> {
        let old = self.location();
        let renewed = self.put(HOLDS).await?;
        if renewed {
            self.delete(&old).await;
        }
        Ok(renewed)
    }

    /// Lets others have it. Where that fails, it ends by itself.
    pub(super) async fn release(mut self) {
        let old = self.location();
        match self.put(Duration::ZERO).await {
            Ok(true) => self.delete(&old).await,
            Ok(false) => {}
            Err(error) => warn!(%error, "a lease is not given back"),
        }
    }

    /// Creates the next word. False: somebody else did.
    async fn put(&mut self, holds: Duration) -> Result<bool, StoreError> {
        self.number += 1;
        let until = now().plus(holds.as_micros() as i64);
        let word = Word { owner: self.owner.to_owned(), until };
        let text = serde_json::to_vec(&word).map_err(|error| self.store.away(error.to_string()))?;
        let created = self.store.create(&self.location(), text).await;
        created.map_err(|error| self.store.unreadable(error))
    }

    fn location(&self) -> Path {
        self.folder.clone().join(format!("{:020}.json", self.number))
    }

    /// Old words do not count: one that stays is deleted by who takes the lease next.
    async fn delete(&self, location: &Path) {
        match self.store.objects().delete(location).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => warn!(object = %location, %error, "cannot be deleted"),
        }
    }
}

fn number(location: &Path) -> Option<u64> {
    location.filename()?.strip_suffix(".json")?.parse().ok()
}
