//! The agent's own numbers, for `/metrics`. Taps and spool hold their counters and add to them;
//! what only the spool and the uploader know is asked for at each scrape.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flowtap_record::Kind;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// All numbers of one agent; shared by everything that counts.
pub struct Metrics {
    registry: Mutex<Registry>,
    open_connections: Family<TapLabel, Gauge>,
    connections_total: Family<TapLabel, Counter>,
    bytes: Family<DirectionLabel, Counter>,
    undecodable: Family<WhatLabel, Counter>,
    opaque_connections: Family<TapLabel, Counter>,
    returns_swallowed: Family<TapLabel, Counter>,
    held_frames: Family<TapLabel, Counter>,
    held_timeouts: Family<TapLabel, Counter>,
    dial_failures: Family<TapLabel, Counter>,
    forgotten: Family<TapLabel, Counter>,
    answers_rewritten: Family<TapLabel, Counter>,
    left_out: Family<TapLabel, Counter>,
    rows: Family<KindLabel, Counter>,
}

/// The numbers of one tap. Cloning shares them; adding takes no lock.
#[derive(Clone, Debug)]
pub struct TapMetrics {
    name: Arc<str>,
    undecodable: Family<WhatLabel, Counter>,
    /// `flowtap_agent_open_connections`: client connections open now.
    pub open_connections: Gauge,
    /// `flowtap_agent_connections_total`: client connections taken.
    pub connections_total: Counter,
    /// `flowtap_agent_bytes_total{direction="to_broker"}`: bytes forwarded from the service.
    pub bytes_to_broker: Counter,
    /// `flowtap_agent_bytes_total{direction="to_service"}`: bytes forwarded to the service.
    pub bytes_to_service: Counter,
    /// `flowtap_agent_opaque_connections_total`: connections that were only passed through,
    /// since they do not speak the tap's protocol.
    pub opaque_connections: Counter,
    /// `flowtap_agent_returns_swallowed_total`: returned messages that the service did not ask
    /// for and did not get.
    pub returns_swallowed: Counter,
    /// `flowtap_agent_held_frames_total`: frames that waited for their rows to be written.
    pub held_frames: Counter,
    /// `flowtap_agent_held_timeouts_total`: frames relayed before their rows were written, since
    /// the disk took too long.
    pub held_timeouts: Counter,
    /// `flowtap_agent_dial_failures_total`: client connections for which no broker was reached.
    pub dial_failures: Counter,
    /// `flowtap_agent_forgotten_total`: deliveries and publishes whose ids were not kept for
    /// their conclusion, for want of memory (`limits.memory`).
    pub forgotten: Counter,
    /// `flowtap_agent_answers_rewritten_total`: Kafka's answers in which addresses of brokers were
    /// replaced by those of the tap's listeners.
    pub answers_rewritten: Counter,
    /// `flowtap_agent_left_out_total`: business keys and headers that were not recorded, since a
    /// message had too many.
    pub left_out: Counter,
    rows: Arc<[Counter]>,
}

