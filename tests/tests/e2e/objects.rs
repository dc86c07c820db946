//! The store on a real S3 server instead of a folder.

use flowtap_tests::client::Client;
use flowtap_tests::rabbitmq::Version;
use flowtap_tests::s3::S3Server;
use flowtap_tests::sidecar::{Options, Sidecar};
use flowtap_tests::sql::{Store, tally};
use serde_json::json;

use crate::support::{said, scene};

#[test]
fn rows_reach_an_s3_bucket_and_are_read_from_there() {
    let Some(scene) = scene(Version::V3_10) else { return };
    let Some(s3) = S3Server::start() else { return };
    if !Client::Bunny.available() {
        return;
    }
    let url = s3.url("team/history");
    let options =
        Options { env: s3.env(), ..Options::new("shop", scene.broker.port(), url.clone()) };
    // Three agents with one identical configuration and different spools don't collide.
    let mut sidecars = [(); 3].map(|()| Sidecar::start(&options));
    let mut published = 0;
    for sidecar in &sidecars {
        let did = Client::Bunny.run(&json!({
            "role": "publish", "url": scene.url(sidecar), "exchange": "orders", "type": "fanout",
            "plan": vec!["ack"; 20], "unroutable": 1, "confirm": true,
        }));
        published += said(&did, "published");
    }
    // Killed while rows wait: they are put when it is back, and the rest at the end.
    s3.kill9();
    let did = Client::Bunny.run(&json!({
        "role": "publish", "url": scene.url(&sidecars[0]), "exchange": "orders", "type": "fanout",
        "plan": vec!["ack"; 20], "confirm": true,
    }));
    published += said(&did, "published");
    s3.restart();
    sidecars.iter_mut().for_each(Sidecar::terminate);

    let store = Store::with_env(url, s3.env());
    // Nobody is bound to these exchanges.
    assert_eq!(
        store.tally("shop"),
        tally([
            ("publish", published),
            ("confirm confirmed", published),
            ("return unroutable", published),
        ])
    );
    assert_eq!(store.number("SELECT count(DISTINCT agent) FROM history"), 3);
    for sidecar in &sidecars {
        assert!(!sidecar.log().contains(s3.secret()), "the log holds the secret key");
    }
}
