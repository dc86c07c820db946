//! Consumer groups: who is a member, who holds which partition, what was delivered to whom, and
//! what the group has committed. All protocols: JoinGroup to LeaveGroup, ConsumerGroupHeartbeat
//! (KIP-848), and as much of Kafka Streams' own (KIP-1071) as says who is alive. What happens to
//! members is in `members.rs`.
//!
//! A fetch names no group. It is the group's whose member holds the partition under the same client
//! (client id and software): `readers` keeps who that is.

mod members;

use std::collections::HashMap;
use std::sync::Arc;

use flowtap_record::{Kind, Micros, Outcome};
use serde_json::json;

use super::context::{Context, Peer, Unseen};
use super::open::{By, End, Open};
use crate::tap::kept::Kept;
pub(crate) use members::Joining;
use members::Member;

/// A topic's partition.
pub(crate) type Spot = (Arc<str>, i32);

/// What connections of one client have in common: client id and software.
pub(crate) type Client = Arc<str>;

/// Deliveries that may be open over all groups; beyond it they are forgotten, and a `gap` says so.
const MAX_OPEN: usize = if cfg!(test) { 1000 } else { 250_000 };
/// How long a member of the newer protocols may be silent: the broker's default.
pub(crate) const SESSION_US: i64 = 45_000_000;
/// How often what nobody uses any more is looked for.
const SWEEP_US: i64 = 60_000_000;
/// After how long a partition without open deliveries is forgotten, and a reader that is no member;
/// sooner when there are so many.
const IDLE_US: i64 = 86_400_000_000;
const MANY: usize = 50_000;
const IDLE_OF_MANY_US: i64 = 600_000_000;

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
    swept: Micros,
}

#[derive(Debug, Default)]
struct Group {
    members: HashMap<Arc<str>, Member>,
    /// Those that nobody has heard of for too long: the broker will not know them any more, unless
    /// it was away itself.
    silent: HashMap<Arc<str>, Member>,
    parts: HashMap<Spot, Part>,
}

#[derive(Debug, Default)]
struct Part {
    open: Open,
    /// Offsets below were delivered before.
    next: i64,
    committed: Option<i64>,
    /// Deliveries that found no room in `open`: how many, the first and the last offset.
    forgotten: Option<(i64, i64, i64)>,
    used: Micros,
}

#[derive(Clone, Debug)]
struct Reader {
    group: Arc<str>,
    member: Option<Arc<str>>,
    /// The offset that it should ask for next, where known.
    next: Option<i64>,
    used: Micros,
}

/// Whose fetch it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Whose {
    pub(crate) group: Option<Arc<str>>,
    pub(crate) member: Option<Arc<str>>,
    /// Several groups read this partition under one client id, and nothing tells them apart.
    pub(crate) ambiguous: bool,
}

/// Nobody holds the partition any more.
const REVOKED: End<'static> =
    End { outcome: Outcome::Abandoned, reason: Some("partition revoked"), broker_txn: None };
/// The member had left, and what it had asked for before came afterwards.
const TOO_LATE: End<'static> =
    End { outcome: Outcome::Abandoned, reason: Some("member has left"), broker_txn: None };
/// The records are gone, with all that was committed.
const DELETED: End<'static> =
    End { outcome: Outcome::Abandoned, reason: Some("topic deleted"), broker_txn: None };

impl Groups {
    // === reading ===

