//! Dialling a broker: its addresses are tried in turn, each resolved anew, with TLS if asked for.

use std::time::Duration;
use std::{fmt, io};

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::{Brokers, HostPort, TapTls};
use crate::socket;
use crate::tls::{self, TlsError};

/// Bytes to and from a broker, plain or TLS.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin {
    /// The socket underneath.
    fn tcp(&self) -> &TcpStream;
}

impl Duplex for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Duplex for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// How to reach a tap's brokers; made once, used for each connection.
#[derive(Clone)]
pub struct Dialer {
    brokers: Brokers,
    tls: Option<(TlsConnector, Option<String>)>,
    timeout: Duration,
}

/// A connection to a broker.
pub struct Dialled {
    /// The bytes.
    pub stream: Box<dyn Duplex>,
    /// Which of the addresses answered.
    pub host: HostPort,
    /// The agent's own address towards the broker.
    pub local: std::net::SocketAddr,
}

/// No broker could be reached; one line for each that was tried.
#[derive(Debug, thiserror::Error)]
#[error("no broker reached: {}", .0.iter().map(|(host, error)| format!("{host}: {error}")).collect::<Vec<_>>().join("; "))]
pub struct DialError(pub Vec<(HostPort, io::Error)>);

impl fmt::Display for Dialer {
    /// The addresses as the configuration has them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.brokers.fmt(f)
    }
}

impl Dialer {
    /// Reads the certificates that it takes.
    pub fn new(brokers: Brokers, tls: &TapTls, timeout: Duration) -> Result<Self, TlsError> {
        let tls =
            if brokers.tls { Some((tls::connector(tls)?, tls.server_name.clone())) } else { None };
        Ok(Self { brokers, tls, timeout })
    }

    /// The configured addresses.
    pub fn hosts(&self) -> &[HostPort] {
        &self.brokers.hosts
    }

    /// Connects to the first broker that answers.
    #[tracing::instrument(skip_all, err(level = "debug"))]
    pub async fn dial(&self) -> Result<Dialled, DialError> {
        let mut failures = Vec::new();
        for host in &self.brokers.hosts {
            match self.dial_one(host).await {
                Ok(dialled) => return Ok(dialled),
                Err(error) => failures.push((host.clone(), error)),
            }
        }
        Err(DialError(failures))
    }

    /// Connects to one of the brokers.
    pub async fn dial_one(&self, host: &HostPort) -> io::Result<Dialled> {
        let attempt = async {
            let tcp = TcpStream::connect(host.as_pair()).await?;
            socket::prepare(&tcp);
            let local = tcp.local_addr()?;
            let stream: Box<dyn Duplex> = match &self.tls {
                None => Box::new(tcp),
                Some((connector, server_name)) => {
                    let name = server_name.as_deref().unwrap_or(&host.host).to_owned();
                    let name = ServerName::try_from(name).map_err(io::Error::other)?;
                    Box::new(connector.connect(name, tcp).await?)
                }
            };
            Ok(Dialled { stream, host: host.clone(), local })
        };
        tokio::time::timeout(self.timeout, attempt).await.unwrap_or_else(|_| {
            let what = format!("no answer within {:?}", self.timeout);
            Err(io::Error::new(io::ErrorKind::TimedOut, what))
        })
    }
}
