//! Members that wait, stall, come back, are static, or speak a protocol of their own.

use kafka_protocol::messages::leave_group_request::MemberIdentity;

use super::consume::{join, member};
use super::*;

const UNKNOWN_MEMBER_ID: i16 = 25;
const REBALANCE_IN_PROGRESS: i16 = 27;

impl Stage {
    fn beats(&mut self, name: &str, error: i16) {
        let beat = m::HeartbeatRequest::default()
            .with_group_id(text("billing").into())
            .with_member_id(member(name));
        let answer = m::HeartbeatResponse::default().with_error_code(error);
        self.exchange(1, key::HEARTBEAT, 3, &beat, &answer);
    }

    fn has_joined_and_got(&mut self, value: &str) {
        self.joins(1, "m-1", 1, &[0]);
        self.fetches(2, 0, &[batch(PLAIN, &[value])]);
    }

    /// A frame of bytes made by hand.
    fn bytes(&mut self, connection: i64, key: i16, request: &[u8], answer: &[u8]) {
        self.correlation += 1;
        let head = Head { key, correlation: self.correlation, ..Head::of_nothing() };
        self.frame(connection, Side::Client, &head, request);
        self.frame(connection, Side::Broker, &head, answer);
    }
}

#[test]
fn a_member_that_waits_for_the_others_to_join_is_not_expelled() {
    let mut stage = Stage::new();
    stage.has_joined_and_got("a");
    // No client sends heartbeats until this is answered.
    let asked = stage.ask(1, key::JOIN_GROUP, 5, &join("m-1"));
    for _ in 0..5 {
        stage.later(11);
    }
    assert_eq!(stage.of("settle").len(), 0);
    let answer =
        m::JoinGroupResponse::default().with_generation_id(2).with_member_id(member("m-1"));
    stage.answer(1, &asked, &answer);
    let sync = m::SyncGroupRequest::default()
        .with_group_id(text("billing").into())
        .with_member_id(member("m-1"));
    stage.ask(1, key::SYNC_GROUP, 3, &sync);
    stage.later(40);
    let expelled = |stage: &Stage| {
        stage.of("session").iter().filter(|row| row["reason"] == "member expelled").count()
    };
    assert_eq!(expelled(&stage), 0);
    // With its connection the waiting ends, and its session begins to run.
    stage.closes(1);
    stage.later(11);
    assert_eq!(expelled(&stage), 0);
    stage.later(2);
    assert_eq!(expelled(&stage), 1);
}

#[test]
fn a_member_whose_poll_stalls_keeps_its_deliveries_until_it_leaves_by_itself() {
    let mut stage = Stage::new();
    stage.has_joined_and_got("a");
    for _ in 0..60 {
        stage.later(5);
        stage.beats("m-1", 0);
    }
    assert_eq!(stage.of("settle").len(), 0, "its heartbeats go on");
    // `max.poll.interval.ms` is over: the client leaves.
    stage.leaves(1, "m-1");
    assert_eq!(stage.ends("settle"), [json!([0, "Abandoned", "member left"])]);
    // What it commits then is refused.
    stage.commits(1, "m-1", 1, UNKNOWN_MEMBER_ID);
    assert_eq!(stage.of("settle").len(), 1);
}

#[test]
fn a_rebalance_that_a_heartbeat_tells_of_ends_nothing() {
    let mut stage = Stage::new();
    stage.has_joined_and_got("a");
    stage.beats("m-1", REBALANCE_IN_PROGRESS);
    assert_eq!(stage.of("settle").len(), 0);
    stage.beats("m-1", UNKNOWN_MEMBER_ID);
    assert_eq!(stage.ends("settle"), [json!([0, "Abandoned", "member expelled"])]);
}

fn static_join(stage: &mut Stage, name: &str, gets: &str) {
    let request = join(name).with_group_instance_id(Some(text("cashier-1")));
    let answer = m::JoinGroupResponse::default().with_generation_id(1).with_member_id(member(gets));
    stage.exchange(1, key::JOIN_GROUP, 5, &request, &answer);
    let request = m::SyncGroupRequest::default()
        .with_group_id(text("billing").into())
        .with_generation_id(1)
        .with_member_id(member(gets));
    let assignment = b"\0\0\0\0\0\x01\0\x06orders\0\0\0\x01\0\0\0\0\xff\xff\xff\xff";
    let answer = m::SyncGroupResponse::default().with_assignment(Bytes::from_static(assignment));
    stage.exchange(1, key::SYNC_GROUP, 3, &request, &answer);
}

