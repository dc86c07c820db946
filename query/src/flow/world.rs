//! What is known of the brokers: queues, exchanges, bindings, and who consumes what, each with
//! its times; of Kafka in [`Groups`]. Made from `topology`, `session` and `position` rows and from
//! where messages were delivered.
//!
//! It is never complete: policies, and what was declared where no agent stands, are not in it. So
//! it answers "this queue was bound", never "no queue was bound".

use std::collections::{BTreeMap, BTreeSet, HashMap};

use flowtap_record::{Kind, Micros, Outcome};
use serde_json::Value;

use super::groups::Groups;
use super::row::{Broker, Row};

/// A service that opens a consumer for each message leaves many behind: from so many on those
/// that are closed are forgotten, but for the newest.
const MANY_CONSUMERS: usize = 64;

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
    exchanges: HashMap<Name, Exchange>,
    /// By the exchange that messages come from.
    bindings: HashMap<Name, BTreeMap<Bound, Vec<Change>>>,
    consumers: HashMap<Name, Vec<Consumer>>,
    /// Exchange and key by which messages reached a queue, since when.
    routes: HashMap<(Name, String), Micros>,
    /// When a connection ended, by boot and number.
    closed: HashMap<(String, i64), Micros>,
    /// When an agent's start ended: its connections are gone with it.
    ended: HashMap<String, Micros>,
}

#[derive(Clone, Debug, Default)]
struct Queue {
    arguments: Value,
    life: Vec<Change>,
    /// The connection that it dies with.
    exclusive: Option<(String, i64)>,
    /// It dies with its last consumer.
    auto_delete: bool,
}

#[derive(Clone, Debug, Default)]
struct Exchange {
    kind: Option<String>,
    alternate: Option<String>,
}

/// What a binding leads to, by which key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bound {
    Queue { queue: String, key: String },
    Exchange { exchange: String, key: String },
}

