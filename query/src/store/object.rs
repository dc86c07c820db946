//! Objects whose bytes somebody else put: how they are fetched and decoded, and what may be wrong.

use bytes::Bytes;
use object_store::{ObjectMeta, ObjectStoreExt as _};

use super::Store;

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
