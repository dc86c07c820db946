//! The thread in which uploads are made, apart from those that forward. Signing, hashing and
//! encrypting an object of 8 MB takes a core for many milliseconds without a pause: among the taps'
//! tasks it would hold connections up for as long.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Drained, Uploader};

/// How much a thread of uploads gives way to those that forward, in steps of `nice`.
const NICE: i32 = 10;

/// Lets this thread, and those that it starts, give way to all others.
pub(super) fn give_way() {
    // Linux takes "the calling process" as the calling thread. Where it may not be lowered, the
    // work is done as well.
    let _ = rustix::process::setpriority_process(None, NICE);
}

/// A running uploader.
#[derive(Debug)]
pub struct UploadThread {
    drain: oneshot::Sender<Duration>,
    drained: oneshot::Receiver<Drained>,
}

impl UploadThread {
    /// Uploads until `shutdown` is done, and then waits for [`Self::drain`].
    pub fn start(
        uploader: Uploader,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (drain, asked) = oneshot::channel();
        let (done, drained) = oneshot::channel();
        let uploader = Arc::new(uploader);
        std::thread::Builder::new().name("uploader".to_owned()).spawn(move || {
            give_way();
            runtime.block_on(async {
                let run = Arc::clone(&uploader);
                // A panic there has been said already; what is left goes out all the same.
                let _ = tokio::spawn(async move { run.run(shutdown).await }).await;
                // Whoever started it is gone without a word: so are we.
                if let Ok(within) = asked.await {
                    let _ = done.send(uploader.drain(within).await);
                }
            });
            // A thread that waits for a disk that hangs must not keep the process.
            runtime.shutdown_background();
        })?;
        Ok(Self { drain, drained })
    }

    /// Waits for the end of uploads and ends in order, as [`Uploader::drain`] does. `None`: it
    /// panicked.
    pub async fn drain(self, within: Duration) -> Option<Drained> {
        self.drain.send(within).ok()?;
        self.drained.await.ok()
    }
}
