//! The taps of the configuration: made, bound, served, whatever they speak.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use flowtap_record::TapStatus;
use futures::FutureExt as _;
use tokio::task::JoinSet;
use tracing::{error, info};

use crate::config::{Config, TapConfig, TapKind};
use crate::dial::Dialer;
use crate::lifecycle::{Lifecycle, Phase};
use crate::metrics::{Metrics, TapMetrics};
use crate::spool::Recorder;
use crate::tap::Budget;
use crate::tap::amqp::{self, AmqpTap};
use crate::tap::kafka::{self, KafkaTap};
use crate::tls;
use crate::upload::StatusBoard;

/// How long one address of a broker may take to answer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long connections may take to end once the agent closes: no one's service waits for them.
const CLOSING: Duration = Duration::from_secs(5);

/// The taps, before they listen.
pub(crate) struct Taps(Vec<Tap>);

/// The taps while they serve.
pub(crate) struct Serving(JoinSet<()>);

/// One tap.
struct Tap {
    listen: String,
    broker: String,
    metrics: TapMetrics,
    kind: OfKind,
}

enum OfKind {
    Amqp(Box<AmqpTap<Recorder>>),
    Kafka(Box<KafkaTap<Recorder>>),
}

/// What all taps of an agent share.
struct Shared<'a> {
    config: &'a Config,
    recorder: &'a Recorder,
    metrics: &'a Metrics,
    lifecycle: &'a Lifecycle,
    numbers: Arc<AtomicI64>,
    budget: Arc<Budget>,
}

impl Taps {
    pub(crate) fn new(
        config: &Config,
        recorder: &Recorder,
        metrics: &Metrics,
        lifecycle: &Lifecycle,
    ) -> anyhow::Result<Self> {
        let numbers = Arc::new(AtomicI64::new(1));
        let budget = Arc::new(Budget::new(config.limits.memory.bytes()));
        let shared = Shared { config, recorder, metrics, lifecycle, numbers, budget };
        Ok(Self(config.taps.iter().map(|tap| shared.tap(tap)).collect::<anyhow::Result<_>>()?))
    }

    /// Binds every listener, then serves. The status object is told where.
    pub(crate) async fn bind(
        self,
        lifecycle: &Lifecycle,
        board: &StatusBoard,
    ) -> anyhow::Result<Serving> {
        let mut serving = JoinSet::new();
        let mut status = Vec::new();
        let mut gauges = Vec::new();
        for (index, Tap { listen, broker, metrics, kind }) in self.0.into_iter().enumerate() {
            gauges.push(metrics.open_connections);
            let (kind, address) = match kind {
                OfKind::Amqp(tap) => {
                    let bound = tap.bind().await.with_context(|| {
                        format!("cannot listen on {listen}; is another agent or program there?")
                    })?;
                    let address = bound.address().to_owned();
                    serving.spawn(to_the_end(lifecycle.clone(), address.clone(), bound.serve()));
                    ("amqp", address)
                }
                OfKind::Kafka(tap) => {
                    let bound = tap.bind().await.with_context(|| format!("tap[{index}]"))?;
                    let address = bound.address().to_owned();
                    serving.spawn(to_the_end(lifecycle.clone(), address.clone(), bound.serve()));
                    ("kafka", address)
                }
            };
            info!(listen = address, broker, "tapping");
            status.push(TapStatus {
                kind: kind.to_owned(),
                listen: address,
                broker,
                bound: true,
                connections: 0,
            });
            lifecycle.listener_bound();
        }
        board.set_taps(move || {
            let open = gauges.iter().map(|gauge| gauge.get().unsigned_abs());
            status
                .iter()
                .zip(open)
                .map(|(tap, connections)| TapStatus { connections, ..tap.clone() })
                .collect()
        });
        Ok(Serving(serving))
    }
}

impl Serving {
    /// Waits until what was open is ended and recorded, for a bounded time: the last uploads, and
    /// whoever has sent the signal, wait behind.
    pub(crate) async fn closed(mut self) {
        let all = async { while self.0.join_next().await.is_some() {} };
        if tokio::time::timeout(CLOSING, all).await.is_err() {
            error!(limit = ?CLOSING, "taps do not end; what they have not recorded yet is lost");
        }
    }
}

