//! OffsetCommit, TxnOffsetCommit and OffsetFetch: keys 8, 28 and 9 (`OffsetCommitRequest.json` and
//! so on). From OffsetCommit 10, TxnOffsetCommit 6 and OffsetFetch 10 on topics have ids.

use super::read::{Fault, Reader};
use super::types::{CommitRequest, CommitResponse, OffsetFetchRequest, OffsetFetchResponse};
use super::{by_topic, key, one_topic, open};

impl<'a> CommitRequest<'a> {
    /// OffsetCommit 2 to 10, TxnOffsetCommit 0 to 6.
    pub(crate) fn decode(key: i16, version: i16, body: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = open(key, version, body)?;
        match key {
            key::OFFSET_COMMIT => Self::plain(version, &mut reader),
            key::TXN_OFFSET_COMMIT => Self::transactional(version, &mut reader),
            _ => Err(Fault::Bad("no commit of offsets")),
        }
    }

    fn plain(version: i16, reader: &mut Reader<'a>) -> Result<Self, Fault> {
        let (group, generation, member) = (reader.text()?, reader.i32()?, reader.text()?);
        if version >= 7 {
            reader.string()?; // static id
        }
        if version <= 4 {
            reader.i64()?; // retention
        }
        let topics = offsets(reader, version >= 10, version >= 6)?;
        reader.skip_tags()?;
        Ok(Self { group, transaction: None, generation, member, topics })
    }

    fn transactional(version: i16, reader: &mut Reader<'a>) -> Result<Self, Fault> {
        let (transactional_id, group) = (reader.text()?, reader.text()?);
        let transaction = Some((transactional_id, reader.i64()?, reader.i16()?));
        let (mut generation, mut member) = (-1, &b""[..]);
        if version >= 3 {
            (generation, member) = (reader.i32()?, reader.text()?);
            reader.string()?; // static id
        }
        let topics = offsets(reader, version >= 6, version >= 2)?;
        reader.skip_tags()?;
        Ok(Self { group, transaction, generation, member, topics })
    }
}

/// What is committed: (partition, offset) by topic.
fn offsets<'a>(
    reader: &mut Reader<'a>,
    by_id: bool,
    leader_epoch: bool,
) -> Result<super::ByTopic<'a, (i32, i64)>, Fault> {
    by_topic(reader, by_id, |reader| {
        let committed = (reader.i32()?, reader.i64()?);
        if leader_epoch {
            reader.i32()?;
        }
        reader.string()?; // the client's own words
        reader.skip_tags()?;
        Ok(committed)
    })
}

impl<'a> CommitResponse<'a> {
    /// OffsetCommit 2 to 10, TxnOffsetCommit 0 to 6.
    pub(crate) fn decode(key: i16, version: i16, body: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = open(key, version, body)?;
        let (throttled, by_id) = match key {
            key::OFFSET_COMMIT => (version >= 3, version >= 10),
            key::TXN_OFFSET_COMMIT => (true, version >= 6),
            _ => return Err(Fault::Bad("no commit of offsets")),
        };
        if throttled {
            reader.i32()?;
        }
        let topics = by_topic(&mut reader, by_id, |reader| {
            let result = (reader.i32()?, reader.i16()?);
            reader.skip_tags()?;
            Ok(result)
        })?;
        reader.skip_tags()?;
        Ok(Self { topics })
    }
}

impl<'a> OffsetFetchRequest<'a> {
    /// Versions 1 to 10; several groups from 8 on.
    pub(crate) fn decode(version: i16, body: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = open(key::OFFSET_FETCH, version, body)?;
        let one = |reader: &mut Reader<'a>| {
            let group = reader.text()?;
            let mut member = None;
            if version >= 9 {
                member = reader.string()?;
                reader.i32()?; // member epoch
            }
            let topics =
                reader.each_if_any(|reader| one_topic(reader, version >= 10, Reader::i32))?;
            Ok((group, member, topics))
        };
        let groups = if version >= 8 {
            reader.each(|reader| {
                let group = one(reader)?;
                reader.skip_tags()?;
                Ok(group)
            })?
        } else {
            vec![one(&mut reader)?]
        };
        if version >= 7 {
            reader.bool()?; // whether to wait for open transactions
        }
        reader.skip_tags()?;
        Ok(Self { groups })
    }
}

impl<'a> OffsetFetchResponse<'a> {
    /// Versions 1 to 10; several groups from 8 on.
    pub(crate) fn decode(version: i16, body: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = open(key::OFFSET_FETCH, version, body)?;
        if version >= 3 {
            reader.i32()?; // throttle time
        }
        let topics = |reader: &mut Reader<'a>| {
            by_topic(reader, version >= 10, |reader| {
                let (partition, offset) = (reader.i32()?, reader.i64()?);
                if version >= 5 {
                    reader.i32()?; // leader epoch
                }
                reader.string()?; // the client's own words
                let error = reader.i16()?;
                reader.skip_tags()?;
                Ok((partition, offset, error))
            })
        };
        let groups = if version >= 8 {
            reader.each(|reader| {
                let (group, topics, error) = (reader.text()?, topics(reader)?, reader.i16()?);
                reader.skip_tags()?;
                Ok((group, error, topics))
            })?
        } else {
            let topics = topics(&mut reader)?;
            let error = if version >= 2 { reader.i16()? } else { 0 };
            vec![(&b""[..], error, topics)]
        };
        reader.skip_tags()?;
        Ok(Self { groups })
    }
}
