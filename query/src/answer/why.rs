//! `why`: from anything that a person has in hand to a flow, or to the word that there is none.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;

use flowtap_record::Micros;

use super::{AnswerError, Answers, shape};
use crate::api::types::{By, Found, Matched, Why};
use crate::find::{FlowId, Snapshot, hash};
use crate::flow::{Row, clock};

/// The longest id that an agent records is 512 bytes.
const MAX_ID_BYTES: usize = 1024;

impl Answers {
    /// What happened to what `id` names: a flow, a message, a business key, a trace.
    pub async fn why(&self, id: &str) -> Result<Why, AnswerError> {
        let id = id.trim();
        if id.is_empty() || id.len() > MAX_ID_BYTES {
            return Err(AnswerError::Question(format!(
                "an id has 1 to {MAX_ID_BYTES} bytes: give an order number, an event id, a flow id, a command id or a trace id"
            )));
        }
        let (snapshot, now) = self.fresh().await?;
        let mut why = Why {
            found: Found::Nothing,
            matched: Vec::new(),
            flow: None,
            messages: Vec::new(),
            records: Vec::new(),
            explanation: None,
            truncated: false,
            coverage: self.coverage(&snapshot, now),
        };
        let parsed = FlowId::parse(id);
        if matches!(parsed, FlowId::Root(_)) {
            why.flow = self.detail(&parsed, &snapshot, now).await?;
            if why.flow.is_some() {
                why.found = Found::Flow;
                return Ok(why);
            }
        }
        let hits = self.catalog.hits(id).await.map_err(AnswerError::Read)?;
        why.truncated = hits.truncated;
        let rows = hits.rows;
        let (matched, newest) = self.matches(id, &rows);
        why.matched = matched;
        if let Some(flow) = newest {
            why.flow = self.detail(&FlowId::Transaction(flow), &snapshot, now).await?;
        }
        if why.flow.is_some() {
            why.found = Found::Flow;
            return Ok(why);
        }
        if rows.is_empty() {
            why.explanation = Some(nothing(id, &snapshot, now));
            return Ok(why);
        }
        if let Some(root) = self.loose_flow(&rows).await? {
            why.flow = self.detail(&root, &snapshot, now).await?;
            if why.flow.is_some() {
                for matched in &mut why.matched {
                    matched.flow.get_or_insert_with(|| root.to_string());
                }
                why.found = Found::Flow;
                return Ok(why);
            }
        }
        let gathered = self.catalog.single_messages(rows).await.map_err(AnswerError::Read)?;
        why.truncated |= gathered.truncated;
        let flow = Self::assemble(gathered.rows, gathered.truncated, &snapshot);
        let verdict = self.judge(&flow, &snapshot, now);
        why.found = Found::Messages;
        why.messages = shape::messages(&flow, &verdict);
        why.records = shape::records(&flow);
        why.explanation = Some(explain(id, &why.matched, flow.messages.len()));
        Ok(why)
    }

    /// What the id matches, newest flow first, and the flow to show.
    fn matches(&self, id: &str, rows: &[Row]) -> (Vec<Matched>, Option<String>) {
        type Key = (By, Option<String>, Option<String>);
        let mut found: BTreeMap<Key, BTreeSet<String>> = BTreeMap::new();
        let mut last: HashMap<String, i64> = HashMap::new();
        for row in rows {
            let flow = row.transaction_id.clone().filter(|id| !self.is_no_flow(id));
            if let Some(flow) = &flow {
                let at = last.entry(flow.clone()).or_insert(row.at.0);
                *at = row.at.0.max(*at);
            }
            let message = row.event_id.clone().or_else(|| row.message.clone());
            let message = message.unwrap_or_else(|| format!("{}/{}", row.id.boot, row.id.seq));
            let mut note = |by, name| {
                found.entry((by, name, flow.clone())).or_default().insert(message.clone());
            };
            if row.transaction_id.as_deref() == Some(id) {
                note(By::TransactionId, None);
            }
            if row.event_id.as_deref() == Some(id) {
                note(By::EventId, None);
            }
            if row.command_id.as_deref() == Some(id) {
                note(By::CommandId, None);
            }
            if row.trace_id.as_deref() == Some(id) {
                note(By::TraceId, None);
            }
            for key in row.keys.iter().filter(|key| key.value == id) {
                note(By::Key, Some(key.name.clone()));
            }
        }
        let mut matched: Vec<Matched> = found
            .into_iter()
            .map(|((by, name, flow), messages)| Matched {
                by,
                name,
                value: id.to_owned(),
                flow,
                count: messages.len(),
            })
            .collect();
        let age = |flow: &Option<String>| {
            flow.as_ref().and_then(|flow| last.get(flow)).copied().unwrap_or(i64::MIN)
        };
        // The id of a flow means that flow; else the newest.
        matched.sort_by(|a, b| {
            let own = |it: &Matched| it.by == By::TransactionId;
            own(b).cmp(&own(a)).then(age(&b.flow).cmp(&age(&a.flow))).then(a.by.cmp(&b.by))
        });
        let newest = matched.iter().find_map(|it| it.flow.clone());
        (matched, newest)
    }

