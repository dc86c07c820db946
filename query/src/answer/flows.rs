//! The list of flows: newest first, filtered, in pages.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{AnswerError, Answers, shape};
use crate::api::types::{FlowList, FlowSummary, State};
use crate::find::{FlowEntry, MAX_RECORDS, Order, hash};
use crate::flow::Flow;

/// A filter may judge so long before it stops and says how far it came.
const BUDGET: Duration = Duration::from_millis(700);
/// Flows judged at a time.
const CHUNK: usize = 64;
/// The largest page.
const MAX_LIMIT: usize = 500;
/// The page where none is asked for.
const LIMIT: usize = 50;

/// Which flows are wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Started at or after, microseconds.
    pub from: Option<i64>,
    /// Started before, microseconds.
    pub to: Option<i64>,
    /// In one of these states; none: in any.
    pub states: Vec<State>,
    /// This service takes part.
    pub service: Option<String>,
    /// A message of this type is in it.
    pub event_type: Option<String>,
    /// With this business key: `VALUE` or `NAME=VALUE`.
    pub key: Option<String>,
    /// This text is an id or key of it, or stands in its summary.
    pub text: Option<String>,
    /// At most so many.
    pub limit: Option<usize>,
    /// Where the page before ended.
    pub cursor: Option<String>,
}

impl Filter {
    fn is_none(&self) -> bool {
        self.states.is_empty()
            && self.service.is_none()
            && self.event_type.is_none()
            && self.key.is_none()
            && self.text.is_none()
    }

    /// Whether a flow can be wanted, told from the index alone.
    fn may_want(&self, entry: &FlowEntry) -> bool {
        self.states != [State::Broken] || entry.refused
    }

    fn wants(&self, summary: &FlowSummary, flow: &Flow) -> bool {
        let is = |wanted: &Option<String>, test: &dyn Fn(&str) -> bool| {
            wanted.as_deref().is_none_or(test)
        };
        let has_type = |wanted: &str| {
            flow.messages.iter().any(|message| message.event_type.as_deref() == Some(wanted))
                || summary.command.as_deref() == Some(wanted)
        };
        (self.states.is_empty() || self.states.contains(&summary.state))
            && is(&self.service, &|wanted| summary.services.iter().any(|it| it == wanted))
            && is(&self.event_type, &has_type)
            && is(&self.key, &|wanted| has_key(summary, wanted))
            && is(&self.text, &|wanted| has_text(summary, flow, wanted))
    }
}

fn has_key(summary: &FlowSummary, wanted: &str) -> bool {
    summary.keys.iter().any(|key| {
        key.value == wanted
            || wanted
                .split_once('=')
                .is_some_and(|(name, value)| key.name == name && key.value == value)
    })
}

fn has_text(summary: &FlowSummary, flow: &Flow, wanted: &str) -> bool {
    let wanted = wanted.to_lowercase();
    let has = |text: &str| text.to_lowercase().contains(&wanted);
    has(&summary.flow)
        || has(&summary.headline)
        || has(&summary.sentence)
        || summary.keys.iter().any(|key| has(&key.value))
        || summary.services.iter().any(|service| has(service))
        || flow.messages.iter().any(|message| {
            [&message.event_type, &message.event_id, &message.command]
                .into_iter()
                .any(|text| text.as_deref().is_some_and(has))
        })
}

