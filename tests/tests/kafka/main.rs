//! Kafka from end to end: services with six client libraries, and real brokers of two releases.
//! One executable, so that all share the brokers. What clients say is held against what brokers
//! have on disk.

/// One test for each client and release. Those behind `long` take their time: `make test-long`.
macro_rules! with_every_client {
    ($test:ident: $($name:ident $client:ident $version:ident),* $(,)?;
     long: $($slow:ident $slow_client:ident $slow_version:ident),* $(,)?) => {
        mod $test {
            use flowtap_tests::client::Client;
            use flowtap_tests::kafka::Version;

            $(#[test]
            fn $name() {
                super::$test(Client::$client, Version::$version);
            })*

            $(#[test]
            #[ignore = "long: make test-long"]
            fn $slow() {
                super::$test(Client::$slow_client, Version::$slow_version);
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
mod tools;
mod transactions;
mod versions;
