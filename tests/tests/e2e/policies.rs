//! The policies that docs/storage.md shows, word for word, at a server that holds users to them: each
//! may do what it has to, and no more.

use flowtap_tests::package_dir;
use flowtap_tests::rabbitmq::{RabbitMq, Version};
use flowtap_tests::raw::{self, Hello, Raw};
use flowtap_tests::s3::{Options as ServerOptions, S3Server};
use flowtap_tests::secrets::files_with;
use flowtap_tests::sidecar::{Options, Sidecar};
use flowtap_tests::sql::Store;
use serde_json::{Value, json};

use crate::stores::ends;

/// The policies of the page, in its order: of an agent, of the ingester, of a reader.
fn shown() -> Vec<Value> {
    let page = package_dir().join("../docs/storage.md");
    let page = std::fs::read_to_string(page).expect("it is there");
    let blocks = page.split("\n\n").filter(|block| block.starts_with("    {\"Version\""));
    blocks.map(|block| serde_json::from_str(block).expect("it is JSON")).collect()
}

/// A bucket's policy that gives each user what its own policy allows.
fn of_bucket(users: &[(&str, &Value)]) -> String {
    let mut all = Vec::new();
    for (user, policy) in users {
        for statement in policy["Statement"].as_array().expect("statements") {
            let mut statement = statement.clone();
            statement["Principal"] = json!({"AWS": [user]});
            all.push(statement);
        }
    }
    json!({"Version": "2012-10-17", "Statement": all}).to_string().replace("my-bucket", "flowtap")
}

#[test]
fn each_may_do_what_its_policy_says_and_no_more() {
    let Some(broker) = RabbitMq::shared(Version::V3_10) else { return };
    let options = ServerOptions { users: true, ..ServerOptions::default() };
    let Some(server) = S3Server::start_with(options) else { return };
    let [agent, ingester, reader] = &shown()[..] else { panic!("the page shows three") };
    let of_agent = server.add_user("billing");
    let of_ingester = server.add_user("ingester");
    let of_reader = server.add_user("reader");
    server.set_policy(&of_bucket(&[
        ("billing", agent),
        ("ingester", ingester),
        ("reader", reader),
    ]));
    let url = server.url("flowtap");

    // An agent records; nobody else's name does it for these credentials.
    let vhost = broker.vhost();
    let options =
        Options { env: of_agent.clone(), ..Options::new("billing", broker.port(), url.clone()) };
    let mut billing = Sidecar::start(&options);
    let mut client = Raw::connect(billing.port(), &Hello::new(vhost.name()));
    client.open(1);
    client.queue(1, "q");
    client.send(&raw::message(1, b"", b"q", 0, (0, b""), b"{}"));
    client.fence(1);
    client.close();
    billing.terminate();
    assert!(!billing.log().contains("rows wait in the spool"), "{}", billing.log());
    let spool = billing.folder().join("other").display().to_string();
    let check = |service: &str| {
        let service = format!("--service={service}");
        let tap = format!("--tap=amqp 127.0.0.1:1 amqp://127.0.0.1:{}", broker.port());
        let args = ["check", &service, &tap, "--store", &url, "--spool", &spool];
        let done = ends("flowtap-agent", &args, &of_agent);
        let said = [done.stdout, done.stderr].concat();
        (done.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    let (code, said) = check("shop");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("AccessDenied") || said.contains("403"), "{said}");

    // It reads nothing, and writes no table.
    let run = |command: &[&str], env| {
        let done = ends("flowtap", &[command, &["--store", &url][..]].concat(), env);
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let (code, said) = run(&["sql", "SELECT 1 FROM history"], &of_agent);
    assert_eq!(code, Some(1), "{said}");
    let (code, said) = run(&["ingest", "--once"], &of_reader);
    assert_eq!(code, Some(1), "{said}");

    // The ingester moves, merges and lets go; a reader reads before and after.
    let store = Store::with_env(url.clone(), of_reader.clone());
    let count = "SELECT count(*) FROM publishes";
    assert_eq!(store.number(count), 1);
    for command in [
        &["ingest", "--once", "--grace", "1ms"][..],
        &["ingest", "--once", "--grace", "1ms"],
        &["compact"],
        &["retention", "--keep", "30d"],
    ] {
        let (code, said) = run(command, &of_ingester);
        assert_eq!(code, Some(0), "{command:?}: {said}");
    }
    let mut files = files_with(&server.objects(), &["PAR1"]);
    files.retain(|(path, _)| path.to_string_lossy().contains("/inbox/"));
    assert!(files.is_empty(), "the ingester may clear the inbox: {files:?}");
    assert_eq!(store.number(count), 1);
    store.assert_no_hole();
    let (code, said) = run(&["why", "nothing-of-that-name"], &of_reader);
    assert_eq!(code, Some(6), "{said}");
}
