//! The sockets of one connection: bytes are read, shown to the tap's [`Gate`], and written to the
//! other side. Forwarding comes first; only bytes that conclude something wait for their rows to
//! be written, and those for 20 ms at most. Half-closes and resets are passed on.
//!
//! Each direction reads ahead a bounded amount, so that what the tap takes from a stream for itself
//! is read even while the other side does not.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::Side;
use crate::metrics::TapMetrics;

/// No byte waits for the disk longer than this.
const HOLD: Duration = Duration::from_millis(20);
/// Forwarded bytes that may wait for a side to read them, before the other side is left unread.
const READ_AHEAD: usize = 256 * 1024;
/// Size of the buffer that is read into: grows while reads fill it.
const READ_MIN: usize = 8 * 1024;
const READ_MAX: usize = 128 * 1024;
/// When one side is gone, how long the other may be silent before its last words are taken as said:
/// a host that has died says nothing at all.
const LINGER: Duration = Duration::from_secs(5);
/// What a side has said before it closed in order is kept for the other so long while that reads
/// nothing: about as long as a kernel would.
const PATIENCE: Duration = Duration::from_mins(1);
/// Chunks that are written at once.
const VECTORED: usize = 32;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A side closed its socket in order.
    Closed(Side),
    /// A side's socket failed: reset, timed out.
    Failed(Side),
    /// The tap refused to go on.
    Refused,
}

impl Ended {
    /// As the `reason` of rows.
    pub fn reason(self) -> &'static str {
        match self {
            Ended::Closed(Side::Client) => "client closed the socket",
            Ended::Closed(Side::Broker) => "broker closed the socket",
            Ended::Failed(Side::Client) => "connection to the client lost",
            Ended::Failed(Side::Broker) => "connection to the broker lost",
            Ended::Refused => "client refused by the sidecar",
        }
    }
}

/// What looks at the bytes of a connection between reading and writing.
pub(crate) trait Gate: Sync {
    /// What bytes may have to wait for.
    type Hold: Copy + Send + Sync;

    /// Takes what may go on from `input` and queues it for the other side. Bytes to say to the
    /// client instead, when the connection is to end now.
    fn pass(
        &self,
        side: Side,
        input: &mut BytesMut,
        queue: &mut Queue<Self::Hold>,
    ) -> Option<Vec<u8>>;

    /// So many bytes of `side` have been read and are not yet with the other side.
    fn waiting(&self, _side: Side, _bytes: usize) {}

    /// Resolves when what was held for this may go.
    fn released(&self, hold: Self::Hold) -> impl Future<Output = ()> + Send;
}

