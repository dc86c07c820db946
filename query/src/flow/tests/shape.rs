//! Which rows are one message, and which message caused which.

use super::super::{How, path};
use super::Scene;
use flowtap_record::Outcome;

#[test]
fn a_publish_and_its_deliveries_are_one_message() {
    let mut scene = Scene::new();
    scene.publish("shop", "OrderPlaced-1", 0.0);
    let first = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 0.1);
    scene.settle(first, Outcome::Acked, 0.2);
    scene.deliver("mailer", "OrderPlaced-1", "mailer.orders", 0.1);
    let (flow, _) = scene.flow();
    assert_eq!(flow.messages.len(), 1);
    assert_eq!(flow.messages[0].handlings.len(), 2);
    assert_eq!(flow.messages[0].rows.len(), 4);
}

#[test]
fn equal_fingerprints_with_different_ids_are_two_messages() {
    let mut scene = Scene::new();
    let first = scene.publish("shop", "Tick-1", 0.0);
    let second = scene.publish("shop", "Tick-2", 1.0);
    scene.rows[first].message = Some("same".to_owned());
    scene.rows[second].message = Some("same".to_owned());
    assert_eq!(scene.flow().0.messages.len(), 2);
    scene.rows[first].event_id = None;
    scene.rows[second].event_id = None;
    assert_eq!(scene.flow().0.messages.len(), 1);
}

#[test]
fn causes_come_from_causation_ids_else_from_the_only_message_at_hand() {
    let mut scene = Scene::new();
    scene.publish("shop", "OrderPlaced-1", 0.0);
    scene.deliver("factory", "OrderPlaced-1", "factory.orders", 0.1);
    let built = scene.publish_to("factory", "CarBuilt-1", "cars", "", 0.2);
    let (flow, _) = scene.flow();
    assert_eq!(flow.edges.len(), 1);
    assert_eq!((flow.edges[0].from, flow.edges[0].to, flow.edges[0].how), (0, 1, How::Transaction));
    assert_eq!(flow.edges[0].by.as_deref(), Some("factory"));
    scene.rows[built].causation_id = Some("OrderPlaced-1".to_owned());
    scene.rows[0].command = Some("PlaceOrder".to_owned());
    let (flow, _) = scene.flow();
    assert_eq!(flow.edges[0].how, How::Causation);
    assert_eq!(flow.messages[1].depth, 1);
    assert_eq!(path(&flow, Some(1)).as_deref(), Some("PlaceOrder -> OrderPlaced -> CarBuilt"));
}

#[test]
fn ids_that_go_round_in_a_circle_end() {
    let mut scene = Scene::new();
    let a = scene.publish("shop", "A-1", 0.0);
    let b = scene.publish("shop", "B-1", 0.1);
    scene.rows[a].causation_id = Some("B-1".to_owned());
    scene.rows[b].causation_id = Some("A-1".to_owned());
    let (flow, _) = scene.flow();
    assert_eq!(flow.edges.len(), 2);
    assert!(path(&flow, Some(1)).is_some());
}
