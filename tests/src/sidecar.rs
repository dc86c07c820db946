//! The agent beside one service: configured, started, ready, killed, asked what it logged.

use std::fmt::Write as _;
use std::process::{Command, ExitStatus};

use crate::process::{Folder, Process};
use crate::{net, program, wait_until};

/// How an agent is to be started. Ports and folders are its own unless given.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The service's name.
    pub service: String,
    /// The port of the broker on loopback.
    pub broker_port: u16,
    /// The brokers of a Kafka cluster as `host:port,...`: then the tap is one for Kafka.
    pub kafka: Option<String>,
    /// Where rows go.
    pub store: String,
    /// Environment, as [`crate::s3::S3Server::env`] gives it.
    pub env: Vec<(String, String)>,
    /// Lines of `agent.toml` before its first table, as `drain = "1s"`.
    pub lines: Vec<String>,
    /// Lines of its `[[tap]]`, as `detect_unroutable = false`.
    pub tap: Vec<String>,
    /// Further tables, as `[record]\npayload = "all"`.
    pub tables: Vec<String>,
    /// The spool's folder if it shall not be the agent's own, as on a [`crate::disk::StallableDisk`].
    pub spool: Option<std::path::PathBuf>,
}

impl Options {
    /// An agent of a service in front of a broker, with everything else as it is by default.
    pub fn new(service: &str, broker_port: u16, store: impl Into<String>) -> Self {
        Self { service: service.to_owned(), broker_port, store: store.into(), ..Self::default() }
    }

    /// An agent of a service in front of a Kafka cluster, with everything else as it is by default.
    pub fn kafka(service: &str, brokers: impl Into<String>, store: impl Into<String>) -> Self {
        Self {
            service: service.to_owned(),
            kafka: Some(brokers.into()),
            store: store.into(),
            ..Self::default()
        }
    }
}

/// How many ports the tap of a Kafka cluster gets for its brokers, above its own.
pub const BROKERS: u16 = 8;

/// A running agent.
#[derive(Debug)]
pub struct Sidecar {
    port: u16,
    admin_port: u16,
    env: Vec<(String, String)>,
    // Before the folder: what writes into it must be gone first.
    process: Process,
    folder: Folder,
}

impl Sidecar {
    /// Starts an agent and waits until it is ready.
    pub fn start(options: &Options) -> Self {
        let folder = Folder::new("sidecar");
        let admin_port = net::free_port();
        let port = net::free_ports(1 + if options.kafka.is_some() { BROKERS } else { 0 });
        let own_spool = folder.path().join("spool");
        let spool = options.spool.as_ref().unwrap_or(&own_spool);
        let mut config = String::new();
        let mut line = |text: &str| writeln!(config, "{text}").expect("a string takes all");
        line(&format!("service = {:?}", options.service));
        line(&format!("store = {:?}", options.store));
        options.lines.iter().for_each(|text| line(text));
        line(&format!("[spool]\npath = {:?}", spool.display().to_string()));
        line(&format!("[admin]\nlisten = \"127.0.0.1:{admin_port}\""));
        options.tables.iter().for_each(|text| line(text));
        line("[[tap]]");
        line(if options.kafka.is_some() { "kind = \"kafka\"" } else { "kind = \"amqp\"" });
        let given = |key| options.tap.iter().any(|text| text.trim_start().starts_with(key));
        if !given("listen") {
            line(&format!("listen = \"127.0.0.1:{port}\""));
        }
        if !given("broker") {
            line(&match &options.kafka {
                Some(brokers) => format!("broker = {brokers:?}"),
                None => format!("broker = \"amqp://127.0.0.1:{}\"", options.broker_port),
            });
        }
        if options.kafka.is_some() && !given("ports") {
            line(&format!("ports = \"{}-{}\"", port + 1, port + BROKERS));
        }
        options.tap.iter().for_each(|text| line(text));
        std::fs::write(folder.path().join("agent.toml"), config).expect("our own folder");

        let process = spawn(&folder, &options.env);
        let mut sidecar = Self { port, admin_port, env: options.env.clone(), process, folder };
        sidecar.await_ready();
        sidecar
    }

    fn await_ready(&mut self) {
        wait_until("the sidecar is ready", || {
            if let Some(status) = self.process.ended() {
                self.process.print_log();
                panic!("the sidecar ended while it started: {status}");
            }
            net::http_get(self.admin_port, "/readyz").is_some_and(|(status, _)| status == 200)
        });
    }

    /// The port that the service connects to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Whether it has not ended yet.
    pub fn runs(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// Its `/metrics`.
    pub fn metrics(&self) -> String {
        net::http_get(self.admin_port, "/metrics").expect("the admin port answers").1
    }

    /// The port of `/metrics`, `/livez` and `/readyz`.
    pub fn admin_port(&self) -> u16 {
        self.admin_port
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// The folder with its configuration, spool and log.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Kills it as a power cut would.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Starts it again with the same configuration, ports and spool.
    pub fn restart(&mut self) {
        self.process.kill9();
        self.process = spawn(&self.folder, &self.env);
        self.await_ready();
    }

    /// Asks it to end and waits: after that, everything it saw is in the store. Panics unless it
    /// says that all is well.
    pub fn terminate(&mut self) {
        let status: ExitStatus = self.process.terminate();
        if !status.success() {
            self.process.print_log();
            panic!("the sidecar ended with {status}");
        }
    }
}

fn spawn(folder: &Folder, env: &[(String, String)]) -> Process {
    let mut command = Command::new(program("flowtap-agent"));
    // The agent takes every FLOWTAP_* variable for a key of its own: those of the tests are not.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FLOWTAP_")) {
        command.env_remove(name);
    }
    command.arg("--config").arg(folder.path().join("agent.toml")).envs(env.iter().cloned());
    command.env("RUST_BACKTRACE", "1");
    Process::start("sidecar", &mut command, &folder.path().join("agent.log"))
}
