//! Who talks to whom, from counts by minute.

use std::collections::BTreeMap;

use flowtap_record::Micros;

use super::{AnswerError, Answers};
use crate::api::types::{MapAnswer, MapEdge, MapHow, Node, NodeKind};
use crate::flow::Broker;

const MINUTE_US: i64 = 60_000_000;

#[derive(Default)]
struct Drawing {
    nodes: BTreeMap<String, Node>,
    edges: BTreeMap<(String, String, MapHow), (u64, i64)>,
}

impl Answers {
    /// The map from `from` to `to`, microseconds, to the minute.
    pub async fn map(&self, from: Option<i64>, to: Option<i64>) -> Result<MapAnswer, AnswerError> {
        let (snapshot, now) = self.fresh().await?;
        let snapshot = snapshot.for_lists();
        let from = from.map_or(i64::MIN, |at| at.div_euclid(MINUTE_US));
        let to = to.map_or(i64::MAX, |at| at.div_euclid(MINUTE_US) + 1);
        let mut drawing = Drawing::default();
        for (key, sum) in self.catalog.map(from, to) {
            let service = drawing.node(NodeKind::Service, &key.broker, &key.service);
            let destination = drawing.node(NodeKind::Destination, &key.broker, &key.destination);
            if key.publish {
                drawing.edge(service, destination, MapHow::Publish, sum);
            } else if let Some(subscription) = &key.subscription {
                let queue = drawing.node(NodeKind::Subscription, &key.broker, subscription);
                drawing.edge(destination, queue.clone(), MapHow::Route, sum);
                drawing.edge(queue, service, MapHow::Deliver, sum);
            } else {
                drawing.edge(destination, service, MapHow::Deliver, sum);
            }
        }
        let edges = drawing.edges.into_iter().map(|((from, to, how), (messages, minute))| {
            let last_at = Some(Micros(minute.saturating_mul(MINUTE_US)).to_string());
            MapEdge { from, to, how, messages, last_at }
        });
        Ok(MapAnswer {
            edges: edges.collect(),
            nodes: drawing.nodes.into_values().collect(),
            coverage: self.coverage(&snapshot, now),
        })
    }
}

impl Drawing {
    /// A service is one node, whatever brokers it talks to.
    fn node(&mut self, kind: NodeKind, broker: &Broker, name: &str) -> String {
        let cluster = broker.cluster.as_deref().unwrap_or_default();
        let vhost = broker.vhost.as_deref().unwrap_or_default();
        let id = match kind {
            NodeKind::Service => format!("service:{name}"),
            NodeKind::Destination => format!("destination:{cluster}:{vhost}:{name}"),
            NodeKind::Subscription => format!("subscription:{cluster}:{vhost}:{name}"),
        };
        let service = kind == NodeKind::Service;
        self.nodes.entry(id.clone()).or_insert_with(|| Node {
            id: id.clone(),
            kind,
            name: name.to_owned(),
            system: broker.system.clone().unwrap_or_default(),
            cluster: broker.cluster.clone().filter(|_| !service),
            vhost: broker.vhost.clone().filter(|_| !service),
        });
        id
    }

    fn edge(&mut self, from: String, to: String, how: MapHow, (messages, minute): (u64, i64)) {
        let sum = self.edges.entry((from, to, how)).or_insert((0, i64::MIN));
        sum.0 += messages;
        sum.1 = sum.1.max(minute);
    }
}
