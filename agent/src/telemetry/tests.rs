//! Spans to a small HTTP receiver, and log lines into memory.

use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tracing::{debug, info, info_span, warn};

use super::*;
use crate::config::Sources;

fn config(flags: &[(&'static str, &str)]) -> Config {
    let mut given =
        vec![("service", "shop".to_owned()), ("tap", "amqp [::1]:1 amqp://b:1".to_owned())];
    given.extend(flags.iter().map(|(key, value)| (*key, (*value).to_owned())));
    Config::load(&Sources { flags: given, ..Sources::default() }).unwrap()
}

/// A collector that takes every request and hands out its first line, headers and body.
async fn collector() -> (String, mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut buffer = Vec::new();
                while stream.read_buf(&mut buffer).await.is_ok_and(|read| read > 0) {
                    let Some(request) = whole_request(&mut buffer) else { continue };
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                    stream.write_all(answer).await.unwrap();
                    let _ = sender.send(request);
                }
            });
        }
    });
    (format!("http://{address}"), requests)
}

/// Takes a request off the buffer once it is there to its end.
fn whole_request(buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let head = buffer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    let end = head + length.trim().parse::<usize>().unwrap();
    (buffer.len() >= end).then(|| buffer.drain(..end).collect())
}

fn contains(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|window| window == part.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn our_spans_arrive_at_the_collector_and_beget_no_others() {
    let (endpoint, mut requests) = collector().await;
    let config = config(&[]);
    let builder = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_endpoint(format!("{endpoint}/v1/traces"));
    let spans = provider(builder, &config).unwrap();
    let subscriber = subscriber(&config.log, std::io::sink, Some(&spans));
    let _guard = tracing::subscriber::set_default(subscriber);
    info_span!("upload", rows = 3).in_scope(|| info!("done"));
    info_span!(target: "hyper_util::client", "foreign").in_scope(|| {});
    Telemetry { spans: Some(spans) }.shutdown().await;

    let request = requests.recv().await.unwrap();
    assert!(request.starts_with(b"POST /v1/traces HTTP/1.1\r\n"));
    for part in ["upload", "flowtap-agent", "flowtap.service", "shop"] {
        assert!(contains(&request, part), "no {part} in the exported spans");
    }
    assert!(!contains(&request, "foreign"), "another crate's span was exported");
    assert!(requests.try_recv().is_err(), "exporting made spans of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_there_does_not_hold_up_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    drop(listener);
    let config = config(&[]);
    let builder = opentelemetry_otlp::SpanExporter::builder().with_http().with_endpoint(endpoint);
    let spans = provider(builder, &config).unwrap();
    let subscriber = subscriber(&config.log, std::io::sink, Some(&spans));
    tracing::subscriber::with_default(subscriber, || info_span!("lost").in_scope(|| {}));
    Telemetry { spans: Some(spans) }.shutdown().await;
}

/// Log lines as they are written.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn logged(flags: &[(&'static str, &str)], what: impl FnOnce()) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = subscriber(&config(flags).log, move || writer.clone(), None);
    tracing::subscriber::with_default(subscriber, what);
    let bytes = lines.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn json_logs_are_one_object_a_line() {
    let text = logged(&[("log.format", "json")], || {
        info!(rows = 3, "uploaded");
        warn!("slow");
    });
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["message"], "uploaded");
    assert_eq!(lines[0]["rows"], 3);
    assert_eq!(lines[1]["level"], "WARN");
}

#[test]
fn other_crates_are_heard_from_warn_on_only() {
    let text = logged(&[("log.level", "trace")], || {
        debug!("ours");
        debug!(target: "hyper", "wire bytes");
        warn!(target: "hyper", "trouble");
    });
    assert!(text.contains("ours") && text.contains("trouble"), "{text}");
    assert!(!text.contains("wire bytes"), "{text}");
}

#[test]
fn text_logs_carry_no_colours_and_keep_the_level() {
    let text = logged(&[("log.level", "warn")], || {
        info!("quiet");
        warn!(free = 3, "disk nearly full");
    });
    assert!(!text.contains('\x1b') && !text.contains("quiet"), "{text}");
    assert!(text.contains("disk nearly full free=3"), "{text}");
}
