//! Kafka from end to end: services with five client libraries, and real brokers of two releases.
//! One executable, so that all share the brokers. What clients say is held against what brokers
//! have on disk.

/// One test for each client and release.
macro_rules! with_every_client {
    ($test:ident: $($name:ident $client:ident $version:ident),* $(,)?) => {
        mod $test {
            use flowtap_tests::client::Client;
            use flowtap_tests::kafka::Version;

            $(#[test]
            fn $name() {
                super::$test(Client::$client, Version::$version);
            })*
        }
    };
}

mod cluster;
mod consume;
mod faults;
mod harness;
mod memory;
mod produce;
mod rows;
mod security;
mod support;
mod transactions;
mod versions;
