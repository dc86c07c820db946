//! What is known of Kafka's topics and consumer groups: which group reads which topic, who is in it,
//! and how far it came. Made from `session`, `position` and `topology` rows and from deliveries.
//!
//! Like [`super::world`] it is never complete. A group counts for a message only if it was seen at
//! the topic before the message was published: one that begins later may begin behind it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use flowtap_record::{Kind, Micros, Outcome};
use serde_json::Value;

use super::row::{Broker, Row};
use super::world::{Consumer, Name};
use crate::progress::{Mark, Progress};

/// A service that joins under a new name each time leaves many members behind: from so many on those
/// that left are forgotten.
const MANY_MEMBERS: usize = 64;
/// Assignments kept of one member, newest.
const ASSIGNMENTS: usize = 16;

/// A group's partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// The cluster.
    pub broker: Broker,
    /// The group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
}

/// Topics and groups as far as they were seen.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    by_name: HashMap<Name, Group>,
    topics: HashMap<Name, Topic>,
    progress: HashMap<Slot, Progress>,
    /// When an agent's start ended.
    ended: HashMap<String, Micros>,
}

#[derive(Clone, Debug, Default)]
struct Group {
    members: Vec<Member>,
    topics: BTreeMap<String, Reads>,
}

/// When a group was seen at a topic.
#[derive(Clone, Copy, Debug)]
struct Reads {
    first: Micros,
    last: Micros,
    /// It committed there.
    commits: bool,
}

#[derive(Clone, Debug)]
struct Member {
    who: Consumer,
    id: Option<String>,
    /// Topics that it was seen at.
    topics: BTreeSet<String>,
    /// By time.
    assigned: Vec<(Micros, BTreeMap<String, Vec<i32>>)>,
}

#[derive(Clone, Debug, Default)]
struct Topic {
    /// When it was created or deleted last, and which.
    changed: Option<(Micros, bool)>,
    cleanup: Option<String>,
}

impl Groups {
    /// Learns from a row of a Kafka tap. Rows may come in any order.
    pub(super) fn learn(&mut self, row: &Row) {
        match (row.kind, row.what()) {
            (Kind::Topology, Some("topic")) => self.learn_topic(row),
            (Kind::Session, Some("member" | "assignment")) => self.learn_member(row),
            (Kind::Position, _) => {
                if let (Some(group), Some(topic), Some(partition), Some(offset)) = (
                    row.subscription.clone(),
                    row.destination.clone(),
                    row.partition,
                    row.log_offset,
                ) {
                    let mut progress = Progress::default();
                    progress.learn(Mark { at: row.at, offset, agent: row.agent.clone() });
                    let slot = Slot { broker: row.broker(), group, topic, partition };
                    self.learn_progress(slot, progress);
                }
            }
            _ => {}
        }
    }

    /// Learns how far a group came in a partition.
    pub fn learn_progress(&mut self, slot: Slot, progress: Progress) {
        if let Some(first) = progress.first {
            let group = self.by_name.entry(Name::new(&slot.broker, &slot.group)).or_default();
            group.seen(&slot.topic, first).commits = true;
            group.seen(&slot.topic, progress.last);
        }
        self.progress.entry(slot).or_default().merge(progress);
    }

    /// A record was handed to a member of a group.
    pub(super) fn learn_delivery(&mut self, delivery: &Row) {
        let (Some(group), Some(topic)) = (&delivery.subscription, &delivery.destination) else {
            return;
        };
        let group = self.by_name.entry(Name::new(&delivery.broker(), group)).or_default();
        group.seen(topic, delivery.at);
        group.member(delivery).topics.insert(topic.clone());
    }

    pub(super) fn learn_ends(&mut self, ended: &HashMap<String, Micros>) {
        self.ended.clone_from(ended);
    }

    /// When a member of a group ended: with its own word, or with its agent's start.
    pub(super) fn end_of(&self, member: &Consumer) -> Option<Micros> {
        member.closed.or_else(|| self.ended.get(&member.boot).copied())
    }

    fn learn_topic(&mut self, row: &Row) {
        let Some(name) = row.destination.as_deref() else { return };
        let topic = self.topics.entry(Name::new(&row.broker(), name)).or_default();
        if topic.changed.is_none_or(|(at, _)| at <= row.at) {
            topic.changed = Some((row.at, row.outcome == Some(Outcome::Declared)));
        }
        let arguments = row.details.get("arguments").or_else(|| row.details.get("config"));
        let policy = arguments.and_then(|it| it.get("cleanup.policy")).and_then(Value::as_str);
        if let Some(policy) = policy {
            topic.cleanup = Some(policy.to_owned());
        }
    }

    fn learn_member(&mut self, row: &Row) {
        let Some(name) = row.subscription.as_deref() else { return };
        let group = self.by_name.entry(Name::new(&row.broker(), name)).or_default();
        let assignment = assignment(row);
        let is_assignment = row.what() == Some("assignment");
        if row.outcome != Some(Outcome::Closed) {
            for topic in assignment.keys() {
                group.seen(topic, row.at);
            }
        }
        let member = group.member(row);
        if is_assignment {
            // Given up: nothing is left, unless it says so.
            let now =
                if row.outcome == Some(Outcome::Closed) { BTreeMap::new() } else { assignment };
            member.topics.extend(now.keys().cloned());
            let index = member.assigned.partition_point(|(at, _)| *at <= row.at);
            member.assigned.insert(index, (row.at, now));
            if member.assigned.len() > ASSIGNMENTS {
                member.assigned.remove(0);
            }
        } else if row.outcome == Some(Outcome::Closed) {
            member.who.closed = member.who.closed.max(Some(row.at));
        } else if member.who.closed.is_some_and(|closed| closed < row.at) {
            member.who.closed = None;
        }
    }

