//! Whether a store really honours conditional puts. Some accept them and overwrite all the same:
//! two ingesters there would take one another's commits away.

use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutMode, PutOptions, PutPayload};

use crate::store::Store;

/// Creates an object twice and expects the second time to be refused.
pub(super) async fn honours_create(store: &Store) -> Result<bool, object_store::Error> {
    let location = Path::from(format!("ingest/probe-{}", uuid::Uuid::now_v7()));
    let create = || PutOptions::from(PutMode::Create);
    let payload = || PutPayload::from_static(b"probe");
    store.objects().put_opts(&location, payload(), create()).await?;
    let second = store.objects().put_opts(&location, payload(), create()).await;
    store.objects().delete(&location).await?;
    match second {
        Err(object_store::Error::AlreadyExists { .. }) => Ok(true),
        Ok(_) => Ok(false),
        Err(error) => Err(error),
    }
}
