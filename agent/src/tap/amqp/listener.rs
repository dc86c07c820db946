//! One `[[tap]]` of kind `amqp`: for each client dials the broker, and relays.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::connection::Peers;
use super::context::Env;
use super::proxy::relay;
use super::session::Session;
use crate::config::ListenAddr;
use crate::dial::Dialer;
use crate::lifecycle::{Lifecycle, Phase};
use crate::metrics::TapMetrics;
use crate::socket::reset;
use crate::tap::door::{Door, Host, Leave};
use crate::tap::{Ended, Recorder};

/// A tap, ready to be bound.
pub struct AmqpTap<R> {
    /// Where to listen.
    pub listen: ListenAddr,
    /// TLS from the client.
    pub tls: Option<TlsAcceptor>,
    /// Where to forward to.
    pub dialer: Dialer,
    /// What its connections share.
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
    tap: Arc<AmqpTap<R>>,
    door: Door,
}

impl<R: Recorder> AmqpTap<R> {
    /// Binds the listener.
    pub async fn bind(self) -> io::Result<BoundTap<R>> {
        let door = Door::bind(&self.listen, self.tls.clone()).await?;
        Ok(BoundTap { tap: Arc::new(self), door })
    }
}

impl<R: Recorder> BoundTap<R> {
    /// Where it listens, as clients write it.
    pub fn address(&self) -> &str {
        self.door.address()
    }

    /// Serves until the agent closes; then ends what is open.
    pub async fn serve(self) {
        self.door.serve(self.tap).await;
    }
}

impl<R: Recorder> Host for AmqpTap<R> {
    fn metrics(&self) -> &TapMetrics {
        &self.env.metrics
    }

    fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// Dials the broker and relays.
    #[tracing::instrument(name = "connection", skip_all, fields(%peer, number))]
    async fn serve<S>(&self, client: &mut S, peer: String) -> Leave
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let metrics = &self.env.metrics;
        let mut broker = match self.lifecycle.unless_closing(self.dialer.dial()).await {
            Some(Ok(dialled)) => dialled,
            None => return Leave::Reset,
            Some(Err(error)) => {
                metrics.dial_failures.inc();
                tracing::warn!(%error, "client sent away");
                return Leave::Reset;
            }
        };
        let peers = Peers {
            client: Some(peer),
            local: Some(broker.local),
            broker: Some(broker.host.to_string()),
        };
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        tracing::Span::current().record("number", number);
        let session = Session::new(Arc::clone(&self.env), number, peers);
        let stopped = async {
            self.lifecycle.reached(Phase::Closing).await;
            "agent stopped"
        };
        let recorder = self.recorder.clone();
        let ended = relay(client, &mut *broker.stream, session, recorder, metrics, stopped).await;
        if matches!(ended, Ended::Failed(_)) {
            reset(broker.stream.tcp());
            return Leave::Reset;
        }
        Leave::Close
    }
}
