//! Logins and TLS, with every client and every mechanism.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use flowtap_tests::client::{Client, KAFKA};
use flowtap_tests::kafka::wire::{Api, Body, call};
use flowtap_tests::kafka::{Kafka, Listener, Options, PASSWORD, Tls, USER, Version};
use flowtap_tests::process::Folder;
use flowtap_tests::secrets::{contains, files_with};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};

use crate::support::{Scene, Way, number, received, scene_on};

const MECHANISMS: [&str; 4] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"];

/// How soon a broker wants to see a login again: sooner than any token ends.
const AGAIN_MS: u32 = 4000;

/// The clients that can log in and speak TLS.
fn clients() -> Vec<Client> {
    let able = KAFKA.into_iter().filter(|client| *client != Client::Rdkafka);
    able.filter(|client| client.available()).collect()
}

fn tls() -> Tls {
    let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Named otherwise than what it signs: OpenSSL would take that for its own signature.
    params.distinguished_name.push(DnType::CommonName, "authority");
    let key = KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(names).expect("valid names");
    params.distinguished_name.push(DnType::CommonName, "broker");
    let certificate = params.signed_by(&key, &authority).expect("the authority signs");
    Tls {
        ca: authority.pem(),
        cert: certificate.pem(),
        key: key.serialize_pem(),
        client_certificate: false,
    }
}

