//! Where `why`, `flows` and `tail` get their answers: from a server, or from the store itself.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use url::form_urlencoded;

use super::serve::read_token;
use super::{FAILED, USAGE, complain, runtime, telemetry};
use crate::answer::{AnswerError, Answers, PATIENCE};
use crate::api::filter;
use crate::api::types::{ErrorAnswer, FlowList, Why};
use crate::find::Catalog;
use crate::store::Store;

/// Where to ask.
#[derive(Debug, clap::Args)]
pub(super) struct Source {
    /// The server to ask
    #[arg(
        help = "The server to ask [default: http://127.0.0.1:8080]",
        long,
        value_name = "URL",
        env = "FLOWTAP_SERVER"
    )]
    server: Option<String>,

    /// A file with the server's token
    #[arg(long, value_name = "FILE", env = "FLOWTAP_TOKEN_FILE")]
    token_file: Option<PathBuf>,

    /// Answer from this store, without a server, whatever --server says
    #[arg(
        help = "Answer from this store, without a server: a folder, file:///path or s3://bucket/prefix",
        long,
        value_name = "URL"
    )]
    store: Option<String>,

    /// With --store: after so long something that is missing is called late [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = super::sql::duration, requires = "store")]
    late_after: Option<Duration>,
}

/// Where a server is looked for when none is named.
const SERVER: &str = "http://127.0.0.1:8080";

/// Why there is no answer: exit code and sentence.
pub(super) struct NoAnswer(pub(super) u8, pub(super) String);

/// Somebody who answers.
pub(super) enum Asked {
    Server { url: String, token: Option<String>, client: reqwest::Client },
    Store(Box<Answers>),
}

/// Runs `work` with somebody who answers.
pub(super) fn with<F>(source: Source, work: impl FnOnce(Asked) -> F) -> ExitCode
where
    F: Future<Output = Result<ExitCode, NoAnswer>>,
{
    telemetry::log("warn");
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return complain(FAILED, &error),
    };
    let done = runtime.block_on(async { work(Asked::open(source)?).await });
    done.unwrap_or_else(|NoAnswer(code, message)| complain(code, &message))
}

impl Asked {
    fn open(source: Source) -> Result<Self, NoAnswer> {
        if let Some(url) = source.store {
            let store = Store::open(&url).map_err(|error| {
                NoAnswer(if error.is_usage() { USAGE } else { FAILED }, error.to_string())
            })?;
            let answers = Answers::new(Arc::new(Catalog::new(store)));
            let patience = source.late_after.unwrap_or(PATIENCE);
            return Ok(Self::Store(Box::new(answers.with_patience(patience))));
        }
        let token = source.token_file.as_deref().map(read_token).transpose();
        let token = token.map_err(|message| NoAnswer(USAGE, message))?;
        let url = source.server.as_deref().unwrap_or(SERVER).trim_end_matches('/').to_owned();
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(NoAnswer(USAGE, format!("--server {url}: want http://HOST:PORT")));
        }
        // The server is asked as it is named, whatever proxy the environment sets.
        let client = reqwest::Client::builder().no_proxy().build();
        let client = client.map_err(|error| NoAnswer(FAILED, error.to_string()))?;
        Ok(Self::Server { url, token, client })
    }

    pub(super) async fn why(&self, id: &str) -> Result<Why, NoAnswer> {
        match self {
            Self::Store(answers) => answers.why(id).await.map_err(NoAnswer::from),
            Self::Server { .. } => {
                let query = form_urlencoded::Serializer::new(String::new());
                self.get(&format!("why?{}", { query }.append_pair("id", id).finish())).await
            }
        }
    }

    /// `query` as the API takes it.
    pub(super) async fn flows(&self, query: &str) -> Result<FlowList, NoAnswer> {
        match self {
            Self::Store(answers) => {
                let filter = filter(query).map_err(|message| NoAnswer(USAGE, message))?;
                answers.flows(&filter).await.map_err(NoAnswer::from)
            }
            Self::Server { .. } => self.get(&format!("flows?{query}")).await,
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, NoAnswer> {
        let Self::Server { url, token, client } = self else {
            return Err(NoAnswer(FAILED, "no server".to_owned()));
        };
        let failed = |why: String| {
            NoAnswer(
                FAILED,
                format!(
                    "the server {url} does not answer: {why}. Start one with `flowtap serve \
                     --store URL`, or ask without: --store URL"
                ),
            )
        };
        let mut request = client.get(format!("{url}/api/v1/{path}"));
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let response = request.send().await.map_err(|error| failed(root(&error)))?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|error| failed(root(&error)))?;
        if status.is_success() {
            return serde_json::from_slice(&bytes)
                .map_err(|error| failed(format!("it is no flowtap of this version ({error})")));
        }
        let said: Result<ErrorAnswer, _> = serde_json::from_slice(&bytes);
        let code = if status.as_u16() == 400 { USAGE } else { FAILED };
        Err(match said {
            Ok(said) => NoAnswer(code, said.error.message),
            Err(_) => failed(format!("HTTP {status}")),
        })
    }
}

impl From<AnswerError> for NoAnswer {
    fn from(error: AnswerError) -> Self {
        let code = match error {
            AnswerError::Question(_) => USAGE,
            _ => FAILED,
        };
        Self(code, error.to_string())
    }
}

/// The reason behind the layers of an HTTP client.
fn root(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
