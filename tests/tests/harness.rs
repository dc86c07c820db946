//! The harness tested by itself: brokers, S3 server and stalling disk do what tests expect of them.

use std::io::Write;
use std::time::Duration;

use flowtap_tests::disk::StallableDisk;
use flowtap_tests::rabbitmq::{Options, RabbitMq, Version};
use flowtap_tests::s3::S3Server;

fn a_broker_survives_kill_9(version: Version) {
    let options = Options {
        config: vec!["consumer_timeout = 5000".into()],
        advanced: vec!["{channel_tick_interval, 1000}"],
        ..Options::default()
    };
    let Some(broker) = RabbitMq::start_with(version, &options) else { return };
    let vhost = broker.vhost();
    assert!(vhost.queues().is_empty());
    assert!(vhost.exchanges().is_empty());
    assert_eq!(broker.counters().received, 0);
    broker.kill9();
    broker.restart();
    assert!(broker.ctl(&["list_vhosts"]).contains(vhost.name()), "the vhost is still there");
}

#[test]
fn a_broker_of_3_10_survives_kill_9() {
    a_broker_survives_kill_9(Version::V3_10);
}

#[test]
fn a_broker_of_4_0_survives_kill_9() {
    a_broker_survives_kill_9(Version::V4_0);
}

#[test]
fn the_s3_server_survives_kill_9() {
    let Some(server) = S3Server::start() else { return };
    std::fs::write(server.objects().join("object"), "x").expect("the bucket is a folder");
    server.kill9();
    server.restart();
    assert!(server.objects().join("object").exists());
}

#[test]
fn a_stalled_disk_holds_its_writers_until_it_recovers() {
    let Some(disk) = StallableDisk::new(16) else { return };
    disk.stall();
    let path = disk.path().join("file");
    let (sender, receiver) = std::sync::mpsc::channel();
    let writer = std::thread::spawn(move || {
        let mut file = std::fs::File::create(path).expect("the disk has room");
        file.write_all(b"x").expect("the disk has room");
        sender.send(()).expect("somebody waits");
    });
    assert!(receiver.recv_timeout(Duration::from_millis(300)).is_err(), "the write hangs");
    disk.recover();
    receiver.recv_timeout(flowtap_tests::PATIENCE).expect("the write went through");
    writer.join().expect("it wrote");
}
