//! How the agent starts, stays up and stops: which phase it is in, how many client connections are
//! open, whether its listeners are bound. Taps write here; `app` and the admin port read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// What the agent is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It taps.
    Running,
    /// It was told to stop; taps go on serving, new connections too.
    Draining,
    /// Listeners and connections are to be closed now.
    Closing,
}

/// The one lifecycle of a process; clones share it.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    phase: watch::Sender<Phase>,
    open: watch::Sender<usize>,
    listeners: watch::Sender<Listeners>,
    /// What can forward no more, and why.
    stuck: Mutex<BTreeMap<String, String>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Listeners {
    wanted: usize,
    bound: usize,
}

/// One open client connection; it counts until this is dropped.
#[derive(Debug)]
pub struct OpenConnection {
    shared: Arc<Shared>,
}

impl Lifecycle {
    /// A process that wants this many listeners, none of them bound yet.
    pub fn new(listeners: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                phase: watch::Sender::new(Phase::Running),
                open: watch::Sender::new(0),
                listeners: watch::Sender::new(Listeners { wanted: listeners, bound: 0 }),
                stuck: Mutex::default(),
            }),
        }
    }

    /// The phase now, and its changes.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.shared.phase.subscribe()
    }

    /// Waits for a phase, or a later one.
    pub async fn reached(&self, wanted: Phase) {
        let mut phase = self.phase();
        // The sender lives as long as `self`, so this cannot end otherwise.
        let _ = phase.wait_for(|now| *now as u8 >= wanted as u8).await;
    }

    /// The output of something, unless the agent closes before it comes.
    pub async fn unless_closing<T>(&self, something: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            output = something => Some(output),
            () = self.reached(Phase::Closing) => None,
        }
    }

    /// Moves on; never back.
    pub fn enter(&self, phase: Phase) {
        self.shared.phase.send_if_modified(|now| {
            let forward = phase as u8 > *now as u8;
            if forward {
                *now = phase;
            }
            forward
        });
    }

    /// Counts a client connection.
    pub fn connection(&self) -> OpenConnection {
        self.shared.open.send_modify(|open| *open += 1);
        OpenConnection { shared: self.shared.clone() }
    }

    /// Client connections open now.
    pub fn open_connections(&self) -> usize {
        *self.shared.open.borrow()
    }

    /// Waits until no client connection is open, at most this long. Says whether all are closed.
    pub async fn idle(&self, limit: Duration) -> bool {
        let mut open = self.shared.open.subscribe();
        tokio::time::timeout(limit, open.wait_for(|open| *open == 0)).await.is_ok()
    }

    /// A tap has bound its listener.
    pub fn listener_bound(&self) {
        self.shared.listeners.send_modify(|listeners| listeners.bound += 1);
    }

    /// A listener can forward no more: the agent's liveness fails until it [`Self::recovered`].
    pub fn stuck(&self, listener: &str, why: impl Into<String>) {
        let why = why.into();
        if !self.stuck_listeners().contains_key(listener) {
            tracing::error!(listener, reason = %why, "cannot forward any more");
            self.stuck_listeners().insert(listener.to_owned(), why);
        }
    }

    /// A listener that was stuck forwards again.
    pub fn recovered(&self, listener: &str) {
        if self.stuck_listeners().remove(listener).is_some() {
            tracing::warn!(listener, "forwards again");
        }
    }

    fn stuck_listeners(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.shared.stuck.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the agent is not ready, if so: its listeners are not all bound, or closed again.
    pub fn why_not_ready(&self) -> Option<String> {
        let Listeners { wanted, bound } = *self.shared.listeners.borrow();
        if *self.shared.phase.borrow() == Phase::Closing {
            return Some("listeners are closed".to_owned());
        }
        (bound < wanted).then(|| format!("{bound} of {wanted} listeners bound"))
    }

    /// Why the agent is not live, if so.
    pub fn why_not_live(&self) -> Option<String> {
        let stuck = self.stuck_listeners();
        stuck.iter().next().map(|(listener, why)| format!("{listener}: {why}"))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.shared.open.send_modify(|open| *open -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn idle_waits_for_the_last_connection() {
        let lifecycle = Lifecycle::new(0);
        let connection = lifecycle.connection();
        assert!(!lifecycle.idle(Duration::ZERO).await);
        let waiting = tokio::spawn({
            let lifecycle = lifecycle.clone();
            async move { lifecycle.idle(Duration::from_hours(1)).await }
        });
        drop(connection);
        assert!(waiting.await.unwrap());
    }

    #[tokio::test]
    async fn what_takes_long_is_given_up_when_the_agent_closes() {
        let lifecycle = Lifecycle::new(0);
        assert_eq!(lifecycle.unless_closing(std::future::ready(1)).await, Some(1));
        let waiting = tokio::spawn({
            let lifecycle = lifecycle.clone();
            async move { lifecycle.unless_closing(std::future::pending::<()>()).await }
        });
        lifecycle.enter(Phase::Closing);
        assert_eq!(waiting.await.unwrap(), None);
    }

    #[test]
    fn a_listener_that_recovers_leaves_those_that_do_not() {
        let lifecycle = Lifecycle::new(2);
        lifecycle.stuck("a", "out of files");
        lifecycle.stuck("b", "ended");
        assert_eq!(lifecycle.why_not_live().as_deref(), Some("a: out of files"));
        lifecycle.recovered("a");
        assert_eq!(lifecycle.why_not_live().as_deref(), Some("b: ended"));
        lifecycle.recovered("b");
        assert_eq!(lifecycle.why_not_live(), None);
    }

    #[tokio::test]
    async fn phases_only_go_forward() {
        let lifecycle = Lifecycle::new(0);
        lifecycle.enter(Phase::Closing);
        lifecycle.enter(Phase::Draining);
        assert_eq!(*lifecycle.phase().borrow(), Phase::Closing);
        lifecycle.reached(Phase::Draining).await;
    }

    #[test]
    fn readiness_counts_listeners_and_ends_with_them() {
        let lifecycle = Lifecycle::new(2);
        lifecycle.listener_bound();
        assert_eq!(lifecycle.why_not_ready().as_deref(), Some("1 of 2 listeners bound"));
        lifecycle.listener_bound();
        assert_eq!(lifecycle.why_not_ready(), None);
        lifecycle.enter(Phase::Draining);
        assert_eq!(lifecycle.why_not_ready(), None, "a draining agent still serves");
        lifecycle.enter(Phase::Closing);
        assert!(lifecycle.why_not_ready().is_some());
    }
}
