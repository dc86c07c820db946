//! Single objects: how they are listed, created, fetched and decoded, and what may be wrong with bytes
//! that somebody else put.

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};
use serde::de::DeserializeOwned;

use super::{Store, StoreError};

/// Why an object cannot be used.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The store did not give it: try again.
    Read(String),
    /// It is not what its name says. That does not change before it is put again.
    Unbelievable(String),
}

impl Store {
    /// The bytes of an object, all of them.
    pub(crate) async fn fetch(&self, meta: &ObjectMeta) -> Result<Bytes, object_store::Error> {
        let bytes = self.objects().get(&meta.location).await?.bytes().await?;
        if bytes.len() as u64 == meta.size {
            return Ok(bytes);
        }
        let why = format!("{} bytes came of {}", bytes.len(), meta.size);
        Err(object_store::Error::Generic { store: "store", source: why.into() })
    }

    /// All objects below a folder, in any order.
    pub(crate) async fn list(&self, folder: &Path) -> Result<Vec<ObjectMeta>, StoreError> {
        let listed = self.objects().list(Some(folder)).try_collect().await;
        listed.map_err(|error| self.unreadable(error))
    }

    /// Puts an object where there is none. False: there is one.
    pub(crate) async fn create(
        &self,
        location: &Path,
        bytes: Vec<u8>,
    ) -> Result<bool, object_store::Error> {
        let options = PutOptions::from(PutMode::Create);
        match self.objects().put_opts(location, PutPayload::from(bytes), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads an object of the ingester's that says its own number.
    pub(crate) async fn numbered<T: DeserializeOwned>(
        &self,
        location: &Path,
        max_bytes: u64,
        number: u64,
        said: impl Fn(&T) -> u64,
    ) -> Result<T, StoreError> {
        let got = self.objects().get(location).await.map_err(|error| self.unreadable(error))?;
        let broken = |why: String| self.broken(location, why);
        if got.meta.size > max_bytes {
            return Err(broken(format!("{} bytes are too many", got.meta.size)));
        }
        let bytes = got.bytes().await.map_err(|error| self.unreadable(error))?;
        let read: T = serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
        match said(&read) {
            said if said == number => Ok(read),
            said => Err(broken(format!("it says it is number {said}"))),
        }
    }
}

/// Runs what takes its time where it holds up nobody. A decoder that panics on what somebody put
/// there takes nothing else with it.
pub(crate) async fn decode<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, Trouble> {
    let made = tokio::task::spawn_blocking(work).await;
    let made = made.unwrap_or_else(|_| Err("its rows broke the decoder".to_owned()));
    made.map_err(Trouble::Unbelievable)
}
