//! What brokers offer, and what services are offered through a sidecar.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use flowtap_tests::kafka::wire::{Api, Body, call};
use flowtap_tests::kafka::{BOTH, Version};
use flowtap_tests::package_dir;

use crate::support::scene;

/// What a broker offers: the versions of each API, and features by their tags, of which transactions
/// of the second kind follow.
type Offer = (BTreeMap<i16, (i16, i16)>, BTreeMap<u64, Vec<u8>>);

/// `FinalizedFeaturesEpoch`: it goes on with whatever is written to the cluster's metadata.
const EPOCH: u64 = 1;

fn offered(address: SocketAddr) -> Offer {
    let api = Api { key: 18, version: 3, flexible: true };
    let body = Body::default().compact("flowtap-tests").compact("1").varint(0);
    let mut answer = call(address, api, body).expect("ApiVersions is answered");
    assert_eq!(answer.i16(), 0);
    let apis = answer.compacts(|api| {
        let found = (api.i16(), (api.i16(), api.i16()));
        api.tags();
        found
    });
    answer.i32();
    let mut features = answer.tagged();
    assert_eq!(features.remove(&EPOCH).map(|epoch| epoch.len()), Some(8), "{features:?}");
    assert!(!features.is_empty(), "features are told");
    (apis.into_iter().collect(), features)
}

#[test]
fn services_are_offered_what_the_broker_offers() {
    for version in BOTH {
        let Some(scene) = scene(version) else { continue };
        let way = scene.way("shop");
        let Some(sidecar) = way.sidecar() else { return };
        let direct = offered(scene.kafka.addresses()[0]);
        let through = offered(SocketAddr::from((Ipv4Addr::LOCALHOST, sidecar.port())));
        // Also Produce from version 0 on, without which librdkafka would not compress. A broker
        // that offers newer versions of what carries records or addresses than the sidecar can read
        // would be lowered, and seen here: the table of APIs is to be brought up to date.
        assert_eq!(through, direct, "{version:?}");
    }
}

/// A file of the Kafka tap.
fn source(name: &str) -> String {
    let path = package_dir().join("../agent/src/tap/kafka").join(name);
    std::fs::read_to_string(&path).expect("the agent lies beside the tests")
}

/// APIs that carry neither records nor addresses pass in every version; those that rows are made of
/// must be read in the newest all the same.
#[test]
fn the_table_of_apis_knows_the_newest_versions() {
    let Some(scene) = scene(Version::V4) else { return };
    let (offered, _) = offered(scene.kafka.addresses()[0]);
    let mut known = 0;
    // PRODUCE = 0 "Produce" RecordsAndAddresses 3..13 flexible 9;
    for line in source("wire/api.rs").lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, "=", key, name, _, versions, "flexible", _] = words[..] else { continue };
        let Ok(key) = key.parse::<i16>() else { continue };
        let (_, newest) = versions.split_once("..").expect("a range of versions");
        let newest: i16 = newest.parse().expect("a version");
        if let Some((_, at_broker)) = offered.get(&key) {
            assert!(*at_broker <= newest, "{name}: the broker has {at_broker}, known is {newest}");
            known += 1;
        }
    }
    assert!(known > 15, "the table was read: {known}");
}

/// Of an API that is newer than all that were known nobody can say whether it carries records or
/// addresses: whoever raises this number has looked.
#[test]
fn no_api_is_newer_than_those_that_were_looked_at() {
    let Some(scene) = scene(Version::V4) else { return };
    let (offered, _) = offered(scene.kafka.addresses()[0]);
    let newest: i16 = source("conversation/requests.rs")
        .lines()
        .find_map(|line| line.strip_prefix("const NEWEST_KEY: i16 = ")?.strip_suffix(';'))
        .expect("the tap says up to where it knows APIs")
        .parse()
        .expect("a number");
    let (newest_offered, _) = offered.last_key_value().expect("a broker offers something");
    assert!(*newest_offered <= newest, "the broker offers {newest_offered}, looked at: {newest}");
}
