//! The second half of the table of keys: what stands in a `[[tap]]` and in a `[[rule]]`.

use super::checks;
use super::keys::Fallback::{Required, Value, Words};
use super::keys::{Key, put, put_some};
use super::{Brokers, ListenAddr, PortRange, RuleConfig, TapConfig, TapKind};

/// Keys of a `[[tap]]`.
pub(super) const TAP: &[Key<TapConfig>] = &[
    Key {
        name: "kind",
        flag: None,
        kind: "`amqp`, `kafka`",
        fallback: Required("\"amqp\""),
        doc: "What is spoken there",
        set: |t, v| {
            let words = [("amqp", TapKind::Amqp), ("kafka", TapKind::Kafka)];
            put(&mut t.kind, v.one_of(&words))
        },
    },
    Key {
        name: "listen",
        flag: None,
        kind: "address",
        fallback: Required("\"127.0.0.1:5673\""),
        doc: "Where the service connects: `host:port` or, for AMQP, `unix:/path`. For Kafka these \
              are its bootstrap servers",
        set: |t, v| put(&mut t.listen, v.text().and_then(|text| ListenAddr::parse(&text))),
    },
    Key {
        name: "broker",
        flag: None,
        kind: "URL",
        fallback: Required("\"amqp://rabbit-1:5672,rabbit-2:5672\""),
        doc: "The broker behind it, `amqps://` for TLS; several are tried in turn, resolved at \
              each dial. Kafka: `host:port,host:port` (or with `kafka://`), `kafka+ssl://` for \
              TLS. Never with a user: the service's own credentials pass through",
        set: |t, v| put(&mut t.broker, v.text().and_then(|text| Brokers::parse(&text))),
    },
    Key {
        name: "cluster",
        flag: None,
        kind: "text",
        fallback: Words("what the broker says"),
        doc: "Name of the cluster in the rows",
        set: |t, v| put_some(&mut t.cluster, v.text()),
    },
    Key {
        name: "detect_unroutable",
        flag: None,
        kind: "boolean",
        fallback: Value("true"),
        doc: "Find out which messages no queue took, by setting `mandatory` and swallowing the \
              returns that the service did not ask for",
        set: |t, v| put(&mut t.detect_unroutable, v.boolean()),
    },
    Key {
        name: "unroutable_max_body",
        flag: None,
        kind: "size",
        fallback: Value("\"64KiB\""),
        doc: "Larger bodies are left out of that: the broker would send them back whole",
        set: |t, v| put(&mut t.unroutable_max_body, v.size()),
    },
    Key {
        name: "allow_external",
        flag: None,
        kind: "boolean",
        fallback: Value("false"),
        doc: "Let SASL EXTERNAL pass. With `tls.client_cert` everybody who reaches `listen` \
              becomes the service",
        set: |t, v| put(&mut t.allow_external, v.boolean()),
    },
    Key {
        name: "allow_remote",
        flag: None,
        kind: "boolean",
        fallback: Value("false"),
        doc: "Let `listen` be an address that other machines reach",
        set: |t, v| put(&mut t.allow_remote, v.boolean()),
    },
    Key {
        name: "ports",
        flag: None,
        kind: "ports",
        fallback: Words("the hundred behind the one of `listen`"),
        doc: "Kafka: local ports for the brokers, one for each broker id and kept for ever: \
              `\"19100-19199\"`. Broker 3 gets the one that is 3 behind the first, if it is free",
        set: |t, v| put_some(&mut t.ports, v.text().and_then(|text| PortRange::parse(&text))),
    },
    Key {
        name: "advertise",
        flag: None,
        kind: "text",
        fallback: Words("the host of `listen`"),
        doc: "Kafka: the host that clients are told in place of the brokers'",
        set: |t, v| put_some(&mut t.advertise, v.text().and_then(checks::server_name)),
    },
    Key {
        name: "record",
        flag: None,
        kind: "boolean",
        fallback: Value("true"),
        doc: "Kafka: `false` only passes bytes on and rewrites addresses; nothing is recorded",
        set: |t, v| put(&mut t.record, v.boolean()),
    },
    Key {
        name: "tls.cert",
        flag: None,
        kind: "path",
        fallback: Words("none: the service connects in the clear"),
        doc: "PEM file with the certificate chain that the tap shows the service",
        set: |t, v| put(&mut t.tls.listener.get_or_insert_default().cert, v.path()),
    },
    Key {
        name: "tls.key",
        flag: None,
        kind: "path",
        fallback: Words("none"),
        doc: "PEM file with the private key of `tls.cert`",
        set: |t, v| put(&mut t.tls.listener.get_or_insert_default().key, v.path()),
    },
    Key {
        name: "tls.ca",
        flag: None,
        kind: "path",
        fallback: Words("the system's roots"),
        doc: "PEM file with the roots that the broker's certificate is checked against",
        set: |t, v| put_some(&mut t.tls.ca, v.path()),
    },
    Key {
        name: "tls.server_name",
        flag: None,
        kind: "text",
        fallback: Words("the host that is dialled"),
        doc: "The name that the broker's certificate must carry, also sent as SNI",
        set: |t, v| put_some(&mut t.tls.server_name, v.text().and_then(checks::server_name)),
    },
    Key {
        name: "tls.client_cert",
        flag: None,
        kind: "path",
        fallback: Words("none"),
        doc: "PEM file with the certificate chain that the tap shows the broker",
        set: |t, v| put(&mut t.tls.client.get_or_insert_default().cert, v.path()),
    },
    Key {
        name: "tls.client_key",
        flag: None,
        kind: "path",
        fallback: Words("none"),
        doc: "PEM file with the private key of `tls.client_cert`",
        set: |t, v| put(&mut t.tls.client.get_or_insert_default().key, v.path()),
    },
];

