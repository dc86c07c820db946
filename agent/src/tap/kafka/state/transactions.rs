//! Producers' transactions, of both protocols (KIP-98, KIP-890): what was published in each, which
//! offsets it commits, and how it ended. A producer is known by its id; its epoch goes up with
//! every transaction of the second protocol, and nothing says then that partitions were added.

use std::collections::HashMap;
use std::sync::Arc;

use flowtap_record::{Kind, Micros, Outcome, escape_bytes};
use serde_json::json;

use super::context::{Context, Peer, Unseen};
use super::groups::Committed;
use crate::tap::kafka::wire::{EndTxnResponse, InitProducerResponse, error_name};

/// Errors after which a client does not ask again: `INVALID_PRODUCER_EPOCH`, `INVALID_TXN_STATE`,
/// `INVALID_PRODUCER_ID_MAPPING`, `TRANSACTIONAL_ID_AUTHORIZATION_FAILED`, `PRODUCER_FENCED`.
const FATAL: [i16; 5] = [47, 48, 49, 53, 90];
/// Errors with which a coordinator has done nothing for sure: `COORDINATOR_LOAD_IN_PROGRESS`,
/// `CONCURRENT_TRANSACTIONS`. After others, such as a timeout of its own log, it may have.
const NOT_DONE: [i16; 2] = [14, 51];
/// Producers that are kept in mind, and how long one without an open transaction is when there are
/// more.
const MAX_PRODUCERS: usize = 10_000;
const IDLE_US: i64 = 3_600_000_000;

/// All producers that the tap has seen.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    producers: HashMap<i64, Producer>,
    /// Producer id of a transactional id.
    ids: HashMap<Arc<str>, i64>,
    /// No producer that was let go had a transaction of a higher number: names stay different.
    numbers: u64,
    /// Connections that are not read, by which a producer may end its transaction.
    blind: usize,
}

#[derive(Debug, Default)]
struct Producer {
    transactional_id: Option<Arc<str>>,
    /// Number of the transaction that is open or was the last one.
    number: u64,
    open: Option<Open>,
    used: Micros,
}

#[derive(Debug)]
struct Open {
    name: Arc<str>,
    since: Micros,
    publishes: u64,
    offsets: Vec<Committed>,
    /// Requests to end it whose answers have not been seen.
    ends: u32,
    /// Those of them that may have committed it, answered or not.
    commits: u32,
    /// A request to end it may have passed unread.
    unread: bool,
}

/// Which transaction an EndTxn request ends.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) transactional_id: Arc<str>,
    pub(crate) producer_id: i64,
    pub(crate) committed: bool,
}

impl Open {
    /// Whether it may be committed although nothing has said so.
    fn may_be_committed(&self) -> bool {
        self.unread || self.commits > 0
    }
}

impl Producer {
    fn open(&mut self, now: Micros, producer_id: i64, epoch: i16) -> &mut Open {
        self.used = now;
        if self.open.is_none() {
            self.number += 1;
        }
        let number = self.number;
        self.open.get_or_insert_with(|| Open {
            name: format!("{producer_id}/{epoch}/{number}").into(),
            since: now,
            publishes: 0,
            offsets: Vec::new(),
            ends: 0,
            commits: 0,
            unread: false,
        })
    }
}

impl Transactions {
    fn producer(&mut self, id: i64) -> &mut Producer {
        let number = self.numbers;
        self.producers.entry(id).or_insert_with(|| Producer { number, ..Producer::default() })
    }

    /// The transaction in which a producer does something. It does nothing between asking for the
    /// end of one and the answer: if that was not seen, this is the next one.
    fn open(
        &mut self,
        cx: &mut Context<'_>,
        peer: &Peer,
        producer_id: i64,
        epoch: i16,
    ) -> &mut Open {
        let blind = self.blind > 0;
        let producer = self.producer(producer_id);
        if let Some(ended) = producer.open.take_if(|open| open.ends > 0) {
            unseen(cx, peer, &ended, producer.transactional_id.as_deref().unwrap_or_default());
        }
        let open = producer.open(cx.now, producer_id, epoch);
        open.unread |= blind;
        open
    }

    /// A batch is published in a transaction: its name, for the rows.
    pub(crate) fn publishes(
        &mut self,
        cx: &mut Context<'_>,
        peer: &Peer,
        producer_id: i64,
        epoch: i16,
    ) -> Arc<str> {
        let open = self.open(cx, peer, producer_id, epoch);
        open.publishes += 1;
        Arc::clone(&open.name)
    }

    /// The broker has taken offsets, to be committed with the transaction.
    pub(crate) fn offsets(
        &mut self,
        cx: &mut Context<'_>,
        peer: &Peer,
        (transactional_id, producer_id, epoch): (&[u8], i64, i16),
        offsets: Vec<Committed>,
    ) {
        let id = || Arc::from(escape_bytes(transactional_id));
        self.producer(producer_id).transactional_id.get_or_insert_with(id);
        self.open(cx, peer, producer_id, epoch).offsets.extend(offsets);
    }

