//! What rows tell of brokers. Rows may come in any order.

use std::collections::{HashMap, HashSet};

use flowtap_record::{Kind, Micros, Outcome};
use serde_json::Value;

use super::super::row::{Broker, Row};
use super::change::{Change, keep_newest, note};
use super::{Bound, Consumer, Emptied, Name, Queue, World, queue_of, text};

/// A service that opens a consumer for each message leaves many behind: from so many on those
/// that are closed are forgotten, but for the newest.
const MANY_CONSUMERS: usize = 64;
/// The type of the exchange that the plugin for delayed messages brings.
const DELAYED: &str = "x-delayed-message";

impl World {
    /// Whether a row says anything that is kept here.
    pub fn wants(row: &Row) -> bool {
        match row.kind {
            Kind::Topology => true,
            Kind::Session => match row.what() {
                Some("consumer" | "member" | "assignment") => true,
                Some("connection") => row.outcome == Some(Outcome::Closed),
                _ => false,
            },
            _ => false,
        }
    }

    /// Learns from a row. Rows may come in any order.
    pub fn learn(&mut self, row: &Row) {
        if (row.kind, row.what(), row.outcome)
            == (Kind::Session, Some("connection"), Some(Outcome::Closed))
        {
            let last = self.last_closed.entry(row.id.boot.clone()).or_insert(row.at);
            *last = row.at.max(*last);
        }
        if row.is_kafka() {
            return self.groups.learn(row);
        }
        match (row.kind, row.what()) {
            (Kind::Topology, Some(what)) => self.learn_topology(row, what),
            (Kind::Session, Some("consumer")) => self.learn_consumer(row),
            (Kind::Session, Some("connection")) if row.outcome == Some(Outcome::Closed) => {
                let Some(connection) = row.connection else { return };
                if self.closed.note((row.id.boot.clone(), connection), row.at) {
                    self.forget_closed();
                }
            }
            _ => {}
        }
    }

    /// A service that asks and awaits its answer on a queue of its own leaves thousands behind: of
    /// those that are gone only the newest are kept whole.
    fn forget_queues(&mut self) {
        let end = |queue: &Queue| self.end_of_connection(queue.exclusive.as_ref()?);
        let ended =
            self.queues.iter().filter_map(|(name, queue)| Some((end(queue)?, name.clone())));
        let forgotten = self.gone.choose(ended.collect(), self.queues.len());
        for (_, name) in &forgotten {
            self.queues.remove(name);
            self.consumers.remove(name);
        }
        let names: HashSet<(&Broker, &str)> =
            forgotten.iter().map(|(_, name)| (&name.broker, name.name.as_str())).collect();
        for (source, bound) in &mut self.bindings {
            bound.retain(|bound, _| match bound {
                Bound::Queue { queue, .. } => !names.contains(&(&source.broker, queue.as_str())),
                Bound::Exchange { .. } => true,
            });
        }
    }

    fn forget_closed(&mut self) {
        let exclusive = self.queues.values().filter_map(|queue| queue.exclusive.clone());
        let consuming = self.consumers.values().flatten().filter_map(Consumer::on);
        self.closed.forget(&exclusive.chain(consuming).collect());
    }

    /// All starts of agents that are over, and since when: what belonged to their connections is
    /// gone. One that was called so before and is heard again counts no longer.
    pub fn learn_ends(&mut self, ended: &HashMap<String, Micros>) {
        self.ended.clone_from(ended);
        self.groups.learn_ends(ended);
    }

    /// When the last of the connections that ended in a start of an agent did so.
    pub fn last_closed(&self, boot: &str) -> Option<Micros> {
        self.last_closed.get(boot).copied()
    }

    /// A message came back to a queue that had given it up.
    pub fn learn_return(&mut self, queue: Name) {
        self.returns.insert(queue);
    }

    /// Whether any message ever came back to a queue that had given it up.
    pub fn gives_back(&self, queue: &Name) -> bool {
        self.returns.contains(queue)
    }

