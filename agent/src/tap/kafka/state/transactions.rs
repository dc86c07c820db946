//! Producers' transactions, of both protocols (KIP-98, KIP-890): what was published in each, which
//! offsets it commits, and how it ended. A producer is known by its id; its epoch goes up with
//! every transaction of the second protocol, and nothing says then that partitions were added.

use std::collections::HashMap;
use std::sync::Arc;

use flowtap_record::{Kind, Micros, Outcome, escape_bytes};
use serde_json::json;

use super::context::{Context, Peer};
use super::groups::Committed;
use crate::tap::kafka::wire::{EndTxnResponse, InitProducerResponse, error_name};

/// Errors after which a client does not ask again: `INVALID_PRODUCER_EPOCH`, `INVALID_TXN_STATE`,
/// `INVALID_PRODUCER_ID_MAPPING`, `TRANSACTIONAL_ID_AUTHORIZATION_FAILED`, `PRODUCER_FENCED`.
const FATAL: [i16; 5] = [47, 48, 49, 53, 90];

/// All producers that the tap has seen.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    producers: HashMap<i64, Producer>,
    /// Producer id of a transactional id.
    ids: HashMap<Arc<str>, i64>,
}

#[derive(Debug, Default)]
struct Producer {
    transactional_id: Option<Arc<str>>,
    /// Number of the transaction that is open or was the last one.
    number: u64,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    name: Arc<str>,
    since: Micros,
    publishes: u64,
    offsets: Vec<Committed>,
}

/// Which transaction an EndTxn request ends.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) transactional_id: Arc<str>,
    pub(crate) producer_id: i64,
    pub(crate) committed: bool,
}

impl Producer {
    fn open(&mut self, now: Micros, producer_id: i64, epoch: i16) -> &mut Open {
        if self.open.is_none() {
            self.number += 1;
        }
        let number = self.number;
        self.open.get_or_insert_with(|| Open {
            name: format!("{producer_id}/{epoch}/{number}").into(),
            since: now,
            publishes: 0,
            offsets: Vec::new(),
        })
    }
}

impl Transactions {
    /// A batch is published in a transaction: its name, for the rows.
    pub(crate) fn publishes(&mut self, now: Micros, producer_id: i64, epoch: i16) -> Arc<str> {
        let open = self.producers.entry(producer_id).or_default().open(now, producer_id, epoch);
        open.publishes += 1;
        Arc::clone(&open.name)
    }

    /// The broker has taken offsets, to be committed with the transaction.
    pub(crate) fn offsets(
        &mut self,
        now: Micros,
        (transactional_id, producer_id, epoch): (&[u8], i64, i16),
        offsets: Vec<Committed>,
    ) {
        let producer = self.producers.entry(producer_id).or_default();
        let id = || Arc::from(escape_bytes(transactional_id));
        producer.transactional_id.get_or_insert_with(id);
        producer.open(now, producer_id, epoch).offsets.extend(offsets);
    }

    /// A producer has got its id. An open transaction of the same transactional id is over: the
    /// broker aborts it for the newcomer.
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
                row(cx, peer, &open, &id, Outcome::Aborted, Some("fenced by InitProducerId"));
            }
        }
        self.producers.entry(answer.producer_id).or_default().transactional_id = Some(id);
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
        if answer.error != 0 && !fatal {
            // The client asks again.
            return None;
        }
        let id = &ending.transactional_id;
        let producer = self.producers.get_mut(&ending.producer_id)?;
        // An end that is told twice, or of a transaction in which nothing passed here.
        let open = producer.open.take()?;
        if let Some((next, _)) = answer.next
            && next != ending.producer_id
        {
            self.ids.insert(Arc::clone(id), next);
            self.producers.entry(next).or_default().transactional_id = Some(Arc::clone(id));
        }
        let (outcome, reason) = match (fatal, ending.committed) {
            (true, _) => (Outcome::Aborted, Some(error_name(answer.error))),
            (false, true) => (Outcome::Committed, None),
            (false, false) => (Outcome::Aborted, None),
        };
        row(cx, peer, &open, id, outcome, reason);
        (outcome == Outcome::Committed).then_some((open.name, open.offsets))
    }
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