    fn is_no_flow(&self, transaction: &str) -> bool {
        let entry = self.catalog.flow(hash::transaction(transaction));
        entry.is_some_and(|entry| entry.is_no_flow())
    }

    /// The flow without any transaction id that a message belongs to: up its causation ids.
    async fn loose_flow(&self, rows: &[Row]) -> Result<Option<FlowId>, AnswerError> {
        let Some(mut row) =
            rows.iter().find(|row| row.transaction_id.is_none() && row.event_id.is_some()).cloned()
        else {
            return Ok(None);
        };
        let mut seen = BTreeSet::new();
        while let Some(cause) = row.causation_id.clone()
            && seen.insert(cause.clone())
        {
            let above = self.catalog.hits(&cause).await.map_err(AnswerError::Read)?;
            let mut above: Vec<Row> = above
                .rows
                .into_iter()
                .filter(|row| row.event_id.as_deref() == Some(&cause))
                .collect();
            above.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
            match above.into_iter().next() {
                Some(next) if next.transaction_id.is_some() => {
                    return Ok(next.transaction_id.map(FlowId::Transaction));
                }
                Some(next) => row = next,
                None => break,
            }
        }
        // The first row of the root, and whether anything hangs on it.
        let event = row.event_id.clone().unwrap_or_default();
        let all = self.catalog.hits(&event).await.map_err(AnswerError::Read)?;
        let first = all
            .rows
            .into_iter()
            .filter(|row| row.event_id.as_deref() == Some(&event))
            .min_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
        let Some(first) = first else { return Ok(None) };
        let root = FlowId::Root(first.id);
        let wanted = crate::find::Wanted::Rules;
        let gathered = self.catalog.gather(&root, wanted).await.map_err(AnswerError::Read)?;
        let events: BTreeSet<&String> =
            gathered.rows.iter().filter_map(|row| row.event_id.as_ref()).collect();
        Ok((events.len() > 1).then_some(root))
    }
}

/// That nothing was found, and what was not looked through.
fn nothing(id: &str, snapshot: &Snapshot, now: Micros) -> String {
    let mut text = format!("Nothing that was recorded carries {id}.");
    if let Some(from) = snapshot.searched_from {
        let from = clock(from, now);
        let _ =
            write!(text, " What was recorded before {from} was not searched: use `flowtap sql`.");
    }
    let unread = snapshot.missing.len();
    if unread > 0 {
        let _ = write!(text, " {unread} objects of the store could not be read.");
    }
    text
}

fn explain(id: &str, matched: &[Matched], messages: usize) -> String {
    let mut names: Vec<&str> = matched
        .iter()
        .map(|matched| match matched.by {
            By::Key => matched.name.as_deref().unwrap_or("the key"),
            By::CommandId => "command id",
            By::TraceId => "trace id",
            By::EventId => "event id",
            By::TransactionId => "transaction id",
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    let names = names.join(", ");
    if matched.iter().any(|matched| matched.by == By::TransactionId) {
        return format!(
            "{messages} messages carry the transaction id {id}: more than 10 000 an hour, so it is no flow's id."
        );
    }
    match messages {
        1 => format!(
            "1 message carries {names} {id}. It has no transaction id, and no causation id ties it \
             to another: it is no flow."
        ),
        _ => format!(
            "{messages} messages carry {names} {id}. They share no transaction id and no causation \
             id: they are no flow."
        ),
    }
}
