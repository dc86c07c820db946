//! What is said of the files that a configuration names.

use insta::assert_snapshot;

use super::{File, Pki};

#[test]
fn files_that_are_missing_or_unfit_are_told_with_everything_else() {
    let pki = Pki::new("rabbit.test");
    std::fs::write(pki.path("short"), "secret").unwrap();
    std::fs::write(pki.path("spaced"), "two words that are secret").unwrap();
    let text = r#"service = "billing"
drain = "soon"
[admin]
token_file = "/pki/short"
cert = "/pki/none.pem"
key = "/pki/none.key"
[[tap]]
kind = "amqp"
listen = "127.0.0.1:5673"
broker = "amqps://rabbit"
[tap.tls]
cert = "/pki/server.pem"
key = "/pki/ca.pem"
ca = "/pki/none.pem"
[[tap]]
kind = "kafka"
listen = "127.0.0.1:19092"
broker = "kafka+ssl://kafka-1"
[tap.tls]
cert = "/pki/server.pem"
key = "/pki/other.key"
ca = "/pki/ca.pem"
client_cert = "/pki/server.pem"
client_key = "/pki/none.key"
[[tap]]
kind = "amqp"
listen = "unix:/run/tap.sock"
broker = "amqps://rabbit"
[tap.tls]
cert = "/pki/server.pem"
key = "/pki/server.key"
ca = "/pki/server.key"
"#;
    let pki_folder = pki.path("");
    let folder = pki_folder.to_str().unwrap();
    let errors = File::new(&text.replace("/pki/", folder)).errors().replace(folder, "/pki/");
    assert_snapshot!(errors, @r#"
    10 errors in the configuration
      agent.toml:2: drain: "soon" is no time: want a number and a unit, such as "10s" or "500ms"
      agent.toml:4: admin.token_file: /pki/short: is too short: want a file with the token alone, 16 characters or more
      agent.toml:5: admin.cert: certificate /pki/none.pem: No such file or directory (os error 2): want a PEM file with BEGIN CERTIFICATE
      agent.toml:6: admin.key: private key /pki/none.key: No such file or directory (os error 2): want a PEM file with BEGIN PRIVATE KEY, not encrypted
      agent.toml:13: tap[0].tls.key: private key /pki/ca.pem: holds none: want a PEM file with BEGIN PRIVATE KEY, not encrypted
      agent.toml:14: tap[0].tls.ca: certificate /pki/none.pem: No such file or directory (os error 2): want a PEM file with BEGIN CERTIFICATE
      agent.toml:20: tap[1].tls.cert: certificate /pki/server.pem and private key /pki/other.key: keys may not be consistent: KeyMismatch
      agent.toml:24: tap[1].tls.client_key: private key /pki/none.key: No such file or directory (os error 2): want a PEM file with BEGIN PRIVATE KEY, not encrypted
      agent.toml:30: tap[2].tls.cert: has no effect: TLS is for TCP, and only this machine reaches a Unix socket; leave cert and key out, or listen on host:port
      agent.toml:32: tap[2].tls.ca: certificate /pki/server.key: holds no certificate: want a PEM file with BEGIN CERTIFICATE
    "#);
    let errors = File::new(&text.replace("/pki/short", "/pki/spaced").replace("/pki/", folder));
    assert!(errors.errors().contains("spaced: is more than one word of ASCII: want a file"));
}