/// Serves until the agent closes. A tap that ends before that, whatever the reason, forwards no
/// more: the agent is no longer live.
async fn to_the_end(lifecycle: Lifecycle, listener: String, serving: impl Future<Output = ()>) {
    let ended = AssertUnwindSafe(serving).catch_unwind().await;
    if *lifecycle.phase().borrow() != Phase::Closing {
        let why = if ended.is_err() { "the tap has panicked" } else { "the tap has ended" };
        lifecycle.stuck(&listener, why);
    }
}

impl Shared<'_> {
    fn tap(&self, tap: &TapConfig) -> anyhow::Result<Tap> {
        let config = self.config;
        let tls = tap.tls.listener.as_ref().map(tls::acceptor).transpose()?;
        let dialer = Dialer::new(tap.broker.clone(), &tap.tls, DIAL_TIMEOUT)?;
        let broker = dialer.to_string();
        let metrics = self.metrics.tap(&tap.listen.to_string());
        let identifier = config.identifier().map_err(|errors| anyhow!("{errors:?}"))?;
        let identifier = identifier.counting_left_out(metrics.left_out.clone());
        let kind = match tap.kind {
            TapKind::Amqp => OfKind::Amqp(Box::new(AmqpTap {
                listen: tap.listen.clone(),
                tls,
                dialer,
                env: Arc::new(amqp::Env {
                    service: config.service.clone(),
                    instance: config.instance.clone(),
                    cluster: tap.cluster.clone(),
                    detect_unroutable: tap.detect_unroutable,
                    unroutable_max_body: tap.unroutable_max_body.0,
                    allow_external: tap.allow_external,
                    identifier,
                    budget: self.budget.clone(),
                    metrics: metrics.clone(),
                }),
                recorder: self.recorder.clone(),
                numbers: self.numbers.clone(),
                lifecycle: self.lifecycle.clone(),
            })),
            TapKind::Kafka => OfKind::Kafka(Box::new(KafkaTap {
                listen: tap.listen.clone(),
                ports: tap.port_range().ok_or_else(|| anyhow!("no ports for the brokers"))?,
                advertise: tap.advertise.clone(),
                record: tap.record,
                decode_bytes: config.limits.decode.bytes(),
                folder: config.spool.path.clone(),
                tls,
                dialer,
                env: Arc::new(kafka::Env {
                    service: config.service.clone(),
                    instance: config.instance.clone(),
                    cluster: tap.cluster.clone(),
                    identifier,
                    budget: self.budget.clone(),
                    metrics: metrics.clone(),
                }),
                recorder: self.recorder.clone(),
                numbers: self.numbers.clone(),
                lifecycle: self.lifecycle.clone(),
            })),
        };
        Ok(Tap { listen: tap.listen.to_string(), broker, metrics, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn not_live(serving: impl Future<Output = ()>, phase: Phase) -> Option<String> {
        let lifecycle = Lifecycle::new(1);
        lifecycle.enter(phase);
        to_the_end(lifecycle.clone(), "127.0.0.1:5673".to_owned(), serving).await;
        lifecycle.why_not_live()
    }

    #[tokio::test]
    async fn a_tap_that_ends_before_the_agent_closes_fails_its_liveness() {
        let ended = "127.0.0.1:5673: the tap has ended";
        assert_eq!(not_live(async {}, Phase::Running).await.as_deref(), Some(ended));
        assert_eq!(not_live(async {}, Phase::Draining).await.as_deref(), Some(ended));
        let panicked = "127.0.0.1:5673: the tap has panicked";
        let panicking = async { panic!("on purpose") };
        assert_eq!(not_live(panicking, Phase::Running).await.as_deref(), Some(panicked));
        assert_eq!(not_live(async {}, Phase::Closing).await, None);
    }

    #[tokio::test]
    async fn a_tap_that_does_not_end_does_not_hold_the_agent() {
        let mut serving = JoinSet::new();
        serving.spawn(std::future::pending());
        let begun = std::time::Instant::now();
        Serving(serving).closed().await;
        assert!((CLOSING..CLOSING * 3).contains(&begun.elapsed()));
    }
}