    /// A producer asks to end its transaction. If the answer does not come by, it may have ended as
    /// asked.
    pub(crate) fn ends(&mut self, ending: &Ending) {
        let producer = self.producers.get_mut(&ending.producer_id);
        if let Some(open) = producer.and_then(|producer| producer.open.as_mut()) {
            open.ends += 1;
            open.commits += u32::from(ending.committed);
        }
    }

    /// Some producer may have asked to end its transaction: that passed unread.
    pub(crate) fn unread(&mut self) {
        let open = self.producers.values_mut().filter_map(|producer| producer.open.as_mut());
        open.for_each(|open| open.unread = true);
    }

    /// A connection is not read any more.
    pub(crate) fn goes_blind(&mut self) {
        self.blind += 1;
        self.unread();
    }

    /// Such a connection is closed.
    pub(crate) fn sees_again(&mut self) {
        self.blind = self.blind.saturating_sub(1);
    }

    /// A producer has got its id. An open transaction of the same transactional id is over: the
    /// broker has committed it, if it was asked to, else it aborts it for the newcomer.
    pub(crate) fn initialised(
        &mut self,
        cx: &mut Context<'_>,
        peer: &Peer,
        transactional_id: &[u8],
        answer: InitProducerResponse,
    ) {
        if answer.error != 0 {
            return;
        }
        let id: Arc<str> = Arc::from(escape_bytes(transactional_id));
        let before = self.ids.insert(Arc::clone(&id), answer.producer_id);
        for producer_id in before.into_iter().chain([answer.producer_id]) {
            if let Some(producer) = self.producers.get_mut(&producer_id)
                && let Some(open) = producer.open.take()
            {
                if open.may_be_committed() {
                    unseen(cx, peer, &open, &id);
                } else {
                    row(cx, peer, &open, &id, Outcome::Aborted, Some("fenced by InitProducerId"));
                }
            }
        }
        let now = cx.now;
        let producer = self.producer(answer.producer_id);
        (producer.transactional_id, producer.used) = (Some(id), now);
    }

    /// The answer to EndTxn. Returns the offsets that are committed now, and the transaction's
    /// name.
    pub(crate) fn ended(
        &mut self,
        cx: &mut Context<'_>,
        peer: &Peer,
        ending: &Ending,
        answer: EndTxnResponse,
    ) -> Option<(Arc<str>, Vec<Committed>)> {
        let fatal = FATAL.contains(&answer.error);
        let id = &ending.transactional_id;
        let producer = self.producers.get_mut(&ending.producer_id)?;
        producer.used = cx.now;
        if let Some(open) = &mut producer.open {
            open.ends = open.ends.saturating_sub(1);
            if fatal || NOT_DONE.contains(&answer.error) {
                open.commits = open.commits.saturating_sub(u32::from(ending.committed));
            }
        }
        if answer.error != 0 && !fatal {
            // The client asks again.
            return None;
        }
        // An end that is told twice, or of a transaction in which nothing passed here.
        let open = producer.open.take()?;
        if let Some((next, _)) = answer.next
            && next != ending.producer_id
        {
            self.ids.insert(Arc::clone(id), next);
            self.producer(next).transactional_id = Some(Arc::clone(id));
        }
        if (fatal || !ending.committed) && open.may_be_committed() {
            unseen(cx, peer, &open, id);
            return None;
        }
        let (outcome, reason) = match (fatal, ending.committed) {
            (true, _) => (Outcome::Aborted, Some(error_name(answer.error))),
            (false, true) => (Outcome::Committed, None),
            (false, false) => (Outcome::Aborted, None),
        };
        row(cx, peer, &open, id, outcome, reason);
        (outcome == Outcome::Committed).then_some((open.name, open.offsets))
    }

    /// Lets go of producers that are gone, when there are many.
    pub(crate) fn tick(&mut self, now: Micros) {
        if self.producers.len() <= MAX_PRODUCERS {
            return;
        }
        let mut numbers = self.numbers;
        self.producers.retain(|_, producer| {
            let stays = producer.open.is_some() || now.since(producer.used) < IDLE_US;
            if !stays {
                numbers = numbers.max(producer.number);
            }
            stays
        });
        self.numbers = numbers;
        let producers = &self.producers;
        self.ids.retain(|_, producer| producers.contains_key(producer));
    }
}

/// How a transaction ended is not known: it may be committed.
fn unseen(cx: &mut Context<'_>, peer: &Peer, open: &Open, transactional_id: &str) {
    let details = json!({"transactional_id": transactional_id, "broker_txn": open.name.as_ref()});
    let mut gap = Unseen::new("transaction_end_unseen", details);
    (gap.from, gap.count) = (Some(open.since), Some(1));
    cx.gap(peer, &gap);
}

fn row(
    cx: &mut Context<'_>,
    peer: &Peer,
    open: &Open,
    transactional_id: &str,
    outcome: Outcome,
    reason: Option<&str>,
) {
    let details = json!({
        "transactional_id": transactional_id,
        "batches": open.publishes,
        "offsets": open.offsets.len(),
    })
    .to_string();
    let mut row = cx.row(Kind::Transaction, peer);
    row.outcome = Some(outcome);
    row.reason = reason;
    row.details = Some(&details);
    row.session.broker_txn = Some(&open.name);
    row.session.took_us = Some(cx.now.since(open.since));
    cx.record(&row);
}
