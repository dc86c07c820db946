//! One object on its way into the table: fetched and decoded, or kept with the reason why not.

use flowtap_record::{Micros, path};
use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutPayload};
use tracing::warn;

use super::plan::Take;
use super::rows::{self, Decoded};
use super::{IngestError, MAX_TOLD, Step};
use crate::store::{Progress, Quarantined, Store, Taken, Trouble, decode};

/// Fetches and decodes it.
pub(super) async fn read(store: &Store, take: &Take) -> Result<Decoded, Trouble> {
    store.check_size(&take.meta).map_err(Trouble::Unbelievable)?;
    let bytes = store.fetch(&take.meta).await;
    let bytes = bytes.map_err(|error| Trouble::Read(error.to_string()))?;
    let (name, from) = (take.name.clone(), take.from);
    decode(move || rows::decode(&name, bytes, from)).await
}

/// Its rows are part of the step.
pub(super) fn take_in(step: &mut Step, take: &Take, rows: rows::Rows) {
    step.rows += rows.count;
    step.progress.taken.push(Taken {
        object: take.name.path(),
        bytes: take.meta.size,
        rows: rows.count as u64,
        uploaded_at: rows.uploaded_at,
        watermark: rows.watermark,
        last_modified: Micros(take.meta.last_modified.timestamp_micros()),
    });
    step.batches.extend(rows.batches);
    advance(&mut step.progress, take, rows.watermark, rows.uploaded_at);
}

/// Keeps what could not be taken, with the reason beside it; its range counts as taken.
pub(super) async fn quarantine(
    store: &Store,
    step: &mut Step,
    take: &Take,
    why: String,
) -> Result<(), IngestError> {
    warn!(object = %take.meta.location, why, "put into quarantine");
    let kept = path::quarantine(take.meta.location.as_ref());
    let failed = |error| IngestError::Store(store.unreadable(error));
    store.objects().copy(&take.meta.location, &Path::from(kept.as_str())).await.map_err(failed)?;
    let reason = PutPayload::from(format!("{why}\n"));
    let location = Path::from(format!("{kept}.reason.txt"));
    store.objects().put(&location, reason).await.map_err(failed)?;
    step.quarantined += 1;
    let told = &mut step.progress.quarantined;
    told.push(Quarantined {
        object: take.name.path(),
        last_modified: Micros(take.meta.last_modified.timestamp_micros()),
        why,
    });
    told.drain(..told.len().saturating_sub(MAX_TOLD));
    advance(&mut step.progress, take, Micros(0), Micros(0));
    Ok(())
}

fn advance(progress: &mut Progress, take: &Take, watermark: Micros, uploaded_at: Micros) {
    let lost = &mut progress.lost;
    lost.extend(take.lost.clone());
    lost.drain(..lost.len().saturating_sub(MAX_TOLD));
    let boots = progress.boots.entry(take.name.agent.clone()).or_default();
    let boot = boots.entry(take.name.boot.clone()).or_default();
    boot.last = take.name.last.0;
    boot.watermark = boot.watermark.max(watermark);
    boot.uploaded_at = boot.uploaded_at.max(uploaded_at);
}
