//! Record batches of format 2 (`RecordBatch` in Kafka's documentation of the message format): the
//! head of 61 bytes, and the records behind it, which may be compressed.

use super::inflate::Scratch;
use super::read::{Fault, Reader};
use super::types::{BatchHead, Codec, Control, Record};

/// Size of a batch's head.
const HEAD: usize = 61;

/// Where the checksum begins to count: behind itself.
const CHECKED: usize = 21;

/// The format of a batch: 0 and 1 are message sets, as clients before Kafka 0.11 wrote them.
pub(crate) fn magic(batch: &[u8]) -> Option<i8> {
    batch.get(16).map(|magic| i8::from_be_bytes([*magic]))
}

impl BatchHead {
    /// Reads the head of a batch of format 2.
    pub(crate) fn read(batch: &[u8]) -> Result<Self, Fault> {
        let mut reader = Reader::new(batch.get(..HEAD).ok_or(Fault::Short)?, false);
        let base_offset = reader.i64()?;
        reader.take(4 + 4)?; // length, leader's epoch
        if reader.i8()? != 2 {
            return Err(Fault::Bad("batch of another format than 2"));
        }
        let (crc, attributes) = (reader.i32()? as u32, reader.i16()?);
        let bit = |bit: u32| attributes & (1 << bit) != 0;
        Ok(Self {
            base_offset,
            codec: match attributes & 7 {
                0 => Codec::None,
                1 => Codec::Gzip,
                2 => Codec::Snappy,
                3 => Codec::Lz4,
                4 => Codec::Zstd,
                _ => return Err(Fault::Bad("compression that is not known")),
            },
            log_append_time: bit(3),
            transactional: bit(4),
            control: bit(5),
            crc,
            last_offset_delta: reader.i32()?,
            base_timestamp: reader.i64()?,
            max_timestamp: reader.i64()?,
            producer_id: reader.i64()?,
            producer_epoch: reader.i16()?,
            base_sequence: reader.i32()?,
            count: reader.i32()?,
        })
    }

    /// Whether the batch is as it was sealed (CRC-32C).
    pub(crate) fn is_intact(&self, batch: &[u8]) -> bool {
        batch.get(CHECKED..).is_some_and(|checked| crc32c::crc32c(checked) == self.crc)
    }
}

/// Lends each record of a batch of format 2, in order. A batch that inflates to more than `limit`
/// bytes is a fault, and so is a wrong checksum; then no record is given. Records before one that
/// is malformed have been given.
pub(crate) fn for_each_record(
    batch: &[u8],
    limit: usize,
    scratch: &mut Scratch,
    mut each: impl FnMut(Record<'_>),
) -> Result<(), Fault> {
    let head = BatchHead::read(batch)?;
    if !head.is_intact(batch) {
        return Err(Fault::Bad("wrong checksum"));
    }
    // All records of a batch may have been compacted away; nothing is compressed then.
    if head.count == 0 {
        return Ok(());
    }
    let records = &batch[HEAD..];
    let mut rest = match head.codec {
        Codec::None => records,
        codec => scratch.inflate(codec, records, limit)?,
    };
    let mut headers = Vec::new();
    for _ in 0..usize::try_from(head.count).map_err(|_| Fault::Bad("negative count"))? {
        let mut reader = Reader::new(rest, false);
        let length =
            usize::try_from(reader.varint()?).map_err(|_| Fault::Bad("negative length"))?;
        let mut record = Reader::new(reader.take(length)?, false);
        rest = reader.rest();
        record.i8()?; // attributes, of which none is in use
        let (time_delta, offset_delta) = (record.varlong()?, record.varint()?);
        let (key, value) = (field(&mut record)?, field(&mut record)?);
        headers.clear();
        for _ in 0..usize::try_from(record.varint()?).map_err(|_| Fault::Bad("negative count"))? {
            let name = field(&mut record)?.ok_or(Fault::Bad("header without a name"))?;
            headers.push((name, field(&mut record)?));
        }
        if !record.rest().is_empty() {
            return Err(Fault::Bad("record that is longer than what it says"));
        }
        let timestamp = if head.log_append_time {
            head.max_timestamp
        } else {
            // With a delete horizon too, the deltas are to what stands as the base.
            head.base_timestamp.saturating_add(time_delta)
        };
        each(Record { offset_delta, timestamp, key, value, headers: &headers });
    }
    if rest.is_empty() { Ok(()) } else { Err(Fault::Bad("bytes behind the last record")) }
}

/// Bytes with a VARINT as length, -1 for null.
fn field<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, Fault> {
    match reader.varint()? {
        -1 => Ok(None),
        length => {
            let length = usize::try_from(length).map_err(|_| Fault::Bad("negative length"))?;
            reader.take(length).map(Some)
        }
    }
}

/// What a control record says, by its key (`ControlRecordType`). `None` for what a transaction has
/// nothing to do with.
pub(crate) fn control_type(key: &[u8]) -> Option<Control> {
    let mut reader = Reader::new(key, false);
    let (_version, what) = (reader.i16().ok()?, reader.i16().ok()?);
    match what {
        0 => Some(Control::Abort),
        1 => Some(Control::Commit),
        _ => None,
    }
}