    /// A message came out of a queue: exchange and key reach one.
    pub fn learn_route(&mut self, broker: &Broker, exchange: &str, key: &str, at: Micros) {
        let since = self.routes.entry((Name::new(broker, exchange), key.to_owned())).or_insert(at);
        *since = at.min(*since);
    }

    /// A queue or group that was only seen because something was delivered there.
    pub fn learn_delivery(&mut self, delivery: &Row) {
        if delivery.is_kafka() {
            return self.groups.learn_delivery(delivery);
        }
        let Some(queue) = queue_of(delivery) else { return };
        let consumers = self.consumers.entry(queue).or_default();
        if consumers.iter().any(|consumer| consumer.boot == delivery.id.boot) {
            return;
        }
        // The consumer's own row was shed, or it only gets single messages.
        consumers.push(Consumer::new(delivery));
    }

    fn learn_topology(&mut self, row: &Row, what: &str) {
        let broker = row.broker();
        let there = matches!(row.outcome, Some(Outcome::Declared | Outcome::Bound));
        let change = Change { at: row.at, there };
        let arguments = row.details.get("arguments").cloned().unwrap_or(Value::Null);
        let flag = |name: &str| row.details.get(name).and_then(Value::as_bool).unwrap_or(false);
        match (what, row.outcome) {
            ("queue", Some(Outcome::Declared | Outcome::Deleted)) => {
                let Some(queue) = row.subscription.as_deref() else { return };
                let queue = self.queues.entry(Name::new(&broker, queue)).or_default();
                note(&mut queue.life, change);
                // A passive declare tells no arguments: keep what was said.
                if there && arguments.as_object().is_some_and(|said| !said.is_empty()) {
                    queue.arguments = arguments;
                }
                let exclusive = there && flag("exclusive");
                if exclusive {
                    queue.exclusive = row.connection.map(|number| (row.id.boot.clone(), number));
                }
                queue.auto_delete |= there && flag("auto_delete");
                if !there {
                    queue.note_emptied(row.at, Emptied::Deleted);
                    self.unbind_queue(&broker, row.subscription.as_deref(), row.at);
                }
                if exclusive && self.gone.is_time(self.queues.len()) {
                    self.forget_queues();
                }
            }
            ("queue", Some(Outcome::Purged)) => {
                let Some(queue) = row.subscription.as_deref() else { return };
                let queue = self.queues.entry(Name::new(&broker, queue)).or_default();
                queue.note_emptied(row.at, Emptied::Purged);
            }
            ("exchange", Some(Outcome::Deleted)) => {
                let Some(name) = row.destination.as_deref() else { return };
                self.unbind_exchange(&broker, name, row.at);
            }
            ("exchange", Some(Outcome::Declared)) => {
                let Some(name) = row.destination.as_deref() else { return };
                let exchange = self.exchanges.entry(Name::new(&broker, name)).or_default();
                if let Some(kind) = row.details.get("type").and_then(Value::as_str)
                    && !kind.is_empty()
                {
                    // What delays is of another type besides.
                    exchange.delays |= kind == DELAYED;
                    let kind = text(&arguments, "x-delayed-type").unwrap_or(kind);
                    exchange.kind = Some(kind.to_owned());
                }
                if let Some(other) = text(&arguments, "alternate-exchange") {
                    exchange.alternate = Some(other.to_owned());
                }
            }
            ("binding", Some(Outcome::Bound | Outcome::Unbound)) => {
                let Some(source) = row.destination.as_deref() else { return };
                let key = row.routing_key.clone().unwrap_or_default();
                let to = row.details.get("to").and_then(Value::as_str);
                let bound = match (row.subscription.clone(), to) {
                    (Some(queue), _) => Bound::Queue { queue, key },
                    (None, Some(exchange)) => {
                        Bound::Exchange { exchange: exchange.to_owned(), key }
                    }
                    (None, None) => return,
                };
                let ends = self.ends_of(&broker, source, &bound);
                let source = self.bindings.entry(Name::new(&broker, source)).or_default();
                let changes = source.entry(bound).or_insert_with(|| ends);
                note(changes, change);
            }
            _ => {}
        }
    }