/// Keys of a `[[rule]]`.
pub(super) const RULE: &[Key<RuleConfig>] = &[
    Key {
        name: "name",
        flag: None,
        kind: "text",
        fallback: Required("\"orders\""),
        doc: "Its name; rows carry it as `rule:NAME`",
        set: |r, v| put(&mut r.name, v.text()),
    },
    Key {
        name: "exchange",
        flag: None,
        kind: "text",
        fallback: Words("all, or none with a `topic`"),
        doc: "RabbitMQ exchanges it is for; `*` stands for any run of characters",
        set: |r, v| put_some(&mut r.exchange, v.text()),
    },
    Key {
        name: "topic",
        flag: None,
        kind: "text",
        fallback: Words("all, or none with an `exchange`"),
        doc: "Kafka topics it is for; `*` stands for any run of characters",
        set: |r, v| put_some(&mut r.topic, v.text()),
    },
    Key {
        name: "routing_key",
        flag: None,
        kind: "text",
        fallback: Words("all"),
        doc: "Routing keys or record keys it is for; `*` stands for any run of characters",
        set: |r, v| put_some(&mut r.routing_key, v.text()),
    },
    Key {
        name: "event_id",
        flag: None,
        kind: "source",
        fallback: Words("found by convention"),
        doc: "Where the event id stands: `header:NAME`, `body:/json/pointer`, `key` (the record key, \
              the routing key) or, on RabbitMQ, `property:NAME`",
        set: |r, v| put_some(&mut r.event_id, v.text().and_then(checks::source)),
    },
    Key {
        name: "event_type",
        flag: None,
        kind: "source",
        fallback: Words("found by convention"),
        doc: "Where the event type stands",
        set: |r, v| put_some(&mut r.event_type, v.text().and_then(checks::source)),
    },
    Key {
        name: "transaction_id",
        flag: None,
        kind: "source",
        fallback: Words("found by convention"),
        doc: "Where the transaction id stands",
        set: |r, v| put_some(&mut r.transaction_id, v.text().and_then(checks::source)),
    },
    Key {
        name: "causation_id",
        flag: None,
        kind: "source",
        fallback: Words("found by convention"),
        doc: "Where the causation id stands",
        set: |r, v| put_some(&mut r.causation_id, v.text().and_then(checks::source)),
    },
    Key {
        name: "command",
        flag: None,
        kind: "source",
        fallback: Words("found by convention"),
        doc: "Where the command's name stands",
        set: |r, v| put_some(&mut r.command, v.text().and_then(checks::source)),
    },
    Key {
        name: "command_id",
        flag: None,
        kind: "source",
        fallback: Words("found by convention"),
        doc: "Where the command's id stands",
        set: |r, v| put_some(&mut r.command_id, v.text().and_then(checks::source)),
    },
    Key {
        name: "trace_id",
        flag: None,
        kind: "source",
        fallback: Words("found by convention"),
        doc: "Where the trace id stands, or a `traceparent`",
        set: |r, v| put_some(&mut r.trace_id, v.text().and_then(checks::source)),
    },
    Key {
        name: "keys",
        flag: None,
        kind: "table of sources",
        fallback: Words("none"),
        doc: "Business keys: the name to record and where its value stands, \
              `keys = { order = \"body:/order/no\", shop = \"header:x-shop\" }`. In the variable \
              `order=body:/order/no,shop=header:x-shop`",
        set: |r, v| put(&mut r.keys, v.pairs().and_then(checks::sources)),
    },
];
