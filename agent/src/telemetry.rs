//! The agent's own telemetry: log lines to standard error, and, when `OTEL_EXPORTER_OTLP_ENDPOINT`
//! is set, spans of its own to that collector (OTLP over HTTP). Nothing of a service's messages
//! goes here.

use std::env;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tokio::runtime::Handle;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::config::{Config, LogConfig, LogFormat};

/// Our own crates' targets begin so.
const OWN: &str = "flowtap";

/// The standard variables that switch spans on.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// What keeps telemetry from starting.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The exporter does not like its variables.
    #[error("{0}: check the OTEL_EXPORTER_OTLP_* variables")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// HTTPS is not built in.
    #[error(
        "{variable} is https://: this build exports spans over http:// only; put a collector beside the agent"
    )]
    Https {
        /// The variable.
        variable: &'static str,
    },
    /// Somebody was first.
    #[error("logging is already set up in this process")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Running telemetry; [`Telemetry::shutdown`] sends what is left.
#[derive(Debug)]
pub struct Telemetry {
    spans: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Starts logging, and spans if a collector is named, for the whole process. Must be called
    /// within the runtime.
    pub fn start(config: &Config) -> Result<Self, TelemetryError> {
        let endpoint = ENDPOINTS
            .into_iter()
            .find_map(|variable| Some((variable, env::var(variable).ok()?)))
            .filter(|(_, endpoint)| !endpoint.is_empty());
        let spans = match endpoint {
            None => Ok(None),
            Some((variable, endpoint)) if endpoint.starts_with("https:") => {
                Err(TelemetryError::Https { variable })
            }
            // The exporter reads the variables itself: headers and timeouts too.
            Some(_) => {
                provider(opentelemetry_otlp::SpanExporter::builder().with_http(), config).map(Some)
            }
        };
        // These variables are often set for a whole pod: they must not keep the agent from work.
        let (spans, trouble) = match spans {
            Ok(spans) => (spans, None),
            Err(error) => (None, Some(error)),
        };
        subscriber(&config.log, std::io::stderr, spans.as_ref()).try_init()?;
        if let Some(error) = trouble {
            tracing::warn!(%error, "no spans of the agent's own work");
        }
        Ok(Self { spans })
    }

    /// Sends the spans that are left, for at most five seconds.
    pub async fn shutdown(self) {
        let Some(spans) = self.spans else { return };
        // Blocks until the exporter's thread is done, which needs this runtime.
        let done = tokio::task::spawn_blocking(move || {
            spans.shutdown_with_timeout(Duration::from_secs(5))
        });
        if let Ok(Err(error)) = done.await {
            tracing::warn!(%error, "last spans not exported");
        }
    }
}

/// Log lines and spans. What other crates log is kept from `warn` on: their `debug` may show what
/// goes over the wire.
fn subscriber<W>(
    config: &LogConfig,
    writer: W,
    spans: Option<&SdkTracerProvider>,
) -> impl Subscriber + Send + Sync + use<W>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let log = tracing_subscriber::fmt::layer().with_writer(writer);
    let log: Box<dyn Layer<Registry> + Send + Sync> = match config.format {
        LogFormat::Text => log.with_ansi(false).boxed(),
        LogFormat::Json => log.json().flatten_event(true).boxed(),
    };
    let others = config.level.min(LevelFilter::WARN);
    let log = log.with_filter(Targets::new().with_default(others).with_target(OWN, config.level));
    // Only our own spans: those of the exporter's HTTP client would beget more of themselves.
    let spans = spans.map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("flowtap-agent"))
            .with_filter(Targets::new().with_target(OWN, LevelFilter::INFO))
    });
    Registry::default().with(log).with(spans)
}

type HttpExporter =
    opentelemetry_otlp::SpanExporterBuilder<opentelemetry_otlp::HttpExporterBuilderSet>;

fn provider(builder: HttpExporter, config: &Config) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = builder.with_protocol(opentelemetry_otlp::Protocol::HttpBinary).build()?;
    let mut resource = Resource::builder().with_attributes([
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", config.instance.clone()),
        KeyValue::new("flowtap.service", config.service.clone()),
    ]);
    if env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("flowtap-agent");
    }
    let exporter = OnRuntime { exporter: Arc::new(exporter), runtime: Handle::current() };
    Ok(SdkTracerProvider::builder()
        .with_resource(resource.build())
        .with_batch_exporter(exporter)
        .build())
}

/// Runs an exporter's HTTP client on the agent's runtime: the batch processor calls from a thread
/// of its own, where the client could not work.
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

#[cfg(test)]
mod tests;