/// From `at` on it is there, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    at: Micros,
    there: bool,
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
}

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
        if row.is_kafka() {
            return self.groups.learn(row);
        }
        match (row.kind, row.what()) {
            (Kind::Topology, Some(what)) => self.learn_topology(row, what),
            (Kind::Session, Some("consumer")) => self.learn_consumer(row),
            (Kind::Session, Some("connection")) if row.outcome == Some(Outcome::Closed) => {
                if let Some(connection) = row.connection {
                    self.closed.insert((row.id.boot.clone(), connection), row.at);
                }
            }
            _ => {}
        }
    }

    /// A start of an agent is over: what belonged to its connections is gone.
    pub fn learn_end(&mut self, boot: &str, at: Micros) {
        self.ended.insert(boot.to_owned(), at);
        self.groups.learn_end(boot, at);
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
                if there && flag("exclusive") {
                    queue.exclusive = row.connection.map(|number| (row.id.boot.clone(), number));
                }
                queue.auto_delete |= there && flag("auto_delete");
            }
            ("exchange", Some(Outcome::Declared)) => {
                let Some(name) = row.destination.as_deref() else { return };
                let exchange = self.exchanges.entry(Name::new(&broker, name)).or_default();
                if let Some(kind) = row.details.get("type").and_then(Value::as_str)
                    && !kind.is_empty()
                {
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
                let source = self.bindings.entry(Name::new(&broker, source)).or_default();
                note(source.entry(bound).or_default(), change);
            }
            _ => {}
        }
    }

    fn learn_consumer(&mut self, row: &Row) {
        let Some(queue) = row.subscription.as_deref() else { return };
        let consumers = self.consumers.entry(Name::new(&row.broker(), queue)).or_default();
        let same = |consumer: &&mut Consumer| {
            consumer.boot == row.id.boot
                && consumer.connection == row.connection
                && consumer.channel == row.channel
                && consumer.tag == row.consumer
        };
        let known = consumers.iter_mut().find(same);
        match (row.outcome, known) {
            (Some(Outcome::Opened), Some(known)) => {
                // Its end, or a delivery, was learned before its beginning.
                known.opened = known.opened.min(row.at);
                if known.closed.is_some_and(|closed| closed < row.at) {
                    known.closed = None;
                }
            }
            (Some(Outcome::Closed), Some(known)) => {
                known.closed = known.closed.max(Some(row.at));
            }
            (Some(outcome @ (Outcome::Opened | Outcome::Closed)), None) => {
                if consumers.len() >= MANY_CONSUMERS {
                    consumers.retain(|it| it.agent != row.agent || it.closed.is_none());
                }
                let closed = (outcome == Outcome::Closed).then_some(row.at);
                consumers.push(Consumer { closed, ..Consumer::new(row) });
            }
            _ => {}
        }
    }

    /// Whether a message by this exchange and key reached a queue before `at`.
    pub fn reached_before(&self, exchange: &Name, key: &str, at: Micros) -> bool {
        self.routes.get(&(exchange.clone(), key.to_owned())).is_some_and(|&since| since < at)
    }

    /// Queues that an exchange gives a message of this key to, as far as known at `at`, and
    /// whether it was said at all that something is bound there.
    pub fn queues_for(&self, exchange: &Name, key: &str, at: Micros) -> BTreeSet<String> {
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
                if !there(changes, at) {
                    continue;
                }
                match bound {
                    Bound::Queue { queue, key: pattern } if matches(kind, pattern, key) => {
                        taken = true;
                        let name = Name::new(&exchange.broker, queue);
                        if !self.is_gone(&name, at) {
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
        let Some(known) = self.queues.get(queue) else { return false };
        if !known.life.is_empty() && !there(&known.life, at) && known.life[0].at <= at {
            return true;
        }
        let closed = known.exclusive.as_ref().and_then(|(boot, connection)| {
            self.closed.get(&(boot.clone(), *connection)).or_else(|| self.ended.get(boot))
        });
        if closed.is_some_and(|&closed| closed <= at) {
            return true;
        }
        known.auto_delete
            && self.consumers.get(queue).is_some_and(|consumers| {
                !consumers.is_empty()
                    && consumers.iter().all(|it| self.end_of(it).is_some_and(|end| end <= at))
            })
    }

    /// Whether a queue goes when its connection or its last consumer goes: what waits in it then
    /// waits for nobody.
    pub fn is_fleeting(&self, queue: &Name) -> bool {
        self.queues.get(queue).is_some_and(|queue| queue.exclusive.is_some() || queue.auto_delete)
    }

    /// Everybody who was ever seen to take from a queue.
    pub fn consumers(&self, queue: &Name) -> &[Consumer] {
        self.consumers.get(queue).map_or(&[], Vec::as_slice)
    }

    /// Everybody who was ever seen to take from any queue.
    pub fn all_consumers(&self) -> impl Iterator<Item = &Consumer> {
        self.consumers.values().flatten()
    }

    /// When a consumer ended: with its own word, or with its connection.
    pub fn end_of(&self, consumer: &Consumer) -> Option<Micros> {
        let connection = consumer.connection.map(|number| (consumer.boot.clone(), number));
        let connection = connection.and_then(|connection| self.closed.get(&connection)).copied();
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

/// Keeps what changed, by time; that something is there once more says nothing new.
fn note(changes: &mut Vec<Change>, change: Change) {
    let index = changes.partition_point(|known| known.at <= change.at);
    let before = index.checked_sub(1).map(|before| changes[before]);
    if before.is_some_and(|before| before.there == change.there) {
        return;
    }
    if changes.get(index).is_some_and(|after| after.there == change.there) {
        changes[index] = change;
    } else {
        changes.insert(index, change);
    }
}

fn there(changes: &[Change], at: Micros) -> bool {
    changes.iter().rev().find(|change| change.at <= at).is_some_and(|change| change.there)
}

fn text<'a>(arguments: &'a Value, name: &str) -> Option<&'a str> {
    arguments.get(name).and_then(Value::as_str)
}

/// Whether a binding key takes a routing key. Of an exchange of unknown type, and of types that
/// look at headers, only the same key is sure.
fn matches(kind: Option<&str>, pattern: &str, key: &str) -> bool {
    match kind {
        Some("fanout") => true,
        Some("topic") => topic(&words(pattern), &words(key)),
        _ => pattern == key,
    }
}

fn words(key: &str) -> Vec<&str> {
    if key.is_empty() { Vec::new() } else { key.split('.').collect() }
}

/// AMQP 0-9-1, 3.1.3.3: `*` is one word, `#` any number of them.
fn topic(pattern: &[&str], key: &[&str]) -> bool {
    match pattern.split_first() {
        None => key.is_empty(),
        Some((&"#", rest)) => (0..=key.len()).any(|skip| topic(rest, &key[skip..])),
        Some((&word, rest)) => match key.split_first() {
            Some((&first, others)) => (word == "*" || word == first) && topic(rest, others),
            None => false,
        },
    }
}

/// The queue that a row is about.
pub fn queue_of(row: &Row) -> Option<Name> {
    row.subscription.as_deref().map(|queue| Name::new(&row.broker(), queue))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_patterns_take_what_the_specification_says() {
        for (pattern, key, want) in [
            ("a.*.c", "a.b.c", true),
            ("a.*.c", "a.c", false),
            ("#", "", true),
            ("a.#", "a", true),
            ("a.#", "a.b.c", true),
            ("#.c", "a.b.c", true),
            ("a.#.c", "a.c", true),
            ("*", "a.b", false),
        ] {
            assert_eq!(topic(&words(pattern), &words(key)), want, "{pattern} {key}");
        }
    }

    #[test]
    fn changes_are_kept_in_time_whatever_order_they_come_in() {
        let mut changes = Vec::new();
        let change = |at, there| Change { at: Micros(at), there };
        for (at, is) in [(5, true), (3, true), (9, false), (7, true), (8, false)] {
            note(&mut changes, change(at, is));
        }
        assert!(!there(&changes, Micros(2)));
        assert!(there(&changes, Micros(4)));
        assert!(there(&changes, Micros(7)));
        assert!(!there(&changes, Micros(8)));
    }
}
