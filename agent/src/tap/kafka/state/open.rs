//! Deliveries that are not settled, of one group and partition.

use std::collections::VecDeque;
use std::sync::Arc;

use flowtap_record::{Kind, Outcome};

use super::context::{Context, Peer};
use crate::tap::kept::Kept;

/// Where a delivery came by; the records of one fetch answer share it.
#[derive(Debug)]
pub(crate) struct By {
    pub(crate) peer: Arc<Peer>,
    pub(crate) member: Option<Arc<str>>,
    pub(crate) answer: i64,
}

#[derive(Debug)]
struct Entry {
    offset: i64,
    kept: Kept,
    by: Arc<By>,
}

/// In the order of delivery.
#[derive(Debug, Default)]
pub(crate) struct Open {
    entries: VecDeque<Entry>,
    /// A later entry has a lower offset: the consumer went back.
    disordered: bool,
}

/// How deliveries end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End<'a> {
    pub(crate) outcome: Outcome,
    pub(crate) reason: Option<&'a str>,
    pub(crate) broker_txn: Option<&'a str>,
}

impl Open {
    pub(crate) fn delivered(&mut self, offset: i64, kept: Kept, by: &Arc<By>) {
        self.disordered |= self.entries.back().is_some_and(|last| last.offset > offset);
        self.entries.push_back(Entry { offset, kept, by: Arc::clone(by) });
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Settles all below an offset.
    pub(crate) fn settle_below(&mut self, cx: &mut Context<'_>, offset: i64, end: &End<'_>) {
        while self.entries.front().is_some_and(|entry| entry.offset < offset) {
            if let Some(entry) = self.entries.pop_front() {
                settle(cx, &entry, end);
            }
        }
        if self.disordered {
            let (below, rest) = self.entries.drain(..).partition(|entry| entry.offset < offset);
            let below: VecDeque<Entry> = below;
            self.entries = rest;
            for entry in &below {
                settle(cx, entry, end);
            }
            self.disordered = !self.entries.iter().is_sorted_by_key(|entry| entry.offset);
        }
    }

    /// Settles all that a member got.
    pub(crate) fn settle_of(&mut self, cx: &mut Context<'_>, member: &str, end: &End<'_>) {
        self.settle_where(cx, end, |of| of == Some(member));
    }

    /// Settles all that others than this member got.
    pub(crate) fn settle_of_others(&mut self, cx: &mut Context<'_>, member: &str, end: &End<'_>) {
        self.settle_where(cx, end, |of| of != Some(member));
    }

    fn settle_where(
        &mut self,
        cx: &mut Context<'_>,
        end: &End<'_>,
        ends: impl Fn(Option<&str>) -> bool,
    ) {
        if self.entries.iter().all(|entry| !ends(entry.by.member.as_deref())) {
            return;
        }
        let (ended, rest) =
            self.entries.drain(..).partition(|entry| ends(entry.by.member.as_deref()));
        let ended: VecDeque<Entry> = ended;
        self.entries = rest;
        for entry in &ended {
            settle(cx, entry, end);
        }
    }
}

fn settle(cx: &mut Context<'_>, entry: &Entry, end: &End<'_>) {
    let mut row = cx.row(Kind::Settle, &entry.by.peer);
    entry.kept.fill(&mut row);
    row.outcome = Some(end.outcome);
    row.reason = end.reason;
    row.who.delivery_tag = Some(entry.by.answer);
    row.session.took_us = Some(cx.now.since(entry.kept.at));
    row.session.broker_txn = end.broker_txn;
    if end.outcome != Outcome::Committed {
        row.message.payload = entry.kept.payload();
    }
    cx.record(&row);
}
