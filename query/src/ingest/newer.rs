//! Objects of agents that are newer than this Flowtap. To move their rows would drop the columns that
//! are not known here, for ever. So they wait in the inbox, with all that follows of their boot, until a
//! newer Flowtap takes them. Readers see their rows all the same.

use std::collections::BTreeMap;

use flowtap_record::path::InboxName;
use flowtap_record::{SCHEMA_VERSION, SchemaVersion};
use object_store::ObjectMeta;
use prometheus_client::metrics::gauge::Gauge;
use tracing::{info, warn};

use super::plan::{Plan, Take};
use crate::store::Progress;

/// The first such object of each boot that has one.
#[derive(Default)]
pub(super) struct Newer {
    boots: BTreeMap<(String, String), (InboxName, ObjectMeta)>,
}

impl Newer {
    /// Takes out of a plan what waits, so that it is not read in each pass again.
    pub(super) fn hold_back(
        &mut self,
        plan: &mut Plan,
        listed: &[(InboxName, ObjectMeta)],
        progress: &Progress,
    ) {
        // Another ingester may have taken it; and what was put anew may be another object.
        self.boots.retain(|_, (name, meta)| {
            let same = |(there, as_put): &(InboxName, ObjectMeta)| {
                there == name && as_put.last_modified == meta.last_modified
            };
            let waits = !progress.covers(name) && listed.iter().any(same);
            if !waits {
                info!(object = %meta.location, "does not wait for a newer flowtap any more");
            }
            waits
        });
        plan.takes.retain(|take| !self.holds(&take.name));
    }

    /// `take` has columns that are not known here.
    pub(super) fn found(&mut self, take: &Take, schema: SchemaVersion) {
        let Take { name, meta, .. } = take;
        warn!(
            agent = name.agent,
            boot = name.boot,
            object = %meta.location,
            "an agent is newer than this flowtap (its schema is {schema}, known is {SCHEMA_VERSION}): its \
             objects wait in the inbox, upgrade flowtap"
        );
        let boot = (name.agent.clone(), name.boot.clone());
        self.boots.insert(boot, (name.clone(), meta.clone()));
    }

    /// How many objects wait.
    pub(super) fn count(
        &self,
        listed: &[(InboxName, ObjectMeta)],
        progress: &Progress,
        told: &Gauge,
    ) -> usize {
        let waits =
            |(name, _): &&(InboxName, ObjectMeta)| self.holds(name) && !progress.covers(name);
        let count = listed.iter().filter(waits).count();
        told.set(count as i64);
        count
    }

    fn holds(&self, name: &InboxName) -> bool {
        let boot = (name.agent.clone(), name.boot.clone());
        self.boots.get(&boot).is_some_and(|(first, _)| name.first >= first.first)
    }
}
