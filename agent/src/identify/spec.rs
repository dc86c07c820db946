//! What a configuration may say about ids and recording, as plain structs. Whoever parses
//! `agent.toml` builds them from its strings; [`super::Identifier::new`] checks them as a whole.

use std::fmt;

use super::json::Pointer;
use super::names::{Glob, excluded_word};

/// Longest body that is searched for ids and keys.
pub const MAX_INSPECTED_BODY: u64 = 64 * 1024;

/// Default of [`RecordSpec::max_bytes`].
pub const DEFAULT_PAYLOAD_BYTES: u64 = 64 * 1024;

/// Largest [`RecordSpec::max_bytes`]: a row must fit into memory several times.
pub const MAX_PAYLOAD_BYTES: u64 = 16 * 1024 * 1024;

/// Message properties that a rule can read: `property:NAME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    /// `content_type`
    ContentType,
    /// `content_encoding`
    ContentEncoding,
    /// `correlation_id`
    CorrelationId,
    /// `message_id`
    MessageId,
    /// `type`
    Type,
    /// `app_id`
    AppId,
    /// `reply_to`
    ReplyTo,
    /// `user_id`
    UserId,
}

impl Property {
    /// Every property, in the order in which they are listed to people.
    pub const ALL: &'static [Self] = &[
        Self::MessageId,
        Self::CorrelationId,
        Self::Type,
        Self::AppId,
        Self::UserId,
        Self::ReplyTo,
        Self::ContentType,
        Self::ContentEncoding,
    ];

    /// Its name in a configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ContentType => "content_type",
            Self::ContentEncoding => "content_encoding",
            Self::CorrelationId => "correlation_id",
            Self::MessageId => "message_id",
            Self::Type => "type",
            Self::AppId => "app_id",
            Self::ReplyTo => "reply_to",
            Self::UserId => "user_id",
        }
    }
}

/// Where a rule looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A header by name: exactly, else without regard to case.
    Header(Box<str>),
    /// A property of an AMQP message.
    Property(Property),
    /// The record key, or the routing key.
    Key,
    /// A JSON Pointer (RFC 6901) into a JSON body.
    Body(Pointer),
}

impl Source {
    /// Reads `header:NAME`, `property:NAME`, `key` or `body:/pointer`. The error says what would be
    /// right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let forms = "write header:NAME, property:NAME, body:/json/pointer or key";
        if text == "key" {
            return Ok(Self::Key);
        }
        let Some((kind, rest)) = text.split_once(':') else {
            return Err(format!("`{text}` does not say where to look: {forms}"));
        };
        match kind {
            "header" if rest.is_empty() => {
                Err("`header:` lacks the name: write for example header:x-order-flow".to_owned())
            }
            "header" => Ok(Self::Header(rest.into())),
            "property" => Property::ALL.iter().find(|known| known.as_str() == rest).map_or_else(
                || {
                    let known: Vec<_> = Property::ALL.iter().map(|known| known.as_str()).collect();
                    Err(format!("there is no property `{rest}`; there are {}", known.join(", ")))
                },
                |property| Ok(Self::Property(*property)),
            ),
            "body" => Pointer::parse(rest).map(Self::Body),
            "key" => Err("`key` is the record key or the routing key as a whole: write just key, \
                          without a colon"
                .to_owned()),
            _ => Err(format!("there is no place `{kind}` to look: {forms}")),
        }
    }

    /// The word for which this source must not be read at all.
    pub(super) fn excluded_word(&self) -> Option<&'static str> {
        match self {
            Self::Header(name) => excluded_word(name.as_bytes()),
            Self::Property(_) | Self::Key => None,
            Self::Body(pointer) => {
                pointer.tokens().iter().find_map(|token| excluded_word(token.as_bytes()))
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Property(property) => write!(f, "property:{}", property.as_str()),
            Self::Key => f.write_str("key"),
            Self::Body(pointer) => write!(f, "body:{pointer}"),
        }
    }
}

