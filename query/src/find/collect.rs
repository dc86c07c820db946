//! The ids of whole files, for the directory of their day.

use std::collections::HashSet;

use arrow::array::RecordBatch;
use futures::{StreamExt as _, stream};
use object_store::ObjectMeta;

use super::cache::{fetch_group, footer};
use super::columns::Cells;
use super::ids::{COLUMNS, Ids};
use super::object::hash;
use super::read::Opened;
use crate::store::directory::{Covered, Entry, MAX_SLOTS};
use crate::store::{HistoryFile, Store, Trouble, decode};

/// Row groups that are fetched ahead.
const AHEAD: usize = 2;

/// Entries of several files, each row group in a slot of its own.
#[derive(Default)]
pub(crate) struct Collected {
    /// In any order.
    pub(crate) entries: Vec<Entry>,
    pub(crate) files: Vec<Covered>,
    slots: u32,
    /// Messages, each with its flow.
    messages: HashSet<u64>,
    /// What was caused, by the cause and the flow; with the cause as it is looked for.
    caused: Vec<(u64, Entry)>,
    ties: Vec<Entry>,
}

/// One row group.
#[derive(Default)]
struct Group {
    hashes: Vec<u64>,
    messages: Vec<u64>,
    /// Without a flow: it may be of any.
    caused: Vec<(Option<u64>, u64)>,
}

impl Collected {
    /// After so many slots of other files.
    pub(crate) fn after(slots: u32) -> Self {
        Self { slots, ..Self::default() }
    }

    /// Reads a file row group by row group. One that cannot be read leaves nothing behind.
    pub(crate) async fn file(&mut self, store: &Store, file: &HistoryFile) -> Result<(), Trouble> {
        let (entries, caused, ties) = (self.entries.len(), self.caused.len(), self.ties.len());
        let first = self.slots;
        let read = self.groups(store, &file.meta).await;
        if read.is_err() {
            self.entries.truncate(entries);
            self.caused.truncate(caused);
            self.ties.truncate(ties);
            self.slots = first;
        } else {
            self.files.push(Covered {
                path: file.meta.location.to_string(),
                size: file.meta.size,
                rows: file.rows as u64,
                groups: self.slots - first,
                entries: (self.entries.len() - entries) as u64,
            });
        }
        read
    }

    async fn groups(&mut self, store: &Store, meta: &ObjectMeta) -> Result<(), Trouble> {
        let footer = footer(store, meta).await?;
        let groups = footer.metadata().num_row_groups();
        if self.slots as usize + groups > MAX_SLOTS as usize {
            return Err(Trouble::Unbelievable(format!("{groups} row groups are too many")));
        }
        let mut read = stream::iter(0..groups)
            .map(|group| fetch_group(store, meta, &footer, group, Some(&COLUMNS)))
            .buffered(AHEAD);
        while let Some(group) = read.next().await {
            let group = group?;
            self.take(decode(move || Group::read(&group)).await?);
        }
        Ok(())
    }

    fn take(&mut self, group: Group) {
        let slot = self.slots;
        self.slots += 1;
        self.messages.extend(group.messages);
        let ties = group.hashes.iter().filter(|hash| is_bare_tie(**hash));
        self.ties.extend(ties.map(|hash| Entry::new(*hash, slot)));
        for (flow, cause) in group.caused {
            match flow {
                Some(flow) => self.caused.push((flow, Entry::new(cause, slot))),
                None => self.ties.push(Entry::new(cause, slot)),
            }
        }
        // Of a hash only the upper bits are kept: equal texts of several kinds are one entry.
        let own = group.hashes.into_iter().map(|hash| Entry::new(hash, slot));
        let mut own: Vec<Entry> = own.collect();
        own.dedup();
        self.entries.append(&mut own);
    }

    /// What ties rows to others: bare conclusions, and causes that are no message of the same flow.
    /// The causes within a flow, nearly all there are, are found with the flow.
    pub(crate) fn ties(&mut self) -> Vec<Entry> {
        let mut ties = std::mem::take(&mut self.ties);
        let foreign = self.caused.iter().filter(|(within, _)| !self.messages.contains(within));
        ties.extend(foreign.map(|(_, cause)| *cause));
        ties.sort_unstable();
        ties.dedup();
        ties
    }
}

impl Group {
    fn read(opened: &Opened) -> Result<Self, String> {
        let mut ids = Ids::default();
        let mut group = Self::default();
        opened.batches(&COLUMNS, |batch| {
            ids.batch(batch);
            group.batch(batch);
        })?;
        group.hashes = ids.hashes();
        group.caused.sort_unstable();
        group.caused.dedup();
        Ok(group)
    }

    fn batch(&mut self, batch: &RecordBatch) {
        let cells = Cells::new(batch);
        for row in 0..batch.num_rows() {
            let text = |name: &str| cells.text(name, row);
            let flow = text("transaction_id").map(hash::transaction);
            let within = |event: u64| flow.map(|flow| flow ^ event.rotate_left(32));
            if let Some(message) = text("event_id").and_then(|id| within(hash::event(id))) {
                self.messages.push(message);
            }
            if let Some(cause) = text("causation_id") {
                self.caused.push((within(hash::event(cause)), hash::cause(cause)));
            }
        }
    }
}

fn is_bare_tie(hash: u64) -> bool {
    hash::is_tie(hash) && !hash::is_cause(hash)
}
