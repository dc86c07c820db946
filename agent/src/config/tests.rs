//! The configuration as people meet it: what is read, what wins, and what they are told.

use std::path::Path;

use insta::assert_snapshot;
use tempfile::TempDir;

use super::keys::{AGENT, env_name};
use super::keys_repeated::{RULE, TAP};
use super::*;
use crate::tls::tests::Pki;

mod files;
mod rules;
mod taps;

/// A file in a folder of its own.
struct File {
    folder: TempDir,
}

impl File {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("agent.toml"), text).unwrap();
        Self { folder }
    }

    fn load(&self, env: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Result<Config, String> {
        let file = Some(self.folder.path().join("agent.toml"));
        load(file, env, flags)
            .map_err(|error| error.replace(&format!("{}/", self.folder.path().display()), ""))
    }

    fn errors(&self) -> String {
        self.load(&[], &[]).unwrap_err()
    }
}

fn load(
    file: Option<PathBuf>,
    env: &[(&str, &str)],
    flags: &[(&'static str, &str)],
) -> Result<Config, String> {
    let env = env.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let flags = flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
    Config::load(&Sources { file, env, flags }).map_err(|problems| problems.to_string())
}

const FLAGS: [(&str, &str); 2] =
    [("service", "shop"), ("tap", "amqp 127.0.0.1:5673 amqp://rabbit:5672")];

/// Every key, none at its default, as fits together. Files below `/pki/` are those of [`Pki`].
const FULL: &str = r#"
service = "billing"
agent = "billing-7"
instance = "pod-7"
drain = "30s"
store = "s3://bucket/prefix"
[spool]
path = "/spool"
max_size = "2GiB"
memory = "1MiB"
[upload]
age = "3s"
size = "1MB"
status = "7s"
[admin]
listen = "0.0.0.0:9000"
token_file = "/pki/token"
cert = "/pki/server.pem"
key = "/pki/server.key"
insecure = true
hosts = ["agent.test", "other.test"]
[log]
format = "json"
level = "debug"
[limits]
memory = "5MiB"
decode = "6MiB"
[record]
headers = ["x-order", "x-shop"]
keys = ["order_id"]
payload = "failed"
max_bytes = "1KiB"
redact = ["customer_name", "/customer/address"]
exception_texts = true
[[tap]]
kind = "amqp"
listen = "0.0.0.0:5673"
broker = "amqps://rabbit-1:5671,[::1]:5672,rabbit-3"
cluster = "main"
detect_unroutable = false
unroutable_max_body = "1MB"
allow_external = true
allow_remote = true
[tap.tls]
cert = "/pki/server.pem"
key = "/pki/server.key"
ca = "/pki/ca.pem"
server_name = "rabbit.test"
client_cert = "/pki/server.pem"
client_key = "/pki/server.key"
[[tap]]
kind = "amqp"
listen = "unix:/run/tap.sock"
broker = "amqp://rabbit"
[[tap]]
kind = "kafka"
listen = "127.0.0.1:19092"
broker = "kafka+ssl://kafka-1:9093,kafka-2"
ports = "19200-19300"
advertise = "localhost"
record = false
[tap.tls]
ca = "/pki/ca.pem"
[[rule]]
name = "orders"
exchange = "orders*"
topic = "orders-*"
routing_key = "order.*"
event_id = "property:message_id"
event_type = "property:type"
transaction_id = "header:x-order"
causation_id = "header:x-cause"
command = "body:/command/name"
command_id = "body:/command/id"
trace_id = "header:x-trace"
keys = { order = "body:/order/no", shop = "header:x-shop" }
"#;

/// `FULL` with the files of a folder.
fn full(pki: &Pki) -> String {
    std::fs::write(pki.path("token"), "0123456789abcdef\n").unwrap();
    FULL.replace("/pki/", pki.path("").to_str().unwrap())
}

/// `FULL` as variables.
fn full_variables(full: &str) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    let mut section = String::new();
    let mut counts = std::collections::HashMap::new();
    for line in full.lines().filter(|line| !line.is_empty()) {
        if let Some(kind) = line.strip_prefix("[[").and_then(|rest| rest.strip_suffix("]]")) {
            let count = counts.entry(kind).or_insert(0);
            section = format!("{kind}.{count}.");
            *count += 1;
        } else if line == "[tap.tls]" {
            section.push_str("tls.");
        } else if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = format!("{name}.");
        } else {
            let (key, value) = line.split_once(" = ").unwrap();
            let table = value.starts_with('{');
            let value = value.replace(['"', '[', ']'], "");
            let value = if table { value.replace(['{', '}', ' '], "") } else { value };
            // The brackets of an IPv6 address are no list's.
            let value = value.replace("::1:5672", "[::1]:5672");
            variables.push((env_name(&format!("{section}{key}")), value));
        }
    }
    variables
}

