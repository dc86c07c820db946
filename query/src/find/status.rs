//! What agents say of themselves: the objects `agents/<agent>/<boot>.json`, each read again only
//! when it changed.

use std::collections::{HashMap, HashSet};

use flowtap_record::{AgentStatus, Micros, path};
use futures::StreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt as _};
use tracing::warn;

use super::clock::StoreClock;
use crate::flow::Said;
use crate::store::{Store, StoreError, Trouble};

/// More than an agent's status ever takes.
const MAX_BYTES: u64 = 1 << 20;
const AT_ONCE: usize = 16;

/// Status objects as they were read last.
#[derive(Default)]
pub(crate) struct Statuses {
    known: HashMap<Path, (String, Said)>,
    /// Those that cannot be read or believed, as they were when that was said.
    refused: HashMap<Path, String>,
    clock: StoreClock,
    listed_at: Option<Micros>,
}

impl Statuses {
    /// Reads what is new. A status that cannot be read or believed is left out, counted, and told
    /// once; of one that was read before, the last that could be believed stays.
    pub(crate) async fn refresh(&mut self, store: &Store, now: Micros) -> Result<(), StoreError> {
        let listed = store.list(&Path::from("agents")).await?;
        let before = self.listed_at.replace(now);
        let there: HashSet<&Path> = listed.iter().map(|meta| &meta.location).collect();
        self.known.retain(|path, _| there.contains(path));
        self.refused.retain(|path, _| there.contains(path));
        let changed: Vec<(ObjectMeta, String)> = listed
            .iter()
            .map(|meta| {
                let stamp = format!("{:?}{}{}", meta.e_tag, meta.last_modified, meta.size);
                (meta.clone(), stamp)
            })
            .filter(|(meta, stamp)| {
                let known = self.known.get(&meta.location).map(|(known, _)| known);
                let refused = self.refused.get(&meta.location);
                known != Some(stamp) && refused != Some(stamp)
            })
            .collect();
        for (meta, _) in &changed {
            let put_at = Micros(meta.last_modified.timestamp_micros());
            // One that is new since the last look was put since then.
            let since = before.filter(|_| self.known.contains_key(&meta.location));
            self.clock.saw(put_at, since, now);
        }
        let mut read = futures::stream::iter(changed)
            .map(|(meta, stamp)| async move {
                let said = read(store, &meta).await;
                (meta.location, stamp, said)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((location, stamp, said)) = read.next().await {
            match said {
                Ok(said) => {
                    self.refused.remove(&location);
                    self.known.insert(location, (stamp, said));
                }
                Err(trouble) => {
                    let (why, stamp) = match trouble {
                        Trouble::Read(why) => (why, String::new()),
                        Trouble::Unbelievable(why) => (why, stamp),
                    };
                    if self.refused.get(&location) != Some(&stamp) {
                        warn!(object = %location, why, "status of an agent left out");
                    }
                    self.refused.insert(location, stamp);
                }
            }
        }
        Ok(())
    }

    /// All of them, each with the newest watermark among its boot's objects.
    pub(crate) fn said(&self, watermarks: &HashMap<String, Micros>) -> Vec<Said> {
        let known = self.known.values().map(|(_, said)| said.clone());
        known
            .map(|said| Said {
                watermark: watermarks.get(&said.status.boot).copied(),
                put_at: said.put_at.map(|at| self.clock.here(at)),
                ..said
            })
            .collect()
    }

    /// How many cannot be read or believed.
    pub(super) fn refused(&self) -> usize {
        self.refused.len()
    }

    /// A time of the store by the clock of this machine.
    pub(super) fn here(&self, at: Micros) -> Micros {
        self.clock.here(at)
    }
}

async fn read(store: &Store, meta: &ObjectMeta) -> Result<Said, Trouble> {
    if meta.size > MAX_BYTES {
        return Err(Trouble::Unbelievable(format!("{} bytes are too many", meta.size)));
    }
    let failed = |error: object_store::Error| Trouble::Read(error.to_string());
    let bytes = store.objects().get(&meta.location).await.map_err(failed)?;
    let bytes = bytes.bytes().await.map_err(failed)?;
    let status: AgentStatus = serde_json::from_slice(&bytes)
        .map_err(|error| Trouble::Unbelievable(format!("it is no status: {error}")))?;
    // An agent writes its own status only.
    if path::status(&status.agent, &status.boot) != meta.location.as_ref() {
        return Err(Trouble::Unbelievable("it bears another agent's name".to_owned()));
    }
    let put_at = Some(Micros(meta.last_modified.timestamp_micros()));
    Ok(Said { status, put_at, watermark: None })
}
