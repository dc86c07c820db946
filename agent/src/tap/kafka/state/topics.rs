//! The cluster as its answers describe it: its id, and topics by name and by id. Newer clients name
//! topics by id, and learn the id on another connection of the same tap, or of an earlier agent:
//! what is learned here is kept for the next start.

use std::collections::HashMap;
use std::sync::Arc;

use flowtap_record::{Kind, Outcome, escape_bytes};
use serde_json::json;

use super::context::{Context, Peer};
use crate::tap::kafka::wire::{Topic, TopicId, TopicRef, Topics};

/// Names that are kept although no broker has told of them.
const MAX_KNOWN: usize = 100_000;

/// What is known of the cluster.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) id: Option<Arc<str>>,
    /// The configuration has given it.
    named: bool,
    names: HashMap<TopicId, Arc<str>>,
    known: HashMap<Arc<str>, Known>,
    /// Ids learned since they were last taken.
    learned: Vec<(TopicId, Arc<str>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    id: Option<TopicId>,
    partitions: Option<i32>,
}

impl Cluster {
    /// With what an earlier agent has learned. A topic's id never belongs to another name.
    pub(crate) fn new(
        name: Option<&str>,
        topics: impl IntoIterator<Item = (TopicId, String)>,
    ) -> Self {
        let names = topics.into_iter().map(|(id, name)| (id, Arc::from(name))).collect();
        Self { id: name.map(Arc::from), named: name.is_some(), names, ..Self::default() }
    }

    /// The broker has said the cluster's id.
    pub(crate) fn is_called(&mut self, id: &Arc<str>) {
        if !self.named {
            self.id = Some(Arc::clone(id));
        }
    }

    /// Ids that are new since the last call.
    pub(crate) fn take_learned(&mut self) -> Vec<(TopicId, Arc<str>)> {
        std::mem::take(&mut self.learned)
    }

    /// What a topic is called of whose id no name is known.
    pub(crate) fn nameless(id: TopicId) -> String {
        format!("id:{id}")
    }

    /// Ids that have become known since there were so many of them.
    pub(crate) fn learned(&self, since: usize) -> &[(TopicId, Arc<str>)] {
        self.learned.get(since..).unwrap_or_default()
    }

    /// The topic's name as rows have it; its id where the name never passed.
    pub(crate) fn name(&mut self, topic: TopicRef<'_>) -> Arc<str> {
        match topic {
            TopicRef::Name(name) => {
                let name = escape_bytes(name);
                if let Some((known, _)) = self.known.get_key_value(name.as_ref()) {
                    return Arc::clone(known);
                }
                let name: Arc<str> = Arc::from(name);
                if self.known.len() >= MAX_KNOWN {
                    // Clients may name what no broker knows.
                    self.known.retain(|_, known| *known != NOTHING);
                }
                self.known.insert(Arc::clone(&name), Known { id: None, partitions: None });
                name
            }
            TopicRef::Id(id) => {
                self.names.get(&id).map_or_else(|| Arc::from(Self::nameless(id)), Arc::clone)
            }
        }
    }

    /// An answer to Metadata, CreateTopics or DescribeTopicPartitions. What is new of a topic
    /// becomes a row. Returns those that were made anew under the same name.
    pub(crate) fn told(
        &mut self,
        cx: &mut Context<'_>,
        peer: &Peer,
        told: &Topics<'_>,
    ) -> Vec<Arc<str>> {
        let mut anew = Vec::new();
        for topic in told.topics.iter().filter(|topic| topic.error == 0) {
            let Some(name) = topic.name else { continue };
            let name = self.name(TopicRef::Name(name));
            self.learn(topic.id, &name);
            let known = self.known.entry(Arc::clone(&name)).or_insert(NOTHING);
            let id = topic.id.or(known.id);
            let now = Known { id, partitions: topic.partitions.or(known.partitions) };
            let before = std::mem::replace(known, now);
            if now == before || now.partitions.is_none() {
                continue;
            }
            let made_anew = before.id.is_some() && before.id != now.id;
            if made_anew {
                row(cx, peer, &name, Outcome::Deleted, before);
                anew.push(Arc::clone(&name));
            }
            row(cx, peer, &name, Outcome::Declared, now);
        }
        anew
    }

    /// An answer to DeleteTopics. Returns the name of a topic that is deleted.
    pub(crate) fn deleted(
        &mut self,
        cx: &mut Context<'_>,
        peer: &Peer,
        topic: &Topic<'_>,
    ) -> Option<Arc<str>> {
        let name = match (topic.name, topic.id) {
            _ if topic.error != 0 => return None,
            (Some(name), _) => self.name(TopicRef::Name(name)),
            (None, Some(id)) => self.name(TopicRef::Id(id)),
            (None, None) => return None,
        };
        let known = self.known.remove(&name).unwrap_or(NOTHING);
        row(cx, peer, &name, Outcome::Deleted, known);
        Some(name)
    }

    fn learn(&mut self, id: Option<TopicId>, name: &Arc<str>) {
        let Some(id) = id else { return };
        if self.names.get(&id) != Some(name) {
            self.names.insert(id, Arc::clone(name));
            self.learned.push((id, Arc::clone(name)));
        }
    }
}

const NOTHING: Known = Known { id: None, partitions: None };

fn row(cx: &mut Context<'_>, peer: &Peer, name: &str, outcome: Outcome, known: Known) {
    let details = json!({
        "what": "topic",
        "id": known.id.map(|id| id.to_string()),
        "partitions": known.partitions,
    })
    .to_string();
    let mut row = cx.row(Kind::Topology, peer);
    row.outcome = Some(outcome);
    row.place.destination = Some(name);
    row.details = Some(&details);
    cx.record(&row);
}
