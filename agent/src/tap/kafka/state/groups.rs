//! Consumer groups: who is a member, who holds which partition, what was delivered to whom, and
//! what the group has committed. Both protocols: JoinGroup to LeaveGroup, and
//! ConsumerGroupHeartbeat (KIP-848).
//!
//! A fetch names no group. It is the group's whose member holds the partition under the same client
//! (client id and software): `readers` keeps who that is.

use std::collections::HashMap;
use std::sync::Arc;

use flowtap_record::{Kind, Micros, Outcome};
use serde_json::json;

use super::context::{Context, Peer, Unseen};
use super::open::{By, End, Open};
use crate::tap::kept::Kept;

/// A topic's partition.
pub(crate) type Spot = (Arc<str>, i32);

/// What connections of one client have in common: client id and software.
pub(crate) type Client = Arc<str>;

/// Deliveries that may be open over all groups; beyond it they are forgotten, and a `gap` says so.
const MAX_OPEN: usize = 250_000;
/// How long a member of the newer protocol may be silent: the broker's default.
pub(crate) const SESSION_US: i64 = 45_000_000;
/// Silent members that a group keeps in mind.
const MAX_SILENT: usize = 1000;
/// The generation of a member that joined before the agent was started.
const UNKNOWN: i32 = i32::MIN;
/// Added to a session's timeout before a silent member counts as expelled.
const GRACE_US: i64 = 2_000_000;

/// An offset that a group has committed, or will with a transaction.
#[derive(Clone, Debug)]
pub(crate) struct Committed {
    pub(crate) group: Arc<str>,
    /// `None` for a consumer that is no member.
    pub(crate) member: Option<Arc<str>>,
    pub(crate) spot: Spot,
    pub(crate) offset: i64,
}

/// All groups that the tap has seen.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    by_name: HashMap<Arc<str>, Group>,
    readers: HashMap<(Client, Spot), Vec<Reader>>,
    open: usize,
}

#[derive(Debug, Default)]
struct Group {
    members: HashMap<Arc<str>, Member>,
    /// Those that nobody has heard of for too long: the broker will not know them any more, unless
    /// it was away itself.
    silent: HashMap<Arc<str>, Member>,
    parts: HashMap<Spot, Part>,
}

#[derive(Debug)]
pub(crate) struct Member {
    client: Client,
    peer: Arc<Peer>,
    timeout_us: i64,
    last_seen: Micros,
    assignment: Vec<Spot>,
    generation: i32,
    /// Its partitions are named by the client library's own protocol, not by a custom one.
    consumer: bool,
}

#[derive(Debug, Default)]
struct Part {
    open: Open,
    /// Offsets below were delivered before.
    next: i64,
    committed: Option<i64>,
    /// Deliveries that found no room in `open`: how many, the first and the last offset.
    forgotten: Option<(i64, i64, i64)>,
}

#[derive(Clone, Debug)]
struct Reader {
    group: Arc<str>,
    member: Option<Arc<str>>,
    /// The offset that it should ask for next, where known.
    next: Option<i64>,
}

/// Whose fetch it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Whose {
    pub(crate) group: Option<Arc<str>>,
    pub(crate) member: Option<Arc<str>>,
    /// Several groups read this partition under one client id, and nothing tells them apart.
    pub(crate) ambiguous: bool,
}

/// A member as its join says.
#[derive(Clone, Debug)]
pub(crate) struct Joining {
    pub(crate) client: Client,
    pub(crate) peer: Arc<Peer>,
    pub(crate) group: Arc<str>,
    pub(crate) timeout_us: i64,
    pub(crate) consumer: bool,
    /// What it still holds while it joins.
    pub(crate) owned: Vec<Spot>,
    pub(crate) instance: Option<Arc<str>>,
}

impl Groups {
    // === reading ===

