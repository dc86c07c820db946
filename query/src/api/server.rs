//! The HTTP server: routes, reading of parameters, start and end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Path, Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tracing::Instrument as _;
use url::form_urlencoded;

use super::document;
use super::error::ApiError;
use super::guard::{Guard, guard};
use super::metrics::Metrics;
use super::page::page;
use super::sql::{Turns, sql};
use super::tls::{TlsFiles, TlsListener, acceptor};
use super::types::State as FlowState;
use crate::answer::{Answers, Filter, now};
use crate::ingest::Counts;

/// How often the catalog looks at the store, asked or not.
const KEEP_UP: Duration = Duration::from_secs(1);
/// A store that gives nothing for longer makes the server unhealthy.
const QUIET: Duration = Duration::from_mins(1);
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How a server is set up.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Names that it may be asked by, besides its own address.
    pub hosts: Vec<String>,
    /// Who knows it may ask.
    pub token: Option<String>,
    /// Certificate and key.
    pub tls: Option<TlsFiles>,
    /// What its ingester counts.
    pub ingest: Counts,
}

/// What handlers share.
pub(super) struct Shared {
    pub(super) answers: Answers,
    pub(super) turns: Turns,
    metrics: Metrics,
}

/// A bound server.
pub struct Server {
    listener: TcpListener,
    tls: Option<tokio_rustls::TlsAcceptor>,
    app: Router,
    answers: Answers,
}

impl Server {
    /// Takes `listener`; nothing is answered before [`Server::serve`].
    pub fn new(listener: TcpListener, answers: Answers, options: Options) -> Result<Self, String> {
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let loopback = address.ip().is_loopback();
        let mut hosts = vec!["localhost".to_owned(), address.ip().to_string()];
        if loopback {
            hosts.extend(["127.0.0.1".to_owned(), "::1".to_owned()]);
        }
        hosts.extend(options.hosts.iter().map(|name| name.to_ascii_lowercase()));
        let rules = Arc::new(Guard { hosts, any_ip: !loopback, token: options.token });
        let shared = Arc::new(Shared {
            answers: answers.clone(),
            turns: Turns::default(),
            metrics: Metrics::new(options.ingest),
        });
        let tls = options.tls.as_ref().map(acceptor).transpose()?;
        let app = router(shared).layer(middleware::from_fn_with_state(rules, guard));
        Ok(Self { listener, tls, app, answers })
    }

    /// Where it is bound.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `end` comes, then lets open requests finish.
    pub async fn serve(self, end: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        let keeper = tokio::spawn(keep_up(self.answers.clone()));
        let served = match self.tls {
            None => axum::serve(self.listener, self.app).with_graceful_shutdown(end).await,
            Some(acceptor) => {
                let listener = TlsListener::start(self.listener, acceptor)?;
                axum::serve(listener, self.app).with_graceful_shutdown(end).await
            }
        };
        keeper.abort();
        served
    }
}

/// Looks at the store again and again, so that a question finds the catalog ready.
async fn keep_up(answers: Answers) {
    let mut trouble = false;
    loop {
        let refreshed = answers.catalog().refresh(KEEP_UP, now()).await;
        match refreshed {
            Ok(()) => {
                if std::mem::take(&mut trouble) {
                    tracing::info!("the store can be read again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut trouble, true) {
                    tracing::error!(%error, "the store cannot be read: answers say how old they are");
                }
            }
        }
        tokio::time::sleep(KEEP_UP).await;
    }
}

fn router(shared: Arc<Shared>) -> Router {
    let api = Router::new()
        .route("/flows", get(flows))
        .route("/flows/{flow}", get(flow))
        .route("/why", get(why))
        .route("/agents", get(agents))
        .route("/map", get(map))
        .route("/sql", post(sql))
        .route("/openapi.json", get(openapi))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method);
    Router::new()
        .nest("/api/v1", api)
        .route("/api", get(no_such_path))
        .route("/api/{*rest}", get(no_such_path))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .fallback(get(page))
        .layer(middleware::from_fn_with_state(shared.clone(), measure))
        .with_state(shared)
}

/// Counts and traces each request. What was asked for is not in the span: ids are people's.
async fn measure(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("page", MatchedPath::as_str).to_owned();
    let span = tracing::info_span!("request", otel.name = route, method = %request.method(), status = tracing::field::Empty);
    let started = Instant::now();
    let response = next.run(request).instrument(span.clone()).await;
    span.record("status", response.status().as_u16());
    shared.metrics.request(&route, response.status().as_u16(), started.elapsed());
    response
}

