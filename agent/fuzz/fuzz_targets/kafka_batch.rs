//! Any bytes behind the head of a batch, in every codec: its records are read or there is a fault,
//! and no more is inflated than allowed.
//!
//! Input: one octet for the codec and whether the bytes are compressed first, one for the number
//! of records, then the bytes.

#![no_main]

use std::io::Write as _;

use flowtap_agent::tap::kafka::probe::Batches;
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 1 << 20;

/// Most inputs would not find the way through a codec.
fn compress(codec: u8, bytes: &[u8]) -> Vec<u8> {
    match codec {
        1 => {
            let level = flate2::Compression::fast();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(bytes).expect("to memory");
            encoder.finish().expect("to memory")
        }
        2 => snap::raw::Encoder::new().compress_vec(bytes).expect("to memory"),
        3 => {
            let mut frame = vec![0x04, 0x22, 0x4d, 0x18, 0x60, 0x70, 0];
            let block = lz4_flex::block::compress(bytes);
            frame.extend((block.len() as u32).to_le_bytes());
            frame.extend(block);
            frame.extend([0; 4]);
            frame
        }
        4 => zstd::bulk::compress(bytes, 1).expect("to memory"),
        _ => bytes.to_vec(),
    }
}

fuzz_target!(|data: &[u8]| {
    let [switches, count, bytes @ ..] = data else { return };
    let codec = switches & 7;
    let bytes = if switches & 8 == 0 { bytes.to_vec() } else { compress(codec, bytes) };
    let mut batch = vec![0; 8];
    batch.extend((49 + bytes.len() as i32).to_be_bytes());
    batch.extend([0, 0, 0, 0, 2, 0, 0, 0, 0, 0, codec | switches & 0x38]);
    batch.extend([0; 34]);
    batch.extend([0, 0, 0, *count]);
    batch.extend(bytes);
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());

    let mut batches = Batches::default();
    let mut read = || {
        let mut size = 0;
        let result = batches.read(&batch, LIMIT, |key, value, headers| {
            size += key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
            for (name, value) in headers {
                size += name.len() + value.map_or(0, <[u8]>::len);
            }
        });
        (result, size)
    };
    let first = read();
    assert!(first.1 <= LIMIT.max(batch.len()));
    assert_eq!(first, read(), "what an earlier batch has left behind makes no difference");
});
