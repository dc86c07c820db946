//! Batches and their records, in every codec and framing.

use std::io::Write as _;

use kafka_protocol::records::{
    Compression, Record as TheirRecord, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use proptest::prelude::*;

use super::*;

/// What inflated batches may be in these tests.
const LIMIT: usize = 1 << 20;

/// A record, kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Kept {
    pub(super) offset_delta: i32,
    pub(super) timestamp: i64,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

pub(super) fn records(
    batch: &[u8],
    limit: usize,
    scratch: &mut Scratch,
) -> Result<Vec<Kept>, Fault> {
    let mut kept = Vec::new();
    for_each_record(batch, limit, scratch, |record| {
        let own = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        kept.push(Kept {
            offset_delta: record.offset_delta,
            timestamp: record.timestamp,
            key: own(record.key),
            value: own(record.value),
            headers: record.headers.iter().map(|(name, it)| (name.to_vec(), own(*it))).collect(),
        });
    })?;
    Ok(kept)
}

fn zigzag(out: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

fn field(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    zigzag(out, bytes.map_or(-1, |bytes| bytes.len() as i64));
    out.extend_from_slice(bytes.unwrap_or_default());
}

/// Records as they stand behind a batch's head, with times relative to `base`.
pub(super) fn encode_records(records: &[Kept], base: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        let mut body = vec![0];
        zigzag(&mut body, record.timestamp - base);
        zigzag(&mut body, record.offset_delta.into());
        field(&mut body, record.key.as_deref());
        field(&mut body, record.value.as_deref());
        zigzag(&mut body, record.headers.len() as i64);
        for (name, value) in &record.headers {
            field(&mut body, Some(name));
            field(&mut body, value.as_deref());
        }
        zigzag(&mut bytes, body.len() as i64);
        bytes.extend(body);
    }
    bytes
}

/// A batch of format 2 with a right checksum.
pub(super) fn seal(attributes: i16, count: i32, base: i64, max: i64, records: &[u8]) -> Vec<u8> {
    let mut bytes = 1000i64.to_be_bytes().to_vec();
    bytes.extend((49 + records.len() as i32).to_be_bytes());
    bytes.extend([0, 0, 0, 7, 2, 0, 0, 0, 0]); // leader's epoch, format, checksum
    bytes.extend(attributes.to_be_bytes());
    bytes.extend((count - 1).to_be_bytes());
    bytes.extend(base.to_be_bytes());
    bytes.extend(max.to_be_bytes());
    bytes.extend(77i64.to_be_bytes());
    bytes.extend(3i16.to_be_bytes());
    bytes.extend(40i32.to_be_bytes());
    bytes.extend(count.to_be_bytes());
    bytes.extend(records);
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn snappy(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).unwrap()
}

/// snappy-java's framing; its header again before every block but the first, when `repeated`.
fn xerial(bytes: &[u8], block: usize, repeated: bool) -> Vec<u8> {
    const HEADER: &[u8] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
    let mut framed = HEADER.to_vec();
    for (index, block) in bytes.chunks(block).enumerate() {
        if repeated && index > 0 {
            framed.extend(HEADER);
        }
        let block = snappy(block);
        framed.extend((block.len() as i32).to_be_bytes());
        framed.extend(block);
    }
    framed
}

/// An LZ4 frame of 64 KiB blocks, as they come with or without everything that is optional.
fn lz4(bytes: &[u8], linked: bool, optional: bool) -> Vec<u8> {
    let mut flags = 0x40 | if linked { 0 } else { 0x20 };
    if optional {
        flags |= 0x10 | 0x08 | 0x04; // checksums of blocks, size and checksum of the content
    }
    let mut frame = vec![0x04, 0x22, 0x4d, 0x18, flags, 0x40];
    if optional {
        frame.extend((bytes.len() as u64).to_le_bytes());
    }
    frame.push(0); // checksum of the header, which Kafka has got wrong for years
    for (index, block) in bytes.chunks(1 << 16).enumerate() {
        let start = index << 16;
        let packed = if linked && index > 0 {
            lz4_flex::block::compress_with_dict(block, &bytes[start - (1 << 16)..start])
        } else {
            lz4_flex::block::compress(block)
        };
        // Every third block is stored.
        if index % 3 == 1 && !linked {
            frame.extend((block.len() as u32 | 1 << 31).to_le_bytes());
            frame.extend(block);
        } else {
            frame.extend((packed.len() as u32).to_le_bytes());
            frame.extend(packed);
        }
        if optional {
            frame.extend([0; 4]);
        }
    }
    frame.extend([0; 4]);
    if optional {
        frame.extend([0; 4]);
    }
    frame
}

/// Without its size in the header, as streams write it, or with it.
pub(super) fn zstd(bytes: &[u8], with_size: bool) -> Vec<u8> {
    if with_size {
        return zstd::bulk::compress(bytes, 3).unwrap();
    }
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The same bytes in every codec, with its number.
fn packed(bytes: &[u8]) -> Vec<(i16, Vec<u8>)> {
    let half = bytes.len() / 2;
    vec![
        (0, bytes.to_vec()),
        (1, gzip(bytes)),
        (1, [gzip(&bytes[..half]), gzip(&bytes[half..])].concat()),
        (2, snappy(bytes)),
        (2, xerial(bytes, 1 << 15, false)),
        (2, xerial(bytes, 1000, true)),
        (3, lz4(bytes, false, false)),
        (3, lz4(bytes, false, true)),
        (3, lz4(bytes, true, false)),
        (4, zstd(bytes, false)),
        (4, zstd(bytes, true)),
        (4, [zstd(&bytes[..half], false), zstd(&bytes[half..], true)].concat()),
    ]
}

fn some_records(dice: &mut Dice) -> Vec<Kept> {
    let mut offset_delta = 0;
    let count = 1 + dice.below(20);
    let large = dice.one_of([0, 0, 30_000]);
    (0..count)
        .map(|_| {
            // Holes, where compaction took records away.
            offset_delta += 1 + dice.below_one_of([1, 1, 300]) as i32;
            Kept {
                offset_delta,
                timestamp: 1_700_000_000_000 + i64::from(dice.any::<i16>()),
                key: dice.any::<bool>().then(|| dice.bytes().to_vec()),
                value: (dice.below(5) > 0).then(|| {
                    let letter = dice.any();
                    [vec![letter; large], dice.bytes().to_vec()].concat()
                }),
                headers: dice.some(|dice| {
                    let name = [b"trace".to_vec(), dice.bytes().to_vec()];
                    (name[dice.below(2)].clone(), dice.any::<bool>().then(|| dice.bytes().to_vec()))
                }),
            }
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn records_are_read_in_every_codec_and_framing(seed: u64) {
        let mut dice = Dice::new(seed);
        // One scratch for all of them, as it is in use.
        let mut scratch = Scratch::default();
        let expected = some_records(&mut dice);
        let bytes = encode_records(&expected, 1_700_000_000_000);
        let count = expected.len() as i32;
        for (codec, packed) in packed(&bytes) {
            let batch = seal(codec, count, 1_700_000_000_000, 0, &packed);
            let read = records(&batch, LIMIT * 8, &mut scratch);
            assert_eq!(read.as_ref(), Ok(&expected), "codec {codec}");
        }
    }

    #[test]
    fn batches_of_another_implementation_are_read(seed: u64) {
        let mut dice = Dice::new(seed);
        let codecs =
            [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Zstd];
        let compression = codecs[dice.below(4)];
        let mut offset = 5;
        let theirs: Vec<_> = (0..=dice.below(20)).map(|_| {
            offset += 1;
            TheirRecord {
                transactional: true,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: 1,
                producer_id: 9,
                producer_epoch: 2,
                timestamp_type: TimestampType::Creation,
                offset,
                sequence: offset as i32,
                timestamp: dice.any::<i32>().into(),
                key: dice.any::<bool>().then(|| dice.bytes()),
                value: dice.any::<bool>().then(|| dice.bytes()),
                headers: dice.some(|dice| (dice.text(), Some(dice.bytes()))).into_iter().collect(),
            }
        }).collect();
        let options = RecordEncodeOptions { version: 2, compression };
        let mut bytes = BytesMut::new();
        let compress = |from: &mut BytesMut, to: &mut BytesMut, compression| {
            to.extend_from_slice(&match compression {
                Compression::Gzip => gzip(from),
                Compression::Snappy => snappy(from),
                Compression::Zstd => zstd(from, true),
                _ => from.to_vec(),
            });
            Ok(())
        };
        RecordBatchEncoder::encode_with_custom_compression(
            &mut bytes, &theirs, &options, Some(compress),
        ).unwrap();
        let head = BatchHead::read(&bytes).unwrap();
        assert_eq!((head.base_offset, head.base_sequence), (6, 6));
        assert_eq!((head.producer_id, head.producer_epoch), (9, 2));
        assert_eq!((head.count, head.last_offset_delta), (theirs.len() as i32, theirs.len() as i32 - 1));
        assert!(head.transactional && !head.control && !head.log_append_time);
        assert_eq!(head.max_timestamp, theirs.iter().map(|it| it.timestamp).max().unwrap());
        let own = |bytes: &Option<Bytes>| bytes.as_ref().map(|bytes| bytes.to_vec());
        let expected: Vec<_> = theirs.iter().map(|it| Kept {
            offset_delta: (it.offset - 6) as i32,
            timestamp: it.timestamp,
            key: own(&it.key),
            value: own(&it.value),
            headers: it.headers.iter().map(|(name, it)| (text(name).to_vec(), own(it))).collect(),
        }).collect();
        assert_eq!(records(&bytes, LIMIT, &mut Scratch::default()), Ok(expected));
    }

    #[test]
    fn damaged_batches_never_panic(seed: u64) {
        let mut dice = Dice::new(seed);
        let mut scratch = Scratch::default();
        let bytes = encode_records(&some_records(&mut dice), 0);
        for (codec, packed) in packed(&bytes) {
            let mut batch = seal(codec, 20, 0, 0, &packed);
            for _ in 0..3 {
                let at = 21 + dice.below(batch.len() - 21);
                batch[at] = dice.any();
                let crc = crc32c::crc32c(&batch[21..]);
                batch[17..21].copy_from_slice(&crc.to_be_bytes());
                let _ = records(&batch, LIMIT, &mut scratch);
            }
            let cut = dice.below(batch.len());
            let _ = records(&batch[..cut], LIMIT, &mut scratch);
        }
    }
}

fn one() -> Kept {
    Kept { timestamp: 5, value: Some(b"v".to_vec()), ..Kept::default() }
}

#[test]
fn with_log_append_time_every_record_has_the_maximum() {
    let bytes = encode_records(&[one(), one()], 0);
    let times = |attributes| {
        let batch = seal(attributes, 2, 100, 900, &bytes);
        let records = records(&batch, LIMIT, &mut Scratch::default()).unwrap();
        records.iter().map(|it| it.timestamp).collect::<Vec<_>>()
    };
    assert_eq!(times(1 << 3), [900, 900]);
    assert_eq!(times(0), [105, 105]);
    assert_eq!(
        times(1 << 6),
        [105, 105],
        "a delete horizon is the base of the deltas all the same"
    );
}

#[test]
fn a_batch_may_have_lost_all_its_records() {
    for codec in 0..=4 {
        let batch = seal(codec, 0, 0, 0, b"");
        assert_eq!(records(&batch, LIMIT, &mut Scratch::default()), Ok(Vec::new()));
    }
}

#[test]
fn control_records_say_how_a_transaction_ended() {
    assert_eq!(control_type(&[0, 0, 0, 0]), Some(Control::Abort));
    assert_eq!(control_type(&[0, 0, 0, 1]), Some(Control::Commit));
    assert_eq!(control_type(&[0, 0, 0, 2]), None, "a change of leaders");
    assert_eq!(control_type(&[0, 0, 0]), None);
    let head = BatchHead::read(&seal(0b11_0000, 1, 0, 0, b"")).unwrap();
    assert!(head.control && head.transactional);
}

#[test]
fn what_inflates_to_the_limit_is_read_and_a_byte_more_is_not() {
    let value = Some(vec![b'a'; 300_000]);
    let bytes = encode_records(&[Kept { value, ..one() }], 0);
    for (codec, packed) in packed(&bytes).into_iter().skip(1) {
        let batch = seal(codec, 1, 0, 0, &packed);
        let mut scratch = Scratch::default();
        let fault = Fault::Bad("inflates to more than the limit");
        for _ in 0..2 {
            // What a larger batch has left behind makes no difference.
            assert!(records(&batch, bytes.len(), &mut scratch).is_ok(), "codec {codec}");
            for limit in [bytes.len() - 1, 100] {
                assert_eq!(records(&batch, limit, &mut scratch), Err(fault), "codec {codec}");
            }
        }
    }
}

#[test]
fn a_bomb_costs_its_batch_and_no_memory() {
    let bomb = vec![0; 32 << 20];
    for (codec, packed) in [(1, gzip(&bomb)), (4, zstd(&bomb, false)), (4, zstd(&bomb, true))] {
        let mut scratch = Scratch::default();
        let batch = seal(codec, 1, 0, 0, &packed);
        assert!(batch.len() < 1 << 20);
        assert!(records(&batch, LIMIT, &mut scratch).is_err());
        assert!(scratch.room() <= LIMIT + 1);
    }
    // Sizes that are only claimed.
    let claims: [(i16, &[u8]); 3] = [
        (2, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0]),
        (2, b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\x7f\xff\xff\xff"),
        (4, &[0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x10, 1, 0, 0]),
    ];
    for (codec, bytes) in claims {
        let mut scratch = Scratch::default();
        assert!(records(&seal(codec, 1, 0, 0, bytes), LIMIT, &mut scratch).is_err());
        assert_eq!(scratch.room(), 0, "nothing is made by a claim");
    }
}

#[test]
fn a_wrong_checksum_gives_no_record() {
    let mut batch = seal(0, 1, 0, 0, &encode_records(&[one()], 0));
    *batch.last_mut().unwrap() ^= 1;
    assert_eq!(records(&batch, LIMIT, &mut Scratch::default()), Err(Fault::Bad("wrong checksum")));
    // What the broker writes into a batch is not part of it.
    *batch.last_mut().unwrap() ^= 1;
    batch[..8].copy_from_slice(&[1; 8]);
    batch[12..16].copy_from_slice(&[1; 4]);
    assert!(records(&batch, LIMIT, &mut Scratch::default()).is_ok());
}
