//! What clients ask: as much of each request as its answer's reading needs.

use std::sync::Arc;

use flowtap_record::{Micros, escape_bytes};

use super::Shared;
use super::connection::Connection;
use super::fetches;
use super::groups::{Committed, Joining, SESSION_US, Spot};
use super::producing::SentBatch;
use super::transactions::Ending;
use crate::tap::kafka::feed::Head;
use crate::tap::kafka::wire::{
    ByTopic, ClientSoftware, CommitRequest, EndTxnRequest, Fault, FetchRequest,
    GroupHeartbeatRequest, InitProducerRequest, JoinRequest, LeaveRequest, MemberRequest,
    OffsetFetchRequest, StreamsHeartbeatRequest, Subscription, TopicRef, api, groups_looked_for,
    key,
};

/// A request that waits for its answer.
#[derive(Debug)]
pub(crate) enum Question {
    Produce(Vec<SentBatch>),
    Fetch(fetches::Asked),
    /// With the transaction that the offsets belong to.
    Commit(Vec<Committed>, Option<(Arc<[u8]>, i64, i16)>),
    /// The groups asked for, each with its member: before v8 the answer does not name its group.
    Offsets(Vec<(Arc<str>, Option<Arc<str>>)>),
    Join(Joining),
    Sync(Arc<str>, Arc<str>, i32),
    /// And whether the member leaves with it.
    Heartbeat(Arc<str>, Arc<str>, bool),
    /// Each member by its id, or by its static one.
    Leave(Arc<str>, Vec<(Arc<str>, Option<Arc<str>>)>),
    GroupHeartbeat(Beat),
    InitProducer(Box<[u8]>),
    EndTxn(Ending),
    Metadata,
    CreateTopics,
    DeleteTopics,
    DescribeTopics,
    /// A Fetch that could not be read, and when it passed.
    Unread(Micros),
}

/// A heartbeat of the newer group protocol.
#[derive(Debug)]
pub(crate) struct Beat {
    pub(crate) joining: Joining,
    pub(crate) epoch: i32,
    /// What it says that it holds; `None` is as before.
    pub(crate) owned: Option<Vec<Spot>>,
}

pub(crate) fn text(bytes: &[u8]) -> Arc<str> {
    Arc::from(escape_bytes(bytes))
}

fn member(bytes: &[u8]) -> Option<Arc<str>> {
    (!bytes.is_empty()).then(|| text(bytes))
}

/// Reads a request. `None` for one whose answer says nothing.
pub(crate) fn read(
    connection: &mut Connection,
    shared: &mut Shared,
    head: &Head,
    body: &[u8],
) -> Result<Option<Question>, Fault> {
    let version = head.version;
    if !api(head.key).is_some_and(|api| api.knows(version)) {
        return Ok(None);
    }
    Ok(Some(match head.key {
        key::API_VERSIONS => {
            software(connection, ClientSoftware::decode(version, body)?);
            return Ok(None);
        }
        key::FETCH => {
            let request = FetchRequest::decode(version, body)?;
            Question::Fetch(connection.fetches.asked(&mut shared.cluster, &request))
        }
        key::OFFSET_COMMIT | key::TXN_OFFSET_COMMIT => {
            let request = CommitRequest::decode(head.key, version, body)?;
            commit(shared, &request)
        }
        key::OFFSET_FETCH => {
            let request = OffsetFetchRequest::decode(version, body)?;
            let groups = request.groups.iter();
            let group =
                |(group, by, _): &(&[u8], Option<&[u8]>, _)| (text(group), by.and_then(member));
            Question::Offsets(groups.map(group).collect())
        }
        key::JOIN_GROUP => join(connection, shared, &JoinRequest::decode(version, body)?),
        key::SYNC_GROUP => {
            let request = MemberRequest::decode(head.key, version, body)?;
            let (group, member) = (text(request.group), text(request.member));
            connection.fetches.belongs_to(Arc::clone(&group));
            shared.groups.waits(&group, &member);
            Question::Sync(group, member, request.generation)
        }
        key::HEARTBEAT => {
            let request = MemberRequest::decode(head.key, version, body)?;
            Question::Heartbeat(text(request.group), text(request.member), false)
        }
        key::STREAMS_GROUP_HEARTBEAT => {
            let request = StreamsHeartbeatRequest::decode(version, body)?;
            Question::Heartbeat(text(request.group), text(request.member), request.epoch < 0)
        }
        key::FIND_COORDINATOR => {
            // A consumer asks for its own group's, and often by a connection that it fetches on.
            if let [group] = groups_looked_for(version, body)?[..] {
                connection.fetches.belongs_to(text(group));
            }
            return Ok(None);
        }
        key::LEAVE_GROUP => {
            let request = LeaveRequest::decode(version, body)?;
            let members = request.members.iter();
            let members =
                members.map(|(member, instance)| (text(member), instance.map(text))).collect();
            Question::Leave(text(request.group), members)
        }
        key::CONSUMER_GROUP_HEARTBEAT => {
            beat(connection, shared, &GroupHeartbeatRequest::decode(version, body)?)
        }
        key::INIT_PRODUCER_ID => {
            match InitProducerRequest::decode(version, body)?.transactional_id {
                Some(id) => Question::InitProducer(id.into()),
                None => return Ok(None),
            }
        }
        key::END_TXN => {
            let request = EndTxnRequest::decode(version, body)?;
            let ending = Ending {
                transactional_id: text(request.transactional_id),
                producer_id: request.producer_id,
                committed: request.committed,
            };
            shared.transactions.ends(&ending);
            Question::EndTxn(ending)
        }
        key::METADATA => Question::Metadata,
        key::CREATE_TOPICS => Question::CreateTopics,
        key::DELETE_TOPICS => Question::DeleteTopics,
        key::DESCRIBE_TOPIC_PARTITIONS => Question::DescribeTopics,
        _ => return Ok(None),
    }))
}

