//! Any bytes, as every control message in every version: no decoder panics.
//!
//! Input: one octet for the version, then the message's body.

#![no_main]

use flowtap_agent::tap::kafka::probe;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some((version, body)) = data.split_first() {
        probe::decode_all(i16::from(*version as i8), body);
    }
});
