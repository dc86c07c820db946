//! What most tests start with: a cluster that is shared, and a way to it for each service: through
//! a sidecar of its own, or direct with `FLOWTAP_DIRECT=1`.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};

use flowtap_tests::kafka::log::visible;
use flowtap_tests::kafka::{Batch, Kafka, Listener, Version};
use flowtap_tests::net;
use flowtap_tests::process::Folder;
use flowtap_tests::sidecar::{BROKERS, Options, Sidecar};
use flowtap_tests::sql::Store;
use serde_json::Value;

use crate::rows::Rows;

/// A record's place: topic, partition, offset.
pub(crate) type Place = (String, i32, i64);

/// A cluster, what stands between it and the services, and the store of those sidecars.
pub(crate) struct Scene<'a> {
    pub(crate) kafka: &'a Kafka,
    pub(crate) folder: Folder,
    pub(crate) store: Store,
}

/// A scene on the broker that all tests share. `None`: this machine hasn't got that release.
pub(crate) fn scene(version: Version) -> Option<Scene<'static>> {
    Kafka::shared(version).map(scene_on)
}

/// A scene on a cluster of one's own.
pub(crate) fn scene_on(kafka: &Kafka) -> Scene<'_> {
    let folder = Folder::new("store");
    let store = Store::new(folder.url());
    Scene { kafka, folder, store }
}

/// Whether services connect to the brokers themselves: to see what a test says of a client, and
/// not of the sidecar.
pub(crate) fn direct() -> bool {
    std::env::var_os("FLOWTAP_DIRECT").is_some_and(|value| value == "1")
}

impl Scene<'_> {
    /// A service's way to the brokers.
    pub(crate) fn way(&self, service: &str) -> Way {
        self.way_with(service, Listener::Plain, |_| {})
    }

    /// A service's way to another listener of the brokers.
    pub(crate) fn way_to(
        &self,
        service: &str,
        listener: Listener,
        configure: impl FnOnce(&mut Options),
    ) -> Way {
        self.way_with(service, listener, configure)
    }

    /// A service's way to the brokers, by a sidecar with a configuration of its own.
    pub(crate) fn way_with(
        &self,
        service: &str,
        listener: Listener,
        configure: impl FnOnce(&mut Options),
    ) -> Way {
        let brokers = self.kafka.bootstrap_of(listener);
        if direct() {
            return Way { service: service.to_owned(), bootstrap: brokers, sidecar: None };
        }
        let secure = matches!(listener, Listener::Tls | Listener::SaslTls);
        let scheme = if secure { "kafka+ssl://" } else { "" };
        let mut options = Options::kafka(service, format!("{scheme}{brokers}"), self.folder.url());
        configure(&mut options);
        let sidecar = Sidecar::start(&options);
        Way {
            service: service.to_owned(),
            bootstrap: format!("127.0.0.1:{}", sidecar.port()),
            sidecar: Some(RefCell::new(sidecar)),
        }
    }

    /// A topic of one's own.
    pub(crate) fn topic(&self, partitions: i32, settings: &[(&str, &str)]) -> String {
        let name = self.kafka.name("orders");
        self.kafka.create_topic(&name, partitions, settings);
        name
    }

    /// Every record of a topic that a reader sees who reads what is committed, or everything.
    pub(crate) fn places(&self, topic: &str, read_committed: bool) -> BTreeSet<Place> {
        let partitions = self.kafka.topic(topic).partitions;
        let visible = |partition: i32| {
            let batches = self.kafka.batches(1, topic, partition);
            visible(&batches, read_committed).into_iter().map(move |offset| (partition, offset))
        };
        let all = partitions.keys().flat_map(|&partition| visible(partition));
        all.map(|(partition, offset)| (topic.to_owned(), partition, offset)).collect()
    }

    /// The batches of all partitions as the first node has them.
    pub(crate) fn batches(&self, topic: &str) -> Vec<Batch> {
        let partitions = self.kafka.topic(topic).partitions;
        partitions.keys().flat_map(|&each| self.kafka.batches(1, topic, each)).collect()
    }

    /// Ends the sidecar on a way and gives all rows of its service. `None` without a sidecar.
    pub(crate) fn rows(&self, way: &Way) -> Option<Rows> {
        way.sidecar()?.terminate();
        self.store.assert_no_hole();
        Some(Rows::of(&self.store, &way.service))
    }
}

/// How a service reaches the brokers.
pub(crate) struct Way {
    service: String,
    bootstrap: String,
    sidecar: Option<RefCell<Sidecar>>,
}

impl Way {
    /// What its client is configured with.
    pub(crate) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The sidecar on it, if there is one.
    pub(crate) fn sidecar(&self) -> Option<RefMut<'_, Sidecar>> {
        self.sidecar.as_ref().map(RefCell::borrow_mut)
    }
}

/// Every connection of some processes leads to a port of the sidecar.
pub(crate) fn assert_only_the_sidecar(pids: &[u32], way: &Way, when: &str) {
    let Some(sidecar) = way.sidecar() else { return };
    let ports = sidecar.port()..=sidecar.port() + BROKERS;
    let mut connections = 0;
    for &pid in pids {
        for peer in net::peers(pid) {
            let through = peer.ip().is_loopback() && ports.contains(&peer.port());
            assert!(through, "{when}: process {pid} is connected to {peer}, not to {ports:?}");
            connections += 1;
        }
    }
    assert!(connections >= pids.len(), "{when}: {connections} connections");
}

/// Where the records went that a service was told of.
pub(crate) fn sent(topic: &str, lines: &[Value]) -> Vec<Place> {
    let told = lines.iter().filter(|line| line["offset"].is_i64() && line["sent"].is_i64());
    told.map(|line| (topic.to_owned(), number(line, "partition") as i32, number(line, "offset")))
        .collect()
}

/// The records that a service received, in its order.
pub(crate) fn received(lines: &[Value]) -> Vec<Place> {
    let records = lines.iter().filter(|line| line["topic"].is_string());
    records
        .map(|line| {
            let topic = line["topic"].as_str().expect("it is a string").to_owned();
            (topic, number(line, "partition") as i32, number(line, "offset"))
        })
        .collect()
}

/// What a service says that it committed, the last word on each partition.
pub(crate) fn committed(lines: &[Value]) -> BTreeMap<(String, i32), i64> {
    let words = lines.iter().filter_map(|line| line["committed"].as_array());
    words
        .map(|word| {
            let topic = word[0].as_str().expect("a topic").to_owned();
            let partition = word[1].as_i64().expect("a partition") as i32;
            ((topic, partition), word[2].as_i64().expect("an offset"))
        })
        .collect()
}

/// A number out of what a service says that it did.
pub(crate) fn number(did: &Value, name: &str) -> i64 {
    did[name].as_i64().unwrap_or_else(|| panic!("no {name} in {did}"))
}