#[test]
fn what_stands_in_the_file_is_read() {
    let pki = Pki::new("rabbit.test");
    let config = File::new(&full(&pki)).load(&[], &[]).unwrap();
    assert_eq!(config.drain, Duration::from_secs(30));
    assert_eq!(config.store.to_string(), "s3://bucket/prefix");
    assert_eq!(config.upload.size, ByteSize(1_000_000));
    assert_eq!(config.record.headers, HeaderPolicy::Named(vec!["x-order".into(), "x-shop".into()]));
    assert_eq!(config.record.payload, PayloadPolicy::Failed);
    let [first, second, kafka] = &config.taps[..] else { panic!("not three taps") };
    assert_eq!(first.broker.to_string(), "amqps://rabbit-1:5671,[::1]:5672,rabbit-3:5671");
    assert_eq!(first.tls.client.as_ref().unwrap().key, pki.path("server.key"));
    assert_eq!(second.listen, ListenAddr::Unix("/run/tap.sock".into()));
    assert!(second.detect_unroutable, "the default holds where another tap differs");
    assert_eq!(kafka.broker.to_string(), "kafka+ssl://kafka-1:9093,kafka-2:9092");
    assert_eq!(kafka.ports, Some(PortRange { first: 19200, last: 19300 }));
    assert_eq!(config.rules[0].command.as_deref(), Some("body:/command/name"));
    let keys = [("order", "body:/order/no"), ("shop", "header:x-shop")];
    assert_eq!(config.rules[0].keys, keys.map(|(name, at)| (name.to_owned(), at.to_owned())));
}

#[test]
fn file_and_variables_say_every_key_alike() {
    let pki = Pki::new("rabbit.test");
    let full = full(&pki);
    let variables = full_variables(&full);
    let borrowed: Vec<(&str, &str)> =
        variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let from_variables = load(None, &borrowed, &[]).unwrap();
    let from_file = File::new(&full).load(&[], &[]).unwrap();
    assert_eq!(format!("{from_variables:?}"), format!("{from_file:?}"));

    let names: Vec<&str> = borrowed.iter().map(|(name, _)| *name).collect();
    let once = AGENT.iter().map(|key| key.name.to_owned());
    let taps = TAP.iter().map(|key| {
        let kafka = checks::of_other_kind(TapKind::Amqp, key.name).is_some();
        format!("tap.{}.{}", if kafka { 2 } else { 0 }, key.name)
    });
    let rules = RULE.iter().map(|key| format!("rule.0.{}", key.name));
    for key in once.chain(taps).chain(rules) {
        assert!(names.contains(&env_name(&key).as_str()), "{key} is not in this test");
    }
}

#[test]
fn every_key_of_the_full_file_makes_a_difference() {
    let pki = Pki::new("rabbit.test");
    let text = full(&pki);
    let full = format!("{:?}", File::new(&text).load(&[], &[]).unwrap());
    for (number, line) in text.lines().enumerate() {
        // Second taps differ from the first by their section only.
        if !line.contains(" = ") {
            continue;
        }
        let without: Vec<&str> =
            text.lines().enumerate().filter(|(n, _)| *n != number).map(|(_, line)| line).collect();
        let loaded = File::new(&without.join("\n")).load(&[], &[]);
        assert!(loaded.is_err() || format!("{:?}", loaded.unwrap()) != full, "{line}");
    }
}