    /// Whose a fetch from `offset` is.
    pub(crate) fn whose(&self, client: &Client, spot: &Spot, offset: Option<i64>) -> Whose {
        let Some(readers) = self.readers.get(&(Arc::clone(client), spot.clone())) else {
            return Whose::default();
        };
        let members = readers.iter().filter(|reader| reader.member.is_some()).count();
        let counts = |reader: &&Reader| members == 0 || reader.member.is_some();
        let expected = |reader: &&Reader| offset.is_some() && reader.next == offset;
        let by_offset = || only(readers.iter().filter(counts).filter(expected));
        match only(readers.iter().filter(counts)).or_else(by_offset) {
            Some(reader) => Whose {
                group: Some(Arc::clone(&reader.group)),
                member: reader.member.clone(),
                ambiguous: false,
            },
            None => Whose { ambiguous: true, ..Whose::default() },
        }
    }

    /// Offsets below this were delivered to the group before, as far as the tap has seen it.
    pub(crate) fn delivered_until(&self, group: &Arc<str>, spot: &Spot) -> i64 {
        let part = self.by_name.get(group).and_then(|group| group.parts.get(spot));
        part.map_or(0, |part| part.next)
    }

    /// Records were delivered to a group; they are open until the group commits past them.
    pub(crate) fn delivered(
        &mut self,
        group: &Arc<str>,
        spot: &Spot,
        records: impl Iterator<Item = (i64, Kept)>,
        by: &Arc<By>,
    ) {
        let mut room = MAX_OPEN.saturating_sub(self.open);
        let part = self.part(group, spot);
        let before = part.open.len();
        for (offset, kept) in records {
            part.next = part.next.max(offset + 1);
            if room == 0 {
                let (count, first, _) = part.forgotten.unwrap_or((0, offset, offset));
                part.forgotten = Some((count + 1, first, offset));
                continue;
            }
            room -= 1;
            part.open.delivered(offset, kept, by);
        }
        let taken = part.open.len() - before;
        self.open += taken;
    }

    /// All of a fetch answer's partition is read: where the reader should go on.
    pub(crate) fn read_until(&mut self, client: &Client, spot: &Spot, whose: &Whose, next: i64) {
        let Some(readers) = self.readers.get_mut(&(Arc::clone(client), spot.clone())) else {
            return;
        };
        let is_his = |reader: &&mut Reader| Some(&reader.group) == whose.group.as_ref();
        readers.iter_mut().filter(is_his).for_each(|reader| reader.next = Some(next));
    }

    fn part(&mut self, group: &Arc<str>, spot: &Spot) -> &mut Part {
        let group = self.by_name.entry(Arc::clone(group)).or_default();
        group.parts.entry(spot.clone()).or_default()
    }

    // === committing ===

    /// The group's offset, as the broker told it: where its reader will begin.
    pub(crate) fn starts_at(
        &mut self,
        client: &Client,
        group: &Arc<str>,
        spot: &Spot,
        offset: i64,
    ) {
        self.part(group, spot).committed.get_or_insert(offset);
        self.reads(client, group, None, spot);
        if let Some(readers) = self.readers.get_mut(&(Arc::clone(client), spot.clone())) {
            let of_group = |reader: &&mut Reader| reader.group == *group;
            readers.iter_mut().filter(of_group).for_each(|reader| reader.next = Some(offset));
        }
    }

    /// A client reads a partition for a group. One that is a member stands above one that is not.
    pub(crate) fn reads(
        &mut self,
        client: &Client,
        group: &Arc<str>,
        member: Option<&Arc<str>>,
        spot: &Spot,
    ) {
        let readers = self.readers.entry((Arc::clone(client), spot.clone())).or_default();
        let same = readers.iter_mut().find(|reader| reader.group == *group);
        match (same, member) {
            (Some(reader), Some(member)) => reader.member = Some(Arc::clone(member)),
            (Some(_), None) => {}
            (None, _) => readers.push(Reader {
                group: Arc::clone(group),
                member: member.cloned(),
                next: None,
            }),
        }
    }

