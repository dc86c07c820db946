//! Members of groups. Classic protocol: JoinGroup 11, SyncGroup 14, Heartbeat 12, LeaveGroup 13,
//! and what members tell each other in them (`ConsumerProtocolSubscription.json`,
//! `ConsumerProtocolAssignment.json`). New protocol (KIP-848): ConsumerGroupHeartbeat 68; Kafka
//! Streams' own (KIP-1071): StreamsGroupHeartbeat 88.

use super::read::{Fault, Reader};
use super::types::{
    Assignment, GroupHeartbeatRequest, GroupHeartbeatResponse, JoinRequest, JoinResponse,
    LeaveRequest, LeaveResponse, MemberRequest, NamedPartitions, StreamsHeartbeatRequest,
    Subscription, SyncResponse, TopicId,
};
use super::{key, open};

impl<'a> JoinRequest<'a> {
    /// Versions 0 to 9.
    pub(crate) fn decode(version: i16, body: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = open(key::JOIN_GROUP, version, body)?;
        let (group, session_timeout_ms) = (reader.text()?, reader.i32()?);
        let rebalance_timeout_ms = if version >= 1 { reader.i32()? } else { session_timeout_ms };
        let member = reader.text()?;
        let instance = if version >= 5 { reader.string()? } else { None };
        let protocol_type = reader.text()?;
        let protocols = reader.each(|reader| {
            let protocol = (reader.text()?, reader.bytes()?.unwrap_or_default());
            reader.skip_tags()?;
            Ok(protocol)
        })?;
        if version >= 8 {
            reader.string()?; // why
        }
        reader.skip_tags()?;
        Ok(Self {
            group,
            session_timeout_ms,
            rebalance_timeout_ms,
            member,
            instance,
            protocol_type,
            protocols,
        })
    }
}

impl<'a> JoinResponse<'a> {
    /// Versions 0 to 9.
    pub(crate) fn decode(version: i16, body: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = open(key::JOIN_GROUP, version, body)?;
        if version >= 2 {
            reader.i32()?; // throttle time
        }
        let (error, generation) = (reader.i16()?, reader.i32()?);
        if version >= 7 {
            reader.string()?; // protocol type
        }
        let (protocol, leader) = (reader.string()?, reader.text()?);
        if version >= 9 {
            reader.bool()?; // whether the leader need not assign
        }
        let member = reader.text()?;
        reader.pass(|reader| {
            reader.text()?; // member
            if version >= 5 {
                reader.string()?; // static id
            }
            reader.bytes()?; // subscription
            reader.skip_tags()
        })?;
        reader.skip_tags()?;
        Ok(Self { error, generation, protocol, leader, member })
    }
}

impl<'a> MemberRequest<'a> {
    /// SyncGroup 0 to 5, Heartbeat 0 to 4.
    pub(crate) fn decode(key: i16, version: i16, body: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = open(key, version, body)?;
        if !matches!(key, key::SYNC_GROUP | key::HEARTBEAT) {
            return Err(Fault::Bad("neither SyncGroup nor Heartbeat"));
        }
        // What follows differs, and is of no use here.
        Ok(Self { group: reader.text()?, generation: reader.i32()?, member: reader.text()? })
    }
}

impl<'a> SyncResponse<'a> {
    /// Versions 0 to 5.
    pub(crate) fn decode(version: i16, body: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = open(key::SYNC_GROUP, version, body)?;
        if version >= 1 {
            reader.i32()?; // throttle time
        }
        let error = reader.i16()?;
        let mut protocol_type = None;
        if version >= 5 {
            protocol_type = reader.string()?;
            reader.string()?; // protocol name
        }
        let assignment = reader.bytes()?.unwrap_or_default();
        reader.skip_tags()?;
        Ok(Self { error, protocol_type, assignment })
    }
}

/// The error code of a Heartbeat answer, versions 0 to 4, or of a StreamsGroupHeartbeat answer,
/// versions 0 to 1.
pub(crate) fn heartbeat_error(key: i16, version: i16, body: &[u8]) -> Result<i16, Fault> {
    let mut reader = open(key, version, body)?;
    if version >= 1 || key != key::HEARTBEAT {
        reader.i32()?; // throttle time
    }
    reader.i16()
}

impl<'a> StreamsHeartbeatRequest<'a> {
    /// Versions 0 and 1.
    pub(crate) fn decode(version: i16, body: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = open(key::STREAMS_GROUP_HEARTBEAT, version, body)?;
        // What follows is the topology and its tasks, and of no use here.
        Ok(Self { group: reader.text()?, member: reader.text()?, epoch: reader.i32()? })
    }
}

