//! Queues, exchanges and bindings as a client declares them: the `topology` rows, which later tell
//! who could have got a message.

use flowtap_record::{Kind, Outcome, Value, escape_bytes};
use serde_json::json;

use super::context::Context;
use super::method::Method;
use super::wire::Table;
use crate::identify::is_excluded;

/// A change that the client asked for, to be recorded once the broker has agreed.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    outcome: Outcome,
    /// Exchange; for a binding between exchanges the one that messages come from.
    destination: Option<String>,
    /// Queue; `None` where "the last declared" is meant and not yet known.
    subscription: Option<String>,
    routing_key: Option<String>,
    details: serde_json::Value,
    /// It is about a queue, so an empty name stands for the last declared one.
    queue: bool,
}

impl Change {
    /// The change that a method asks for, and whether the client waits for an answer.
    pub(crate) fn asked(method: &Method<'_>) -> Option<(Self, bool)> {
        let text = |bytes: &[u8]| Some(escape_bytes(bytes).into_owned());
        let named = |bytes: &[u8]| if bytes.is_empty() { None } else { text(bytes) };
        Some(match method {
            Method::ExchangeDeclare {
                exchange,
                kind,
                durable,
                auto_delete,
                internal,
                nowait,
                arguments,
                ..
            } => {
                let details = json!({
                    "what": "exchange", "type": escape_bytes(kind), "durable": durable,
                    "auto_delete": auto_delete, "internal": internal,
                    "arguments": table_json(arguments),
                });
                (Self::exchange(Outcome::Declared, text(exchange), details), !nowait)
            }
            Method::ExchangeDelete { exchange, nowait } => {
                let details = json!({"what": "exchange"});
                (Self::exchange(Outcome::Deleted, text(exchange), details), !nowait)
            }
            Method::ExchangeBind {
                unbind,
                destination,
                source,
                routing_key,
                nowait,
                arguments,
            } => {
                let details = json!({
                    "what": "binding", "to": escape_bytes(destination),
                    "arguments": table_json(arguments),
                });
                let outcome = if *unbind { Outcome::Unbound } else { Outcome::Bound };
                let mut change = Self::exchange(outcome, text(source), details);
                change.routing_key = text(routing_key);
                (change, !nowait)
            }
            Method::QueueDeclare {
                queue,
                durable,
                exclusive,
                auto_delete,
                nowait,
                arguments,
                ..
            } => {
                let details = json!({
                    "what": "queue", "durable": durable, "exclusive": exclusive,
                    "auto_delete": auto_delete, "arguments": table_json(arguments),
                });
                (Self::queue(Outcome::Declared, named(queue), details), !nowait)
            }
            Method::QueueBind { unbind, queue, exchange, routing_key, nowait, arguments } => {
                let details = json!({"what": "binding", "arguments": table_json(arguments)});
                let outcome = if *unbind { Outcome::Unbound } else { Outcome::Bound };
                let mut change = Self::queue(outcome, named(queue), details);
                change.destination = text(exchange);
                // With both empty the broker takes the queue's name as the key, too.
                let key_is_queue = queue.is_empty() && routing_key.is_empty();
                change.routing_key = if key_is_queue { None } else { text(routing_key) };
                (change, !nowait)
            }
            Method::QueuePurge { queue, nowait } => {
                let details = json!({"what": "queue"});
                (Self::queue(Outcome::Purged, named(queue), details), !nowait)
            }
            Method::QueueDelete { queue, nowait } => {
                let details = json!({"what": "queue"});
                (Self::queue(Outcome::Deleted, named(queue), details), !nowait)
            }
            _ => return None,
        })
    }

    fn exchange(outcome: Outcome, destination: Option<String>, details: serde_json::Value) -> Self {
        Self { outcome, destination, subscription: None, routing_key: None, details, queue: false }
    }

    fn queue(outcome: Outcome, subscription: Option<String>, details: serde_json::Value) -> Self {
        Self { outcome, destination: None, subscription, routing_key: None, details, queue: true }
    }

    /// What queue.declare-ok adds: the name that the server chose, and what it found there.
    pub(crate) fn declared(&mut self, queue: String, messages: u32, consumers: u32) {
        self.subscription = Some(queue);
        self.details["messages"] = messages.into();
        self.details["consumers"] = consumers.into();
    }

    /// The broker has agreed, or is not asked to: the row.
    pub(crate) fn record(mut self, cx: &mut Context<'_>, channel: u16, last_queue: Option<&str>) {
        if self.queue && self.subscription.is_none() {
            self.subscription = last_queue.map(str::to_owned);
        }
        if self.queue && self.destination.is_some() && self.routing_key.is_none() {
            self.routing_key.clone_from(&self.subscription);
        }
        let details = self.details.to_string();
        let mut row = cx.row(Kind::Topology, Some(channel));
        row.outcome = Some(self.outcome);
        row.details = Some(&details);
        row.place.destination = self.destination.as_deref();
        row.place.subscription = self.subscription.as_deref();
        row.place.routing_key = self.routing_key.as_deref();
        cx.record(&row);
    }
}

/// A field table as a JSON object, less what is named like a secret, however deep; what is only
/// yes or no, as capabilities are, stays. Of names that repeat the first counts.
pub(crate) fn table_json(table: &Table<'_>) -> serde_json::Value {
    let mut object = serde_json::Map::with_capacity(table.len());
    for (name, value) in table {
        if is_excluded(name) && !matches!(value, Value::Bool(_)) {
            continue;
        }
        object.entry(escape_bytes(name)).or_insert_with(|| value_json(value));
    }
    object.into()
}

fn value_json(value: &Value<'_>) -> serde_json::Value {
    match value {
        Value::Table(table) => table_json(table),
        Value::Array(items) => items.iter().map(value_json).collect(),
        other => {
            let mut text = String::new();
            other.write_json(&mut text);
            serde_json::from_str(&text).unwrap_or(serde_json::Value::Null)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_like_a_secret_is_left_out_however_deep() {
        let secret = || Value::Bytes(b"s3cret");
        let inner =
            || Value::Table(vec![(&b"password"[..], secret()), (b"auth_close", Value::Bool(true))]);
        let table = vec![
            (&b"product"[..], Value::Bytes(b"x")),
            (b"session_token", secret()),
            (b"capabilities", inner()),
            (b"hosts", Value::Array(vec![inner(), Value::Array(vec![inner()])])),
        ];
        let rest = json!({"auth_close": true});
        let want = json!({"product": "x", "capabilities": rest, "hosts": [rest, [rest]]});
        assert_eq!(table_json(&table), want);
    }
}
