//! What is known of the brokers: queues, exchanges, bindings, and who consumes what, each with
//! its times; of Kafka in [`Groups`]. Made from `topology`, `session` and `position` rows and from
//! where messages were delivered.
//!
//! It is never complete: policies, and what was declared where no agent stands, are not in it. So
//! it answers "this queue was bound", never "no queue was bound".

mod change;
mod closed;
mod gone;
mod learn;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use flowtap_record::Micros;
use serde_json::Value;

use change::{Change, matches, there};
use closed::{Closed, Connection};
use gone::Gone;

use super::groups::Groups;
use super::row::{Broker, Row};

/// A queue or exchange on a broker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Where it lives.
    pub broker: Broker,
    /// Its name; the default exchange is `''`.
    pub name: String,
}

impl Name {
    /// `name` on `broker`.
    pub fn new(broker: &Broker, name: &str) -> Self {
        Self { broker: broker.clone(), name: name.to_owned() }
    }
}

/// Brokers as far as they were seen.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Topics and groups.
    pub groups: Groups,
    queues: HashMap<Name, Queue>,
    /// Queues that are not kept any more, since there are too many that went with their connections.
    gone: Gone,
    exchanges: HashMap<Name, Exchange>,
    /// By the exchange that messages come from.
    bindings: HashMap<Name, BTreeMap<Bound, Vec<Change>>>,
    consumers: HashMap<Name, Vec<Consumer>>,
    /// Exchange and key by which messages reached a queue, since when.
    routes: HashMap<(Name, String), Micros>,
    /// Queues that messages came back to after they had been given up there.
    returns: HashSet<Name>,
    closed: Closed,
    /// When the last connection of an agent's start ended, by boot.
    last_closed: HashMap<String, Micros>,
    /// When an agent's start ended: its connections are gone with it.
    ended: HashMap<String, Micros>,
}

#[derive(Clone, Debug, Default)]
struct Queue {
    arguments: Value,
    life: Vec<Change>,
    /// When it was deleted or purged: what it held is gone. Newest last.
    emptied: Vec<(Micros, Emptied)>,
    /// The connection that it dies with.
    exclusive: Option<Connection>,
    /// It dies with its last consumer.
    auto_delete: bool,
}

#[derive(Clone, Debug, Default)]
struct Exchange {
    kind: Option<String>,
    alternate: Option<String>,
    /// It holds messages back for a time that each names.
    delays: bool,
    /// When it was deleted.
    deleted: Vec<Micros>,
}

/// What emptied a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Emptied {
    /// Its messages were thrown away.
    Purged,
    /// It was deleted, with its messages and bindings.
    Deleted,
}

impl Emptied {
    /// The word that people read.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Purged => "purged",
            Self::Deleted => "deleted",
        }
    }
}

/// What a binding leads to, by which key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bound {
    Queue { queue: String, key: String },
    Exchange { exchange: String, key: String },
}

/// Somebody who takes from a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Behind which agent.
    pub agent: String,
    /// The start of that agent.
    pub boot: String,
    /// The service.
    pub service: Option<String>,
    /// Since when.
    pub opened: Micros,
    /// Until when; open ones may be void because their agent ended.
    pub closed: Option<Micros>,
    connection: Option<i64>,
    channel: Option<i32>,
    tag: Option<String>,
}

impl Consumer {
    /// Whoever a row tells of, from then on.
    pub(super) fn new(row: &Row) -> Self {
        Self {
            agent: row.agent.clone(),
            boot: row.id.boot.clone(),
            service: row.service.clone(),
            opened: row.at,
            closed: None,
            connection: row.connection,
            channel: row.channel,
            tag: row.consumer.clone(),
        }
    }

    fn on(&self) -> Option<Connection> {
        self.connection.map(|number| (self.boot.clone(), number))
    }
}