/// What a secret looks like on the wire: a password, the header of every unsecured token, what only
/// the last word of a SCRAM login begins with. None of it may be written anywhere.
const SECRETS: [&str; 3] = [PASSWORD, r#""alg":"none""#, "c=biws,r="];

/// A cluster with a login and TLS, and the authority's certificate for clients.
fn cluster(version: Version) -> Option<(Kafka, Folder)> {
    cluster_with(version, false)
}

/// The same, where whoever speaks TLS may have to show a certificate.
fn cluster_with(version: Version, client_certificate: bool) -> Option<(Kafka, Folder)> {
    let tls = Tls { client_certificate, ..tls() };
    let folder = Folder::new("ca");
    for (name, text) in [("ca.pem", &tls.ca), ("cert.pem", &tls.cert), ("key.pem", &tls.key)] {
        std::fs::write(folder.path().join(name), text).expect("our own folder");
    }
    let options = Options {
        sasl: true,
        login_again_ms: Some(AGAIN_MS),
        tls: Some(tls),
        ..Options::default()
    };
    Some((Kafka::start_with(version, &options)?, folder))
}

fn security(mechanism: Option<&str>, ca: Option<&Folder>) -> Value {
    let mut all = json!({"user": USER, "password": PASSWORD, "token_seconds": 60});
    if let Some(mechanism) = mechanism {
        all["mechanism"] = mechanism.into();
    }
    if let Some(folder) = ca {
        all["ca"] = folder.path().join("ca.pem").display().to_string().into();
    }
    all
}

/// Each client with each mechanism works for longer than its login holds: it has to log in again on
/// connections that are in use.
fn logged_in_again_on_the_same_connection(version: Version) {
    let Some((kafka, _folder)) = cluster(version) else { return };
    let scene = scene_on(&kafka);
    let way = scene.way_to("shop", Listener::Sasl, |_| {});
    let topic = scene.topic(1, &[]);
    let records = 40;
    let clients = clients();
    let mut services = Vec::new();
    for &client in &clients {
        for mechanism in MECHANISMS {
            let name = format!("{client:?}-{mechanism}");
            let scenario = json!({
                "role": "produce", "bootstrap": way.bootstrap(), "topic": topic, "count": records,
                "every_ms": 300, "batch": 1, "idempotent": true, "client_id": name,
                "security": security(Some(mechanism), None),
            });
            services.push((client, name, client.start(&scenario)));
        }
    }
    let mut names = Vec::new();
    for (client, name, mut service) in services {
        let did = service.finish();
        assert_eq!(number(&did, "confirmed"), records, "{name}: {did}");
        names.push((client, name));
    }
    assert_no_secret(&scene, &way);
    let Some(rows) = scene.rows(&way) else { return };
    assert_no_secret(&scene, &way);
    rows.assert_no_gap();
    rows.assert_published(&topic, &scene.places(&topic, false));
    assert_eq!(rows.count("publish", &topic), records * names.len() as i64);
    // The name of an OAUTHBEARER user is in the token, which nobody looks into.
    let nameless = rows.all("publish", &topic).filter(|row| row["principal"].is_null()).count();
    assert_eq!(nameless as i64, records * clients.len() as i64);
    let users: BTreeSet<_> =
        rows.all("publish", &topic).filter_map(|row| row["principal"].as_str()).collect();
    assert_eq!(users, BTreeSet::from([USER]));
    for (client, name) in names {
        let own = |row: &&Value| row["client"].as_str().is_some_and(|said| said.contains(&name));
        let connections: BTreeSet<_> = rows
            .all("publish", &topic)
            .filter(own)
            .map(|row| row["connection"].as_i64().expect("a connection has a number"))
            .collect();
        eprintln!("{name}: {connections:?}");
        assert!(!connections.is_empty(), "{name} published nothing");
        // aiokafka lets the broker close the connection, and connects again.
        if client != Client::Aiokafka {
            assert_eq!(connections.len(), 1, "{name} logged in again on its connection");
        }
    }
}

#[test]
#[ignore = "long: make test-long"]
fn logged_in_again_on_the_same_connection_on_4() {
    logged_in_again_on_the_same_connection(Version::V4);
}

#[test]
#[ignore = "long: make test-long"]
fn logged_in_again_on_the_same_connection_on_3_9() {
    logged_in_again_on_the_same_connection(Version::V3_9);
}

/// In spool, log, configuration, store and metrics, and in the rows, which are compressed there.
fn assert_no_secret(scene: &Scene<'_>, way: &Way) {
    let Some(mut sidecar) = way.sidecar() else { return };
    for folder in [sidecar.folder(), scene.folder.path()] {
        let found = files_with(folder, &SECRETS);
        assert!(found.is_empty(), "{found:?}");
    }
    let said = if sidecar.runs() { sidecar.metrics() } else { String::new() };
    let rows = Value::from(scene.store.sql("SELECT * FROM history")).to_string();
    for secret in SECRETS {
        assert!(!contains(said.as_bytes(), secret), "{secret} in metrics");
        assert!(!contains(rows.as_bytes(), secret), "{secret} in rows");
    }
}

/// Over TLS, and with a login over TLS.
#[test]
#[ignore = "long: make test-long"]
fn over_tls() {
    let Some((kafka, folder)) = cluster(Version::V4) else { return };
    let scene = scene_on(&kafka);
    let clients = clients();
    for (listener, mechanism) in [(Listener::Tls, None), (Listener::SaslTls, Some("SCRAM-SHA-256"))]
    {
        let way = scene.way_to(&format!("{listener:?}"), listener, |options| {
            let file = |name: &str| folder.path().join(name).display().to_string();
            options.tap.push(format!(
                "tls.cert = {:?}\ntls.key = {:?}\ntls.ca = {:?}",
                file("cert.pem"),
                file("key.pem"),
                file("ca.pem"),
            ));
        });
        let start = |client: &Client| {
            let topic = scene.topic(1, &[]);
            let scenario = json!({
                "role": "produce", "bootstrap": way.bootstrap(), "topic": topic, "count": 20,
                "security": security(mechanism, Some(&folder)),
            });
            (*client, topic, client.start(&scenario))
        };
        let services: Vec<_> = clients.iter().map(start).collect();
        let mut readers = Vec::new();
        for (client, topic, mut service) in services {
            assert_eq!(number(&service.finish(), "confirmed"), 20, "{client:?}");
            let group = scene.kafka.name("factory");
            let scenario = json!({
                "role": "consume", "bootstrap": way.bootstrap(), "topics": [topic], "records": 20,
                "group": group, "security": security(mechanism, Some(&folder)),
            });
            readers.push((client, topic, group, client.start(&scenario)));
        }
        let mut read = Vec::new();
        for (client, topic, group, mut reader) in readers {
            assert_eq!(received(&reader.finish_lines()).len(), 20, "{client:?}");
            read.push((topic, group));
        }
        let Some(rows) = scene.rows(&way) else { continue };
        rows.assert_no_gap();
        rows.assert_settled_exactly_once();
        for (topic, group) in read {
            rows.assert_published(&topic, &scene.places(&topic, false));
            assert_eq!(rows.delivered(&topic, Some(&group)).len(), 20);
            rows.assert_committed(&group, &scene.kafka.committed(&group));
        }
        let key = std::fs::read_to_string(folder.path().join("key.pem")).expect("it was written");
        let key = key.lines().nth(1).expect("a line of the key").to_owned();
        let Some(sidecar) = way.sidecar() else { continue };
        for written in [sidecar.folder(), scene.folder.path()] {
            let found = files_with(written, &[&key, PASSWORD]);
            assert!(found.is_empty(), "{found:?}");
        }
    }
}

/// The broker wants to see a certificate: the sidecar shows its own, for services that have none.
#[test]
#[ignore = "long: make test-long"]
fn the_sidecar_shows_its_own_certificate() {
    if !Client::Franz.available() {
        return;
    }
    let Some((kafka, folder)) = cluster_with(Version::V4, true) else { return };
    let scene = scene_on(&kafka);
    let file = |name: &str| folder.path().join(name).display().to_string();
    let nobody = scene.way_to("nobody", Listener::Tls, |options| {
        options.tap.push(format!("tls.ca = {:?}", file("ca.pem")));
    });
    let way = scene.way_to("shop", Listener::Tls, |options| {
        options.tap.push(format!(
            "tls.client_cert = {:?}\ntls.client_key = {:?}\ntls.ca = {:?}",
            file("cert.pem"),
            file("key.pem"),
            file("ca.pem"),
        ));
    });
    let Some(port) = nobody.sidecar().map(|sidecar| sidecar.port()) else { return };
    let api = Api { key: 18, version: 0, flexible: false };
    let refused = call(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), api, Body::default());
    assert!(refused.is_err(), "without a certificate nobody gets in");
    let topic = scene.topic(1, &[]);
    let did = Client::Franz.run(&json!({
        "role": "produce", "bootstrap": way.bootstrap(), "topic": topic, "count": 20,
    }));
    assert_eq!(number(&did, "confirmed"), 20);
    let group = scene.kafka.name("factory");
    let read = Client::Franz.run_lines(&json!({
        "role": "consume", "bootstrap": way.bootstrap(), "topics": [topic], "records": 20,
        "group": group,
    }));
    assert_eq!(received(&read).len(), 20);
    let Some(rows) = scene.rows(&way) else { return };
    rows.assert_no_gap();
    rows.assert_published(&topic, &scene.places(&topic, false));
    assert_eq!(rows.delivered(&topic, Some(&group)).len(), 20);
    rows.assert_committed(&group, &scene.kafka.committed(&group));
}
