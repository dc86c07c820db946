//! Produce, key 0 (`ProduceResponse.json`). The request is read by [`super::stream`], as it
//! carries records.

use super::read::Fault;
use super::types::{ProduceResponse, Produced};
use super::{by_topic, key, open};

impl<'a> ProduceResponse<'a> {
    /// Versions 3 to 13; from 13 on topics have ids.
    pub(crate) fn decode(version: i16, body: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = open(key::PRODUCE, version, body)?;
        let topics = by_topic(&mut reader, version >= 13, |reader| {
            let mut produced = Produced {
                partition: reader.i32()?,
                error: reader.i16()?,
                base_offset: reader.i64()?,
                append_time: reader.i64()?,
                at_fault: Vec::new(),
                message: None,
            };
            if version >= 5 {
                reader.i64()?; // log start offset
            }
            if version >= 8 {
                produced.at_fault = reader.each(|reader| {
                    let index = reader.i32()?;
                    reader.string()?; // why
                    reader.skip_tags()?;
                    Ok(index)
                })?;
                produced.message = reader.string()?;
            }
            reader.skip_tags()?;
            Ok(produced)
        })?;
        reader.i32()?; // throttle time
        reader.skip_tags()?;
        Ok(Self { topics })
    }
}