impl<'a> LeaveRequest<'a> {
    /// Versions 0 to 5; several members from 3 on.
    pub(crate) fn decode(version: i16, body: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = open(key::LEAVE_GROUP, version, body)?;
        let group = reader.text()?;
        let members = if version >= 3 {
            reader.each(|reader| {
                let member = (reader.text()?, reader.string()?);
                if version >= 5 {
                    reader.string()?; // why
                }
                reader.skip_tags()?;
                Ok(member)
            })?
        } else {
            vec![(reader.text()?, None)]
        };
        reader.skip_tags()?;
        Ok(Self { group, members })
    }
}

impl<'a> LeaveResponse<'a> {
    /// Versions 0 to 5.
    pub(crate) fn decode(version: i16, body: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = open(key::LEAVE_GROUP, version, body)?;
        if version >= 1 {
            reader.i32()?; // throttle time
        }
        let error = reader.i16()?;
        let mut members = Vec::new();
        if version >= 3 {
            members = reader.each(|reader| {
                let member = (reader.text()?, reader.string()?, reader.i16()?);
                reader.skip_tags()?;
                Ok(member)
            })?;
        }
        reader.skip_tags()?;
        Ok(Self { error, members })
    }
}

/// The groups whose coordinator a FindCoordinator request asks for, versions 0 to 6.
pub(crate) fn groups_looked_for(version: i16, body: &[u8]) -> Result<Vec<&[u8]>, Fault> {
    const GROUP: i8 = 0;
    let mut reader = open(key::FIND_COORDINATOR, version, body)?;
    if version >= 4 {
        let kind = reader.i8()?;
        let names = reader.each(Reader::text)?;
        return Ok(if kind == GROUP { names } else { Vec::new() });
    }
    let name = reader.text()?;
    let kind = if version >= 1 { reader.i8()? } else { GROUP };
    Ok(if kind == GROUP { vec![name] } else { Vec::new() })
}

// === what members tell each other ===

/// The version in front. A reader takes what it knows of newer ones, as Kafka's clients do: they
/// only append.
fn member_message(bytes: &[u8]) -> Result<(i16, Reader<'_>), Fault> {
    let mut reader = Reader::new(bytes, false);
    match reader.i16()? {
        version if version < 0 => Err(Fault::Bad("negative version")),
        version => Ok((version, reader)),
    }
}

fn named_partitions<'a>(reader: &mut Reader<'a>) -> Result<NamedPartitions<'a>, Fault> {
    reader.each(|reader| Ok((reader.text()?, reader.integers()?)))
}

impl<'a> Subscription<'a> {
    /// Metadata of JoinGroup, when the protocol type is `consumer`. No bytes: nothing.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, Fault> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let (version, mut reader) = member_message(bytes)?;
        let topics = reader.each(Reader::text)?;
        reader.bytes()?; // the assignor's own
        let owned = if version >= 1 { named_partitions(&mut reader)? } else { Vec::new() };
        Ok(Self { topics, owned })
    }
}

impl<'a> Assignment<'a> {
    /// Assignment of SyncGroup, when the protocol type is `consumer`. No bytes: nothing, as in
    /// answers that are errors.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, Fault> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let (_, mut reader) = member_message(bytes)?;
        Ok(Self { topics: named_partitions(&mut reader)? })
    }
}

// === KIP-848 ===

fn partitions_of_ids(reader: &mut Reader<'_>) -> Result<(TopicId, Vec<i32>), Fault> {
    let topic = (TopicId(reader.uuid()?), reader.integers()?);
    reader.skip_tags()?;
    Ok(topic)
}

impl<'a> GroupHeartbeatRequest<'a> {
    /// Versions 0 and 1.
    pub(crate) fn decode(version: i16, body: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = open(key::CONSUMER_GROUP_HEARTBEAT, version, body)?;
        let (group, member, epoch) = (reader.text()?, reader.text()?, reader.i32()?);
        let instance = reader.string()?;
        reader.string()?; // rack
        reader.i32()?; // rebalance timeout
        reader.pass(|reader| reader.text().map(drop))?; // topics by name
        if version >= 1 {
            reader.string()?; // topics by regular expression
        }
        reader.string()?; // assignor
        let owned = reader.each_if_any(partitions_of_ids)?;
        reader.skip_tags()?;
        Ok(Self { group, member, epoch, instance, owned })
    }
}

impl<'a> GroupHeartbeatResponse<'a> {
    /// Versions 0 and 1.
    pub(crate) fn decode(version: i16, body: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = open(key::CONSUMER_GROUP_HEARTBEAT, version, body)?;
        reader.i32()?; // throttle time
        let error = reader.i16()?;
        reader.string()?; // message
        let (member, epoch) = (reader.string()?, reader.i32()?);
        reader.i32()?; // interval
        // A struct that may be null has one byte in front: -1 or 1.
        let assignment = if reader.i8()? < 0 {
            None
        } else {
            let topics = reader.each(partitions_of_ids)?;
            reader.skip_tags()?;
            Some(topics)
        };
        reader.skip_tags()?;
        Ok(Self { error, member, epoch, assignment })
    }
}
