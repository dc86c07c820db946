//! Which rows belong together, found without a scan: a small index of each inbox object, kept in
//! memory, and the few rows that an answer needs, read from Parquet. Its input is what
//! [`crate::store`] lists, its output are rows for [`crate::flow`].
//!
//! Objects never change, so an index is made once. What is not about one flow (topology, gaps,
//! counts for the map, what usually follows) is taken out on the way.

mod catalog;
mod clock;
mod columns;
mod counts;
mod gather;
mod inner;
mod keeper;
mod lately;
mod list;
mod lookup;
mod loose;
mod object;
mod pending;
mod read;
mod status;
mod twin;
mod unread;

pub use catalog::{Catalog, FlowEntry, Health, Marks, Order, Snapshot};
pub use gather::{FlowId, Gathered, Hits, MAX_RECORDS};
pub use list::Listed;
pub use object::{MapKey, hash};
pub use read::Wanted;
pub(crate) use status::Statuses;
pub use unread::Missing;
