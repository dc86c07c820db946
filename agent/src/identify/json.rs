//! One pass over a JSON body that picks up the wanted values and the business keys, borrowing
//! from the body, and skips the rest without building anything.
//!
//! A body that is not whole and valid JSON yields nothing, not even what stood before the error.
//! The stack is bounded: only steps towards a wanted value recurse, the rest is skipped
//! iteratively.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::names::{Glob, is_excluded};
use super::redact::Redaction;
use super::text::{Text, is_absent, is_id};

/// Most steps of a pointer.
const MAX_STEPS: usize = 32;

/// Most business keys of one message; more are counted, not kept.
pub(super) const MAX_KEYS: usize = 32;

/// Longest value of a business key from a body, in characters.
const MAX_KEY_CHARS: usize = 64;

/// Longest name of a business key, in bytes.
const MAX_KEY_NAME_BYTES: usize = 128;

/// A JSON Pointer (RFC 6901) that is not the whole document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(Vec<Box<str>>);

impl Pointer {
    /// Reads `/meta/flow`; `~1` stands for a slash and `~0` for a tilde within a name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(format!(
                "`{text}` is no JSON Pointer: one starts with /, as in /meta/flow"
            ));
        };
        let steps: Vec<Box<str>> =
            rest.split('/').map(unescape_step).collect::<Option<_>>().ok_or_else(|| {
                format!("`{text}` is no JSON Pointer: after ~ comes 0 (for ~) or 1 (for /)")
            })?;
        if steps.len() > MAX_STEPS {
            return Err(format!("`{text}` has more than {MAX_STEPS} steps"));
        }
        Ok(Self(steps))
    }

    pub(super) fn tokens(&self) -> &[Box<str>] {
        &self.0
    }

    /// Whether the path lies at or below this pointer, `*` standing for any step of it.
    pub(super) fn covers<S: AsRef<str>>(&self, path: &[S]) -> bool {
        self.0.len() <= path.len()
            && self.0.iter().zip(path).all(|(step, name)| step_matches(step, name.as_ref()))
    }
}

/// One step of a redacting pointer against the name of a member or the index of an element.
pub(super) fn step_matches(step: &str, name: &str) -> bool {
    step == "*" || step == name
}

fn unescape_step(step: &str) -> Option<Box<str>> {
    if !step.contains('~') {
        return Some(step.into());
    }
    let mut out = String::with_capacity(step.len());
    let mut rest = step.chars();
    while let Some(c) = rest.next() {
        match c {
            '~' => out.push(match rest.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            }),
            _ => out.push(c),
        }
    }
    Some(out.into())
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|step| write!(f, "/{}", step.replace('~', "~0").replace('/', "~1")))
    }
}

/// All wanted pointers as a tree, so that a body is walked once for all of them.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    nodes: Vec<Node>,
    slots: usize,
}

/// The order of children: by length first, for most names differ in that.
fn is_before(name: &str, other: &str) -> bool {
    (name.len(), name) < (other.len(), other)
}

#[derive(Clone, Debug, Default)]
struct Node {
    slot: Option<usize>,
    /// In the order of [`is_before`].
    children: Vec<(Box<str>, usize)>,
}

impl Wanted {
    pub(super) fn new() -> Self {
        Self { nodes: vec![Node::default()], slots: 0 }
    }

    /// The slot in which the value at this pointer will be; equal pointers share one.
    pub(super) fn add(&mut self, pointer: &Pointer) -> usize {
        let mut node = 0;
        for step in &pointer.0 {
            node = self.child(node, step).unwrap_or_else(|| {
                let child = self.nodes.len();
                self.nodes.push(Node::default());
                let children = &mut self.nodes[node].children;
                let at = children.partition_point(|(name, _)| is_before(name, step));
                children.insert(at, (step.clone(), child));
                child
            });
        }
        *self.nodes[node].slot.get_or_insert_with(|| {
            self.slots += 1;
            self.slots - 1
        })
    }

