//! What every row of a connection has in common, and what the tap's state machine is lent for each
//! step: the time, the sink, the configuration.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use flowtap_record::{Kind, Micros, Observation, Place, Seq, Tap, Who};

use crate::identify::{Identifier, Payload};
use crate::metrics::TapMetrics;
use crate::tap::kept::{Kept, Repeat};
use crate::tap::{Budget, Sink};

/// What all connections of one tap share.
#[derive(Debug)]
pub struct Env {
    /// Name of the service that the agent stands beside.
    pub service: String,
    /// Host or pod.
    pub instance: String,
    /// Overrides the cluster name that the broker gives.
    pub cluster: Option<String>,
    /// Whether unroutable messages are found by setting `mandatory`.
    pub detect_unroutable: bool,
    /// Bodies above this many bytes are not published as mandatory: they would come back whole.
    pub unroutable_max_body: u64,
    /// Whether SASL EXTERNAL may pass.
    pub allow_external: bool,
    /// Finds ids.
    pub identifier: Identifier,
    /// Bounds what is remembered of open deliveries and unconfirmed publishes.
    pub budget: Arc<Budget>,
    /// Counters.
    pub metrics: TapMetrics,
}

/// What is known of a connection, as far as rows repeat it.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    pub(crate) number: i64,
    pub(crate) cluster: Option<String>,
    pub(crate) vhost: Option<String>,
    pub(crate) client: Option<String>,
    pub(crate) principal: Option<String>,
    pub(crate) is_rabbitmq: bool,
    /// The client does not read: what the broker sends piles up in the agent.
    pub(crate) client_is_slow: bool,
    /// Until when a `gap` row says already that something of a sort is not understood.
    pub(crate) said: RefCell<HashMap<&'static str, Micros>>,
}

/// One `gap` row stands for all of one sort that is not understood within so many microseconds: a
/// client that sends nothing else does not fill the spool.
const GAP_SPAN: i64 = 1_000_000;

/// One step's surroundings.
pub(crate) struct Context<'a> {
    pub(crate) env: &'a Env,
    pub(crate) connection: &'a Connection,
    pub(crate) now: Micros,
    pub(crate) sink: &'a mut dyn Sink,
}

impl<'a> Context<'a> {
    /// A row of this connection, with what all its rows say. It borrows from the connection, not
    /// from the context, so that it can be recorded through the context.
    pub(crate) fn row(&self, kind: Kind, channel: Option<u16>) -> Observation<'a> {
        let (env, connection) = (self.env, self.connection);
        let mut row = Observation::new(kind, self.now);
        row.tap = Some(Tap::Proxy);
        row.place = Place {
            system: Some(SYSTEM),
            cluster: connection.cluster.as_deref(),
            vhost: connection.vhost.as_deref(),
            ..Place::default()
        };
        row.who = Who {
            service: Some(&env.service),
            instance: Some(&env.instance),
            client: connection.client.as_deref(),
            principal: connection.principal.as_deref(),
            connection: Some(connection.number),
            channel: channel.map(i32::from),
            ..Who::default()
        };
        row
    }

    /// What the row of this message's end will repeat.
    pub(crate) fn keep(
        &self,
        seq: Option<Seq>,
        repeat: &Repeat<'_>,
        payload: Option<&Payload<'_>>,
    ) -> Kept {
        let env = self.env;
        Kept::with_payload(&env.budget, &env.metrics, self.now, seq, repeat, payload)
    }

    pub(crate) fn record(&mut self, row: &Observation<'_>) -> Option<Seq> {
        self.env.metrics.row(row.kind);
        self.sink.record(row)
    }

    /// Something passed that was not understood: it is counted, and a `gap` row says so.
    pub(crate) fn undecodable(&mut self, what: &'static str, channel: u16) {
        self.strange(what, channel);
        let end = Micros(self.now.0.saturating_add(GAP_SPAN));
        {
            let mut said = self.connection.said.borrow_mut();
            if said.get(what).is_some_and(|until| self.now <= *until) {
                return;
            }
            said.insert(what, end);
        }
        let reason = format!("undecodable {what}");
        let mut row = self.row(Kind::Gap, Some(channel));
        row.reason = Some(&reason);
        row.gap.from = Some(self.now);
        row.gap.to = Some(end);
        self.record(&row);
    }

    /// Counts something that is understood and that nobody should have sent.
    pub(crate) fn strange(&self, what: &'static str, channel: u16) {
        self.env.metrics.undecodable(what);
        tracing::debug!(connection = self.connection.number, channel, what, "not understood");
    }
}

const SYSTEM: &str = "rabbitmq";
