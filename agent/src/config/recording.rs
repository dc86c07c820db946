//! `[record]` and `[[rule]]` as `identify` wants them.

use super::{Config, HeaderPolicy, KeyPolicy, PayloadPolicy, RuleConfig};
use crate::identify::{
    self, Glob, Identifier, KeyNames, RecordSpec, Redact, RuleSpec, Source, SpecError,
};

impl Config {
    /// What finds ids, and decides what is recorded. Errors name the rule or `[record]`.
    pub fn identifier(&self) -> Result<Identifier, Vec<SpecError>> {
        let rules: Vec<RuleSpec> = self.rules.iter().map(rule).collect();
        Identifier::new(&rules, &self.record())
    }

    fn record(&self) -> RecordSpec {
        let record = &self.record;
        let globs = |names: &[String]| names.iter().map(|name| Glob::new(name)).collect();
        RecordSpec {
            headers: match &record.headers {
                HeaderPolicy::Ids => identify::HeaderPolicy::Ids,
                HeaderPolicy::All => identify::HeaderPolicy::All,
                HeaderPolicy::Named(names) => identify::HeaderPolicy::Named(globs(names)),
            },
            keys: match &record.keys {
                KeyPolicy::BuiltIn => KeyNames::BuiltIn,
                KeyPolicy::Named(names) => KeyNames::Named(globs(names)),
            },
            payload: match record.payload {
                PayloadPolicy::None => identify::PayloadPolicy::None,
                PayloadPolicy::Failed => identify::PayloadPolicy::Failed,
                PayloadPolicy::All => identify::PayloadPolicy::All,
            },
            max_bytes: record.max_bytes.0,
            // Each was read once already, when the file was checked.
            redact: record.redact.iter().filter_map(|text| Redact::parse(text).ok()).collect(),
            exception_texts: record.exception_texts,
        }
    }
}

fn rule(rule: &RuleConfig) -> RuleSpec {
    // Each was read once already, when the file was checked.
    let source = |text: &Option<String>| text.as_deref().and_then(|text| Source::parse(text).ok());
    let keys =
        rule.keys.iter().filter_map(|(name, text)| Some((name.clone(), Source::parse(text).ok()?)));
    RuleSpec {
        exchange: rule.exchange.as_deref().map(Glob::new),
        topic: rule.topic.as_deref().map(Glob::new),
        routing_key: rule.routing_key.as_deref().map(Glob::new),
        event_id: source(&rule.event_id),
        event_type: source(&rule.event_type),
        transaction_id: source(&rule.transaction_id),
        causation_id: source(&rule.causation_id),
        command: source(&rule.command),
        command_id: source(&rule.command_id),
        trace_id: source(&rule.trace_id),
        keys: keys.collect(),
        ..RuleSpec::new(&rule.name)
    }
}
