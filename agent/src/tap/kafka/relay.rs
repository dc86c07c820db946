//! The sockets of one Kafka connection: what they give is shown to the [`Conversation`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use super::conversation::{Around, Conversation, Step};
use super::feed::{Ends, Ticket};
use crate::tap::pump::{self, Gate, Queue};
use crate::tap::{Ended, Recorder, Side};

struct Shared<R> {
    conversation: Mutex<Conversation>,
    around: Arc<Around>,
    recorder: R,
}

impl<R> Shared<R> {
    /// It stays usable after a panic elsewhere: it only observes.
    fn conversation(&self) -> MutexGuard<'_, Conversation> {
        self.conversation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes bytes between client and broker until both sides have ended. `stop` ends it from outside,
/// with its reason.
pub(super) async fn relay<C, B, R>(
    client: &mut C,
    broker: &mut B,
    around: &Arc<Around>,
    recorder: R,
    (number, ends): (i64, Ends),
    stop: impl Future<Output = &'static str>,
) -> Ended
where
    C: AsyncRead + AsyncWrite + Unpin + ?Sized,
    B: AsyncRead + AsyncWrite + Unpin + ?Sized,
    R: Recorder,
{
    let conversation = Conversation::new(Arc::clone(around), number, ends, recorder.now());
    let conversation = Mutex::new(conversation);
    let shared = Shared { conversation, around: Arc::clone(around), recorder };
    let (ended, reason) = pump::relay(client, broker, &shared, &around.metrics, stop).await;
    let now = shared.recorder.now();
    shared.conversation().end(now, reason);
    ended
}

impl<R: Recorder> Gate for Shared<R> {
    type Hold = Ticket;

    fn pass(&self, side: Side, input: &mut BytesMut, queue: &mut Queue<Ticket>) -> Option<Vec<u8>> {
        let now = self.recorder.now();
        let mut conversation = self.conversation();
        loop {
            match conversation.step(side, now, input) {
                Step::More => return None,
                Step::Out(bytes, hold) => {
                    if hold.is_some() {
                        self.around.metrics.held_frames.inc();
                    }
                    queue.push(bytes, hold);
                }
                Step::Refuse => return Some(Vec::new()),
            }
        }
    }

    async fn released(&self, ticket: Ticket) {
        let Some(feed) = &self.around.feed else { return };
        if let Some(seq) = feed.decoded(ticket).await {
            self.recorder.written(seq).await;
        }
    }
}

#[cfg(test)]
mod tests;
