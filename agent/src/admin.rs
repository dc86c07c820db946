//! The admin port: `/metrics`, `/livez`, `/readyz`, and the probe that asks them. A web page on
//! the same machine must not reach it (Host and Origin are checked); off loopback it wants a token
//! and TLS, or an explicit `insecure`, which the configuration has made sure of.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::{self, AdminConfig, ListenAddr};
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::tls::{self, TlsError};

/// How long a TLS handshake or a probe may take.
const PATIENCE: Duration = Duration::from_secs(5);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a probe asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Whether the listeners are bound.
    Ready,
    /// Whether the agent can forward.
    Live,
}

/// What keeps the admin port from being served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address is taken or not ours.
    #[error("admin port {listen} cannot be bound: {error}: set admin.listen to a free address")]
    Bind {
        /// Where it should listen.
        listen: ListenAddr,
        /// Why not.
        error: io::Error,
    },
    /// The token could not be read.
    #[error("admin token {}: {why}: want a file with the token alone, 16 characters or more", .path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// Certificate or key could not be read.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A bound admin port.
pub struct AdminServer {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    app: Router,
}

/// What the handlers see.
struct Shared {
    metrics: Arc<Metrics>,
    lifecycle: Lifecycle,
    hosts: Vec<String>,
    any_ip: bool,
    token: Option<String>,
}

impl AdminServer {
    /// Reads what it takes and binds the port.
    pub async fn bind(
        config: &AdminConfig,
        metrics: Arc<Metrics>,
        lifecycle: Lifecycle,
    ) -> Result<Self, AdminError> {
        let token = config.token_file.as_deref().map(read_token).transpose()?;
        let tls = config.tls.as_ref().map(tls::acceptor).transpose()?;
        let (host, port) = tcp_parts(&config.listen);
        let listener = TcpListener::bind((host, port))
            .await
            .map_err(|error| AdminError::Bind { listen: config.listen.clone(), error })?;
        let mut hosts = vec!["localhost".to_owned(), host.to_ascii_lowercase()];
        if config.listen.is_loopback() {
            hosts.extend(["127.0.0.1".to_owned(), "::1".to_owned()]);
        }
        hosts.extend(config.hosts.iter().map(|name| name.to_ascii_lowercase()));
        let any_ip = !config.listen.is_loopback();
        let shared = Arc::new(Shared { metrics, lifecycle, hosts, any_ip, token });
        Ok(Self { listener, tls, app: router(shared) })
    }