/// Passes bytes between client and broker until both sides have ended. `stop` ends it from outside,
/// with its reason. How it ended, and why.
pub(crate) async fn relay<C, B, G>(
    client: &mut C,
    broker: &mut B,
    gate: &G,
    metrics: &TapMetrics,
    stop: impl Future<Output = &'static str>,
) -> (Ended, &'static str)
where
    C: AsyncRead + AsyncWrite + Unpin + ?Sized,
    B: AsyncRead + AsyncWrite + Unpin + ?Sized,
    G: Gate,
{
    let (client_read, mut client_write) = tokio::io::split(client);
    let (broker_read, mut broker_write) = tokio::io::split(broker);
    let (ended, reason) = {
        let (ups, downs) = (Progress::default(), Progress::default());
        let up = pump(Side::Client, client_read, &mut broker_write, gate, metrics, &ups);
        let down = pump(Side::Broker, broker_read, &mut client_write, gate, metrics, &downs);
        let both = async {
            tokio::pin!(up, down);
            tokio::select! {
                ended = &mut up => last_words(ended, down, &downs).await,
                ended = &mut down => last_words(ended, up, &ups).await,
            }
        };
        tokio::select! {
            ended = both => (ended, None),
            reason = stop => (End::from(Ended::Closed(Side::Client)), Some(reason)),
        }
    };
    if let Some(refusal) = ended.refusal {
        let told = async {
            client_write.write_all(&refusal).await?;
            client_write.flush().await
        };
        // The client may be gone already, or not listen; then nobody is left to be told.
        let _ = tokio::time::timeout(LINGER, told).await;
    }
    (ended.how, reason.unwrap_or(ended.how.reason()))
}

/// One direction's end.
struct End {
    how: Ended,
    refusal: Option<Vec<u8>>,
}

impl From<Ended> for End {
    fn from(how: Ended) -> Self {
        Self { how, refusal: None }
    }
}

/// Counts what a direction does, so that one that has come to a stand is told from a slow one.
#[derive(Default)]
struct Progress(AtomicU64);

impl Progress {
    fn made(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for the direction's end as long as it gets on. `None`: it does not.
    async fn watch(&self, direction: impl Future<Output = End>) -> Option<End> {
        tokio::pin!(direction);
        loop {
            let before = self.0.load(Ordering::Relaxed);
            match tokio::time::timeout(LINGER, &mut direction).await {
                Ok(end) => return Some(end),
                Err(_) if self.0.load(Ordering::Relaxed) == before => return None,
                Err(_) => {}
            }
        }
    }
}

/// After one direction has ended: the other may go on while it gets on, as it may without a proxy
/// when one side has closed only its half; after a failure it has a few seconds for what is under
/// way.
async fn last_words(first: End, other: impl Future<Output = End>, progress: &Progress) -> End {
    match first.how {
        Ended::Refused => {}
        Ended::Closed(_) => {
            if let Some(last) = progress.watch(other).await
                && last.how == Ended::Refused
            {
                return last;
            }
        }
        Ended::Failed(_) => {
            let _ = tokio::time::timeout(LINGER, other).await;
        }
    }
    first
}

/// One direction: reads from `side`, writes to the other.
async fn pump<G: Gate>(
    side: Side,
    mut reader: impl AsyncRead + Unpin,
    writer: &mut (impl AsyncWrite + Unpin),
    gate: &G,
    metrics: &TapMetrics,
    progress: &Progress,
) -> End {
    let other = if side == Side::Client { Side::Broker } else { Side::Client };
    let mut queue = Queue::default();
    let mut input = BytesMut::new();
    let mut read_size = READ_MIN;
    let mut open = true;
    // Whether reading has failed or was refused, and, with nothing more to read, until when what was
    // read may still be written.
    let mut failed = false;
    let mut refused: Option<Vec<u8>> = None;
    let mut deadline: Option<Instant> = None;
    let mut unflushed = false;
    while open || !queue.chunks.is_empty() || unflushed {
        let hold = queue.hold();
        tokio::select! {
            read = read_some(&mut reader, &mut input, &mut read_size), if open && queue.bytes < READ_AHEAD => {
                match read {
                    Ok(0) => {
                        open = false;
                        deadline = Some(Instant::now() + PATIENCE);
                        queue.push(input.split().freeze(), None);
                    }
                    Ok(count) => {
                        bytes_of(metrics, side).inc_by(count as u64);
                        progress.made();
                        refused = gate.pass(side, &mut input, &mut queue);
                        if refused.is_some() {
                            // What was let through before is the other side's still.
                            open = false;
                            deadline = Some(Instant::now() + LINGER);
                        }
                    }
                    // What came before the failure is the other side's still: a broker's last words
                    // are often followed by a reset.
                    Err(_) => {
                        open = false;
                        failed = true;
                        deadline = Some(Instant::now() + LINGER);
                        queue.push(input.split().freeze(), None);
                    }
                }
                gate.waiting(side, queue.bytes);
            }
            written = write_some(writer, &queue), if hold.is_none() && (unflushed || !queue.chunks.is_empty()) => {
                match written {
                    Ok(Written::Bytes(count)) if count > 0 => {
                        queue.advance(count);
                        gate.waiting(side, queue.bytes);
                        progress.made();
                        unflushed = true;
                        if !open && !failed && refused.is_none() {
                            deadline = Some(Instant::now() + PATIENCE);
                        }
                    }
                    Ok(Written::Flushed) => unflushed = false,
                    Ok(Written::Bytes(_)) | Err(_) => return Ended::Failed(other).into(),
                }
            }
            () = released(gate, hold, metrics), if hold.is_some() => queue.release(),
            () = elapsed(deadline), if deadline.is_some() => {
                if refused.is_some() {
                    break;
                }
                return Ended::Failed(if failed { side } else { other }).into();
            }
        }
    }
    if refused.is_some() {
        return End { how: Ended::Refused, refusal: refused };
    }
    if failed {
        return Ended::Failed(side).into();
    }
    // The other side learns that this one has said all, as it would without a proxy.
    let _ = writer.shutdown().await;
    Ended::Closed(side).into()
}

async fn elapsed(deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        tokio::time::sleep_until(deadline).await;
    }
}

fn bytes_of(metrics: &TapMetrics, side: Side) -> &Counter {
    match side {
        Side::Client => &metrics.bytes_to_broker,
        Side::Broker => &metrics.bytes_to_service,
    }
}

/// Reads into the rest of the buffer; a new one is made when little of it is left, larger while
/// reads fill it, smaller when they do not.
async fn read_some(
    reader: &mut (impl AsyncRead + Unpin),
    input: &mut BytesMut,
    size: &mut usize,
) -> io::Result<usize> {
    if input.capacity() - input.len() < READ_MIN {
        input.reserve(*size);
    }
    let room = input.capacity() - input.len();
    let count = reader.read_buf(input).await?;
    if count == room {
        *size = (*size * 2).min(READ_MAX);
    } else if count < *size / 8 {
        *size = (*size / 2).max(READ_MIN);
    }
    Ok(count)
}

enum Written {
    Bytes(usize),
    Flushed,
}

/// Writes what is at the front of the queue; with nothing there, flushes (TLS keeps records back).
async fn write_some<H: Copy>(
    writer: &mut (impl AsyncWrite + Unpin),
    queue: &Queue<H>,
) -> io::Result<Written> {
    let Some(first) = queue.chunks.front() else {
        return writer.flush().await.map(|()| Written::Flushed);
    };
    let mut slices = [IoSlice::new(&[]); VECTORED];
    slices[0] = IoSlice::new(&first.bytes);
    let mut used = 1;
    let free = queue.chunks.iter().skip(1).take_while(|chunk| chunk.hold.is_none());
    for (slice, chunk) in slices[1..].iter_mut().zip(free) {
        *slice = IoSlice::new(&chunk.bytes);
        used += 1;
    }
    Ok(Written::Bytes(writer.write_vectored(&slices[..used]).await?))
}

/// Resolves when held bytes may go: their row is written, or they have waited long enough.
async fn released<G: Gate>(gate: &G, hold: Option<(G::Hold, Instant)>, metrics: &TapMetrics) {
    let Some((hold, deadline)) = hold else { return };
    if tokio::time::timeout_at(deadline, gate.released(hold)).await.is_err() {
        metrics.held_timeouts.inc();
    }
}

// === Queue ===

/// Bytes on their way to the other side.
struct Chunk<H> {
    bytes: Bytes,
    /// To be written once this is released, or at the deadline.
    hold: Option<(H, Instant)>,
}

/// What waits to be written to a side, in order.
pub(crate) struct Queue<H> {
    chunks: VecDeque<Chunk<H>>,
    bytes: usize,
}

impl<H> Default for Queue<H> {
    fn default() -> Self {
        Self { chunks: VecDeque::new(), bytes: 0 }
    }
}

impl<H: Copy> Queue<H> {
    /// Appends bytes. With a hold they, and all that follows them, wait for it, at most 20 ms.
    pub(crate) fn push(&mut self, bytes: Bytes, hold: Option<H>) {
        if !bytes.is_empty() {
            self.bytes += bytes.len();
            let hold = hold.map(|hold| (hold, Instant::now() + HOLD));
            self.chunks.push_back(Chunk { bytes, hold });
        }
    }

    fn hold(&self) -> Option<(H, Instant)> {
        self.chunks.front().and_then(|chunk| chunk.hold)
    }

    fn release(&mut self) {
        if let Some(chunk) = self.chunks.front_mut() {
            chunk.hold = None;
        }
    }

    fn advance(&mut self, mut count: usize) {
        self.bytes -= count;
        while let Some(chunk) = self.chunks.front_mut() {
            if count < chunk.bytes.len() {
                chunk.bytes.advance(count);
                return;
            }
            count -= chunk.bytes.len();
            self.chunks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
