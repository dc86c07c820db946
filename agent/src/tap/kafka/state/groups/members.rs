//! Members of groups: they join, are given partitions, are heard of, leave or are expelled. What a
//! member has open ends with its membership or with its partition.

use std::sync::Arc;

use flowtap_record::{Kind, Micros, Outcome};
use serde_json::json;

use super::{Client, Committed, Groups, REVOKED, SESSION_US, Spot};
use crate::tap::kafka::state::context::{Context, Peer};
use crate::tap::kafka::state::open::End;

/// Silent members that a group keeps in mind.
const MAX_SILENT: usize = 1000;
/// The generation of a member that joined before the agent was started.
const UNKNOWN: i32 = i32::MIN;
/// Added to a session's timeout before a silent member counts as expelled.
const GRACE_US: i64 = 2_000_000;

#[derive(Debug)]
pub(super) struct Member {
    client: Client,
    peer: Arc<Peer>,
    timeout_us: i64,
    /// How long the others may take to join, while this one waits for them.
    rebalance_us: i64,
    last_seen: Micros,
    pub(super) assignment: Vec<Spot>,
    generation: i32,
    /// Its partitions are named by the client library's own protocol, not by a custom one.
    consumer: bool,
    /// Its static id.
    instance: Option<Arc<str>>,
    /// JoinGroup and SyncGroup requests that wait for an answer: no client sends heartbeats
    /// meanwhile, and the broker wants none.
    waiting: u32,
}

/// A member as its join says.
#[derive(Clone, Debug)]
pub(crate) struct Joining {
    pub(crate) client: Client,
    pub(crate) peer: Arc<Peer>,
    pub(crate) group: Arc<str>,
    /// Empty for one that is new.
    pub(crate) member: Arc<str>,
    pub(crate) timeout_us: i64,
    pub(crate) rebalance_us: i64,
    pub(crate) consumer: bool,
    /// What it still holds while it joins.
    pub(crate) owned: Vec<Spot>,
    pub(crate) instance: Option<Arc<str>>,
}

