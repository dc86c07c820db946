//! Log lines to standard error, and, when `OTEL_EXPORTER_OTLP_ENDPOINT` is set, spans of the
//! server's own work to that collector (OTLP over HTTP). What people ask for is not in them.

use std::env;
use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tokio::runtime::Handle;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// The standard variables that switch spans on.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Log lines only, from `level` on unless `FLOWTAP_LOG` says otherwise.
pub(super) fn log(level: &str) {
    start(level, None);
}

/// Running telemetry; [`Telemetry::shutdown`] sends what is left.
pub(super) struct Telemetry {
    spans: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Log lines and spans. Must be called within the runtime.
    pub(super) fn start() -> Self {
        let endpoint = ENDPOINTS.into_iter().find_map(|variable| env::var(variable).ok());
        let (spans, trouble) = match endpoint.filter(|endpoint| !endpoint.is_empty()) {
            None => (None, None),
            Some(endpoint) if endpoint.starts_with("https:") => {
                (None, Some("this build exports spans over http:// only".to_owned()))
            }
            Some(_) => match provider() {
                Ok(spans) => (Some(spans), None),
                Err(error) => (None, Some(error.to_string())),
            },
        };
        start("info", spans.as_ref());
        if let Some(error) = trouble {
            tracing::warn!(error, "no spans of the server's own work");
        }
        Self { spans }
    }

    /// Sends the spans that are left, for at most five seconds.
    pub(super) async fn shutdown(self) {
        let Some(spans) = self.spans else { return };
        let done = tokio::task::spawn_blocking(move || {
            spans.shutdown_with_timeout(Duration::from_secs(5))
        });
        if let Ok(Err(error)) = done.await {
            tracing::warn!(%error, "last spans not exported");
        }
    }
}

fn start(level: &str, spans: Option<&SdkTracerProvider>) {
    let ours = format!("warn,flowtap_query={level}");
    let filter = EnvFilter::try_from_env("FLOWTAP_LOG").unwrap_or_else(|_| EnvFilter::new(ours));
    let log = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        .compact()
        .with_filter(filter);
    // Only our own spans: those of the exporter's HTTP client would beget more of themselves.
    let spans = spans.map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("flowtap"))
            .with_filter(Targets::new().with_target("flowtap", LevelFilter::INFO))
    });
    tracing_subscriber::registry().with(log).with(spans).init();
}

fn provider() -> Result<SdkTracerProvider, opentelemetry_otlp::ExporterBuildError> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
        .build()?;
    let mut resource = Resource::builder()
        .with_attributes([KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))]);
    if env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("flowtap");
    }
    let exporter = OnRuntime { exporter: Arc::new(exporter), runtime: Handle::current() };
    Ok(SdkTracerProvider::builder()
        .with_resource(resource.build())
        .with_batch_exporter(exporter)
        .build())
}

/// Runs an exporter's HTTP client on our runtime: the batch processor calls from a thread of its
/// own, where the client could not work.
#[derive(Debug)]
struct OnRuntime<E> {
    exporter: Arc<E>,
    runtime: Handle,
}

impl<E: SpanExporter + 'static> SpanExporter for OnRuntime<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exporter = self.exporter.clone();
        let export = self.runtime.spawn(async move { exporter.export(batch).await });
        match export.await {
            Ok(done) => done,
            Err(error) => Err(OTelSdkError::InternalFailure(error.to_string())),
        }
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        if let Some(exporter) = Arc::get_mut(&mut self.exporter) {
            exporter.set_resource(resource);
        }
    }
}