#[test]
fn flags_stand_over_variables_over_the_file() {
    let pki = Pki::new("rabbit.test");
    let file = File::new(&full(&pki));
    let config = file
        .load(
            &[
                ("FLOWTAP_SERVICE", "from-variable"),
                ("FLOWTAP_SPOOL_PATH", "/from-variable"),
                ("FLOWTAP_TAP_0_LISTEN", "127.0.0.1:1"),
                ("FLOWTAP_TAP_1_CLUSTER", "from-variable"),
                ("FLOWTAP_TAP_3_KIND", "amqp"),
                ("FLOWTAP_TAP_3_LISTEN", "127.0.0.1:3"),
                ("FLOWTAP_TAP_3_BROKER", "amqp://rabbit"),
                ("FLOWTAP_RECORD_KEYS", ""),
            ],
            &[("service", "from-flag"), ("tap", "amqp 127.0.0.1:2 amqps://from-flag:1")],
        )
        .unwrap();
    assert_eq!(config.service, "from-flag");
    assert_eq!(config.spool.path, Path::new("/from-variable"));
    assert_eq!(config.taps[0].listen.to_string(), "127.0.0.1:2");
    assert_eq!(config.taps[0].broker.to_string(), "amqps://from-flag:1");
    assert_eq!(config.taps[0].cluster.as_deref(), Some("main"), "what a flag leaves out stays");
    assert_eq!(config.taps[1].cluster.as_deref(), Some("from-variable"));
    assert_eq!(config.taps.len(), 4);
    assert_eq!(config.record.keys, KeyPolicy::Named(Vec::new()), "an empty variable is no list");
    assert_eq!(config.agent.as_deref(), Some("billing-7"));
}

#[test]
fn little_is_enough_and_defaults_follow_the_store() {
    let folder = load(None, &[], &FLAGS).unwrap();
    assert_eq!(folder.store, StoreUrl::Folder("/var/lib/flowtap".into()));
    assert_eq!(
        (folder.upload.age, folder.upload.status),
        (Duration::from_secs(2), Duration::from_secs(5))
    );
    assert_eq!(folder.admin.listen.to_string(), "127.0.0.1:9464");
    assert!(!folder.instance.is_empty());
    assert!(folder.taps[0].detect_unroutable && !folder.taps[0].allow_external);
    let s3 = load(None, &[("FLOWTAP_STORE", "s3://bucket")], &FLAGS).unwrap();
    assert_eq!(
        (s3.upload.age, s3.upload.status),
        (Duration::from_secs(10), Duration::from_mins(1))
    );
}

