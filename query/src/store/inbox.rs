//! The inbox of one table: which objects lie there, which of them can be believed, and which rows
//! of each are to be seen. Each row is seen exactly once, also where ranges of a boot overlap.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use object_store::ObjectMeta;
use object_store::path::Path;
use parquet::file::metadata::ParquetMetaData;
use tracing::warn;

use flowtap_record::path::{HISTORY, InboxName};
use flowtap_record::{Micros, SCHEMA_VERSION, SchemaVersion};

use super::footer::{self, Footer};
use super::history::History;
use super::progress::Hole;
use super::{Store, StoreError};

/// Footers read at the same time.
const CONCURRENT_FOOTERS: usize = 32;

/// Agents cut objects at 8 MB; what is far beyond that was not made by one.
const MAX_OBJECT_BYTES: u64 = 1 << 30;

/// The reason in the view `gaps` for an object whose agent is newer than this Flowtap.
pub(crate) const NEWER_SCHEMA: &str = "newer_schema";

/// An object that is to be read.
#[derive(Clone, Debug)]
pub struct InboxObject {
    /// Its name, which the footer confirms.
    pub name: InboxName,
    /// Path, size and time of change.
    pub meta: ObjectMeta,
    /// When the agent made it.
    pub uploaded_at: Micros,
    /// All that the agent saw up to then is uploaded with it.
    pub watermark: Micros,
    /// Rows in it.
    pub rows: usize,
    /// Earliest and latest `at` in it, if its statistics say so.
    pub at: Option<(Micros, Micros)>,
    /// First and last `seq` to be seen: less than the name's range where an earlier object of
    /// the boot holds the same rows.
    pub visible: (i64, i64),
    /// Its schema, where that is newer than ours. Its rows are seen without the columns that are not
    /// known here, and the ingester leaves it where it is.
    pub newer: Option<SchemaVersion>,
}

impl InboxObject {
    fn new(name: InboxName, meta: ObjectMeta, footer: &Footer) -> Self {
        Self {
            visible: (name.first.0, name.last.0),
            name,
            meta,
            uploaded_at: footer.uploaded_at,
            watermark: footer.watermark,
            rows: footer.rows,
            at: footer.at,
            newer: footer.newer,
        }
    }

    /// What is not seen of it, if anything: columns, not rows.
    pub(crate) fn columns_unseen(&self) -> Option<Hole> {
        let schema = self.newer?;
        let put_at = Micros(self.meta.last_modified.timestamp_micros());
        let why = format!(
            "its schema {schema} is newer than {SCHEMA_VERSION}: columns that are not known here are not \
             seen, and it stays in the inbox until flowtap is upgraded"
        );
        Some(Hole { reason: NEWER_SCHEMA, ..Hole::refused(&self.name, put_at, &why) })
    }

    /// The object of that name, if the footer of what lies there bears the name out; else why not.
    pub fn believed(
        name: InboxName,
        meta: ObjectMeta,
        footer: &Arc<ParquetMetaData>,
    ) -> Result<Self, String> {
        let footer = footer::check(&name, footer)?;
        Ok(Self::new(name, meta, &footer))
    }
}

/// An object that bears a proper name and cannot be believed. Its rows are not seen.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Its name.
    pub name: InboxName,
    /// When it was put there.
    pub last_modified: Micros,
    /// Why.
    pub why: String,
}

impl Refused {
    /// What is missing for it.
    pub(crate) fn hole(&self) -> Hole {
        Hole::refused(&self.name, self.last_modified, &self.why)
    }
}

/// What the inbox of one table holds, and what was moved out of it into `history`.
#[derive(Clone, Debug, Default)]
pub struct Inbox {
    /// The table as it was after the inbox was listed. What it covers is not among the objects.
    pub history: Option<Arc<History>>,
    /// Objects to be read, by agent, boot and first row.
    pub objects: Vec<InboxObject>,
    /// Objects left out.
    pub refused: Vec<Refused>,
    /// Paths below the table's inbox that no agent makes.
    pub skipped: Vec<String>,
}