    /// Groups that read `topic`, as was seen before `since`, and did not leave it for good.
    pub(super) fn readers(&self, topic: &Name, since: Micros) -> BTreeSet<&str> {
        if self.topics.get(topic).and_then(|it| it.changed).is_some_and(|(_, there)| !there) {
            return BTreeSet::new();
        }
        let here = self.by_name.iter().filter(|(name, _)| name.broker == topic.broker);
        here.filter(|(_, group)| {
            let reads = group.topics.get(&topic.name);
            reads.is_some_and(|reads| reads.first <= since) && !self.left(group, &topic.name, topic)
        })
        .map(|(name, _)| name.name.as_str())
        .collect()
    }

    /// Whether a group does not read a topic any more.
    fn left(&self, group: &Group, topic: &str, name: &Name) -> bool {
        let Some(reads) = group.topics.get(topic) else { return true };
        let (mut alive, mut elsewhere) = (false, true);
        for member in group.members.iter().filter(|member| !self.is_over(&member.who)) {
            alive = true;
            let last = member.assigned.last();
            elsewhere &= last.is_some_and(|(at, to)| *at > reads.last && !to.contains_key(topic));
        }
        if alive {
            return elsewhere;
        }
        let gone: Vec<&Member> =
            group.members.iter().filter(|member| member.topics.contains(topic)).collect();
        if gone.is_empty() {
            return false;
        }
        // A group for a while: it never committed, or its service reads in another one now.
        let follows = |other: &Member| {
            other.topics.contains(topic)
                && !self.is_over(&other.who)
                && gone.iter().any(|gone| gone.who.service == other.who.service)
        };
        !reads.commits
            || self.by_name.iter().any(|(other, group)| {
                other.broker == name.broker && group.members.iter().any(follows)
            })
    }

    fn is_over(&self, member: &Consumer) -> bool {
        self.end_of(member).is_some()
    }

    /// Everybody who was seen to read a topic in a group.
    pub(super) fn members(&self, topic: &Name, group: &str) -> Vec<Consumer> {
        let group = self.by_name.get(&Name::new(&topic.broker, group));
        let members = group.into_iter().flat_map(|group| &group.members);
        members
            .filter(|member| member.topics.contains(&topic.name))
            .map(|member| member.who.clone())
            .collect()
    }

    /// Whether a group was seen to commit past an offset since it was delivered.
    pub(super) fn passed(&self, slot: &Slot, offset: i64, since: Micros, agent: &str) -> bool {
        let progress = self.progress.get(slot);
        progress.is_some_and(|progress| progress.beyond(offset, since, agent).is_some())
    }

    /// Where a group went from an offset that was written at `since`: a position beyond it, by a
    /// member that held the partition from before until then.
    pub(super) fn moved_on(&self, slot: &Slot, offset: i64, since: Micros) -> Option<&Mark> {
        let progress = self.progress.get(slot)?;
        let group = self.by_name.get(&Name::new(&slot.broker, &slot.group))?;
        if progress.first.is_none_or(|first| first > since) {
            return None;
        }
        let mark = progress.beyond(offset, since, "")?;
        let holds = |parts: &BTreeMap<String, Vec<i32>>| {
            parts.get(&slot.topic).is_some_and(|parts| parts.contains(&slot.partition))
        };
        let held = |member: &Member| {
            let before = member.assigned.iter().rev().find(|(at, _)| *at <= since);
            member.who.agent == mark.agent
                && before.is_some_and(|(_, parts)| holds(parts))
                && member
                    .assigned
                    .iter()
                    .filter(|(at, _)| (since..=mark.at).contains(at))
                    .all(|(_, parts)| holds(parts))
        };
        group.members.iter().any(held).then_some(mark)
    }

    /// Whether a record may be gone because a newer one of its key took its place: a topic that is
    /// compacted, or, with a key, of which nobody said that it is not.
    pub(super) fn may_be_compacted(&self, topic: &Name, key: Option<&str>) -> bool {
        match self.topics.get(topic).and_then(|topic| topic.cleanup.as_deref()) {
            Some(policy) => policy.contains("compact"),
            None => key.is_some(),
        }
    }
}

impl Group {
    fn seen(&mut self, topic: &str, at: Micros) -> &mut Reads {
        let new = Reads { first: at, last: at, commits: false };
        let reads = self.topics.entry(topic.to_owned()).or_insert(new);
        reads.first = reads.first.min(at);
        reads.last = reads.last.max(at);
        reads
    }

    /// The member that a row tells of.
    fn member(&mut self, row: &Row) -> &mut Member {
        let same = |it: &Member| it.who.boot == row.id.boot && it.id == row.consumer;
        let index = self.members.iter().position(same).unwrap_or_else(|| {
            if self.members.len() >= MANY_MEMBERS {
                self.members.retain(|it| it.who.agent != row.agent || it.who.closed.is_none());
            }
            self.members.push(Member {
                who: Consumer::new(row),
                id: row.consumer.clone(),
                topics: BTreeSet::new(),
                assigned: Vec::new(),
            });
            self.members.len() - 1
        });
        let member = &mut self.members[index];
        member.who.opened = member.who.opened.min(row.at);
        member
    }
}

/// `details.assignment`: partitions by topic.
fn assignment(row: &Row) -> BTreeMap<String, Vec<i32>> {
    let topics = row.details.get("assignment").and_then(Value::as_object);
    let partitions = |value: &Value| -> Vec<i32> {
        let numbers = value.as_array().into_iter().flatten().filter_map(Value::as_i64);
        numbers.filter_map(|number| i32::try_from(number).ok()).collect()
    };
    topics.into_iter().flatten().map(|(topic, to)| (topic.clone(), partitions(to))).collect()
}
