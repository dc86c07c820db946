use std::fs;

use flowtap_record::Kind;
use proptest::prelude::*;

use super::*;

fn rows_of(numbers: &[i64]) -> Vec<u8> {
    let mut rows = Vec::new();
    for number in numbers {
        let text = format!("row {number}");
        let mut row = Observation::new(Kind::Publish, Micros(*number));
        row.details = Some(&text);
        assert!(push_row(&mut rows, &row, usize::MAX));
    }
    rows
}

/// A segment of frames that hold these many rows each, and where each frame ends.
fn segment(counts: &[u32]) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut ends, mut next) = (MAGIC.to_vec(), Vec::new(), 1);
    for count in counts {
        let numbers: Vec<i64> = (next..next + i64::from(*count)).collect();
        push_frame(&mut bytes, next, *count, &rows_of(&numbers));
        next += i64::from(*count);
        ends.push(bytes.len());
    }
    (bytes, ends)
}

/// Numbers of the rows that can be read, and where the torn tail begins.
fn read(bytes: &[u8]) -> (Vec<i64>, u64, Option<Micros>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    let mut reader = SegmentReader::open(file.path(), Seq(1)).unwrap();
    let mut numbers = Vec::new();
    while let Some(frame) = reader.next_frame().unwrap() {
        for (seq, row) in frame.rows() {
            let row = row.unwrap();
            assert_eq!((row.at.0, row.details), (seq.0, Some(format!("row {}", seq.0).as_str())));
            numbers.push(seq.0);
        }
    }
    (numbers, reader.good_end(), reader.watermark())
}

#[test]
fn frames_read_back_and_the_trailer_tells_the_watermark() {
    let (mut bytes, _) = segment(&[1, 3, 2]);
    push_trailer(&mut bytes, 7, Micros(99));
    assert_eq!(read(&bytes), (vec![1, 2, 3, 4, 5, 6], bytes.len() as u64, Some(Micros(99))));
}

#[test]
fn a_tail_torn_at_any_byte_costs_its_own_frame_only() {
    let (bytes, ends) = segment(&[2, 1, 3]);
    for cut in ends[1]..ends[2] {
        assert_eq!(read(&bytes[..cut]), (vec![1, 2, 3], ends[1] as u64, None), "cut at {cut}");
    }
}

#[test]
fn a_bit_flipped_at_any_byte_costs_its_own_frame_only() {
    let (bytes, ends) = segment(&[2, 1, 3]);
    let kept = [vec![3, 4, 5, 6], vec![1, 2, 4, 5, 6], vec![1, 2, 3]];
    let mut start = MAGIC.len();
    for (frame, end) in ends.iter().enumerate() {
        for at in start..*end {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert_eq!(read(&flipped).0, kept[frame], "byte {at} bit {bit}");
            }
        }
        start = *end;
    }
}

#[test]
fn a_segment_of_another_version_has_no_rows() {
    let (mut bytes, _) = segment(&[2]);
    bytes[7] += 1;
    assert_eq!(read(&bytes).0, Vec::<i64>::new());
    assert_eq!(read(&bytes[..3]).0, Vec::<i64>::new());
    assert_eq!(read(&[]).0, Vec::<i64>::new());
}

#[test]
fn a_row_that_does_not_fit_leaves_no_trace() {
    let mut rows = rows_of(&[1]);
    let before = rows.clone();
    let row = Observation::new(Kind::Publish, Micros(2));
    for limit in 0..before.len() + 8 {
        assert!(!push_row(&mut rows, &row, limit), "limit {limit}");
        assert_eq!(rows, before);
    }
}

/// A change of the layout of [`Observation`] must change [`MAGIC`]: spools outlive versions.
#[test]
fn the_layout_of_a_row_on_disk_is_that_of_this_magic() {
    let mut row = Observation::new(Kind::Gap, Micros(1));
    row.reason = Some("r");
    row.details = Some("d");
    row.concludes = Some(flowtap_record::RowRef { boot: Some("b"), seq: Seq(2) });
    row.message.keys = vec![flowtap_record::Field {
        name: "n",
        value: "v",
        encoding: flowtap_record::Encoding::Base64,
    }];
    row.message.payload = Some(&[1, 2]);
    row.confidence = Some(0.5);
    row.gap.count = Some(3);
    let mut bytes = Vec::new();
    assert!(push_row(&mut bytes, &row, usize::MAX));
    let hex: String = bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    assert_eq!(hex, GOLDEN);
}

const GOLDEN: &str = concat!(
    "4b00000002000a0001017201016400010101620400000000000000000000000000000000000000000000000000",
    "01016e01760200000001020102000000000000000001000000000000e03f00000106",
);

proptest! {
    #[test]
    fn whatever_is_cut_or_flipped_no_wrong_row_is_read(
        counts in prop::collection::vec(1_u32..20, 1..8),
        cut in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 0..4),
    ) {
        let (mut bytes, _) = segment(&counts);
        bytes.truncate(cut.index(bytes.len()) + 1);
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        // `read` itself compares each row's content with its number.
        let (numbers, good_end, _) = read(&bytes);
        prop_assert!(numbers.is_sorted_by(|a, b| a < b));
        prop_assert!(good_end <= bytes.len() as u64);
    }

    #[test]
    fn bytes_of_any_kind_make_no_reader_fail(bytes: Vec<u8>) {
        let mut segment = MAGIC.to_vec();
        segment.extend(bytes);
        prop_assert_eq!(read(&segment).0, Vec::<i64>::new());
    }
}
