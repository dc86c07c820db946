//! From flows and verdicts to what the API says.

use std::fmt::Write as _;

use flowtap_record::Micros;

use crate::api::types as api;
use crate::find::Snapshot;
use crate::flow::{
    Agent, Coverage, Flow, Handling, How, KeyValue, Life, Message, Place, Row, State, Verdict,
    clock, coverage_sentence, path,
};

/// Gaps that are shown beside an answer.
const GAPS: usize = 20;

/// `stale`: the store could not be read for a while.
pub(super) fn coverage(snapshot: &Snapshot, stale: bool, now: Micros) -> api::Coverage {
    let coverage: &Coverage = &snapshot.coverage;
    let (live, total) = coverage.counts();
    let silent = coverage.silent().into_iter().map(|agent| api::Silent {
        service: agent.status.service.clone(),
        agent: agent.status.agent.clone(),
        since: agent.silent_since().to_string(),
    });
    let mut gaps: Vec<_> = coverage.gaps.iter().collect();
    gaps.sort_by_key(|gap| std::cmp::Reverse(gap.to));
    let gaps = gaps.into_iter().take(GAPS).map(|gap| api::Gap {
        service: gap.service.clone(),
        agent: gap.agent.clone(),
        from: gap.from.map(|at| at.to_string()),
        to: gap.to.map(|at| at.to_string()),
        count: gap.count,
        reason: gap.reason.clone(),
    });
    api::Coverage {
        complete_to: coverage.complete_to().map(|at| at.to_string()),
        live,
        total,
        silent: silent.collect(),
        gaps: gaps.collect(),
        sentence: sentence(snapshot, stale, now),
        read_at: snapshot.read_at.map(|at| at.to_string()),
        stale,
        searched_from: snapshot.searched_from.map(|at| at.to_string()),
    }
}

/// The line about coverage, with what stands in its way.
fn sentence(snapshot: &Snapshot, stale: bool, now: Micros) -> String {
    let mut sentence = coverage_sentence(&snapshot.coverage, now);
    if let (true, Some(at)) = (stale, snapshot.read_at) {
        let _ = write!(sentence, "; the store could not be read since {}", clock(at, now));
    }
    if let Some(from) = snapshot.searched_from {
        let _ = write!(sentence, "; searched back to {} only", clock(from, now));
    }
    sentence
}

pub(super) fn agent(agent: &Agent) -> api::Agent {
    let status = &agent.status;
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    api::Agent {
        agent: status.agent.clone(),
        boot: status.boot.clone(),
        service: status.service.clone(),
        instance: text(&status.instance),
        version: text(&status.version),
        state: match agent.life {
            Life::Live => api::AgentLife::Live,
            Life::Silent => api::AgentLife::Silent,
            Life::Ended => api::AgentLife::Ended,
            Life::Died => api::AgentLife::Died,
        },
        started_at: Some(status.started_at.to_string()),
        watermark: Some(agent.watermark.to_string()),
        last_seen: Some(agent.last_seen.to_string()),
        last_seq: status.tables.get(flowtap_record::path::HISTORY).map(|table| table.last_seq),
        taps: status
            .taps
            .iter()
            .map(|tap| api::Tap {
                kind: tap.kind.clone(),
                listen: text(&tap.listen),
                broker: text(&tap.broker),
            })
            .collect(),
        spool_bytes: Some(status.spool.bytes),
        gaps: agent.gaps,
    }
}

pub(super) fn state(state: State) -> api::State {
    match state {
        State::Healthy => api::State::Healthy,
        State::Running => api::State::Running,
        State::Late => api::State::Late,
        State::Suspect => api::State::Suspect,
        State::Broken => api::State::Broken,
        State::Unknown => api::State::Unknown,
    }
}

fn place(place: &Place) -> api::Place {
    api::Place {
        system: place.system.clone(),
        destination: place.destination.clone(),
        routing_key: place.routing_key.clone(),
        subscription: place.subscription.clone(),
        partition: place.partition,
        log_offset: place.log_offset,
    }
}

fn keys(keys: &[KeyValue]) -> Vec<api::Key> {
    keys.iter().map(|key| api::Key { name: key.name.clone(), value: key.value.clone() }).collect()
}

pub(super) fn summary(id: &str, flow: &Flow, verdict: &Verdict) -> api::FlowSummary {
    let finding = verdict.finding.as_ref();
    let (mut services, mut systems) = (Vec::new(), Vec::new());
    let note = |names: &mut Vec<String>, name: &Option<String>| {
        if let Some(name) = name
            && !names.contains(name)
        {
            names.push(name.clone());
        }
    };
    for row in &flow.rows {
        note(&mut services, &row.service);
        note(&mut systems, &row.system);
    }
    let mut all: Vec<KeyValue> =
        flow.messages.iter().flat_map(|message| message.keys.iter().cloned()).collect();
    all.sort();
    all.dedup();
    let published = flow.messages.iter().filter_map(|message| {
        let publish = message.publishes.first()?;
        Some((publish.row, message.event_type.clone()?))
    });
    let time = |row: Option<&Row>| row.map(|row| row.at.to_string()).unwrap_or_default();
    api::FlowSummary {
        flow: id.to_owned(),
        state: state(verdict.state),
        headline: verdict.headline.clone(),
        sentence: verdict.sentences.first().cloned().unwrap_or_default(),
        service: finding.and_then(|finding| finding.service.clone()),
        reason: finding.map(|finding| finding.reason.to_owned()),
        event_type: flow.messages.first().and_then(|message| message.event_type.clone()),
        command: flow.messages.iter().find_map(|message| message.command.clone()),
        started_at: time(flow.rows.first()),
        last_at: time(flow.rows.last()),
        last_step: published.max().map(|(_, event_type)| event_type),
        keys: keys(&all),
        services,
        systems,
        messages: flow.messages.len(),
        records: flow.rows.len(),
        truncated: flow.truncated,
    }
}

