//! The decoding thread of a tap: takes what the relay has handed over, in order, and shows it to
//! the state. It ends when all connections of the tap are closed and all is decoded.
//!
//! Time passes for the state with what it decodes: while much waits, nobody counts as silent who
//! has merely not been decoded yet.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use flowtap_record::Micros;

use super::brokers::Brokers;
use super::feed::{Intake, Item, Next};
use super::listener::Env;
use super::state::State;
use crate::metrics::TapMetrics;
use crate::tap::Recorder;

/// How often the state looks at the clock: sessions of members that nobody hears of run out.
const TICK: Duration = Duration::from_secs(1);
const TICK_US: i64 = 1_000_000;

/// Decodes until all relays are gone.
#[allow(clippy::needless_pass_by_value)] // it is a thread's own
pub(super) fn decode<R: Recorder>(
    intake: Intake,
    env: Arc<Env>,
    brokers: Arc<Brokers>,
    mut recorder: R,
) {
    let metrics = env.metrics.clone();
    let mut state = State::new(env, brokers.topics());
    let mut last_tick = Micros::default();
    loop {
        let now = match intake.next(TICK) {
            Next::Item(ticket, item) => {
                let (bytes, at) = (Intake::weight(&item), item.at);
                apply(&mut state, &metrics, item, &mut recorder);
                intake.keeps(state.kept());
                intake.done(ticket, bytes, state.newest());
                let learned = state.learned();
                if !learned.is_empty() {
                    brokers.remember_topics(learned.iter().map(|(id, name)| (*id, name.as_ref())));
                }
                at
            }
            Next::Idle => recorder.now(),
            Next::Ended => return,
        };
        if now.since(last_tick) >= TICK_US {
            last_tick = now;
            guarded(&metrics, || state.tick(now, &mut recorder));
        }
    }
}

/// Shows an item to the state. A fault of ours costs one connection its decoding, not all.
fn apply<R: Recorder>(state: &mut State, metrics: &TapMetrics, item: Item, recorder: &mut R) {
    let (connection, at): (i64, Micros) = (item.connection, item.at);
    if !guarded(metrics, || state.apply(item, recorder)) {
        guarded(metrics, || state.give_up(connection, at, recorder));
    }
}

/// Whether it went well.
fn guarded(metrics: &TapMetrics, act: impl FnOnce()) -> bool {
    // What was left in the middle is counters and maps: they may be wrong, never unsound.
    let went_well = catch_unwind(AssertUnwindSafe(act)).is_ok();
    if !went_well {
        metrics.undecodable("decoder_failed");
        tracing::error!("the decoder of a Kafka tap failed: please report this");
    }
    went_well
}

#[cfg(test)]
mod tests;
