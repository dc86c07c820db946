//! What brokers offer, and what services are offered through a sidecar.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use flowtap_tests::kafka::wire::{Api, Body, call};
use flowtap_tests::kafka::{BOTH, Version};
use flowtap_tests::package_dir;

use crate::support::scene;

/// The versions of each API, and the bytes behind them: features, of which transactions of the
/// second kind follow.
fn offered(address: SocketAddr) -> (BTreeMap<i16, (i16, i16)>, Vec<u8>) {
    let api = Api { key: 18, version: 3, flexible: true };
    let body = Body::default().compact("flowtap-tests").compact("1").varint(0);
    let mut answer = call(address, api, body).expect("ApiVersions is answered");
    assert_eq!(answer.i16(), 0);
    let apis = answer.compacts(|api| {
        let found = (api.i16(), (api.i16(), api.i16()));
        api.tags();
        found
    });
    (apis.into_iter().collect(), answer.rest().to_vec())
}

/// The features' epoch changes with them only: two answers of one broker are the same.
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

/// APIs that carry neither records nor addresses pass in every version; those that rows are made of
/// must be read in the newest all the same.
#[test]
fn the_table_of_apis_knows_the_newest_versions() {
    let Some(scene) = scene(Version::V4) else { return };
    let (offered, _) = offered(scene.kafka.addresses()[0]);
    let path = package_dir().join("../agent/src/tap/kafka/wire/api.rs");
    let source = std::fs::read_to_string(&path).expect("the agent lies beside the tests");
    let mut known = 0;
    // PRODUCE = 0 "Produce" RecordsAndAddresses 3..13 flexible 9;
    for line in source.lines() {
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
