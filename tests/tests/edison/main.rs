//! The demo as its visitors use it: each fault switched on and off, and what Flowtap says of the
//! order that it hit; and the page in a real browser.

mod coverage;
mod faults;
mod game;
mod kafka;
mod page;
mod restarts;

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use flowtap_tests::edison::Edison;

/// The demo that all tests of this executable share, one at a time: a fault hits everybody.
fn edison() -> Option<MutexGuard<'static, Edison>> {
    static SHARED: OnceLock<Option<Mutex<Edison>>> = OnceLock::new();
    // A service's habits are known from twenty handlings on.
    let shared = SHARED.get_or_init(|| {
        let edison = Edison::start(200, &[])?;
        // Its own stuck order has to be stuck before everything is repaired.
        let ticket = edison.ticket().to_owned();
        edison.await_verdict(&ticket, "broken", |verdict| verdict["state"] == "broken");
        Some(Mutex::new(edison))
    });
    let edison = shared.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
    edison.fault(&["off"]);
    Some(edison)
}