pub(super) fn verdict(flow: &Flow, verdict: &Verdict) -> api::Verdict {
    let finding = verdict.finding.as_ref();
    let evidence = finding.map_or(&[][..], |finding| &finding.evidence).iter();
    api::Verdict {
        state: state(verdict.state),
        headline: verdict.headline.clone(),
        sentences: verdict.sentences.clone(),
        service: finding.and_then(|finding| finding.service.clone()),
        reason: finding.map(|finding| finding.reason.to_owned()),
        place: finding.map(|finding| place(&finding.place)),
        since: finding.map(|finding| finding.since.to_string()),
        message: finding.map(|finding| finding.message),
        path: path(flow, finding.map(|finding| finding.message).or_else(|| deepest(flow))),
        evidence: evidence
            .map(|evidence| api::Evidence {
                row: api::RowRef { boot: evidence.row.boot.clone(), seq: evidence.row.seq },
                at: evidence.at.to_string(),
                text: evidence.text.clone(),
            })
            .collect(),
        notes: verdict.notes.clone(),
    }
}

/// The last message of the longest chain.
fn deepest(flow: &Flow) -> Option<usize> {
    (0..flow.messages.len()).rev().max_by_key(|&index| flow.messages[index].depth)
}

pub(super) fn messages(flow: &Flow, verdict: &Verdict) -> Vec<api::Message> {
    let judged = verdict.messages.iter().map(Some).chain(std::iter::repeat(None));
    flow.messages
        .iter()
        .enumerate()
        .zip(judged)
        .map(|((index, message), judged)| {
            let mut said = self::message(flow, index, message);
            said.state = judged.map(|(judged, _)| state(*judged));
            said.note = judged.and_then(|(_, note)| note.clone());
            said
        })
        .collect()
}

pub(super) fn message(flow: &Flow, index: usize, message: &Message) -> api::Message {
    let published = flow.published(index);
    // Where its publish was not seen, a delivery says where it came from.
    let somewhere = published.or_else(|| message.rows.first().map(|&row| &flow.rows[row]));
    let last = message.publishes.last();
    api::Message {
        index,
        fingerprint: message.fingerprint.clone(),
        event_id: message.event_id.clone(),
        event_type: message.event_type.clone(),
        transaction_id: message.transaction_id.clone(),
        causation_id: message.causation_id.clone(),
        command: message.command.clone(),
        publisher: published.and_then(|row| row.service.clone()),
        system: somewhere.and_then(|row| row.system.clone()),
        destination: somewhere.and_then(|row| row.destination.clone()),
        routing_key: somewhere.and_then(|row| row.routing_key.clone()),
        partition: somewhere.and_then(|row| row.partition),
        log_offset: somewhere.and_then(|row| row.log_offset),
        published_at: published.map(|row| row.at.to_string()),
        publish_outcome: last.and_then(|it| it.outcome).map(|it| it.as_str().to_owned()),
        size: message.size,
        keys: keys(&message.keys),
        depth: message.depth,
        state: None,
        note: None,
        handlings: message
            .handlings
            .iter()
            .map(|handling| self::handling(flow, handling))
            .collect(),
        records: message.rows.clone(),
    }
}

fn handling(flow: &Flow, handling: &Handling) -> api::Handling {
    let row = flow.handled(handling);
    let settle = handling.settle.map(|settle| &flow.rows[settle]);
    let outcome = handling.outcome.map(|outcome| outcome.as_str().to_owned());
    api::Handling {
        service: row.service.clone(),
        instance: row.instance.clone(),
        system: row.system.clone(),
        subscription: row.subscription.clone(),
        partition: row.partition,
        log_offset: row.log_offset,
        consumer: row.consumer.clone(),
        delivered_at: row.at.to_string(),
        settled_at: settle.map(|settle| settle.at.to_string()),
        outcome: outcome.or_else(|| handling.lost.map(|_| "unknown".to_owned())),
        reason: settle
            .and_then(|settle| settle.reason.clone())
            .or_else(|| handling.lost.map(|lost| lost.as_str().to_owned())),
        attempt: row.attempt,
        redelivered: row.redelivered,
        took_us: settle.and_then(|settle| settle.took_us),
        deliver: handling.deliver,
        settle: handling.settle,
    }
}

pub(super) fn edges(flow: &Flow) -> Vec<api::Edge> {
    let edge = |edge: &crate::flow::Edge| api::Edge {
        from: edge.from,
        to: edge.to,
        how: match edge.how {
            How::Causation => api::How::Causation,
            How::Transaction => api::How::Transaction,
        },
        by: edge.by.clone(),
    };
    flow.edges.iter().map(edge).collect()
}

pub(super) fn records(flow: &Flow) -> Vec<api::Record> {
    flow.rows.iter().map(record).collect()
}

fn record(row: &Row) -> api::Record {
    api::Record {
        boot: row.id.boot.clone(),
        seq: row.id.seq,
        agent: row.agent.clone(),
        at: row.at.to_string(),
        kind: row.kind.as_str().to_owned(),
        service: row.service.clone(),
        outcome: row.outcome.map(|outcome| outcome.as_str().to_owned()),
        reason: row.reason.clone(),
        rest: row.rest.clone(),
    }
}

pub(super) fn related(related: Vec<(String, &'static str)>) -> Vec<api::Related> {
    related.into_iter().map(|(flow, how)| api::Related { flow, how: how.to_owned() }).collect()
}
