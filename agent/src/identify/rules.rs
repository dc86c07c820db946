//! Configured rules at work: they come before everything that is built in.

use std::sync::Arc;

use flowtap_record::Encoding;

use super::detect::{Field, Found, View, offer_trace};
use super::json::{MAX_KEYS, Wanted};
use super::names::Glob;
use super::spec::{Property, RuleSpec, Source};
use super::text::{Text, id_of_bytes};
use super::{Content, NamedText, System};

/// The rules in the order of the configuration.
#[derive(Debug)]
pub(super) struct Rules(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    /// `rule:NAME`
    from: Arc<str>,
    exchange: Option<Glob>,
    topic: Option<Glob>,
    routing_key: Option<Glob>,
    ids: Vec<(Field, Place)>,
    keys: Vec<(Arc<str>, Place)>,
    reads_body: bool,
}

/// A [`Source`] made ready: pointers have become slots.
#[derive(Debug)]
enum Place {
    Header(Box<str>),
    Property(Property),
    Key,
    Body(usize),
}

impl Rules {
    pub(super) fn new(specs: &[RuleSpec], wanted: &mut Wanted) -> Self {
        Self(specs.iter().map(|spec| Rule::new(spec, wanted)).collect())
    }

    /// Whether a rule for these messages looks into bodies.
    pub(super) fn read_bodies_of(&self, content: &Content<'_>) -> bool {
        self.0.iter().any(|rule| rule.reads_body && rule.holds_for(content))
    }

    /// Offers what the rules find; the first that finds a field, or a key of a name, wins.
    pub(super) fn apply<'a>(
        &self,
        view: &View<'_, 'a>,
        found: &mut Found<'a>,
        keys: &mut Vec<NamedText<'a>>,
    ) {
        let content = view.content;
        for rule in &self.0 {
            if !rule.holds_for(content) {
                continue;
            }
            for (field, place) in &rule.ids {
                if found.has(*field) {
                    continue;
                }
                let Some((text, header)) = place.read(view) else { continue };
                let from = Text::Shared(Arc::clone(&rule.from));
                if *field == Field::TraceId {
                    offer_trace(found, &text, &from, header);
                    if let Some(id) = trace_id(&text) {
                        found.offer(*field, Text::Owned(id), from, header);
                    }
                } else {
                    found.offer(*field, text, from, header);
                }
            }
            for (name, place) in &rule.keys {
                if keys.len() == MAX_KEYS || keys.iter().any(|key| *key.name == **name) {
                    continue;
                }
                if let Some((value, _)) = place.read(view) {
                    let name = Text::Shared(Arc::clone(name));
                    keys.push(NamedText { name, value, encoding: Encoding::Text });
                }
            }
        }
    }
}

impl Rule {
    fn new(spec: &RuleSpec, wanted: &mut Wanted) -> Self {
        let ids = [
            (Field::EventId, &spec.event_id),
            (Field::EventType, &spec.event_type),
            (Field::TransactionId, &spec.transaction_id),
            (Field::CausationId, &spec.causation_id),
            (Field::Command, &spec.command),
            (Field::CommandId, &spec.command_id),
            (Field::TraceId, &spec.trace_id),
        ];
        Self {
            from: format!("rule:{}", spec.name).into(),
            exchange: spec.exchange.clone(),
            topic: spec.topic.clone(),
            routing_key: spec.routing_key.clone(),
            ids: ids
                .into_iter()
                .filter_map(|(field, source)| Some((field, Place::new(source.as_ref()?, wanted))))
                .collect(),
            keys: spec
                .keys
                .iter()
                .map(|(name, source)| (name.as_str().into(), Place::new(source, wanted)))
                .collect(),
            reads_body: spec.sources().any(|(_, source)| matches!(source, Source::Body(_))),
        }
    }

    /// A rule that names exchanges is for RabbitMQ, one that names topics for Kafka; one that names
    /// both is for both.
    fn holds_for(&self, content: &Content<'_>) -> bool {
        let (own, other) = match content.system {
            System::Amqp => (&self.exchange, &self.topic),
            System::Kafka => (&self.topic, &self.exchange),
        };
        let place = match own {
            Some(pattern) => pattern.matches(content.destination),
            None => other.is_none(),
        };
        place
            && self.routing_key.as_ref().is_none_or(|pattern| pattern.matches(content.routing_key))
    }
}

impl Place {
    fn new(source: &Source, wanted: &mut Wanted) -> Self {
        match source {
            Source::Header(name) => Self::Header(name.clone()),
            Source::Property(property) => Self::Property(*property),
            Source::Key => Self::Key,
            Source::Body(pointer) => Self::Body(wanted.add(pointer)),
        }
    }

    /// The value there, and the header that it came from. The configuration was checked to name
    /// nothing that is excluded or redacted.
    fn read<'a>(&self, view: &View<'_, 'a>) -> Option<(Text<'a>, Option<usize>)> {
        match self {
            Self::Header(name) => {
                let (at, value) = view.header(name.as_bytes())?;
                let text = view.id_of(value)?;
                super::text::is_id(&text).then_some((text, Some(at)))
            }
            Self::Key => id_of_bytes(view.content.routing_key).map(|text| (Text::Lent(text), None)),
            // A Kafka record has none; what its headers say of the type is no property.
            Self::Property(_) if view.content.system == System::Kafka => None,
            Self::Property(property) => {
                let content = view.content;
                let value = match property {
                    Property::ContentType => content.content_type,
                    Property::ContentEncoding => content.content_encoding,
                    Property::CorrelationId => content.correlation_id,
                    Property::MessageId => content.message_id,
                    Property::Type => content.message_type,
                    Property::AppId => content.app_id,
                    Property::ReplyTo => content.reply_to,
                    Property::UserId => content.user_id,
                };
                id_of_bytes(value?).map(|text| (Text::Lent(text), None))
            }
            Self::Body(slot) => view.body.get(Some(*slot)).map(|text| (text.clone(), None)),
        }
    }
}

/// A bare trace id as the column has it: 32 lower-case hex digits, shorter ones padded.
fn trace_id(text: &str) -> Option<String> {
    let digits = matches!(text.len(), 16 | 32) && text.bytes().all(|b| b.is_ascii_hexdigit());
    let is_zero = text.bytes().all(|byte| byte == b'0');
    (digits && !is_zero).then(|| format!("{:0>32}", text.to_ascii_lowercase()))
}