    /// The broker has taken a committed offset: what was delivered below it is settled.
    pub(crate) fn committed(
        &mut self,
        cx: &mut Context<'_>,
        peer: &Peer,
        commit: &Committed,
        broker_txn: Option<&str>,
    ) {
        let Committed { group, member, spot, offset } = commit;
        self.seen(group, member.as_ref(), cx.now);
        let part = self.part(group, spot);
        let before = part.committed.replace(*offset);
        let open = part.open.len();
        let end = End { outcome: Outcome::Committed, reason: None, broker_txn };
        part.open.settle_below(cx, *offset, &end);
        let settled = open - part.open.len();
        let forgotten = part.forgotten.take_if(|(_, first, _)| *first < *offset);
        self.open -= settled;
        if let Some((count, first, last)) = forgotten {
            let details = json!({"first_offset": first, "last_offset": last});
            let mut gap = Unseen::new("settle_forgotten", details);
            (gap.topic, gap.partition) = (Some(spot.0.as_ref()), Some(spot.1));
            (gap.group, gap.count) = (Some(group.as_ref()), Some(count));
            cx.gap(peer, &gap);
        }
        if before != Some(*offset) {
            let details = before.map(|before| json!({"from": before}).to_string());
            let mut row = cx.row(Kind::Position, peer);
            row.place.subscription = Some(group);
            row.place.destination = Some(&spot.0);
            row.place.partition = Some(spot.1);
            row.place.log_offset = Some(*offset);
            row.who.consumer = member.as_deref();
            row.session.broker_txn = broker_txn;
            row.details = details.as_deref();
            cx.record(&row);
        }
    }

    // === members ===

    /// The broker has heard of a member.
    pub(crate) fn seen(&mut self, group: &Arc<str>, member: Option<&Arc<str>>, now: Micros) {
        let Some(member) = member else { return };
        let Some(entry) = self.by_name.get_mut(group) else { return };
        if let Some(entry) = entry.members.get_mut(member) {
            entry.last_seen = now;
        } else if let Some(back) = entry.silent.remove(member) {
            // Nobody expelled it: the broker was away as well.
            let held = |spot: &Spot| entry.members.values().any(|it| it.assignment.contains(spot));
            let assignment: Vec<_> =
                back.assignment.iter().filter(|spot| !held(spot)).cloned().collect();
            let client = Arc::clone(&back.client);
            let back = Member { last_seen: now, assignment: assignment.clone(), ..back };
            entry.members.insert(Arc::clone(member), back);
            for spot in &assignment {
                self.reads(&client, group, Some(member), spot);
            }
        }
    }

    /// The broker has taken a commit of a member. One that joined before the agent was started is
    /// known by its commits alone: it reads what it commits.
    pub(crate) fn commits(
        &mut self,
        client: &Client,
        peer: &Arc<Peer>,
        commit: &Committed,
        now: Micros,
    ) {
        let Committed { group, member: Some(member), spot, .. } = commit else {
            self.reads(client, &commit.group, None, &commit.spot);
            return;
        };
        self.seen(group, Some(member), now);
        let entry = self.by_name.entry(Arc::clone(group)).or_default();
        let held = entry.members.iter().any(|(_, it)| it.assignment.contains(spot));
        let adopted = entry.members.entry(Arc::clone(member)).or_insert_with(|| Member {
            client: Arc::clone(client),
            peer: Arc::clone(peer),
            timeout_us: SESSION_US,
            last_seen: now,
            assignment: Vec::new(),
            generation: UNKNOWN,
            consumer: true,
        });
        if !held && adopted.generation == UNKNOWN {
            adopted.assignment.push(spot.clone());
            let client = Arc::clone(&adopted.client);
            self.reads(&client, group, Some(member), spot);
        }
    }

    /// A member has joined, or joined again for the next generation.
    pub(crate) fn joined(
        &mut self,
        cx: &mut Context<'_>,
        joining: &Joining,
        member: &Arc<str>,
        generation: i32,
    ) {
        let group = self.by_name.entry(Arc::clone(&joining.group)).or_default();
        let now = cx.now;
        group.silent.remove(member);
        let is_new = !group.members.contains_key(member);
        let entry = group.members.entry(Arc::clone(member)).or_insert_with(|| Member {
            client: Arc::clone(&joining.client),
            peer: Arc::clone(&joining.peer),
            timeout_us: joining.timeout_us,
            last_seen: now,
            assignment: Vec::new(),
            generation,
            consumer: joining.consumer,
        });
        entry.last_seen = now;
        entry.generation = generation;
        entry.peer = Arc::clone(&joining.peer);
        if is_new {
            let details = json!({
                "what": "member",
                "generation": generation,
                "instance": joining.instance.as_deref(),
            });
            member_row(cx, &joining.peer, &joining.group, member, Outcome::Opened, None, &details);
        }
        self.holds_only(cx, &joining.group, member, &joining.owned);
    }

