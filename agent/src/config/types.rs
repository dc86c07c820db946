//! The values that configuration keys hold, each read from text with an error that says what
//! would have been right. Errors never repeat a URL: it may hold a password.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use flowtap_place::Place;

use super::TapKind;

/// A number of bytes, written like `64KiB` or `8MB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddr {
    /// A TCP port.
    Tcp {
        /// An IP address or a host name, without brackets.
        host: String,
        /// The port; 0 lets the system choose one.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// One address of a broker; resolved at each dial, never kept resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// An IP address or a host name, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// The brokers behind a tap, tried in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brokers {
    /// What they speak.
    pub kind: TapKind,
    /// Whether they are dialled with TLS (`amqps://`, `kafka+ssl://`).
    pub tls: bool,
    /// Their addresses; at least one.
    pub hosts: Vec<HostPort>,
}

/// Ports from the first to the last, both included. A first port of 0 lets the system choose each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last, not before the first.
    pub last: u16,
}

/// Where the history goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// A local folder.
    Folder(PathBuf),
    /// A bucket and a prefix in it, such as `s3://bucket/prefix`; credentials and endpoint come from
    /// the variables of its kind.
    Bucket(String),
}

/// Reads a duration: `10s`, `500ms`, `1m30s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("{text:?} is no time: want a number and a unit, such as \"10s\" or \"500ms\"");
    let signed: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(signed).map_err(|_| wrong())
}

impl ByteSize {
    const UNITS: [(&str, u64); 9] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("kB", 1000),
        ("KB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("B", 1),
    ];

    /// Reads `64KiB`, `8 MB`, `1048576`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no size: want bytes, or a whole number and a unit, such as \"64KiB\" or \"8MB\""
            )
        };
        let trimmed = text.trim();
        let (number, unit) = Self::UNITS
            .iter()
            .find_map(|(name, bytes)| Some((trimmed.strip_suffix(name)?, *bytes)))
            .unwrap_or((trimmed, 1));
        let number: u64 = number.trim_end().parse().map_err(|_| wrong())?;
        number.checked_mul(unit).map(Self).ok_or_else(wrong)
    }

    /// The number of bytes, for use as a length.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl ListenAddr {
    /// Reads `127.0.0.1:5673`, `[::1]:5673`, `localhost:5673` or `unix:/path`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = std::path::Path::new(path);
            return if path.is_absolute() {
                Ok(Self::Unix(path.to_owned()))
            } else {
                Err(format!(
                    "{text:?}: want the socket's whole path, such as \"unix:/run/flowtap/amqp.sock\""
                ))
            };
        }
        match host_port(text, None) {
            Some(HostPort { host, port }) => Ok(Self::Tcp { host, port }),
            None => Err(format!(
                "{text:?} is no address: want host:port such as \"127.0.0.1:5673\", or \"unix:/path\""
            )),
        }
    }

    /// Whether it stands for every address of this machine, so that no client could be told it.
    pub fn is_wildcard(&self) -> bool {
        match self {
            Self::Unix(_) => false,
            Self::Tcp { host, .. } => host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()),
        }
    }

    /// Whether only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => {
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
        }
    }
}

impl PortRange {
    /// Reads `19100-19199`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let range = text.split_once('-').and_then(|(first, last)| {
            Some(Self { first: first.trim().parse().ok()?, last: last.trim().parse().ok()? })
        });
        range.filter(|range| 0 < range.first && range.first <= range.last).ok_or_else(|| {
            format!("{text:?} are no ports: want the first and the last, such as \"19100-19199\"")
        })
    }

    /// Whether a port is among them.
    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl HostPort {
    /// Reads `host:port`.
    pub fn parse(text: &str) -> Option<Self> {
        host_port(text, None)
    }

    /// Reads what [`Display`](fmt::Display) wrote, whatever a broker calls its host.
    pub fn parse_any(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let bare = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        let port = port.parse().ok()?;
        (!host.is_empty()).then(|| Self { host: host.to_owned(), port })
    }

    /// What `tokio::net::lookup_host` takes.
    pub fn as_pair(&self) -> (&str, u16) {
        (&self.host, self.port)
    }
}

impl Default for Brokers {
    /// None yet.
    fn default() -> Self {
        Self { kind: TapKind::Amqp, tls: false, hosts: Vec::new() }
    }
}