impl Answers {
    /// One page of flows.
    pub async fn flows(&self, filter: &Filter) -> Result<FlowList, AnswerError> {
        let limit = filter.limit.unwrap_or(LIMIT).clamp(1, MAX_LIMIT);
        let (snapshot, now) = self.fresh().await?;
        let snapshot = snapshot.for_lists();
        let mut before: Order = match &filter.cursor {
            Some(cursor) => parse_cursor(cursor)?,
            None => (filter.to.unwrap_or(i64::MAX), 0),
        };
        let from = filter.from.unwrap_or(i64::MIN);
        let started = Instant::now();
        let mut list = FlowList {
            flows: Vec::new(),
            next: None,
            searched_to: None,
            coverage: self.coverage(&snapshot, now),
        };
        let may_want = |entry: &FlowEntry| !entry.is_no_flow() && filter.may_want(entry);
        // What an id or a key leads to needs no search.
        let mut named = self.by_id(filter).await?;
        loop {
            let chunk = if let Some(named) = &mut named {
                named.retain(|(order, _)| *order < before);
                named.iter().take(CHUNK).cloned().collect()
            } else {
                let rest = (limit - list.flows.len()).max(1) + 1;
                let count = if filter.is_none() { rest } else { CHUNK };
                self.catalog.newest(before, count, may_want)
            };
            let end = chunk.is_empty() || chunk.last().is_some_and(|(order, _)| order.0 < from);
            let wanted: Vec<_> = chunk
                .iter()
                .filter(|(order, entry)| order.0 >= from && entry.as_ref().is_none_or(may_want))
                .cloned()
                .collect();
            let rows = self.catalog.gather_list(&wanted).await.map_err(AnswerError::Read)?;
            let judging = tracing::info_span!("judge", flows = rows.len()).entered();
            for (order, _) in &chunk {
                let Some(listed) = rows.get(order) else {
                    before = *order;
                    continue;
                };
                if list.flows.len() == limit {
                    list.next = Some(write_cursor(before));
                    return Ok(list);
                }
                before = *order;
                let truncated = listed.truncated || listed.rows.len() > MAX_RECORDS;
                let rows = listed.rows.iter().take(MAX_RECORDS).cloned().collect();
                let flow = Self::assemble(rows, truncated, &snapshot);
                let verdict = self.judge(&flow, &snapshot, now);
                let summary = shape::summary(&listed.id.to_string(), &flow, &verdict);
                if filter.wants(&summary, &flow) {
                    list.flows.push(summary);
                }
            }
            drop(judging);
            if end {
                return Ok(list);
            }
            if started.elapsed() > BUDGET {
                list.next = Some(write_cursor(before));
                list.searched_to = Some(flowtap_record::Micros(before.0).to_string());
                return Ok(list);
            }
        }
    }

    /// Flows that an id or key leads to, newest first; none where there is nothing to look up.
    async fn by_id(
        &self,
        filter: &Filter,
    ) -> Result<Option<Vec<(Order, Option<FlowEntry>)>>, AnswerError> {
        let key = filter.key.as_deref();
        let value = key.map(|key| key.split_once('=').map_or(key, |(_, value)| value));
        let Some(id) = value.or(filter.text.as_deref()) else { return Ok(None) };
        let hits = self.catalog.hits(id).await.map_err(AnswerError::Read)?;
        let ids: BTreeSet<String> =
            hits.rows.into_iter().filter_map(|row| row.transaction_id).collect();
        let mut flows: Vec<_> = ids
            .into_iter()
            .filter_map(|id| {
                let id = hash::transaction(&id);
                let entry = self.catalog.flow(id)?;
                Some(((entry.first, id), Some(entry)))
            })
            .collect();
        flows.sort_by(|(a, _), (b, _)| b.cmp(a));
        // A text that is no id may still stand in a summary; a key has no other place.
        if flows.is_empty() && (key.is_none() || self.catalog.has_loose()) {
            return Ok(None);
        }
        Ok(Some(flows))
    }
}

fn write_cursor(order: Order) -> String {
    format!("{}-{:016x}", order.0, order.1)
}

fn parse_cursor(text: &str) -> Result<Order, AnswerError> {
    let parts = || {
        let (at, id) = text.rsplit_once('-')?;
        Some((at.parse().ok()?, u64::from_str_radix(id, 16).ok()?))
    };
    parts().ok_or_else(|| {
        AnswerError::Question(format!(
            "cursor {text:?} is none of ours: give back what `next` of a page said"
        ))
    })
}
