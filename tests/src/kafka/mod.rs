//! A Kafka cluster of one's own, from its jars (`scripts/setup.sh test`): one node or three, each
//! broker and controller in one, own ports and folders, no `ZooKeeper`.
//!
//! | module | gives |
//! |---|---|
//! | `node` | one process: its configuration, folder, command line |
//! | `admin` | topics, offsets, groups, leaders, asked of the brokers themselves |
//! | [`cutter`] | a relay that loses answers |
//! | [`log`] | the batches on a broker's disk |
//! | [`tools`] | Kafka's own command-line tools |
//! | `users` | a password for SCRAM-SHA-512 |
//! | [`wire`] | the few requests that this takes, written by hand |

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

pub use self::admin::{Group, Metadata, Partition, Topic};
pub use self::log::Batch;
use self::node::Node;
use crate::process::Folder;
pub use crate::rabbitmq::Tls;
use crate::{available, cache_dir, wait_until};

mod admin;
pub mod cutter;
pub mod log;
mod node;
pub mod tools;
mod users;
pub mod wire;

/// Which release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 3.9: the last before 4; transactions of the first kind, groups of the classic protocol.
    V3_9,
    /// The newest 4: transactions of the second kind, groups of both protocols.
    V4,
}

/// Both releases, for tests that must hold on each.
pub const BOTH: [Version; 2] = [Version::V3_9, Version::V4];

impl Version {
    fn jars(self) -> PathBuf {
        cache_dir().join(match self {
            Self::V3_9 => "kafka-3.9",
            Self::V4 => "kafka-4",
        })
    }

    /// Whether it can be started here; says so loudly if not, and fails on CI.
    #[must_use]
    pub fn available(self) -> bool {
        available(self.jars().join("libs").exists(), &format!("Kafka {self:?} and a JDK"))
    }
}

/// The user of every node with [`Options::sasl`].
pub const USER: &str = "alice";
/// That user's password, for PLAIN and SCRAM. Planted: it must be in nothing that an agent writes.
pub const PASSWORD: &str = "planted-password-of-alice";

/// Where clients may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// In the clear; always there.
    Plain,
    /// In the clear after a login: PLAIN, SCRAM-SHA-256 and -512, OAUTHBEARER with unsecured tokens.
    Sasl,
    /// TLS.
    Tls,
    /// TLS and a login.
    SaslTls,
}

/// How a cluster is to be started.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many nodes: 1, or 3 with everything on all three.
    pub nodes: usize,
    /// The address that all nodes listen on, of the loopback range.
    pub host: String,
    /// The port that the first node listens on in the clear, if it matters.
    pub port: Option<u16>,
    /// Further lines of `server.properties`.
    pub config: Vec<String>,
    /// Listeners with a login ([`USER`], [`PASSWORD`]).
    pub sasl: bool,
    /// After how long a client must log in again on the connection that it has.
    pub login_again_ms: Option<u32>,
    /// Listeners with TLS.
    pub tls: Option<Tls>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 1,
            host: "127.0.0.1".to_owned(),
            port: None,
            config: Vec::new(),
            sasl: false,
            login_again_ms: None,
            tls: None,
        }
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct Kafka {
    version: Version,
    next_name: AtomicU32,
    // Before the folder: what writes into it must be gone first.
    nodes: Vec<Mutex<Node>>,
    folder: Folder,
}

impl Kafka {
    /// Starts one node with default options. `None`: this machine hasn't got that release.
    pub fn start(version: Version) -> Option<Self> {
        Self::start_with(version, &Options::default())
    }

    /// Starts a cluster. `None`: this machine hasn't got that release.
    pub fn start_with(version: Version, options: &Options) -> Option<Self> {
        if !version.available() {
            return None;
        }
        let folder = Folder::new("kafka");
        let nodes = node::start_all(version, options, folder.path());
        let nodes = nodes.into_iter().map(Mutex::new).collect();
        let cluster = Self { version, next_name: AtomicU32::new(1), nodes, folder };
        for id in 1..=cluster.nodes() {
            cluster.node(id, Node::await_startup);
        }
        cluster.await_ready();
        if options.sasl {
            cluster.allow_scram_512();
        }
        Some(cluster)
    }