impl Brokers {
    /// The schemes, what they stand for, and the port that may be left out.
    const SCHEMES: [(&str, TapKind, bool, u16); 4] = [
        ("amqp://", TapKind::Amqp, false, 5672),
        ("amqps://", TapKind::Amqp, true, 5671),
        ("kafka://", TapKind::Kafka, false, 9092),
        ("kafka+ssl://", TapKind::Kafka, true, 9092),
    ];

    /// Reads `amqp://host:port,host:port`, `amqps://...` for TLS; for Kafka `host:port,host:port`,
    /// `kafka://...`, or `kafka+ssl://...` for TLS.
    pub fn parse(text: &str) -> Result<Self, String> {
        const WANT: &str = "want amqp://host:port (amqps:// for TLS) or, for Kafka, \
                            kafka://host:port (kafka+ssl:// for TLS), more hosts after commas";
        let scheme = Self::SCHEMES.iter().find_map(|(scheme, kind, tls, port)| {
            Some((*kind, *tls, *port, text.strip_prefix(scheme)?))
        });
        let (kind, tls, default_port, rest) = match scheme {
            Some(found) => found,
            None if text.contains("://") => return Err(format!("no broker address: {WANT}")),
            None => (TapKind::Kafka, false, 9092, text),
        };
        if rest.contains('@') {
            return Err("holds a user or password: leave it out, the agent never logs in; the \
                        service's own credentials pass through it"
                .to_owned());
        }
        if rest.contains(['/', '?', '#']) {
            return Err("holds more than hosts and ports: leave the vhost and options to the \
                        service's own address; name the scheme once"
                .to_owned());
        }
        let hosts: Option<Vec<HostPort>> =
            rest.split(',').map(|host| host_port(host.trim(), Some(default_port))).collect();
        let hosts =
            hosts.ok_or_else(|| format!("one of the addresses is not host:port: {WANT}"))?;
        if hosts.iter().any(|host| host.port == 0) {
            return Err("port 0 cannot be dialled".to_owned());
        }
        Ok(Self { kind, tls, hosts })
    }
}

impl StoreUrl {
    /// Reads `file:///path`, `s3://bucket/prefix` or an absolute path.
    pub fn parse(text: &str) -> Result<Self, String> {
        const WANT: &str = "want \"file:///path\", an absolute path, or \"s3://bucket/prefix\"";
        match Place::parse(text) {
            Ok(Place::Folder(path)) if path.is_absolute() => Ok(Self::Folder(path)),
            Ok(Place::Folder(_)) => Err(format!("no absolute path: {WANT}")),
            Ok(Place::Bucket(_)) => Ok(Self::Bucket(text.to_owned())),
            Err(error) => Err(format!("{error}: {WANT}")),
        }
    }
}

/// `host:port`, with an IPv6 address in brackets. A port may be left out when there is a default.
fn host_port(text: &str, default_port: Option<u16>) -> Option<HostPort> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (text, default_port?),
    };
    let host = match host.strip_prefix('[') {
        Some(inner) => {
            let inner = inner.strip_suffix(']')?;
            inner.parse::<std::net::Ipv6Addr>().ok()?;
            inner
        }
        None => host,
    };
    let bare_ok = host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        || host.parse::<IpAddr>().is_ok() && text.starts_with('[');
    (!host.is_empty() && bare_ok).then(|| HostPort { host: host.to_owned(), port })
}

// === fmt ===

impl fmt::Display for ByteSize {
    /// The largest unit that divides the number, so that what is shown can be read back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = Self::UNITS
            .iter()
            .filter(|(_, bytes)| self.0 >= *bytes && self.0.is_multiple_of(*bytes))
            .max_by_key(|(_, bytes)| *bytes);
        match unit {
            Some((name, bytes)) => write!(f, "{}{name}", self.0 / bytes),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_host_port(f, &self.host, self.port)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write_host_port(f, host, *port),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Brokers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme =
            Self::SCHEMES.iter().find(|(_, kind, tls, _)| (*kind, *tls) == (self.kind, self.tls));
        f.write_str(scheme.map_or("", |(scheme, ..)| scheme))?;
        for (i, host) in self.hosts.iter().enumerate() {
            write!(f, "{}{host}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "file://{}", path.display()),
            Self::Bucket(url) => f.write_str(url),
        }
    }
}

fn write_host_port(f: &mut fmt::Formatter<'_>, host: &str, port: u16) -> fmt::Result {
    if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
}
