//! What agents say of themselves: the objects `agents/<agent>/<boot>.json`, each read again only
//! when it changed.

use std::collections::HashMap;

use flowtap_record::{AgentStatus, Micros, path};
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt as _;
use object_store::path::Path;

use crate::flow::Said;
use crate::store::{Store, StoreError};

/// More than an agent's status ever takes.
const MAX_BYTES: u64 = 1 << 20;
const AT_ONCE: usize = 16;

/// Status objects as they were read last.
#[derive(Default)]
pub(crate) struct Statuses {
    known: HashMap<Path, (String, Said)>,
}

impl Statuses {
    /// Reads what is new. A status that cannot be read or believed is left out.
    pub(crate) async fn refresh(&mut self, store: &Store) -> Result<(), StoreError> {
        let folder = Path::from("agents");
        let listed: Vec<_> = store
            .objects()
            .list(Some(&folder))
            .try_collect()
            .await
            .map_err(|error| store.unreadable(error))?;
        let changed: Vec<_> = listed
            .into_iter()
            .filter(|meta| meta.size <= MAX_BYTES)
            .map(|meta| {
                let stamp = format!("{:?}{}{}", meta.e_tag, meta.last_modified, meta.size);
                (meta, stamp)
            })
            .filter(|(meta, stamp)| {
                self.known.get(&meta.location).is_none_or(|(known, _)| known != stamp)
            })
            .collect();
        let mut read = futures::stream::iter(changed)
            .map(|(meta, stamp)| async move {
                let bytes = store.objects().get(&meta.location).await.ok()?.bytes().await.ok()?;
                let status: AgentStatus = serde_json::from_slice(&bytes).ok()?;
                // An agent writes its own status only.
                if path::status(&status.agent, &status.boot) != meta.location.as_ref() {
                    return None;
                }
                let put_at = Some(Micros(meta.last_modified.timestamp_micros()));
                Some((meta.location, stamp, Said { status, put_at, watermark: None }))
            })
            .buffer_unordered(AT_ONCE);
        while let Some(found) = read.next().await {
            if let Some((location, stamp, said)) = found {
                self.known.insert(location, (stamp, said));
            }
        }
        Ok(())
    }

    /// All of them, each with the newest watermark among its boot's objects.
    pub(crate) fn said(&self, watermarks: &HashMap<String, Micros>) -> Vec<Said> {
        let known = self.known.values().map(|(_, said)| said.clone());
        known
            .map(|said| Said { watermark: watermarks.get(&said.status.boot).copied(), ..said })
            .collect()
    }
}
