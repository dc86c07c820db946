//! Which rows belong together, found without a scan: a small index of each inbox object, kept in
//! memory, and the few rows that an answer needs, read from Parquet. Its input is what
//! [`crate::store`] lists, its output are rows for [`crate::flow`].
//!
//! Objects never change, so an index is made once. What is not about one flow (topology, gaps,
//! counts for the map, what usually follows) is taken out on the way.

mod catalog;
mod columns;
mod gather;
mod object;
mod read;
mod status;

pub use catalog::{Catalog, FlowEntry, Marks, Order, Snapshot};
pub use gather::{FlowId, Gathered, Hit, MAX_RECORDS};
pub use object::{MapKey, hash};
pub use read::Wanted;
pub(crate) use status::Statuses;
