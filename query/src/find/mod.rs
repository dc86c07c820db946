//! Which rows belong together, found without a scan: a small index of each inbox object and of each
//! file of the table, kept in memory, and the few rows that an answer needs, read from Parquet. Its
//! input is what [`crate::store`] lists, its output are rows for [`crate::flow`].
//!
//! Objects and files never change, so an index is made once. What is not about one flow (topology,
//! gaps, counts for the map, what usually follows) is taken out on the way, once for each row,
//! however often it moves.

mod building;
mod cache;
mod catalog;
mod chunks;
mod clock;
mod collect;
mod columns;
mod counts;
mod far;
mod follow;
mod gather;
mod ids;
mod inner;
mod keeper;
mod known;
mod lately;
mod learnt;
mod list;
mod lookup;
mod loose;
mod moved;
mod object;
mod pending;
mod read;
mod reading;
mod shown;
mod status;
mod table;
mod twin;
mod unread;

pub use catalog::{Catalog, FlowEntry, Health, Marks, Order, Snapshot};
pub(crate) use collect::Collected;
pub use gather::{FlowId, Gathered, Hits, MAX_RECORDS};
pub use list::Listed;
pub use object::{MapKey, hash};
pub use read::Wanted;
pub(crate) use status::Statuses;
pub use unread::Missing;
pub(crate) use unread::began;
