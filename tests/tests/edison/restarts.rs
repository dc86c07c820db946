//! `flowtap serve` killed again and again while it is asked and rows arrive: it keeps nothing that
//! could be lost, and nobody else notices.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flowtap_tests::process::{Folder, Process};
use flowtap_tests::{net, program, wait_until};
use serde_json::Value;

use crate::edison;

fn serve(store: &str, port: u16, folder: &Folder) -> Process {
    let mut command = Command::new(program("flowtap"));
    command.args(["serve", "--store", store, "--listen", &format!("127.0.0.1:{port}")]);
    Process::start("flowtap serve", &mut command, &folder.path().join("serve.log"))
}

fn get(port: u16, path: &str) -> Option<Value> {
    let (status, body) = net::http_get(port, path)?;
    (status == 200).then(|| serde_json::from_str(&body).ok())?
}

#[test]
fn a_server_that_is_killed_twenty_times_answers_the_same_each_time() {
    let Some(edison) = edison() else { return };
    let (folder, port) = (Folder::new("serve"), net::free_port());
    let mut server = serve(&edison.store(), port, &folder);
    // An order of the first load: nothing is added to it any more.
    let rows = || Some(get(port, "/api/v1/why?id=order-100003")?["flow"]["records"].clone());
    let mut before = Value::Null;
    wait_until("an early flow is whole", || {
        before = rows().unwrap_or_default();
        before.as_array().is_some_and(|rows| rows.len() > 20)
    });
    let ended = AtomicBool::new(false);
    std::thread::scope(|threads| {
        for path in ["/api/v1/flows", "/api/v1/why?id=order-100004", "/api/v1/agents"] {
            let ended = &ended;
            threads.spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    let _killed = net::http_get(port, path);
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
        let mut slowest = Duration::ZERO;
        for _ in 0..20 {
            server.kill9();
            let restarted = Instant::now();
            server = serve(&edison.store(), port, &folder);
            let mut after = None;
            wait_until("the server answers again", || {
                after = rows();
                after.is_some()
            });
            slowest = slowest.max(restarted.elapsed());
            assert!(after.as_ref() == Some(&before), "the same rows, in the same order");
        }
        eprintln!("the slowest of 20 restarts answered after {slowest:?}");
        ended.store(true, Ordering::Relaxed);
    });
    server.terminate();
    for entry in std::fs::read_dir(edison.folder()).expect("the run's folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("sidecar-") && name.ends_with(".log") {
            let log = std::fs::read_to_string(&path).expect("a log");
            assert!(!log.contains("ERROR"), "{name}: {log}");
        }
    }
}
