//! The reading half of Flowtap: from what agents put into the store to answers.
//!
//! [`ingest`] moves what agents put into the store into its table `history`, and keeps up what is made of it. The rest reads, in one
//! direction: [`store`] says which objects are to be read, [`tables`] makes DataFusion tables
//! and views of them, [`sql`] runs one bounded, read-only query over these, and [`cli`] is the
//! command `flowtap`.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use flowtap_query::{sql, store::Store, tables};
//!
//! let store = Store::open("file:///var/lib/flowtap")?;
//! let context = tables::context(&store, &tables::Limits::default()).await?;
//! let rows = sql::query(&context, "SELECT count(*) FROM publishes").await?;
//! # Ok(())
//! # }
//! ```

pub mod answer;
pub mod api;
pub mod cli;
mod derived;
pub mod find;
pub mod flow;
pub mod ingest;
pub mod progress;
pub mod sql;
pub mod store;
pub mod tables;
pub mod verify;