/// What the spool and the uploader say at a scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StorageNumbers {
    /// `flowtap_agent_spool_bytes`
    pub spool_bytes: u64,
    /// `flowtap_agent_spool_segments`
    pub spool_segments: u64,
    /// `flowtap_agent_spool_written_bytes_total`: bytes written to segments.
    pub spool_written_bytes: u64,
    /// `flowtap_agent_spool_errors_total`: writes, syncs, renames and reads in the spool that
    /// failed, each tried again.
    pub spool_errors: u64,
    /// `flowtap_agent_rows_shed_total`: rows that found no place, each within a `gap` row.
    pub rows_shed: u64,
    /// `flowtap_agent_rows_lost_total`: rows that a corrupt segment lost, each within a `gap` row.
    pub rows_lost: u64,
    /// `flowtap_agent_rows_late_total`: rows older than a watermark that was told before.
    pub rows_late: u64,
    /// `flowtap_agent_uploads_total`: objects put.
    pub uploads: u64,
    /// `flowtap_agent_upload_bytes_total`: bytes of these objects.
    pub upload_bytes: u64,
    /// `flowtap_agent_upload_rows_total`: rows in them.
    pub upload_rows: u64,
    /// `flowtap_agent_upload_failures_total`: puts that failed, each tried again.
    pub upload_failures: u64,
    /// `flowtap_agent_last_upload_timestamp_seconds`: when the last object was put, since 1970;
    /// `None` before the first.
    pub last_upload: Option<Duration>,
    /// `flowtap_agent_status_puts_total`: status objects put.
    pub status_puts: u64,
    /// `flowtap_agent_watermark_age_seconds`: how old "all I saw up to then is uploaded" is;
    /// `None` before the first upload.
    pub watermark_age: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TapLabel {
    tap: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabel {
    tap: Arc<str>,
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WhatLabel {
    tap: Arc<str>,
    what: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("flowtap_agent");
        let metrics = Self {
            open_connections: Family::default(),
            connections_total: Family::default(),
            bytes: Family::default(),
            undecodable: Family::default(),
            opaque_connections: Family::default(),
            returns_swallowed: Family::default(),
            held_frames: Family::default(),
            held_timeouts: Family::default(),
            dial_failures: Family::default(),
            forgotten: Family::default(),
            answers_rewritten: Family::default(),
            left_out: Family::default(),
            rows: Family::default(),
            registry: Mutex::default(),
        };
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Version of the agent", build);
        let r = &mut registry;
        // The library adds `_total` to counters and the full stop to each text.
        r.register(
            "open_connections",
            "Client connections open now",
            metrics.open_connections.clone(),
        );
        r.register("connections", "Client connections taken", metrics.connections_total.clone());
        r.register("bytes", "Bytes forwarded", metrics.bytes.clone());
        r.register(
            "undecodable",
            "Things that were forwarded but could not be decoded",
            metrics.undecodable.clone(),
        );
        r.register(
            "opaque_connections",
            "Connections only passed through, since they speak another protocol",
            metrics.opaque_connections.clone(),
        );
        r.register(
            "returns_swallowed",
            "Returned messages that the service did not ask for and did not get",
            metrics.returns_swallowed.clone(),
        );
        r.register(
            "held_frames",
            "Frames that waited for their rows to be written",
            metrics.held_frames.clone(),
        );
        r.register(
            "held_timeouts",
            "Frames relayed before their rows were written, since the disk took too long",
            metrics.held_timeouts.clone(),
        );
        r.register(
            "dial_failures",
            "Client connections for which no broker was reached",
            metrics.dial_failures.clone(),
        );
        r.register(
            "forgotten",
            "Messages whose ids were not kept for their conclusion, for want of memory",
            metrics.forgotten.clone(),
        );
        r.register(
            "answers_rewritten",
            "Answers of Kafka in which brokers' addresses were replaced",
            metrics.answers_rewritten.clone(),
        );
        r.register(
            "left_out",
            "Business keys and headers not recorded, since a message had too many",
            metrics.left_out.clone(),
        );
        r.register("rows", "Rows that taps recorded", metrics.rows.clone());
        Self { registry: Mutex::new(registry), ..metrics }
    }

    /// The numbers of one tap, named by where it listens.
    pub fn tap(&self, name: &str) -> TapMetrics {
        let name: Arc<str> = Arc::from(name);
        let label = TapLabel { tap: name.clone() };
        let direction = |direction| DirectionLabel { tap: name.clone(), direction };
        TapMetrics {
            undecodable: self.undecodable.clone(),
            open_connections: self.open_connections.get_or_create_owned(&label),
            connections_total: self.connections_total.get_or_create_owned(&label),
            bytes_to_broker: self.bytes.get_or_create_owned(&direction("to_broker")),
            bytes_to_service: self.bytes.get_or_create_owned(&direction("to_service")),
            opaque_connections: self.opaque_connections.get_or_create_owned(&label),
            returns_swallowed: self.returns_swallowed.get_or_create_owned(&label),
            held_frames: self.held_frames.get_or_create_owned(&label),
            held_timeouts: self.held_timeouts.get_or_create_owned(&label),
            dial_failures: self.dial_failures.get_or_create_owned(&label),
            forgotten: self.forgotten.get_or_create_owned(&label),
            answers_rewritten: self.answers_rewritten.get_or_create_owned(&label),
            left_out: self.left_out.get_or_create_owned(&label),
            rows: Kind::ALL.iter().map(|kind| self.rows(*kind)).collect(),
            name,
        }
    }

    /// `flowtap_agent_rows_total{kind}`: rows of a kind that taps recorded.
    fn rows(&self, kind: Kind) -> Counter {
        self.rows.get_or_create_owned(&KindLabel { kind: kind.as_str() })
    }

    /// Asks for the numbers of spool and uploader at each scrape from now on.
    pub fn watch_storage(&self, numbers: impl Fn() -> StorageNumbers + Send + Sync + 'static) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register_collector(Box::new(Storage { numbers: Box::new(numbers) }));
    }

    /// All numbers in the `OpenMetrics` text format.
    pub fn encode(&self) -> String {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        let written = prometheus_client::encoding::text::encode(&mut text, &registry);
        debug_assert!(written.is_ok(), "writing to text cannot fail");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl TapMetrics {
    /// `flowtap_agent_rows_total{kind}`: one more row.
    pub fn row(&self, kind: Kind) {
        self.rows[kind as usize].inc();
    }

    /// `flowtap_agent_undecodable_total{what}`: something of this sort was forwarded but could
    /// not be decoded. Rare, so it may take a lock.
    pub fn undecodable(&self, what: &'static str) {
        let label = WhatLabel { tap: self.name.clone(), what };
        self.undecodable.get_or_create(&label).inc();
    }
}

// === what is asked for at a scrape ===

struct Storage {
    numbers: Box<dyn Fn() -> StorageNumbers + Send + Sync>,
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Storage")
    }
}

impl Collector for Storage {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let now = (self.numbers)();
        let gauge = |value: u64| ConstGauge::new(value as i64);
        one(&mut encoder, "spool_bytes", "Bytes in the spool", &gauge(now.spool_bytes))?;
        one(&mut encoder, "spool_segments", "Segments in the spool", &gauge(now.spool_segments))?;
        for (name, help, count) in [
            ("spool_written_bytes", "Bytes written to the spool", now.spool_written_bytes),
            (
                "spool_errors",
                "Operations in the spool that failed; each is tried again",
                now.spool_errors,
            ),
            ("rows_shed", "Rows that found no place; gap rows say so", now.rows_shed),
            ("rows_lost", "Rows lost in corrupt segments; gap rows say so", now.rows_lost),
            ("rows_late", "Rows older than a watermark that was told before", now.rows_late),
            ("uploads", "Objects put into the store", now.uploads),
            ("upload_bytes", "Bytes of these objects", now.upload_bytes),
            ("upload_rows", "Rows in these objects", now.upload_rows),
            ("upload_failures", "Puts that failed; each is tried again", now.upload_failures),
            ("status_puts", "Status objects put into the store", now.status_puts),
        ] {
            one(&mut encoder, name, help, &ConstCounter::new(count))?;
        }
        if let Some(at) = now.last_upload {
            one(
                &mut encoder,
                "last_upload_timestamp_seconds",
                "When the last object was put, since 1970",
                &ConstGauge::new(at.as_secs_f64()),
            )?;
        }
        let Some(age) = now.watermark_age else { return Ok(()) };
        one(
            &mut encoder,
            "watermark_age_seconds",
            "How old it is that all was uploaded",
            &ConstGauge::new(age.as_secs_f64()),
        )
    }
}

fn one(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> Result<(), fmt::Error> {
    let encoder: MetricEncoder<'_> =
        encoder.encode_descriptor(name, help, None, metric.metric_type())?;
    metric.encode(encoder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_stands_in_the_text() {
        let metrics = Metrics::new();
        let tap = metrics.tap("127.0.0.1:5673");
        tap.open_connections.inc();
        tap.connections_total.inc();
        tap.bytes_to_broker.inc_by(7);
        tap.undecodable("method");
        tap.row(Kind::Publish);
        tap.left_out.inc_by(2);
        metrics.watch_storage(|| StorageNumbers {
            spool_bytes: 42,
            spool_errors: 3,
            rows_lost: 4,
            rows_late: 5,
            spool_written_bytes: 6,
            upload_bytes: 7,
            upload_rows: 8,
            status_puts: 9,
            last_upload: Some(Duration::from_millis(1_700_000_000_500)),
            upload_failures: 2,
            watermark_age: Some(Duration::from_millis(1500)),
            ..StorageNumbers::default()
        });
        let text = metrics.encode();
        for line in [
            r#"flowtap_agent_open_connections{tap="127.0.0.1:5673"} 1"#,
            r#"flowtap_agent_connections_total{tap="127.0.0.1:5673"} 1"#,
            r#"flowtap_agent_bytes_total{tap="127.0.0.1:5673",direction="to_broker"} 7"#,
            r#"flowtap_agent_undecodable_total{tap="127.0.0.1:5673",what="method"} 1"#,
            r#"flowtap_agent_rows_total{kind="publish"} 1"#,
            "flowtap_agent_rows_shed_total 0",
            "flowtap_agent_spool_bytes 42",
            "flowtap_agent_uploads_total 0",
            "flowtap_agent_spool_errors_total 3",
            "flowtap_agent_rows_lost_total 4",
            "flowtap_agent_rows_late_total 5",
            "flowtap_agent_spool_written_bytes_total 6",
            "flowtap_agent_upload_bytes_total 7",
            "flowtap_agent_upload_rows_total 8",
            "flowtap_agent_status_puts_total 9",
            "flowtap_agent_last_upload_timestamp_seconds 1700000000.5",
            r#"flowtap_agent_left_out_total{tap="127.0.0.1:5673"} 2"#,
            "flowtap_agent_upload_failures_total 2",
            "flowtap_agent_watermark_age_seconds 1.5",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
        }
        assert!(text.contains("flowtap_agent_build_info{version="));
    }

    #[test]
    fn the_docs_name_every_family_and_no_other() {
        let metrics = Metrics::new();
        metrics.tap("127.0.0.1:5673").undecodable("method");
        metrics.watch_storage(|| StorageNumbers {
            last_upload: Some(Duration::ZERO),
            watermark_age: Some(Duration::ZERO),
            ..StorageNumbers::default()
        });
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        let page = std::fs::read_to_string(page).unwrap();
        let mut documented: Vec<String> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `flowtap_agent_"))
            .filter_map(|rest| Some(rest.split_once('`')?.0.to_owned()))
            .collect();
        let text = metrics.encode();
        let mut kept: Vec<String> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE flowtap_agent_"))
            .filter_map(|rest| rest.split_once(' '))
            .map(|(name, kind)| match kind {
                "counter" => format!("{name}_total"),
                "info" => format!("{name}_info"),
                _ => name.to_owned(),
            })
            .collect();
        documented.sort();
        kept.sort();
        assert_eq!(documented, kept);
    }

    #[test]
    fn no_family_is_described_twice() {
        let metrics = Metrics::new();
        metrics.tap("a").open_connections.inc();
        let text = metrics.encode();
        let mut names: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let all = names.len();
        names.sort_unstable_by_key(|name| name.split(' ').next().map(str::to_owned));
        names.dedup_by_key(|name| name.split(' ').next().map(str::to_owned));
        assert_eq!(names.len(), all, "{text}");
    }
}
