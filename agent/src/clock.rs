//! The agent's time: microseconds since 1970 that never run backward within a boot. Taps stamp
//! rows with it, the spool its marks and gaps, the uploader its watermarks.
//!
//! It reads the wall clock once and the monotonic clock from then on, so it biases towards order
//! within a boot and against agreement with a wall clock that is set back: such a step is never
//! followed, and shows in the status object's clock sample instead. A step forward of more than a
//! second (a suspended machine, a clock that was corrected) is followed by [`Clock::catch_up`],
//! which the spool calls once a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use flowtap_record::Micros;

/// A step of the wall clock that is worth following.
const STEP_US: i64 = 1_000_000;

/// A clock that can be cloned and shared; see the module.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
enum Source {
    /// Microseconds since 1970 at `anchor`, which only ever grow.
    Real { anchor: Instant, offset: AtomicI64 },
    /// What a test last set.
    Manual(AtomicI64),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Arc::new(Source::Real { anchor: Instant::now(), offset: AtomicI64::new(wall()) }))
    }

    /// A clock that stands still until it is moved with [`Self::advance`].
    pub fn manual(start: Micros) -> Self {
        Self(Arc::new(Source::Manual(AtomicI64::new(start.0))))
    }

    /// The time now.
    pub fn now(&self) -> Micros {
        match &*self.0 {
            Source::Real { anchor, offset } => {
                Micros(offset.load(Ordering::Relaxed) + anchor.elapsed().as_micros() as i64)
            }
            Source::Manual(now) => Micros(now.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock forward; the machine's clock can't be moved.
    pub fn advance(&self, micros: u32) {
        if let Source::Manual(now) = &*self.0 {
            now.fetch_add(i64::from(micros), Ordering::SeqCst);
        }
    }

    /// Follows the wall clock if it is more than a second ahead.
    pub fn catch_up(&self) {
        if let Source::Real { offset, .. } = &*self.0 {
            let behind = wall() - self.now().0;
            if behind > STEP_US {
                offset.fetch_add(behind, Ordering::Relaxed);
                tracing::warn!(step_us = behind, "the wall clock went ahead, following it");
            }
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

fn wall() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_runs_backward_and_follows_only_steps_forward() {
        let clock = Clock::system();
        let first = clock.now();
        clock.catch_up();
        assert!(clock.now() >= first);
        let Source::Real { offset, .. } = &*clock.0 else { panic!("a real clock") };
        offset.fetch_sub(10 * STEP_US, Ordering::Relaxed);
        clock.catch_up();
        assert!(clock.now() >= first);
        offset.fetch_add(3600 * STEP_US, Ordering::Relaxed);
        let ahead = clock.now();
        clock.catch_up();
        assert!(clock.now() >= ahead);
    }

    #[test]
    fn a_manual_clock_stands_still() {
        let clock = Clock::manual(Micros(5));
        clock.advance(7);
        clock.catch_up();
        assert_eq!(clock.now(), Micros(12));
    }
}
