//! `check` against a broker that only greets, and folders that do and do not do.

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::*;
use crate::config::Sources;
use crate::tls::tests::Pki;

/// Something that reads eight bytes, answers and waits for the end. Its address.
async fn greeter(answer: Vec<u8>, tls: Option<tokio_rustls::TlsAcceptor>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        match tls {
            None => greet(tcp, &answer).await,
            Some(acceptor) => greet(acceptor.accept(tcp).await.unwrap(), &answer).await,
        }
    });
    port
}

async fn greet(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    answer: &[u8],
) {
    let mut header = [0; 8];
    stream.read_exact(&mut header).await.unwrap();
    stream.write_all(answer).await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert_eq!(rest, b"", "check logs in nowhere");
}

/// All lines of a check, and whether all was well.
async fn checked(flags: Vec<(&'static str, String)>) -> (Vec<String>, bool) {
    let mut given = vec![("service", "shop".to_owned())];
    given.extend(flags);
    let config = Config::load(&Sources { flags: given, ..Sources::default() }).unwrap();
    let mut lines = Vec::new();
    let all_well = run(&config, &mut |line| lines.push(line)).await;
    (lines, all_well)
}

#[tokio::test]
async fn a_healthy_place_is_told_line_by_line_and_left_as_it_was() {
    let port = greeter(greeting::tests::start_frame(), None).await;
    let folder = tempfile::tempdir().unwrap();
    let (store, path) = (folder.path().join("new/store"), folder.path().join("spool"));
    let (lines, all_well) = checked(vec![
        ("tap", format!("amqp 127.0.0.1:5673 amqp://127.0.0.1:{port}")),
        ("store", store.display().to_string()),
        ("spool.path", path.display().to_string()),
    ])
    .await;
    assert!(all_well, "{lines:#?}");
    assert_eq!(lines[0], "ok    configuration: service shop");
    assert_eq!(
        lines[1],
        format!(
            "ok    tap[0] 127.0.0.1:5673 broker 127.0.0.1:{port}: RabbitMQ 3.10.8, cluster \
             rabbit@test, logins PLAIN AMQPLAIN"
        )
    );
    assert!(lines[2].ends_with("put, get and delete work"), "{lines:#?}");
    assert!(lines[3].contains("MiB free"), "{lines:#?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "left behind");
}

#[tokio::test]
async fn a_spool_that_another_agent_holds_is_told() {
    let port = greeter(greeting::tests::start_frame(), None).await;
    let folder = tempfile::tempdir().unwrap();
    let (store, path) = (folder.path().join("store"), folder.path().join("spool"));
    let (_, holder, _) = spool::Spool::open(spool::SpoolOptions::new(&path, "shop")).unwrap();
    let flags = vec![
        ("tap", format!("amqp 127.0.0.1:5673 amqp://127.0.0.1:{port}")),
        ("store", store.display().to_string()),
        ("spool.path", path.display().to_string()),
    ];
    let (lines, all_well) = checked(flags).await;
    assert!(!all_well);
    let wanted = format!("another agent (process {}) works on it", std::process::id());
    assert!(lines[3].starts_with("FAIL  spool ") && lines[3].contains(&wanted), "{lines:#?}");
    holder.abandon();
    assert_eq!(spool::holder(&path).unwrap(), None, "free again, and not held by the question");
}

#[tokio::test]
async fn everything_that_fails_is_told_not_only_the_first() {
    let http = greeter(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), None).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let below_file = file.join("folder").display().to_string();
    let (lines, all_well) = checked(vec![
        ("tap", format!("amqp 127.0.0.1:5673 amqp://127.0.0.1:1,127.0.0.1:{http}")),
        ("store", below_file.clone()),
        ("spool.path", below_file),
    ])
    .await;
    assert!(!all_well);
    let failed = lines.iter().filter(|line| line.starts_with("FAIL")).count();
    assert_eq!(failed, 4, "{lines:#?}");
    assert!(lines[1].contains("127.0.0.1:1: cannot be reached"), "{lines:#?}");
    assert!(lines[2].contains("does not speak AMQP 0-9-1"), "{lines:#?}");
}

#[tokio::test]
async fn a_broker_behind_tls_is_reached_with_the_given_roots_and_name() {
    let pki = Pki::new("rabbit.test");
    let acceptor = tls::acceptor(&pki.server()).unwrap();
    let port = greeter(greeting::tests::start_frame(), Some(acceptor)).await;
    let brokers = crate::config::Brokers::parse(&format!("amqps://127.0.0.1:{port}")).unwrap();
    let tls =
        crate::config::TapTls { server_name: Some("rabbit.test".to_owned()), ..pki.trusting() };
    let dialer = Dialer::new(brokers, &tls, PATIENCE).unwrap();
    let mut dialled = dialer.dial().await.unwrap();
    let greeting = greeting::ask(&mut dialled.stream).await.unwrap();
    assert!(greeting.to_string().starts_with("RabbitMQ"));
}

#[tokio::test]
async fn the_next_broker_is_tried_when_one_is_gone() {
    let port = greeter(greeting::tests::start_frame(), None).await;
    let list = format!("amqp://127.0.0.1:1,127.0.0.1:{port}");
    let brokers = crate::config::Brokers::parse(&list).unwrap();
    let dialer = Dialer::new(brokers, &crate::config::TapTls::default(), PATIENCE).unwrap();
    assert_eq!(dialer.dial().await.unwrap().host.port, port);
}

/// A Kafka broker that belongs to a cluster and says that it alone is in it.
async fn kafka_broker(cluster: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        while let Ok(length) = tcp.read_i32().await {
            let mut request = vec![0; length as usize];
            tcp.read_exact(&mut request).await.unwrap();
            let body = if request[1] == 18 {
                b"\0\0\0\0\0\x01\0\x03\0\0\0\x0d".to_vec()
            } else {
                let at = [b"\0\x09127.0.0.1\0\0", &port.to_be_bytes()[..]].concat();
                let id = [&[0, cluster.len() as u8], cluster.as_bytes()].concat();
                [b"\0\0\0\x01\0\0\0\x07", &at[..], b"\xff\xff", &id, &[0; 8]].concat()
            };
            let length = (4 + body.len() as i32).to_be_bytes();
            tcp.write_all(&[&length[..], &request[4..8], &body].concat()).await.unwrap();
        }
    });
    port
}

#[tokio::test]
async fn brokers_of_two_clusters_are_no_tap() {
    let (one, two) = (kafka_broker("first").await, kafka_broker("second").await);
    let folder = tempfile::tempdir().unwrap();
    let (lines, all_well) = checked(vec![
        ("tap", format!("kafka 127.0.0.1:19092 127.0.0.1:{one},127.0.0.1:{two}")),
        ("store", folder.path().join("store").display().to_string()),
        ("spool.path", folder.path().join("spool").display().to_string()),
    ])
    .await;
    assert!(!all_well);
    assert!(lines[1].ends_with(&format!("cluster first, 1 broker: 7 at 127.0.0.1:{one}")));
    assert!(lines[3].contains("belong to two clusters, first and second"), "{lines:#?}");
}
