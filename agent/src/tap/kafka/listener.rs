//! One `[[tap]]` of kind `kafka`: a bootstrap listener, from which any broker that lives is dialled,
//! and a listener for each broker id, which reaches that broker wherever it is by now.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::{fmt, io};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::brokers::{Brokers, Local, Opened, PortTaken};
use super::conversation::Around;
use super::decoder;
use super::feed::{Ends, Intake, feed};
use super::memory::Memory;
use super::relay::relay;
use crate::config::{ListenAddr, PortRange};
use crate::dial::{DialError, Dialer, Dialled};
use crate::identify::Identifier;
use crate::lifecycle::{Lifecycle, Phase};
use crate::metrics::TapMetrics;
use crate::socket::reset;
use crate::tap::door::{Door, Host, Leave};
use crate::tap::{Budget, Ended, Recorder};

/// What all rows of one tap share.
#[derive(Debug)]
pub struct Env {
    /// Name of the service that the agent stands beside.
    pub service: String,
    /// Host or pod.
    pub instance: String,
    /// Overrides the cluster id that the broker gives.
    pub cluster: Option<String>,
    /// Finds ids.
    pub identifier: Identifier,
    /// Bounds what is remembered of open deliveries and unconfirmed publishes.
    pub budget: Arc<Budget>,
    /// Counters.
    pub metrics: TapMetrics,
}

/// A tap, ready to be bound.
pub struct KafkaTap<R> {
    /// Where the bootstrap servers of the service are.
    pub listen: ListenAddr,
    /// Where the brokers' local listeners are.
    pub ports: PortRange,
    /// The host that clients are told, when not the one of `listen`.
    pub advertise: Option<String>,
    /// Whether anything is recorded.
    pub record: bool,
    /// Most bytes that may wait to be decoded.
    pub decode_bytes: usize,
    /// Where ports are kept across restarts.
    pub folder: PathBuf,
    /// TLS from the client.
    pub tls: Option<TlsAcceptor>,
    /// Where to forward to.
    pub dialer: Dialer,
    /// What its rows share.
    pub env: Arc<Env>,
    /// Where rows go.
    pub recorder: R,
    /// Numbers the connections of this boot.
    pub numbers: Arc<AtomicI64>,
    /// When to stop.
    pub lifecycle: Lifecycle,
}

/// A bound tap.
pub struct BoundTap<R> {
    tap: Arc<Shared<R>>,
    door: Door,
    opened: mpsc::UnboundedReceiver<Opened>,
    intake: Option<Intake>,
    memory: Memory,
}

/// What keeps a tap from being bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The bootstrap listener.
    #[error("cannot listen on {0}: {1}; is another agent or program there?")]
    Listen(ListenAddr, io::Error),
    /// The listener of a broker that clients know already.
    #[error(transparent)]
    Port(#[from] PortTaken),
}

/// What all listeners of a tap share.
struct Shared<R> {
    tls: Option<TlsAcceptor>,
    dialer: Dialer,
    around: Arc<Around>,
    env: Arc<Env>,
    recorder: R,
    numbers: Arc<AtomicI64>,
    lifecycle: Lifecycle,
}

impl<R: Recorder> KafkaTap<R> {
    /// Binds the bootstrap listener and those of all brokers that are known from before.
    pub async fn bind(self) -> Result<BoundTap<R>, BindError> {
        let failed = |error| BindError::Listen(self.listen.clone(), error);
        let door = Door::bind(&self.listen, self.tls.clone()).await.map_err(failed)?;
        let place = door.tcp_address().unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
        let host = match &self.listen {
            ListenAddr::Tcp { host, .. } => host.clone(),
            ListenAddr::Unix(_) => place.ip().to_string(),
        };
        let advertise = self.advertise.clone().unwrap_or(host);
        let local = Local { ip: place.ip(), ports: self.ports, advertise };
        let memory = Memory::new(&self.folder, &self.listen);
        let (opens, opened) = mpsc::unbounded_channel();
        let brokers = Brokers::new(local, memory.load(), opens)?.kept_in(memory.clone());
        let brokers = Arc::new(brokers);
        let (feed, intake) = feed(self.decode_bytes);
        let (feed, intake) = if self.record { (Some(feed), Some(intake)) } else { (None, None) };
        let metrics = self.env.metrics.clone();
        let tap = Shared {
            tls: self.tls,
            dialer: self.dialer,
            around: Arc::new(Around { brokers, feed, metrics }),
            env: self.env,
            recorder: self.recorder,
            numbers: self.numbers,
            lifecycle: self.lifecycle,
        };
        Ok(BoundTap { tap: Arc::new(tap), door, opened, intake, memory })
    }
}

