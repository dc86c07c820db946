//! `flowtap flows`: which flows there were, newest first; and `flowtap tail`: each as its state
//! comes or changes.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use url::form_urlencoded;

use super::ask::{self, Asked, NoAnswer, Source};
use super::tables::{printable, table, time};
use super::why::coverage;
use super::{FAILED, USAGE, print};
use crate::api::types::{FlowList, FlowSummary};

/// List flows, newest first
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    filter: FilterArgs,

    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=500))]
    limit: u64,

    /// Where the page before ended
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,

    /// Write what GET /api/v1/flows answers
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    source: Source,
}

/// Follow flows: a line each time that the state of one comes or changes
#[derive(Debug, clap::Args)]
pub(super) struct TailArgs {
    #[command(flatten)]
    filter: FilterArgs,

    /// Write one JSON object a line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    source: Source,
}

#[derive(Debug, clap::Args)]
struct FilterArgs {
    /// healthy, running, late, suspect, broken or unknown; may be repeated
    #[arg(long, value_name = "STATE")]
    state: Vec<String>,

    /// This service takes part
    #[arg(long, value_name = "NAME")]
    service: Option<String>,

    /// A message of this type is in it
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,

    /// With this business key
    #[arg(long, value_name = "[NAME=]VALUE")]
    key: Option<String>,

    /// This text is an id or key of it, or stands in its summary
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,

    /// Started at or after this time: 2026-11-21T12:00:00Z
    #[arg(long, value_name = "TIME")]
    from: Option<String>,

    /// Started before this time
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
}

impl FilterArgs {
    fn query(&self, more: &[(&str, &str)]) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for state in &self.state {
            query.append_pair("state", state);
        }
        let named = [
            ("service", &self.service),
            ("type", &self.event_type),
            ("key", &self.key),
            ("text", &self.text),
            ("from", &self.from),
            ("to", &self.to),
        ];
        for (name, value) in named {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        for (name, value) in more {
            query.append_pair(name, value);
        }
        query.finish()
    }
}

pub(super) fn run(args: Args) -> ExitCode {
    let Args { filter, limit, cursor, json, source } = args;
    ask::with(source, async move |asked| {
        let limit = limit.to_string();
        let mut more = vec![("limit", limit.as_str())];
        if let Some(cursor) = &cursor {
            more.push(("cursor", cursor));
        }
        let list = asked.flows(&filter.query(&more)).await?;
        if json {
            print(&(to_json(&list)? + "\n"));
        } else {
            print(&words(&list));
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn words(list: &FlowList) -> String {
    let rows = list.flows.iter().map(|flow| {
        vec![
            time(&flow.started_at),
            flow.headline.clone(),
            flow.last_step.clone().unwrap_or_default(),
            keys(flow),
            flow.messages.to_string(),
            flow.flow.clone(),
        ]
    });
    let mut text =
        table(&["started (UTC)", "state", "last step", "keys", "messages", "flow"], rows);
    if let Some(to) = &list.searched_to {
        let _ = writeln!(text, "searched back to {}", time(to));
    }
    if let Some(next) = &list.next {
        let _ = writeln!(text, "more: --cursor {next}");
    }
    text.push_str(&coverage(&list.coverage));
    text
}

fn keys(flow: &FlowSummary) -> String {
    let keys = flow.keys.iter().take(3).map(|key| key.value.clone());
    keys.collect::<Vec<_>>().join(" ")
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<String, NoAnswer> {
    serde_json::to_string(value).map_err(|error| NoAnswer(FAILED, error.to_string()))
}

/// How often the newest flows are asked for.
const PERIOD: Duration = Duration::from_secs(1);
/// Flows that may still change.
const WATCHED: &str = "200";

pub(super) fn tail(args: TailArgs) -> ExitCode {
    let TailArgs { filter, json, source } = args;
    ask::with(source, async move |asked| {
        let mut states: HashMap<String, String> = HashMap::new();
        let (mut first, mut away) = (true, false);
        loop {
            match follow(&asked, &filter, json, first, &mut states).await {
                Ok(()) => {
                    if std::mem::take(&mut away) {
                        tracing::warn!("it answers again");
                    }
                    first = false;
                }
                // A wrong question stays wrong; what cannot be reached at all is told at once.
                Err(NoAnswer(code, message)) if first || code == USAGE => {
                    return Err(NoAnswer(code, message));
                }
                Err(NoAnswer(_, error)) => {
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!(error, "no answer, trying on");
                    }
                }
            }
            tokio::time::sleep(PERIOD).await;
        }
    })
}

/// Writes what changed since the last look. The first look shows the newest ten.
async fn follow(
    asked: &Asked,
    filter: &FilterArgs,
    json: bool,
    first: bool,
    states: &mut HashMap<String, String>,
) -> Result<(), NoAnswer> {
    let list = asked.flows(&filter.query(&[("limit", WATCHED)])).await?;
    let count = list.flows.len();
    for (index, flow) in list.flows.iter().rev().enumerate() {
        let known = states.insert(flow.flow.clone(), flow.headline.clone());
        let old = first && index + 10 < count;
        if known.as_ref() == Some(&flow.headline) || old {
            continue;
        }
        if json {
            print(&(to_json(flow)? + "\n"));
        } else {
            print(&printable(&format!(
                "{}  {}  {}  {}",
                time(&flow.last_at),
                flow.headline,
                keys(flow),
                flow.flow
            )));
            print("\n");
        }
    }
    let shown: std::collections::HashSet<&String> =
        list.flows.iter().map(|flow| &flow.flow).collect();
    states.retain(|flow, _| shown.contains(flow));
    Ok(())
}
