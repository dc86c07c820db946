//! A tap's listener: takes clients, by TCP or a Unix socket, with TLS if asked for, and hands each
//! to the tap. What AMQP and Kafka do alike before the first byte is read stands here.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::config::ListenAddr;
use crate::lifecycle::{Lifecycle, Phase};
use crate::metrics::TapMetrics;
use crate::socket::{self, reset};

/// How long a client may take for its TLS handshake.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after the system refuses to accept (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Having refused for so long, it is not expected to get better by itself.
const ACCEPT_STUCK: Duration = Duration::from_secs(10);

/// How the client's socket is to be left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// In order.
    Close,
    /// So that the client sees a reset, as it would without a proxy. Unix sockets have none: there
    /// it sees the end.
    Reset,
}

/// What happens to clients that came in.
pub(crate) trait Host: Send + Sync + 'static {
    /// Serves one client until it is gone.
    fn serve<S>(&self, client: &mut S, peer: String) -> impl Future<Output = Leave> + Send
    where
        S: AsyncRead + AsyncWrite + Unpin + Send;

    fn metrics(&self) -> &TapMetrics;

    fn lifecycle(&self) -> &Lifecycle;
}

/// A bound listener.
pub(crate) struct Door {
    listener: Listener,
    tls: Option<TlsAcceptor>,
    address: String,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = self {
            // A socket file that stays is replaced at the next start.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Door {
    /// Binds a listener.
    pub(crate) async fn bind(listen: &ListenAddr, tls: Option<TlsAcceptor>) -> io::Result<Self> {
        match listen {
            ListenAddr::Tcp { host, port } => {
                Self::of_tcp(TcpListener::bind((host.as_str(), *port)).await?, tls)
            }
            ListenAddr::Unix(path) => {
                let listener = Listener::Unix(bind_unix(path)?, path.clone());
                Ok(Self { listener, tls, address: format!("unix:{}", path.display()) })
            }
        }
    }

    /// A door of a listener that is bound already.
    pub(crate) fn of_tcp(listener: TcpListener, tls: Option<TlsAcceptor>) -> io::Result<Self> {
        let address = listener.local_addr()?.to_string();
        Ok(Self { listener: Listener::Tcp(listener), tls, address })
    }

    /// Where it listens, as clients write it.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Where it listens; `None` for a Unix socket.
    pub(crate) fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.listener {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(..) => None,
        }
    }

    /// Lets clients in until the agent closes; then waits for the end of those that are open.
    pub(crate) async fn serve<H: Host>(self, host: Arc<H>) {
        let mut connections = JoinSet::new();
        let lifecycle = host.lifecycle().clone();
        let closing = lifecycle.reached(Phase::Closing);
        tokio::pin!(closing);
        let mut refusing_since: Option<Instant> = None;
        loop {
            tokio::select! {
                accepted = self.accept() => match accepted {
                    Ok((client, peer)) => {
                        if refusing_since.take().is_some() {
                            lifecycle.recovered(&self.address);
                        }
                        let (host, tls) = (Arc::clone(&host), self.tls.clone());
                        connections.spawn(async move { connection(&*host, tls, client, peer).await });
                    }
                    Err(error) => {
                        let since = *refusing_since.get_or_insert_with(|| {
                            tracing::warn!(%error, listen = %self.address, "cannot accept");
                            Instant::now()
                        });
                        if since.elapsed() >= ACCEPT_STUCK {
                            lifecycle.stuck(&self.address, format!("cannot accept: {error}"));
                        }
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
                () = &mut closing => break,
            }
        }
        while connections.join_next().await.is_some() {}
    }

    async fn accept(&self) -> io::Result<(Accepted, String)> {
        match &self.listener {
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Accepted::Tcp(stream), peer.to_string()))
            }
            Listener::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Accepted::Unix(stream), "unix".to_owned()))
            }
        }
    }
}

/// Binds a Unix socket, in place of one that a killed agent has left behind.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
}

enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Counts a connection as open while it lives.
struct Open<'a>(&'a TapMetrics);

impl<'a> Open<'a> {
    fn new(metrics: &'a TapMetrics) -> Self {
        metrics.connections_total.inc();
        metrics.open_connections.inc();
        Self(metrics)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open_connections.dec();
    }
}

async fn connection<H: Host>(host: &H, tls: Option<TlsAcceptor>, client: Accepted, peer: String) {
    let _open = Open::new(host.metrics());
    let _counted = host.lifecycle().connection();
    match (client, tls) {
        (Accepted::Tcp(mut stream), None) => {
            socket::prepare(&stream);
            if host.serve(&mut stream, peer).await == Leave::Reset {
                reset(&stream);
            }
        }
        (Accepted::Tcp(stream), Some(acceptor)) => {
            socket::prepare(&stream);
            let handshake = tokio::time::timeout(TLS_TIMEOUT, acceptor.accept(stream));
            match host.lifecycle().unless_closing(handshake).await {
                Some(Ok(Ok(mut stream))) => {
                    let leave = host.serve(&mut stream, peer).await;
                    if leave == Leave::Reset {
                        reset(stream.get_ref().0);
                    }
                }
                Some(Ok(Err(error))) => {
                    tracing::warn!(%error, peer, "client's TLS handshake failed");
                }
                Some(Err(_)) => tracing::warn!(peer, "client's TLS handshake took too long"),
                None => {}
            }
        }
        (Accepted::Unix(mut stream), _) => {
            host.serve(&mut stream, peer).await;
        }
    }
}