impl<R: Recorder> BoundTap<R> {
    /// Where its bootstrap listener is, as clients write it.
    pub fn address(&self) -> &str {
        self.door.address()
    }

    /// Serves until the agent closes; then ends what is open, and waits until everything that
    /// passed is decoded.
    pub async fn serve(mut self) {
        let tap = self.tap;
        let decoding = self.intake.map(|intake| {
            let (env, recorder) = (Arc::clone(&tap.env), tap.recorder.clone());
            let brokers = Arc::clone(&tap.around.brokers);
            recorder.stay_before(intake.pending_since());
            tokio::task::spawn_blocking(move || decoder::decode(intake, env, brokers, recorder))
        });
        let (brokers, lifecycle) = (Arc::clone(&tap.around.brokers), tap.lifecycle.clone());
        let keeping = tokio::spawn(self.memory.keep(brokers, {
            let lifecycle = lifecycle.clone();
            async move { lifecycle.reached(Phase::Closing).await }
        }));
        let mut doors = JoinSet::new();
        doors.spawn(self.door.serve(Arc::new(Behind { tap: Arc::clone(&tap), id: None })));
        loop {
            tokio::select! {
                Some(Opened { id, listener }) = self.opened.recv() => {
                    let behind = Behind { tap: Arc::clone(&tap), id: Some(id) };
                    let door = TcpListener::from_std(listener);
                    match door.and_then(|listener| Door::of_tcp(listener, tap.tls.clone())) {
                        Ok(door) => {
                            doors.spawn(door.serve(Arc::new(behind)));
                        }
                        Err(error) => tracing::error!(broker = id, %error, "listener lost"),
                    }
                }
                () = lifecycle.reached(Phase::Closing) => break,
            }
        }
        while doors.join_next().await.is_some() {}
        // With the last of these the decoding thread has nothing more to wait for.
        drop(tap);
        for task in [Some(keeping), decoding].into_iter().flatten() {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the tap ended badly");
            }
        }
    }
}

/// One listener of a tap: of a broker, or the bootstrap listener.
struct Behind<R> {
    tap: Arc<Shared<R>>,
    id: Option<i32>,
}

/// Why no broker is behind a listener now.
#[derive(Debug)]
enum NoBroker {
    Dial(DialError),
    Unknown,
}

impl fmt::Display for NoBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoBroker::Dial(error) => error.fmt(f),
            NoBroker::Unknown => f.write_str("no address is known for this broker"),
        }
    }
}

impl<R: Recorder> Behind<R> {
    async fn dial(&self) -> Result<Dialled, NoBroker> {
        let brokers = &self.tap.around.brokers;
        let hosts = match self.id {
            Some(id) => vec![brokers.address(id).ok_or(NoBroker::Unknown)?],
            None => brokers.candidates(self.tap.dialer.hosts()),
        };
        let mut failures = Vec::new();
        for host in hosts {
            let dialled = self.tap.dialer.dial_one(&host).await;
            brokers.tried(&host, dialled.is_ok());
            match dialled {
                Ok(dialled) => return Ok(dialled),
                Err(error) => failures.push((host, error)),
            }
        }
        Err(NoBroker::Dial(DialError(failures)))
    }
}

impl<R: Recorder> Host for Behind<R> {
    fn metrics(&self) -> &TapMetrics {
        &self.tap.around.metrics
    }

    fn lifecycle(&self) -> &Lifecycle {
        &self.tap.lifecycle
    }

    /// Dials the broker and relays.
    #[tracing::instrument(name = "connection", skip_all, fields(%peer, number, broker = self.id))]
    async fn serve<S>(&self, client: &mut S, peer: String) -> Leave
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let tap = &*self.tap;
        let mut broker = match tap.lifecycle.unless_closing(self.dial()).await {
            Some(Ok(dialled)) => dialled,
            None => return Leave::Reset,
            Some(Err(error)) => {
                tap.around.metrics.dial_failures.inc();
                tracing::warn!(%error, "client sent away");
                return Leave::Reset;
            }
        };
        let ends = Ends {
            client: peer,
            local: Some(broker.local),
            broker: broker.host.to_string(),
            broker_id: self.id,
        };
        let number = tap.numbers.fetch_add(1, Ordering::Relaxed);
        tracing::Span::current().record("number", number);
        let stopped = async {
            tap.lifecycle.reached(Phase::Closing).await;
            "agent stopped"
        };
        let recorder = tap.recorder.clone();
        let stream = &mut *broker.stream;
        let ended = relay(client, stream, &tap.around, recorder, (number, ends), stopped).await;
        if matches!(ended, Ended::Failed(_)) {
            reset(broker.stream.tcp());
            return Leave::Reset;
        }
        Leave::Close
    }
}

#[cfg(test)]
mod tests;