impl World {
    /// Whether a message by this exchange and key reached a queue before `at`.
    pub fn reached_before(&self, exchange: &Name, key: &str, at: Micros) -> bool {
        self.routes.get(&(exchange.clone(), key.to_owned())).is_some_and(|&since| since < at)
    }

    /// Queues that an exchange gives a message of this key to, as far as known at `at`.
    pub fn queues_for(&self, exchange: &Name, key: &str, at: Micros) -> BTreeSet<String> {
        self.ways(exchange, key, &|changes| there(changes, at), &|queue| !self.is_gone(queue, at))
    }

    fn ways(
        &self,
        exchange: &Name,
        key: &str,
        is_bound: &dyn Fn(&[Change]) -> bool,
        is_there: &dyn Fn(&Name) -> bool,
    ) -> BTreeSet<String> {
        let mut queues = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut ways = vec![exchange.name.clone()];
        while let Some(name) = ways.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            if name.is_empty() {
                queues.insert(key.to_owned());
                continue;
            }
            let from = Name::new(&exchange.broker, &name);
            let exchange_of = self.exchanges.get(&from);
            let kind = exchange_of.and_then(|exchange| exchange.kind.as_deref());
            let mut taken = false;
            for (bound, changes) in self.bindings.get(&from).into_iter().flatten() {
                if !is_bound(changes) {
                    continue;
                }
                match bound {
                    Bound::Queue { queue, key: pattern } if matches(kind, pattern, key) => {
                        taken = true;
                        let name = Name::new(&exchange.broker, queue);
                        if is_there(&name) {
                            queues.insert(queue.clone());
                        }
                    }
                    Bound::Exchange { exchange, key: pattern } if matches(kind, pattern, key) => {
                        taken = true;
                        ways.push(exchange.clone());
                    }
                    _ => {}
                }
            }
            if let (false, Some(other)) = (taken, exchange_of.and_then(|it| it.alternate.clone())) {
                ways.push(other);
            }
        }
        queues
    }

    /// Whether a queue is known to be gone at `at`: deleted, or with the connection it belonged to.
    pub fn is_gone(&self, queue: &Name, at: Micros) -> bool {
        let Some(known) = self.queues.get(queue) else {
            return self.gone.since(queue).is_some_and(|gone| gone <= at);
        };
        if !known.life.is_empty() && !there(&known.life, at) && known.life[0].at <= at {
            return true;
        }
        let closed =
            known.exclusive.as_ref().and_then(|connection| self.end_of_connection(connection));
        if closed.is_some_and(|closed| closed <= at) {
            return true;
        }
        known.auto_delete
            && self.consumers.get(queue).is_some_and(|consumers| {
                !consumers.is_empty()
                    && consumers.iter().all(|it| self.end_of(it).is_some_and(|end| end <= at))
            })
    }

    fn end_of_connection(&self, connection: &Connection) -> Option<Micros> {
        self.closed.end_of(connection).or_else(|| self.ended.get(&connection.0).copied())
    }

    /// When a queue was emptied since `since`, if it was, and how.
    pub fn emptied(&self, queue: &Name, since: Micros) -> Option<(Micros, Emptied)> {
        let emptied = &self.queues.get(queue)?.emptied;
        emptied.iter().copied().find(|(at, _)| *at >= since)
    }

    /// Whether a queue goes when its connection or its last consumer goes: then it is only there
    /// while somebody listens.
    fn is_fleeting(&self, queue: &Name) -> bool {
        let known = self.queues.get(queue);
        known.is_some_and(|queue| queue.exclusive.is_some() || queue.auto_delete)
            || self.gone.since(queue).is_some()
    }

    /// Whether all queues that an exchange was ever seen to give a message of this key to are there
    /// only while somebody listens: that there is none then is no fault.
    pub fn is_only_listened_to(&self, exchange: &Name, key: &str) -> bool {
        let queues = self.ways(exchange, key, &|_| true, &|_| true);
        !queues.is_empty()
            && queues.iter().all(|queue| self.is_fleeting(&Name::new(&exchange.broker, queue)))
    }

    /// Whether an exchange holds messages back for a time: it returns what it only delays.
    pub fn delays(&self, exchange: &Name) -> bool {
        self.exchanges.get(exchange).is_some_and(|exchange| exchange.delays)
    }

    /// Everybody who was ever seen to take from a queue.
    pub fn consumers(&self, queue: &Name) -> &[Consumer] {
        self.consumers.get(queue).map_or(&[], Vec::as_slice)
    }

    /// When a consumer ended: with its own word, or with its connection.
    pub fn end_of(&self, consumer: &Consumer) -> Option<Micros> {
        let connection = consumer.on().and_then(|connection| self.closed.end_of(&connection));
        consumer.closed.or(connection).or_else(|| self.ended.get(&consumer.boot).copied())
    }

    /// An argument that a queue was declared with.
    pub fn argument(&self, queue: &Name, name: &str) -> Option<&Value> {
        self.queues.get(queue)?.arguments.get(name)
    }

    /// Whether somebody was seen to declare the queue: then its arguments are known.
    pub fn is_declared(&self, queue: &Name) -> bool {
        self.queues.get(queue).is_some_and(|queue| !queue.life.is_empty())
    }

    /// The exchange that `queue` gives up to, if its arguments name one.
    pub fn dead_letter_exchange(&self, queue: &Name) -> Option<&str> {
        text(&self.queues.get(queue)?.arguments, "x-dead-letter-exchange")
    }

    /// Where messages go that `queue` gives up on: nothing where its arguments name no exchange.
    pub fn dead_letters(&self, queue: &Name, key: &str, at: Micros) -> BTreeSet<String> {
        let Some(arguments) = self.queues.get(queue).map(|queue| &queue.arguments) else {
            return BTreeSet::new();
        };
        let Some(exchange) = text(arguments, "x-dead-letter-exchange") else {
            return BTreeSet::new();
        };
        let key = text(arguments, "x-dead-letter-routing-key").unwrap_or(key);
        self.queues_for(&Name::new(&queue.broker, exchange), key, at)
    }

    /// Whether what `queue` gives up on finds its way back to `queue`, by the arguments.
    pub fn leads_back(&self, queue: &Name, key: &str, at: Micros) -> bool {
        let mut seen = BTreeSet::new();
        let mut ways: Vec<(String, String)> = vec![(queue.name.clone(), key.to_owned())];
        while let Some((name, key)) = ways.pop() {
            let from = Name::new(&queue.broker, &name);
            let next_key = self
                .queues
                .get(&from)
                .and_then(|queue| text(&queue.arguments, "x-dead-letter-routing-key"))
                .unwrap_or(&key)
                .to_owned();
            for next in self.dead_letters(&from, &key, at) {
                if next == queue.name {
                    return true;
                }
                if seen.insert(next.clone()) {
                    ways.push((next, next_key.clone()));
                }
            }
        }
        false
    }

    /// Whether nobody takes from a queue, and it passes its messages to nobody.
    pub fn is_dead_end(&self, queue: &Name) -> bool {
        self.consumers(queue).is_empty()
            && self.queues.get(queue).is_some_and(|queue| {
                text(&queue.arguments, "x-dead-letter-exchange").is_none() && !queue.life.is_empty()
            })
    }

    /// Whether some queue gives up its messages to this one.
    pub fn is_dead_letter_queue(&self, queue: &Name, at: Micros) -> bool {
        self.queues.keys().any(|other| {
            other.broker == queue.broker
                && other != queue
                && self.dead_letters(other, &queue.name, at).contains(&queue.name)
        })
    }
}

fn text<'a>(arguments: &'a Value, name: &str) -> Option<&'a str> {
    arguments.get(name).and_then(Value::as_str)
}

/// The queue that a row is about.
pub fn queue_of(row: &Row) -> Option<Name> {
    row.subscription.as_deref().map(|queue| Name::new(&row.broker(), queue))
}
