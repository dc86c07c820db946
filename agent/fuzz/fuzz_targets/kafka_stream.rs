//! Any bytes, as a frame of records: read at once or in pieces they say the same, and where their
//! tail begins does not depend on the pieces either.
//!
//! Input: one octet of switches, one for the version, one for the size of pieces, then the body.

#![no_main]

use flowtap_agent::tap::kafka::probe;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [switches, version, size, body @ ..] = data else { return };
    let (fetch, share) = (switches & 1 == 0, switches & 2 == 0);
    let version = i16::from(*version % 20);
    let size = usize::from(*size).max(1);
    let whole = probe::stream(fetch, version, 1000, [body], |_| {});
    let pieces = probe::stream(fetch, version, 1000, body.chunks(size), |_| {});
    assert_eq!(whole, pieces);
    let whole = probe::tail(share, version, [body]);
    assert_eq!(whole, probe::tail(share, version, body.chunks(size)));
    assert!(whole.is_none_or(|tail| tail <= body.len()));
});
