//! The agent's configuration: flags over `FLOWTAP_*` variables over `agent.toml`. Every key
//! stands once, in [`keys`]; names of variables, checks, unknown-key detection and the reference
//! page all come from there. Everything wrong is reported at once, with where it stands.

mod blank;
mod checks;
mod files;
mod keys;
mod keys_repeated;
mod problems;
mod raw;
mod recording;
mod reference;
mod sources;
#[cfg(test)]
mod tests;
mod types;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use files::token;
pub use keys::{Flag, flags};
pub use problems::{Problem, Problems};
pub use reference::markdown as reference;
pub use types::{Brokers, ByteSize, HostPort, ListenAddr, PortRange, StoreUrl};

/// What the agent was told, checked. It holds no secret: credentials stand in files it names.
#[derive(Clone, Debug)]
pub struct Config {
    /// The service this agent stands beside.
    pub service: String,
    /// This agent's name in the store, when not made in the spool folder.
    pub agent: Option<String>,
    /// Host or pod.
    pub instance: String,
    /// How long to go on serving open connections after SIGTERM.
    pub drain: Duration,
    /// Where the history goes.
    pub store: StoreUrl,
    /// The local log.
    pub spool: SpoolConfig,
    /// When rows are uploaded.
    pub upload: UploadConfig,
    /// Metrics and probes.
    pub admin: AdminConfig,
    /// The agent's own log.
    pub log: LogConfig,
    /// What the agent may use.
    pub limits: LimitsConfig,
    /// What is recorded of a message.
    pub record: RecordConfig,
    /// What is tapped; at least one.
    pub taps: Vec<TapConfig>,
    /// Rules for ids, the first that fits a message first.
    pub rules: Vec<RuleConfig>,
}

/// `[spool]`
#[derive(Clone, Debug)]
pub struct SpoolConfig {
    /// Folder of the spool.
    pub path: PathBuf,
    /// Most that the spool may take on disk.
    pub max_size: ByteSize,
    /// Most that rows may take in memory while the disk does not take them.
    pub memory: ByteSize,
}

/// `[upload]`, with the defaults that depend on the store filled in.
#[derive(Clone, Debug)]
pub struct UploadConfig {
    /// Upload what is there when the oldest row is this old.
    pub age: Duration,
    /// Upload at once when this much is there.
    pub size: ByteSize,
    /// Time between two status objects.
    pub status: Duration,
}

/// `[admin]`
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// Where it listens; always TCP.
    pub listen: ListenAddr,
    /// File with the token that `/metrics` asks for.
    pub token_file: Option<PathBuf>,
    /// Certificate and key for HTTPS.
    pub tls: Option<CertAndKey>,
    /// Off loopback without token and TLS.
    pub insecure: bool,
    /// Names it may be asked by, besides IP addresses and `localhost`.
    pub hosts: Vec<String>,
}

