//! Ways to reach a bucket: TLS with an authority of one's own, the bucket in the path or in the host's
//! name, and credentials that a token is exchanged for. The agent writes and `flowtap` reads
//! through each, from the same environment.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use flowtap_tests::process::{Folder, Process};
use flowtap_tests::rabbitmq::{RabbitMq, Version};
use flowtap_tests::raw::{self, Hello, Raw};
use flowtap_tests::s3::{Options as ServerOptions, S3Server};
use flowtap_tests::sidecar::{Options, Sidecar};
use flowtap_tests::sql::Store;
use flowtap_tests::{net, program, wait_until};
use rcgen::{CertificateParams, KeyPair};

use crate::support::authority;

type Env = Vec<(String, String)>;

/// An S3 server that speaks TLS, and the authority that vouches for it.
struct Secured {
    server: S3Server,
    files: Folder,
}

/// `None`: this machine hasn't got the server.
fn secured(domain: Option<&str>) -> Option<Secured> {
    let files = Folder::new("certificates");
    let (ca, issuer) = authority();
    let key = KeyPair::generate().expect("a key");
    let mut names = vec!["localhost".to_owned()];
    names.extend(domain.map(|domain| format!("*.{domain}")));
    let params = CertificateParams::new(names).expect("names");
    let cert = params.signed_by(&key, &issuer).expect("signed").pem();
    for (name, text) in [("ca.pem", ca), ("cert.pem", cert), ("key.pem", key.serialize_pem())] {
        std::fs::write(files.path().join(name), text).expect("our own folder");
    }
    let file = |name| files.path().join(name);
    let options = ServerOptions {
        tls: Some((file("cert.pem"), file("key.pem"))),
        domain: domain.map(str::to_owned),
        ..ServerOptions::default()
    };
    Some(Secured { server: S3Server::start_with(options)?, files })
}

impl Secured {
    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn ca_bundle(&self) -> (String, String) {
        pair("AWS_CA_BUNDLE", self.file("ca.pem").display())
    }

    fn endpoint(&self) -> (String, String) {
        pair("AWS_ENDPOINT_URL", format!("https://localhost:{}", self.server.port()))
    }
}

fn pair(name: &str, value: impl std::fmt::Display) -> (String, String) {
    (name.to_owned(), value.to_string())
}

/// What an agent records reaches the bucket with this environment, and is read from there.
fn assert_it_is_reached(server: &S3Server, env: &Env) {
    let Some(broker) = RabbitMq::shared(Version::V3_10) else { return };
    let vhost = broker.vhost();
    let url = server.url("team/history");
    let options = Options { env: env.clone(), ..Options::new("shop", broker.port(), url.clone()) };
    let mut shop = Sidecar::start(&options);
    let mut client = Raw::connect(shop.port(), &Hello::new(vhost.name()));
    client.open(1);
    client.queue(1, "q");
    client.send(&raw::message(1, b"", b"q", 0, (0, b""), b"{}"));
    client.fence(1);
    client.close();
    shop.terminate();
    assert!(!shop.log().contains("rows wait in the spool"), "the store was away");
    let store = Store::with_env(url, env.clone());
    assert_eq!(store.number("SELECT count(*) FROM publishes"), 1);
    store.assert_no_hole();
    let folder = server.objects().join("team/history/inbox/history");
    assert_eq!(std::fs::read_dir(folder).expect("objects are files").count(), 1);
}

/// How a program ends that is to reach the bucket.
pub(crate) fn ends(name: &str, args: &[&str], env: &Env) -> Output {
    let mut command = Command::new(program(name));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FLOWTAP_")) {
        command.env_remove(name);
    }
    command.args(args).envs(env.iter().cloned()).output().expect("it starts")
}