fn software(connection: &mut Connection, software: ClientSoftware<'_>) {
    let texts = [software.name, software.version].into_iter().flatten();
    let texts: Vec<_> = texts.filter(|text| !text.is_empty()).map(escape_bytes).collect();
    if !texts.is_empty() {
        connection.software = Some(texts.join(" "));
        connection.describe();
    }
}

fn commit(shared: &mut Shared, request: &CommitRequest<'_>) -> Question {
    let group = text(request.group);
    let by = member(request.member);
    let mut commits = Vec::new();
    for (topic, partitions) in &request.topics {
        let topic = shared.cluster.name(*topic);
        commits.extend(partitions.iter().map(|(partition, offset)| Committed {
            group: Arc::clone(&group),
            member: by.clone(),
            spot: (Arc::clone(&topic), *partition),
            offset: *offset,
        }));
    }
    let transaction = request.transaction.map(|(id, producer, epoch)| (id.into(), producer, epoch));
    Question::Commit(commits, transaction)
}

fn join(connection: &mut Connection, shared: &mut Shared, request: &JoinRequest<'_>) -> Question {
    let consumer = request.protocol_type == b"consumer";
    let mut owned = Vec::new();
    if consumer {
        // Each protocol has its own metadata; they differ in no more than user data.
        for (_, metadata) in &request.protocols {
            let Ok(subscription) = Subscription::decode(metadata) else { continue };
            for (topic, partitions) in subscription.owned {
                let topic = shared.cluster.name(TopicRef::Name(topic));
                owned.extend(partitions.into_iter().map(|number| (Arc::clone(&topic), number)));
            }
        }
    }
    let (group, member) = (text(request.group), text(request.member));
    connection.fetches.belongs_to(Arc::clone(&group));
    shared.groups.waits(&group, &member);
    Question::Join(Joining {
        client: Arc::clone(&connection.client),
        peer: Arc::clone(&connection.peer),
        group,
        member,
        timeout_us: i64::from(request.session_timeout_ms) * 1000,
        rebalance_us: i64::from(request.rebalance_timeout_ms) * 1000,
        consumer,
        owned,
        instance: request.instance.map(text),
    })
}

fn beat(
    connection: &mut Connection,
    shared: &mut Shared,
    request: &GroupHeartbeatRequest<'_>,
) -> Question {
    connection.fetches.belongs_to(text(request.group));
    let owned = request.owned.as_ref().map(|topics| {
        let topics = topics.iter().map(|(id, numbers)| (TopicRef::Id(*id), numbers.clone()));
        spots(shared, topics.collect())
    });
    Question::GroupHeartbeat(Beat {
        joining: Joining {
            client: Arc::clone(&connection.client),
            peer: Arc::clone(&connection.peer),
            group: text(request.group),
            member: text(request.member),
            timeout_us: SESSION_US,
            rebalance_us: 0,
            consumer: true,
            owned: owned.clone().unwrap_or_default(),
            instance: request.instance.map(text),
        },
        epoch: request.epoch,
        owned,
    })
}

/// Partitions by the names of their topics.
pub(crate) fn spots(shared: &mut Shared, topics: ByTopic<'_, i32>) -> Vec<Spot> {
    let mut spots = Vec::new();
    for (topic, numbers) in topics {
        let topic = shared.cluster.name(topic);
        spots.extend(numbers.into_iter().map(|number| (Arc::clone(&topic), number)));
    }
    spots
}
