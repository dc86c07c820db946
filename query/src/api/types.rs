//! What the HTTP API says, as types: the OpenAPI document is made from these. Times are RFC 3339
//! in UTC with microseconds; null means not known; lists are never null.

mod coverage;
mod flow;
mod map;
mod sql;

pub use coverage::{Agent, AgentLife, AgentList, Coverage, Gap, Silent, Tap};
pub use flow::{
    By, Edge, Evidence, FlowDetail, FlowList, FlowSummary, Found, Handling, How, Key, Matched,
    Message, Place, Record, Related, RowRef, State, Verdict, Why,
};
pub use map::{MapAnswer, MapEdge, MapHow, Node, NodeKind};
pub use sql::{ErrorAnswer, ErrorBody, SqlAnswer, SqlColumn, SqlFormat, SqlQuestion};
