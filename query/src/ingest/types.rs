//! What an ingester is told, and what it says: options, what a pass did, counts, and why not.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::Keep;
use crate::store::StoreError;

/// Why nothing was taken.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The store, or what lies in it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Rows could not be made a file.
    #[error("{0}")]
    Encode(String),
    /// The store does not keep two writers apart.
    #[error(
        "store {0} accepts a second create of the same object: writing the history there would not \
         be safe. Use a store with conditional puts (If-None-Match), or a folder"
    )]
    Unsafe(String),
    /// A newer Flowtap writes the table.
    #[error(
        "store {url}: the table {table} has columns that this flowtap does not know ({columns}), for a \
         newer one writes it: nothing is written, or they would be lost. Upgrade flowtap; reading goes on"
    )]
    Newer {
        /// The store.
        url: String,
        /// The table.
        table: String,
        /// Their names.
        columns: String,
    },
    /// The table cannot be brought to the columns of this Flowtap.
    #[error("store {url}: the table {table} cannot be written: its column {column} {why}")]
    Columns {
        /// The store.
        url: String,
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// What is wrong with it.
        why: String,
    },
    /// Others were quicker, again and again.
    #[error("other ingesters commit all the time")]
    Races,
}

/// How it is done.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Inbox objects stay for so long after their rows are committed.
    pub grace: Duration,
    /// What goes when it is too old or too much.
    pub keep: Keep,
}

impl Default for Options {
    fn default() -> Self {
        Self { grace: Duration::from_mins(10), keep: Keep::default() }
    }
}

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Objects taken.
    pub objects: usize,
    /// Rows taken.
    pub rows: usize,
    /// Objects put into quarantine.
    pub quarantined: usize,
    /// Objects that wait behind one that is missing.
    pub waiting: usize,
    /// Objects that wait for a newer Flowtap.
    pub newer: usize,
    /// Objects deleted from the inbox.
    pub swept: usize,
    /// There is more to be taken at once.
    pub more: bool,
    /// The version of the table afterwards.
    pub version: u64,
}

/// What was done since the start, for metrics. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Rows committed.
    pub rows: Counter,
    /// Objects whose rows were committed.
    pub objects: Counter,
    /// Objects put into quarantine.
    pub quarantined: Counter,
    /// Files made of small ones.
    pub merged: Counter,
    /// Directories written.
    pub directories: Counter,
    /// Rounds that failed; what they left is taken by the next one.
    pub failures: Counter,
    /// Commits of derived tables.
    pub derived: Counter,
    /// Times that derived tables could not be kept up; the next time makes up for it.
    pub derived_failures: Counter,
    /// Objects that wait for a newer Flowtap, as of the last pass.
    pub newer: Gauge,
}
