//! The admin port over real sockets.

use super::*;
use crate::config::CertAndKey;
use crate::lifecycle::Phase;
use crate::tls::tests::Pki;

const TOKEN: &str = "0123456789abcdef";

/// A running admin port.
struct Running {
    config: AdminConfig,
    lifecycle: Lifecycle,
    serving: tokio::task::JoinHandle<io::Result<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn loopback() -> AdminConfig {
    AdminConfig {
        listen: ListenAddr::parse("127.0.0.1:0").unwrap(),
        token_file: None,
        tls: None,
        insecure: false,
        hosts: vec!["agent.test".to_owned()],
    }
}

async fn start(mut config: AdminConfig, listeners: usize) -> Running {
    let lifecycle = Lifecycle::new(listeners);
    let metrics = Arc::new(Metrics::new());
    let server = AdminServer::bind(&config, metrics, lifecycle.clone()).await.unwrap();
    let (host, _) = tcp_parts(&config.listen);
    let port = server.local_addr().unwrap().port();
    config.listen = ListenAddr::Tcp { host: host.to_owned(), port };
    Running { config, lifecycle, serving: tokio::spawn(server.serve()) }
}

/// The answer's status and body.
async fn get(running: &Running, path: &str, headers: &str) -> (u16, String) {
    let (_, port) = tcp_parts(&running.config.listen);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
    let answer = exchange(&mut stream, &request).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

const LOCAL: &str = "Host: localhost\r\n";

#[tokio::test]
async fn probes_tell_what_the_lifecycle_says() {
    let running = start(loopback(), 1).await;
    let ask = |what| probe(&running.config, what);
    assert_eq!(ask(Probe::Live).await, Ok(()));
    assert_eq!(ask(Probe::Ready).await, Err("0 of 1 listeners bound".to_owned()));
    running.lifecycle.listener_bound();
    assert_eq!(ask(Probe::Ready).await, Ok(()));
    running.lifecycle.enter(Phase::Draining);
    assert_eq!(ask(Probe::Ready).await, Ok(()));
    running.lifecycle.stuck("127.0.0.1:5673", "the listener is gone");
    let gone = "127.0.0.1:5673: the listener is gone".to_owned();
    assert_eq!(ask(Probe::Live).await, Err(gone));
    running.lifecycle.recovered("127.0.0.1:5673");
    assert_eq!(ask(Probe::Live).await, Ok(()));
}

#[tokio::test]
async fn a_probe_of_a_stopped_agent_fails_with_a_sentence() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let listen = ListenAddr::Tcp { host: "127.0.0.1".to_owned(), port };
    let config = AdminConfig { listen, ..loopback() };
    let why = probe(&config, Probe::Live).await.unwrap_err();
    assert!(why.starts_with(&format!("admin port 127.0.0.1:{port} does not answer")), "{why}");
}

#[tokio::test]
async fn metrics_are_served_as_open_metrics() {
    let running = start(loopback(), 0).await;
    let (status, body) = get(&running, "/metrics", LOCAL).await;
    assert_eq!(status, 200);
    assert!(body.contains("flowtap_agent_build_info"), "{body}");
    assert!(body.trim_end().ends_with("# EOF"), "{body}");
}

#[tokio::test]
async fn a_web_page_does_not_reach_a_loopback_port() {
    let running = start(loopback(), 0).await;
    for (headers, expected) in [
        ("Host: localhost\r\n", 200),
        ("Host: LOCALHOST:9464\r\n", 200),
        ("Host: 127.0.0.1:9464\r\n", 200),
        ("Host: [::1]:9464\r\n", 200),
        ("Host: agent.test\r\n", 200),
        ("Host: evil.test\r\n", 421),
        ("Host: localhost.evil.test\r\n", 421),
        ("Host: 192.0.2.1\r\n", 421),
        ("Host: \r\n", 421),
        ("Host: localhost\r\nOrigin: http://evil.test\r\n", 403),
        ("Host: localhost\r\nOrigin: null\r\n", 403),
    ] {
        for path in ["/metrics", "/livez", "/readyz"] {
            assert_eq!(get(&running, path, headers).await.0, expected, "{path} {headers}");
        }
    }
}

#[tokio::test]
async fn off_loopback_a_pod_is_scraped_by_its_address_but_not_by_any_name() {
    let listen = ListenAddr::parse("0.0.0.0:0").unwrap();
    let running = start(AdminConfig { listen, insecure: true, ..loopback() }, 0).await;
    assert_eq!(get(&running, "/metrics", "Host: 10.1.2.3:9464\r\n").await.0, 200);
    assert_eq!(get(&running, "/metrics", "Host: evil.test\r\n").await.0, 421);
    assert_eq!(probe(&running.config, Probe::Live).await, Ok(()), "asked over loopback");
}

#[tokio::test]
async fn metrics_want_the_token_and_probes_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, format!("{TOKEN}\n")).unwrap();
    let running = start(AdminConfig { token_file: Some(token_file), ..loopback() }, 0).await;
    for (authorization, expected) in [
        (String::new(), 401),
        ("Authorization: Bearer wrong-wrong-wrong\r\n".to_owned(), 401),
        (format!("Authorization: Bearer {TOKEN}x\r\n"), 401),
        (format!("Authorization: Basic {TOKEN}\r\n"), 401),
        (format!("Authorization: Bearer {TOKEN}\r\n"), 200),
    ] {
        let headers = format!("{LOCAL}{authorization}");
        assert_eq!(get(&running, "/metrics", &headers).await.0, expected, "{authorization}");
    }
    assert_eq!(get(&running, "/livez", LOCAL).await.0, 200);
    assert_eq!(get(&running, "/readyz", LOCAL).await.0, 200);
}

#[tokio::test]
async fn a_probe_reaches_an_https_port_and_a_silent_client_does_not_block_it() {
    let pki = Pki::new("agent.test");
    let running = start(AdminConfig { tls: Some(pki.server()), ..loopback() }, 0).await;
    let (_, port) = tcp_parts(&running.config.listen);
    let silent = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    assert_eq!(probe(&running.config, Probe::Ready).await, Ok(()));
    drop(silent);
}

#[tokio::test]
async fn what_keeps_the_port_from_starting_is_named() {
    let refused = async |config: AdminConfig| {
        let bound = AdminServer::bind(&config, Arc::default(), Lifecycle::new(0)).await;
        match bound {
            Ok(_) => panic!("it started"),
            Err(error) => error.to_string(),
        }
    };
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let listen = ListenAddr::parse(&address).unwrap();
    let why = refused(AdminConfig { listen, ..loopback() }).await;
    assert!(why.starts_with(&format!("admin port {address} cannot be bound")), "{why}");

    let absent = PathBuf::from("/nowhere/token");
    let why = refused(AdminConfig { token_file: Some(absent.clone()), ..loopback() }).await;
    assert!(why.starts_with("admin token /nowhere/token: "), "{why}");

    let files = CertAndKey { cert: absent.clone(), key: absent };
    let why = refused(AdminConfig { tls: Some(files), ..loopback() }).await;
    assert!(why.starts_with("certificate /nowhere/token: "), "{why}");
}