    fn child(&self, node: usize, step: &str) -> Option<usize> {
        let children = &self.nodes[node].children;
        let at = children.partition_point(|(name, _)| is_before(name, step));
        children.get(at).filter(|(name, _)| **name == *step).map(|(_, child)| *child)
    }
}

/// Which members are business keys.
#[derive(Clone, Debug)]
pub(super) enum KeyFilter {
    Off,
    BuiltIn,
    Named(Vec<Glob>),
}

impl KeyFilter {
    fn takes(&self, name: &str) -> bool {
        let wanted = match self {
            Self::Off => false,
            // order_id, orderId and external_id are cases of the last two.
            Self::BuiltIn => name == "uuid" || name.ends_with("_id") || name.ends_with("Id"),
            Self::Named(patterns) => {
                patterns.iter().any(|pattern| pattern.matches(name.as_bytes()))
            }
        };
        wanted && name.len() <= MAX_KEY_NAME_BYTES && !is_excluded(name.as_bytes())
    }
}

/// What a body held.
#[derive(Clone, Debug, Default)]
pub(super) struct BodyFacts<'a> {
    /// The wanted values that are there, with their slots: few of the many that are looked for.
    found: Vec<(usize, Text<'a>)>,
    /// Business keys in the order of the body.
    pub(super) keys: Vec<(Text<'a>, Text<'a>)>,
    /// Keys beyond [`MAX_KEYS`].
    pub(super) keys_left_out: u32,
}

impl<'a> BodyFacts<'a> {
    /// Whether nothing that was wanted is there.
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The value in a slot, if it is one that can be an id.
    pub(super) fn get(&self, slot: Option<usize>) -> Option<&Text<'a>> {
        let slot = slot?;
        let (_, text) = self.found.iter().find(|(of, _)| *of == slot)?;
        is_id(text).then_some(text)
    }

    fn set(&mut self, slot: usize, text: Option<Text<'a>>) {
        self.found.retain(|(of, _)| *of != slot);
        self.found.extend(text.map(|text| (slot, text)));
    }
}

/// Walks the body. Nothing at all comes of one that is not valid JSON.
pub(super) fn walk<'a>(
    body: &'a [u8],
    wanted: &Wanted,
    keys: &KeyFilter,
    redact: &Redaction,
) -> BodyFacts<'a> {
    let mut walk = Walk { wanted, filter: keys, redact, facts: BodyFacts::default() };
    let mut json = serde_json::Deserializer::from_slice(body);
    let root =
        ValueSeed { walk: &mut walk, node: Some(0), level: 0, parent: Parent::None, key: None };
    let read = root.deserialize(&mut json).and_then(|()| json.end());
    match read {
        Ok(()) => walk.facts,
        Err(_) => BodyFacts::default(),
    }
}

struct Walk<'w, 'a> {
    wanted: &'w Wanted,
    filter: &'w KeyFilter,
    redact: &'w Redaction,
    facts: BodyFacts<'a>,
}

/// The step above a member, for redaction.
#[derive(Clone, Copy)]
enum Parent<'p> {
    None,
    Name(&'p str),
    Index(usize),
}

impl Walk<'_, '_> {
    fn is_redacted(&self, parent: Parent<'_>, name: &str) -> bool {
        if self.redact.is_empty() {
            return false;
        }
        match parent {
            Parent::None => self.redact.covers(&[name]),
            Parent::Name(parent) => self.redact.covers(&[parent, name]),
            Parent::Index(index) => self.redact.covers(&[&*index.to_string(), name]),
        }
    }
}

/// Reads one value that may be wanted itself, be a key, or hold such.
struct ValueSeed<'s, 'w, 'a> {
    walk: &'s mut Walk<'w, 'a>,
    /// Its node in the tree of wanted pointers.
    node: Option<usize>,
    /// How many objects and arrays it lies in, as far as keys are concerned: members of objects at
    /// levels 0 and 1 are candidates, at 2 nothing is.
    level: u8,
    parent: Parent<'s>,
    /// Its name, where it is a business key.
    key: Option<Cow<'a, str>>,
}

