//! What the catalog holds of one source of rows: an inbox object, whose rows are one boot's and lie
//! by their numbers, or a file of the table, where rows of many boots lie by what they belong to.

use std::sync::Arc;

use object_store::ObjectMeta;

use super::lookup::Run;
use super::object::{Beyond, Index};
use crate::store::{HistoryFile, InboxObject};

/// Where rows are read.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// An object of the inbox.
    Inbox(InboxObject),
    /// A file of the table.
    File(HistoryFile),
}

impl Source {
    pub(super) fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Inbox(object) => &object.meta,
            Self::File(file) => &file.meta,
        }
    }

    /// Rows that are to be seen.
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Inbox(object) => {
                let (first, last) = object.visible;
                object.rows.min(usize::try_from(last - first + 1).unwrap_or_default())
            }
            Self::File(file) => file.rows,
        }
    }
}

/// Where the rows of one boot lie in a source.
pub(super) struct BootRows {
    pub(super) agent: Arc<str>,
    pub(super) boot: Arc<str>,
    /// Their numbers in the boot, which rise.
    pub(super) seqs: Box<[i64]>,
    /// Their numbers in the source, in the same order.
    pub(super) rows: Box<[u32]>,
}

impl BootRows {
    pub(super) fn row(&self, seq: i64) -> Option<u32> {
        self.seqs.binary_search(&seq).ok().map(|index| self.rows[index])
    }

    /// First and last number.
    pub(super) fn span(&self) -> (i64, i64) {
        (self.seqs.first().copied().unwrap_or(0), self.seqs.last().copied().unwrap_or(-1))
    }
}

/// A source and its index.
pub(super) struct Known {
    pub(super) source: Source,
    pub(super) index: Index,
}

impl Known {
    /// Its first row's time, as far as is known.
    pub(super) fn first_at(&self) -> i64 {
        match &self.source {
            Source::Inbox(object) => object.at.map_or(object.uploaded_at.0, |(first, _)| first.0),
            Source::File(file) => {
                let said = file.at.map(|(first, _)| first.0);
                self.index.at.map(|(first, _)| first).or(said).unwrap_or_default()
            }
        }
    }

    /// Its last row's time, as far as is known.
    pub(super) fn last_at(&self) -> i64 {
        match &self.source {
            Source::Inbox(object) => object.at.map_or(object.uploaded_at.0, |(_, last)| last.0),
            Source::File(file) => {
                let said = file.at.map(|(_, last)| last.0);
                self.index.at.map(|(_, last)| last).or(said).unwrap_or_default()
            }
        }
    }

    /// When a row happened, about: rows of an inbox object lie in its order, and that is enough.
    pub(super) fn time_of(&self, row: u32) -> i64 {
        let later = self.index.times.get(row as usize).copied().unwrap_or_default();
        self.first_at() + i64::from(later) * 1000
    }

    /// The row that bears a number of a boot, where it is here and to be seen.
    pub(super) fn row_of(&self, agent: &str, boot: &str, seq: i64) -> Option<u32> {
        if let Some(boots) = &self.index.boots {
            let mut own = boots.iter().filter(|it| &*it.boot == boot && &*it.agent == agent);
            return own.find_map(|it| it.row(seq));
        }
        let Source::Inbox(object) = &self.source else { return None };
        let seen = (object.visible.0..=object.visible.1).contains(&seq);
        let ours = object.name.agent == agent && object.name.boot == boot;
        (seen && ours).then(|| u32::try_from(seq - object.name.first.0).ok()).flatten()
    }

    /// The flow that a row belongs to.
    pub(super) fn flow_of(&self, row: u32) -> Option<u64> {
        let part = *self.index.part_of.get(row as usize)?;
        Some(self.index.parts.get(part as usize)?.transaction)
    }
}

/// A source that was read, and is not shown yet.
pub(super) struct Prepared {
    pub(super) place: u32,
    pub(super) known: Known,
    pub(super) run: Run,
    pub(super) beyond: Beyond,
}
