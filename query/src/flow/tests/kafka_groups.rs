//! Kafka: each group that reads a topic is judged by itself.

use flowtap_record::{AgentState, Outcome};
use serde_json::json;

use super::super::{State, World};
use super::kafka::cars;
use super::{Scene, at};

/// Painted-1 lies at offset 57, nobody took it yet.
fn waiting() -> Scene {
    let mut scene = cars();
    scene.produce("factory", "Painted-1", 57, 0.0);
    scene
}

#[test]
fn a_record_that_a_group_did_not_take_is_late_there_when_everybody_looked() {
    let mut scene = waiting();
    scene.expect(
        State::Late,
        "waiting",
        Some("showroom"),
        "Painted waits in topic cars, partition 1, offset 57 for group showroom since 12:00:00.000. \
         showroom, which is in the group, has not come past it.",
    );
    assert_eq!(scene.judge().headline, "LATE in topic cars, group showroom");
    scene.now = 4.0;
    assert_eq!(scene.judge().state, State::Running);
}

#[test]
fn groups_are_judged_apart() {
    let mut scene = waiting();
    scene.agent("desk", 60.0);
    scene.assigned("desk", "desk", "d-1", &json!({"cars": [0, 1]}), -60.0);
    let read = scene.read("showroom", "Painted-1", Some("showroom"), 57, 0.1);
    scene.settle(read, Outcome::Committed, 5.0);
    let verdict = scene.judge();
    assert_eq!(verdict.headline, "LATE in topic cars, group desk");
    let read = scene.read("desk", "Painted-1", Some("desk"), 57, 3.0);
    scene.settle(read, Outcome::Committed, 5.0);
    assert_eq!(scene.judge().state, State::Healthy);
}

#[test]
fn where_nobody_looked_it_left_our_sight_at_topic_and_group() {
    let mut scene = waiting();
    scene.of("showroom").state = AgentState::Ended;
    let verdict = scene.judge();
    assert_eq!(verdict.headline, "UNKNOWN: left Flowtap's sight at topic cars, group showroom");
    assert_eq!(verdict.finding.unwrap().service, None);
    // A group of which only positions are known.
    let mut scene = Scene::new();
    scene.position("shop", "elsewhere", 50, -10.0);
    scene.produce("factory", "Painted-1", 57, 0.0);
    let verdict = scene.judge();
    assert_eq!(verdict.headline, "UNKNOWN: left Flowtap's sight at topic cars, group elsewhere");
    assert_eq!(verdict.sentences[1], "Nobody is known to be in the group.");
    scene.position("shop", "elsewhere", 58, 5.0);
    assert_eq!(scene.judge().state, State::Healthy, "the group is past it");
}

#[test]
fn a_group_that_begins_later_is_not_waited_for() {
    let mut scene = Scene::new();
    scene.produce("factory", "Painted-1", 57, 0.0);
    scene.assigned("showroom", "showroom", "m-1", &json!({"cars": [0, 1]}), 1.0);
    assert_eq!(scene.judge().state, State::Healthy);
}

#[test]
fn a_group_that_left_the_topic_is_not_waited_for() {
    let mut scene = waiting();
    scene.position("showroom", "showroom", 40, -30.0);
    scene.assigned("showroom", "showroom", "m-1", &json!({"bikes": [0]}), -20.0);
    assert_eq!(scene.judge().state, State::Healthy, "its members read something else now");
    // All members left. One of a name for each start never committed or has a successor.
    let mut scene = waiting();
    scene.left("showroom", "showroom", "m-1", 0.5);
    assert_eq!(scene.judge().state, State::Healthy, "it never committed");
    scene.position("showroom", "showroom", 40, -30.0);
    scene.of("showroom").watermark = at(20.0);
    assert_eq!(scene.judge().state, State::Running, "it may come back at once");
    scene.of("showroom").watermark = at(60.0);
    assert_eq!(scene.judge().state, State::Unknown, "it reads elsewhere, or past its sidecar");
    scene.assigned("showroom", "showroom-2", "n-1", &json!({"cars": [0, 1]}), 0.6);
    assert_eq!(scene.judge().state, State::Healthy, "its service reads in another group");
}

#[test]
fn an_open_delivery_is_running_while_clients_commit_by_themselves_and_late_then() {
    let mut scene = waiting();
    scene.read("showroom", "Painted-1", Some("showroom"), 57, 0.1);
    scene.now = 9.0;
    assert_eq!(scene.judge().state, State::Running);
    scene.now = 61.0;
    scene.expect(
        State::Late,
        "waiting",
        Some("showroom"),
        "showroom received Painted from topic cars, partition 1, offset 57 in group showroom at \
         12:00:00.100 and has not committed past it since.",
    );
}