impl<'a> ValueSeed<'_, '_, 'a> {
    fn scalar(self, text: Text<'a>, may_be_key: bool) {
        if let Some(slot) = self.slot() {
            self.walk.facts.set(slot, Some(text.clone()));
        }
        let Some(name) = self.key.filter(|_| may_be_key) else { return };
        let in_bounds = text.len() <= MAX_KEY_CHARS * 4 && text.chars().count() <= MAX_KEY_CHARS;
        if !in_bounds || is_absent(&text) || !is_id(&text) {
            return;
        }
        let key = (Text::from(name), text);
        let facts = &mut self.walk.facts;
        if facts.keys.contains(&key) {
            return;
        }
        if facts.keys.len() < MAX_KEYS {
            facts.keys.push(key);
        } else {
            facts.keys_left_out += 1;
        }
    }

    fn slot(&self) -> Option<usize> {
        self.walk.wanted.nodes[self.node?].slot
    }

    /// Of a repeated name the last counts, whatever its value: as every parser has it.
    fn forget(&mut self) {
        if let Some(slot) = self.slot() {
            self.walk.facts.set(slot, None);
        }
    }

    fn is_wanted(&self) -> bool {
        self.key.is_some() || self.slot().is_some()
    }
}

impl<'a> DeserializeSeed<'a> for ValueSeed<'_, '_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for ValueSeed<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<(), E> {
        self.scalar(Text::Lent(text), true);
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if self.is_wanted() {
            self.scalar(Text::Owned(text.to_owned()), true);
        }
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        if self.is_wanted() {
            self.scalar(Text::Owned(number.to_string()), true);
        }
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        if self.is_wanted() {
            self.scalar(Text::Owned(number.to_string()), true);
        }
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.scalar(Text::Lent(if value { "true" } else { "false" }), false);
        Ok(())
    }

    fn visit_f64<E>(mut self, _: f64) -> Result<(), E> {
        self.forget();
        Ok(())
    }

    fn visit_unit<E>(mut self) -> Result<(), E> {
        self.forget();
        Ok(())
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.forget();
        let Self { walk, node, level, parent, .. } = self;
        let looks_for_keys = level < 2 && !matches!(walk.filter, KeyFilter::Off);
        while let Some(name) = map.next_key_seed(NameSeed)? {
            let child = node.and_then(|node| walk.wanted.child(node, &name));
            let redacted = looks_for_keys && walk.is_redacted(parent, &name);
            let is_key = looks_for_keys && !redacted && walk.filter.takes(&name);
            // Inside `session`, `card` and their like no name is innocent.
            let open = looks_for_keys && level == 0 && !redacted && !is_excluded(name.as_bytes());
            if child.is_none() && !is_key && !open {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let level = if open { level + 1 } else { 2 };
            map.next_value_seed(ValueSeed {
                walk: &mut *walk,
                node: child,
                level,
                parent: Parent::Name(&name),
                key: is_key.then(|| name.clone()),
            })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.forget();
        let Self { walk, node, level, .. } = self;
        let node = node.filter(|node| !walk.wanted.nodes[*node].children.is_empty());
        // An array counts as a level: objects in the outermost one are "one deeper".
        let open = level == 0 && !matches!(walk.filter, KeyFilter::Off);
        let mut index = 0;
        loop {
            let child = node.and_then(|node| walk.wanted.child(node, &index.to_string()));
            let more = if child.is_none() && !open {
                items.next_element::<IgnoredAny>()?.is_some()
            } else {
                let level = if open { 1 } else { 2 };
                let parent = Parent::Index(index);
                let seed = ValueSeed { walk: &mut *walk, node: child, level, parent, key: None };
                items.next_element_seed(seed)?.is_some()
            };
            if !more {
                return Ok(());
            }
            index += 1;
        }
    }
}

/// Reads the name of a member.
struct NameSeed;

impl<'a> DeserializeSeed<'a> for NameSeed {
    type Value = Cow<'a, str>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for NameSeed {
    type Value = Cow<'a, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'a str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

#[cfg(test)]
mod tests;
