//! The one table of configuration keys: name, flag, type, default, words, and how a value is read
//! into [`Config`]. The reference page, the `FLOWTAP_*` names and the detection of unknown keys
//! come from it, so a key that is added here is everywhere. Keys of `[[tap]]` and `[[rule]]` are
//! in `keys_repeated.rs`.

use tracing::level_filters::LevelFilter;

use super::checks;
use super::raw::Raw;
use super::{Config, HeaderPolicy, KeyPolicy, ListenAddr, LogFormat, PayloadPolicy, StoreUrl};

/// A key of the configuration itself (`T` = [`Config`]), of a tap or of a rule.
pub(super) struct Key<T: 'static> {
    /// Its name below its section, with dots.
    pub(super) name: &'static str,
    /// Its flag, without dashes.
    pub(super) flag: Option<&'static str>,
    /// Its type, for the reference.
    pub(super) kind: &'static str,
    /// What holds without it.
    pub(super) fallback: Fallback,
    /// What it is for.
    pub(super) doc: &'static str,
    /// Reads a value; the error says what would be right.
    pub(super) set: fn(&mut T, &Raw) -> Result<(), String>,
}

/// What holds when a key is not given.
#[derive(Clone, Copy)]
pub(super) enum Fallback {
    /// It must be given; an example of its value, as TOML.
    Required(&'static str),
    /// This value, as TOML.
    Value(&'static str),
    /// What these words say.
    Words(&'static str),
}

/// A flag of the command line that stands for a key.
pub struct Flag {
    /// The key's whole name; `tap` for the flag that is short for three keys of a tap.
    pub key: &'static str,
    /// The flag, without dashes.
    pub flag: &'static str,
    /// Whether it may stand without a value, for `true`.
    pub switch: bool,
    /// The key's words.
    pub doc: &'static str,
}

/// All flags that stand for a key.
pub fn flags() -> impl Iterator<Item = Flag> {
    let keys = AGENT.iter().filter_map(|key| {
        let switch = key.kind == "boolean";
        Some(Flag { key: key.name, flag: key.flag?, switch, doc: key.doc })
    });
    keys.chain([Flag { key: "tap", flag: "tap", switch: false, doc: TAP_FLAG_DOC }])
}

const TAP_FLAG_DOC: &str = "A tap in one text: kind, listen and broker, such as \
    'amqp 127.0.0.1:5673 amqp://rabbit:5672' or 'kafka 127.0.0.1:19092 kafka://kafka:9092'. The \
    n-th --tap stands over the n-th tap of variables and file";

pub(super) fn put<T>(slot: &mut T, value: Result<T, String>) -> Result<(), String> {
    value.map(|value| *slot = value)
}

pub(super) fn put_some<T>(slot: &mut Option<T>, value: Result<T, String>) -> Result<(), String> {
    value.map(|value| *slot = Some(value))
}

use Fallback::{Required, Value, Words};

/// Keys that stand once.
pub(super) const AGENT: &[Key<Config>] = &[
    Key {
        name: "service",
        flag: Some("service"),
        kind: "text",
        fallback: Required("\"billing\""),
        doc: "The service that this agent stands beside: letters, digits and `. _ -`",
        set: |c, v| put(&mut c.service, v.text().and_then(checks::service_name)),
    },
    Key {
        name: "agent",
        flag: Some("agent"),
        kind: "text",
        fallback: Words("`<service>-<random>`, made once in the spool folder"),
        doc: "This agent's name in the store. No two agents may share one",
        set: |c, v| put_some(&mut c.agent, v.text().and_then(checks::agent_name)),
    },
    Key {
        name: "instance",
        flag: Some("instance"),
        kind: "text",
        fallback: Words("the host's name"),
        doc: "Host or pod, as it shall stand in the rows",
        set: |c, v| put(&mut c.instance, v.text()),
    },
    Key {
        name: "drain",
        flag: Some("drain"),
        kind: "time",
        fallback: Value("\"10s\""),
        doc: "How long to go on serving open connections after SIGTERM",
        set: |c, v| put(&mut c.drain, v.duration()),
    },
    Key {
        name: "store",
        flag: Some("store"),
        kind: "URL",
        fallback: Value("\"file:///var/lib/flowtap\""),
        doc: "Where the history goes: `file:///folder`, `s3://bucket/prefix` (credentials, region \
              and endpoint from the usual `AWS_*` variables), or another of [storage.md](storage.md)",
        set: |c, v| put(&mut c.store, v.text().and_then(|text| StoreUrl::parse(&text))),
    },
    Key {
        name: "spool.path",
        flag: Some("spool"),
        kind: "path",
        fallback: Value("\"/var/lib/flowtap-agent/spool\""),
        doc: "Folder of the local log, for one agent only",
        set: |c, v| put(&mut c.spool.path, v.path()),
    },
    Key {
        name: "spool.max_size",
        flag: None,
        kind: "size",
        fallback: Value("\"1GiB\""),
        doc: "Most that the spool may take on disk; beyond it rows are shed and a `gap` says so",
        set: |c, v| put(&mut c.spool.max_size, v.size()),
    },
    Key {
        name: "spool.memory",
        flag: None,
        kind: "size",
        fallback: Value("\"16MiB\""),
        doc: "Most memory for rows while the disk does not take them",
        set: |c, v| put(&mut c.spool.memory, v.size()),
    },
    Key {
        name: "upload.age",
        flag: None,
        kind: "time",
        fallback: Words("`\"2s\"` to a folder, `\"10s\"` to S3"),
        doc: "Upload when the oldest row is this old",
        set: |c, v| put(&mut c.upload.age, v.period()),
    },
    Key {
        name: "upload.size",
        flag: None,
        kind: "size",
        fallback: Value("\"8MB\""),
        doc: "Upload as soon as this much is there",
        set: |c, v| put(&mut c.upload.size, v.size()),
    },
    Key {
        name: "upload.status",
        flag: None,
        kind: "time",
        fallback: Words("`\"5s\"` to a folder, `\"60s\"` to S3"),
        doc: "Time between two status objects; an agent counts as live for three of them",
        set: |c, v| put(&mut c.upload.status, v.period()),
    },
    Key {
        name: "admin.listen",
        flag: Some("admin"),
        kind: "address",
        fallback: Value("\"127.0.0.1:9464\""),
        doc: "Where `/metrics`, `/livez` and `/readyz` are served. Off loopback it wants \
              `token_file`, `cert` and `key`, or `insecure`",
        set: |c, v| {
            let address = v.text().and_then(|text| ListenAddr::parse(&text));
            put(&mut c.admin.listen, address.and_then(checks::tcp_only))
        },
    },
    Key {
        name: "admin.token_file",
        flag: Some("token-file"),
        kind: "path",
        fallback: Words("none"),
        doc: "File with the token that `/metrics` wants (`Authorization: Bearer ...`); the probes \
              never want one",
        set: |c, v| put_some(&mut c.admin.token_file, v.path()),
    },
    Key {
        name: "admin.cert",
        flag: None,
        kind: "path",
        fallback: Words("none: plain HTTP"),
        doc: "PEM file with the certificate chain for HTTPS",
        set: |c, v| put(&mut c.admin.tls.get_or_insert_default().cert, v.path()),
    },
    Key {
        name: "admin.key",
        flag: None,
        kind: "path",
        fallback: Words("none"),
        doc: "PEM file with the private key of `cert`",
        set: |c, v| put(&mut c.admin.tls.get_or_insert_default().key, v.path()),
    },
    Key {
        name: "admin.insecure",
        flag: Some("insecure"),
        kind: "boolean",
        fallback: Value("false"),
        doc: "Serve off loopback without token or TLS",
        set: |c, v| put(&mut c.admin.insecure, v.boolean()),
    },
    Key {
        name: "admin.hosts",
        flag: None,
        kind: "list",
        fallback: Value("[]"),
        doc: "Names that a request's `Host` may carry, besides `localhost`, the host of `listen` \
              and, off loopback, any IP address",
        set: |c, v| put(&mut c.admin.hosts, v.list()),
    },
    Key {
        name: "log.format",
        flag: Some("log-format"),
        kind: "`text`, `json`",
        fallback: Value("\"text\""),
        doc: "How a log line looks; logs go to standard error",
        set: |c, v| {
            let words = [("text", LogFormat::Text), ("json", LogFormat::Json)];
            put(&mut c.log.format, v.one_of(&words))
        },
    },
    Key {
        name: "log.level",
        flag: Some("log-level"),
        kind: "`off`, `error`, `warn`, `info`, `debug`, `trace`",
        fallback: Value("\"info\""),
        doc: "The least level that is logged",
        set: |c, v| {
            let words = [
                ("off", LevelFilter::OFF),
                ("error", LevelFilter::ERROR),
                ("warn", LevelFilter::WARN),
                ("info", LevelFilter::INFO),
                ("debug", LevelFilter::DEBUG),
                ("trace", LevelFilter::TRACE),
            ];
            put(&mut c.log.level, v.one_of(&words))
        },
    },
    Key {
        name: "limits.memory",
        flag: None,
        kind: "size",
        fallback: Value("\"16MiB\""),
        doc: "Most memory for what is kept of open deliveries and unconfirmed publishes until \
              they end; beyond it the row of their end names only the row that it ends",
        set: |c, v| put(&mut c.limits.memory, v.size()),
    },
    Key {
        name: "limits.decode",
        flag: None,
        kind: "size",
        fallback: Value("\"64MiB\""),
        doc: "Most memory for what each Kafka tap has forwarded and not yet decoded, with what it \
              keeps of frames until they are complete; beyond it frames are not decoded and a \
              `gap` says so. Forwarding never waits for it",
        set: |c, v| put(&mut c.limits.decode, v.size()),
    },
    Key {
        name: "record.headers",
        flag: None,
        kind: "`ids`, `all`, list",
        fallback: Value("\"ids\""),
        doc: "Which headers are kept: those that gave an id, all, or these instead (`*` stands for \
              any run of characters; `[]` keeps none). Names that look like a secret or a person's \
              data never are",
        set: |c, v| {
            let policy = if v.is_word("ids") {
                Ok(HeaderPolicy::Ids)
            } else if v.is_word("all") {
                Ok(HeaderPolicy::All)
            } else {
                v.list().and_then(checks::recordable_names).map(HeaderPolicy::Named)
            };
            put(&mut c.record.headers, policy)
        },
    },
    Key {
        name: "record.keys",
        flag: None,
        kind: "`built-in`, list",
        fallback: Value("\"built-in\""),
        doc: "Names of business keys looked for in JSON bodies (`order_id`, `*Id`); `[]` turns it \
              off",
        set: |c, v| {
            let policy = if v.is_word("built-in") {
                Ok(KeyPolicy::BuiltIn)
            } else {
                v.list().and_then(checks::recordable_names).map(KeyPolicy::Named)
            };
            put(&mut c.record.keys, policy)
        },
    },
    Key {
        name: "record.payload",
        flag: None,
        kind: "`none`, `failed`, `all`",
        fallback: Value("\"none\""),
        doc: "Whether bodies are kept: never, of messages that were returned, refused or not \
              acknowledged, or always",
        set: |c, v| {
            let words = [
                ("none", PayloadPolicy::None),
                ("failed", PayloadPolicy::Failed),
                ("all", PayloadPolicy::All),
            ];
            put(&mut c.record.payload, v.one_of(&words))
        },
    },
    Key {
        name: "record.max_bytes",
        flag: None,
        kind: "size",
        fallback: Value("\"64KiB\""),
        doc: "Most that is kept of one body",
        set: |c, v| put(&mut c.record.max_bytes, v.size()),
    },
    Key {
        name: "record.redact",
        flag: None,
        kind: "list",
        fallback: Value("[]"),
        doc: "What is blanked before anything is recorded: names (`customer_name`: headers and \
              members of JSON bodies, at any depth, in any case) or JSON pointers into bodies \
              (`/lines/*/note`). While it names anything, a body that is not valid JSON is not kept",
        set: |c, v| put(&mut c.record.redact, v.list().and_then(checks::redactions)),
    },
    Key {
        name: "record.exception_texts",
        flag: None,
        kind: "boolean",
        fallback: Value("false"),
        doc: "Keep the texts of exceptions too, not only their types",
        set: |c, v| put(&mut c.record.exception_texts, v.boolean()),
    },
];

/// The variable of a key that stands once.
pub(super) fn env_name(key: &str) -> String {
    format!("FLOWTAP_{}", key.replace('.', "_").to_ascii_uppercase())
}
