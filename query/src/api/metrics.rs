//! The server's own numbers, for `/metrics`.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::answer::now;
use crate::find::Catalog;
use crate::flow::Life;
use crate::ingest::Counts;

/// All numbers of one server.
pub(super) struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<Request, Counter>,
    seconds: Family<Route, Histogram>,
    objects: Gauge,
    rows: Gauge,
    flows: Gauge,
    index_bytes: Gauge,
    refused: Gauge,
    unread: Gauge,
    skipped: Gauge,
    statuses_refused: Gauge,
    directories_refused: Gauge,
    age: Gauge<f64, AtomicU64>,
    agents: Family<State, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: String,
}

impl Metrics {
    /// Numbers of a server, together with those of its ingester.
    pub(super) fn new(ingest: Counts) -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("flowtap")),
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 2.0, 15))
            }),
            objects: Gauge::default(),
            rows: Gauge::default(),
            flows: Gauge::default(),
            index_bytes: Gauge::default(),
            refused: Gauge::default(),
            unread: Gauge::default(),
            skipped: Gauge::default(),
            statuses_refused: Gauge::default(),
            directories_refused: Gauge::default(),
            age: Gauge::default(),
            agents: Family::default(),
        };
        let mut registry = metrics.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register("requests", "Requests answered", metrics.requests.clone());
        let seconds = metrics.seconds.clone();
        registry.register_with_unit("request", "Time to answer", Unit::Seconds, seconds);
        registry.register("objects", "Inbox objects searched", metrics.objects.clone());
        registry.register("rows", "Rows in them", metrics.rows.clone());
        registry.register("flows", "Flows known", metrics.flows.clone());
        registry.register("index_bytes", "Memory of the index", metrics.index_bytes.clone());
        let refused = metrics.refused.clone();
        registry.register("objects_refused", "Inbox objects that cannot be believed", refused);
        let unread = metrics.unread.clone();
        registry.register("objects_unread", "Inbox objects that could not be read yet", unread);
        let skipped = metrics.skipped.clone();
        let help = "Oldest objects and files left out of the index because it was full";
        registry.register("objects_skipped", help, skipped);
        let statuses = metrics.statuses_refused.clone();
        let help = "Statuses of agents that cannot be read or believed";
        registry.register("statuses_refused", help, statuses);
        let directories = metrics.directories_refused.clone();
        let help = "Directories of ids that cannot be believed; their files are searched without";
        registry.register("directories_refused", help, directories);
        let help = "Time since the store was read whole";
        registry.register_with_unit("catalog_age", help, Unit::Seconds, metrics.age.clone());
        registry.register("agents", "Sidecars by state", metrics.agents.clone());
        for (name, help, counter) in [
            ("ingest_rows", "Rows moved into the table history", ingest.rows),
            ("ingest_objects", "Inbox objects whose rows were moved", ingest.objects),
            ("ingest_quarantined", "Inbox objects put into quarantine", ingest.quarantined),
            ("ingest_merged", "Files of the history made of small ones", ingest.merged),
            ("ingest_directories", "Directories of ids written", ingest.directories),
            ("ingest_failures", "Rounds that failed and are tried again", ingest.failures),
            ("derived_commits", "Commits of tables made of the history", ingest.derived),
            ("derived_failures", "Times that they could not be kept up", ingest.derived_failures),
        ] {
            registry.register(name, help, counter);
        }
        let help = "Inbox objects of newer agents, which wait for a newer flowtap";
        registry.register("ingest_newer", help, ingest.newer);
        drop(registry);
        metrics
    }

    /// Counts a request.
    pub(super) fn request(&self, route: &str, status: u16, took: Duration) {
        let route = route.to_owned();
        self.requests.get_or_create(&Request { route: route.clone(), status }).inc();
        self.seconds.get_or_create(&Route { route }).observe(took.as_secs_f64());
    }

    /// The text of a scrape.
    pub(super) fn encode(&self, catalog: &Catalog) -> Result<String, fmt::Error> {
        let marks = catalog.marks();
        let number = |gauge: &Gauge, value: usize| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        number(&self.objects, marks.objects);
        number(&self.rows, marks.rows);
        number(&self.flows, marks.flows);
        number(&self.index_bytes, marks.index_bytes);
        number(&self.refused, marks.refused);
        number(&self.unread, marks.unread);
        number(&self.skipped, marks.skipped);
        number(&self.statuses_refused, marks.statuses_refused);
        number(&self.directories_refused, marks.directories_refused);
        let snapshot = catalog.snapshot();
        // Before the first time there is no age.
        let age = snapshot.read_at.map_or(f64::NAN, |at| now().since(at) as f64 / 1e6);
        self.age.set(age);
        let coverage = snapshot.coverage;
        for life in [Life::Live, Life::Silent, Life::Ended, Life::Died] {
            let count = coverage.agents.iter().filter(|agent| agent.life == life).count();
            let state = State { state: life.as_str().to_owned() };
            number(&self.agents.get_or_create(&state), count);
        }
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        encode(&mut text, &registry)?;
        Ok(text)
    }
}
