//! The program as operators start, ask and stop it.
#![allow(clippy::unwrap_used, reason = "helpers of tests count as no tests for this lint")]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

fn agent(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowtap-agent"));
    command.args(args).env_clear().stdin(Stdio::null());
    command
}

fn output(args: &[&str]) -> Output {
    agent(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A running agent; killed when the test ends.
struct Running {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Running {
    fn start(folder: &Path, variables: &[(&str, &str)]) -> Self {
        let store = folder.join("store").display().to_string();
        let spool = folder.join("spool").display().to_string();
        let mut child = agent(&[
            "--service=shop",
            "--tap=amqp 127.0.0.1:0 amqp://127.0.0.1:1",
            "--admin=127.0.0.1:0",
            "--log-format=json",
            &format!("--store={store}"),
            &format!("--spool={spool}"),
        ])
        .envs(variables.iter().copied())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log }
    }

    /// Waits for a log line with this message.
    fn line(&mut self, message: &str) -> serde_json::Value {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "no {message:?} in\n{seen}");
            let json: serde_json::Value = serde_json::from_str(&line).unwrap();
            if json["message"] == message {
                return json;
            }
            seen.push_str(&line);
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_wrong_configuration_ends_with_2_and_all_that_is_wrong() {
    for command in [&[][..], &["check"], &["probe", "live"]] {
        let mut args = vec!["--drain=soon", "--tap=amqp x y"];
        args.extend(command);
        let output = output(&args);
        assert_eq!(output.status.code(), Some(2), "{command:?}");
        let errors = text(&output.stderr);
        assert!(errors.starts_with("4 errors in the configuration\n"), "{errors}");
    }
}

#[test]
fn an_unknown_flag_ends_with_2() {
    let output = output(&["--servce=shop"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--service"), "{}", text(&output.stderr));
}

#[test]
fn the_version_is_told() {
    let output = output(&["--version"]);
    assert_eq!(text(&output.stdout), format!("flowtap-agent {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn check_ends_with_1_when_something_cannot_be_reached() {
    let folder = tempfile::tempdir().unwrap();
    let output = output(&[
        "check",
        "--service=shop",
        "--tap=amqp 127.0.0.1:5673 amqp://127.0.0.1:1",
        &format!("--store={}", folder.path().join("store").display()),
        &format!("--spool={}", folder.path().join("spool").display()),
    ]);
    assert_eq!(output.status.code(), Some(1));
    let lines = text(&output.stdout);
    assert!(lines.contains("FAIL  tap[0] 127.0.0.1:5673 broker 127.0.0.1:1"), "{lines}");
    assert!(lines.contains("put, get and delete work"), "{lines}");
}

#[test]
fn a_running_agent_answers_probes_and_ends_with_0_when_told_to() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = tempfile::tempdir().unwrap();
        let mut running = Running::start(folder.path(), &[]);
        let admin = running.line("admin port bound")["listen"].as_str().unwrap().to_owned();
        running.line("started");
        let probe = |what| {
            let tap = "--tap=amqp 127.0.0.1:0 amqp://127.0.0.1:1";
            output(&["probe", what, "--service=shop", tap, &format!("--admin={admin}")])
        };
        let live = probe("live");
        assert_eq!(live.status.code(), Some(0), "{}", text(&live.stderr));
        running.signal(signal);
        running.line("stopped");
        assert_eq!(running.child.wait().unwrap().code(), Some(0));
        let gone = probe("live");
        assert_eq!(gone.status.code(), Some(1));
        assert!(text(&gone.stderr).contains("does not answer"), "{}", text(&gone.stderr));
        let mut rest = String::new();
        running.log.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
    }
}

#[test]
fn a_collector_that_cannot_be_used_keeps_no_agent_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector.test:4318");
    let mut running = Running::start(folder.path(), &[endpoint]);
    let warning = running.line("no spans of the agent's own work");
    assert!(warning["error"].as_str().unwrap().contains("http:// only"), "{warning}");
    running.line("started");
}
