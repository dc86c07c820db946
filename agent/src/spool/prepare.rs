//! Makes the spool's folder ours: lock, name, what earlier boots left, the folder of this boot, and
//! one `gap` row for each boot that died. Done at the start, and again by the writer for as long as
//! the folder can't be used; until then rows wait in memory.
//!
//! The rows about deaths are taken in here, before the folder counts as open, and a boot is marked
//! `reported` only when its row is synced. No segment that holds such a row goes before that. So a
//! crash at any point leaves either the marker or the row to be found by the next boot.

use flowtap_record::Seq;

use super::folder::{About, agent_name, create_boot, lock};
use super::mark::Mark;
use super::recover::recover_all;
use super::shared::{Files, Report, Shared};
use super::{EarlierBoot, SpoolError};
use crate::stats::Stats;

pub(crate) fn prepare(shared: &Shared) -> Result<Vec<EarlierBoot>, SpoolError> {
    let (layout, disk) = (&shared.layout, &shared.disk);
    let failed = |source| SpoolError::Folder { path: layout.root().to_owned(), source };
    let lock = lock(layout, disk)?;
    let agent = agent_name(layout, disk, shared.configured_agent.as_deref(), &shared.fresh_agent)?;
    disk.create_dir(&layout.boots()).map_err(failed)?;
    let earlier = recover_all(layout, disk, &agent, &shared.boot).map_err(failed)?;
    // A try before this one may have come as far as the folder, but put nothing into it.
    let _ = std::fs::remove_dir_all(layout.boot(&shared.boot));
    let about = About {
        agent: agent.clone(),
        service: shared.service.clone(),
        started_at: shared.started_at,
    };
    let first_mark = Mark { at: shared.started_at, last: 0 };
    let mark = create_boot(layout, disk, &shared.boot, &about, &first_mark).map_err(failed)?;

    // From here on nothing fails.
    let now = shared.clock.now();
    let mut told = Vec::new();
    let mut registry = shared.lock_registry();
    for (boot, mut found) in earlier {
        told.push(EarlierBoot {
            boot: boot.clone(),
            agent: found.about.agent.clone(),
            died: found.ended.is_none(),
            last: Seq(found.last),
            segments: found.segments.len(),
            bytes: found.segments.iter().map(|segment| segment.bytes).sum(),
        });
        if found.owes_gap() {
            let taken = found.gap_row(&boot, now, shared.started_at, |row| {
                shared.lock_state().push_own(row, now)
            });
            if let Some(seq) = taken {
                Stats::add(&shared.stats.rows, 1);
                registry.reports.push(Report { boot: boot.clone(), seq: seq.0 });
            }
        }
        for segment in found.segments.drain(..) {
            Stats::add(&shared.stats.segments, 1);
            Stats::add(&shared.stats.spool_bytes, segment.bytes);
            registry.sealed.insert((boot.clone(), segment.first.0), segment);
        }
        registry.earlier.insert(boot, found);
    }
    drop(registry);
    *shared.lock_files() = Some(Files { _lock: lock, mark });
    // Nobody else sets it: prepare runs in one thread at a time, and only until it succeeds.
    let _ = shared.agent.set(agent);
    shared.registry_changed.notify_one();
    Ok(told)
}
