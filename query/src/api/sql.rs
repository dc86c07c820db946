//! `POST /api/v1/sql`: each query runs in a process of its own, the same worker as that of
//! `flowtap sql`, with the same bounds; few at a time.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Json, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::sync::Semaphore;

use super::error::ApiError;
use super::server::Shared;
use super::types::{SqlFormat, SqlQuestion};

/// Queries at a time.
const AT_ONCE: usize = 2;
/// How long a query waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest answer.
const MAX_BYTES: u64 = 64 << 20;
/// Standard error of the worker: one error.
const MAX_WORDS: u64 = 64 << 10;

/// Lets few queries run.
pub(super) struct Turns(Semaphore);

impl Default for Turns {
    fn default() -> Self {
        Self(Semaphore::new(AT_ONCE))
    }
}

pub(super) async fn sql(
    State(shared): State<Arc<Shared>>,
    question: Result<Json<SqlQuestion>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(question) = question.map_err(|error| {
        let message = format!("{}; want {{\"query\": \"SELECT ...\"}}", error.body_text());
        ApiError::question(message)
    })?;
    let Ok(Ok(_turn)) = tokio::time::timeout(PATIENCE, shared.turns.0.acquire()).await else {
        return Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            format!("{AT_ONCE} queries are running: try again in a moment"),
        ));
    };
    let (format, media_type) = match question.format {
        SqlFormat::Json => ("json", "application/json"),
        SqlFormat::Csv => ("csv", "text/csv; charset=utf-8"),
        SqlFormat::Arrow => ("arrow", "application/vnd.apache.arrow.stream"),
    };
    let store = shared.answers.catalog().store().url();
    let bytes = run(store, format, &question.query).await?;
    let headers = [(header::CONTENT_TYPE, media_type), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, bytes).into_response())
}

async fn run(store: &str, format: &str, query: &str) -> Result<Vec<u8>, ApiError> {
    let failed = |error: std::io::Error| {
        let message = format!("the query's process cannot be run: {error}");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "no_worker", message)
    };
    let program = std::env::current_exe().map_err(failed)?;
    let mut worker = Command::new(program)
        .args(["sql", "--worker", "--store", store, "--answer", format, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let (Some(mut input), Some(output), Some(words)) =
        (worker.stdin.take(), worker.stdout.take(), worker.stderr.take())
    else {
        return Err(failed(std::io::Error::other("no pipes")));
    };
    // A worker that fails at once reads nothing: its own word says why.
    let write = async {
        let _ = input.write_all(query.as_bytes()).await;
        drop(input);
    };
    let (mut answer, mut said) = (Vec::new(), Vec::new());
    let mut output = output.take(MAX_BYTES + 1);
    let read = output.read_to_end(&mut answer);
    let mut words = words.take(MAX_WORDS);
    let ((), read, heard) = tokio::join!(write, read, words.read_to_end(&mut said));
    read.and(heard).map_err(failed)?;
    if answer.len() as u64 > MAX_BYTES {
        return Err(ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "too_large",
            format!(
                "the answer has more than {} MiB: select fewer columns or rows",
                MAX_BYTES >> 20
            ),
        ));
    }
    let status = worker.wait().await.map_err(failed)?;
    if status.success() {
        return Ok(answer);
    }
    let said = String::from_utf8_lossy(&said);
    let error = said.find("error: ").map(|at| said[at + 7..].trim().to_owned());
    let message = match (status.code(), error) {
        (Some(_), Some(error)) => error,
        _ => "the query needs more memory than it may take, or is nested too deeply: narrow it"
            .to_owned(),
    };
    Err(ApiError::new(StatusCode::BAD_REQUEST, "query_failed", message))
}
