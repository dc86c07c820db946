//! The decoding thread of a tap: takes what the relay has handed over, in order, and shows it to
//! the state. It ends when all connections of the tap are closed and all is decoded.

use std::sync::Arc;
use std::time::Duration;

use super::brokers::Brokers;
use super::feed::{Intake, Next};
use super::listener::Env;
use super::state::State;
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
    let mut state = State::new(env, brokers.topics());
    let mut last_tick = recorder.now();
    loop {
        match intake.next(TICK) {
            Next::Item(ticket, item) => {
                let bytes = Intake::weight(&item);
                state.apply(item, &mut recorder);
                intake.done(ticket, bytes, state.newest());
                let learned = state.learned();
                if !learned.is_empty() {
                    brokers.remember_topics(learned.iter().map(|(id, name)| (*id, name.as_ref())));
                }
            }
            Next::Idle => {}
            Next::Ended => return,
        }
        let now = recorder.now();
        if now.since(last_tick) >= TICK_US {
            last_tick = now;
            state.tick(now, &mut recorder);
        }
    }
}
