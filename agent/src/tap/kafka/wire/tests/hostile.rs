//! Messages that nobody would send who means well.

use proptest::prelude::*;

use super::batches::{records, seal};
use super::*;
use crate::tap::kafka::probe::decode_all;

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(version in -2i16..20, bytes: Vec<u8>) {
        decode_all(version, &bytes);
    }

    #[test]
    fn nor_do_few_kinds_of_bytes(
        version in -2i16..20,
        bytes in proptest::collection::vec(
            proptest::sample::select(vec![0u8, 0, 0, 1, 2, 3, 0x7f, 0x80, 0xff]), 0..400),
    ) {
        decode_all(version, &bytes);
    }
}

#[test]
fn counts_that_cannot_be_are_faults() {
    let plain = |count: i32| [&0i32.to_be_bytes()[..], &count.to_be_bytes(), &[0; 40]].concat();
    for count in [i32::MAX, i32::MIN, -2, 1000] {
        assert!(CommitResponse::decode(key::OFFSET_COMMIT, 3, &plain(count)).is_err());
        assert!(Topics::metadata(3, &plain(count)).is_err());
    }
    for count in
        [&b"\xff\xff\xff\xff\x0f"[..], b"\xff\xff\xff\xff\x7f", b"\x80\x80\x80\x80\x80\x80"]
    {
        let bytes = [&0i32.to_be_bytes()[..], count, &[0; 40]].concat();
        assert!(CommitResponse::decode(key::OFFSET_COMMIT, 9, &bytes).is_err());
        assert!(Topics::metadata(9, &bytes).is_err());
        assert!(auth_bytes(2, count).is_err());
    }
    // Integers of an array whose size overflows when it is multiplied.
    let mut replicas = vec![0, 0, 0, 0, 1, 0, 0, 0, 0, 0]; // throttle time to controller
    replicas.extend([2, 0, 0, 1, 0]); // one topic: error, name, internal
    replicas.extend([2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // one partition
    replicas.extend(b"\xff\xff\xff\xff\x0f");
    assert_eq!(Topics::metadata(9, &replicas), Err(Fault::Short));
}

#[test]
fn lengths_that_cannot_be_are_faults() {
    for bytes in [&b"\xff\xfe"[..], b"\x80\0", b"\x7f\xff"] {
        assert!(handshake_mechanism(1, bytes).is_err());
    }
    // Null where a name must be.
    assert_eq!(handshake_mechanism(1, b"\xff\xff"), Err(Fault::Bad("null where a string must be")));
    for bytes in [&b"\xff\xff\xff\xfe"[..], b"\x80\0\0\0", b"\x7f\xff\xff\xff"] {
        assert!(auth_bytes(1, bytes).is_err());
    }
    // A compact string that is longer than others can be is not waited for.
    let mut stream = RecordStream::produce(9, 1000);
    let result = stream.feed(b"\xff\xff\xff\x7f", &mut |_| {});
    assert_eq!(result, Err(Fault::Bad("length that nothing may have")));
}

#[test]
fn a_stream_that_counts_too_much_takes_no_memory() {
    // Fetch 4: throttle time, one topic, one partition, 2^31-1 aborted transactions.
    let mut bytes = [&[0; 4][..], &[0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1], &[0; 22]].concat();
    bytes.extend(i32::MAX.to_be_bytes());
    bytes.extend([1; 64]);
    let mut stream = RecordStream::fetch(4, 1000);
    assert_eq!(stream.feed(&bytes, &mut |_| {}), Ok(()));
    assert_eq!(stream.kept(), 1 + 64);
    let mut result = Ok(());
    let piece = vec![1; 1 << 20];
    for _ in 0..40 {
        result = result.and_then(|()| stream.feed(&piece, &mut |_| {}));
    }
    assert!(matches!(result, Err(Fault::Bad(_))));
    assert!(stream.kept() <= 17 << 20);
}

#[test]
fn batches_that_say_what_cannot_be_are_faults() {
    let head = |length: i32| {
        let mut bytes = vec![0, 0, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, b't'];
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 0]);
        bytes.extend(100i32.to_be_bytes());
        bytes.extend([0; 8]);
        bytes.extend(length.to_be_bytes());
        bytes
    };
    for length in [-1, 0, 13, i32::MIN] {
        let mut stream = RecordStream::produce(3, 1000);
        let bytes = [&head(length)[2..], &[0; 88]].concat();
        assert!(matches!(stream.feed(&bytes, &mut |_| {}), Err(Fault::Bad(_))), "{length}");
    }
    let one =
        |body: &[u8], count| records(&seal(0, count, 0, 0, body), 1 << 20, &mut Scratch::default());
    let record: &[u8] = &[12, 0, 0, 0, 1, 1, 0]; // 6 bytes: no key, no value, no headers
    assert_eq!(one(record, 1).map(|records| records.len()), Ok(1));
    let table: &[(&[u8], i32)] = &[
        (record, 2),
        (record, i32::MAX),
        (record, -1),
        (&[record, &[0]].concat(), 1),
        (&[14, 0, 0, 0, 1, 1, 0, 0], 1), // a byte left in the record
        (&[13, 0, 0, 0, 1, 1, 0], 1),    // negative length
        (&[12, 0, 0, 0, 3, 1, 0], 1),    // key of -2 bytes
        (&[12, 0, 0, 0, 1, 1, 1], 1),    // -1 headers
        (&[16, 0, 0, 0, 1, 1, 2, 1, 1], 1), // header without a name
        (&[20, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f], 1), // 2^31-1 headers
        (&[0xfe, 0xff, 0xff, 0xff, 0x0f, 0], 1), // record of 2^31-1 bytes
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 1), // number without an end
    ];
    for (bytes, count) in table {
        assert!(one(bytes, *count).is_err(), "{bytes:?}");
    }
    for codec in 5..8 {
        let batch = seal(codec, 1, 0, 0, record);
        assert!(records(&batch, 1 << 20, &mut Scratch::default()).is_err());
    }
}
