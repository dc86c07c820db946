//! What a tap knows of its cluster: items of the feed in, rows out. Synchronous, without sockets or
//! a clock of its own. One thread owns it, so that connections of one client can be put together:
//! a consumer fetches on one, commits on another, and learns topic ids on a third.

mod answers;
mod connection;
mod context;
mod fetches;
mod groups;
mod open;
mod producing;
mod publishes;
mod records;
mod requests;
mod sums;
#[cfg(test)]
mod tests;
mod topics;
mod transactions;

use std::collections::HashMap;
use std::sync::Arc;

use flowtap_record::{Micros, Seq};
use serde_json::json;

use self::connection::Connection;
use self::context::Context;
use self::groups::Groups;
use self::publishes::Publishes;
use self::records::Texts;
use self::topics::Cluster;
use self::transactions::Transactions;
use crate::tap::Sink;
use crate::tap::kafka::Env;
use crate::tap::kafka::feed::{Head, Item, What};
use crate::tap::kafka::wire::{Fault, Scratch, TopicId, api};

/// A tap's state.
pub(crate) struct State {
    env: Arc<Env>,
    shared: Shared,
    connections: HashMap<i64, Connection>,
    newest: Option<Seq>,
    /// Bytes that connections keep until more come.
    kept: usize,
}

/// What connections share.
pub(crate) struct Shared {
    pub(crate) cluster: Cluster,
    pub(crate) groups: Groups,
    pub(crate) publishes: Publishes,
    pub(crate) transactions: Transactions,
    pub(crate) scratch: Scratch,
    pub(crate) texts: Texts,
}

impl State {
    /// Nothing known but what an earlier agent has learned of topics.
    pub(crate) fn new(env: Arc<Env>, topics: impl IntoIterator<Item = (TopicId, String)>) -> Self {
        let cluster = Cluster::new(env.cluster.as_deref(), topics);
        Self {
            env,
            shared: Shared {
                cluster,
                groups: Groups::default(),
                publishes: Publishes::default(),
                transactions: Transactions::default(),
                scratch: Scratch::default(),
                texts: Texts::default(),
            },
            connections: HashMap::new(),
            newest: None,
            kept: 0,
        }
    }

    /// Takes one item.
    pub(crate) fn apply(&mut self, item: Item, sink: &mut dyn Sink) {
        if let What::Opened(ends) = item.what {
            let connection = Connection::new(item.connection, ends);
            self.connections.insert(item.connection, connection);
            return;
        }
        let closes = matches!(item.what, What::Closed(_));
        let Some(connection) = self.connections.get_mut(&item.connection) else { return };
        let cluster = self.shared.cluster.id.clone();
        let mut cx = Context {
            env: &self.env,
            cluster: cluster.as_deref(),
            now: item.at,
            sink,
            newest: &mut self.newest,
        };
        let before = connection.kept();
        connection.take(&mut cx, &mut self.shared, item.what);
        self.kept = self.kept.saturating_sub(before);
        if closes {
            self.connections.remove(&item.connection);
        } else {
            self.kept += connection.kept();
        }
    }

    /// The decoder failed at an item of this connection, and was left in the middle of it: nothing
    /// more is read of the connection.
    pub(crate) fn give_up(&mut self, number: i64, now: Micros, sink: &mut dyn Sink) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let cluster = self.shared.cluster.id.clone();
        let mut cx = Context {
            env: &self.env,
            cluster: cluster.as_deref(),
            now,
            sink,
            newest: &mut self.newest,
        };
        connection.give_up(&mut cx, &mut self.shared, "decoder_failed", "the decoder failed");
        self.kept = self.connections.values().map(Connection::kept).sum();
    }

    /// Lets time pass: sessions run out, retries are given up.
    pub(crate) fn tick(&mut self, now: Micros, sink: &mut dyn Sink) {
        let cluster = self.shared.cluster.id.clone();
        let mut cx = Context {
            env: &self.env,
            cluster: cluster.as_deref(),
            now,
            sink,
            newest: &mut self.newest,
        };
        self.shared.groups.tick(&mut cx);
        self.shared.publishes.tick(&mut cx);
        self.shared.transactions.tick(now);
        for connection in self.connections.values_mut() {
            connection.tick(&mut cx);
        }
    }

    /// Bytes that are kept until more come.
    pub(crate) fn kept(&self) -> usize {
        self.kept
    }

    /// The newest row of the tap.
    pub(crate) fn newest(&self) -> Option<Seq> {
        self.newest
    }

    /// Topics whose ids have become known since the last call.
    pub(crate) fn learned(&mut self) -> Vec<(TopicId, Arc<str>)> {
        self.shared.cluster.take_learned()
    }
}

fn fault_details(head: &Head, fault: Fault) -> serde_json::Value {
    json!({
        "api": api(head.key).map(|api| api.name),
        "version": head.version,
        "fault": fault.to_string(),
    })
}