    /// The node with default options that all tests of one executable share: isolate by
    /// [`Kafka::name`]. Don't stop it.
    pub fn shared(version: Version) -> Option<&'static Self> {
        static CLUSTERS: [OnceLock<Option<Kafka>>; 2] = [OnceLock::new(), OnceLock::new()];
        CLUSTERS[version as usize].get_or_init(|| Self::start(version)).as_ref()
    }

    /// The brokers know each other, and groups and transactions have coordinators: the internal
    /// topics are made when the first is asked for.
    fn await_ready(&self) {
        wait_until("Kafka answers", || {
            self.addresses().iter().all(|&address| {
                let all = Self::try_metadata(address, Some(&[]));
                all.is_ok_and(|seen| seen.brokers.len() == self.nodes())
            })
        });
        wait_until("Kafka has coordinators", || {
            let coordinator = Self::try_coordinator(self.addresses()[0], "ready", false);
            let transactions = Self::try_coordinator(self.addresses()[0], "ready", true);
            let (Ok(Some(address)), Ok(Some(_))) = (coordinator, transactions) else {
                return false;
            };
            Self::try_committed(address, "ready").is_ok()
        });
    }

    fn node<T>(&self, id: usize, of: impl FnOnce(&mut Node) -> T) -> T {
        of(&mut self.nodes[id - 1].lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn print_logs(&self) {
        for id in 1..=self.nodes() {
            self.node(id, |node| node.print_log());
        }
    }

    /// Which release this is.
    pub fn version(&self) -> Version {
        self.version
    }

    /// How many nodes it has. Their ids count from 1.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Where the nodes listen in the clear.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        (1..=self.nodes()).map(|id| self.address(id, Listener::Plain)).collect()
    }

    /// Where a node listens. Panics if it has no such listener.
    pub fn address(&self, id: usize, listener: Listener) -> SocketAddr {
        self.node(id, |node| node.address(listener))
    }

    /// What clients are configured with to reach the brokers in the clear, as `host:port,...`.
    pub fn bootstrap(&self) -> String {
        self.bootstrap_of(Listener::Plain)
    }

    /// What clients are configured with for one kind of listener.
    pub fn bootstrap_of(&self, listener: Listener) -> String {
        let all = (1..=self.nodes()).map(|id| self.address(id, listener).to_string());
        all.collect::<Vec<_>>().join(",")
    }

    /// A name that nobody else uses on this cluster: for a topic, a group, a transactional id.
    pub fn name(&self, what: &str) -> String {
        format!("{what}-{}", self.next_name.fetch_add(1, Ordering::Relaxed))
    }

    /// What a node logged so far.
    pub fn log(&self, id: usize) -> String {
        self.node(id, |node| node.log())
    }

    /// The process of a node.
    pub fn pid(&self, id: usize) -> u32 {
        self.node(id, |node| node.pid())
    }

    /// The batches of a partition that a node has on its disk.
    pub fn batches(&self, id: usize, topic: &str, partition: i32) -> Vec<Batch> {
        let data = self.folder.path().join(node::data(id));
        log::batches(&data.join(format!("{topic}-{partition}")))
    }

    /// The folder with everything that the nodes wrote.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Kills a node as a power cut would.
    pub fn kill9(&self, id: usize) {
        self.node(id, Node::kill9);
    }

    /// Asks a node to end, which hands over what it leads, and waits.
    pub fn stop(&self, id: usize) {
        self.node(id, Node::stop);
    }

    /// Gives a node that is down another port for its clients; it has that once it is restarted.
    pub fn move_to_another_port(&self, id: usize) {
        self.node(id, Node::move_to_another_port);
    }

    /// Starts a node again on its folder and ports, killing it first if it still runs, and waits
    /// until the cluster is whole.
    pub fn restart(&self, id: usize) {
        self.node(id, Node::restart);
        self.node(id, Node::await_startup);
        self.await_ready();
    }
}
