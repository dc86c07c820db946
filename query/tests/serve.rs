//! `flowtap serve` as a process, asked over HTTP: what it answers, and whom it does not.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use common::cars;
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};

struct Served {
    child: Child,
    url: String,
    client: Client,
    store: common::Inbox,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(store: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowtap"));
    command.args(["serve", "--store", store]).args(more);
    for variable in ["FLOWTAP_LOG", "FLOWTAP_STORE", "OTEL_EXPORTER_OTLP_ENDPOINT"] {
        command.env_remove(variable);
    }
    command.stderr(Stdio::piped());
    command
}

fn serve(more: &[&str]) -> Served {
    serve_at("127.0.0.1:0", more)
}

fn serve_at(listen: &str, more: &[&str]) -> Served {
    serve_with(listen, more, &[])
}

fn serve_with(listen: &str, more: &[&str], variables: &[(&str, &str)]) -> Served {
    let store = cars();
    let mut args = vec!["--listen", listen];
    args.extend(more);
    let mut command = command(&store.url(), &args);
    command.envs(variables.iter().copied());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let url = loop {
        let line = lines.next().expect("it says where it listens").unwrap();
        if let Some((_, rest)) = line.split_once("url=") {
            break rest.split(' ').next().unwrap().to_owned();
        }
    };
    // Nobody reads on; a few lines fit into the pipe.
    std::thread::spawn(move || lines.for_each(drop));
    Served { child, url, client: Client::builder().no_proxy().build().unwrap(), store }
}

impl Served {
    async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(body.to_owned()).send().await.unwrap()
    }

