//! From rows to an answer: [`Flow::assemble`] says which rows are one message and who caused what,
//! [`judge`] gives the verdict. Pure functions over plain rows: no I/O, no clock. The rules stand
//! in `docs/verdict.md`.

mod assemble;
mod coverage;
mod groups;
mod habits;
mod judge;
mod row;
mod say;
mod world;

pub use assemble::{Edge, Flow, Handling, How, Lost, Message, Publish};
pub use coverage::{Agent, Coverage, Gap, Life, Said, Sight};
pub use groups::{Groups, Slot};
pub use habits::{ENOUGH, Habit, Habits};
pub use judge::{Evidence, Finding, Known, Place, State, Verdict, judge, sounds_dead};
pub use row::{Broker, KeyValue, Row, RowId};
pub use say::{clock, coverage_sentence, path};
pub use world::{Consumer, Name, World, queue_of};

#[cfg(test)]
mod tests;