/// One configured rule: for which messages it holds, and where their ids are. Of several rules,
/// the first that matches and finds a value gives a field.
#[derive(Clone, Debug, Default)]
pub struct RuleSpec {
    /// Stands in the `_from` columns as `rule:NAME`. Required, unique.
    pub name: String,
    /// Only messages of these exchanges. The empty pattern is the default exchange. Absent: all,
    /// unless `topic` is given; then none.
    pub exchange: Option<Glob>,
    /// Only records of these Kafka topics. Absent: all, unless `exchange` is given; then none.
    pub topic: Option<Glob>,
    /// Only messages with these routing keys or record keys. Absent: all.
    pub routing_key: Option<Glob>,
    /// The message's own id.
    pub event_id: Option<Source>,
    /// The name of the event or command.
    pub event_type: Option<Source>,
    /// The id of the flow.
    pub transaction_id: Option<Source>,
    /// The event id of the message that caused this one.
    pub causation_id: Option<Source>,
    /// The name of the command at the start of the chain.
    pub command: Option<Source>,
    /// The id of that command.
    pub command_id: Option<Source>,
    /// A `traceparent`, or a trace id of 32 or 16 hex digits.
    pub trace_id: Option<Source>,
    /// Business keys: the name to record, and where its value is.
    pub keys: Vec<(String, Source)>,
}

impl RuleSpec {
    /// A rule for every message that finds nothing yet.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// Whether it can hold for no AMQP message.
    fn is_for_kafka_only(&self) -> bool {
        self.topic.is_some() && self.exchange.is_none()
    }

    /// Every source with the key under which a configuration names it.
    pub(super) fn sources(&self) -> impl Iterator<Item = (String, &Source)> {
        let ids = [
            ("event_id", &self.event_id),
            ("event_type", &self.event_type),
            ("transaction_id", &self.transaction_id),
            ("causation_id", &self.causation_id),
            ("command", &self.command),
            ("command_id", &self.command_id),
            ("trace_id", &self.trace_id),
        ];
        ids.into_iter()
            .filter_map(|(key, source)| source.as_ref().map(|source| (key.to_owned(), source)))
            .chain(self.keys.iter().map(|(name, source)| (format!("keys.{name}"), source)))
    }
}

/// Which headers are recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HeaderPolicy {
    /// Those that gave an id.
    #[default]
    Ids,
    /// Those whose names match one of these, whether they gave an id or not; an empty list
    /// records none.
    Named(Vec<Glob>),
    /// All but the excluded.
    All,
}

/// Which members of a JSON body are business keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeyNames {
    /// `order_id`, `orderId`, `external_id`, `uuid`, `*_id`, `*Id`.
    #[default]
    BuiltIn,
    /// These instead; an empty list turns the search off.
    Named(Vec<Glob>),
}

/// Which payloads are recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PayloadPolicy {
    /// None.
    #[default]
    None,
    /// On the row that says that a message failed: settle, return, refused confirm.
    Failed,
    /// On each publish and deliver row.
    All,
}

/// One entry of `redact`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redact {
    /// A value in JSON bodies; `*` as a step stands for every member or element.
    Body(Pointer),
    /// Every header and every member of a JSON body, at any depth, of this name, in any case.
    Name(Box<str>),
}

impl Redact {
    /// Reads `/json/pointer` or a name.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            Pointer::parse(text).map(Self::Body)
        } else if text.is_empty()
            || text.contains(|c: char| c.is_control() || matches!(c, '/' | ':' | '"' | '\\' | '*'))
        {
            Err(format!(
                "`{text}` is neither a JSON Pointer such as /customer/name nor a name such as \
                 customer_name, which stands for headers and members of that name anywhere"
            ))
        } else {
            Ok(Self::Name(text.into()))
        }
    }
}

/// `[record]`: what of a message may be kept beside its ids.
#[derive(Clone, Debug)]
pub struct RecordSpec {
    /// Which headers.
    pub headers: HeaderPolicy,
    /// Which members of JSON bodies, as business keys.
    pub keys: KeyNames,
    /// Which payloads.
    pub payload: PayloadPolicy,
    /// How many bytes of a payload; the rest is cut off.
    pub max_bytes: u64,
    /// What is replaced by `[redacted]` in payloads and headers, and gives no id and no key. While
    /// this holds anything, a body that cannot be read as JSON is not recorded at all.
    pub redact: Vec<Redact>,
    /// Whether headers that hold the text of an exception may be recorded.
    pub exception_texts: bool,
}

impl Default for RecordSpec {
    fn default() -> Self {
        Self {
            headers: HeaderPolicy::default(),
            keys: KeyNames::default(),
            payload: PayloadPolicy::default(),
            max_bytes: DEFAULT_PAYLOAD_BYTES,
            redact: Vec::new(),
            exception_texts: false,
        }
    }
}

/// Which part of the configuration a [`SpecError`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The rule at this place of the list, from 0.
    Rule(usize),
    /// `[record]`.
    Record,
}