#[test]
fn a_record_that_comes_again_and_again_is_late_since_the_first_time() {
    let mut scene = waiting();
    for second in 0..50 {
        scene.read("showroom", "Painted-1", Some("showroom"), 57, 1.0 + f64::from(second));
    }
    scene.of("showroom").watermark = at(49.5);
    let verdict = scene.judge();
    assert_eq!((verdict.state, verdict.headline.as_str()), (State::Late, "LATE at showroom"));
    assert_eq!(verdict.finding.as_ref().unwrap().since, at(1.0));
    assert_eq!(
        verdict.sentences,
        ["showroom received Painted from topic cars, partition 1, offset 57 in group showroom 50 \
          times since 12:00:01.000, the last time at 12:00:50.000, and has not committed past it \
          since."]
    );
}

#[test]
fn a_position_of_the_group_settles_what_no_agent_saw_settled() {
    let mut scene = waiting();
    scene.agent("painter", 60.0);
    scene.read("showroom", "Painted-1", Some("showroom"), 57, 0.1);
    scene.of("showroom").state = AgentState::Died;
    assert_eq!(scene.judge().finding.unwrap().reason, "agent_died");
    scene.position("painter", "showroom", 57, 3.0);
    assert_eq!(scene.judge().state, State::Unknown, "57 comes next");
    scene.position("painter", "showroom", 58, 4.0);
    assert_eq!(scene.judge().state, State::Healthy);
    let handling = scene.flow().0.messages[0].handlings[0].clone();
    assert_eq!((handling.outcome, handling.passed), (Some(Outcome::Committed), true));
}

#[test]
fn a_rebalance_undoes_what_it_abandoned_when_another_member_commits() {
    let mut scene = waiting();
    let read = scene.read("showroom", "Painted-1", Some("showroom"), 57, 0.1);
    scene.settle(read, Outcome::Abandoned, 2.0);
    let settle = scene.rows.len() - 1;
    scene.rows[settle].reason = Some("partition revoked".to_owned());
    scene.expect(
        State::Late,
        "abandoned",
        Some("showroom"),
        "showroom took Painted from topic cars, partition 1, offset 57 in group showroom at \
         12:00:00.100 and left it open at 12:00:02.000 (partition revoked); it was not delivered \
         again. showroom, which is in the group, has not come past it.",
    );
    scene.agent("annex", 60.0);
    let again = scene.read("annex", "Painted-1", Some("showroom"), 57, 2.5);
    assert_eq!(scene.judge().finding.unwrap().service.as_deref(), Some("annex"));
    scene.settle(again, Outcome::Committed, 3.0);
    assert_eq!(scene.judge().state, State::Healthy);
    scene.rows.truncate(settle + 1);
    scene.position("annex", "showroom", 58, 3.0);
    assert_eq!(scene.judge().state, State::Healthy, "or is only seen past it");
}

#[test]
fn a_group_that_goes_back_takes_it_once_more_and_the_last_time_counts() {
    let mut scene = waiting();
    let read = scene.read("showroom", "Painted-1", Some("showroom"), 57, 0.1);
    scene.settle(read, Outcome::Committed, 1.0);
    scene.position("showroom", "showroom", 58, 1.0);
    scene.position("showroom", "showroom", 40, 20.0);
    assert_eq!(scene.judge().state, State::Healthy, "it was done");
    scene.read("showroom", "Painted-1", Some("showroom"), 57, 21.0);
    let verdict = scene.judge();
    assert_eq!((verdict.state, verdict.headline.as_str()), (State::Late, "LATE at showroom"));
    scene.position("showroom", "showroom", 58, 22.0);
    assert_eq!(scene.judge().state, State::Healthy);
}

#[test]
fn a_group_that_goes_past_a_record_without_taking_it_is_suspect() {
    let mut scene = waiting();
    scene.position("showroom", "showroom", 50, -10.0);
    scene.position("showroom", "showroom", 60, 3.0);
    scene.expect(
        State::Suspect,
        "skipped",
        None,
        "Group showroom went past Painted (topic cars, partition 1, offset 57) without taking it, \
         and stood at offset 60 at 12:00:03.000.",
    );
    assert_eq!(scene.judge().headline, "SUSPECT at topic cars, group showroom");
    // Another member may have had the partition meanwhile.
    scene.assigned("showroom", "showroom", "m-1", &json!({"cars": [0]}), 1.0);
    scene.assigned("showroom", "showroom", "m-1", &json!({"cars": [0, 1]}), 2.0);
    assert_eq!(scene.judge().state, State::Healthy);
}

#[test]
fn compaction_is_no_loss() {
    for (cleanup, key) in [(Some("compact"), None), (None, Some("car-1"))] {
        let mut scene = waiting();
        if let Some(cleanup) = cleanup {
            scene.topic("cars", cleanup);
        } else {
            scene.world = World::default();
            scene.assigned("showroom", "showroom", "m-1", &json!({"cars": [1]}), -60.0);
        }
        scene.rows[0].routing_key = key.map(str::to_owned);
        scene.position("showroom", "showroom", 50, -10.0);
        scene.position("showroom", "showroom", 60, 3.0);
        let verdict = scene.judge();
        assert_eq!(verdict.state, State::Healthy, "{verdict:#?}");
        assert!(verdict.notes[0].ends_with("it may have been compacted"), "{verdict:#?}");
    }
}
