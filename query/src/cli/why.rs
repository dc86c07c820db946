//! `flowtap why ID`: what happened, in sentences.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::ask::{self, NoAnswer, Source};
use super::tables::{fill, table, time};
use super::{FAILED, print};
use crate::api::types::{By, Coverage, FlowDetail, Found, Message, State, Why};

/// Exit codes beyond those of every command.
const BROKEN: u8 = 3;
const UNKNOWN: u8 = 4;
const SUSPECT: u8 = 5;
const NOT_FOUND: u8 = 6;

const TOO_MANY: &str = "Note: more than 10 000 records carry it; the newest were looked at.";

const EXAMPLES: &str = "\
ID is what you have: an order number or another business key, an event id, the id of a flow, of a
command or of a trace.

Exit code: 0 healthy, running or late; 3 broken; 4 unknown; 5 suspect; 6 not found, or messages that
are no flow; 1 no answer; 2 wrong usage. Times are UTC.";

/// Say what happened to an order, a message, a flow
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// An order number or other business key, event id, flow id, command id or trace id
    id: String,

    /// Write what GET /api/v1/why answers
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    source: Source,
}

pub(super) fn run(args: Args) -> ExitCode {
    let Args { id, json, source } = args;
    ask::with(source, async move |asked| {
        let why = asked.why(&id).await?;
        let text = if json {
            let text = serde_json::to_string(&why);
            text.map_err(|error| NoAnswer(FAILED, error.to_string()))? + "\n"
        } else {
            words(&why)
        };
        print(&text);
        Ok(ExitCode::from(exit_code(&why)))
    })
}

fn exit_code(why: &Why) -> u8 {
    let Some(flow) = &why.flow else { return NOT_FOUND };
    match flow.verdict.state {
        State::Healthy | State::Running | State::Late => 0,
        State::Broken => BROKEN,
        State::Unknown => UNKNOWN,
        State::Suspect => SUSPECT,
    }
}

/// The answer for people.
fn words(why: &Why) -> String {
    match (&why.flow, why.found) {
        (Some(flow), _) => flow_words(flow, why),
        (None, Found::Messages) => {
            let mut text = format!("{}\n", why.explanation.as_deref().unwrap_or_default());
            if why.truncated {
                text.push_str(&fill(TOO_MANY));
                text.push('\n');
            }
            text.push_str(&messages(&why.messages));
            text.push_str(&coverage(&why.coverage));
            text
        }
        _ => {
            let explanation = why.explanation.as_deref().unwrap_or("Nothing was found.");
            format!("NOT FOUND\n{}\n{}", fill(explanation), coverage(&why.coverage))
        }
    }
}

fn flow_words(flow: &FlowDetail, why: &Why) -> String {
    let verdict = &flow.verdict;
    let path = verdict.path.as_ref().map(|path| format!("({path})")).unwrap_or_default();
    let space = 92usize.saturating_sub(verdict.headline.chars().count() + path.chars().count());
    let mut text = format!("{}{}{path}\n", verdict.headline, " ".repeat(space.max(2)));
    text.push_str(&fill(&verdict.sentences.join(" ")));
    text.push('\n');
    for note in &verdict.notes {
        text.push_str(&fill(&format!("Note: {note}.")));
        text.push('\n');
    }
    if verdict.state != State::Healthy {
        for evidence in &verdict.evidence {
            let _ = writeln!(text, "  {}", evidence.text);
        }
    }
    if flow.truncated {
        text.push_str(&fill(
            "Note: it has, or may have, more records than were judged: more than 10 000, or such that \
             could not be read or are not searched any more.",
        ));
        text.push('\n');
    }
    if why.truncated {
        text.push_str(&fill(TOO_MANY));
        text.push('\n');
    }
    let mut others: Vec<&str> = why
        .matched
        .iter()
        .filter(|matched| matched.by != By::TransactionId)
        .filter_map(|matched| matched.flow.as_deref())
        .filter(|other| *other != flow.summary.flow)
        .collect();
    others.sort_unstable();
    others.dedup();
    if !others.is_empty() {
        let shown = others.iter().take(5).copied().collect::<Vec<_>>().join(", ");
        text.push_str(&fill(&format!("It is also in {} older flows: {shown}.", others.len())));
        text.push('\n');
    }
    let _ = write!(text, "flow {}   ", flow.summary.flow);
    text.push_str(&coverage(&flow.coverage));
    text
}

/// The line about coverage, and who is missing.
pub(super) fn coverage(coverage: &Coverage) -> String {
    let mut text = format!("{}\n", coverage.sentence);
    for silent in coverage.silent.iter().take(10) {
        let _ = writeln!(text, "silent: {} since {}", silent.service, time(&silent.since));
    }
    text
}

fn messages(messages: &[Message]) -> String {
    let rows = messages.iter().map(|message| {
        let handled = message.handlings.iter().map(|handling| {
            format!(
                "{} {}",
                handling.service.as_deref().unwrap_or("?"),
                handling.outcome.as_deref().unwrap_or("open")
            )
        });
        vec![
            message.published_at.as_deref().map(time).unwrap_or_default(),
            message.event_type.clone().unwrap_or_default(),
            message.publisher.clone().unwrap_or_else(|| "?".to_owned()),
            message.destination.clone().unwrap_or_default(),
            message.publish_outcome.clone().unwrap_or_default(),
            handled.collect::<Vec<_>>().join(", "),
        ]
    });
    table(&["published (UTC)", "type", "by", "to", "outcome", "handled"], rows)
}
