//! What every row of a tap has in common, and what its state is lent for each item: the time, the
//! sink, the configuration.

use flowtap_record::{Kind, Micros, Observation, Place, Seq, Tap, Who};

use crate::tap::Sink;
use crate::tap::kafka::Env;
use crate::tap::kept::{Kept, Repeat};

/// What rows repeat of the connection that they came by. Deliveries that are open longer than
/// their connection keep it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    pub(crate) number: i64,
    /// Library and version, then the client id in brackets.
    pub(crate) client: Option<String>,
    pub(crate) principal: Option<String>,
}

/// One item's surroundings.
pub(crate) struct Context<'a> {
    pub(crate) env: &'a Env,
    pub(crate) cluster: Option<&'a str>,
    pub(crate) now: Micros,
    pub(crate) sink: &'a mut dyn Sink,
    /// The newest row of the tap.
    pub(crate) newest: &'a mut Option<Seq>,
}

const SYSTEM: &str = "kafka";

impl<'a> Context<'a> {
    /// A row, with what all rows of a connection say. It borrows from the connection, not from the
    /// context, so that it can be recorded through the context.
    pub(crate) fn row<'r>(&self, kind: Kind, peer: &'r Peer) -> Observation<'r>
    where
        'a: 'r,
    {
        let env: &'a Env = self.env;
        let mut row = Observation::new(kind, self.now);
        row.tap = Some(Tap::Proxy);
        row.place = Place { system: Some(SYSTEM), cluster: self.cluster, ..Place::default() };
        row.who = Who {
            service: Some(&env.service),
            instance: Some(&env.instance),
            client: peer.client.as_deref(),
            principal: peer.principal.as_deref(),
            connection: (peer.number > 0).then_some(peer.number),
            ..Who::default()
        };
        row
    }

    pub(crate) fn record(&mut self, row: &Observation<'_>) -> Option<Seq> {
        self.env.metrics.row(row.kind);
        let seq = self.sink.record(row);
        *self.newest = seq.or(*self.newest);
        seq
    }

    /// What the row of this message's end will repeat.
    pub(crate) fn keep(
        &self,
        seq: Option<Seq>,
        repeat: &Repeat<'_>,
        payload: Option<&[u8]>,
    ) -> Kept {
        let env = self.env;
        Kept::new(&env.budget, &env.metrics, self.now, seq, repeat, payload)
    }

    /// Something passed that was not read: it is counted, and a `gap` row says what.
    pub(crate) fn gap(&mut self, peer: &Peer, gap: &Unseen<'_>) {
        self.env.metrics.undecodable(gap.reason);
        self.gap_row(peer, gap);
    }

    /// The row alone, of what is counted already.
    pub(crate) fn gap_row(&mut self, peer: &Peer, gap: &Unseen<'_>) {
        tracing::debug!(connection = peer.number, reason = gap.reason, "not recorded");
        let details = gap.details.to_string();
        let mut row = self.row(Kind::Gap, peer);
        row.reason = Some(gap.reason);
        row.details = Some(&details);
        row.place.destination = gap.topic;
        row.place.partition = gap.partition;
        row.place.subscription = gap.group;
        row.gap.from = Some(gap.from.unwrap_or(self.now));
        row.gap.to = Some(gap.to.unwrap_or(self.now));
        row.gap.count = gap.count;
        self.record(&row);
    }
}

/// What a `gap` row says.
#[derive(Debug)]
pub(crate) struct Unseen<'a> {
    pub(crate) reason: &'static str,
    pub(crate) topic: Option<&'a str>,
    pub(crate) partition: Option<i32>,
    pub(crate) group: Option<&'a str>,
    /// From when to when, where it is more than this moment.
    pub(crate) from: Option<Micros>,
    pub(crate) to: Option<Micros>,
    pub(crate) count: Option<i64>,
    pub(crate) details: serde_json::Value,
}

impl Unseen<'_> {
    pub(crate) fn new(reason: &'static str, details: serde_json::Value) -> Self {
        Self {
            reason,
            topic: None,
            partition: None,
            group: None,
            from: None,
            to: None,
            count: None,
            details,
        }
    }
}