    /// Where it is bound; the port that the system chose, when 0 was asked for.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until dropped.
    pub async fn serve(self) -> io::Result<()> {
        match self.tls {
            None => axum::serve(self.listener, self.app).await,
            Some(acceptor) => {
                let listener = TlsListener::start(self.listener, acceptor)?;
                axum::serve(listener, self.app).await
            }
        }
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .layer(middleware::from_fn_with_state(shared.clone(), guard))
        .with_state(shared)
}

// === handlers ===

async fn metrics(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    if let Some(token) = &shared.token {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        if !equal_in_constant_time(given.trim(), token) {
            let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
            return (StatusCode::UNAUTHORIZED, challenge, "token wanted\n").into_response();
        }
    }
    ([(header::CONTENT_TYPE, OPEN_METRICS)], shared.metrics.encode()).into_response()
}

async fn livez(State(shared): State<Arc<Shared>>) -> Response {
    verdict(shared.lifecycle.why_not_live())
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    verdict(shared.lifecycle.why_not_ready())
}

fn verdict(trouble: Option<String>) -> Response {
    match trouble {
        None => (StatusCode::OK, "ok\n").into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    match shared.refusal(&request) {
        Some(refusal) => refusal.into_response(),
        None => next.run(request).await,
    }
}

impl Shared {
    /// Refuses requests that a web page made: by a name that is not ours (DNS rebinding), or with
    /// an `Origin`.
    fn refusal(&self, request: &Request) -> Option<(StatusCode, &'static str)> {
        let in_header = || request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let in_target = request.uri().authority().map(Authority::as_str);
        if !self.knows(in_target.or_else(in_header).unwrap_or_default()) {
            let what = "not a name of this port; admin.hosts adds one\n";
            return Some((StatusCode::MISDIRECTED_REQUEST, what));
        }
        let from_page = request.headers().contains_key(header::ORIGIN);
        from_page.then_some((StatusCode::FORBIDDEN, "not for web pages\n"))
    }

    /// Whether a `Host` may be meant for this port. An IP address cannot be rebound, so off
    /// loopback (where pods are scraped by their address) any will do.
    fn knows(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        let name = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
        self.hosts.contains(&name) || self.any_ip && name.parse::<IpAddr>().is_ok()
    }
}

fn read_token(path: &Path) -> Result<String, AdminError> {
    config::token(path).map_err(|why| AdminError::Token { path: path.to_owned(), why })
}

/// Compares without telling by its time how much was right.
fn equal_in_constant_time(a: &str, b: &str) -> bool {
    let differences = a.bytes().zip(b.bytes()).fold(0, |sum, (x, y)| sum | (x ^ y));
    a.len() == b.len() && differences == 0
}

fn tcp_parts(listen: &ListenAddr) -> (&str, u16) {
    match listen {
        ListenAddr::Tcp { host, port } => (host, *port),
        ListenAddr::Unix(_) => unreachable!("the configuration takes only TCP for the admin port"),
    }
}

// === TLS ===

/// Accepts and shakes hands in tasks of their own, so that one slow client holds up no other.
struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    local: SocketAddr,
}

impl TlsListener {
    fn start(mut listener: TcpListener, acceptor: TlsAcceptor) -> io::Result<Self> {
        let local = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(16);
        tokio::spawn(async move {
            while !sender.is_closed() {
                let (tcp, peer) = axum::serve::Listener::accept(&mut listener).await;
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                tokio::spawn(async move {
                    match tokio::time::timeout(PATIENCE, acceptor.accept(tcp)).await {
                        Ok(Ok(stream)) => drop(sender.send((stream, peer)).await),
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "admin handshake failed"),
                        Err(_) => tracing::debug!(%peer, "admin handshake took too long"),
                    }
                });
            }
        });
        Ok(Self { ready, local })
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // The accepting task ends only with this receiver.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.local)
    }
}

// === the probe ===

/// Asks the running agent over loopback. `Err` is its word on what is wrong, or why it could not
/// be asked.
pub async fn probe(config: &AdminConfig, what: Probe) -> Result<(), String> {
    tokio::time::timeout(PATIENCE, ask(config, what))
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
}

async fn ask(config: &AdminConfig, what: Probe) -> Result<(), String> {
    let path = match what {
        Probe::Ready => "/readyz",
        Probe::Live => "/livez",
    };
    let (host, port) = tcp_parts(&config.listen);
    // A wildcard is reached over loopback.
    let host = match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) if ip.is_unspecified() => "127.0.0.1",
        Ok(IpAddr::V6(ip)) if ip.is_unspecified() => "::1",
        _ => host,
    };
    let mut tcp = TcpStream::connect((host, port))
        .await
        .map_err(|error| format!("admin port {} does not answer: {error}", config.listen))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let answer = if let Some(files) = &config.tls {
        let connector = tls::pinned_connector(&files.cert).map_err(|error| error.to_string())?;
        let name = ServerName::try_from("localhost").expect("localhost is a host name");
        let mut tls =
            connector.connect(name, tcp).await.map_err(|error| format!("TLS: {error}"))?;
        exchange(&mut tls, &request).await
    } else {
        exchange(&mut tcp, &request).await
    };
    let answer = answer.map_err(|error| format!("no answer: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.starts_with("HTTP/1.1 200 ") {
        Ok(())
    } else if head.starts_with("HTTP/1.1 503 ") {
        Err(body.trim().to_owned())
    } else {
        Err(format!("what answers at {} is no flowtap-agent", config.listen))
    }
}

async fn exchange(
    stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin),
    request: &str,
) -> io::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    // The answers are one line each; whatever says more is not ours.
    let read = stream.take(64 * 1024).read_to_end(&mut answer).await;
    match read {
        Ok(_) => {}
        // Not every server ends TLS as it should.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
        Err(error) => return Err(error),
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests;
