//! What brokers answer, told to the parts of the state that it is about. Only an answer makes
//! something a fact: a commit that was refused settles nothing.

use std::sync::Arc;

use flowtap_record::Micros;

use super::Shared;
use super::connection::{Connection, unanswered};
use super::context::Context;
use super::groups::Committed;
use super::producing::SentBatch;
use super::requests::{Beat, Question, spots, text};
use super::topics::Cluster;
use crate::tap::kafka::feed::Head;
use crate::tap::kafka::wire::{
    Assignment, CommitResponse, EndTxnResponse, Fault, GroupHeartbeatResponse,
    InitProducerResponse, JoinResponse, LeaveResponse, OffsetFetchResponse, ProduceResponse,
    SyncResponse, TopicRef, Topics, error, heartbeat_error,
};

/// Errors by which a broker says that it does not know the member any more: `UNKNOWN_MEMBER_ID`,
/// `FENCED_INSTANCE_ID`, `FENCED_MEMBER_EPOCH`.
const EXPELLED: [i16; 3] = [25, 82, 110];

/// Reads the answer to a question.
pub(crate) fn read(
    cx: &mut Context<'_>,
    connection: &mut Connection,
    shared: &mut Shared,
    head: &Head,
    question: Question,
    body: &[u8],
) -> Result<(), Fault> {
    let version = head.version;
    match question {
        Question::Produce(batches) => {
            let read = ProduceResponse::decode(version, body);
            if let Ok(answer) = &read {
                produced(cx, shared, &batches, answer);
            }
            // Those that the answer says nothing of.
            unanswered(shared, cx.now, Question::Produce(batches));
            read?;
        }
        Question::Commit(commits, transaction) => {
            let answer = CommitResponse::decode(head.key, version, body)?;
            committed(cx, connection, shared, commits, &answer, transaction);
        }
        Question::Offsets(groups) => {
            let answer = OffsetFetchResponse::decode(version, body)?;
            offsets(connection, shared, &groups, &answer, cx.now);
        }
        Question::Join(joining) => {
            shared.groups.waits_no_more(&joining.group, &joining.member, cx.now);
            let answer = JoinResponse::decode(version, body)?;
            let member = text(answer.member);
            if answer.error == 0 {
                shared.groups.joined(cx, &joining, &member, answer.generation);
            } else if EXPELLED.contains(&answer.error) {
                shared.groups.gone(cx, &joining.group, &member, "member expelled");
            }
        }
        Question::Sync(group, member, generation) => {
            shared.groups.waits_no_more(&group, &member, cx.now);
            let answer = SyncResponse::decode(version, body)?;
            if answer.error == 0 && shared.groups.is_consumer(&group, &member) {
                // A leader may give out nothing.
                let assignment = Assignment::decode(answer.assignment).unwrap_or_default();
                let topics = assignment.topics.into_iter();
                let topics = topics.map(|(topic, numbers)| (TopicRef::Name(topic), numbers));
                let spots = spots(shared, topics.collect());
                shared.groups.assigned(cx, &group, &member, generation, &spots);
            } else {
                heard(cx, connection, shared, (&group, &member), answer.error);
            }
        }
        Question::Heartbeat(group, member, leaves) => {
            let error = heartbeat_error(head.key, version, body)?;
            if leaves && error == 0 {
                shared.groups.gone(cx, &group, &member, "member left");
            } else {
                heard(cx, connection, shared, (&group, &member), error);
            }
        }
        Question::Leave(group, members) => {
            let answer = LeaveResponse::decode(version, body)?;
            let failed = |member: &str, instance: Option<&str>| {
                answer.members.iter().any(|(id, static_id, error)| {
                    *error != 0
                        && *text(id) == *member
                        && static_id.map(text).as_deref() == instance
                })
            };
            for (member, instance) in members {
                if answer.error != 0 || failed(&member, instance.as_deref()) {
                    continue;
                }
                // Who removes others may know no more than their static ids.
                let by_instance = instance.filter(|_| member.is_empty());
                let member = match by_instance {
                    Some(instance) => shared.groups.instance(&group, &instance),
                    None => Some(member),
                };
                if let Some(member) = member {
                    shared.groups.gone(cx, &group, &member, "member left");
                }
            }
        }
        Question::GroupHeartbeat(beat) => {
            beaten(cx, connection, shared, &beat, GroupHeartbeatResponse::decode(version, body)?);
        }
        Question::InitProducer(id) => {
            let answer = InitProducerResponse::decode(version, body)?;
            shared.transactions.initialised(cx, &connection.peer, &id, answer);
        }
        Question::EndTxn(ending) => {
            let answer = EndTxnResponse::decode(version, body)?;
            let ended = shared.transactions.ended(cx, &connection.peer, &ending, answer);
            let (name, offsets) = ended.unwrap_or_else(|| (Arc::from(""), Vec::new()));
            for commit in &offsets {
                shared.groups.committed(cx, &connection.peer, commit, Some(&name));
            }
        }
        Question::Metadata => {
            let answer = Topics::metadata(version, body)?;
            if let Some(id) = answer.cluster_id {
                shared.cluster.is_called(&text(id));
            }
            told(cx, connection, shared, &answer);
        }
        Question::CreateTopics => {
            told(cx, connection, shared, &Topics::create_topics(version, body)?);
        }
        Question::DescribeTopics => {
            told(cx, connection, shared, &Topics::describe_topic_partitions(version, body)?);
        }
        Question::DeleteTopics => {
            for topic in &Topics::delete_topics(version, body)?.topics {
                if let Some(name) = shared.cluster.deleted(cx, &connection.peer, topic) {
                    shared.groups.topic_is_gone(cx, &name);
                }
            }
        }
        Question::Fetch(_) | Question::Unread(_) => {}
    }
    Ok(())
}