    async fn get(&self, path: &str) -> Value {
        let response = self.ask(Method::GET, path, &[], "").await;
        let status = response.status();
        let text = response.text().await.unwrap();
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    async fn sql(&self, question: Value) -> (StatusCode, String) {
        let json = [("content-type", "application/json")];
        let response = self.ask(Method::POST, "/api/v1/sql", &json, &question.to_string()).await;
        (response.status(), response.text().await.unwrap())
    }

    async fn refused(&self, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let response = self.ask(Method::GET, path, headers, "").await;
        let status = response.status().as_u16();
        let body = response.text().await.unwrap();
        let body: Value = serde_json::from_str(&body).unwrap_or_default();
        (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
    }
}

#[tokio::test]
async fn flows_and_why_tell_what_happened() {
    let served = serve(&[]);
    let list = served.get("/api/v1/flows").await;
    let flows: Vec<(&str, &str)> = list["flows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|flow| (flow["flow"].as_str().unwrap(), flow["state"].as_str().unwrap()))
        .collect();
    assert_eq!(
        flows,
        [
            ("order-1046", "unknown"),
            ("order-1045", "unknown"),
            ("order-1044", "broken"),
            ("order-1043", "healthy"),
            ("order-1042", "broken"),
        ]
    );
    let why = served.get("/api/v1/why?id=1042").await;
    assert_eq!(why["found"], "flow");
    assert_eq!(why["matched"][0]["name"], "order_id");
    assert_eq!(why["flow"]["verdict"]["headline"], "BROKEN at factory");
    assert_eq!(why["flow"]["verdict"]["evidence"][1]["row"]["seq"], 2);
    let flow = served.get("/api/v1/flows/order-1043").await;
    assert_eq!(flow["verdict"]["notes"][0], "nobody listens at exchange orders, key nowhere");
    assert_eq!(served.get("/api/v1/why?id=nothing").await["found"], "nothing");
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let served = serve(&[]);
    let names = |list: &Value| -> Vec<String> {
        let flows = list["flows"].as_array().unwrap().iter();
        flows.map(|flow| flow["flow"].as_str().unwrap().to_owned()).collect()
    };
    let broken = served.get("/api/v1/flows?state=broken").await;
    assert_eq!(names(&broken), ["order-1044", "order-1042"]);
    let two = served.get("/api/v1/flows?state=broken&state=healthy&service=factory").await;
    assert_eq!(names(&two), ["order-1042"]);
    assert_eq!(names(&served.get("/api/v1/flows?key=order_id%3D1042").await), ["order-1042"]);
    assert_eq!(names(&served.get("/api/v1/flows?text=e-3").await), ["order-1044"]);
    let (mut seen, mut path) = (Vec::new(), "/api/v1/flows?limit=2".to_owned());
    loop {
        let page = served.get(&path).await;
        seen.extend(names(&page));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/api/v1/flows?limit=2&cursor={next}");
    }
    assert_eq!(seen, ["order-1046", "order-1045", "order-1044", "order-1043", "order-1042"]);
    let late = served.get("/api/v1/flows?from=2026-11-21T12:00:02Z&to=2026-11-21T12:00:04Z").await;
    assert_eq!(names(&late), ["order-1045", "order-1044"]);
}

#[tokio::test]
async fn sql_is_answered_in_three_forms_and_only_reads() {
    let served = serve(&[]);
    let query = "SELECT kind, count(*) AS n FROM history WHERE kind = 'return' GROUP BY kind";
    let (status, text) = served.sql(json!({"query": query})).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["columns"][1], json!({"name": "n", "type": "Int64"}));
    assert_eq!(answer["rows"], json!([{"kind": "return", "n": 1}]));
    assert_eq!(answer["truncated"], false);
    let (_, csv) = served.sql(json!({"query": query, "format": "csv"})).await;
    assert_eq!(csv, "kind,n\nreturn,1\n");
    let json = [("content-type", "application/json")];
    let question = json!({"query": query, "format": "arrow"}).to_string();
    let arrow = served.ask(Method::POST, "/api/v1/sql", &json, &question).await;
    assert_eq!(arrow.headers()["content-type"], "application/vnd.apache.arrow.stream");
    let bytes = arrow.bytes().await.unwrap();
    let mut reader = arrow::ipc::reader::StreamReader::try_new(&bytes[..], None).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().num_rows(), 1);

    for wrong in ["DROP TABLE history", "SELECT 1; SELECT 2", "SELECT * FROM '/etc/passwd'", "x"] {
        let (status, text) = served.sql(json!({"query": wrong})).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}: {text}");
    }
    let (status, text) = served.sql(json!({"query": "SELECT 1", "more": 1})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{text}");
    // A query that would take all memory takes only its own process down.
    let hungry = "WITH RECURSIVE t(x, n) AS (SELECT 'aaaaaaaa', 1 UNION ALL SELECT concat(x, x), n + 1 FROM t WHERE n < 40) SELECT count(x) FROM t";
    let (status, _) = served.sql(json!({"query": hungry})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(served.get("/api/v1/why?id=1042").await["found"], "flow");
}

#[tokio::test]
async fn a_web_page_gets_nothing() {
    let served = serve(&["--host", "flowtap.example"]);
    let own = served.url.clone();
    let path = "/api/v1/agents";
    // DNS rebinding: the page's own name comes as Host.
    assert_eq!(served.refused(path, &[("host", "evil.example")]).await.0, 421);
    assert_eq!(served.refused(path, &[("host", "10.0.0.1:8080")]).await.0, 421);
    assert_eq!(served.refused(path, &[("host", "flowtap.example")]).await.0, 200);
    let foreign = [("origin", "http://evil.example")];
    assert_eq!(served.refused(path, &foreign).await, (403, "foreign_origin".to_owned()));
    assert_eq!(served.refused(path, &[("origin", "null")]).await.0, 403);
    assert_eq!(served.refused(path, &[("sec-fetch-site", "cross-site")]).await.0, 403);
    assert_eq!(served.refused(path, &[("origin", own.as_str())]).await.0, 200);
    // A form can post without asking first, but not as JSON.
    for headers in [
        &[("content-type", "text/plain")][..],
        &[("content-type", "application/x-www-form-urlencoded")],
        &[],
    ] {
        let answer = served.ask(Method::POST, "/api/v1/sql", headers, "{\"query\":\"SELECT 1\"}");
        assert_eq!(answer.await.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let json = [("content-type", "application/json"), ("origin", "http://evil.example")];
    let answer = served.ask(Method::POST, "/api/v1/sql", &json, "{\"query\":\"SELECT 1\"}");
    assert_eq!(answer.await.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn with_a_token_nobody_gets_in_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "0123456789abcdef\n").unwrap();
    let served = serve(&["--token-file", file.to_str().unwrap()]);
    for path in ["/", "/api/v1/flows", "/metrics", "/api/v1/openapi.json"] {
        assert_eq!(served.refused(path, &[]).await.0, 401, "{path}");
        let wrong = [("authorization", "Bearer 0123456789abcdeX")];
        assert_eq!(served.refused(path, &wrong).await.0, 401, "{path}");
        let right = [("authorization", "Bearer 0123456789abcdef")];
        assert_eq!(served.refused(path, &right).await.0, 200, "{path}");
        // base64 of anybody:0123456789abcdef
        let basic = [("authorization", "Basic YW55Ym9keTowMTIzNDU2Nzg5YWJjZGVm")];
        assert_eq!(served.refused(path, &basic).await.0, 200, "{path}");
    }
    assert_eq!(served.refused("/healthz", &[]).await.0, 200);
}

#[test]
fn off_loopback_it_wants_a_token_and_tls_or_the_word() {
    let store = cars();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "0123456789abcdef\n").unwrap();
    let token = ["--token-file", file.to_str().unwrap()];
    for more in [&[][..], &token] {
        let mut args = vec!["--listen", "0.0.0.0:0"];
        args.extend(more);
        let output = command(&store.url(), &args).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("can be reached from other machines"), "{said}");
    }
    let mut child =
        command(&store.url(), &["--listen", "0.0.0.0:0", "--insecure"]).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.contains("flowtap serves"), "{line}");
}

/// A certificate for `localhost`, its key and a token, as files.
fn secrets(folder: &std::path::Path) -> [String; 3] {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let files = [
        ("cert.pem", made.cert.pem()),
        ("key.pem", made.signing_key.serialize_pem()),
        ("token", "0123456789abcdef\n".to_owned()),
    ];
    files.map(|(name, text)| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    })
}