    /// A member says what it holds: what it had of other partitions and did not commit goes to
    /// somebody else.
    pub(crate) fn holds_only(
        &mut self,
        cx: &mut Context<'_>,
        group: &Arc<str>,
        member: &Arc<str>,
        owned: &[Spot],
    ) {
        let Some(parts) = self.by_name.get_mut(group).map(|group| &mut group.parts) else { return };
        let end = End {
            outcome: Outcome::Abandoned,
            reason: Some("partition revoked"),
            broker_txn: None,
        };
        for (_, part) in parts.iter_mut().filter(|(spot, _)| !owned.contains(spot)) {
            let open = part.open.len();
            part.open.settle_of(cx, member, &end);
            self.open -= open - part.open.len();
        }
    }

    /// Whether the member's assignment is in the form that consumers use.
    pub(crate) fn is_consumer(&self, group: &Arc<str>, member: &Arc<str>) -> bool {
        let group = self.by_name.get(group);
        group.and_then(|group| group.members.get(member)).is_some_and(|member| member.consumer)
    }

    /// A member was given its partitions.
    pub(crate) fn assigned(
        &mut self,
        cx: &mut Context<'_>,
        group: &Arc<str>,
        member: &Arc<str>,
        generation: i32,
        spots: &[Spot],
    ) {
        let Some(entry) =
            self.by_name.get_mut(group).and_then(|group| group.members.get_mut(member))
        else {
            return;
        };
        entry.last_seen = cx.now;
        entry.generation = generation;
        entry.assignment = spots.to_vec();
        let (client, peer) = (Arc::clone(&entry.client), Arc::clone(&entry.peer));
        // What it was not given again it may still be fetching: that is its own until somebody
        // else has the partition.
        for spot in spots {
            self.taken_over(cx, group, member, spot);
            self.reads(&client, group, Some(member), spot);
        }
        let mut assignment = serde_json::Map::new();
        for (topic, partition) in spots {
            let partitions = assignment.entry(topic.as_ref()).or_insert_with(|| json!([]));
            if let Some(partitions) = partitions.as_array_mut() {
                partitions.push((*partition).into());
            }
        }
        let details = json!({
            "what": "assignment",
            "generation": generation,
            "assignment": assignment,
        });
        member_row(cx, &peer, group, member, Outcome::Opened, None, &details);
    }

    /// A topic that was known by its id alone has a name now.
    pub(crate) fn topic_is_called(&mut self, before: &str, name: &Arc<str>) {
        let rename = |spot: &mut Spot| {
            if *spot.0 == *before {
                spot.0 = Arc::clone(name);
            }
        };
        for group in self.by_name.values_mut() {
            group.members.values_mut().for_each(|it| it.assignment.iter_mut().for_each(rename));
            let is_meant = |spot: &Spot, _: &mut Part| *spot.0 == *before;
            let parts: Vec<_> = group.parts.extract_if(is_meant).collect();
            for (mut spot, part) in parts {
                rename(&mut spot);
                group.parts.entry(spot).or_insert(part);
            }
        }
        let is_meant = |(_, spot): &(Client, Spot), _: &mut Vec<Reader>| *spot.0 == *before;
        let readers: Vec<_> = self.readers.extract_if(is_meant).collect();
        for ((client, mut spot), all) in readers {
            rename(&mut spot);
            self.readers.entry((client, spot)).or_default().extend(all);
        }
    }