#[test]
fn everything_wrong_is_told_at_once_with_line_key_and_remedy() {
    let file = File::new(
        r#"servce = "billing"
drain = 10

[spool]
pth = "/spool"
max_size = "much"

[[tap]]
kind = "amqp"
listen = "5673"
broker = "amqp://user:secret@rabbit:5672"

[[tap]]
kind = "kafka"
listen = "127.0.0.1:19092"
ports = "19100"

[upload]
age = "soon"

[[taps]]
"#,
    );
    let errors = file
        .load(
            &[("FLOWTAP_SPOOL_PAHT", "/x"), ("FLOWTAP_LOG_LEVEL", "loud")],
            &[("admin.listen", "9464")],
        )
        .unwrap_err();
    assert_snapshot!(errors, @r#"
    14 errors in the configuration
      agent.toml: service: missing: write service = "billing", or set FLOWTAP_SERVICE or --service
      agent.toml:1: servce: unknown key: did you mean service?
      agent.toml:2: drain: a time wants its unit in quotes, such as "10s"
      agent.toml:5: spool.pth: unknown key: did you mean spool.path?
      agent.toml:6: spool.max_size: "much" is no size: want bytes, or a whole number and a unit, such as "64KiB" or "8MB"
      agent.toml:10: tap[0].listen: "5673" is no address: want host:port such as "127.0.0.1:5673", or "unix:/path"
      agent.toml:11: tap[0].broker: holds a user or password: leave it out, the agent never logs in; the service's own credentials pass through it
      agent.toml:13: tap[1].broker: missing: write broker = "amqp://rabbit-1:5672,rabbit-2:5672", or set FLOWTAP_TAP_1_BROKER
      agent.toml:16: tap[1].ports: "19100" are no ports: want the first and the last, such as "19100-19199"
      agent.toml:19: upload.age: "soon" is no time: want a number and a unit, such as "10s" or "500ms"
      agent.toml:21: taps: unknown key: did you mean [[tap]]?
      FLOWTAP_LOG_LEVEL: log.level: "loud" is none of "off", "error", "warn", "info", "debug", "trace"
      FLOWTAP_SPOOL_PAHT: unknown variable: did you mean FLOWTAP_SPOOL_PATH?
      --admin: admin.listen: "9464" is no address: want host:port such as "127.0.0.1:5673", or "unix:/path"
    "#);
    assert!(!errors.contains("user:") && !errors.contains("secret"), "a credential is repeated");
}

#[test]
fn what_does_not_fit_together_is_told() {
    let file = File::new(
        r#"service = "billing"
[admin]
listen = "0.0.0.0:9464"
cert = "/admin.pem"
[[tap]]
kind = "amqp"
listen = "0.0.0.0:5673"
broker = "amqp://rabbit"
[tap.tls]
ca = "/ca.pem"
client_cert = "/client.pem"
[[tap]]
kind = "amqp"
listen = "0.0.0.0:5673"
broker = "amqp://rabbit"
allow_remote = true
[[rule]]
name = "orders"
exchange = "orders"
[record]
headers = ["x-auth-user"]
"#,
    );
    assert_snapshot!(file.errors(), @r#"
    9 errors in the configuration
      agent.toml:3: admin.listen: other machines reach 0.0.0.0:9464: set admin.token_file, admin.cert and admin.key, or admin.insecure = true
      agent.toml:4: admin.cert: cert and key go together: set both or none
      agent.toml:7: tap[0].listen: other machines reach 0.0.0.0:5673: want a loopback address, or allow_remote = true
      agent.toml:10: tap[0].tls.ca: has no effect: the broker is dialled without TLS; write amqps:// to use it
      agent.toml:11: tap[0].tls.client_cert: client_cert and client_key go together: set both or none
      agent.toml:11: tap[0].tls.client_cert: has no effect: the broker is dialled without TLS; write amqps:// to use it
      agent.toml:14: tap[1].listen: 0.0.0.0:5673 is already taken by tap[0]
      agent.toml:18: rule[0].name: rule `orders` finds nothing: give it at least one of event_id, event_type, transaction_id, causation_id, command, command_id, trace_id, keys
      agent.toml:21: record.headers: "x-auth-user" is never recorded, for it looks like a secret or a person's data: leave it out
    "#);
}

#[test]
fn what_is_missing_is_told_with_every_way_to_give_it() {
    assert_snapshot!(load(None, &[("FLOWTAP_TAP_0_LISTEN", "127.0.0.1:1")], &[]).unwrap_err(), @r#"
    3 errors in the configuration
      FLOWTAP_TAP_0_LISTEN: tap[0].broker: missing: write broker = "amqp://rabbit-1:5672,rabbit-2:5672", or set FLOWTAP_TAP_0_BROKER
      FLOWTAP_TAP_0_LISTEN: tap[0].kind: missing: write kind = "amqp", or set FLOWTAP_TAP_0_KIND
      configuration: service: missing: write service = "billing", or set FLOWTAP_SERVICE or --service
    "#);
    assert_snapshot!(load(None, &[], &[("service", "shop")]).unwrap_err(), @r#"
    1 error in the configuration
      configuration: tap: missing: write a [[tap]] with kind, listen and broker, or give --tap 'amqp 127.0.0.1:5673 amqp://rabbit:5672'
    "#);
}

#[test]
fn a_file_that_is_no_toml_hides_no_other_error() {
    let file = File::new("service = \"billing\"\ndrain = = 3\n");
    assert_snapshot!(file.load(&[("FLOWTAP_SERVIC", "x")], &[]).unwrap_err(), @r#"
    2 errors in the configuration
      agent.toml:2: is no TOML: extra `=`, expected nothing
      FLOWTAP_SERVIC: unknown variable: did you mean FLOWTAP_SERVICE?
    "#);
    let absent = load(Some("/nowhere/agent.toml".into()), &[], &[]).unwrap_err();
    assert!(absent.contains("/nowhere/agent.toml: cannot be read: No such file"), "{absent}");
}

#[test]
fn sections_and_their_brackets_are_explained() {
    let file = File::new(
        "service = \"a\"\nspool = \"/spool\"\nlisten = \"x\"\n[tap]\nkind = \"amqp\"\n[log.level]\nx = 1\n[nothing]\n",
    );
    assert_snapshot!(file.errors(), @r#"
    5 errors in the configuration
      agent.toml:2: spool: is a section: it holds path, max_size, memory
      agent.toml:3: listen: unknown key: did you mean admin.listen?
      agent.toml:4: tap: may stand more than once: write [[tap]], in two brackets
      agent.toml:7: log.level.x: unknown key: did you mean log.level?
      agent.toml:8: nothing: unknown key: `flowtap-agent config-reference` lists all keys
    "#);
}

#[test]
fn what_kubernetes_sets_is_no_error() {
    let of_services = [
        ("FLOWTAP_SERVICE_HOST", "10.0.0.1"),
        ("FLOWTAP_SERVICE_PORT", "8080"),
        ("FLOWTAP_SERVICE_PORT_HTTP", "8080"),
        ("FLOWTAP_PORT", "tcp://10.0.0.1:8080"),
        ("FLOWTAP_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("FLOWTAP_PORT_8080_TCP_PROTO", "tcp"),
        ("FLOWTAP_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("FLOWTAP_STORE_SERVICE_HOST", "10.0.0.2"),
        ("FLOWTAP_STORE_PORT_9000_TCP_PORT", "9000"),
        ("FLOWTAP_STORE", "file:///store"),
        ("FLOWTAPPER", "not ours"),
        ("PATH", "/bin"),
    ];
    let config = load(None, &of_services, &FLAGS).unwrap();
    assert_eq!(config.store, StoreUrl::Folder("/store".into()));
    for name in ["FLOWTAP_PORT_X_TCP", "FLOWTAP_SERVICE_HOSTS", "FLOWTAP_PORTS", "FLOWTAP_PASSWORD"]
    {
        let errors = load(None, &[(name, "hunter2")], &FLAGS).unwrap_err();
        assert!(errors.contains(&format!("{name}: unknown variable")), "{errors}");
        assert!(!errors.contains("hunter2"), "a value is repeated: {errors}");
    }
}

#[test]
fn no_key_is_named_like_what_kubernetes_sets() {
    for (name, _) in full_variables(FULL) {
        assert!(!sources::is_from_kubernetes(&name), "{name}");
    }
}

#[test]
fn urls_with_credentials_are_refused_and_not_repeated() {
    for (key, value) in [
        ("store", "s3://key:hunter2@bucket"),
        ("store", "s3://bucket?secret=hunter2"),
        ("tap", "amqp 127.0.0.1:1 amqp://user:hunter2@rabbit"),
        ("tap", "amqp 127.0.0.1:1 amqp://rabbit/?password=hunter2"),
        ("tap", "amqp 127.0.0.1:1 rabbit://user:hunter2@rabbit"),
    ] {
        let errors = load(None, &[], &[("service", "a"), (key, value)]).unwrap_err();
        assert!(errors.contains(&format!("--{key}: ")), "{errors}");
        assert!(!errors.contains("hunter2"), "{errors}");
    }
}

#[test]
fn sizes_and_addresses_are_read_as_people_write_them() {
    for (text, bytes) in
        [("64KiB", 65_536), ("8 MB", 8_000_000), ("7", 7), ("7B", 7), ("1kB", 1000)]
    {
        assert_eq!(ByteSize::parse(text), Ok(ByteSize(bytes)));
        assert_eq!(ByteSize::parse(&ByteSize(bytes).to_string()), Ok(ByteSize(bytes)));
    }
    for text in ["", "MB", "1.5MB", "-1", "1 PB", "99999999999999TiB"] {
        assert!(ByteSize::parse(text).is_err(), "{text}");
    }
    for (text, loopback) in [
        ("127.0.0.1:1", true),
        ("127.9.9.9:1", true),
        ("[::1]:1", true),
        ("localhost:1", true),
        ("unix:/run/x", true),
        ("0.0.0.0:1", false),
        ("[::]:1", false),
        ("host.test:1", false),
    ] {
        let address = ListenAddr::parse(text).unwrap();
        assert_eq!((address.to_string().as_str(), address.is_loopback()), (text, loopback));
    }
    for text in ["5673", ":5673", "127.0.0.1", "::1:5673", "a b:1", "a:99999", "unix:x", "[a]:1"] {
        assert!(ListenAddr::parse(text).is_err(), "{text}");
    }
}

#[test]
fn the_reference_page_is_the_one_in_the_docs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (_, generated) = page.split_once("<!-- generated -->\n\n").unwrap();
    assert!(
        generated == reference(),
        "put the output of `flowtap-agent config-reference` below `<!-- generated -->` in {}",
        path.display()
    );
}