    /// When what a binding needs was deleted, as far as that was learned before the binding.
    fn ends_of(&self, broker: &Broker, source: &str, bound: &Bound) -> Vec<Change> {
        let exchange = |name: &str| {
            let exchange = self.exchanges.get(&Name::new(broker, name));
            exchange.map(|it| it.deleted.clone()).unwrap_or_default()
        };
        let mut ends = exchange(source);
        match bound {
            Bound::Exchange { exchange: to, .. } => ends.extend(exchange(to)),
            Bound::Queue { queue, .. } => {
                let emptied = self.queues.get(&Name::new(broker, queue)).map(|it| &it.emptied);
                let deleted = emptied.into_iter().flatten();
                ends.extend(deleted.filter(|(_, how)| *how == Emptied::Deleted).map(|(at, _)| *at));
            }
        }
        let mut changes = Vec::new();
        for at in ends {
            note(&mut changes, Change { at, there: false });
        }
        changes
    }

    /// A queue is deleted: its bindings are gone with it.
    fn unbind_queue(&mut self, broker: &Broker, queue: Option<&str>, at: Micros) {
        let sources = self.bindings.iter_mut().filter(|(source, _)| source.broker == *broker);
        for (bound, changes) in sources.flat_map(|(_, bound)| bound) {
            if matches!(bound, Bound::Queue { queue: it, .. } if Some(it.as_str()) == queue) {
                note(changes, Change { at, there: false });
            }
        }
    }

    /// An exchange is deleted: bindings from it and to it are gone with it.
    fn unbind_exchange(&mut self, broker: &Broker, name: &str, at: Micros) {
        let exchange = self.exchanges.entry(Name::new(broker, name)).or_default();
        keep_newest(&mut exchange.deleted, at);
        let sources = self.bindings.iter_mut().filter(|(source, _)| source.broker == *broker);
        for (source, bindings) in sources {
            for (bound, changes) in bindings {
                let to = matches!(bound, Bound::Exchange { exchange: it, .. } if it == name);
                if to || source.name == name {
                    note(changes, Change { at, there: false });
                }
            }
        }
    }

    fn learn_consumer(&mut self, row: &Row) {
        let Some(queue) = row.subscription.as_deref() else { return };
        let consumers = self.consumers.entry(Name::new(&row.broker(), queue)).or_default();
        let same = |it: &&mut Consumer| {
            it.boot == row.id.boot
                && it.connection == row.connection
                && it.channel == row.channel
                && it.tag == row.consumer
        };
        let mut all = consumers.iter_mut().filter(same);
        match row.outcome {
            // Its end, or a delivery, was learned before its beginning. One that ended before is
            // another.
            Some(Outcome::Opened) => {
                let known = all.find(|it| it.closed.is_none_or(|closed| closed >= row.at));
                if let Some(known) = known {
                    known.opened = known.opened.min(row.at);
                    return;
                }
            }
            Some(Outcome::Closed) => {
                let known = all.filter(|it| it.opened <= row.at).max_by_key(|it| it.opened);
                if let Some(known) = known {
                    known.closed = known.closed.max(Some(row.at));
                    return;
                }
            }
            _ => return,
        }
        if consumers.len() >= MANY_CONSUMERS {
            consumers.retain(|it| it.agent != row.agent || it.closed.is_none());
        }
        let closed = (row.outcome == Some(Outcome::Closed)).then_some(row.at);
        consumers.push(Consumer { closed, ..Consumer::new(row) });
    }
}

impl Queue {
    fn note_emptied(&mut self, at: Micros, how: Emptied) {
        keep_newest(&mut self.emptied, (at, how));
    }
}