impl Store {
    /// Lists the inbox of `table` and reads each footer. An inbox that does not exist is empty.
    /// What is left out is logged as a warning, and what the table `history` covers is not read: each
    /// row is in the one or in the other.
    pub async fn inbox(&self, table: &str) -> Result<Inbox, StoreError> {
        let mut named = Vec::new();
        let mut inbox = Inbox::default();
        let folder = Path::from_iter(["inbox", table]);
        let mut listing = self.objects().list(Some(&folder));
        while let Some(meta) = listing.try_next().await.map_err(|error| self.unreadable(error))? {
            if let Ok(name) = InboxName::parse(meta.location.as_ref()) {
                named.push((name, meta));
            } else {
                warn!(object = %meta.location, "not the name of an inbox object, skipped");
                inbox.skipped.push(meta.location.to_string());
            }
        }
        if table == HISTORY {
            inbox.history = self.history().await?;
        }
        if let Some(history) = &inbox.history {
            named.retain(|(name, _)| !history.progress.covers(name));
        } else if named.is_empty() && inbox.skipped.is_empty() {
            warn!(
                store = self.url(),
                "nothing is recorded in this store yet: it has no inbox/{table}"
            );
        }

        let mut read = futures::stream::iter(named)
            .map(|(name, meta)| async move {
                let footer = self.footer_of(&name, &meta).await;
                (name, meta, footer)
            })
            .buffer_unordered(CONCURRENT_FOOTERS);
        while let Some((name, meta, footer)) = read.next().await {
            match footer {
                Ok(footer) => inbox.objects.push(InboxObject::new(name, meta, &footer)),
                Err(why) => {
                    warn!(object = %meta.location, why, "object left out");
                    let last_modified = Micros(meta.last_modified.timestamp_micros());
                    inbox.refused.push(Refused { name, last_modified, why });
                }
            }
        }
        inbox.refused.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(history) = &inbox.history {
            for object in &mut inbox.objects {
                object.visible.0 = history.progress.visible_from(&object.name).0;
            }
        }
        show_each_row_once(&mut inbox.objects);
        Ok(inbox)
    }

    /// Names of all objects in the inbox of `table`; what bears no proper name is skipped.
    pub async fn list_inbox(
        &self,
        table: &str,
    ) -> Result<Vec<(InboxName, ObjectMeta)>, StoreError> {
        let folder = Path::from_iter(["inbox", table]);
        let listing = self.objects().list(Some(&folder));
        let named = listing.try_filter_map(|meta| async move {
            Ok(InboxName::parse(meta.location.as_ref()).ok().map(|name| (name, meta)))
        });
        named.try_collect().await.map_err(|error| self.unreadable(error))
    }

    /// Whether an object is of a size that an agent makes; else why not.
    pub fn check_size(&self, meta: &ObjectMeta) -> Result<(), String> {
        if meta.size > MAX_OBJECT_BYTES {
            return Err(format!("{} bytes are more than an agent puts into one object", meta.size));
        }
        Ok(())
    }

    async fn footer_of(&self, name: &InboxName, meta: &ObjectMeta) -> Result<Footer, String> {
        self.check_size(meta)?;
        let store = self.clone();
        let (name, meta) = (name.clone(), meta.clone());
        // A task of its own: decoding runs on all cores, and a decoder that panics on what
        // somebody put there takes nothing else with it.
        let task = tokio::spawn(async move { footer::read(&store, &name, &meta).await });
        task.await.unwrap_or_else(|_| Err("its footer broke the decoder".to_owned()))
    }
}

/// Where ranges of one boot overlap, the earlier keeps the rows. Sorts the objects.
fn show_each_row_once(objects: &mut Vec<InboxObject>) {
    objects.sort_by(|a, b| a.name.cmp(&b.name));
    let mut shown_to: Option<(String, String, i64)> = None;
    for object in objects.iter_mut() {
        let name = &object.name;
        let mut end = name.last.0;
        if let Some((agent, boot, last)) = &shown_to
            && *agent == name.agent
            && *boot == name.boot
        {
            if *last >= name.first.0 {
                warn!(object = %object.meta.location, "overlaps an earlier object of its boot");
                object.visible.0 = object.visible.0.max(last + 1);
            }
            end = end.max(*last);
        }
        shown_to = Some((name.agent.clone(), name.boot.clone(), end));
    }
    objects.retain(|object| object.visible.0 <= object.visible.1);
}
