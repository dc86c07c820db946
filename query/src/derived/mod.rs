//! Tables that are made of `history`, kept up as rows arrive, and made again at any time: their frame
//! ([`Derived`]), and the first of them ([`flows`]).
//!
//! A row of `history` makes a *part* (one row of the derived table, about this one row); parts are put
//! together ([`Fold`]) as they are written, as files are merged and as they are read. So each row must
//! be in the parts exactly once. Which rows are in them is said by a [`state`] object that each commit
//! makes true, as `ingest/<n>.json` does for `history`; what is not ([`covered`]) is added by who reads.
//! One writer at a time is at work ([`lease`]); were it two, only one of them could commit ([`keep`]).

pub(crate) mod covered;
pub(crate) mod flows;
mod keep;
mod lease;
pub(crate) mod lists;
mod merge;
pub(crate) mod state;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::prelude::Expr;

pub(crate) use self::keep::Keeper;
use crate::ingest::files::SortedBy;

/// A table that is made of `history`.
#[derive(Debug)]
pub(crate) struct Derived {
    /// Its name.
    pub(crate) name: &'static str,
    /// To be raised when its columns change, or what they mean: then it is made anew, in a folder of
    /// its own, so that processes of two versions do not disturb one another.
    pub(crate) version: u32,
    /// How its rows lie within a day.
    pub(crate) sorted_by: SortedBy,
    /// Its columns. The last is `day`, that of the rows of `history`: so it loses the days that
    /// `history` loses.
    pub(crate) schema: fn() -> SchemaRef,
    /// Which rows of `history` it is made of.
    pub(crate) of_rows: fn() -> Expr,
    /// The columns of the part that one row makes.
    pub(crate) part: fn() -> Vec<Expr>,
    /// Puts parts together.
    pub(crate) fold: fn() -> Box<dyn Fold>,
}

/// Parts that are put together. What comes out may be put together again, with the same result.
pub(crate) trait Fold: Send {
    /// Takes in rows of the table.
    fn add(&mut self, parts: &RecordBatch) -> Result<(), String>;

    /// How many rows it holds.
    fn len(&self) -> usize;

    /// Takes out what it holds, in order; but for the last, if what comes next may belong to it.
    fn take(&mut self, but_the_last: bool) -> Result<RecordBatch, String>;
}

impl Derived {
    /// The folder of this version of it.
    fn folder(&self) -> String {
        format!("derived/{}/v{}", self.name, self.version)
    }

    /// The Delta table, as a path in the store.
    pub(crate) fn table(&self) -> String {
        format!("{}/table", self.folder())
    }
}
