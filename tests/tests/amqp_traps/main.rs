//! What a naive tap gets wrong about RabbitMQ, each on a real broker: the client sees through the
//! sidecar, frame by frame, what it sees without, and the rows say what really happened. The
//! clients are written by hand, because no library would send this.

/// One test for each release of the broker.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        $(mod $name {
            #[test]
            fn on_3_10() {
                super::$name(flowtap_tests::rabbitmq::Version::V3_10);
            }
            #[test]
            fn on_4_0() {
                super::$name(flowtap_tests::rabbitmq::Version::V4_0);
            }
        })*
    };
}

mod bytes;
mod consume;
mod messages;
mod publish;
mod returns;
mod settle;
mod stage;
