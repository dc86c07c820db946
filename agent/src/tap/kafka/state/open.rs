//! Deliveries that are not settled, of one group and partition.

use std::collections::{BTreeMap, VecDeque};
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

/// Those that came in the order of their offsets, and those that came again after the consumer had
/// gone back: a commit looks at no more than it settles.
#[derive(Debug, Default)]
pub(crate) struct Open {
    entries: VecDeque<Entry>,
    /// By offset, then in the order of delivery.
    behind: BTreeMap<(i64, u64), Entry>,
    count: u64,
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
        let entry = Entry { offset, kept, by: Arc::clone(by) };
        if self.entries.back().is_some_and(|last| last.offset > offset) {
            self.count += 1;
            self.behind.insert((offset, self.count), entry);
        } else {
            self.entries.push_back(entry);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() + self.behind.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.behind.is_empty()
    }

    /// Settles all below an offset.
    pub(crate) fn settle_below(&mut self, cx: &mut Context<'_>, offset: i64, end: &End<'_>) {
        while self.entries.front().is_some_and(|entry| entry.offset < offset) {
            if let Some(entry) = self.entries.pop_front() {
                settle(cx, &entry, end);
            }
        }
        if self.behind.is_empty() {
            return;
        }
        let rest = self.behind.split_off(&(offset, 0));
        for entry in std::mem::replace(&mut self.behind, rest).into_values() {
            settle(cx, &entry, end);
        }
    }

    /// Settles all.
    pub(crate) fn settle_all(&mut self, cx: &mut Context<'_>, end: &End<'_>) {
        self.settle_where(cx, end, |_| true);
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
        let is_ended = |entry: &Entry| ends(entry.by.member.as_deref());
        if !self.entries.iter().chain(self.behind.values()).any(is_ended) {
            return;
        }
        let (ended, rest): (VecDeque<Entry>, _) = self.entries.drain(..).partition(is_ended);
        self.entries = rest;
        let behind = std::mem::take(&mut self.behind);
        let (ended_behind, rest): (BTreeMap<_, Entry>, _) =
            behind.into_iter().partition(|(_, entry)| is_ended(entry));
        self.behind = rest;
        for entry in ended.iter().chain(ended_behind.values()) {
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