impl Groups {
    fn member(&mut self, group: &Arc<str>, member: &Arc<str>) -> Option<&mut Member> {
        self.by_name.get_mut(group)?.members.get_mut(member)
    }

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
            let back =
                Member { last_seen: now, assignment: assignment.clone(), waiting: 0, ..back };
            entry.members.insert(Arc::clone(member), back);
            for spot in &assignment {
                self.reads(&client, group, Some(member), spot, now);
            }
        }
    }

    /// The broker has answered a member. One that joined before the agent was started is known by
    /// that: which client it is; what it reads is known when it commits.
    pub(crate) fn alive(
        &mut self,
        client: &Client,
        peer: &Arc<Peer>,
        (group, member): (&Arc<str>, &Arc<str>),
        now: Micros,
    ) {
        self.seen(group, Some(member), now);
        let entry = self.by_name.entry(Arc::clone(group)).or_default();
        entry.members.entry(Arc::clone(member)).or_insert_with(|| Member {
            client: Arc::clone(client),
            peer: Arc::clone(peer),
            timeout_us: SESSION_US,
            rebalance_us: SESSION_US,
            last_seen: now,
            assignment: Vec::new(),
            generation: UNKNOWN,
            consumer: true,
            instance: None,
            waiting: 0,
        });
    }

    /// The broker has taken a commit of a member. One that joined before the agent was started
    /// reads what it commits.
    pub(crate) fn commits(
        &mut self,
        client: &Client,
        peer: &Arc<Peer>,
        commit: &Committed,
        now: Micros,
    ) {
        match &commit.member {
            Some(member) => {
                self.alive(client, peer, (&commit.group, member), now);
                self.takes_up(commit, now);
            }
            None => self.reads(client, &commit.group, None, &commit.spot, now),
        }
    }

    /// The same of a commit in a transaction, which comes by the producer's connection: it says
    /// nothing of the member's client.
    pub(crate) fn commits_in_transaction(&mut self, commit: &Committed, now: Micros) {
        self.seen(&commit.group, commit.member.as_ref(), now);
        self.takes_up(commit, now);
    }

    fn takes_up(&mut self, commit: &Committed, now: Micros) {
        let Committed { group, member: Some(member), spot, .. } = commit else { return };
        let Some(of) = self.by_name.get_mut(group) else { return };
        let held = of.members.values().any(|it| it.assignment.contains(spot));
        let Some(entry) = of.members.get_mut(member) else { return };
        if !held && entry.generation == UNKNOWN {
            entry.assignment.push(spot.clone());
            let client = Arc::clone(&entry.client);
            self.reads(&client, group, Some(member), spot, now);
        }
    }

    /// A member has asked to join or for its partitions, and waits for the others.
    pub(crate) fn waits(&mut self, group: &Arc<str>, member: &Arc<str>) {
        if let Some(member) = self.member(group, member) {
            member.waiting += 1;
        }
    }

    /// It does not wait any more: its session begins to run.
    pub(crate) fn waits_no_more(&mut self, group: &Arc<str>, member: &Arc<str>, now: Micros) {
        if let Some(member) = self.member(group, member)
            && member.waiting > 0
        {
            member.waiting -= 1;
            member.last_seen = now;
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
        self.replaced(cx, joining, member);
        let group = self.by_name.entry(Arc::clone(&joining.group)).or_default();
        group.silent.remove(member);
        let before = group.members.remove(member);
        let is_new = before.as_ref().is_none_or(|before| before.generation == UNKNOWN);
        let (assignment, waiting) =
            before.map_or((Vec::new(), 0), |before| (before.assignment, before.waiting));
        let entry = Member {
            client: Arc::clone(&joining.client),
            peer: Arc::clone(&joining.peer),
            timeout_us: joining.timeout_us,
            rebalance_us: joining.rebalance_us,
            last_seen: cx.now,
            assignment,
            generation,
            consumer: joining.consumer,
            instance: joining.instance.clone(),
            waiting,
        };
        group.members.insert(Arc::clone(member), entry);
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

    /// A static member that joins with a new id takes the place of the old one (KIP-345).
    fn replaced(&mut self, cx: &mut Context<'_>, joining: &Joining, by: &Arc<str>) {
        let Some(instance) = &joining.instance else { return };
        let before = self.instance(&joining.group, instance).filter(|before| before != by);
        if let Some(before) = before {
            self.gone(cx, &joining.group, &before, "member replaced");
        }
    }

    /// The member that has a static id.
    pub(crate) fn instance(&self, group: &Arc<str>, instance: &str) -> Option<Arc<str>> {
        let mut members = self.by_name.get(group)?.members.iter();
        let found = members.find(|(_, entry)| entry.instance.as_deref() == Some(instance));
        found.map(|(member, _)| Arc::clone(member))
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
        for (_, part) in parts.iter_mut().filter(|(spot, _)| !owned.contains(spot)) {
            let open = part.open.len();
            part.open.settle_of(cx, member, &REVOKED);
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
        let now = cx.now;
        let Some(entry) = self.member(group, member) else { return };
        entry.last_seen = now;
        entry.generation = generation;
        entry.assignment = spots.to_vec();
        let (client, peer) = (Arc::clone(&entry.client), Arc::clone(&entry.peer));
        // What it was not given again it may still be fetching: that is its own until somebody
        // else has the partition.
        for spot in spots {
            self.taken_over(cx, group, member, spot);
            self.reads(&client, group, Some(member), spot, now);
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
        let Some(part) = self.by_name.get_mut(group).and_then(|group| group.parts.get_mut(spot))
        else {
            return;
        };
        let open = part.open.len();
        part.open.settle_of_others(cx, by, &REVOKED);
        self.open -= open - part.open.len();
    }

    /// A member has left, or the broker does not know it any more.
    pub(crate) fn gone(
        &mut self,
        cx: &mut Context<'_>,
        group: &Arc<str>,
        member: &Arc<str>,
        reason: &'static str,
    ) {
        self.ended(cx, group, member, reason);
    }

    fn ended(
        &mut self,
        cx: &mut Context<'_>,
        group: &Arc<str>,
        member: &Arc<str>,
        reason: &'static str,
    ) -> Option<Member> {
        let of = self.by_name.get_mut(group)?;
        of.silent.remove(member);
        let entry = of.members.remove(member)?;
        let end = End { outcome: Outcome::Abandoned, reason: Some(reason), broker_txn: None };
        for part in of.parts.values_mut().filter(|part| !part.open.is_empty()) {
            let open = part.open.len();
            part.open.settle_of(cx, member, &end);
            self.open -= open - part.open.len();
        }
        self.readers.retain(|_, readers| {
            readers
                .retain(|reader| reader.group != *group || reader.member.as_ref() != Some(member));
            !readers.is_empty()
        });
        let generation = Some(entry.generation).filter(|generation| *generation != UNKNOWN);
        let details = json!({"what": "member", "generation": generation});
        member_row(cx, &entry.peer, group, member, Outcome::Closed, Some(reason), &details);
        Some(entry)
    }

    /// Members that have been silent for longer than their session lasts are expelled by now. One
    /// that waits for a rebalance is not, as long as that may take.
    pub(super) fn expel(&mut self, cx: &mut Context<'_>) {
        let mut expired = Vec::new();
        for (name, group) in &self.by_name {
            let rebalance_us = group.members.values().map(|member| member.rebalance_us).max();
            for (member, entry) in &group.members {
                let waiting_us = rebalance_us.filter(|_| entry.waiting > 0).unwrap_or(0);
                let patience = entry.timeout_us.saturating_add(waiting_us).saturating_add(GRACE_US);
                if cx.now.since(entry.last_seen) > patience {
                    expired.push((Arc::clone(name), Arc::clone(member)));
                }
            }
        }
        for (group, member) in expired {
            let entry = self.ended(cx, &group, &member, "member expelled");
            if let (Some(group), Some(entry)) = (self.by_name.get_mut(&group), entry) {
                if group.silent.len() == MAX_SILENT {
                    group.silent.clear();
                }
                group.silent.insert(member, entry);
            }
        }
    }
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