#[test]
fn an_authority_of_ones_own_vouches_for_the_server() {
    let Some(secured) = secured(None) else { return };
    let mut env = secured.server.credentials();
    env.push(secured.endpoint());
    let url = secured.server.url("team/history");
    let spool = secured.file("spool").display().to_string();
    let check = ["check", "--service=shop", "--tap=amqp 127.0.0.1:5673 amqp://127.0.0.1:1"];
    let check = [&check[..], &["--store", &url, "--spool", &spool][..]].concat();
    let sql = ["sql", "--store", &url, "SELECT count(*) FROM history"];
    for (name, args) in [("flowtap-agent", &check[..]), ("flowtap", &sql[..])] {
        let strange = ends(name, args, &env);
        let said = [strange.stdout, strange.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(strange.status.code(), Some(1), "{said}");
        assert!(said.contains("invalid peer certificate"), "{said}");
    }
    env.push(secured.ca_bundle());
    let known = ends("flowtap-agent", &check, &env);
    let said = String::from_utf8_lossy(&known.stdout);
    assert!(said.contains("put, get and delete work"), "{said}");
    assert_it_is_reached(&secured.server, &env);

    env.push(pair("AWS_CA_BUNDLE", secured.file("key.pem").display()));
    let wrong = ends("flowtap", &sql, &env);
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert_eq!(wrong.status.code(), Some(2), "{said}");
    assert!(said.contains("AWS_CA_BUNDLE") && said.contains("holds no certificate"), "{said}");
}

/// A proxy that tunnels to one port, whatever host it is asked for, and remembers which.
struct Tunnel {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tunnel {
    fn start(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("some port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let asked = Arc::default();
        let list = Arc::clone(&asked);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let list = Arc::clone(&list);
                thread::spawn(move || tunnel(&client, target, &list));
            }
        });
        Self { port, asked }
    }

    fn asked(&self) -> Vec<String> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        asked.sort();
        asked.dedup();
        asked
    }
}

fn tunnel(client: &TcpStream, target: u16, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut from_client = BufReader::new(client);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if from_client.read_until(b'\n', &mut head)? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&head);
    let host = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
    let host = host.unwrap_or("no tunnel was asked for").to_owned();
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(host);
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, target))?;
    let (mut to_client, mut to_server) = (client, &server);
    to_client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut to_client = client;
            let _ended = std::io::copy(&mut &server, &mut to_client);
            let _closed = client.shutdown(std::net::Shutdown::Both);
        });
        let _ended = std::io::copy(&mut from_client, &mut to_server);
        let _closed = server.shutdown(std::net::Shutdown::Both);
    });
    Ok(())
}

#[test]
fn the_bucket_stands_in_the_hosts_name_where_that_is_asked_for() {
    let Some(secured) = secured(Some("s3.test")) else { return };
    // Nobody resolves these names: a proxy takes them to the server.
    let proxy = Tunnel::start(secured.server.port());
    let mut env = secured.server.credentials();
    env.extend([
        secured.ca_bundle(),
        pair("AWS_ENDPOINT_URL", "https://s3.test"),
        pair("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true"),
        pair("AWS_PROXY_URL", format!("http://127.0.0.1:{}", proxy.port)),
    ]);
    assert_it_is_reached(&secured.server, &env);
    assert_eq!(proxy.asked(), ["flowtap.s3.test:443"]);
}

/// The token service of Amazon, as far as a client sees it: one token, and what it is worth. No session
/// comes with it: the S3 server's only account has none.
const STS: &str = r#"
import http.server, ssl, sys, urllib.parse
port, cert, key, access, secret = int(sys.argv[1]), *sys.argv[2:6]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        right = asked.get("Action") == "AssumeRoleWithWebIdentity" \
            and asked.get("WebIdentityToken") == "a token" and asked.get("RoleArn") == "arn:flowtap"
        body = f"""<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>
            <AccessKeyId>{access}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>
            <SessionToken></SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>
            </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""
        self.send_response(200 if right else 403)
        self.send_header("Content-Length", str(len(body) if right else 0))
        self.end_headers()
        self.wfile.write(body.encode() if right else b"")
server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(cert, key)
server.socket = tls.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

#[test]
fn a_web_identity_is_exchanged_for_credentials() {
    let Some(secured) = secured(None) else { return };
    let credentials = secured.server.credentials();
    let value = |wanted: &str| {
        let found = credentials.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.clone()).expect("it is set")
    };
    let port = net::free_port();
    let mut sts = Command::new("/usr/bin/python3");
    sts.args(["-c", STS, &port.to_string()])
        .args([secured.file("cert.pem"), secured.file("key.pem")]);
    sts.args([value("AWS_ACCESS_KEY_ID"), value("AWS_SECRET_ACCESS_KEY")]);
    let _sts = Process::start("token service", &mut sts, &secured.file("sts.log"));
    wait_until("the token service listens", || net::listens(port));
    std::fs::write(secured.file("token"), "a token").expect("our own folder");
    let env = vec![
        secured.endpoint(),
        secured.ca_bundle(),
        pair("AWS_REGION", "us-east-1"),
        pair("AWS_ENDPOINT_URL_STS", format!("https://localhost:{port}")),
        pair("AWS_ROLE_ARN", "arn:flowtap"),
        pair("AWS_WEB_IDENTITY_TOKEN_FILE", secured.file("token").display()),
    ];
    assert_it_is_reached(&secured.server, &env);
}
