//! Any bytes, as an answer that names brokers: each is given its new address, the rest stays, and
//! where the length may not change no address is left.
//!
//! Input: one octet for the API, one for the version, then the answer's body (of Fetch and
//! ShareFetch: what stands behind the records).

#![no_main]

use flowtap_agent::tap::kafka::probe::{addresses, neutralised, readdressed};
use libfuzzer_sys::fuzz_target;

/// Produce, Fetch, Metadata, FindCoordinator, DescribeCluster, ShareFetch, ShareAcknowledge.
const KEYS: [i16; 7] = [0, 1, 3, 10, 60, 78, 79];
const FETCH: i16 = 1;
const SHARE_FETCH: i16 = 78;

fuzz_target!(|data: &[u8]| {
    let [key, version, body @ ..] = data else { return };
    let key = KEYS[usize::from(*key) % KEYS.len()];
    let version = i16::from(*version % 20);
    let Some(named) = addresses(key, version, body) else {
        assert_eq!(readdressed(key, version, body, ("tap", 19100)), None);
        return;
    };
    let new = readdressed(key, version, body, ("tap", 19100)).expect("it was read a moment ago");
    let told = addresses(key, version, &new).expect("what is written can be read");
    let ids = |all: &[(i32, String, i32)]| all.iter().map(|each| each.0).collect::<Vec<_>>();
    assert_eq!(ids(&told), ids(&named), "no broker comes or goes");
    assert!(told.iter().all(|(_, host, port)| (host.as_str(), *port) == ("tap", 19100)));
    if named.is_empty() {
        assert_eq!(new.len(), body.len());
    }
    if matches!(key, FETCH | SHARE_FETCH)
        && let Some(tail) = neutralised(key, version, body)
    {
        assert_eq!(tail.len(), body.len(), "the frame's length has gone out");
        let left = addresses(key, version, &tail).expect("what is written can be read");
        assert!(left.is_empty(), "{left:?}");
    }
});