/// A certificate chain and its key, both PEM files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertAndKey {
    /// The chain, the certificate itself first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// `[log]`
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// How a line looks.
    pub format: LogFormat,
    /// The least level that is written.
    pub level: tracing::level_filters::LevelFilter,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[limits]`
#[derive(Clone, Debug)]
pub struct LimitsConfig {
    /// Most memory for what is kept of open deliveries and unconfirmed publishes, over all
    /// connections.
    pub memory: ByteSize,
    /// Most memory for what a Kafka tap has forwarded and not yet decoded, with what it keeps of
    /// frames until they are complete.
    pub decode: ByteSize,
}

/// `[record]`
#[derive(Clone, Debug)]
pub struct RecordConfig {
    /// Which headers are kept.
    pub headers: HeaderPolicy,
    /// Which business keys are looked for in JSON bodies.
    pub keys: KeyPolicy,
    /// Whether bodies are kept.
    pub payload: PayloadPolicy,
    /// Most that is kept of one body.
    pub max_bytes: ByteSize,
    /// What is blanked wherever it would be recorded: names of headers and JSON members, or JSON
    /// pointers into bodies.
    pub redact: Vec<String>,
    /// Whether the texts of exceptions are kept, not only their types.
    pub exception_texts: bool,
}

/// Which headers are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderPolicy {
    /// Those that gave an id.
    Ids,
    /// All but those that are never kept.
    All,
    /// These, whether they gave an id or not; none turns it off.
    Named(Vec<String>),
}

/// Which business keys are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPolicy {
    /// The built-in names.
    BuiltIn,
    /// These names; none turns it off.
    Named(Vec<String>),
}

/// Whether bodies are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadPolicy {
    /// Never.
    None,
    /// Of messages that were rejected, returned or refused.
    Failed,
    /// Always.
    All,
}

/// `[[tap]]`
#[derive(Clone, Debug)]
pub struct TapConfig {
    /// What is spoken there.
    pub kind: TapKind,
    /// Where the service connects.
    pub listen: ListenAddr,
    /// The broker behind it.
    pub broker: Brokers,
    /// Name of the cluster in the rows, when not the broker's own word.
    pub cluster: Option<String>,
    /// Whether to find out which messages no queue took.
    pub detect_unroutable: bool,
    /// Bodies larger than this are not watched for that: they would come back whole.
    pub unroutable_max_body: ByteSize,
    /// Whether SASL EXTERNAL may pass: everybody who reaches the port becomes the service.
    pub allow_external: bool,
    /// Whether `listen` may be reachable from other machines.
    pub allow_remote: bool,
    /// Kafka: where the local listeners of brokers are, one for each broker id. Without it, the
    /// hundred ports behind the one of `listen`.
    pub ports: Option<PortRange>,
    /// Kafka: the host that clients are told in place of the brokers', when not the one of
    /// `listen`.
    pub advertise: Option<String>,
    /// Kafka: whether anything is recorded; if not, bytes are only passed on.
    pub record: bool,
    /// TLS on both sides.
    pub tls: TapTls,
}

/// What a tap speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapKind {
    /// AMQP 0-9-1.
    Amqp,
    /// Apache Kafka.
    Kafka,
}

/// `[tap.tls]`
#[derive(Clone, Debug, Default)]
pub struct TapTls {
    /// What the tap shows the service; without it the service connects in the clear.
    pub listener: Option<CertAndKey>,
    /// Roots that the broker's certificate is checked against; the system's when `None`.
    pub ca: Option<PathBuf>,
    /// The name that the broker's certificate must carry, and SNI; the dialled host when `None`.
    pub server_name: Option<String>,
    /// What the tap shows the broker.
    pub client: Option<CertAndKey>,
}

/// `[[rule]]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleConfig {
    /// Its name, which the rows carry as `rule:NAME`.
    pub name: String,
    /// Exchanges it is for, `*` for any run of characters; all when `None`, none when only topics
    /// are named.
    pub exchange: Option<String>,
    /// Kafka topics it is for, likewise.
    pub topic: Option<String>,
    /// Routing keys or record keys it is for, `*` for any run of characters; all when `None`.
    pub routing_key: Option<String>,
    /// Where the event id stands: `header:NAME`, `property:NAME`, `body:/json/pointer` or `key`.
    pub event_id: Option<String>,
    /// Where the event type stands.
    pub event_type: Option<String>,
    /// Where the transaction id stands.
    pub transaction_id: Option<String>,
    /// Where the causation id stands.
    pub causation_id: Option<String>,
    /// Where the command's name stands.
    pub command: Option<String>,
    /// Where the command's id stands.
    pub command_id: Option<String>,
    /// Where the trace id stands, or a `traceparent`.
    pub trace_id: Option<String>,
    /// Business keys: the name to record, and where its value stands.
    pub keys: Vec<(String, String)>,
}

/// What the configuration is read from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file, from `--config` or `FLOWTAP_CONFIG`.
    pub file: Option<PathBuf>,
    /// The environment.
    pub env: Vec<(OsString, OsString)>,
    /// Flags that stand for a key: its whole name (`spool.path`, `tap`) and the value.
    pub flags: Vec<(&'static str, String)>,
}

impl Config {
    /// Reads and checks everything; reports everything that is wrong at once.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        sources::load(sources)
    }
}
