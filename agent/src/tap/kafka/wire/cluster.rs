//! Topics and clients: what Metadata 3, CreateTopics 19, DeleteTopics 20 and
//! DescribeTopicPartitions 75 answer of topics, and who ApiVersions 18 says that the client is.

use super::read::{Fault, Reader};
use super::types::{ClientSoftware, Topic, Topics};
use super::{id_if_any, key, open};

impl<'a> Topics<'a> {
    /// Metadata answers, versions 0 to 13.
    pub(crate) fn metadata(version: i16, body: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = open(key::METADATA, version, body)?;
        if version >= 3 {
            reader.i32()?; // throttle time
        }
        reader.pass(|reader| {
            reader.i32()?; // broker
            reader.text()?; // host
            reader.i32()?; // port
            if version >= 1 {
                reader.string()?; // rack
            }
            reader.skip_tags()
        })?;
        let cluster_id = if version >= 2 { reader.string()? } else { None };
        if version >= 1 {
            reader.i32()?; // controller
        }
        let topics = reader.each(|reader| {
            let (error, name) = (reader.i16()?, reader.string()?);
            let id = if version >= 10 { id_if_any(reader.uuid()?) } else { None };
            let internal = version >= 1 && reader.bool()?;
            let partitions = reader.pass(|reader| {
                reader.take(2 + 4 + 4)?; // error, partition, leader
                if version >= 7 {
                    reader.i32()?; // leader epoch
                }
                pass_integers(reader)?; // replicas
                pass_integers(reader)?; // of these in sync
                if version >= 5 {
                    pass_integers(reader)?; // of these offline
                }
                reader.skip_tags()
            })?;
            if version >= 8 {
                reader.i32()?; // what the client may do
            }
            reader.skip_tags()?;
            Ok(Topic { error, name, id, internal, partitions: told(error, partitions) })
        })?;
        if (8..=10).contains(&version) {
            reader.i32()?; // what the client may do
        }
        if version >= 13 {
            reader.i16()?; // error of the whole: then there are no topics
        }
        reader.skip_tags()?;
        Ok(Self { cluster_id, topics })
    }

    /// CreateTopics answers, versions 2 to 7.
    pub(crate) fn create_topics(version: i16, body: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = open(key::CREATE_TOPICS, version, body)?;
        reader.i32()?; // throttle time
        let topics = reader.each(|reader| {
            let name = Some(reader.text()?);
            let id = if version >= 7 { id_if_any(reader.uuid()?) } else { None };
            let error = reader.i16()?;
            reader.string()?; // message
            let mut partitions = None;
            if version >= 5 {
                partitions = Some(reader.i32()?).filter(|count| *count >= 0);
                reader.i16()?; // replicas
                reader.pass(|reader| {
                    reader.text()?; // name
                    reader.string()?; // value
                    reader.take(1 + 1 + 1)?; // read only, source, secret
                    reader.skip_tags()
                })?;
            }
            reader.skip_tags()?;
            Ok(Topic { error, name, id, internal: false, partitions })
        })?;
        reader.skip_tags()?;
        Ok(Self { cluster_id: None, topics })
    }

    /// DeleteTopics answers, versions 1 to 6.
    pub(crate) fn delete_topics(version: i16, body: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = open(key::DELETE_TOPICS, version, body)?;
        reader.i32()?; // throttle time
        let topics = reader.each(|reader| {
            let name = reader.string()?;
            let id = if version >= 6 { id_if_any(reader.uuid()?) } else { None };
            let error = reader.i16()?;
            if version >= 5 {
                reader.string()?; // message
            }
            reader.skip_tags()?;
            Ok(Topic { error, name, id, internal: false, partitions: None })
        })?;
        reader.skip_tags()?;
        Ok(Self { cluster_id: None, topics })
    }

    /// DescribeTopicPartitions answers, version 0. `partitions` is told only of topics that are
    /// told whole: of the last one the answer may hold a part, when a cursor follows.
    pub(crate) fn describe_topic_partitions(version: i16, body: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = open(key::DESCRIBE_TOPIC_PARTITIONS, version, body)?;
        reader.i32()?; // throttle time
        let mut topics = reader.each(|reader| {
            let (error, name) = (reader.i16()?, reader.string()?);
            let (id, internal) = (id_if_any(reader.uuid()?), reader.bool()?);
            let (mut lowest, mut highest) = (i32::MAX, -1);
            let partitions = reader.pass(|reader| {
                reader.i16()?; // error
                let partition = reader.i32()?;
                (lowest, highest) = (lowest.min(partition), highest.max(partition));
                reader.take(4 + 4)?; // leader, its epoch
                for _ in 0..5 {
                    pass_integers(reader)?; // replicas: all, in sync, eligible, last, offline
                }
                reader.skip_tags()
            })?;
            reader.i32()?; // what the client may do
            reader.skip_tags()?;
            // A request that went on where another had stopped gets the later partitions only.
            let whole = lowest == 0 && usize::try_from(highest) == Ok(partitions - 1);
            let partitions = if whole { told(error, partitions) } else { None };
            Ok(Topic { error, name, id, internal, partitions })
        })?;
        if reader.i8()? >= 0 {
            let (goes_on_in, _) = (reader.text()?, reader.i32()?);
            reader.skip_tags()?;
            for topic in topics.iter_mut().filter(|topic| topic.name == Some(goes_on_in)) {
                topic.partitions = None;
            }
        }
        reader.skip_tags()?;
        Ok(Self { cluster_id: None, topics })
    }
}

/// An error comes with no partitions, which does not mean that there are none.
fn told(error: i16, partitions: usize) -> Option<i32> {
    if error == 0 || partitions > 0 { i32::try_from(partitions).ok() } else { None }
}

fn pass_integers(reader: &mut Reader<'_>) -> Result<(), Fault> {
    let count = reader.array()?.unwrap_or(0);
    reader.take(count.saturating_mul(4)).map(drop)
}

impl<'a> ClientSoftware<'a> {
    /// An ApiVersions request, versions 0 to 5; the client is named from 3 on.
    pub(crate) fn decode(version: i16, body: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = open(key::API_VERSIONS, version, body)?;
        if version < 3 {
            return Ok(Self::default());
        }
        Ok(Self { name: reader.string()?, version: reader.string()? })
    }
}
