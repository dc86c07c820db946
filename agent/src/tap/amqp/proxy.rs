//! One AMQP connection: what the sockets give is shown to the [`Session`], which says what goes on,
//! what waits for its rows to be written, and what does not go on at all. Should looking at a
//! message ever panic, the connection goes on unseen.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use flowtap_record::Seq;
use tokio::io::{AsyncRead, AsyncWrite};

use super::session::{Session, Step};
use crate::metrics::TapMetrics;
use crate::tap::pump::{self, Gate, Queue};
use crate::tap::{Ended, Recorder, Side};

/// Above this many bytes unread by the client, publishes are no longer made mandatory.
const SLOW: usize = 64 * 1024;

struct Shared<'a, R> {
    session: Mutex<Session>,
    /// Bytes that the client has left unread.
    unread: AtomicUsize,
    recorder: R,
    metrics: &'a TapMetrics,
}

impl<R> Shared<'_, R> {
    /// The session stays usable after a panic elsewhere: it only observes.
    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes bytes between client and broker until both sides have ended, and records what they say.
/// `stop` ends it from outside, with its reason.
pub async fn relay<C, B, R>(
    client: &mut C,
    broker: &mut B,
    session: Session,
    recorder: R,
    metrics: &TapMetrics,
    stop: impl Future<Output = &'static str>,
) -> Ended
where
    C: AsyncRead + AsyncWrite + Unpin + ?Sized,
    B: AsyncRead + AsyncWrite + Unpin + ?Sized,
    R: Recorder,
{
    let session = Mutex::new(session);
    let shared = Shared { session, unread: AtomicUsize::new(0), recorder, metrics };
    let (ended, reason) = pump::relay(client, broker, &shared, metrics, stop).await;
    let mut recorder = shared.recorder.clone();
    let now = recorder.now();
    shared.session().end(now, reason, &mut recorder);
    ended
}

impl<R: Recorder> Gate for Shared<'_, R> {
    type Hold = Seq;

    fn waiting(&self, side: Side, bytes: usize) {
        if side == Side::Broker {
            self.unread.store(bytes, Ordering::Relaxed);
        }
    }

    async fn released(&self, seq: Seq) {
        self.recorder.written(seq).await;
    }

    fn pass(&self, side: Side, input: &mut BytesMut, queue: &mut Queue<Seq>) -> Option<Vec<u8>> {
        let mut recorder = self.recorder.clone();
        let mut session = self.session();
        session.client_is_slow(self.unread.load(Ordering::Relaxed) > SLOW);
        let now = recorder.now();
        // What may go on together: from `start`, held for `hold`.
        let (mut start, mut position) = (0, 0);
        let mut hold: Option<Seq> = None;
        let mut runs: Vec<(usize, usize, Option<Seq>)> = Vec::new();
        let mut refusal = None;
        loop {
            let rest = &mut input[position..];
            let length = rest.len();
            let step = || session.step(side, now, rest, &mut recorder);
            let step = catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|_| {
                session.panicked(now, &mut recorder);
                Step::Forward(length)
            });
            match step {
                Step::NeedMore => break,
                Step::Forward(count) => position += count,
                Step::ForwardAfter(count, seq) => {
                    self.metrics.held_frames.inc();
                    if hold.is_none() {
                        runs.push((start, position, None));
                        start = position;
                    }
                    hold = hold.max(Some(seq));
                    position += count;
                }
                Step::Drop(count) => {
                    runs.push((start, position, hold));
                    position += count;
                    start = position;
                }
                Step::Refuse(bytes) => {
                    refusal = Some(bytes);
                    break;
                }
            }
        }
        drop(session);
        runs.push((start, position, hold));
        let taken = input.split_to(position).freeze();
        for (start, end, hold) in runs {
            queue.push(taken.slice(start..end), hold);
        }
        refusal
    }
}
