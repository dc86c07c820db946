//! What is said of taps: their kinds, numbers and flags.

use insta::assert_snapshot;

use super::super::*;
use super::{FLAGS, File, load};

#[test]
fn what_makes_no_sense_for_a_kind_of_tap_is_told() {
    let file = File::new(
        r#"service = "billing"
[[tap]]
kind = "kafka"
listen = "0.0.0.0:19092"
allow_remote = true
broker = "kafka-1:9092,kafka-2:9092"
detect_unroutable = true
allow_external = true
[tap.tls]
ca = "/ca.pem"
[[tap]]
kind = "amqp"
listen = "127.0.0.1:19150"
broker = "kafka://kafka-1"
ports = "1-2"
advertise = "localhost"
record = true
[[tap]]
kind = "kafka"
listen = "unix:/run/kafka.sock"
broker = "amqp://rabbit"
[[tap]]
kind = "kafka"
listen = "127.0.0.1:65535"
broker = "kafka-1"
[[tap]]
kind = "kafka"
listen = "127.0.0.1:20000"
broker = "kafka-1"
ports = "19190-19200"
[[tap]]
kind = "kafka"
listen = "127.0.0.1:20001"
broker = "kafka-1"
ports = "20001-20003"
"#,
    );
    assert_snapshot!(file.errors(), @r#"
    13 errors in the configuration
      agent.toml:2: tap[0].advertise: missing: clients can't be told the wildcard of listen as the brokers' host; give the one by which they reach this agent
      agent.toml:2: tap[0].ports: 19093-19192 for the brokers meet 127.0.0.1:19150 of tap[1]: give a range of its own
      agent.toml:7: tap[0].detect_unroutable: is for AMQP only: Kafka refuses what it can't route
      agent.toml:8: tap[0].allow_external: is for AMQP only: Kafka has no SASL EXTERNAL
      agent.toml:10: tap[0].tls.ca: has no effect: the broker is dialled without TLS; write kafka+ssl:// to use it
      agent.toml:14: tap[1].broker: is no address for kind = "amqp": want one such as "amqp://rabbit:5672"
      agent.toml:15: tap[1].ports: is for Kafka only: an AMQP broker tells its clients no other addresses
      agent.toml:16: tap[1].advertise: is for Kafka only: an AMQP broker tells its clients no other addresses
      agent.toml:17: tap[1].record: is for Kafka only: an AMQP tap rewrites nothing, so leave it out
      agent.toml:20: tap[2].listen: Kafka clients connect by TCP: want host:port such as "127.0.0.1:19092"
      agent.toml:21: tap[2].broker: is no address for kind = "kafka": want one such as "kafka://kafka-1:9092,kafka-2:9092"
      agent.toml:22: tap[3].ports: missing: no port is behind the one of listen
      agent.toml:35: tap[5].ports: 20001-20003 for the brokers meet 127.0.0.1:20001 of tap[5]: give a range of its own
    "#);
    let fits = [("service", "a"), ("tap", "kafka 127.0.0.1:19092 kafka-1:9092,kafka-2")];
    let config = load(None, &[], &fits).unwrap();
    assert_eq!(config.taps[0].broker.to_string(), "kafka://kafka-1:9092,kafka-2:9092");
    let ports = config.taps[0].port_range();
    assert_eq!(ports, Some(PortRange { first: 19093, last: 19192 }));
}

#[test]
fn taps_are_numbered_without_holes() {
    let errors = load(None, &[("FLOWTAP_TAP_4000000000_LISTEN", "127.0.0.1:1")], &FLAGS);
    assert_snapshot!(errors.unwrap_err(), @r#"
    1 error in the configuration
      FLOWTAP_TAP_4000000000_LISTEN: tap[4000000000]: is tap number 4000000000, but there is no number 1: number them from 0 without holes
    "#);
    let errors = load(None, &[("FLOWTAP_TAP_00_LISTEN", "127.0.0.1:1")], &FLAGS).unwrap_err();
    assert!(errors.contains("FLOWTAP_TAP_00_LISTEN: unknown variable"), "{errors}");
}

#[test]
fn a_tap_flag_wants_three_words() {
    let errors = load(None, &[], &[("service", "shop"), ("tap", "amqp 127.0.0.1:5673")]);
    assert!(errors.unwrap_err().contains("--tap: tap[0]: want kind, listen and broker"));
}
