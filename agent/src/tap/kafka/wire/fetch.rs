//! Fetch, key 1 (`FetchRequest.json`). The answer is read by [`super::stream`], as it carries
//! records.

use super::read::{Fault, Reader};
use super::types::FetchRequest;
use super::walk::{Visit, Walker};
use super::{by_topic, key, open};

impl<'a> FetchRequest<'a> {
    /// Versions 4 to 18; sessions from 7 on, ids of topics from 13 on.
    pub(crate) fn decode(version: i16, body: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = open(key::FETCH, version, body)?;
        let mut replica = if version < 15 { reader.i32()? } else { -1 };
        reader.take(4 + 4 + 4)?; // max wait, min bytes, max bytes
        let read_committed = reader.i8()? == 1;
        let (session, epoch) = if version >= 7 { (reader.i32()?, reader.i32()?) } else { (0, -1) };
        let by_id = version >= 13;
        let topics = by_topic(&mut reader, by_id, |reader| {
            let partition = reader.i32()?;
            if version >= 9 {
                reader.i32()?; // current leader epoch
            }
            let offset = reader.i64()?;
            if version >= 12 {
                reader.i32()?; // last fetched epoch
            }
            if version >= 5 {
                reader.i64()?; // log start offset
            }
            reader.i32()?; // max bytes
            reader.skip_tags()?;
            Ok((partition, offset))
        })?;
        let forgotten =
            if version >= 7 { by_topic(&mut reader, by_id, Reader::i32)? } else { Vec::new() };
        if version >= 11 {
            reader.text()?; // rack
        }
        let mut state = None;
        reader.tags(|tag, field| {
            if version >= 15 && tag == 1 {
                state = Some(Reader::new(field, true).i32()?);
            }
            Ok(())
        })?;
        replica = state.unwrap_or(replica);
        Ok(Self { replica, read_committed, session, epoch, topics, forgotten })
    }
}

/// Bytes of records in a whole Fetch answer of versions 0 to 3, of which no more is read.
pub(crate) fn old_fetch_records(version: i16, body: &[u8]) -> Result<usize, Fault> {
    if !(0..=3).contains(&version) {
        return Err(Fault::Bad("version that is not known"));
    }
    let mut reader = Reader::new(body, false);
    if version >= 1 {
        reader.i32()?; // throttle time
    }
    let mut records = 0;
    reader.pass(|reader| {
        reader.text()?; // topic
        reader.pass(|reader| {
            reader.take(4 + 2 + 8)?; // partition, error, high watermark
            records += reader.bytes()?.unwrap_or_default().len();
            Ok(())
        })?;
        Ok(())
    })?;
    Ok(records)
}

/// Bytes of records in a whole ShareFetch answer, of which no more is read.
pub(crate) fn share_fetch_records(version: i16, body: &[u8]) -> Result<usize, Fault> {
    struct Count(usize);
    impl Visit for Count {
        fn bytes(&mut self, bytes: &[u8], _left: usize) -> Result<(), Fault> {
            self.0 += bytes.len();
            Ok(())
        }
    }
    let (mut walker, mut count) = (Walker::share_fetch(version), Count(0));
    match walker.feed_to_tail(body, &mut count)? {
        Some(_) => Ok(count.0),
        None => Err(Fault::Short),
    }
}