#[tokio::test]
async fn with_a_token_and_tls_it_serves_everybody_who_has_both() {
    let folder = tempfile::tempdir().unwrap();
    let [cert, key, token] = secrets(folder.path());
    let tls = ["--token-file", &token, "--tls-cert", &cert, "--tls-key", &key];
    let served = serve_at("0.0.0.0:0", &tls);
    let port = served.url.rsplit(':').next().unwrap();
    assert!(served.url.starts_with("https://"), "{}", served.url);
    let url = format!("https://localhost:{port}");
    let why = |trusted: &str, token: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_flowtap"))
            .args(["why", "1042", "--server", &url])
            .args(token)
            .env("SSL_CERT_FILE", trusted)
            .output()
            .unwrap()
    };
    let answered = why(&cert, &["--token-file", &token]);
    assert_eq!(answered.status.code(), Some(3), "{answered:?}");
    assert!(String::from_utf8_lossy(&answered.stdout).starts_with("BROKEN at factory"));
    let stranger = why(&cert, &[]);
    assert_eq!(stranger.status.code(), Some(1), "{stranger:?}");
    assert!(String::from_utf8_lossy(&stranger.stderr).contains("token"), "{stranger:?}");
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let untrusted = folder.path().join("other.pem");
    std::fs::write(&untrusted, other.cert.pem()).unwrap();
    let refused = why(untrusted.to_str().unwrap(), &["--token-file", &token]);
    assert_eq!(
        refused.status.code(),
        Some(1),
        "an unknown certificate is not trusted: {refused:?}"
    );
    // Plain HTTP gets nothing.
    let plain = served.client.get(format!("http://127.0.0.1:{port}/healthz")).send().await;
    assert!(plain.is_err(), "{plain:?}");
}

#[test]
fn a_certificate_and_a_key_that_do_not_go_together_are_refused_at_the_start() {
    let store = cars();
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let [cert, _, _] = secrets(one.path());
    let [_, key, token] = secrets(other.path());
    for (cert, key, word) in [
        (&cert, &key, "do not go together"),
        (&token, &key, "holds no PEM certificate"),
        (&cert, &token, "holds no PEM key"),
    ] {
        let args = ["--listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key];
        let output = command(&store.url(), &args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(word) && !said.contains("0123456789abcdef"), "{said}");
    }
}

#[tokio::test]
async fn more_queries_than_it_runs_at_a_time_wait_their_turn_and_then_are_told_that_it_is_busy() {
    let served = serve(&[]);
    let endless = json!({"query": "SELECT count(*) FROM generate_series(1, 1000000000) a, generate_series(1, 1000000000) b"});
    let json = [("content-type", "application/json")];
    let question = endless.to_string();
    let long = || served.ask(Method::POST, "/api/v1/sql", &json, &question);
    let third = async {
        // The two are running by then.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        served.sql(json!({"query": "SELECT 1"})).await
    };
    let (status, text) = tokio::select! {
        _ = futures::future::join(long(), long()) => panic!("they end after half a minute"),
        answer = third => answer,
    };
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text.contains("\"busy\""), "{text}");
}

#[tokio::test]
async fn a_flow_is_found_by_the_type_of_one_of_its_messages() {
    let served = serve(&[]);
    let count = |list: &Value| list["flows"].as_array().unwrap().len();
    assert_eq!(count(&served.get("/api/v1/flows?type=PaymentTaken").await), 4);
    assert_eq!(count(&served.get("/api/v1/flows?type=CarBuilt").await), 0);
}

