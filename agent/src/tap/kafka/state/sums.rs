//! Gaps that would come one an answer or one a message: the first is a row at once, those that
//! follow it within some seconds are one row together. So what a connection can't be read of is
//! said without a flood.

use std::collections::HashMap;

use flowtap_record::Micros;

use super::context::{Context, Peer, Unseen};

/// How much time one row may stand for.
const SPAN_US: i64 = 10_000_000;
/// Sorts of gaps that are kept apart on one connection.
const MAX_SORTS: usize = 1000;

/// What is the same thing, again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Sort {
    reason: &'static str,
    topic: Option<Box<str>>,
    partition: Option<i32>,
    group: Option<Box<str>>,
    details: String,
}

/// Since the last row of its sort.
#[derive(Debug)]
struct Sum {
    told: Micros,
    from: Micros,
    to: Micros,
    count: i64,
    details: serde_json::Value,
}

/// Gaps of one connection.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    sorts: HashMap<Sort, Sum>,
}

impl Sums {
    /// Something passed unread, as it may have done before.
    pub(crate) fn add(&mut self, cx: &mut Context<'_>, peer: &Peer, gap: Unseen<'_>) {
        let sort = Sort {
            reason: gap.reason,
            topic: gap.topic.map(Box::from),
            partition: gap.partition,
            group: gap.group.map(Box::from),
            details: gap.details.to_string(),
        };
        let (now, count) = (cx.now, gap.count.unwrap_or(1));
        if let Some(sum) = self.sorts.get_mut(&sort) {
            cx.env.metrics.undecodable(gap.reason);
            if sum.count == 0 {
                sum.from = gap.from.unwrap_or(now);
            }
            sum.count += count;
            sum.to = now;
            return;
        }
        if self.sorts.len() == MAX_SORTS {
            self.end(cx, peer);
        }
        cx.gap(peer, &gap);
        let sum = Sum { told: now, from: now, to: now, count: 0, details: gap.details };
        self.sorts.insert(sort, sum);
    }

    /// Lets time pass: says what has come together.
    pub(crate) fn tick(&mut self, cx: &mut Context<'_>, peer: &Peer) {
        let now = cx.now;
        self.sorts.retain(|sort, sum| {
            if now.since(sum.told) < SPAN_US {
                return true;
            }
            let goes_on = sum.count > 0;
            tell(cx, peer, sort, sum);
            goes_on
        });
    }

    /// Says all that has come together: the connection is closed.
    pub(crate) fn end(&mut self, cx: &mut Context<'_>, peer: &Peer) {
        for (sort, mut sum) in self.sorts.drain() {
            tell(cx, peer, &sort, &mut sum);
        }
    }
}

fn tell(cx: &mut Context<'_>, peer: &Peer, sort: &Sort, sum: &mut Sum) {
    if sum.count == 0 {
        return;
    }
    let gap = Unseen {
        reason: sort.reason,
        topic: sort.topic.as_deref(),
        partition: sort.partition,
        group: sort.group.as_deref(),
        from: Some(sum.from),
        to: Some(sum.to),
        count: Some(sum.count),
        details: sum.details.clone(),
    };
    cx.gap_row(peer, &gap);
    (sum.told, sum.count) = (cx.now, 0);
}
