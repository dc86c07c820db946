//! What clients are offered, and what happens to those who do not ask.

use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use kafka_protocol::protocol::Message as _;

use super::*;

fn offered(version: i16, apis: &[(i16, i16, i16)]) -> Vec<u8> {
    let api = |(key, oldest, newest): &(i16, i16, i16)| {
        ApiVersion::default().with_api_key(*key).with_min_version(*oldest).with_max_version(*newest)
    };
    let mut answer = ApiVersionsResponse::default().with_api_keys(apis.iter().map(api).collect());
    if version >= 1 {
        answer = answer.with_throttle_time_ms(3);
    }
    if version >= 3 {
        let name = text("transaction.version");
        answer = answer
            .with_supported_features(vec![
                SupportedFeatureKey::default().with_name(name.clone()).with_max_version(2),
            ])
            .with_finalized_features_epoch(4)
            .with_finalized_features(vec![
                FinalizedFeatureKey::default().with_name(name).with_max_version_level(2),
            ])
            .with_zk_migration_ready(true);
    }
    encoded(&answer, version)
}

#[test]
fn only_apis_with_records_or_addresses_are_lowered_and_only_their_newest() {
    let broker =
        [(0, 0, 99), (1, 4, 19), (3, 0, 13), (10, 0, 7), (28, 0, 99), (26, 0, 99), (95, 0, 3)];
    let client =
        [(0, 0, 13), (1, 4, 18), (3, 0, 13), (10, 0, 6), (28, 0, 99), (26, 0, 99), (95, 0, 3)];
    for version in ApiVersionsResponse::VERSIONS.min..=ApiVersionsResponse::VERSIONS.max {
        let mut wire = Wire::new();
        let got = wire.answered(ApiKey::ApiVersions, version, &offered(version, &broker));
        let want = answer(ApiKey::ApiVersions, version, 5, &offered(version, &client));
        assert_eq!(got, want, "v{version}");
    }
}

#[test]
fn an_api_without_a_version_in_common_is_not_offered() {
    // ShareFetch 0 was another message; Metadata 14 is not known.
    let broker = [(78, 0, 0), (79, 1, 2), (3, 14, 15), (0, 0, 13)];
    for version in 0..=ApiVersionsResponse::VERSIONS.max {
        let mut wire = Wire::new();
        let got = wire.answered(ApiKey::ApiVersions, version, &offered(version, &broker));
        let want = offered(version, &[(79, 1, 2), (0, 0, 13)]);
        assert_eq!(got, answer(ApiKey::ApiVersions, version, 5, &want), "v{version}");
    }
}

#[test]
fn what_needs_no_change_passes_byte_for_byte() {
    let mut wire = Wire::new();
    let body = offered(4, &[(0, 0, 13), (1, 4, 17), (3, 0, 12)]);
    let got = wire.answered(ApiKey::ApiVersions, 4, &body);
    assert_eq!(got, answer(ApiKey::ApiVersions, 4, 5, &body));
}

#[test]
fn a_broker_that_does_not_know_the_version_answers_as_version_0() {
    // Also where the tap does not know the version that the client begins with.
    for version in [3, 4, 5, 9] {
        let mut wire = Wire::new();
        let mut ask = request(ApiKey::ApiVersions, 4, 5, b"");
        ask[7] = version;
        wire.client(&ask);
        let (mut body, mut want) =
            (offered(0, &[(18, 0, 2), (1, 0, 99)]), offered(0, &[(18, 0, 2), (1, 0, 18)]));
        body[1] = 35;
        want[1] = 35;
        wire.broker(&answer(ApiKey::ApiVersions, 0, 5, &body));
        assert_eq!(wire.at_client(), answer(ApiKey::ApiVersions, 0, 5, &want));
    }
}

#[test]
fn a_version_whose_addresses_are_not_known_ends_the_connection() {
    for (key, version) in [(0, 14), (1, 19), (3, 14), (10, 7), (60, 3), (78, 0), (78, 3), (79, 3)] {
        let mut wire = Wire::new();
        let mut bytes = request(ApiKey::Heartbeat, 0, 5, b"\0\0\0\0\0\0\0\0");
        bytes[4..8].copy_from_slice(&[0, key, 0, version]);
        wire.client(&bytes);
        assert!(wire.refused, "{key} v{version}");
        assert!(wire.at_broker().is_empty());
    }
}

#[test]
fn versions_that_are_not_read_pass_and_are_told() {
    // Produce 2: acks before anything else. Fetch 3. An API that is not known yet.
    let mut wire = Wire::new();
    let produce = frame(&[b"\0\0\0\x02\0\0\0\x01\xff\xff", b"\0\x01\0\0\0\x05records"]);
    let fetch = frame(&[b"\0\x01\0\x03\0\0\0\x02\xff\xff", b"whatever"]);
    let strange = frame(&[b"\0\x63\0\0\0\0\0\x03\xff\xff", b"whatever"]);
    let admin = frame(&[b"\0\x25\0\x63\0\0\0\x04\xff\xff", b"CreatePartitions"]);
    let all = [&produce[..], &fetch, &strange, &strange, &admin].concat();
    wire.client(&all);
    assert_eq!(wire.at_broker(), all);
    let answers: Vec<u8> =
        [1, 2, 3, 3, 4].iter().flat_map(|id: &i32| frame(&[&id.to_be_bytes(), b"x"])).collect();
    wire.broker(&answers);
    assert_eq!(wire.at_client(), answers);
    assert_eq!(wire.told(), ["unread 0 v2", "unread 99 v0", "unread 1 v3"]);
}
