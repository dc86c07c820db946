//! Whole-program tests: a service that nobody here wrote, a sidecar, a real broker, a real store,
//! and `flowtap sql` to read what was recorded. One executable, so that all share two brokers.

mod celery;
mod counters;
mod crash;
mod lapin;
mod objects;
mod payloads;
mod policies;
mod puts;
mod rules;
mod secrets;
mod services;
mod sessions;
mod spool;
mod stall;
mod stores;
mod support;
mod transport;
