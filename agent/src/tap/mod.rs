//! Taps: between a service and its broker. They forward first, then say what they saw.

pub mod amqp;
mod budget;
mod door;
pub mod kafka;
mod kept;
mod pump;

pub use budget::Budget;
pub use pump::Ended;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use flowtap_record::{Micros, Observation, Seq};

/// Where bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The service.
    Client,
    /// The broker.
    Broker,
}

/// Where a tap's state machine puts its rows. The spool is one, a test's list is another.
pub trait Sink {
    /// Takes a row and gives it its number, or `None` when it had to be shed (then it is counted,
    /// and a `gap` row will say so). Never waits.
    fn record(&mut self, row: &Observation<'_>) -> Option<Seq>;

    /// Whether the row has been handed to the operating system, so that it survives kill -9.
    fn is_written(&self, seq: Seq) -> bool;
}

/// A sink that connections share, and that says when rows are safe.
pub trait Recorder: Sink + Clone + Send + Sync + 'static {
    /// Resolves when the row has been handed to the operating system.
    fn written(&self, seq: Seq) -> impl Future<Output = ()> + Send;

    /// The time, monotone within the boot.
    fn now(&self) -> Micros;

    /// Watermarks stay before the time that stands there: microseconds since 1970 of the oldest
    /// bytes that the tap has read and not decoded, `i64::MAX` for none.
    fn stay_before(&self, undecoded: Arc<AtomicI64>);
}
