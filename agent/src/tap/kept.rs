//! What is kept of a publish until it is confirmed, and of a delivery until it is settled, so that
//! the row of its end can say again what it ends.

use std::borrow::Cow;
use std::sync::Arc;

use flowtap_record::{Ids, Micros, Observation, RowRef, Seq};
use serde::{Deserialize, Serialize};

use super::Budget;
use crate::identify::Payload;
use crate::metrics::TapMetrics;

/// What a conclusion repeats of the row that it concludes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Repeat<'a> {
    #[serde(borrow)]
    pub(crate) message: Option<&'a str>,
    pub(crate) ids: Ids<'a>,
    pub(crate) destination: Option<&'a str>,
    pub(crate) routing_key: Option<&'a str>,
    pub(crate) subscription: Option<&'a str>,
    pub(crate) consumer: Option<&'a str>,
    pub(crate) attempt: Option<i32>,
    pub(crate) redelivered: Option<bool>,
    pub(crate) partition: Option<i32>,
    pub(crate) log_offset: Option<i64>,
}

/// An unconfirmed publish or an open delivery. What it repeats is encoded into one allocation:
/// there may be very many of these.
#[derive(Debug)]
pub(crate) struct Kept {
    seq: Option<Seq>,
    pub(crate) at: Micros,
    /// Empty when there was no room for it.
    repeat: Box<[u8]>,
    payload: Option<Box<[u8]>>,
    /// What is to be said of the payload: not all of it is here, or nothing for want of memory.
    payload_note: Option<&'static str>,
    budget: Arc<Budget>,
}

impl Kept {
    /// Keeps it, or only its row's number when the budget is used up.
    pub(crate) fn new(
        budget: &Arc<Budget>,
        metrics: &TapMetrics,
        at: Micros,
        seq: Option<Seq>,
        repeat: &Repeat<'_>,
        payload: Option<&[u8]>,
    ) -> Self {
        let budget = Arc::clone(budget);
        let encoded = postcard::to_allocvec(repeat).unwrap_or_default().into_boxed_slice();
        let repeat = if budget.take(encoded.len()) {
            encoded
        } else {
            metrics.forgotten.inc();
            Box::default()
        };
        let kept = payload.filter(|bytes| budget.take(bytes.len())).map(Box::from);
        let payload_note = (kept.is_none() && payload.is_some()).then_some("forgotten");
        if (repeat.is_empty() || payload_note.is_some()) && budget.is_news(at) {
            tracing::warn!(
                "limits.memory is used up by messages that are not yet confirmed or settled; \
                 the rows of their ends will say less (details: forgotten)"
            );
        }
        Self { seq, at, repeat, payload: kept, payload_note, budget }
    }

    /// The same with a payload of which perhaps only the beginning is known.
    pub(crate) fn with_payload(
        budget: &Arc<Budget>,
        metrics: &TapMetrics,
        at: Micros,
        seq: Option<Seq>,
        repeat: &Repeat<'_>,
        payload: Option<&Payload<'_>>,
    ) -> Self {
        let bytes = payload.map(|payload| payload.bytes.as_ref());
        let mut kept = Self::new(budget, metrics, at, seq, repeat, bytes);
        if kept.payload.is_some() && payload.is_some_and(|payload| payload.cut) {
            kept.payload_note = Some("truncated");
        }
        kept
    }

    pub(crate) fn seq(&self) -> Option<Seq> {
        self.seq
    }

    pub(crate) fn payload(&self) -> Option<&[u8]> {
        self.payload.as_deref()
    }

    /// The details of an AMQP row that concludes it: whether it was one of several, and what the row
    /// can't say. `with_payload`: the payload belongs on the row.
    pub(crate) fn details(
        &self,
        multiple: Option<bool>,
        with_payload: bool,
    ) -> Option<Cow<'static, str>> {
        let note = self.payload_note.filter(|_| with_payload);
        if note.is_none() && !self.repeat.is_empty() {
            let plain = |multiple| {
                if multiple { r#"{"multiple":true}"# } else { r#"{"multiple":false}"# }
            };
            return multiple.map(|multiple| plain(multiple).into());
        }
        let mut details = serde_json::Map::new();
        if let Some(multiple) = multiple {
            details.insert("multiple".into(), multiple.into());
        }
        if self.repeat.is_empty() {
            details.insert("forgotten".into(), true.into());
        }
        if let Some(note) = note {
            details.insert("payload".into(), note.into());
        }
        Some(serde_json::Value::from(details).to_string().into())
    }

    pub(crate) fn repeat(&self) -> Repeat<'_> {
        postcard::from_bytes(&self.repeat).unwrap_or_default()
    }

    /// Fills a concluding row with what it repeats.
    pub(crate) fn fill<'k>(&'k self, row: &mut Observation<'k>) {
        let repeat = self.repeat();
        row.concludes = self.seq.map(|seq| RowRef { boot: None, seq });
        row.message.message = repeat.message;
        row.message.ids = repeat.ids;
        row.place.destination = repeat.destination;
        row.place.routing_key = repeat.routing_key;
        row.place.subscription = repeat.subscription;
        row.place.partition = repeat.partition;
        row.place.log_offset = repeat.log_offset;
        row.who.consumer = repeat.consumer;
        row.session.attempt = repeat.attempt;
        row.session.redelivered = repeat.redelivered;
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let payload = self.payload.as_ref().map_or(0, |payload| payload.len());
        self.budget.give_back(self.repeat.len() + payload);
    }
}