    /// A partition that other members seemed to hold: they have lost it.
    fn taken_over(&mut self, cx: &mut Context<'_>, group: &Arc<str>, by: &Arc<str>, spot: &Spot) {
        let Some(members) = self.by_name.get_mut(group).map(|group| &mut group.members) else {
            return;
        };
        let mut others = Vec::new();
        for (member, entry) in members.iter_mut().filter(|(member, _)| *member != by) {
            entry.assignment.retain(|held| held != spot);
            others.push((Arc::clone(member), Arc::clone(&entry.client)));
        }
        for (member, client) in others {
            self.reads_no_more(&client, group, &member, spot);
        }
        let end = End {
            outcome: Outcome::Abandoned,
            reason: Some("partition revoked"),
            broker_txn: None,
        };
        let Some(part) = self.by_name.get_mut(group).and_then(|group| group.parts.get_mut(spot))
        else {
            return;
        };
        let open = part.open.len();
        part.open.settle_of_others(cx, by, &end);
        self.open -= open - part.open.len();
    }

    fn reads_no_more(&mut self, client: &Client, group: &Arc<str>, member: &Arc<str>, spot: &Spot) {
        let key = (Arc::clone(client), spot.clone());
        if let Some(readers) = self.readers.get_mut(&key) {
            let his =
                |reader: &Reader| reader.group == *group && reader.member.as_ref() == Some(member);
            readers.retain(|reader| !his(reader));
            if readers.is_empty() {
                self.readers.remove(&key);
            }
        }
    }

    /// A member has left, or the broker does not know it any more.
    pub(crate) fn gone(
        &mut self,
        cx: &mut Context<'_>,
        group: &Arc<str>,
        member: &Arc<str>,
        reason: &'static str,
    ) -> Option<Member> {
        let of = self.by_name.get_mut(group)?;
        of.silent.remove(member);
        let entry = of.members.remove(member)?;
        self.readers.retain(|_, readers| {
            readers
                .retain(|reader| reader.group != *group || reader.member.as_ref() != Some(member));
            !readers.is_empty()
        });
        if let Some(group) = self.by_name.get_mut(group) {
            let end = End { outcome: Outcome::Abandoned, reason: Some(reason), broker_txn: None };
            for part in group.parts.values_mut().filter(|part| !part.open.is_empty()) {
                let open = part.open.len();
                part.open.settle_of(cx, member, &end);
                self.open -= open - part.open.len();
            }
        }
        let generation = Some(entry.generation).filter(|generation| *generation != UNKNOWN);
        let details = json!({"what": "member", "generation": generation});
        member_row(cx, &entry.peer, group, member, Outcome::Closed, Some(reason), &details);
        Some(entry)
    }

    /// Members that have been silent for longer than their session lasts are expelled by now.
    pub(crate) fn tick(&mut self, cx: &mut Context<'_>) {
        let mut expired = Vec::new();
        for (name, group) in &self.by_name {
            for (member, entry) in &group.members {
                if cx.now.since(entry.last_seen) > entry.timeout_us + GRACE_US {
                    expired.push((Arc::clone(name), Arc::clone(member)));
                }
            }
        }
        for (group, member) in expired {
            let entry = self.gone(cx, &group, &member, "member expelled");
            if let (Some(group), Some(entry)) = (self.by_name.get_mut(&group), entry) {
                if group.silent.len() == MAX_SILENT {
                    group.silent.clear();
                }
                group.silent.insert(member, entry);
            }
        }
    }
}

/// The only one, if there is just one.
fn only<'r>(mut found: impl Iterator<Item = &'r Reader>) -> Option<&'r Reader> {
    let first = found.next()?;
    if found.next().is_none() { Some(first) } else { None }
}

fn member_row(
    cx: &mut Context<'_>,
    peer: &Peer,
    group: &str,
    member: &str,
    outcome: Outcome,
    reason: Option<&str>,
    details: &serde_json::Value,
) {
    let details = details.to_string();
    let mut row = cx.row(Kind::Session, peer);
    row.outcome = Some(outcome);
    row.reason = reason;
    row.details = Some(&details);
    row.place.subscription = Some(group);
    row.who.consumer = Some(member);
    cx.record(&row);
}