#[test]
fn a_static_member_takes_its_own_place_when_its_process_starts_again() {
    let mut stage = Stage::new();
    static_join(&mut stage, "", "cashier-1-a");
    stage.fetches(2, 0, &[batch(PLAIN, &["a"])]);
    static_join(&mut stage, "", "cashier-1-b");
    assert_eq!(stage.ends("settle"), [json!([0, "Abandoned", "member replaced"])]);
    stage.fetches(2, 0, &[batch(PLAIN, &["a"])]);
    let again = stage.of("deliver").pop().unwrap();
    assert_eq!(again["who"]["consumer"], "cashier-1-b");
    assert_eq!(again["session"]["redelivered"], true);
}

#[test]
fn a_static_member_can_be_removed_by_its_static_id_alone() {
    let mut stage = Stage::new();
    static_join(&mut stage, "", "cashier-1-a");
    stage.fetches(2, 0, &[batch(PLAIN, &["a"])]);
    let identity = |name: &str| MemberIdentity::default().with_group_instance_id(Some(text(name)));
    let request = m::LeaveGroupRequest::default()
        .with_group_id(text("billing").into())
        .with_members(vec![identity("cashier-2"), identity("cashier-1")]);
    let failed = |name: &str, error: i16| {
        m::leave_group_response::MemberResponse::default()
            .with_group_instance_id(Some(text(name)))
            .with_error_code(error)
    };
    let refused = m::LeaveGroupResponse::default()
        .with_members(vec![failed("cashier-2", UNKNOWN_MEMBER_ID), failed("cashier-1", 82)]);
    stage.exchange(3, key::LEAVE_GROUP, 4, &request, &refused);
    assert_eq!(stage.of("settle").len(), 0);
    let done = m::LeaveGroupResponse::default()
        .with_members(vec![failed("cashier-2", UNKNOWN_MEMBER_ID), failed("cashier-1", 0)]);
    stage.exchange(3, key::LEAVE_GROUP, 4, &request, &done);
    assert_eq!(stage.ends("settle"), [json!([0, "Abandoned", "member left"])]);
}

#[test]
fn a_member_of_a_streams_group_lives_by_its_own_heartbeats() {
    // Group, member, epoch, and more that is of no use.
    let beat = |epoch: i32| [&b"\x08billing\x04m-1"[..], &epoch.to_be_bytes(), b"more"].concat();
    // Throttle time, error, and more.
    let fine = b"\0\0\0\0\0\0more";
    let mut stage = Stage::new();
    stage.bytes(1, key::STREAMS_GROUP_HEARTBEAT, &beat(3), fine);
    stage.commits(1, "m-1", 0, 0);
    stage.fetches(2, 0, &[batch(PLAIN, &["a"])]);
    assert_eq!(stage.of("deliver")[0]["who"]["consumer"], "m-1");
    for _ in 0..10 {
        stage.later(40);
        stage.bytes(1, key::STREAMS_GROUP_HEARTBEAT, &beat(3), fine);
    }
    assert_eq!(stage.of("settle").len(), 0);
    stage.bytes(1, key::STREAMS_GROUP_HEARTBEAT, &beat(-1), fine);
    assert_eq!(stage.ends("settle"), [json!([0, "Abandoned", "member left"])]);
}

#[test]
fn a_member_from_before_the_agents_start_opens_when_it_joins_again() {
    let mut stage = Stage::new();
    stage.beats("m-1", 0);
    let opened = |stage: &Stage| {
        let is_member = |row: &&Json| row["details"]["what"] == "member";
        stage.of("session").iter().filter(is_member).count()
    };
    assert_eq!(opened(&stage), 0, "nobody saw it join");
    stage.joins(1, "m-1", 2, &[0]);
    assert_eq!(opened(&stage), 1);
    stage.joins(1, "m-1", 3, &[0]);
    assert_eq!(opened(&stage), 1);
}
