//! What most tests start with: a vhost of a shared broker and an empty store.

use std::collections::BTreeMap;

use flowtap_tests::process::Folder;
use flowtap_tests::rabbitmq::{RabbitMq, Version, Vhost};
use flowtap_tests::raw::{self, Args, Hello, MESSAGE_ID, Raw};
use flowtap_tests::sidecar::{Options, Sidecar};
use flowtap_tests::sql::Store;
use lapin::{Channel, Connection, ConnectionProperties};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::Value;

/// A vhost of a broker and a store in a folder.
pub(crate) struct Scene<'a> {
    pub(crate) broker: &'a RabbitMq,
    pub(crate) vhost: Vhost<'a>,
    pub(crate) store: Store,
    pub(crate) folder: Folder,
}

/// A scene on the broker that all tests share. `None`: this machine hasn't got that release.
pub(crate) fn scene(version: Version) -> Option<Scene<'static>> {
    RabbitMq::shared(version).map(scene_on)
}

/// A scene on a broker of one's own.
pub(crate) fn scene_on(broker: &RabbitMq) -> Scene<'_> {
    let folder = Folder::new("store");
    let store = Store::new(folder.url());
    Scene { broker, vhost: broker.vhost(), store, folder }
}

impl Scene<'_> {
    pub(crate) fn options(&self, service: &str) -> Options {
        Options::new(service, self.broker.port(), self.folder.url())
    }

    /// A sidecar of a service, configured as by default.
    pub(crate) fn sidecar(&self, service: &str) -> Sidecar {
        Sidecar::start(&self.options(service))
    }

    /// What a service's client needs to connect through its sidecar.
    pub(crate) fn url(&self, sidecar: &Sidecar) -> String {
        self.vhost.url(sidecar.port())
    }

    /// Every delivery has exactly one settle row that names it.
    pub(crate) fn assert_each_delivery_is_settled_once(&self) {
        let wrong = self.store.sql(
            "SELECT d.service, d.boot, d.seq, count(s.seq) AS n FROM history d \
             LEFT JOIN history s ON s.kind = 'settle' AND s.agent = d.agent \
             AND s.ref_boot = d.boot AND s.ref_seq = d.seq \
             WHERE d.kind = 'deliver' GROUP BY d.service, d.boot, d.seq HAVING count(s.seq) <> 1",
        );
        assert!(wrong.is_empty(), "deliveries that are not settled exactly once: {wrong:?}");
    }

    /// How many rows of a view a service has, by outcome (`null` without one).
    pub(crate) fn outcomes(&self, view: &str, service: &str) -> BTreeMap<String, i64> {
        let rows = self.store.sql(&format!(
            "SELECT outcome, count(*) AS n FROM {view} WHERE service = '{service}' GROUP BY outcome"
        ));
        rows.iter()
            .map(|row| {
                let outcome = row["outcome"].as_str().unwrap_or("null").to_owned();
                (outcome, row["n"].as_i64().expect("a count"))
            })
            .collect()
    }
}

/// A number out of what a service says that it did.
pub(crate) fn said(did: &Value, name: &str) -> i64 {
    did[name].as_i64().unwrap_or_else(|| panic!("no {name} in {did}"))
}

/// A connection with lapin. It must be kept: its channels end with it.
pub(crate) async fn connect(url: &str) -> Connection {
    Connection::connect(url, ConnectionProperties::default()).await.expect("the broker accepts")
}

/// A connection and a channel with lapin.
pub(crate) async fn channel(url: &str) -> (Connection, Channel) {
    let connection = connect(url).await;
    let channel = connection.create_channel().await.expect("a channel opens");
    (connection, channel)
}

/// A client in confirm mode with a queue `q`, its frames written by hand.
pub(crate) fn confirming(sidecar: &Sidecar, vhost: &Vhost<'_>) -> Raw {
    let mut client = Raw::connect(sidecar.port(), &Hello::new(vhost.name()));
    client.open(1);
    client.queue(1, "q");
    client.confirms(1);
    client
}

/// Publishes a message with the id `m-NUMBER` to `q`.
pub(crate) fn publish(client: &mut Raw, number: usize, body: &[u8]) {
    let id = Args::new().short(format!("m-{number}"));
    client.send(&raw::message(1, b"", b"q", 0, (MESSAGE_ID, id.as_ref()), body));
}

/// Reads until the broker has gone through all that was published, and forgets what it said.
pub(crate) fn caught_up(client: &mut Raw) {
    client.fence(1);
    client.transcript.clear();
}

/// A number of a sidecar's `/metrics`, summed over its labels.
pub(crate) fn metric(sidecar: &Sidecar, name: &str) -> i64 {
    let metrics = sidecar.metrics();
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as i64
}

/// A certificate authority of one's own: its certificate as PEM, and what signs in its name.
pub(crate) fn authority() -> (String, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    // Issuer and subject of the same name would make the certificate look signed by itself.
    params.distinguished_name.push(DnType::CommonName, "an authority for tests");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let ca = params.self_signed(&key).expect("signed by itself").pem();
    (ca, Issuer::new(params, key))
}