    /// Whose a fetch from `offset` is. Where several groups read the partition under one client id,
    /// it is that which would go on from this offset, else the one that the connection was seen to
    /// belong to (`before`). Where nobody reads it any more, it is whose the connection's `last` fetch
    /// was: a member may leave while an answer is on its way to it.
    pub(crate) fn whose(
        &self,
        client: &Client,
        spot: &Spot,
        offset: Option<i64>,
        before: Option<&Arc<str>>,
        last: Option<&Whose>,
    ) -> Whose {
        let Some(readers) = self.readers.get(&(Arc::clone(client), spot.clone())) else {
            return last.cloned().unwrap_or_default();
        };
        let has_members = readers.iter().any(|reader| reader.member.is_some());
        let counts = |reader: &&Reader| !has_members || reader.member.is_some();
        let expected = |reader: &&Reader| offset.is_some() && reader.next == offset;
        let by_offset = || only(readers.iter().filter(counts).filter(expected));
        let is_same = |reader: &&Reader| before == Some(&reader.group);
        let by_connection = || only(readers.iter().filter(counts).filter(is_same));
        match only(readers.iter().filter(counts)).or_else(by_offset).or_else(by_connection) {
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
        cx: &mut Context<'_>,
        group: &Arc<str>,
        spot: &Spot,
        records: impl Iterator<Item = (i64, Kept)>,
        by: &Arc<By>,
    ) {
        let mut room = MAX_OPEN.saturating_sub(self.open);
        let part = self.part(group, spot, cx.now);
        let before = part.open.len();
        let mut forgotten: Option<(i64, i64, i64)> = None;
        for (offset, kept) in records {
            part.next = part.next.max(offset.saturating_add(1));
            if room == 0 {
                let (count, first, _) = forgotten.unwrap_or((0, offset, offset));
                forgotten = Some((count + 1, first, offset));
                continue;
            }
            room -= 1;
            part.open.delivered(offset, kept, by);
        }
        let taken = part.open.len() - before;
        if let Some((count, first, last)) = forgotten {
            if let Some(more) = &mut part.forgotten {
                // Said with the commit past them, together.
                *more = (more.0 + count, more.1.min(first), more.2.max(last));
            } else {
                part.forgotten = Some((0, last.saturating_add(1), last));
                tell_forgotten(cx, &by.peer, group, spot, (count, first, last));
            }
        }
        self.open += taken;
        if let Some(member) = &by.member {
            self.end_if_gone(cx, group, spot, member);
        }
    }

    /// Nothing else would end what came after its member had left.
    fn end_if_gone(&mut self, cx: &mut Context<'_>, group: &Arc<str>, spot: &Spot, member: &str) {
        let Some(group) = self.by_name.get_mut(group) else { return };
        if group.members.contains_key(member) || group.silent.contains_key(member) {
            return;
        }
        let Some(part) = group.parts.get_mut(spot) else { return };
        let open = part.open.len();
        part.open.settle_of(cx, member, &TOO_LATE);
        self.open -= open - part.open.len();
    }

    /// The answer in which these records came never got to the client as a whole: they were not
    /// delivered to the group, and when they come again that will be the first time.
    pub(crate) fn undelivered(&mut self, group: &Arc<str>, spot: &Spot, first: i64, last: i64) {
        let part = self.by_name.get_mut(group).and_then(|group| group.parts.get_mut(spot));
        if let Some(part) = part
            && part.next == last.saturating_add(1)
        {
            part.next = first;
        }
    }

    /// All of a fetch answer's partition is read: where the reader should go on.
    pub(crate) fn read_until(
        &mut self,
        client: &Client,
        spot: &Spot,
        whose: &Whose,
        next: i64,
        now: Micros,
    ) {
        let Some(readers) = self.readers.get_mut(&(Arc::clone(client), spot.clone())) else {
            return;
        };
        let is_his = |reader: &&mut Reader| Some(&reader.group) == whose.group.as_ref();
        for reader in readers.iter_mut().filter(is_his) {
            (reader.next, reader.used) = (Some(next), now);
        }
    }

    fn part(&mut self, group: &Arc<str>, spot: &Spot, now: Micros) -> &mut Part {
        let group = self.by_name.entry(Arc::clone(group)).or_default();
        let part = group.parts.entry(spot.clone()).or_default();
        part.used = now;
        part
    }

    // === committing ===

    /// The group's offset, as the broker told it: where its reader will begin.
    pub(crate) fn starts_at(
        &mut self,
        client: &Client,
        group: &Arc<str>,
        spot: &Spot,
        offset: i64,
        now: Micros,
    ) {
        self.part(group, spot, now).committed.get_or_insert(offset);
        self.reads(client, group, None, spot, now);
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
        now: Micros,
    ) {
        let readers = self.readers.entry((Arc::clone(client), spot.clone())).or_default();
        match readers.iter_mut().find(|reader| reader.group == *group) {
            Some(reader) => {
                reader.used = now;
                if let Some(member) = member {
                    reader.member = Some(Arc::clone(member));
                }
            }
            None => readers.push(Reader {
                group: Arc::clone(group),
                member: member.cloned(),
                next: None,
                used: now,
            }),
        }
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
        let part = self.part(group, spot, cx.now);
        let before = part.committed.replace(*offset);
        let open = part.open.len();
        let end = End { outcome: Outcome::Committed, reason: None, broker_txn };
        part.open.settle_below(cx, *offset, &end);
        let settled = open - part.open.len();
        let forgotten = part
            .forgotten
            .take_if(|(count, first, _)| *first < *offset || (*count == 0 && *first == *offset));
        self.open -= settled;
        if let Some(forgotten) = forgotten.filter(|(count, ..)| *count > 0) {
            tell_forgotten(cx, peer, group, spot, forgotten);
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

    // === topics ===

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

    /// A topic was deleted, and perhaps made anew under the same name: offsets begin again, and
    /// what was delivered of the old one can't be committed any more.
    pub(crate) fn topic_is_gone(&mut self, cx: &mut Context<'_>, name: &str) {
        for group in self.by_name.values_mut() {
            let gone: Vec<_> = group.parts.extract_if(|spot, _| *spot.0 == *name).collect();
            for (_, mut part) in gone {
                self.open -= part.open.len();
                part.open.settle_all(cx, &DELETED);
            }
        }
        for (_, readers) in self.readers.iter_mut().filter(|((_, spot), _)| *spot.0 == *name) {
            for reader in readers {
                reader.next = None;
            }
        }
    }

    /// Lets time pass: members that are silent for too long are expelled, what nobody uses is
    /// forgotten.
    pub(crate) fn tick(&mut self, cx: &mut Context<'_>) {
        self.expel(cx);
        if cx.now.since(self.swept) >= SWEEP_US {
            self.swept = cx.now;
            self.sweep(cx.now);
        }
    }

    fn sweep(&mut self, now: Micros) {
        let parts: usize = self.by_name.values().map(|group| group.parts.len()).sum();
        let idle = if parts.max(self.readers.len()) > MANY { IDLE_OF_MANY_US } else { IDLE_US };
        for group in self.by_name.values_mut() {
            group.parts.retain(|_, part| !part.open.is_empty() || now.since(part.used) < idle);
        }
        self.by_name.retain(|_, group| {
            !(group.members.is_empty() && group.silent.is_empty() && group.parts.is_empty())
        });
        self.readers.retain(|_, readers| {
            readers.retain(|reader| reader.member.is_some() || now.since(reader.used) < idle);
            !readers.is_empty()
        });
    }
}

#[cfg(test)]
impl Groups {
    /// Groups, partitions of them, and who reads.
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        let parts = self.by_name.values().map(|group| group.parts.len()).sum();
        (self.by_name.len(), parts, self.readers.len())
    }
}

fn tell_forgotten(
    cx: &mut Context<'_>,
    peer: &Peer,
    group: &str,
    spot: &Spot,
    (count, first, last): (i64, i64, i64),
) {
    let details = json!({"first_offset": first, "last_offset": last});
    let mut gap = Unseen::new("settle_forgotten", details);
    (gap.topic, gap.partition) = (Some(spot.0.as_ref()), Some(spot.1));
    (gap.group, gap.count) = (Some(group), Some(count));
    cx.gap(peer, &gap);
}

/// The only one, if there is just one.
fn only<'r>(mut found: impl Iterator<Item = &'r Reader>) -> Option<&'r Reader> {
    let first = found.next()?;
    if found.next().is_none() { Some(first) } else { None }
}