#[tokio::test]
async fn a_store_that_goes_away_does_not_silence_the_server() {
    let served = serve(&[]);
    let before = served.get("/api/v1/flows").await;
    assert_eq!(before["coverage"]["stale"], false);
    let inbox = served.store.folder.path().join("inbox");
    let moved = served.store.folder.path().join("moved");
    std::fs::rename(&inbox, &moved).unwrap();
    // Not a folder any more: it cannot be listed.
    std::fs::write(&inbox, "").unwrap();
    let mut answer = Value::Null;
    for _ in 0..100 {
        answer = served.get("/api/v1/flows").await;
        if answer["coverage"]["stale"] == true {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(answer["coverage"]["stale"], true, "{answer}");
    assert_eq!(answer["flows"].as_array().unwrap().len(), 5);
    let metrics = served.ask(Method::GET, "/metrics", &[], "").await.text().await.unwrap();
    assert!(metrics.contains("flowtap_catalog_age_seconds "), "{metrics}");
    assert_eq!(served.refused("/healthz", &[]).await.0, 200, "a minute has not passed");
}

/// A collector that takes every request and hands out its body.
async fn collector() -> (String, tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, requests) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut buffer = Vec::new();
                while stream.read_buf(&mut buffer).await.is_ok_and(|read| read > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                    let Some(head) = buffer.windows(4).position(|it| it == b"\r\n\r\n") else {
                        continue;
                    };
                    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
                    let length = text.lines().find_map(|it| it.strip_prefix("content-length: "));
                    let end = head + 4 + length.unwrap().trim().parse::<usize>().unwrap();
                    if buffer.len() < end {
                        continue;
                    }
                    let _ = sender.send(buffer.drain(..end).collect());
                    stream.write_all(answer).await.unwrap();
                }
            });
        }
    });
    (url, requests)
}

#[tokio::test]
async fn its_own_work_is_traced_and_what_people_ask_for_is_not_in_it() {
    let (endpoint, mut requests) = collector().await;
    let served = serve_with("127.0.0.1:0", &[], &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
    served.get("/api/v1/why?id=1042").await;
    let mut sent = Vec::new();
    let names = ["/api/v1/why", "refresh", "statuses", "list", "index", "read", "judge"];
    let has = |sent: &[u8], name: &str| sent.windows(name.len()).any(|it| it == name.as_bytes());
    let all = async {
        while !names.iter().all(|name| has(&sent, name)) {
            sent.extend(requests.recv().await.unwrap());
        }
    };
    let done = tokio::time::timeout(std::time::Duration::from_secs(30), all).await;
    assert!(done.is_ok(), "{:?}", names.map(|name| (name, has(&sent, name))));
    assert!(!has(&sent, "1042"), "what was asked for is in a span");
}

#[tokio::test]
async fn wrong_questions_are_answered_with_what_would_be_right() {
    let served = serve(&[]);
    for (path, status, code) in [
        ("/api/v1/flows?state=sad", 400, "bad_request"),
        ("/api/v1/flows?limit=0", 400, "bad_request"),
        ("/api/v1/flows?from=today", 400, "bad_request"),
        ("/api/v1/flows?colour=red", 400, "bad_request"),
        ("/api/v1/flows?cursor=x", 400, "bad_request"),
        ("/api/v1/why", 400, "bad_request"),
        ("/api/v1/why?id=", 400, "bad_request"),
        ("/api/v1/flows/none", 404, "no_such_flow"),
        ("/api/v1/none", 404, "no_such_path"),
        ("/api/v2/flows", 404, "no_such_path"),
        ("/api/v1/sql", 405, "wrong_method"),
    ] {
        let got = served.refused(path, &[]).await;
        assert_eq!(got, (status, code.to_owned()), "{path}");
    }
}

#[tokio::test]
async fn pages_metrics_health_map_and_document_are_there() {
    let served = serve(&[]);
    for path in ["/", "/flows/order-1042", "/agents"] {
        let page = served.ask(Method::GET, path, &[], "").await;
        assert_eq!(page.status(), StatusCode::OK);
        assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    }
    assert_eq!(served.refused("/assets/none.js", &[]).await.0, 404);
    assert_eq!(served.refused("/healthz", &[]).await.0, 200);
    served.get("/api/v1/flows").await;
    let metrics = served.ask(Method::GET, "/metrics", &[], "").await.text().await.unwrap();
    assert!(metrics.contains("flowtap_requests_total{route=\"/api/v1/flows\",status=\"200\"} 1"));
    assert!(metrics.contains("flowtap_rows 14"), "{metrics}");
    assert_eq!(served.get("/api/v1/openapi.json").await["openapi"], "3.1.0");
    let map = served.get("/api/v1/map").await;
    let edges = map["edges"].as_array().unwrap();
    assert!(edges.iter().any(|edge| edge["from"] == "service:shop" && edge["messages"] == 4));
    assert_eq!(served.get("/api/v1/agents").await["agents"], json!([]));
}
