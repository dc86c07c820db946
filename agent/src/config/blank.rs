//! What stands in the configuration's structs until the table of keys has been read into them.

use std::path::PathBuf;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::{
    AdminConfig, Brokers, ByteSize, CertAndKey, Config, HeaderPolicy, KeyPolicy, LimitsConfig,
    ListenAddr, LogConfig, LogFormat, PayloadPolicy, RecordConfig, SpoolConfig, StoreUrl,
    TapConfig, TapKind, TapTls, UploadConfig,
};

const UNSET: ListenAddr = ListenAddr::Unix(PathBuf::new());

impl Config {
    pub(super) fn blank() -> Self {
        Self {
            service: String::new(),
            agent: None,
            instance: String::new(),
            drain: Duration::ZERO,
            store: StoreUrl::Folder(PathBuf::new()),
            spool: SpoolConfig { path: PathBuf::new(), max_size: ByteSize(0), memory: ByteSize(0) },
            upload: UploadConfig { age: Duration::ZERO, size: ByteSize(0), status: Duration::ZERO },
            admin: AdminConfig {
                listen: UNSET,
                token_file: None,
                tls: None,
                insecure: false,
                hosts: Vec::new(),
            },
            log: LogConfig { format: LogFormat::Text, level: LevelFilter::OFF },
            limits: LimitsConfig { memory: ByteSize(0), decode: ByteSize(0) },
            record: RecordConfig {
                headers: HeaderPolicy::Ids,
                keys: KeyPolicy::BuiltIn,
                payload: PayloadPolicy::None,
                max_bytes: ByteSize(0),
                redact: Vec::new(),
                exception_texts: false,
            },
            taps: Vec::new(),
            rules: Vec::new(),
        }
    }
}

impl TapConfig {
    pub(super) fn blank() -> Self {
        Self {
            kind: TapKind::Amqp,
            listen: UNSET,
            broker: Brokers::default(),
            cluster: None,
            detect_unroutable: false,
            unroutable_max_body: ByteSize(0),
            allow_external: false,
            allow_remote: false,
            ports: None,
            advertise: None,
            record: false,
            tls: TapTls::default(),
        }
    }
}

impl CertAndKey {
    /// Whether only one of the two files was named.
    pub(super) fn is_half(&self) -> bool {
        self.cert.as_os_str().is_empty() != self.key.as_os_str().is_empty()
    }
}

impl ListenAddr {
    /// Whether no address has been read.
    pub(super) fn is_unset(&self) -> bool {
        *self == UNSET
    }
}