/// The brokers tell of topics. A member may have been given partitions of one whose name nobody had
/// asked for yet.
fn told(cx: &mut Context<'_>, connection: &Connection, shared: &mut Shared, answer: &Topics<'_>) {
    let before = shared.cluster.learned(0).len();
    for name in shared.cluster.told(cx, &connection.peer, answer) {
        shared.groups.topic_is_gone(cx, &name);
    }
    for (id, name) in shared.cluster.learned(before) {
        shared.groups.topic_is_called(&Cluster::nameless(*id), name);
    }
}

fn produced(
    cx: &mut Context<'_>,
    shared: &mut Shared,
    batches: &[SentBatch],
    answer: &ProduceResponse<'_>,
) {
    for (topic, partitions) in &answer.topics {
        let name = shared.cluster.name(*topic);
        for produced in partitions {
            let told = |batch: &&SentBatch| {
                let same = match topic {
                    TopicRef::Id(id) => batch.id == Some(*id),
                    TopicRef::Name(_) => batch.spot.0 == name,
                };
                same && batch.spot.1 == produced.partition
            };
            for batch in batches.iter().filter(told) {
                shared.publishes.answered(cx, batch.number, produced);
            }
        }
    }
}

fn committed(
    cx: &mut Context<'_>,
    connection: &Connection,
    shared: &mut Shared,
    mut commits: Vec<Committed>,
    answer: &CommitResponse<'_>,
    transaction: Option<(Arc<[u8]>, i64, i16)>,
) {
    let mut errors = std::collections::HashMap::new();
    for (topic, partitions) in &answer.topics {
        let topic = shared.cluster.name(*topic);
        for (partition, error) in partitions {
            errors.insert((Arc::clone(&topic), *partition), *error);
        }
    }
    let error = |commit: &Committed| errors.get(&commit.spot).copied();
    let expelled =
        commits.iter().find(|commit| error(commit).is_some_and(|error| EXPELLED.contains(&error)));
    if let Some(Committed { group, member: Some(member), .. }) = expelled {
        shared.groups.gone(cx, group, member, "member expelled");
    }
    commits.retain(|commit| error(commit) == Some(0));
    if let Some((id, producer_id, epoch)) = transaction {
        for commit in &commits {
            shared.groups.commits_in_transaction(commit, cx.now);
        }
        let by = (&*id, producer_id, epoch);
        shared.transactions.offsets(cx, &connection.peer, by, commits);
        return;
    }
    for commit in &commits {
        shared.groups.commits(&connection.client, &connection.peer, commit, cx.now);
        shared.groups.committed(cx, &connection.peer, commit, None);
    }
}

fn offsets(
    connection: &Connection,
    shared: &mut Shared,
    asked: &[(Arc<str>, Option<Arc<str>>)],
    answer: &OffsetFetchResponse<'_>,
    now: Micros,
) {
    for (at, (group, error, topics)) in answer.groups.iter().enumerate() {
        let group = if group.is_empty() {
            asked.get(at).map(|(group, _)| Arc::clone(group))
        } else {
            Some(text(group))
        };
        let Some(group) = group.filter(|_| *error == 0) else { continue };
        for (topic, partitions) in topics {
            let topic = shared.cluster.name(*topic);
            for (partition, offset, error) in partitions {
                if *error == 0 && *offset >= 0 {
                    let spot = (Arc::clone(&topic), *partition);
                    shared.groups.starts_at(&connection.client, &group, &spot, *offset, now);
                }
            }
        }
    }
}

/// The broker has answered a member.
fn heard(
    cx: &mut Context<'_>,
    connection: &Connection,
    shared: &mut Shared,
    (group, member): (&Arc<str>, &Arc<str>),
    error: i16,
) {
    let groups = &mut shared.groups;
    if EXPELLED.contains(&error) {
        groups.gone(cx, group, member, "member expelled");
    } else if matches!(error, error::NONE | error::REBALANCE_IN_PROGRESS) && !member.is_empty() {
        groups.alive(&connection.client, &connection.peer, (group, member), cx.now);
    } else {
        groups.seen(group, Some(member), cx.now);
    }
}

/// The answer to a heartbeat of the newer protocol.
fn beaten(
    cx: &mut Context<'_>,
    connection: &Connection,
    shared: &mut Shared,
    beat: &Beat,
    answer: GroupHeartbeatResponse<'_>,
) {
    let group = &beat.joining.group;
    let member = answer.member.map_or_else(|| Arc::clone(&beat.joining.member), text);
    if answer.error != 0 {
        heard(cx, connection, shared, (group, &member), answer.error);
        return;
    }
    if beat.epoch < 0 {
        shared.groups.gone(cx, group, &member, "member left");
        return;
    }
    if beat.epoch == 0 {
        shared.groups.joined(cx, &beat.joining, &member, answer.epoch);
    } else {
        heard(cx, connection, shared, (group, &member), 0);
    }
    if let Some(owned) = &beat.owned {
        shared.groups.holds_only(cx, group, &member, owned);
    }
    if let Some(assignment) = answer.assignment {
        let topics = assignment.into_iter().map(|(id, numbers)| (TopicRef::Id(id), numbers));
        let spots = spots(shared, topics.collect());
        shared.groups.assigned(cx, group, &member, answer.epoch, &spots);
    }
}