/// Something in the configuration that cannot be done, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct SpecError {
    /// Where.
    pub section: Section,
    /// The key there: `transaction_id`, `keys.order`, `headers[0]`, `redact[2]`.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Everything that is wrong with rules and record, all at once.
pub(super) fn check(rules: &[RuleSpec], record: &RecordSpec) -> Vec<SpecError> {
    let mut errors = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        let mut wrong = |key: &str, message: String| {
            errors.push(SpecError { section: Section::Rule(at), key: key.to_owned(), message });
        };
        if rule.name.is_empty() || rule.name.len() > 64 || rule.name.contains(char::is_control) {
            wrong("name", "a rule needs a name of 1 to 64 printable characters".to_owned());
        } else if rules[..at].iter().any(|other| other.name == rule.name) {
            wrong("name", format!("there are two rules `{}`: give each its own name", rule.name));
        }
        if rule.sources().next().is_none() {
            wrong(
                "name",
                format!(
                    "rule `{}` finds nothing: give it at least one of event_id, event_type, \
                     transaction_id, causation_id, command, command_id, trace_id, keys",
                    rule.name
                ),
            );
        }
        for (name, _) in &rule.keys {
            let key = format!("keys.{name}");
            if name.is_empty() || name.len() > 64 || name.contains(char::is_control) {
                wrong(&key, "a key's name has 1 to 64 printable characters".to_owned());
            } else if let Some(word) = excluded_word(name.as_bytes()) {
                wrong(&key, never(word));
            } else if let Some(redacted) = names(record, name) {
                wrong(&key, format!("cannot be recorded: redact in [record] names {redacted}"));
            }
        }
        for (key, source) in rule.sources() {
            if rule.is_for_kafka_only() && matches!(source, Source::Property(_)) {
                wrong(
                    &key,
                    format!(
                        "`{source}` is never there: rule `{}` is for topics, and a Kafka record has \
                         no properties; write header:NAME, body:/json/pointer or key",
                        rule.name
                    ),
                );
            } else if let Some(word) = source.excluded_word() {
                wrong(&key, never(word));
            } else if let Some(redacted) = redacted_by(source, record) {
                wrong(
                    &key,
                    format!("`{source}` cannot be read: redact in [record] names {redacted}"),
                );
            }
        }
    }
    let mut wrong = |key: String, message: String| {
        errors.push(SpecError { section: Section::Record, key, message });
    };
    if let HeaderPolicy::Named(patterns) = &record.headers {
        refuse_excluded("headers", patterns, &mut wrong);
    }
    if let KeyNames::Named(patterns) = &record.keys {
        refuse_excluded("keys", patterns, &mut wrong);
    }
    if record.max_bytes == 0 || record.max_bytes > MAX_PAYLOAD_BYTES {
        wrong(
            "max_bytes".to_owned(),
            format!(
                "{} is out of range: write 1 to {MAX_PAYLOAD_BYTES}; payload = \"none\" records no \
                 payloads",
                record.max_bytes
            ),
        );
    }
    errors
}

fn refuse_excluded(list: &str, patterns: &[Glob], wrong: &mut impl FnMut(String, String)) {
    for (at, pattern) in patterns.iter().enumerate() {
        if let Some(word) = excluded_word(pattern.as_str().as_bytes()) {
            wrong(format!("{list}[{at}]"), never(word));
        }
    }
}

fn never(word: &str) -> String {
    format!(
        "names that contain `{word}` are never recorded; take a value that is neither a secret \
         nor about a person"
    )
}

fn redacted_by(source: &Source, record: &RecordSpec) -> Option<String> {
    match source {
        Source::Header(name) => names(record, name),
        Source::Body(pointer) => {
            let by_name = || pointer.tokens().iter().find_map(|step| names(record, step));
            let by_pointer = record.redact.iter().find_map(|redact| match redact {
                Redact::Body(redacted) => {
                    redacted.covers(pointer.tokens()).then(|| redacted.to_string())
                }
                Redact::Name(_) => None,
            });
            by_pointer.or_else(by_name)
        }
        Source::Property(_) | Source::Key => None,
    }
}

/// The entry of `redact` that is this name.
fn names(record: &RecordSpec, name: &str) -> Option<String> {
    record.redact.iter().find_map(|redact| match redact {
        Redact::Name(redacted) => redacted.eq_ignore_ascii_case(name).then(|| redacted.to_string()),
        Redact::Body(_) => None,
    })
}

#[cfg(test)]
mod tests;
