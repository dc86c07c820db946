//! The map of who talks to whom.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Coverage;

/// What a node of the map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// A service.
    Service,
    /// An exchange or topic.
    Destination,
    /// A queue or consumer group.
    Subscription,
}

/// A node of the map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Its name among all nodes.
    pub id: String,
    /// What it is.
    pub kind: NodeKind,
    /// Its name.
    pub name: String,
    /// `rabbitmq` or `kafka`; of a service the first seen.
    pub system: String,
    /// Which cluster.
    #[schema(required)]
    pub cluster: Option<String>,
    /// RabbitMQ's virtual host.
    #[schema(required)]
    pub vhost: Option<String>,
}

/// What an edge of the map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MapHow {
    /// A service publishes to a destination.
    Publish,
    /// Messages of a destination come out of a subscription.
    Route,
    /// A subscription delivers to a service.
    Deliver,
}

/// An edge of the map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MapEdge {
    /// A node.
    pub from: String,
    /// Another.
    pub to: String,
    /// What goes there.
    pub how: MapHow,
    /// How many messages.
    pub messages: u64,
    /// The last of them, to the minute.
    #[schema(required)]
    pub last_at: Option<String>,
}

/// Who talks to whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MapAnswer {
    /// Services, destinations, subscriptions.
    pub nodes: Vec<Node>,
    /// What goes between them.
    pub edges: Vec<MapEdge>,
    /// Up to when everything was seen.
    pub coverage: Coverage,
}
