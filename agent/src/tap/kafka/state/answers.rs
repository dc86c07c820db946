//! What brokers answer, told to the parts of the state that it is about. Only an answer makes
//! something a fact: a commit that was refused settles nothing.

use std::sync::Arc;

use super::Shared;
use super::connection::{Connection, SentBatch};
use super::context::Context;
use super::groups::Committed;
use super::requests::{Beat, Question, spots, text};
use super::topics::Cluster;
use crate::tap::kafka::feed::Head;
use crate::tap::kafka::wire::{
    Assignment, CommitResponse, EndTxnResponse, Fault, GroupHeartbeatResponse,
    InitProducerResponse, JoinResponse, LeaveResponse, OffsetFetchResponse, ProduceResponse,
    SyncResponse, TopicRef, Topics, heartbeat_error,
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
            produced(cx, shared, &batches, &ProduceResponse::decode(version, body)?);
        }
        Question::Commit(commits, transaction) => {
            let answer = CommitResponse::decode(head.key, version, body)?;
            committed(cx, connection, shared, commits, &answer, transaction);
        }
        Question::Offsets(groups) => {
            offsets(connection, shared, &groups, &OffsetFetchResponse::decode(version, body)?);
        }
        Question::Join(joining) => {
            let answer = JoinResponse::decode(version, body)?;
            let member = text(answer.member);
            if answer.error == 0 {
                shared.groups.joined(cx, &joining, &member, answer.generation);
            } else if EXPELLED.contains(&answer.error) {
                shared.groups.gone(cx, &joining.group, &member, "member expelled");
            }
        }
        Question::Sync(group, member, generation) => {
            let answer = SyncResponse::decode(version, body)?;
            if answer.error == 0 && shared.groups.is_consumer(&group, &member) {
                // A leader may give out nothing.
                let assignment = Assignment::decode(answer.assignment).unwrap_or_default();
                let topics = assignment.topics.into_iter();
                let topics = topics.map(|(topic, numbers)| (TopicRef::Name(topic), numbers));
                let spots = spots(shared, topics.collect());
                shared.groups.assigned(cx, &group, &member, generation, &spots);
            } else {
                heard(cx, shared, &group, &member, answer.error);
            }
        }
        Question::Heartbeat(group, member) => {
            heard(cx, shared, &group, &member, heartbeat_error(version, body)?);
        }
        Question::Leave(group, members) => {
            let answer = LeaveResponse::decode(version, body)?;
            let failed = |member: &Arc<str>| {
                let mut failures = answer.members.iter().filter(|(_, error)| *error != 0);
                failures.any(|(name, _)| text(name) == *member)
            };
            for member in members.iter().filter(|member| answer.error == 0 && !failed(member)) {
                shared.groups.gone(cx, &group, member, "member left");
            }
        }
        Question::GroupHeartbeat(beat) => {
            beaten(cx, shared, &beat, GroupHeartbeatResponse::decode(version, body)?);
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
                shared.cluster.deleted(cx, &connection.peer, topic);
            }
        }
        Question::Fetch(_) => {}
    }
    Ok(())
}

/// The brokers tell of topics. A member may have been given partitions of one whose name nobody had
/// asked for yet.
fn told(cx: &mut Context<'_>, connection: &Connection, shared: &mut Shared, answer: &Topics<'_>) {
    let before = shared.cluster.learned(0).len();
    shared.cluster.told(cx, &connection.peer, answer);
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
        shared.transactions.offsets(cx.now, (&id, producer_id, epoch), commits);
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
                    shared.groups.starts_at(&connection.client, &group, &spot, *offset);
                }
            }
        }
    }
}

/// The broker has answered a member.
fn heard(
    cx: &mut Context<'_>,
    shared: &mut Shared,
    group: &Arc<str>,
    member: &Arc<str>,
    error: i16,
) {
    if EXPELLED.contains(&error) {
        shared.groups.gone(cx, group, member, "member expelled");
    } else {
        shared.groups.seen(group, Some(member), cx.now);
    }
}

/// The answer to a heartbeat of the newer protocol.
fn beaten(
    cx: &mut Context<'_>,
    shared: &mut Shared,
    beat: &Beat,
    answer: GroupHeartbeatResponse<'_>,
) {
    let group = &beat.joining.group;
    let member = answer.member.map_or_else(|| Arc::clone(&beat.member), text);
    if answer.error != 0 {
        heard(cx, shared, group, &member, answer.error);
        return;
    }
    if beat.epoch < 0 {
        shared.groups.gone(cx, group, &member, "member left");
        return;
    }
    if beat.epoch == 0 {
        shared.groups.joined(cx, &beat.joining, &member, answer.epoch);
    } else {
        shared.groups.seen(group, Some(&member), cx.now);
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