// === handlers ===

type Answer<T> = Result<Json<T>, ApiError>;

async fn flows(State(shared): State<Arc<Shared>>, uri: Uri) -> Answer<super::types::FlowList> {
    let filter = filter(uri.query().unwrap_or_default()).map_err(ApiError::question)?;
    Ok(Json(shared.answers.flows(&filter).await?))
}

async fn flow(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Answer<super::types::FlowDetail> {
    let found = shared.answers.flow(&id).await?;
    let missing = || {
        let message = format!("there is no flow {id:?}; /api/v1/why?id=ID finds one by any id");
        ApiError::new(StatusCode::NOT_FOUND, "no_such_flow", message)
    };
    found.map(Json).ok_or_else(missing)
}

async fn why(State(shared): State<Arc<Shared>>, uri: Uri) -> Answer<super::types::Why> {
    let mut id = None;
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match &*name {
            "id" => id = Some(value.into_owned()),
            other => return Err(unknown_parameter(other, "id")),
        }
    }
    let id = id.ok_or_else(|| ApiError::question("want ?id=ID".to_owned()))?;
    Ok(Json(shared.answers.why(&id).await?))
}

async fn agents(State(shared): State<Arc<Shared>>) -> Answer<super::types::AgentList> {
    Ok(Json(shared.answers.agents().await?))
}

async fn map(State(shared): State<Arc<Shared>>, uri: Uri) -> Answer<super::types::MapAnswer> {
    let (mut from, mut to) = (None, None);
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match &*name {
            "from" => from = Some(time("from", &value).map_err(ApiError::question)?),
            "to" => to = Some(time("to", &value).map_err(ApiError::question)?),
            other => return Err(unknown_parameter(other, "from and to")),
        }
    }
    Ok(Json(shared.answers.map(from, to).await?))
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document()).into_response()
}

/// Whether it answers from what is in the store: a store that gave nothing for over a minute is
/// trouble that an operator wants to see before people do.
async fn healthz(State(shared): State<Arc<Shared>>) -> (StatusCode, String) {
    let quiet = shared.answers.catalog().store_health().touched.elapsed();
    if quiet <= QUIET {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let said = format!("the store could not be read for {} s\n", quiet.as_secs());
    (StatusCode::SERVICE_UNAVAILABLE, said)
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    match shared.metrics.encode(shared.answers.catalog()) {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn no_such_path(uri: Uri) -> ApiError {
    let message = format!("there is no {}; /api/v1/openapi.json says what there is", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, "no_such_path", message)
}

async fn wrong_method() -> ApiError {
    let message = "wrong method: /sql wants POST, the others GET".to_owned();
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", message)
}

// === parameters ===

fn unknown_parameter(name: &str, known: &str) -> ApiError {
    ApiError::question(format!("unknown parameter {name:?}: there is {known}"))
}

/// Reads the parameters of `/flows`; `state` may be repeated. Empty ones count as left out.
pub fn filter(query: &str) -> Result<Filter, String> {
    let mut filter = Filter::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if value.is_empty() {
            continue;
        }
        let text = || Some(value.clone().into_owned());
        match &*name {
            "from" => filter.from = Some(time("from", &value)?),
            "to" => filter.to = Some(time("to", &value)?),
            "state" => filter.states.push(state(&value)?),
            "service" => filter.service = text(),
            "type" => filter.event_type = text(),
            "key" => filter.key = text(),
            "text" => filter.text = text(),
            "cursor" => filter.cursor = text(),
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=500).contains(limit));
                let wrong = || format!("limit {value:?}: want a number from 1 to 500");
                filter.limit = Some(limit.ok_or_else(wrong)?);
            }
            other => {
                return Err(format!(
                    "unknown parameter {other:?}: there are from, to, state, service, type, key, \
                     text, limit and cursor"
                ));
            }
        }
    }
    Ok(filter)
}

/// A state by its word.
pub fn state(word: &str) -> Result<FlowState, String> {
    serde_json::from_value(word.into()).map_err(|_| {
        format!("state {word:?}: want healthy, running, late, suspect, broken or unknown")
    })
}

fn time(name: &str, text: &str) -> Result<i64, String> {
    let at: Result<jiff::Timestamp, _> = text.parse();
    at.map(jiff::Timestamp::as_microsecond)
        .map_err(|_| format!("{name} {text:?}: want RFC 3339, as 2026-11-21T12:00:00Z"))
}
